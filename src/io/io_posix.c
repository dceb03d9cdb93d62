/* The posix backend: each operation is its system call, one at a time.
 *
 * A lane has one buffer; a submitted write is done at once and its result waits to be collected:
 *
 *   lane_submit -> pwrite -> result kept -> lane_wait
 *
 * Threads: no state but the lanes, which belong to one stream each. Failure: -errno. */
#include "io/io_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MODE = 0640, DIR_MODE = 0750 };

#define RETRY_EINTR(call)                                                                          \
    ({                                                                                             \
        __typeof__(call) r_;                                                                       \
        do                                                                                         \
            r_ = (call);                                                                           \
        while (r_ < 0 && errno == EINTR);                                                          \
        r_ < 0 ? -errno : r_;                                                                      \
    })

/* ---- files ---- */

static int posix_open(struct io *io, const char *path, int flags)
{
    (void)io;
    return RETRY_EINTR(open(path, flags | O_CLOEXEC, FILE_MODE));
}

static void posix_close(struct io *io, int fd)
{
    (void)io;
    close(fd);
}

static ssize_t posix_write(struct io *io, int fd, const void *data, size_t n, uint64_t offset)
{
    (void)io;
    return RETRY_EINTR(pwrite(fd, data, n, (off_t)offset));
}

static int posix_sync(struct io *io, int fd)
{
    (void)io;
    return fdatasync(fd) == 0 ? 0 : -errno;
}

static ssize_t posix_write_sync(struct io *io, int fd, const void *data, size_t n, uint64_t offset)
{
    ssize_t written = posix_write(io, fd, data, n, offset);
    if (written < 0 || (size_t)written < n)
        return written;
    int synced = posix_sync(io, fd);
    return synced < 0 ? synced : written;
}

static ssize_t posix_read(struct io *io, int fd, void *data, size_t n, uint64_t offset)
{
    (void)io;
    return RETRY_EINTR(pread(fd, data, n, (off_t)offset));
}

static int posix_allocate(struct io *io, int fd, uint64_t offset, uint64_t n)
{
    (void)io;
    return RETRY_EINTR(fallocate(fd, 0, (off_t)offset, (off_t)n));
}

static int posix_truncate(struct io *io, int fd, uint64_t size)
{
    (void)io;
    return RETRY_EINTR(ftruncate(fd, (off_t)size));
}

static int posix_size(struct io *io, int fd, uint64_t *size)
{
    (void)io;
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    *size = (uint64_t)st.st_size;
    return 0;
}

static int posix_set_direct(struct io *io, int fd)
{
    (void)io;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    return fcntl(fd, F_SETFL, flags | O_DIRECT) == 0 ? 0 : -errno;
}

/* ---- names ---- */

static int posix_rename(struct io *io, const char *from, const char *to)
{
    (void)io;
    return rename(from, to) == 0 ? 0 : -errno;
}

static int posix_unlink(struct io *io, const char *path)
{
    (void)io;
    return unlink(path) == 0 ? 0 : -errno;
}

static int posix_mkdir(struct io *io, const char *path)
{
    (void)io;
    return mkdir(path, DIR_MODE) == 0 ? 0 : -errno;
}

static int posix_sync_dir(struct io *io, const char *path)
{
    int fd = posix_open(io, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fd;
    int synced = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return synced;
}

/* ---- lanes ---- */

struct posix_lane {
    struct io_lane base;
    bool waiting; /* a result waits to be collected */
    ssize_t result;
};

uint8_t *lane_buffers_new(unsigned nbuffers)
{
    size_t size = (size_t)nbuffers * LANE_BUFFER_BYTES;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, size, MADV_DONTFORK);
    madvise(p, size, MADV_HUGEPAGE);
    return p;
}

void lane_buffers_free(uint8_t *buffers, unsigned nbuffers)
{
    if (buffers)
        munmap(buffers, (size_t)nbuffers * LANE_BUFFER_BYTES);
}

static int posix_lane_acquire(struct io *io, struct io_lane **out)
{
    (void)io;
    struct posix_lane *lane = calloc(1, sizeof(*lane));
    if (!lane)
        return -ENOMEM;
    lane->base.nbuffers = 1;
    lane->base.buffers = lane_buffers_new(1);
    if (!lane->base.buffers) {
        free(lane);
        return -ENOMEM;
    }
    *out = &lane->base;
    return 0;
}

static void posix_lane_release(struct io *io, struct io_lane *lane, bool idle)
{
    (void)io;
    (void)idle;
    lane_buffers_free(lane->buffers, lane->nbuffers);
    free(lane);
}

static int posix_lane_submit(struct io *io, struct io_lane *base, int fd, unsigned buffer,
                             size_t from, size_t n, uint64_t offset)
{
    struct posix_lane *lane = (struct posix_lane *)base;
    ASSERT(!lane->waiting && buffer == 0);
    lane->result = posix_write(io, fd, base->buffers + from, n, offset);
    lane->waiting = true;
    return 0;
}

static int posix_lane_wait(struct io *io, struct io_lane *base, unsigned *buffer, ssize_t *result)
{
    (void)io;
    struct posix_lane *lane = (struct posix_lane *)base;
    ASSERT(lane->waiting);
    lane->waiting = false;
    *buffer = 0;
    *result = lane->result;
    return 0;
}

static void posix_free(struct io *io)
{
    free(io);
}

const struct io_ops IO_POSIX_OPS = {
    .name = "posix",
    .free = posix_free,
    .open = posix_open,
    .close = posix_close,
    .write = posix_write,
    .write_sync = posix_write_sync,
    .read = posix_read,
    .sync = posix_sync,
    .allocate = posix_allocate,
    .truncate = posix_truncate,
    .size = posix_size,
    .set_direct = posix_set_direct,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .sync_dir = posix_sync_dir,
    .lane_acquire = posix_lane_acquire,
    .lane_release = posix_lane_release,
    .lane_submit = posix_lane_submit,
    .lane_wait = posix_lane_wait,
};

enum err io_new_posix(struct io **out, struct err_ctx *ctx)
{
    struct io *io = malloc(sizeof(*io));
    if (!io)
        return err_no_memory(ctx, sizeof(*io));
    io_init(io, &IO_POSIX_OPS);
    *out = io;
    return ERR_OK;
}
