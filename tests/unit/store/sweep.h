/* An io backend whose Nth call fails, once or from then on for good; the rest goes to the backend
 * inside. What counts as a call, and how it fails, can be chosen: any call with an error, syncs
 * alone, or writes that write only half and say so. */
#ifndef LOADSTONE_TESTS_STORE_SWEEP_H
#define LOADSTONE_TESTS_STORE_SWEEP_H

#include <errno.h>
#include <stdatomic.h>

#include "io/io_internal.h"

static struct sweep {
    struct io base;
    struct io *inner;
    atomic_uint calls;
    unsigned at; /* 0 = no faults */
    bool for_good;
    int error;
    bool armed;
    enum sweep_kind { SWEEP_CALLS, SWEEP_SYNCS, SWEEP_SHORT_WRITES } kind;
} sweep;

static struct io_ops sweep_ops;

static bool due(void)
{
    unsigned n = atomic_fetch_add(&sweep.calls, 1) + 1;
    return sweep.armed && sweep.at && (sweep.for_good ? n >= sweep.at : n == sweep.at);
}

static bool strikes(void)
{
    return sweep.kind == SWEEP_CALLS && due();
}

static bool strikes_sync(void)
{
    return sweep.kind <= SWEEP_SYNCS && due();
}

static bool strikes_write(size_t n)
{
    return sweep.kind == SWEEP_SHORT_WRITES && n > 1 && due();
}

/* A write that fails may have written some. */
static ssize_t half_write(int fd, const void *p, size_t n, uint64_t offset)
{
    if (n > 1)
        (void)!sweep.inner->ops->write(sweep.inner, fd, p, n / 2, offset);
    return -sweep.error;
}

static int sweep_open(struct io *io, const char *path, int flags)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->open(sweep.inner, path, flags);
}

static ssize_t sweep_write(struct io *io, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)io;
    if (strikes_write(n))
        return sweep.inner->ops->write(sweep.inner, fd, p, n / 2, offset);
    return strikes() ? half_write(fd, p, n, offset)
                     : sweep.inner->ops->write(sweep.inner, fd, p, n, offset);
}

static ssize_t sweep_write_sync(struct io *io, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)io;
    if (strikes_write(n))
        return sweep.inner->ops->write(sweep.inner, fd, p, n / 2, offset);
    if (sweep.kind == SWEEP_SYNCS && due()) {
        ssize_t w = sweep.inner->ops->write(sweep.inner, fd, p, n, offset);
        return w == (ssize_t)n ? -sweep.error : w;
    }
    return strikes() ? half_write(fd, p, n, offset)
                     : sweep.inner->ops->write_sync(sweep.inner, fd, p, n, offset);
}

static ssize_t sweep_read(struct io *io, int fd, void *p, size_t n, uint64_t offset)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->read(sweep.inner, fd, p, n, offset);
}

static int sweep_sync(struct io *io, int fd)
{
    (void)io;
    return strikes_sync() ? -sweep.error : sweep.inner->ops->sync(sweep.inner, fd);
}

static int sweep_allocate(struct io *io, int fd, uint64_t offset, uint64_t n)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->allocate(sweep.inner, fd, offset, n);
}

static int sweep_truncate(struct io *io, int fd, uint64_t size)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->truncate(sweep.inner, fd, size);
}

static int sweep_size(struct io *io, int fd, uint64_t *size)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->size(sweep.inner, fd, size);
}

static int sweep_rename(struct io *io, const char *from, const char *to)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->rename(sweep.inner, from, to);
}

static int sweep_unlink(struct io *io, const char *path)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->unlink(sweep.inner, path);
}

static int sweep_mkdir(struct io *io, const char *path)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->mkdir(sweep.inner, path);
}

static int sweep_sync_dir(struct io *io, const char *path)
{
    (void)io;
    return strikes_sync() ? -sweep.error : sweep.inner->ops->sync_dir(sweep.inner, path);
}

static int sweep_lane_acquire(struct io *io, struct io_lane **out)
{
    (void)io;
    return strikes() ? -sweep.error : sweep.inner->ops->lane_acquire(sweep.inner, out);
}

static int sweep_lane_wait(struct io *io, struct io_lane *lane, unsigned *buffer, ssize_t *result)
{
    (void)io;
    bool strike = strikes(), cut = strikes_write(2 * IO_DIRECT_ALIGN);
    int rc = sweep.inner->ops->lane_wait(sweep.inner, lane, buffer, result);
    if (strike && rc >= 0)
        *result = -sweep.error;
    if (cut && rc >= 0 && *result > IO_DIRECT_ALIGN) /* the rest is written once more */
        *result = IO_DIRECT_ALIGN;
    return rc;
}

/* The rest is passed on as it is: the inner backend finds itself in its own struct. */
static void sweep_close(struct io *io, int fd)
{
    (void)io;
    sweep.inner->ops->close(sweep.inner, fd);
}

static int sweep_direct(struct io *io, int fd)
{
    (void)io;
    return sweep.inner->ops->set_direct(sweep.inner, fd);
}

static void sweep_lane_release(struct io *io, struct io_lane *lane, bool idle)
{
    (void)io;
    sweep.inner->ops->lane_release(sweep.inner, lane, idle);
}

static int sweep_lane_submit(struct io *io, struct io_lane *lane, int fd, unsigned buffer,
                             size_t from, size_t n, uint64_t offset)
{
    (void)io;
    return sweep.inner->ops->lane_submit(sweep.inner, lane, fd, buffer, from, n, offset);
}

static void sweep_free(struct io *io)
{
    (void)io;
    io_free(sweep.inner);
}

/* Takes `inner` over. */
static struct io *sweep_new(struct io *inner)
{
    sweep_ops = (struct io_ops){
        .name = "sweep",
        .free = sweep_free,
        .open = sweep_open,
        .close = sweep_close,
        .write = sweep_write,
        .write_sync = sweep_write_sync,
        .read = sweep_read,
        .sync = sweep_sync,
        .allocate = sweep_allocate,
        .truncate = sweep_truncate,
        .size = sweep_size,
        .set_direct = sweep_direct,
        .rename = sweep_rename,
        .unlink = sweep_unlink,
        .mkdir = sweep_mkdir,
        .sync_dir = sweep_sync_dir,
        .lane_acquire = sweep_lane_acquire,
        .lane_release = sweep_lane_release,
        .lane_submit = sweep_lane_submit,
        .lane_wait = sweep_lane_wait,
    };
    io_init(&sweep.base, &sweep_ops);
    sweep.inner = inner;
    return &sweep.base;
}

#endif
