/* The commit log: group commit over a preallocated file.
 *
 * Two buffers: records gather in `pending` under the lock while the leader writes the other one
 * without it. Tickets count records; `durable` is the last ticket that is on disk. The leader is
 * whoever waits first while nobody writes; it takes all that is pending, so a group grows by itself
 * with the number of waiting writers.
 *
 * A leader gathers: it expects the writers whose commits ended with the last group to come back,
 * and waits for them, half a sync at most, before it takes what is pending. Writers that commit in
 * a loop thus share one sync, instead of taking turns in two halves that each wait for the other's;
 * a single one is never waited for. A group that brings fewer than expected lowers what is
 * expected.
 *
 * A clean stop ends the log with an empty group. Damage to the last group with records is then
 * followed by a valid one, and so is never taken for a torn write.
 *
 * The file is filled with zeros ahead of the writing point, in steps, so that a group's sync has no
 * file size or extent to record; and a scan for the end of the log meets zeros. The next file of a
 * busy log is filled beforehand, outside the lock (wal_prepare): writing its zeros at the rotation
 * and after it took a hundred times as long as a sync, while all commits waited.
 *
 * Failure: `failed` keeps the first error; every later call returns it. */
#include "store/wal_internal.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

enum {
    PREALLOCATE_MIN = 256 << 10,
    PREALLOCATE_MAX = 8 << 20,
    GROUP_BYTES_MAX = 1 << 30,
    GATHER_US_MAX = 2000,
    SPARE_STEP = 256 << 10, /* commits sync in between */
};

METRIC_HISTOGRAM(sync_time, "loadstone_log_sync_duration_seconds",
                 "Time to write one group of commits to a log and make it durable.")
METRIC_COUNTER(records_total, "loadstone_log_records_total", "Commits written to logs.")

void wal_path(const char *dir, uint64_t number, const char *suffix, char *out, size_t cap)
{
    snprintf(out, cap, "%s/%016llx.%s", dir, (unsigned long long)number, suffix);
}

struct wal *wal_alloc(struct io *io, const char *dir, const uint8_t id[16])
{
    struct wal *w = calloc(1, sizeof *w);
    if (!w || !(w->dir = strdup(dir))) {
        free(w);
        return NULL;
    }
    w->io = io;
    memcpy(w->collection_id, id, sizeof w->collection_id);
    pthread_mutex_init(&w->lock, NULL);
    for (int i = 0; i < 2; i++)
        pthread_cond_init(&w->synced[i], NULL);
    pthread_cond_init(&w->idle, NULL);
    clock_cond_init(&w->gathered);
    err_clear(&w->failed);
    return w;
}

void wal_unprepare(struct wal *w)
{
    char temp[4200];
    struct err_ctx why;
    if (!w->spare)
        return;
    err_clear(&why);
    wal_path(w->dir, w->number + 1, "log.tmp", temp, sizeof temp);
    io_file_close(w->spare);
    w->spare = NULL;
    (void)!io_unlink(w->io, temp, &why); /* the next one of its name, or the next start, does too */
}

void wal_close(struct wal *w)
{
    if (!w)
        return;
    io_file_close(w->spare);
    io_file_close(w->file);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->gathered);
    for (int i = 0; i < 2; i++)
        pthread_cond_destroy(&w->synced[i]);
    pthread_cond_destroy(&w->idle);
    buf_deinit(&w->pending);
    buf_deinit(&w->writing);
    free(w->dir);
    free(w);
}

/* ---- files ---- */

static void fill_file_header(const struct wal *w, uint64_t number, uint64_t first_group,
                             uint8_t block[WAL_HEADER_BYTES])
{
    struct wal_header h = {
        .magic = WAL_MAGIC, .format_version = 1, .number = number, .first_group = first_group};
    memcpy(h.collection_id, w->collection_id, sizeof h.collection_id);
    h.crc = crc32c(0, &h, offsetof(struct wal_header, crc));
    memset(block, 0, WAL_HEADER_BYTES);
    memcpy(block, &h, sizeof h);
}

static void adopt_file(struct wal *w, struct io_file *f, uint64_t allocated, uint64_t number,
                       uint64_t first_group)
{
    io_file_close(w->file);
    w->file = f;
    w->number = number;
    w->group = first_group;
    w->end = w->reserved = WAL_HEADER_BYTES;
    w->allocated = allocated;
}

/* Creates a new file, there with its header or not at all; w->file is replaced only on success. */
static enum err start_file(struct wal *w, uint64_t number, uint64_t first_group,
                           struct err_ctx *ctx)
{
    char path[4200];
    uint8_t block[WAL_HEADER_BYTES];
    struct io_file *f;
    wal_path(w->dir, number, "log", path, sizeof path);
    fill_file_header(w, number, first_group, block);
    RETURN_NOT_OK(io_write_atomic(w->io, path, block, sizeof block, ctx));
    RETURN_NOT_OK(io_file_open(w->io, path, IO_WRITE, &f, ctx));
    adopt_file(w, f, WAL_HEADER_BYTES, number, first_group);
    return ERR_OK;
}

/* ---- the next file, made ahead ---- */

static enum err fill_zeros(struct io_file *f, uint64_t upto, struct err_ctx *ctx)
{
    void *zeros = calloc(1, SPARE_STEP);
    if (!zeros)
        return err_no_memory(ctx, SPARE_STEP);
    enum err e = ERR_OK;
    for (uint64_t at = 0; at < upto && e == ERR_OK; at += SPARE_STEP)
        e = io_file_write_sync(f, zeros, SPARE_STEP, at, ctx);
    free(zeros);
    return e;
}

void wal_prepare(struct wal *w)
{
    char temp[4200];
    struct err_ctx why;
    err_clear(&why);
    uint64_t used = wal_bytes(w);
    if (used <= PREALLOCATE_MIN)
        return;
    wal_unprepare(w);
    wal_path(w->dir, w->number + 1, "log.tmp", temp, sizeof temp);
    (void)!io_unlink(w->io, temp, &why); /* of a rotation that failed */
    if (io_file_open(w->io, temp, IO_CREATE_EXCL, &w->spare, &why) != ERR_OK)
        return;
    uint64_t ahead = used + used / 4 < PREALLOCATE_MAX ? used + used / 4 : PREALLOCATE_MAX;
    w->spare_allocated = round_up(ahead, SPARE_STEP);
    if (fill_zeros(w->spare, w->spare_allocated, &why) != ERR_OK)
        wal_unprepare(w);
}

/* As start_file, with the spare in place of a new file. */
static enum err start_spare(struct wal *w, struct err_ctx *ctx)
{
    char path[4200], temp[4200];
    uint8_t block[WAL_HEADER_BYTES];
    wal_path(w->dir, w->number + 1, "log", path, sizeof path);
    wal_path(w->dir, w->number + 1, "log.tmp", temp, sizeof temp);
    fill_file_header(w, w->number + 1, w->group, block);
    enum err e = io_file_write_sync(w->spare, block, sizeof block, 0, ctx);
    if (e == ERR_OK)
        e = io_rename(w->io, temp, path, ctx);
    if (e == ERR_OK)
        e = io_sync_dir(w->io, w->dir, ctx);
    if (e != ERR_OK) {
        wal_unprepare(w);
        return e;
    }
    struct io_file *f = w->spare;
    w->spare = NULL;
    adopt_file(w, f, w->spare_allocated, w->number + 1, w->group);
    return ERR_OK;
}

enum err wal_create(struct io *io, const char *dir, const uint8_t collection_id[16],
                    uint64_t number, uint64_t first_group, struct wal **out, struct err_ctx *ctx)
{
    struct wal *w = wal_alloc(io, dir, collection_id);
    if (!w)
        return err_no_memory(ctx, sizeof *w);
    enum err e = start_file(w, number, first_group, ctx);
    if (e != ERR_OK) {
        wal_close(w);
        return e;
    }
    *out = w;
    return ERR_OK;
}

/* ---- appending ---- */

static enum err zero_ahead(struct wal *w, uint64_t need, struct err_ctx *ctx)
{
    if (need <= w->allocated)
        return ERR_OK;
    uint64_t step = w->allocated < PREALLOCATE_MIN   ? PREALLOCATE_MIN
                    : w->allocated > PREALLOCATE_MAX ? PREALLOCATE_MAX
                                                     : w->allocated;
    uint64_t upto = round_up(need + step, WAL_HEADER_BYTES);
    size_t n = upto - w->allocated;
    void *zeros = calloc(1, n);
    if (!zeros)
        return err_no_memory(ctx, n);
    enum err e = io_file_write_sync(w->file, zeros, n, w->allocated, ctx);
    free(zeros);
    if (e == ERR_OK)
        w->allocated = upto;
    return e;
}

/* Room on disk for one more record, so that a full disk refuses a record before anything depends
 * on it. The worst case is a group of its own. */
static enum err reserve(struct wal *w, size_t n, struct err_ctx *ctx)
{
    uint64_t need = w->reserved + sizeof(struct wal_group) + 4 + n + WAL_GROUP_ALIGN;
    if (need > w->allocated) {
        while (w->busy)
            pthread_cond_wait(&w->idle, &w->lock);
        RETURN_NOT_OK(zero_ahead(w, need, ctx));
    }
    if (n > GROUP_BYTES_MAX - w->pending.len)
        return err_set(ctx, ERR_BUSY, "too much waits to be written to the log; try again soon");
    if (!buf_reserve(&w->pending, n + 4 + sizeof(struct wal_group) + WAL_GROUP_ALIGN)) {
        w->pending.failed = false;
        return err_no_memory(ctx, n);
    }
    w->reserved = need;
    return ERR_OK;
}

enum err wal_append(struct wal *w, const void *record, size_t n, uint64_t *ticket,
                    struct err_ctx *ctx)
{
    bool complete = false;
    pthread_mutex_lock(&w->lock);
    enum err e = ERR_OK;
    if (w->failed.code != ERR_OK)
        e = err_set(ctx, ERR_UNAVAILABLE, "the log takes no more writes: %s", w->failed.detail);
    if (e == ERR_OK)
        e = reserve(w, n, ctx);
    if (e == ERR_OK) {
        if (w->pending.len == 0)
            buf_put_zeros(&w->pending, sizeof(struct wal_group));
        buf_put_blob(&w->pending, record, n);
        complete = ++w->pending_records == w->expected;
        w->ended = false;
        *ticket = ++w->queued;
    }
    pthread_mutex_unlock(&w->lock);
    if (complete)
        pthread_cond_signal(&w->gathered);
    return e;
}

static void seal_group(struct wal *w, struct buf *b, uint32_t records)
{
    struct wal_group h = {.magic = WAL_GROUP_MAGIC, .group = w->group, .records = records};
    memcpy(h.collection_id, w->collection_id, sizeof h.collection_id);
    h.payload = (uint32_t)(b->len - sizeof h);
    h.payload_crc = crc32c(0, b->data + sizeof h, h.payload);
    h.crc = crc32c(0, &h, offsetof(struct wal_group, crc));
    memcpy(b->data, &h, sizeof h);
}

static enum err write_group(struct wal *w, uint32_t records, struct err_ctx *ctx)
{
    struct buf *b = &w->writing;
    seal_group(w, b, records);
    buf_align(b, WAL_GROUP_ALIGN);
    ASSERT(!b->failed && w->end + b->len <= w->allocated);
    return io_file_write_sync(w->file, b->data, b->len, w->end, ctx);
}

/* With the lock, which is let go while waiting. */
static void gather(struct wal *w)
{
    uint64_t most_us = w->sync_us / 2 < GATHER_US_MAX ? w->sync_us / 2 : GATHER_US_MAX;
    struct timespec until = clock_after_us(most_us);
    int late = 0;
    while (!late && w->pending_records < w->expected)
        late = pthread_cond_timedwait(&w->gathered, &w->lock, &until);
}

/* Takes what is pending; the other buffer gathers from here on. Returns the number of records. */
static uint32_t take_pending(struct wal *w)
{
    struct buf taken = w->pending;
    uint32_t records = w->pending_records;
    w->taken = w->queued;
    w->side ^= 1;
    w->pending = w->writing;
    buf_reset(&w->pending);
    w->writing = taken;
    w->pending_records = 0;
    return records;
}

static void note_written(struct wal *w, uint32_t records, uint64_t took_us)
{
    w->durable = w->taken;
    w->end += w->writing.len;
    w->group++;
    w->groups_written++;
    w->records_written += records;
    w->expected = records + w->pending_records;
    w->sync_us = w->sync_us ? (7 * w->sync_us + took_us) / 8 : took_us;
    if (w->pending.len == 0)
        w->reserved = w->end;
}

/* Whose group was written, all of them; of the next group one, to lead it. After a failure all. */
static void wake_waiters(struct wal *w)
{
    pthread_cond_broadcast(&w->synced[w->side ^ 1]);
    if (w->failed.code == ERR_OK)
        pthread_cond_signal(&w->synced[w->side]);
    else
        pthread_cond_broadcast(&w->synced[w->side]);
    pthread_cond_broadcast(&w->idle);
}

/* Leads: writes all that is pending. Called with the lock, which is let go while writing. */
static void lead(struct wal *w)
{
    w->busy = true;
    gather(w);
    uint32_t records = take_pending(w);
    pthread_mutex_unlock(&w->lock);

    struct err_ctx ctx;
    err_clear(&ctx);
    uint64_t since_us = clock_mono_us();
    enum err e = write_group(w, records, &ctx);
    uint64_t took_us = clock_mono_us() - since_us;
    metric_observe_us(&sync_time, 0, took_us);
    metric_add(&records_total, 0, records);

    pthread_mutex_lock(&w->lock);
    w->busy = false;
    if (e == ERR_OK) {
        note_written(w, records, took_us);
    } else {
        ctx.code = e;
        w->failed = ctx;
        log_error("%s: the log failed and takes no more writes: %s", w->dir, ctx.detail);
    }
    wake_waiters(w);
}

static enum err wait_locked(struct wal *w, uint64_t ticket, struct err_ctx *ctx)
{
    while (w->durable < ticket && w->failed.code == ERR_OK) {
        if (w->busy)
            pthread_cond_wait(&w->synced[ticket > w->taken ? w->side : w->side ^ 1], &w->lock);
        else
            lead(w);
    }
    if (w->durable >= ticket)
        return ERR_OK;
    return err_set(ctx, w->failed.code, "the commit could not be written to the log: %s",
                   w->failed.detail);
}

enum err wal_wait(struct wal *w, uint64_t ticket, struct err_ctx *ctx)
{
    pthread_mutex_lock(&w->lock);
    enum err e = wait_locked(w, ticket, ctx);
    pthread_mutex_unlock(&w->lock);
    return e;
}

bool wal_durable(struct wal *w, uint64_t ticket)
{
    pthread_mutex_lock(&w->lock);
    bool durable = w->durable >= ticket;
    pthread_mutex_unlock(&w->lock);
    return durable;
}

enum err wal_rotate(struct wal *w, uint64_t *number, struct err_ctx *ctx)
{
    pthread_mutex_lock(&w->lock);
    enum err e = wait_locked(w, w->queued, ctx);
    if (e == ERR_OK)
        e = w->spare ? start_spare(w, ctx) : start_file(w, w->number + 1, w->group, ctx);
    if (e == ERR_OK)
        *number = w->number;
    pthread_mutex_unlock(&w->lock);
    return e;
}

enum err wal_end(struct wal *w, struct err_ctx *ctx)
{
    pthread_mutex_lock(&w->lock);
    enum err e = wait_locked(w, w->queued, ctx);
    if (e == ERR_OK && !w->ended)
        e = reserve(w, 0, ctx);
    if (e == ERR_OK && !w->ended) {
        buf_put_zeros(&w->pending, sizeof(struct wal_group));
        w->queued++;
        lead(w);
        e = wait_locked(w, w->queued, ctx);
        w->ended = e == ERR_OK;
    }
    pthread_mutex_unlock(&w->lock);
    return e;
}

uint64_t wal_number(const struct wal *w)
{
    return w->number;
}

uint64_t wal_bytes(struct wal *w)
{
    pthread_mutex_lock(&w->lock);
    uint64_t n = w->end;
    pthread_mutex_unlock(&w->lock);
    return n;
}

uint64_t wal_next_group(struct wal *w)
{
    pthread_mutex_lock(&w->lock);
    uint64_t n = w->group;
    pthread_mutex_unlock(&w->lock);
    return n;
}

void wal_stats(struct wal *w, uint64_t *groups, uint64_t *records)
{
    pthread_mutex_lock(&w->lock);
    *groups = w->groups_written;
    *records = w->records_written;
    pthread_mutex_unlock(&w->lock);
}
