/* What the files of the collection share: collection.c (life), open.c (start), replay.c (the log
 * again), commit.c (committing), resolve.c (keys), plan.c (versions), alter.c (schemas), load.c
 * (gathering), seal.c (tail to file), checkpoint.c (manifests), history*.c and version*.c (older
 * versions), tags.c, registry.c (segments). Nobody else includes this.
 *
 *   dir lock:     shared while files are made, renamed or removed by name; a drop takes it alone
 *                 and detaches the collection from its directory, whose name is free from then on
 *                 (the last to be taken; sealing does without: a drop waits for the seal lock too)
 *   commit lock:  head, tail, wal order, publication   (held briefly; never while waiting for a
 *                 sync of one's own record)
 *   seal lock:    one sealing at a time                (taken before the commit lock)
 *   tag lock:     one change of a tag at a time        (taken before the commit lock)
 *   history lock, registry lock: leaves, in this order (history.h, registry.h)
 *
 * `head` is the newest version whose record is queued; `current` the newest that is durable.
 * Writers resolve against head, readers read current. When the log fails, head is never published
 * and the collection is read-only. */
#ifndef LOADSTONE_STORE_COLLECTION_INTERNAL_H
#define LOADSTONE_STORE_COLLECTION_INTERNAL_H

#include <pthread.h>

#include "base/hash.h"
#include "store/catalog.h"
#include "store/history.h"
#include "store/load.h"
#include "store/record.h"
#include "store/registry.h"
#include "store/tags.h"
#include "store/tail.h"
#include "store/wal.h"

enum { PATH_CAP = 4200 };

/* What stood in head and beside it at the start of a log file: the checkpoint to be written. */
struct rotation {
    struct snapshot *state; /* every tail in it is closed */
    uint64_t number;        /* of the log file */
    uint64_t next_id, group, items, horizon;
    struct buf kept;     /* u64 */
    struct buf registry; /* struct segment_ref */
    struct tags *tags;   /* a copy */
};

/* What a vacuum looked at that found every file needed: the same needs no second look. */
struct surveyed {
    bool valid;
    uint64_t items, registry_changes, horizon;
    struct hash128 kept;
};

struct collection {
    atomic_uint refs;
    char name[NAME_MAX_BYTES + 1];
    char *dir;
    uint8_t id[16];
    struct io *io;
    const struct store_hooks *hooks; /* borrowed from the catalog */

    pthread_mutex_t commit_lock;
    pthread_cond_t sealed; /* the tail shrank, or sealing failed */
    struct snapshot *head;
    struct snapshot *_Atomic current;
    struct segment *tail; /* the active one; referenced */
    struct wal *wal;
    uint64_t last_ticket;
    uint64_t items;         /* records after CREATE; under the commit lock */
    uint64_t restores;      /* that brought segments back since the start; under the commit lock */
    uint64_t purges;        /* begun and ended: odd while one runs; under the commit lock */
    struct tags *tags_head; /* the newest whose record is queued */
    struct tags *_Atomic tags;
    pthread_mutex_t tag_lock;
    struct history history;
    struct registry registry;
    struct row_builder apply_row; /* for plan_apply, under the commit lock */
    float *apply_vector;          /* dim floats */
    int64_t last_commit_us;       /* monotonic, for idle sealing */
    _Atomic uint64_t next_segment_id;

    pthread_mutex_t alter_lock; /* for callers: collection_alter_begin */

    pthread_mutex_t seal_lock;
    struct rotation *rotated; /* NULL = checkpointed; changed under both locks */
    bool checkpoint_due;      /* one is asked for, whatever has come; under the commit lock */
    enum err seal_err;        /* of the last sealing; both under the commit lock */
    char seal_error[1024];    /* its sentence; empty when it went well */

    atomic_uint upkeep_waiting;  /* threads that want upkeep_lock */
    pthread_mutex_t upkeep_lock; /* one compaction, vacuum or purge; taken before all others */
    atomic_bool upkeep_cancel;   /* being closed or dropped: end what is under way */
    bool compact_waits;          /* for room on the disk; under upkeep_lock, as are: */
    uint64_t compact_bytes_max;  /* and the moments of the next tries: */
    int64_t compact_retry_us, retention_us;
    struct buf condemned; /* u64: segments let go by a vacuum, whose files are still there */
    struct surveyed surveyed;

    pthread_rwlock_t dir_lock;
    bool detached; /* under the dir lock: what is at `dir` is another's, or nothing */

    struct sessions *sessions; /* open loads */
    struct receipts *receipts;

    atomic_bool dropped;
    atomic_bool read_only;
    char read_only_reason[1024]; /* set before read_only */
};

/* ---- collection.c ---- */

/* Makes the directory of a new collection under `dir` (which must not exist): log with the CREATE
 * record, empty folders. Durable but for the name of `dir` itself. */
WARN_UNUSED enum err collection_init_dir(struct io *io, const char *dir, struct schema *schema,
                                         uint64_t base_version, struct err_ctx *ctx);
/* Tells the hook of every file segment of the newest version. */
void collection_announce(struct collection *c);

/* A drop or a quarantine: between these two nobody touches the directory by name; `detach` makes
 * that last for good. */
void collection_own_dir(struct collection *c);
void collection_disown_dir(struct collection *c, bool detach);

/* At a clean stop: marks the end of the log. */
void collection_end(struct collection *c);

/* With the commit lock: readers see `s` from here on, unless they see something newer already. */
void collection_publish(struct collection *c, struct snapshot *s);
void collection_set_read_only(struct collection *c, const char *reason);
/* With the commit lock: ERR_UNAVAILABLE / ERR_NOT_FOUND when writes are not taken. */
WARN_UNUSED enum err collection_check_writable(struct collection *c, struct err_ctx *ctx);
/* ERR_CORRUPT when the registry knows that id: no id is used twice. */
WARN_UNUSED enum err collection_check_unknown(struct collection *c, uint64_t segment_id,
                                              struct err_ctx *ctx);
/* The id is in use: the next one is behind it. */
void collection_note_segment_id(struct collection *c, uint64_t id);
void segment_file_path(const struct collection *c, const char *folder, uint64_t id, char *out,
                       size_t cap);

/* Another tail becomes the active one; room for it in the registry was reserved. An empty one that
 * it replaces is forgotten. With the commit lock, or at open. */
void collection_set_tail(struct collection *c, struct segment *tail);

/* ---- open.c ---- */

/* Opens: checkpoint, log, segments. One reference is the caller's. */
WARN_UNUSED enum err collection_open(struct io *io, const char *name, const char *dir,
                                     const struct store_hooks *hooks, struct collection **out,
                                     struct err_ctx *ctx);
/* Without anything but its locks and its directory; NULL: no memory. (collection.c) */
struct collection *collection_alloc(struct io *io, const char *name, const char *dir,
                                    const struct store_hooks *hooks);

/* ---- replay.c ---- */

/* One record of the log, applied to head; `arg` is the collection. */
WARN_UNUSED enum err replay_record(void *arg, const void *record, size_t n, struct err_ctx *ctx);
/* Memory that plan_apply decodes rows into. */
WARN_UNUSED enum err collection_init_apply(struct collection *c, struct err_ctx *ctx);
/* The log moved on to a new tail: the old one stays a view until it is sealed. */
WARN_UNUSED enum err collection_switch_tail(struct collection *c, uint64_t id, struct err_ctx *ctx);
struct snapshot *snapshot_empty(struct schema *schema, uint64_t version); /* NULL: no memory */

/* ---- checkpoint.c ---- */

/* The checkpoint at the start of log `number` becomes head, base and all else of `c`. */
WARN_UNUSED enum err checkpoint_load(struct collection *c, uint64_t number, struct err_ctx *ctx);
/* ERR_CORRUPT, naming the file, unless it is a checkpoint of some collection. */
WARN_UNUSED enum err checkpoint_check_file(struct io *io, const char *path, struct err_ctx *ctx);
/* With the commit lock, at the start of log `number`: notes what the checkpoint will hold. */
WARN_UNUSED enum err rotation_new(struct collection *c, uint64_t number, struct rotation **out,
                                  struct err_ctx *ctx);
void rotation_free(struct rotation *r); /* NULL is allowed */
/* With the seal lock; every tail of c->rotated is a file. History first, then the checkpoint, then
 * older logs and checkpoints go. */
WARN_UNUSED enum err checkpoint_write(struct collection *c, struct err_ctx *ctx);

/* ---- plan.c ---- */

/* What a record does to the views; complete before the record is queued. */
struct plan {
    struct commit_record rec; /* borrows from the record's bytes; of a compaction: empty */
    struct snapshot *next;
    struct segment **added; /* for the registry; referenced */
    size_t nadded;
};
/* With the commit lock. `added` are the record's segments, opened, in its order, none of which the
 * registry knows. */
WARN_UNUSED enum err plan_commit(struct collection *c, const void *record, size_t n,
                                 struct segment **added, struct plan *out, struct err_ctx *ctx);
/* The same for a compaction. */
WARN_UNUSED enum err plan_compact(struct collection *c, const void *record, size_t n,
                                  struct segment **added, struct plan *out, struct err_ctx *ctx);
/* At replay: ERR_CORRUPT unless the inline rows decode and take the room that the record says. */
WARN_UNUSED enum err plan_check_rows(struct collection *c, const struct commit_record *r,
                                     struct err_ctx *ctx);
/* With the commit lock; cannot fail: appends the inline rows, tells the registry of the segments
 * and makes plan->next the head. */
void plan_apply(struct collection *c, struct plan *p);
/* Counts, and lets go of views without a row; the active tail stays, for its row numbers. For a
 * snapshot that nobody else sees yet. */
void plan_settle(struct collection *c, struct snapshot *s);
void plan_deinit(struct plan *p);

/* ---- alter.c ---- */

WARN_UNUSED enum err replay_alter(struct collection *c, const void *record, size_t n,
                                  struct err_ctx *ctx);

/* ---- commit.c ---- */

struct load_input;
WARN_UNUSED enum err collection_commit(struct load_input *in, struct commit_result *out,
                                       struct err_ctx *ctx);
/* With the commit lock, once a record is made: plans it, queues it and makes it the head. *next is
 * referenced: hand it to commit_publish with the ticket. */
WARN_UNUSED enum err commit_queue(struct collection *c, const struct buf *record,
                                  struct segment **added, struct snapshot **next, uint64_t *ticket,
                                  struct err_ctx *ctx);
/* Without it: waits for the record to be durable, then readers see `next`, which is released. */
WARN_UNUSED enum err commit_publish(struct collection *c, struct snapshot *next, uint64_t ticket,
                                    struct err_ctx *ctx);
/* With the commit lock: writable, expected_version, room in the tail (waits for it). */
WARN_UNUSED enum err commit_preconditions(struct collection *c, const struct load_options *o,
                                          struct err_ctx *ctx);
/* The next version's number and time. */
void commit_stamp(const struct collection *c, struct commit_meta *m, enum load_mode mode,
                  uint64_t rows);
/* Message, metadata and receipt; borrowed from the options. */
void commit_describe(struct commit_meta *m, const struct load_options *o);
struct commit_result commit_result_of(const struct commit_meta *m);
/* Counts the commit in the metrics, and gives its result. */
void commit_answer(const struct commit_meta *m, uint64_t since_us, struct commit_result *out);
WARN_UNUSED enum err commit_check_expected(struct collection *c, const struct load_options *o,
                                           struct err_ctx *ctx);

/* ---- seal.c ---- */

/* True when the tail or the log is due: for the maintenance thread. */
bool collection_wants_seal(struct collection *c);
/* With the commit lock: waits while the tail is over its hard limit. */
WARN_UNUSED enum err collection_wait_for_room(struct collection *c, struct err_ctx *ctx);
/* The same while the tails that wait to become files are over it: before one more is closed. */
WARN_UNUSED enum err collection_wait_to_close_tail(struct collection *c, struct err_ctx *ctx);
/* Seals although nothing is due: behind what was logged before the call stands a checkpoint then.
 */
WARN_UNUSED enum err collection_checkpoint(struct collection *c, struct err_ctx *ctx);
/* A copy with segment `old` (NULL for none) replaced by `file`, which has the same rows. */
struct snapshot *snapshot_replace(const struct snapshot *s, const struct segment *old,
                                  struct segment *file);

#endif
