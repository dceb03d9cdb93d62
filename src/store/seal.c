/* Sealing: the tail becomes a segment file, the log a checkpoint.
 *
 *   rotate      commit lock: a new log file and a new active tail; note what stands in head
 *   write       no lock: each tail that is no longer active -> segments/<same id>.seg, whether the
 *               newest version still sees it or only older ones do
 *   swap        commit lock: head with the file in the tail's place; rows, numbers, dead rows as
 *               they were; published once what head holds is durable
 *   checkpoint  checkpoint.c: history files, then the manifest; then older logs and checkpoints go
 *
 * A crash or an error between any two steps leaves the older checkpoint and all logs since, which
 * rebuild the tails in memory; the next sealing goes on where this one stopped. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/collection_internal.h"
#include "store/segment_writer.h"

METRIC_HISTOGRAM(seal_time, "loadstone_seal_duration_seconds",
                 "Time to write a tail as a segment file and the checkpoint after it.")
METRIC_COUNTER(seal_failures, "loadstone_seal_failures_total",
               "Sealings that failed; each is tried again.")

enum {
    LOG_BYTES_SOFT = 64 << 20,
    IDLE_US = 1000 * 1000,
    IDLE_ROWS_MIN = 1000, /* worth a segment of its own, so that it can be indexed ... */
    IDLE_SHARE = 8, /* ... when it is this part of all rows: few segments, however many loads */
    COMMITS_SOFT = 4096, /* since the checkpoint: what a start replays ... */
    IDLE_COMMITS = 256,  /* ... and what is worth a checkpoint when nothing comes */
    ROOM_WAIT_MS = 30 * 1000,
};

/* ---- writing a tail as a file ---- */

static enum err write_rows(struct segment_writer *w, const struct segment *tail, uint32_t rows,
                           struct err_ctx *ctx)
{
    struct row_builder rb;
    RETURN_NOT_OK(row_builder_init(&rb, tail->schema, ctx));
    enum err e = ERR_OK;
    for (uint32_t row = 0; row < rows && e == ERR_OK; row++) {
        row_from_segment(&rb, tail, row);
        e = segment_writer_append(w, &rb.row, ctx);
    }
    row_builder_deinit(&rb);
    if (e != ERR_OK)
        return e;
    uint32_t nruns;
    const struct seq_run *runs = tail_runs(tail->tail, &nruns);
    return segment_writer_finish(w, runs, nruns, ctx);
}

static enum err write_tail_file(struct collection *c, const struct segment *tail,
                                struct segment **out, struct err_ctx *ctx)
{
    char staging[PATH_CAP], path[PATH_CAP], dir[PATH_CAP];
    struct segment_writer *w;
    segment_file_path(c, "staging", tail->id, staging, sizeof staging);
    segment_file_path(c, "segments", tail->id, path, sizeof path);
    RETURN_NOT_OK(segment_writer_new(c->io, staging, c->id, tail->id, tail->schema,
                                     tail_bytes(tail), &w, ctx));
    enum err e = write_rows(w, tail, tail_rows(tail), ctx);
    segment_writer_free(w);
    if (e == ERR_OK)
        e = io_rename(c->io, staging, path, ctx);
    if (e != ERR_OK) {
        struct err_ctx why;
        err_clear(&why);
        if (io_unlink(c->io, staging, &why) != ERR_OK)
            log_warn("%s stays behind until the next start: %s", staging, why.detail);
        return e;
    }
    snprintf(dir, sizeof dir, "%s/segments", c->dir);
    RETURN_NOT_OK(io_sync_dir(c->io, dir, ctx));
    RETURN_NOT_OK(segment_open(path, c->id, out, ctx));
    segment_set_scrubbed(*out);
    return ERR_OK;
}

/* ---- swapping ---- */

struct snapshot *snapshot_replace(const struct snapshot *s, const struct segment *old,
                                  struct segment *file)
{
    size_t size = sizeof *s + s->nviews * sizeof s->views[0];
    size_t shared = offsetof(struct snapshot, schema); /* what is behind the reference count */
    struct snapshot *copy = malloc(size);
    if (!copy)
        return NULL;
    memcpy((char *)copy + shared, (const char *)s + shared, size - shared);
    atomic_init(&copy->refs, 1);
    schema_acquire(copy->schema);
    for (uint32_t i = 0; i < copy->nviews; i++) {
        struct view *v = &copy->views[i];
        if (v->segment == old) {
            ASSERT(v->rows == file->rows); /* plan.c: a closed tail is seen whole */
            v->segment = file;
        }
        segment_acquire(v->segment);
        if (v->dead)
            mask_acquire(v->dead);
        if (v->gone)
            mask_acquire(v->gone);
    }
    return copy;
}

static bool sees(const struct snapshot *s, const void *segment)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (s->views[i].segment == segment)
            return true;
    }
    return false;
}

/* Head with the file in it becomes visible once all that head holds is durable. */
static enum err publish_swapped(struct collection *c, struct snapshot *next, uint64_t ticket,
                                struct err_ctx *ctx)
{
    enum err e = wal_wait(c->wal, ticket, ctx);
    pthread_mutex_lock(&c->commit_lock);
    if (e == ERR_OK)
        collection_publish(c, next);
    pthread_cond_broadcast(&c->sealed);
    pthread_mutex_unlock(&c->commit_lock);
    snapshot_release(next);
    return e;
}

static enum err swap_in(struct collection *c, const struct segment *tail, struct segment *file,
                        struct err_ctx *ctx)
{
    pthread_mutex_lock(&c->commit_lock);
    bool seen = false;
    struct snapshot *next = snapshot_replace(c->head, tail, file);
    uint64_t ticket = c->last_ticket;
    if (next) {
        next->serial++;
        plan_settle(c, next); /* an active tail stays without rows, a file does not */
        seen = sees(next, file);
        snapshot_release(c->head);
        c->head = snapshot_acquire(next);
        registry_replace(c, file);
    }
    pthread_mutex_unlock(&c->commit_lock);
    if (!next)
        return err_no_memory(ctx, sizeof *next);
    RETURN_NOT_OK(publish_swapped(c, next, ticket, ctx));
    history_forget(c, sees, tail);
    if (!c->hooks)
        return ERR_OK;
    void (*tell)(void *, struct collection *, struct segment *) =
        seen ? c->hooks->segment_added : c->hooks->segment_opened;
    if (tell)
        tell(c->hooks->arg, c, file);
    return ERR_OK;
}

static bool has_closed_tail(struct collection *c)
{
    struct segment *tail = registry_closed_tail(c, c->tail);
    segment_release(tail);
    return tail != NULL;
}

/* Referenced. */
static struct segment *take_closed_tail(struct collection *c)
{
    pthread_mutex_lock(&c->commit_lock);
    struct segment *found = registry_closed_tail(c, c->tail);
    pthread_mutex_unlock(&c->commit_lock);
    return found;
}

static enum err seal_closed_tails(struct collection *c, struct err_ctx *ctx)
{
    struct segment *tail, *file;
    while ((tail = take_closed_tail(c))) {
        enum err e = write_tail_file(c, tail, &file, ctx);
        if (e == ERR_OK) {
            e = swap_in(c, tail, file, ctx);
            segment_release(file);
        }
        segment_release(tail);
        RETURN_NOT_OK(e);
    }
    return ERR_OK;
}

/* ---- rotating ---- */

static size_t recent_commits(struct collection *c)
{
    pthread_mutex_lock(&c->history.lock);
    size_t n = c->history.commits;
    pthread_mutex_unlock(&c->history.lock);
    return n;
}

static enum err new_tail(struct collection *c, struct segment **out, struct err_ctx *ctx)
{
    *out = NULL;
    if (!tail_rows(c->tail))
        return ERR_OK;
    RETURN_NOT_OK(registry_reserve(c, 1, ctx));
    return tail_new(atomic_fetch_add(&c->next_segment_id, 1), c->head->schema, out, ctx);
}

/* With the commit lock. A rotation that was not checkpointed is given up for this one: its items
 * are still recent, its logs still there. */
static enum err rotate_locked(struct collection *c, struct err_ctx *ctx)
{
    struct segment *tail;
    struct rotation *rotation;
    uint64_t number;
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    RETURN_NOT_OK(new_tail(c, &tail, ctx));
    enum err e = wal_rotate(c->wal, &number, ctx);
    if (e == ERR_OK) {
        collection_publish(c, c->head);
        e = rotation_new(c, number, &rotation, ctx);
    }
    if (e != ERR_OK) {
        segment_release(tail);
        return e;
    }
    if (tail) {
        collection_set_tail(c, tail);
        segment_release(tail);
    }
    rotation_free(c->rotated);
    c->rotated = rotation;
    c->checkpoint_due = false;
    return ERR_OK;
}

/* A tail closed by an alteration is worth it too; one closed by a rotation whose checkpoint is
 * still to be written is not. */
static bool worth_rotating(struct collection *c)
{
    return tail_rows(c->tail) || wal_bytes(c->wal) > LOG_BYTES_SOFT || c->checkpoint_due ||
           recent_commits(c) >= IDLE_COMMITS || (!c->rotated && has_closed_tail(c));
}

/* ---- the whole ---- */

/* The next log file is made where the collection's directory is, which a drop may move away. */
static enum err rotate(struct collection *c, struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_enter_dir(c, ctx));
    wal_prepare(c->wal);
    collection_leave_dir(c);
    pthread_mutex_lock(&c->commit_lock);
    enum err e = rotate_locked(c, ctx);
    pthread_mutex_unlock(&c->commit_lock);
    if (collection_enter_dir(c, NULL) == ERR_OK) {
        wal_unprepare(c->wal); /* of a rotation that was refused */
        collection_leave_dir(c);
    }
    return e;
}

/* Tails that wait since a sealing failed go first: while that goes on failing no further one is
 * closed, the active tail fills up, and commits wait for room. */
static enum err seal_locked(struct collection *c, struct err_ctx *ctx)
{
    pthread_mutex_lock(&c->commit_lock);
    bool rotates = worth_rotating(c);
    pthread_mutex_unlock(&c->commit_lock);
    RETURN_NOT_OK(seal_closed_tails(c, ctx));
    if (rotates)
        RETURN_NOT_OK(rotate(c, ctx));
    RETURN_NOT_OK(seal_closed_tails(c, ctx));
    return c->rotated ? checkpoint_write(c, ctx) : ERR_OK;
}

enum err collection_seal(struct collection *c, struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    pthread_mutex_lock(&c->seal_lock);
    uint64_t since_us = clock_mono_us();
    enum err e = collection_dropped(c) || c->detached ? ERR_OK : seal_locked(c, &why);
    if (collection_dropped(c)) /* between two steps: nothing is left to seal */
        e = ERR_OK;
    metric_observe_us(&seal_time, 0, clock_mono_us() - since_us);
    pthread_mutex_unlock(&c->seal_lock);
    metric_add(&seal_failures, 0, e != ERR_OK);

    pthread_mutex_lock(&c->commit_lock);
    c->seal_err = e;
    snprintf(c->seal_error, sizeof c->seal_error, "%s", e == ERR_OK ? "" : why.detail);
    pthread_cond_broadcast(&c->sealed);
    pthread_mutex_unlock(&c->commit_lock);
    return e == ERR_OK ? ERR_OK : err_set(ctx, e, "%s", why.detail);
}

enum err collection_checkpoint(struct collection *c, struct err_ctx *ctx)
{
    pthread_mutex_lock(&c->commit_lock);
    c->checkpoint_due = true;
    pthread_mutex_unlock(&c->commit_lock);
    return collection_seal(c, ctx);
}

bool collection_wants_seal(struct collection *c)
{
    pthread_mutex_lock(&c->commit_lock);
    uint32_t rows = tail_rows(c->tail);
    size_t commits = recent_commits(c);
    bool idle = (int64_t)clock_mono_us() - c->last_commit_us > IDLE_US;
    bool worth_indexing = c->head->schema->dim && c->head->schema->index.kind != INDEX_FLAT &&
                          rows >= IDLE_ROWS_MIN && rows >= c->head->rows / IDLE_SHARE;
    bool wants = rows >= TAIL_ROWS_SOFT || tail_bytes(c->tail) >= TAIL_BYTES_SOFT ||
                 wal_bytes(c->wal) >= LOG_BYTES_SOFT || (idle && worth_indexing) ||
                 commits >= (idle ? IDLE_COMMITS : COMMITS_SOFT) || c->checkpoint_due ||
                 has_closed_tail(c) || c->seal_error[0];
    pthread_mutex_unlock(&c->commit_lock);
    return wants && !collection_dropped(c) && !collection_read_only(c);
}

struct waiting {
    uint64_t rows, bytes;
};

static struct waiting in_tail(struct collection *c)
{
    return (struct waiting){tail_rows(c->tail), tail_bytes(c->tail)};
}

static struct waiting in_closed_tails(struct collection *c)
{
    struct waiting sum;
    registry_closed_tails_size(c, c->tail, &sum.rows, &sum.bytes);
    return sum;
}

static enum err wait_below(struct collection *c, struct waiting (*measure)(struct collection *),
                           struct err_ctx *ctx)
{
    struct timespec until = clock_after_ms(ROOM_WAIT_MS);
    for (int rc = 0;; rc = pthread_cond_timedwait(&c->sealed, &c->commit_lock, &until)) {
        struct waiting now = measure(c);
        if (now.rows < TAIL_ROWS_HARD && now.bytes < TAIL_BYTES_HARD)
            return ERR_OK;
        if (rc && c->seal_err != ERR_OK)
            return err_set(ctx, c->seal_err,
                           "%" PRIu64
                           " rows wait to be written to a segment file, which failed: %s",
                           now.rows, c->seal_error);
        if (rc)
            return err_set(ctx, ERR_BUSY,
                           "%" PRIu64 " rows wait to be written to a segment file; try again soon",
                           now.rows);
    }
}

enum err collection_wait_for_room(struct collection *c, struct err_ctx *ctx)
{
    return wait_below(c, in_tail, ctx);
}

enum err collection_wait_to_close_tail(struct collection *c, struct err_ctx *ctx)
{
    return wait_below(c, in_closed_tails, ctx);
}
