/* Streams: sequential bulk writing of one new file, many writes in flight.
 *
 *   file    |  buffer  |  buffer  |  buffer  | . . . . . . allocated . . . . . |
 *            in flight  in flight   being       (fallocate ahead, so that ENOSPC shows early
 *                                   filled       and writes never extend the file)
 *
 * Buffer i of the file covers [i, i + 1) x LANE_BUFFER_BYTES; a buffer of the lane is free, being
 * filled, or in flight. Checksum blocks divide a buffer evenly, so each is summed where it lies, as
 * soon as it is whole. The last buffer is padded to IO_DIRECT_ALIGN and the file cut at the end.
 *
 * A short write goes on where it stopped, rounded down to the alignment. File systems without
 * O_DIRECT get the same writes through the page cache.
 *
 * Threads: one at a time. Failure: the first one sticks, every later call repeats its sentence, and
 * the file is worthless. Writes in flight are always collected before the buffers go. */
#include "io/io_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"

enum {
    STEP_MIN_BYTES = 8 * 1024 * 1024,   /* allocation ahead, when the size is not known: */
    STEP_MAX_BYTES = 256 * 1024 * 1024, /* as much again as there is, between these */
    TRIES_MAX = 16,                     /* of a write that the kernel puts off */
};

/* A larger one is as good as this: no disk has it. */
static const uint64_t HINT_MAX = (uint64_t)1 << 60;

struct flight {
    size_t from, n; /* bytes of the buffer that are still to be written */
    uint64_t offset;
    unsigned tries;
};

struct io_stream {
    struct io *io;
    struct io_lane *lane;
    char *path;
    int fd;
    bool direct;
    bool lane_broken; /* the lane cannot say what is in flight */
    bool finished;

    int current;   /* buffer being filled, -1 = none */
    size_t filled; /* bytes in it */
    unsigned nfree, in_flight;
    unsigned free[LANE_BUFFERS_MAX];
    struct flight flights[LANE_BUFFERS_MAX];

    uint64_t offset;    /* bytes put */
    uint64_t allocated; /* bytes of the file that have blocks */
    bool no_allocate;   /* the file system cannot */

    uint64_t *sums;
    size_t nsums, sums_cap;

    struct err_ctx failure; /* the first; code ERR_OK = none */
};

static uint8_t *buffer_of(const struct io_stream *s, unsigned buffer)
{
    return s->lane->buffers + (size_t)buffer * LANE_BUFFER_BYTES;
}

static enum err repeat_failure(const struct io_stream *s, struct err_ctx *ctx)
{
    if (s->failure.code == ERR_OK)
        return ERR_OK;
    return err_set(ctx, s->failure.code, "%s", s->failure.detail);
}

/* ---- space on disk ---- */

static enum err allocate_to(struct io_stream *s, uint64_t end, uint64_t ahead)
{
    if (s->no_allocate || end <= s->allocated)
        return ERR_OK;
    uint64_t need = end - s->allocated, n = need > ahead ? need : ahead;
    int r = s->io->ops->allocate(s->io, s->fd, s->allocated, n);
    if (r == -ENOSPC && n > need) {
        n = need;
        r = s->io->ops->allocate(s->io, s->fd, s->allocated, n);
    }
    if (r == -EOPNOTSUPP || r == -ENOSYS) {
        s->no_allocate = true;
        return ERR_OK;
    }
    if (r < 0)
        return io_failed(&s->failure, r, "reserve disk space for", s->path);
    s->allocated += n;
    return ERR_OK;
}

static uint64_t next_step(const struct io_stream *s)
{
    if (s->allocated < STEP_MIN_BYTES)
        return STEP_MIN_BYTES;
    return s->allocated < STEP_MAX_BYTES ? s->allocated : STEP_MAX_BYTES;
}

/* ---- writes in flight ---- */

static enum err submit(struct io_stream *s, unsigned buffer)
{
    const struct flight *w = &s->flights[buffer];
    int r = s->io->ops->lane_submit(s->io, s->lane, s->fd, buffer, w->from, w->n, w->offset);
    if (r < 0) {
        s->lane_broken = true;
        return io_failed(&s->failure, r, "write", s->path);
    }
    s->in_flight++;
    return ERR_OK;
}

static bool put_off(ssize_t result)
{
    return result == -EINTR || result == -EAGAIN || result == -ECANCELED;
}

static enum err go_on(struct io_stream *s, unsigned buffer, size_t written)
{
    struct flight *w = &s->flights[buffer];
    size_t step = s->direct ? written & ~(size_t)(IO_DIRECT_ALIGN - 1) : written;
    if (step == 0)
        return err_set(&s->failure, ERR_IO,
                       "cannot write %s: the system took %zu of %zu bytes at offset %llu", s->path,
                       written, w->n, (unsigned long long)w->offset);
    w->from += step;
    w->n -= step;
    w->offset += step;
    return submit(s, buffer);
}

/* Waits for one write and frees its buffer, or submits what is left of it. */
static enum err collect(struct io_stream *s)
{
    unsigned buffer;
    ssize_t result;
    int r = s->io->ops->lane_wait(s->io, s->lane, &buffer, &result);
    if (r < 0) {
        s->lane_broken = true;
        return io_failed(&s->failure, r, "wait for writes to", s->path);
    }
    s->in_flight--;
    struct flight *w = &s->flights[buffer];
    if (put_off(result) && w->tries++ < TRIES_MAX)
        return submit(s, buffer);
    if (result < 0)
        return io_failed(&s->failure, (int)result, "write", s->path);
    ASSERT((size_t)result <= w->n);
    if ((size_t)result < w->n)
        return go_on(s, buffer, (size_t)result);
    s->free[s->nfree++] = buffer;
    return ERR_OK;
}

static enum err submit_current(struct io_stream *s)
{
    unsigned buffer = (unsigned)s->current;
    size_t n = s->direct ? round_up(s->filled, IO_DIRECT_ALIGN) : s->filled;
    uint64_t offset = s->offset - s->filled;
    memset(buffer_of(s, buffer) + s->filled, 0, n - s->filled);
    RETURN_NOT_OK(allocate_to(s, offset + n, next_step(s)));
    s->flights[buffer] = (struct flight){0, n, offset, 0};
    s->current = -1;
    s->filled = 0;
    return submit(s, buffer);
}

/* ---- opening and closing ---- */

/* O_DIRECT is asked for after the file was created: an open that is refused it may leave the file
 * behind. */
static void go_direct(struct io_stream *s)
{
    int r = s->io->ops->set_direct(s->io, s->fd);
    s->direct = r == 0;
    if (r < 0 && !atomic_exchange(&s->io->direct_refused, true))
        log_warn("the file system of %s does not take O_DIRECT (%s): bulk writes go through the "
                 "page cache, which is slower",
                 s->path, strerrordesc_np(-r));
}

static enum err open_file(struct io_stream *s, uint64_t size_hint)
{
    s->fd = s->io->ops->open(s->io, s->path, O_RDWR | O_CREAT | O_EXCL);
    if (s->fd < 0)
        return io_failed(&s->failure, s->fd, "create", s->path);
    go_direct(s);
    uint64_t size = size_hint < HINT_MAX ? size_hint : HINT_MAX;
    enum err e = allocate_to(s, round_up(size, IO_DIRECT_ALIGN), 0);
    if (e != ERR_OK)
        (void)s->io->ops->unlink(s->io, s->path); /* best effort; the failure is what is told */
    return e;
}

static enum err take_lane(struct io_stream *s)
{
    int r = s->io->ops->lane_acquire(s->io, &s->lane);
    if (r < 0)
        return io_failed(&s->failure, r, "prepare buffers for", s->path);
    ASSERT(s->lane->nbuffers > 0 && s->lane->nbuffers <= LANE_BUFFERS_MAX);
    while (s->nfree < s->lane->nbuffers) {
        s->free[s->nfree] = s->nfree;
        s->nfree++;
    }
    return ERR_OK;
}

enum err io_stream_open(struct io *io, const char *path, uint64_t size_hint, struct io_stream **out,
                        struct err_ctx *ctx)
{
    struct io_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return err_no_memory(ctx, sizeof(*s));
    err_clear(&s->failure);
    s->io = io;
    s->fd = -1;
    s->current = -1;
    s->path = strdup(path);
    enum err e = s->path ? take_lane(s) : err_no_memory(&s->failure, strlen(path));
    if (e == ERR_OK)
        e = open_file(s, size_hint);
    if (e != ERR_OK) {
        (void)repeat_failure(s, ctx);
        io_stream_close(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

static void drain(struct io_stream *s)
{
    unsigned buffer;
    ssize_t result;
    for (; s->in_flight > 0 && !s->lane_broken; s->in_flight--) {
        if (s->io->ops->lane_wait(s->io, s->lane, &buffer, &result) < 0)
            s->lane_broken = true;
    }
}

void io_stream_close(struct io_stream *s)
{
    if (!s)
        return;
    if (s->lane) {
        drain(s);
        s->io->ops->lane_release(s->io, s->lane, !s->lane_broken);
    }
    if (s->fd >= 0)
        s->io->ops->close(s->io, s->fd);
    free(s->sums);
    free(s->path);
    free(s);
}

/* ---- putting ---- */

static enum err take_buffer(struct io_stream *s)
{
    while (s->nfree == 0)
        RETURN_NOT_OK(collect(s));
    s->current = (int)s->free[--s->nfree];
    s->filled = 0;
    return ERR_OK;
}

enum err io_stream_space(struct io_stream *s, uint8_t **space, size_t *n, struct err_ctx *ctx)
{
    ASSERT(!s->finished);
    RETURN_NOT_OK(repeat_failure(s, ctx));
    enum err e = s->current < 0 ? take_buffer(s) : ERR_OK;
    if (e != ERR_OK) {
        (void)repeat_failure(s, ctx);
        return e;
    }
    *space = buffer_of(s, (unsigned)s->current) + s->filled;
    *n = LANE_BUFFER_BYTES - s->filled;
    return ERR_OK;
}

static enum err reserve_sums(struct io_stream *s, size_t total)
{
    if (total <= s->sums_cap)
        return ERR_OK;
    size_t cap = s->sums_cap ? s->sums_cap * 2 : LANE_BUFFER_BYTES / IO_SUM_BLOCK;
    cap = cap < total ? total : cap;
    uint64_t *sums = reallocarray(s->sums, cap, sizeof(*sums));
    if (!sums)
        return err_no_memory(&s->failure, cap * sizeof(*sums));
    s->sums = sums;
    s->sums_cap = cap;
    return ERR_OK;
}

/* Sums the blocks of the current buffer that became whole. */
static enum err sum_blocks(struct io_stream *s)
{
    const uint8_t *buffer = buffer_of(s, (unsigned)s->current);
    size_t whole = (size_t)(s->offset / IO_SUM_BLOCK);
    RETURN_NOT_OK(reserve_sums(s, whole));
    for (; s->nsums < whole; s->nsums++) {
        size_t at = s->nsums * IO_SUM_BLOCK % LANE_BUFFER_BYTES;
        s->sums[s->nsums] = hash64(buffer + at, IO_SUM_BLOCK);
    }
    return ERR_OK;
}

enum err io_stream_advance(struct io_stream *s, size_t n, struct err_ctx *ctx)
{
    RETURN_NOT_OK(repeat_failure(s, ctx));
    if (n == 0)
        return ERR_OK;
    ASSERT(s->current >= 0 && n <= LANE_BUFFER_BYTES - s->filled);
    s->filled += n;
    s->offset += n;
    enum err e = sum_blocks(s);
    if (e == ERR_OK && s->filled == LANE_BUFFER_BYTES)
        e = submit_current(s);
    return e == ERR_OK ? ERR_OK : repeat_failure(s, ctx);
}

/* Bytes that may be filled at once so that a block is summed while it is in cache. */
static size_t to_block_end(const struct io_stream *s, size_t space)
{
    size_t left = IO_SUM_BLOCK - (size_t)(s->offset % IO_SUM_BLOCK);
    return space < left ? space : left;
}

enum err io_stream_put(struct io_stream *s, const void *data, size_t n, struct err_ctx *ctx)
{
    const uint8_t *p = data;
    while (n > 0) {
        uint8_t *space;
        size_t room;
        RETURN_NOT_OK(io_stream_space(s, &space, &room, ctx));
        room = to_block_end(s, room);
        room = room < n ? room : n;
        memcpy(space, p, room);
        RETURN_NOT_OK(io_stream_advance(s, room, ctx));
        p += room;
        n -= room;
    }
    return repeat_failure(s, ctx);
}

enum err io_stream_align(struct io_stream *s, struct err_ctx *ctx)
{
    RETURN_NOT_OK(repeat_failure(s, ctx));
    if (s->offset % IO_SUM_BLOCK == 0)
        return ERR_OK;
    uint8_t *space;
    size_t room;
    RETURN_NOT_OK(io_stream_space(s, &space, &room, ctx));
    room = to_block_end(s, room);
    memset(space, 0, room);
    return io_stream_advance(s, room, ctx);
}

uint64_t io_stream_offset(const struct io_stream *s)
{
    return s->offset;
}

const uint64_t *io_stream_sums(const struct io_stream *s, size_t *n)
{
    *n = s->nsums;
    return s->sums;
}

/* ---- finishing ---- */

static enum err write_rest(struct io_stream *s)
{
    if (s->current >= 0 && s->filled > 0)
        RETURN_NOT_OK(submit_current(s));
    while (s->in_flight > 0)
        RETURN_NOT_OK(collect(s));
    return ERR_OK;
}

/* The sync comes when nothing is in flight: a ring does not order it behind the writes. */
static enum err cut_and_sync(struct io_stream *s)
{
    int r = s->io->ops->truncate(s->io, s->fd, s->offset);
    if (r < 0)
        return io_failed(&s->failure, r, "set the size of", s->path);
    r = s->io->ops->sync(s->io, s->fd);
    return r < 0 ? io_failed(&s->failure, r, "sync", s->path) : ERR_OK;
}

enum err io_stream_finish(struct io_stream *s, struct err_ctx *ctx)
{
    ASSERT(!s->finished);
    RETURN_NOT_OK(repeat_failure(s, ctx));
    enum err e = write_rest(s);
    if (e == ERR_OK)
        e = cut_and_sync(s);
    s->finished = e == ERR_OK;
    return e == ERR_OK ? ERR_OK : repeat_failure(s, ctx);
}
