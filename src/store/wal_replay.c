/* The log read back: groups in order over all files, up to the end that is torn or zeros.
 *
 * A file that was created and never used, as a rotation leaves it that failed after its name was
 * there, goes. Failure: what was opened is closed again; the files are as they were. */
#include "store/wal_internal.h"

#include <errno.h>
#include <unistd.h>

#include "base/log.h"

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
