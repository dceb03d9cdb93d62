/* A collection: its commits, its newest snapshot, its files.
 *
 *   data/<collection>/log/       commit log and checkpoints (log.h)
 *                     segments/  <id>.seg
 *                     index/     <id>.ann        (written by index/, named by segment)
 *                     staging/   open loads
 *
 * Rows are read under the snapshot's schema; a segment may have been written under an older one,
 * whose features are the first of it, and reads as null in the others.
 *
 * Writers: prepare outside, resolve and enqueue a log record under the commit lock, wait for the
 * group's sync, then publish. Readers: collection_snapshot inside an epoch section. */
#ifndef LOADSTONE_STORE_COLLECTION_H
#define LOADSTONE_STORE_COLLECTION_H

#include "store/snapshot.h"

struct collection;

const char *collection_name(const struct collection *c);
const char *collection_dir(const struct collection *c);   /* absolute or as given to the catalog */
const uint8_t *collection_id(const struct collection *c); /* 16 bytes */

/* The newest durable version. Borrowed: valid until the caller's epoch_leave, or acquire it. */
struct snapshot *collection_snapshot(const struct collection *c);
/* The newest schema; one reference is the caller's. Outside an epoch section. */
struct schema *collection_schema(const struct collection *c);

/* References for who holds a collection outside an epoch section (builds, loads). */
struct collection *collection_acquire(struct collection *c);
void collection_release(struct collection *c);

/* True once dropped: background work should stop. */
bool collection_dropped(const struct collection *c);

/* Who makes, renames or removes a file under collection_dir does so between these two: a drop waits
 * meanwhile, and afterwards, when a namesake may have taken the directory's name, entering fails:
 * ERR_NOT_FOUND (dropped), ERR_UNAVAILABLE (quarantined). Short, and not nested. Reading needs
 * neither: files name the collection by its id. */
WARN_UNUSED enum err collection_enter_dir(struct collection *c, struct err_ctx *ctx);
void collection_leave_dir(struct collection *c);

/* Writes the tail into a segment file now if it has rows, then a checkpoint. Called by the
 * maintenance thread and at shutdown; safe beside loads. */
WARN_UNUSED enum err collection_seal(struct collection *c, struct err_ctx *ctx);

/* Changes the schema: `next`, made by schema_copy of the newest snapshot's schema and sealed, has
 * the same features first and maybe more behind them, and its own index and retention settings.
 * Durable when it returns; makes no version: the newest one is read with the new schema, open loads
 * go on under theirs. No change is no error. ERR_CONFLICT when the schema was changed since it was
 * copied. The caller keeps its reference. */
WARN_UNUSED enum err collection_alter(struct collection *c, struct schema *next,
                                      struct err_ctx *ctx);
/* Who copies and alters between these two conflicts with nobody who does the same. */
void collection_alter_begin(struct collection *c);
void collection_alter_end(struct collection *c);

/* NULL while writes are taken; else the reason why the collection is read-only. */
const char *collection_read_only(const struct collection *c);

#endif
