/* Files and names over a backend's operations.
 *
 * An operation is tried once by the backend; here it is carried through: writes and reads go on
 * until all bytes are moved, and a failure becomes a sentence that names the file.
 *
 * A small file is replaced so that it is there complete or not at all:
 *
 *   PATH.tmp: create, write, fdatasync -> rename to PATH -> sync the directory
 *
 * Threads: a struct io is shared; a file is used by one thread at a time. Failure: an errno-style
 * code and a sentence; a write that moves no byte is an error, not a loop. */
#include "io/io_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

struct io_file {
    struct io *io;
    int fd;
    char path[];
};

/* ---- backends ---- */

void io_init(struct io *io, const struct io_ops *ops)
{
    io->ops = ops;
    atomic_init(&io->direct_refused, false);
}

enum err io_new(enum io_backend which, struct io **out, struct err_ctx *ctx)
{
    if (which == IO_POSIX)
        return io_new_posix(out, ctx);
    struct err_ctx reason;
    err_clear(&reason);
    enum err e = io_new_uring(out, &reason);
    if (e == ERR_OK)
        return ERR_OK;
    if (which == IO_URING)
        return err_set(ctx, e, "%s", reason.detail);
    log_warn("%s; writing with posix calls instead, which makes bulk loads slower", reason.detail);
    return io_new_posix(out, ctx);
}

void io_free(struct io *io)
{
    if (io)
        io->ops->free(io);
}

const char *io_backend_name(const struct io *io)
{
    return io->ops->name;
}

enum err io_failed(struct err_ctx *ctx, int result, const char *verb, const char *path)
{
    if (result == -ENOENT)
        return err_set(ctx, ERR_IO, "cannot %s %s: there is no such file or directory", verb, path);
    if (result == -EEXIST)
        return err_set(ctx, ERR_CONFLICT, "cannot %s %s: it exists already", verb, path);
    return err_system(ctx, -result, "cannot %s %s", verb, path);
}

/* ---- files ---- */

enum err io_file_open(struct io *io, const char *path, enum io_open_mode mode, struct io_file **out,
                      struct err_ctx *ctx)
{
    static const int FLAGS[] = {
        [IO_READ] = O_RDONLY, [IO_WRITE] = O_RDWR, [IO_CREATE_EXCL] = O_RDWR | O_CREAT | O_EXCL};
    size_t path_bytes = strlen(path) + 1;
    struct io_file *f = malloc(sizeof(*f) + path_bytes);
    if (!f)
        return err_no_memory(ctx, sizeof(*f) + path_bytes);
    f->io = io;
    memcpy(f->path, path, path_bytes);
    f->fd = io->ops->open(io, path, FLAGS[mode]);
    if (f->fd < 0) {
        int result = f->fd;
        free(f);
        return io_failed(ctx, result, mode == IO_CREATE_EXCL ? "create" : "open", path);
    }
    *out = f;
    return ERR_OK;
}

void io_file_close(struct io_file *f)
{
    if (!f)
        return;
    f->io->ops->close(f->io, f->fd);
    free(f);
}

static enum err write_all(struct io_file *f,
                          ssize_t (*write)(struct io *, int, const void *, size_t, uint64_t),
                          const uint8_t *data, size_t n, uint64_t offset, struct err_ctx *ctx)
{
    while (n > 0) {
        ssize_t w = write(f->io, f->fd, data, n, offset);
        if (w < 0)
            return io_failed(ctx, (int)w, "write", f->path);
        if (w == 0)
            return err_set(ctx, ERR_IO, "cannot write %s: the system took no byte at offset %llu",
                           f->path, (unsigned long long)offset);
        data += w;
        n -= (size_t)w;
        offset += (uint64_t)w;
    }
    return ERR_OK;
}

enum err io_file_write(struct io_file *f, const void *data, size_t n, uint64_t offset,
                       struct err_ctx *ctx)
{
    return write_all(f, f->io->ops->write, data, n, offset, ctx);
}

/* After a short write nothing is synced; the last call, which writes the rest, syncs the file. */
enum err io_file_write_sync(struct io_file *f, const void *data, size_t n, uint64_t offset,
                            struct err_ctx *ctx)
{
    if (n == 0)
        return io_file_sync(f, ctx);
    return write_all(f, f->io->ops->write_sync, data, n, offset, ctx);
}

enum err io_file_read(struct io_file *f, void *data, size_t n, uint64_t offset, struct err_ctx *ctx)
{
    uint8_t *p = data;
    while (n > 0) {
        ssize_t r = f->io->ops->read(f->io, f->fd, p, n, offset);
        if (r < 0)
            return io_failed(ctx, (int)r, "read", f->path);
        if (r == 0)
            return err_set(ctx, ERR_CORRUPT, "%s ends at byte %llu, but %zu more are expected",
                           f->path, (unsigned long long)offset, n);
        p += r;
        n -= (size_t)r;
        offset += (uint64_t)r;
    }
    return ERR_OK;
}

enum { TOGETHER = 128 }; /* reads that are tried at once */

/* What was tried and is not whole is read on its own. */
static enum err finish_read(const struct io_read *r, ssize_t got, struct err_ctx *ctx)
{
    if (got < 0 && got != -EAGAIN && got != -EINTR)
        return io_failed(ctx, (int)got, "read", r->file->path);
    size_t have = got < 0 ? 0 : (size_t)got;
    return have == r->n ? ERR_OK
                        : io_file_read(r->file, (uint8_t *)r->data + have, r->n - have,
                                       r->offset + have, ctx);
}

static enum err read_together(struct io *io, const struct io_read *reads, size_t n,
                              struct err_ctx *ctx)
{
    struct io_attempt tries[TOGETHER];
    ssize_t got[TOGETHER] = {0};
    for (size_t i = 0; i < n; i++)
        tries[i] =
            (struct io_attempt){reads[i].file->fd, reads[i].data, reads[i].n, reads[i].offset};
    if (io->ops->read_many)
        io->ops->read_many(io, tries, n, got);
    for (size_t i = 0; i < n; i++)
        RETURN_NOT_OK(finish_read(&reads[i], got[i], ctx));
    return ERR_OK;
}

enum err io_read_many(struct io *io, const struct io_read *reads, size_t n, struct err_ctx *ctx)
{
    for (size_t i = 0; i < n; i += TOGETHER)
        RETURN_NOT_OK(read_together(io, reads + i, n - i < TOGETHER ? n - i : TOGETHER, ctx));
    return ERR_OK;
}

static enum err file_result(const struct io_file *f, int result, const char *verb,
                            struct err_ctx *ctx)
{
    return result < 0 ? io_failed(ctx, result, verb, f->path) : ERR_OK;
}

enum err io_file_sync(struct io_file *f, struct err_ctx *ctx)
{
    return file_result(f, f->io->ops->sync(f->io, f->fd), "sync", ctx);
}

enum err io_file_allocate(struct io_file *f, uint64_t offset, uint64_t n, struct err_ctx *ctx)
{
    if (n == 0)
        return ERR_OK;
    int r = f->io->ops->allocate(f->io, f->fd, offset, n);
    return file_result(f, r, "reserve disk space for", ctx);
}

enum err io_file_truncate(struct io_file *f, uint64_t size, struct err_ctx *ctx)
{
    return file_result(f, f->io->ops->truncate(f->io, f->fd, size), "set the size of", ctx);
}

enum err io_file_size(struct io_file *f, uint64_t *size, struct err_ctx *ctx)
{
    return file_result(f, f->io->ops->size(f->io, f->fd, size), "ask the size of", ctx);
}

/* ---- names ---- */

static enum err name_result(int result, const char *verb, const char *path, struct err_ctx *ctx)
{
    return result < 0 ? io_failed(ctx, result, verb, path) : ERR_OK;
}

enum err io_rename(struct io *io, const char *from, const char *to, struct err_ctx *ctx)
{
    return name_result(io->ops->rename(io, from, to), "rename", from, ctx);
}

enum err io_unlink(struct io *io, const char *path, struct err_ctx *ctx)
{
    return name_result(io->ops->unlink(io, path), "remove", path, ctx);
}

enum err io_sync_dir(struct io *io, const char *path, struct err_ctx *ctx)
{
    return name_result(io->ops->sync_dir(io, path), "sync directory", path, ctx);
}

static enum err sync_parent(struct io *io, const char *path, struct err_ctx *ctx)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    const char *slash = memrchr(path, '/', len);
    if (!slash)
        return io_sync_dir(io, ".", ctx);
    if (slash == path)
        return io_sync_dir(io, "/", ctx);
    char *dir = strndup(path, (size_t)(slash - path));
    if (!dir)
        return err_no_memory(ctx, len);
    enum err e = io_sync_dir(io, dir, ctx);
    free(dir);
    return e;
}

/* The directory that is there already may not have been synced by whoever made it. */
enum err io_mkdir(struct io *io, const char *path, struct err_ctx *ctx)
{
    int r = io->ops->mkdir(io, path);
    if (r == -EEXIST) {
        int fd = io->ops->open(io, path, O_RDONLY | O_DIRECTORY);
        if (fd >= 0)
            io->ops->close(io, fd);
        r = fd < 0 ? fd : 0;
    }
    if (r < 0)
        return io_failed(ctx, r, "create directory", path);
    return sync_parent(io, path, ctx);
}

/* ---- small files ---- */

/* What a crash left under the temporary name is nobody's. */
static enum err create_temp(struct io *io, const char *temp, struct io_file **out,
                            struct err_ctx *ctx)
{
    int r = io->ops->unlink(io, temp);
    if (r < 0 && r != -ENOENT)
        return io_failed(ctx, r, "remove", temp);
    return io_file_open(io, temp, IO_CREATE_EXCL, out, ctx);
}

static enum err write_and_rename(struct io *io, const char *temp, const char *path,
                                 const void *data, size_t n, struct err_ctx *ctx)
{
    struct io_file *f = NULL;
    enum err e = create_temp(io, temp, &f, ctx);
    if (!f)
        return e;
    e = io_file_write_sync(f, data, n, 0, ctx);
    io_file_close(f);
    if (e == ERR_OK)
        e = io_rename(io, temp, path, ctx);
    if (e != ERR_OK)
        (void)io->ops->unlink(io, temp); /* best effort: the next writer removes it too */
    return e;
}

enum err io_write_atomic(struct io *io, const char *path, const void *data, size_t n,
                         struct err_ctx *ctx)
{
    char *temp;
    if (asprintf(&temp, "%s.tmp", path) < 0)
        return err_no_memory(ctx, strlen(path));
    enum err e = write_and_rename(io, temp, path, data, n, ctx);
    if (e == ERR_OK)
        e = sync_parent(io, path, ctx);
    free(temp);
    return e;
}
