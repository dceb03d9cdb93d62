/* THE seam for files: everything Loadstone writes goes through here, so that a test can fail or
 * record any call. Two backends: io_uring (streams keep many O_DIRECT writes in flight from
 * registered buffers) and posix (the same calls, one at a time). Reading served data is mmap's
 * business and not here, but for what does not fit into memory: io_read_many.
 *
 * Threads: a struct io is shared by all. One file or stream is used by one thread at a time (it may
 * move between threads). */
#ifndef LOADSTONE_IO_IO_H
#define LOADSTONE_IO_IO_H

#include <stddef.h>

#include "base/err.h"

/* Bytes that a stream checksum covers, and the alignment of sections. */
enum { IO_SUM_BLOCK = 64 * 1024 };

struct io;
struct io_file;
struct io_stream;

enum io_backend { IO_AUTO, IO_URING, IO_POSIX };

/* IO_AUTO probes io_uring and falls back to posix with one log line that says why; IO_URING fails
 * with the reason where it is not allowed. `LOADSTONE_IO=uring|posix` is read by main, not here. */
WARN_UNUSED enum err io_new(enum io_backend which, struct io **out, struct err_ctx *ctx);
void io_free(struct io *io);

/* A backend that changes nothing: what would be changed is told to `changed` (may be NULL) and
 * counts as done; new files and streams are refused. For `loadstoned check`. */
enum io_change { IO_CHANGE_WRITE, IO_CHANGE_UNLINK };
typedef void (*io_change_fn)(void *arg, enum io_change what, const char *path, uint64_t offset);
WARN_UNUSED enum err io_new_readonly(io_change_fn changed, void *arg, struct io **out,
                                     struct err_ctx *ctx);
const char *io_backend_name(const struct io *io); /* "io_uring" or "posix" */

/* A path that does not exist is ERR_IO, one that must not exist and does ERR_CONFLICT; other
 * failures are ERR_IO, ERR_NO_SPACE or ERR_NO_MEMORY. */

/* ---- plain files: logs, checkpoints, small control files ---- */

enum io_open_mode {
    IO_READ,        /* must exist */
    IO_WRITE,       /* must exist, read and write */
    IO_CREATE_EXCL, /* must not exist (ERR_CONFLICT), read and write */
};
WARN_UNUSED enum err io_file_open(struct io *io, const char *path, enum io_open_mode mode,
                                  struct io_file **out, struct err_ctx *ctx);
void io_file_close(struct io_file *f); /* NULL is allowed */
/* Writes all n bytes at `offset`, resubmitting short writes. */
WARN_UNUSED enum err io_file_write(struct io_file *f, const void *data, size_t n, uint64_t offset,
                                   struct err_ctx *ctx);
/* write + fdatasync as one step: a linked pair on a ring. After an error nothing is known of the
 * file's durable content past `offset`, and the caller must not retry the sync. */
WARN_UNUSED enum err io_file_write_sync(struct io_file *f, const void *data, size_t n,
                                        uint64_t offset, struct err_ctx *ctx);
/* Reads exactly n bytes; ERR_CORRUPT when the file ends before. */
WARN_UNUSED enum err io_file_read(struct io_file *f, void *data, size_t n, uint64_t offset,
                                  struct err_ctx *ctx);
WARN_UNUSED enum err io_file_sync(struct io_file *f, struct err_ctx *ctx); /* fdatasync */
/* Reserves the blocks of [offset, offset + n); the file grows and reads as zeros there. */
WARN_UNUSED enum err io_file_allocate(struct io_file *f, uint64_t offset, uint64_t n,
                                      struct err_ctx *ctx);
WARN_UNUSED enum err io_file_truncate(struct io_file *f, uint64_t size, struct err_ctx *ctx);
WARN_UNUSED enum err io_file_size(struct io_file *f, uint64_t *size, struct err_ctx *ctx);

/* Reads that are in flight together: on io_uring as many as its ring holds, on posix one by one. */
struct io_read {
    struct io_file *file;
    void *data;
    size_t n;
    uint64_t offset;
};
/* Reads all of them whole; ERR_CORRUPT when a file ends before. Several threads may read from one
 * file so. What was read is undefined after an error. */
WARN_UNUSED enum err io_read_many(struct io *io, const struct io_read *reads, size_t n,
                                  struct err_ctx *ctx);

/* ---- names ---- */

WARN_UNUSED enum err io_rename(struct io *io, const char *from, const char *to,
                               struct err_ctx *ctx);
WARN_UNUSED enum err io_unlink(struct io *io, const char *path, struct err_ctx *ctx);
/* An existing directory is fine. The parent is synced. */
WARN_UNUSED enum err io_mkdir(struct io *io, const char *path, struct err_ctx *ctx);
WARN_UNUSED enum err io_sync_dir(struct io *io, const char *path, struct err_ctx *ctx);
/* Writes a whole small file so that it is there complete or not at all: temp name in the same
 * directory (PATH.tmp), write, sync, rename, directory sync. One writer a path at a time. */
WARN_UNUSED enum err io_write_atomic(struct io *io, const char *path, const void *data, size_t n,
                                     struct err_ctx *ctx);

/* ---- streams: sequential bulk writing of one new file ---- */

/* Creates `path` (must not exist; a failed open leaves nothing behind). `size_hint` bytes are
 * allocated at once (0: unknown; it grows in large steps). ENOSPC shows here or at a later put as
 * ERR_NO_SPACE. */
WARN_UNUSED enum err io_stream_open(struct io *io, const char *path, uint64_t size_hint,
                                    struct io_stream **out, struct err_ctx *ctx);
/* Free space to fill in place: at least one byte, at most a buffer; then io_stream_advance. May
 * wait for a write in flight. */
WARN_UNUSED enum err io_stream_space(struct io_stream *s, uint8_t **space, size_t *n,
                                     struct err_ctx *ctx);
/* Commits `n` bytes filled in. Checksums each IO_SUM_BLOCK (XXH3-64) while it is in cache and
 * submits each full buffer. */
WARN_UNUSED enum err io_stream_advance(struct io_stream *s, size_t n, struct err_ctx *ctx);
WARN_UNUSED enum err io_stream_put(struct io_stream *s, const void *data, size_t n,
                                   struct err_ctx *ctx);
/* Zeros up to the next multiple of IO_SUM_BLOCK. */
WARN_UNUSED enum err io_stream_align(struct io_stream *s, struct err_ctx *ctx);
uint64_t io_stream_offset(const struct io_stream *s); /* bytes put so far */
/* XXH3-64 of each whole IO_SUM_BLOCK so far; borrowed until the next call. */
const uint64_t *io_stream_sums(const struct io_stream *s, size_t *n);
/* Writes the rest, waits for every write, cuts the file to its size, fdatasync. On error the file
 * is worthless: close and unlink. */
WARN_UNUSED enum err io_stream_finish(struct io_stream *s, struct err_ctx *ctx);
/* Waits for writes in flight and closes; NULL is allowed. Does not unlink. */
void io_stream_close(struct io_stream *s);

#endif
