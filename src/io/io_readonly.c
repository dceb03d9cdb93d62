/* A backend that reads and changes nothing: what would be written, renamed or removed is told to a
 * watcher and reported as done. So the code that opens a data directory for serving can be run to
 * see what it finds and what it would mend.
 *
 *   io.c ── ops ──► read: the posix call        write, sync, rename, unlink ..: watcher only
 *
 * A file opened for writing is opened for reading; bulk streams and new files are refused, since
 * nothing that reads makes them. Threads: no state but the watcher, which the opener's thread
 * calls. Failure: -errno, as the posix backend. */
#include "io/io_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

struct readonly {
    struct io base;
    struct io_ops ops;
    io_change_fn changed;
    void *arg;
};

static void tell(struct io *io, enum io_change what, const char *path, uint64_t offset)
{
    struct readonly *r = (struct readonly *)io;
    if (r->changed)
        r->changed(r->arg, what, path, offset);
}

static int readonly_open(struct io *io, const char *path, int flags)
{
    if (flags & O_CREAT)
        return -EROFS;
    return IO_POSIX_OPS.open(io, path, (flags & ~O_ACCMODE) | O_RDONLY);
}

static ssize_t readonly_write(struct io *io, int fd, const void *data, size_t n, uint64_t offset)
{
    char link[64], path[PATH_MAX];
    (void)data;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    path[len > 0 ? len : 0] = 0;
    tell(io, IO_CHANGE_WRITE, path, offset);
    return (ssize_t)n;
}

static int readonly_sync(struct io *io, int fd)
{
    (void)io;
    (void)fd;
    return 0;
}

static int readonly_allocate(struct io *io, int fd, uint64_t offset, uint64_t n)
{
    (void)io;
    (void)fd;
    (void)offset;
    (void)n;
    return -EROFS;
}

static int readonly_truncate(struct io *io, int fd, uint64_t size)
{
    (void)io;
    (void)fd;
    (void)size;
    return -EROFS;
}

static int readonly_direct(struct io *io, int fd)
{
    (void)io;
    (void)fd;
    return -EROFS;
}

static int readonly_rename(struct io *io, const char *from, const char *to)
{
    (void)io;
    (void)from;
    (void)to;
    return -EROFS;
}

static int readonly_unlink(struct io *io, const char *path)
{
    tell(io, IO_CHANGE_UNLINK, path, 0);
    return 0;
}

static int readonly_mkdir(struct io *io, const char *path)
{
    (void)io;
    return access(path, F_OK) == 0 ? -EEXIST : -EROFS;
}

static int readonly_sync_dir(struct io *io, const char *path)
{
    (void)io;
    (void)path;
    return 0;
}

static int readonly_lane_acquire(struct io *io, struct io_lane **out)
{
    (void)io;
    (void)out;
    return -EROFS;
}

static void readonly_free(struct io *io)
{
    free(io);
}

enum err io_new_readonly(io_change_fn changed, void *arg, struct io **out, struct err_ctx *ctx)
{
    struct readonly *r = malloc(sizeof *r);
    if (!r)
        return err_no_memory(ctx, sizeof *r);
    /* Lanes are never acquired: their other operations are not called. */
    struct io_ops *ops = &r->ops;
    *ops = IO_POSIX_OPS;
    ops->name = "readonly";
    ops->free = readonly_free;
    ops->open = readonly_open;
    ops->write = readonly_write;
    ops->write_sync = readonly_write;
    ops->sync = readonly_sync;
    ops->allocate = readonly_allocate;
    ops->truncate = readonly_truncate;
    ops->set_direct = readonly_direct;
    ops->rename = readonly_rename;
    ops->unlink = readonly_unlink;
    ops->mkdir = readonly_mkdir;
    ops->sync_dir = readonly_sync_dir;
    ops->lane_acquire = readonly_lane_acquire;
    io_init(&r->base, ops);
    r->changed = changed;
    r->arg = arg;
    *out = &r->base;
    return ERR_OK;
}
