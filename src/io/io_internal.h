/* What a backend of io.h supplies: every operation that the system sees, each tried once.
 *
 *   io.c, io_stream.c     loops, short writes, sentences: the same for every backend
 *         | ops
 *   io_uring.c  io_posix.c     (or a test's backend in front of one of them)
 *
 * An operation returns what the system call would: >= 0, or -errno. It has seen to EINTR itself. A
 * backend in front of another keeps the inner `struct io *` in its own struct and passes calls on.
 *
 * Bulk writes go through a lane: buffers of LANE_BUFFER_BYTES and a queue of writes from them. A
 * lane is used by one stream at a time. */
#ifndef LOADSTONE_IO_INTERNAL_H
#define LOADSTONE_IO_INTERNAL_H

#include <stdatomic.h>
#include <sys/types.h>

#include "io/io.h"

enum {
    LANE_BUFFER_BYTES = 1024 * 1024,
    LANE_BUFFERS_MAX = 32,
    IO_DIRECT_ALIGN = 4096, /* of address, offset and length of an O_DIRECT write */
};

struct io_lane {
    uint8_t *buffers; /* nbuffers x LANE_BUFFER_BYTES, page-aligned */
    unsigned nbuffers;
};

struct io_attempt {
    int fd;
    void *data;
    size_t n;
    uint64_t offset;
};

struct io_ops {
    const char *name;
    void (*free)(struct io *io);

    int (*open)(struct io *io, const char *path, int flags);
    void (*close)(struct io *io, int fd);
    ssize_t (*write)(struct io *io, int fd, const void *data, size_t n, uint64_t offset);
    /* As write; when all n bytes were written they are durable too, and an error may be the
     * sync's. */
    ssize_t (*write_sync)(struct io *io, int fd, const void *data, size_t n, uint64_t offset);
    ssize_t (*read)(struct io *io, int fd, void *data, size_t n, uint64_t offset);
    /* Tries each once; result[i] as read's. NULL: read, one by one. */
    void (*read_many)(struct io *io, const struct io_attempt *all, size_t n, ssize_t *result);
    int (*sync)(struct io *io, int fd);
    int (*allocate)(struct io *io, int fd, uint64_t offset, uint64_t n);
    int (*truncate)(struct io *io, int fd, uint64_t size);
    int (*size)(struct io *io, int fd, uint64_t *size);
    int (*set_direct)(struct io *io, int fd); /* O_DIRECT from here on */

    int (*rename)(struct io *io, const char *from, const char *to);
    int (*unlink)(struct io *io, const char *path);
    int (*mkdir)(struct io *io, const char *path);
    int (*sync_dir)(struct io *io, const char *path);

    int (*lane_acquire)(struct io *io, struct io_lane **out);
    /* `idle`: no write is in flight, the lane may be used again. */
    void (*lane_release)(struct io *io, struct io_lane *lane, bool idle);
    /* Queues a write of bytes [from, from + n) of a buffer; at most one a buffer. */
    int (*lane_submit)(struct io *io, struct io_lane *lane, int fd, unsigned buffer, size_t from,
                       size_t n, uint64_t offset);
    /* Waits for one write: its buffer, and bytes written or -errno. */
    int (*lane_wait)(struct io *io, struct io_lane *lane, unsigned *buffer, ssize_t *result);
};

struct io {
    const struct io_ops *ops;
    atomic_bool direct_refused; /* said so in the log */
};

/* A backend starts `io` with its ops. */
void io_init(struct io *io, const struct io_ops *ops);

enum err io_new_posix(struct io **out, struct err_ctx *ctx);
/* ERR_UNAVAILABLE, with the reason, where io_uring is missing or not allowed. */
enum err io_new_uring(struct io **out, struct err_ctx *ctx);

/* The parts of posix that io_uring shares: it goes through the ring only for bulk and for
 * write_sync, since a ring makes a single call no faster. */
extern const struct io_ops IO_POSIX_OPS;

/* Page-aligned memory for `nbuffers` lane buffers; not copied to children. NULL: no memory. */
uint8_t *lane_buffers_new(unsigned nbuffers);
void lane_buffers_free(uint8_t *buffers, unsigned nbuffers);

/* The sentence of a failed operation: "cannot VERB PATH: reason". ENOENT is ERR_IO like most,
 * EEXIST ERR_CONFLICT. `result` is the negative errno. */
enum err io_failed(struct err_ctx *ctx, int result, const char *verb, const char *path);

#endif
