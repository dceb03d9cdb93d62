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
#include "store/wal.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/wal_format.h"

enum {
    PREALLOCATE_MIN = 256 << 10,
    PREALLOCATE_MAX = 8 << 20,
    GROUP_BYTES_MAX = 1 << 30,
    GATHER_US_MAX = 2000,
    SPARE_STEP = 256 << 10, /* commits sync in between */
    SPARE_MAX = 64 << 20,
};

METRIC_HISTOGRAM(sync_time, "loadstone_log_sync_duration_seconds",
                 "Time to write one group of commits to a log and make it durable.")
METRIC_COUNTER(records_total, "loadstone_log_records_total", "Commits written to logs.")

struct wal {
    struct io *io;
    char *dir;
    uint8_t collection_id[16];
    pthread_mutex_t lock;
    pthread_cond_t synced[2]; /* the group written, and the one pending: see wake_waiters */
    pthread_cond_t idle;      /* nobody leads */
    pthread_cond_t gathered;  /* as many records as the leader expects are pending */
    struct io_file *file;
    uint64_t number;
    uint64_t end;          /* where the next group goes */
    uint64_t reserved;     /* where the queued groups end at the latest */
    uint64_t allocated;    /* zeros up to here */
    struct io_file *spare; /* the next file under its temporary name; NULL: none */
    uint64_t spare_allocated;
    uint64_t group; /* the next group's number */
    struct buf pending, writing;
    uint32_t pending_records;
    uint32_t expected;               /* records of the next group */
    uint64_t sync_us;                /* what a group takes, smoothed */
    uint64_t queued, taken, durable; /* tickets */
    unsigned side;                   /* of `synced`: where waiters of the pending group wait */
    bool busy;                       /* a leader writes */
    bool ended;                      /* the last group is an empty one */
    struct err_ctx failed;
    uint64_t groups_written, records_written;
};

void wal_path(const char *dir, uint64_t number, const char *suffix, char *out, size_t cap)
{
    snprintf(out, cap, "%s/%016llx.%s", dir, (unsigned long long)number, suffix);
}

static struct wal *wal_alloc(struct io *io, const char *dir, const uint8_t id[16])
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

static void drop_spare(struct wal *w)
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
    drop_spare(w);
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
    drop_spare(w);
    wal_path(w->dir, w->number + 1, "log.tmp", temp, sizeof temp);
    (void)!io_unlink(w->io, temp, &why); /* of a rotation that failed */
    if (io_file_open(w->io, temp, IO_CREATE_EXCL, &w->spare, &why) != ERR_OK)
        return;
    uint64_t ahead = used + used / 4 < SPARE_MAX ? used + used / 4 : SPARE_MAX;
    w->spare_allocated = round_up(ahead, SPARE_STEP);
    if (fill_zeros(w->spare, w->spare_allocated, &why) != ERR_OK)
        drop_spare(w);
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
        drop_spare(w);
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

/* ---- reading ---- */

static enum err check_file_header(const struct wal_header *h, const char *path, struct err_ctx *ctx)
{
    if (memcmp(h->magic, WAL_MAGIC, sizeof h->magic) != 0 ||
        h->crc != crc32c(0, h, offsetof(struct wal_header, crc)))
        return err_set(ctx, ERR_CORRUPT, "%s: offset 0: the log file's header is damaged", path);
    if (h->format_version != 1 || h->incompatible_flags)
        return err_set(ctx, ERR_CORRUPT,
                       "%s: offset 0: written by another version (format %u, flags %x)", path,
                       h->format_version, h->incompatible_flags);
    return ERR_OK;
}

enum err wal_read_id(struct io *io, const char *dir, uint64_t number, uint8_t id[16],
                     struct err_ctx *ctx)
{
    char path[4200];
    struct io_file *f;
    struct wal_header h;
    wal_path(dir, number, "log", path, sizeof path);
    RETURN_NOT_OK(io_file_open(io, path, IO_READ, &f, ctx));
    enum err e = io_file_read(f, &h, sizeof h, 0, ctx);
    io_file_close(f);
    if (e == ERR_OK)
        e = check_file_header(&h, path, ctx);
    if (e == ERR_OK)
        memcpy(id, h.collection_id, 16);
    return e;
}

/* True when a whole, intact group of this collection stands at data[0, n). */
static bool group_valid(const struct wal *w, const uint8_t *data, size_t n, struct wal_group *h)
{
    if (n < sizeof *h)
        return false;
    memcpy(h, data, sizeof *h);
    return h->magic == WAL_GROUP_MAGIC && memcmp(h->collection_id, w->collection_id, 16) == 0 &&
           h->crc == crc32c(0, h, offsetof(struct wal_group, crc)) && h->payload <= n - sizeof *h &&
           h->payload_crc == crc32c(0, data + sizeof *h, h->payload);
}

/* `at` is where the group stands in the file. */
static enum err replay_group(const uint8_t *data, size_t at, const struct wal_group *h,
                             const char *path, wal_replay_fn fn, void *arg, struct err_ctx *ctx)
{
    struct cursor c = cursor_over(data + at + sizeof *h, h->payload);
    struct err_ctx why;
    for (uint32_t i = 0; i < h->records; i++) {
        size_t n;
        const void *record = cursor_blob(&c, &n);
        if (!record)
            return err_set(ctx, ERR_CORRUPT,
                           "%s: the group at offset %zu does not hold its %u records", path, at,
                           h->records);
        err_clear(&why);
        enum err e = fn(arg, record, n, &why);
        if (e != ERR_OK)
            return err_set(ctx, e, "%s: offset %zu: %.900s", path, at, why.detail);
    }
    return ERR_OK;
}

/* Behind the end of the valid groups nothing valid may follow. */
static enum err check_nothing_follows(const struct wal *w, const uint8_t *data, size_t n,
                                      size_t from, const char *path, struct err_ctx *ctx)
{
    struct wal_group h;
    for (size_t at = from; at + sizeof h <= n; at += WAL_GROUP_ALIGN) {
        if (group_valid(w, data + at, n - at, &h) && h.group >= w->group)
            return err_set(ctx, ERR_CORRUPT,
                           "%s: the group at offset %zu is damaged, but a valid one follows at "
                           "offset %zu",
                           path, from, at);
    }
    return ERR_OK;
}

static enum err replay_data(struct wal *w, const uint8_t *data, size_t n, const char *path,
                            wal_replay_fn fn, void *arg, struct err_ctx *ctx)
{
    struct wal_group h;
    size_t at = WAL_HEADER_BYTES;
    while (group_valid(w, data + at, n - at, &h) && h.group == w->group) {
        RETURN_NOT_OK(replay_group(data, at, &h, path, fn, arg, ctx));
        w->ended = h.records == 0;
        w->group++;
        at += round_up(sizeof h + h.payload, WAL_GROUP_ALIGN);
        if (at > n)
            at = n;
    }
    w->end = w->reserved = at;
    return check_nothing_follows(w, data, n, at, path, ctx);
}

static enum err load_file(struct io_file *f, uint8_t **data, uint64_t *n, const char *path,
                          struct err_ctx *ctx)
{
    RETURN_NOT_OK(io_file_size(f, n, ctx));
    if (*n < WAL_HEADER_BYTES)
        return err_set(ctx, ERR_CORRUPT, "%s: offset 0: the log file is too short", path);
    *data = malloc(*n);
    if (!*data)
        return err_no_memory(ctx, *n);
    enum err e = io_file_read(f, *data, *n, 0, ctx);
    if (e != ERR_OK)
        free(*data);
    return e;
}

/* A file that a rotation began but could not finish: its header counts on from a group that then
 * went into the file before it, and no group ever came in. */
static bool never_used(const struct wal *w, const struct wal_header *h, const uint8_t *data,
                       size_t n)
{
    struct wal_group g;
    for (size_t at = WAL_HEADER_BYTES; at + sizeof g <= n; at += WAL_GROUP_ALIGN) {
        if (group_valid(w, data + at, n - at, &g))
            return false;
    }
    return h->first_group < w->group;
}

static enum err replay_file(struct wal *w, struct io_file *f, uint64_t number, bool first,
                            wal_replay_fn fn, void *arg, bool *unused, struct err_ctx *ctx)
{
    char path[4200];
    uint8_t *data;
    uint64_t n;
    *unused = false;
    wal_path(w->dir, number, "log", path, sizeof path);
    RETURN_NOT_OK(load_file(f, &data, &n, path, ctx));
    struct wal_header h;
    memcpy(&h, data, sizeof h);
    enum err e = check_file_header(&h, path, ctx);
    if (e == ERR_OK && (h.number != number || memcmp(h.collection_id, w->collection_id, 16) != 0))
        e = err_set(ctx, ERR_CORRUPT, "%s: offset 0: belongs to another log", path);
    if (e == ERR_OK && !first && h.first_group != w->group) {
        *unused = never_used(w, &h, data, n);
        if (!*unused)
            e = err_set(ctx, ERR_CORRUPT,
                        "%s: offset 0: starts at group %llu, but the log goes on at %llu", path,
                        (unsigned long long)h.first_group, (unsigned long long)w->group);
    }
    if (e == ERR_OK && !*unused) {
        w->group = h.first_group;
        w->number = number;
        w->allocated = n;
        e = replay_data(w, data, n, path, fn, arg, ctx);
    }
    free(data);
    return e;
}

/* The bytes of a torn last group are wiped before anything is written behind them. */
static enum err wipe_end(struct wal *w, struct err_ctx *ctx)
{
    if (w->end == w->allocated)
        return ERR_OK;
    size_t n = w->allocated - w->end;
    uint8_t *tail = malloc(n);
    if (!tail)
        return err_no_memory(ctx, n);
    enum err e = io_file_read(w->file, tail, n, w->end, ctx);
    bool torn = false;
    for (size_t i = 0; e == ERR_OK && i < n && !torn; i++)
        torn = tail[i] != 0;
    if (torn) {
        log_warn(
            "%s: what stands behind the last whole group of log %llu (offset %llu) is cut off: a "
            "commit that was being written when the daemon or the machine stopped",
            w->dir, (unsigned long long)w->number, (unsigned long long)w->end);
        memset(tail, 0, n);
        e = io_file_write_sync(w->file, tail, n, w->end, ctx);
    }
    free(tail);
    return e;
}

static bool file_exists(const struct wal *w, uint64_t number)
{
    char path[4200];
    wal_path(w->dir, number, "log", path, sizeof path);
    return access(path, F_OK) == 0 || errno != ENOENT;
}

/* Replays one file and makes it the one to append to, unless it was never used: then it goes. */
static enum err take_file(struct wal *w, uint64_t number, bool first, wal_replay_fn fn, void *arg,
                          struct err_ctx *ctx)
{
    char path[4200];
    struct io_file *f;
    bool unused;
    wal_path(w->dir, number, "log", path, sizeof path);
    RETURN_NOT_OK(io_file_open(w->io, path, IO_WRITE, &f, ctx));
    enum err e = replay_file(w, f, number, first, fn, arg, &unused, ctx);
    if (e == ERR_OK && unused && file_exists(w, number + 1))
        e = err_set(ctx, ERR_CORRUPT, "%s: contradicts the log files beside it", path);
    if (e != ERR_OK || unused) {
        io_file_close(f);
        return e == ERR_OK ? io_unlink(w->io, path, ctx) : e;
    }
    io_file_close(w->file);
    w->file = f;
    return ERR_OK;
}

enum err wal_open(struct io *io, const char *dir, const uint8_t collection_id[16], uint64_t number,
                  wal_replay_fn fn, void *arg, struct wal **out, struct err_ctx *ctx)
{
    struct wal *w = wal_alloc(io, dir, collection_id);
    if (!w)
        return err_no_memory(ctx, sizeof *w);
    enum err e = ERR_OK;
    for (uint64_t at = number; e == ERR_OK && (at == number || file_exists(w, at)); at++)
        e = take_file(w, at, at == number, fn, arg, ctx);
    if (e == ERR_OK)
        e = wipe_end(w, ctx);
    if (e != ERR_OK) {
        wal_close(w);
        return e;
    }
    *out = w;
    return ERR_OK;
}
