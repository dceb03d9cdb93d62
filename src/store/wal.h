/* The commit log of one collection: an append-only sequence of records in numbered files, the truth
 * that everything else is derived from.
 *
 *   file:   [ header 4 KiB ][ group ][ group ] ... [ zeros, allocated ahead ]
 *   group:  [ header ][ u32 length, record ] ... padded to 64 bytes
 *
 * Group commit: wal_append queues a record; wal_wait lets the first waiter write everything queued
 * as one group with one sync, while the others wait for it. Groups are numbered without gaps over
 * all files and carry the collection's id, so that a torn end can be told from damage: an invalid
 * group with a valid one behind it is ERR_CORRUPT, never cut off.
 *
 * A failed write or sync is final: the log takes nothing more (what reached the disk is unknown).
 */
#ifndef LOADSTONE_STORE_WAL_H
#define LOADSTONE_STORE_WAL_H

#include "base/bytes.h"
#include "io/io.h"

struct wal;

typedef enum err (*wal_replay_fn)(void *arg, const void *record, size_t n, struct err_ctx *ctx);

/* Creates log file `number` in `dir` with its first group to come being `first_group`. */
WARN_UNUSED enum err wal_create(struct io *io, const char *dir, const uint8_t collection_id[16],
                                uint64_t number, uint64_t first_group, struct wal **out,
                                struct err_ctx *ctx);
/* Replays the files `number`, number + 1, ... that are there, in order, then opens the last for
 * appending, cutting off a torn last group. ERR_CORRUPT when a group in the middle is damaged. */
WARN_UNUSED enum err wal_open(struct io *io, const char *dir, const uint8_t collection_id[16],
                              uint64_t number, wal_replay_fn fn, void *arg, struct wal **out,
                              struct err_ctx *ctx);
void wal_close(struct wal *w); /* NULL is allowed; queued records that nobody waits for are lost */

/* At a clean stop: writes an empty group, so that damage to the last one with records is told from
 * a torn write, which nothing can follow. */
WARN_UNUSED enum err wal_end(struct wal *w, struct err_ctx *ctx);

/* Queues a record (copied) and returns its ticket. ERR_UNAVAILABLE after a failure. */
WARN_UNUSED enum err wal_append(struct wal *w, const void *record, size_t n, uint64_t *ticket,
                                struct err_ctx *ctx);
/* Returns when the record is durable, or with the error that will keep it from ever being so. */
WARN_UNUSED enum err wal_wait(struct wal *w, uint64_t ticket, struct err_ctx *ctx);

/* Whether the record is durable, without waiting. */
bool wal_durable(struct wal *w, uint64_t ticket);

/* Makes the file that the next rotation begins, filled with zeros, when the current one has grown;
 * what cannot be done here the rotation does itself. Not beside another of these two. */
void wal_prepare(struct wal *w);
/* Removes it again, if there is one that no rotation took. */
void wal_unprepare(struct wal *w);
/* Makes everything queued durable, then goes on in a new file; *number is the new file's. */
WARN_UNUSED enum err wal_rotate(struct wal *w, uint64_t *number, struct err_ctx *ctx);
uint64_t wal_number(const struct wal *w);
uint64_t wal_bytes(struct wal *w);      /* in the current file */
uint64_t wal_next_group(struct wal *w); /* number of the next group */
/* Groups written since the start, and records in them: for metrics and tests of group commit. */
void wal_stats(struct wal *w, uint64_t *groups, uint64_t *records);

/* dir/<number as 16 hex digits>.<suffix> */
void wal_path(const char *dir, uint64_t number, const char *suffix, char *out, size_t cap);

/* Reads a file's header: ERR_CORRUPT when it is damaged. Gives the collection's id. */
WARN_UNUSED enum err wal_read_id(struct io *io, const char *dir, uint64_t number, uint8_t id[16],
                                 struct err_ctx *ctx);

#endif
