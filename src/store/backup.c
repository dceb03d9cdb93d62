/* Backups.
 *
 * Of each collection, in this order:
 *
 *   list       the log files and checkpoints that there are
 *   log        the newest checkpoint, the history files, and the log files from the checkpoint's
 *              number on, as listed
 *   segments   those that the copied checkpoint and records refer to, each block against its sum
 *   index      the .ann files of these segments; one that is missing is built again
 *   open       the copy, as a daemon would, and mark the end of its log
 *
 * Why that is consistent beside a running daemon: files of segments are immutable, and durable
 * under their names before a record refers to them, so that what the copied log refers to is there.
 * A log file grows at its end only, and all that was acknowledged stands in the files listed; of
 * the last of them the whole groups are taken, whatever is being written behind them. Files from
 * before the listing are removed only after a newer checkpoint is durable.
 *
 * What can come in between makes a try fail, never succeed wrongly, and is tried again from the
 * listing: a checkpoint superseded the files listed; the collection was dropped, or created again
 * (its id tells); a group came into the log behind one that was read while it was being written,
 * which reads like damage. Damage fails every time.
 *
 * Threads: one. Failure: `dest`.partial stays behind if it was made; the sentence then says so. */
#include "store/backup.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "store/catalog_internal.h"
#include "store/wal.h"

enum { TRIES_MAX = 10, TRY_AGAIN_MS = 5 };

struct backup {
    struct io *io;
    const char *data;
    char *dest; /* while it is written: with .partial */
    void (*report)(void *arg, const struct backup_line *line);
    void *arg;
    bool any_fault;
};

/* One collection. */
struct copying {
    struct io *io;
    char from[PATH_CAP - 256], to[PATH_CAP - 256];
    uint8_t id[16];
    struct buf logs, checkpoints; /* u64 numbers, ascending */
    struct buf segments;          /* u64 ids */
};

/* ---- copying files ---- */

static void join(const char *dir, const char *folder, const char *name, char out[PATH_CAP])
{
    snprintf(out, PATH_CAP, "%s/%s%s%s", dir, folder, *name ? "/" : "", name);
}

static enum err stream_file(struct io_file *in, uint64_t size, struct io_stream *out,
                            struct err_ctx *ctx)
{
    uint64_t at = 0;
    while (at < size) {
        uint8_t *space;
        size_t n;
        RETURN_NOT_OK(io_stream_space(out, &space, &n, ctx));
        if (n > size - at)
            n = size - at;
        RETURN_NOT_OK(io_file_read(in, space, n, at, ctx));
        RETURN_NOT_OK(io_stream_advance(out, n, ctx));
        at += n;
    }
    return io_stream_finish(out, ctx);
}

/* `s`: the segment in the file, whose blocks are checked on their way; or NULL. */
static enum err check_sums(const struct segment *s, struct io_stream *copy, struct err_ctx *ctx)
{
    size_t n, blocks = s ? s->data_len / IO_SUM_BLOCK : 0;
    const uint64_t *sums = io_stream_sums(copy, &n);
    ASSERT(blocks <= n);
    for (size_t i = 0; i < blocks; i++)
        if (memcmp(&sums[i], s->block_sums + i * 8, 8) != 0)
            return err_set(ctx, ERR_CORRUPT,
                           "%s: the checksum of the 64 KiB block at offset %zu does not match",
                           s->path, i * IO_SUM_BLOCK);
    return ERR_OK;
}

static enum err copy_file(struct io *io, const char *from, const char *to, const struct segment *s,
                          struct err_ctx *ctx)
{
    struct io_file *in;
    struct io_stream *out = NULL;
    uint64_t size;
    RETURN_NOT_OK(io_file_open(io, from, IO_READ, &in, ctx));
    enum err e = io_file_size(in, &size, ctx);
    if (e == ERR_OK)
        e = io_stream_open(io, to, size, &out, ctx);
    if (e == ERR_OK)
        e = stream_file(in, size, out, ctx);
    if (e == ERR_OK)
        e = check_sums(s, out, ctx);
    io_stream_close(out);
    io_file_close(in);
    return e;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 || errno != ENOENT;
}

/* ---- listing ---- */

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static size_t count(const struct buf *numbers)
{
    return numbers->len / sizeof(uint64_t);
}

static uint64_t number_at(const struct buf *numbers, size_t i)
{
    return ((const uint64_t *)numbers->data)[i];
}

static void sort(struct buf *numbers)
{
    if (numbers->len)
        qsort(numbers->data, count(numbers), sizeof(uint64_t), compare_numbers);
}

/* Numbers of the files <16 hex digits><suffix>, ascending. */
static enum err list_suffix(const char *dir, const char *suffix, struct buf *out,
                            struct err_ctx *ctx)
{
    buf_reset(out);
    DIR *d = opendir(dir);
    if (!d)
        return err_system(ctx, errno, "open directory %s", dir);
    for (struct dirent *e; (e = readdir(d));) {
        char *end;
        uint64_t number = strtoull(e->d_name, &end, 16);
        if (end == e->d_name + 16 && strcmp(end, suffix) == 0)
            buf_put(out, &number, sizeof number);
    }
    closedir(d);
    sort(out);
    return out->failed ? err_no_memory(ctx, out->len) : ERR_OK;
}

static enum err list_log(struct copying *c, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    join(c->from, "log", "", dir);
    RETURN_NOT_OK(list_suffix(dir, ".ckpt", &c->checkpoints, ctx));
    RETURN_NOT_OK(list_suffix(dir, ".log", &c->logs, ctx));
    if (!c->logs.len)
        return err_set(ctx, ERR_CORRUPT, "%s: the log is missing", dir);
    return ERR_OK;
}

/* ---- the log ---- */

static enum err read_whole(struct io *io, const char *path, struct buf *out, struct err_ctx *ctx)
{
    struct io_file *f;
    uint64_t size;
    RETURN_NOT_OK(io_file_open(io, path, IO_READ, &f, ctx));
    enum err e = io_file_size(f, &size, ctx);
    buf_reset(out);
    void *at = e == ERR_OK ? buf_extend(out, size) : NULL;
    if (e == ERR_OK && !at)
        e = err_no_memory(ctx, size);
    if (e == ERR_OK)
        e = io_file_read(f, at, size, 0, ctx);
    io_file_close(f);
    return e;
}

static void note_segments(struct copying *c, const struct buf *refs)
{
    const struct segment_ref *r = (const struct segment_ref *)refs->data;
    for (size_t i = 0; i < refs->len / sizeof *r; i++)
        buf_put(&c->segments, &r[i].id, sizeof r[i].id);
}

/* Copies the checkpoint when it is whole. */
static enum err take_checkpoint(struct copying *c, uint64_t number, struct err_ctx *ctx)
{
    char dir[PATH_CAP], path[PATH_CAP];
    struct buf data = {0};
    struct checkpoint cp;
    join(c->from, "log", "", dir);
    wal_path(dir, number, "ckpt", path, sizeof path);
    enum err e = read_whole(c->io, path, &data, ctx);
    if (e == ERR_OK)
        e = checkpoint_decode(data.data, data.len, c->id, &cp, ctx);
    if (e == ERR_OK) {
        note_segments(c, &cp.registry);
        checkpoint_deinit(&cp);
        join(c->to, "log", "", dir);
        wal_path(dir, number, "ckpt", path, sizeof path);
        e = io_write_atomic(c->io, path, data.data, data.len, ctx);
    }
    buf_deinit(&data);
    return e;
}

/* As a start does: the newest checkpoint that is whole and whose log file is there, else log 1. */
static enum err take_start(struct copying *c, uint64_t *start, struct err_ctx *ctx)
{
    uint64_t first = number_at(&c->logs, 0);
    for (size_t i = count(&c->checkpoints); i-- > 0 && number_at(&c->checkpoints, i) >= first;) {
        *start = number_at(&c->checkpoints, i);
        if (take_checkpoint(c, *start, ctx) == ERR_OK)
            return ERR_OK;
    }
    *start = 1;
    if (first == 1)
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT, "%s/log: no whole checkpoint and no first log file", c->from);
}

static enum err take_logs(struct copying *c, uint64_t start, struct err_ctx *ctx)
{
    char dir[PATH_CAP], from[PATH_CAP], to[PATH_CAP];
    for (size_t i = 0; i < count(&c->logs); i++) {
        if (number_at(&c->logs, i) < start)
            continue;
        join(c->from, "log", "", dir);
        wal_path(dir, number_at(&c->logs, i), "log", from, sizeof from);
        join(c->to, "log", "", dir);
        wal_path(dir, number_at(&c->logs, i), "log", to, sizeof to);
        RETURN_NOT_OK(copy_file(c->io, from, to, NULL, ctx));
    }
    return ERR_OK;
}

static enum err note_commit(struct copying *c, const void *record, size_t n, struct err_ctx *ctx)
{
    struct commit_record rec;
    RETURN_NOT_OK(commit_record_decode(record, n, &rec, ctx));
    note_segments(c, &rec.segments);
    commit_record_deinit(&rec);
    return ERR_OK;
}

static enum err note_compact(struct copying *c, const void *record, size_t n, struct err_ctx *ctx)
{
    struct compact_record rec;
    RETURN_NOT_OK(compact_record_decode(record, n, &rec, ctx));
    note_segments(c, &rec.added.segments);
    compact_record_deinit(&rec);
    return ERR_OK;
}

static enum err note_record(void *arg, const void *record, size_t n, struct err_ctx *ctx)
{
    uint8_t type = n ? *(const uint8_t *)record : 0;
    if (type == RECORD_COMMIT)
        return note_commit(arg, record, n, ctx);
    return type == RECORD_COMPACT ? note_compact(arg, record, n, ctx) : ERR_OK;
}

/* Cuts off what is no whole group at the end of the copy and notes what the rest refers to. */
static enum err replay_copy(struct copying *c, uint64_t start, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    struct wal *w;
    join(c->to, "log", "", dir);
    RETURN_NOT_OK(wal_open(c->io, dir, c->id, start, note_record, c, &w, ctx));
    wal_close(w);
    return ERR_OK;
}

/* They cover what the copied checkpoint begins behind, and maybe more: a sealing may have come in
 * between. When they reach beyond the copied log, opening the copy tells. */
static enum err take_history(struct copying *c, struct err_ctx *ctx)
{
    char dir[PATH_CAP], from[PATH_CAP], to[PATH_CAP];
    struct buf names = {0};
    join(c->from, "log", "", dir);
    enum err e = list_suffix(dir, ".hist", &names, ctx);
    for (size_t i = 0; e == ERR_OK && i < count(&names); i++) {
        join(c->from, "log", "", dir);
        wal_path(dir, number_at(&names, i), "hist", from, sizeof from);
        join(c->to, "log", "", dir);
        wal_path(dir, number_at(&names, i), "hist", to, sizeof to);
        e = copy_file(c->io, from, to, NULL, ctx);
    }
    buf_deinit(&names);
    return e;
}

static enum err copy_log(struct copying *c, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    uint64_t start;
    join(c->from, "log", "", dir);
    RETURN_NOT_OK(list_log(c, ctx));
    RETURN_NOT_OK(wal_read_id(c->io, dir, number_at(&c->logs, count(&c->logs) - 1), c->id, ctx));
    RETURN_NOT_OK(take_start(c, &start, ctx));
    RETURN_NOT_OK(take_history(c, ctx));
    RETURN_NOT_OK(take_logs(c, start, ctx));
    return replay_copy(c, start, ctx);
}

/* ---- segments and their indexes ---- */

static enum err copy_segment(struct copying *c, uint64_t id, struct err_ctx *ctx)
{
    char from[PATH_CAP], to[PATH_CAP], name[32];
    struct segment *s;
    snprintf(name, sizeof name, "%016llx.seg", (unsigned long long)id);
    join(c->from, "segments", name, from);
    join(c->to, "segments", name, to);
    RETURN_NOT_OK(segment_open(from, c->id, &s, ctx));
    enum err e = copy_file(c->io, from, to, s, ctx);
    segment_release(s);
    RETURN_NOT_OK(e);
    snprintf(name, sizeof name, "%016llx.ann", (unsigned long long)id);
    join(c->from, "index", name, from);
    join(c->to, "index", name, to);
    return exists(from) ? copy_file(c->io, from, to, NULL, ctx) : ERR_OK;
}

static enum err copy_segments(struct copying *c, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    if (c->segments.failed)
        return err_no_memory(ctx, c->segments.len);
    sort(&c->segments);
    for (size_t i = 0; i < count(&c->segments); i++)
        if (i == 0 || number_at(&c->segments, i) != number_at(&c->segments, i - 1))
            RETURN_NOT_OK(copy_segment(c, number_at(&c->segments, i), ctx));
    join(c->to, "segments", "", dir);
    RETURN_NOT_OK(io_sync_dir(c->io, dir, ctx));
    join(c->to, "index", "", dir);
    RETURN_NOT_OK(io_sync_dir(c->io, dir, ctx));
    join(c->to, "log", "", dir);
    return io_sync_dir(c->io, dir, ctx);
}

/* ---- a collection ---- */

static enum err make_folders(struct copying *c, struct err_ctx *ctx)
{
    static const char *const folders[] = {"log", "segments", "index", "staging"};
    char path[PATH_CAP];
    RETURN_NOT_OK(io_mkdir(c->io, c->to, ctx));
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        join(c->to, folders[i], "", path);
        RETURN_NOT_OK(io_mkdir(c->io, path, ctx));
    }
    return ERR_OK;
}

static enum err open_copy(struct copying *c, struct backup_line *line, struct err_ctx *ctx)
{
    struct collection *copy;
    RETURN_NOT_OK(collection_open(c->io, line->collection, c->to, NULL, &copy, ctx));
    enum err e = history_verify(copy, ctx);
    epoch_enter();
    const struct snapshot *s = collection_snapshot(copy);
    line->version = s->version;
    line->rows = s->rows;
    line->bytes = s->bytes;
    epoch_leave();
    collection_end(copy);
    collection_release(copy);
    epoch_drain();
    return e;
}

static enum err try_copy(struct copying *c, struct backup_line *line, struct err_ctx *ctx)
{
    buf_reset(&c->segments);
    RETURN_NOT_OK(make_folders(c, ctx));
    RETURN_NOT_OK(copy_log(c, ctx));
    RETURN_NOT_OK(copy_segments(c, ctx));
    return open_copy(c, line, ctx);
}

/* Only a full disk is not worth another try. */
static enum err copy_with_tries(struct copying *c, struct backup_line *line, struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    for (int i = 0; i < TRIES_MAX; i++) {
        err_clear(ctx);
        e = try_copy(c, line, ctx);
        if (e == ERR_OK || e == ERR_NO_SPACE)
            return e;
        catalog_remove_tree(c->to);
        if (!exists(c->from))
            return err_set(ctx, ERR_NOT_FOUND, "it was dropped meanwhile");
        usleep(TRY_AGAIN_MS * 1000);
    }
    return e;
}

/* Errors of the collection are its line's fault; a full disk ends the backup. */
static enum err copy_collection(struct backup *b, const char *name, struct err_ctx *ctx)
{
    struct copying *c = calloc(1, sizeof *c);
    struct backup_line line = {.collection = name};
    struct err_ctx why;
    if (!c)
        return err_no_memory(ctx, sizeof *c);
    c->io = b->io;
    snprintf(c->from, sizeof c->from, "%s/%s", b->data, name);
    snprintf(c->to, sizeof c->to, "%s/%s", b->dest, name);
    enum err e = copy_with_tries(c, &line, &why);
    buf_deinit(&c->logs);
    buf_deinit(&c->checkpoints);
    buf_deinit(&c->segments);
    free(c);
    if (e == ERR_NO_SPACE)
        return err_set(ctx, e, "%s", why.detail);
    line.fault = e == ERR_OK ? NULL : why.detail;
    b->any_fault |= e != ERR_OK && e != ERR_NOT_FOUND;
    b->report(b->arg, &line);
    return ERR_OK;
}

/* ---- the whole ---- */

static enum err each_name(struct backup *b, const char *dir,
                          enum err (*fn)(struct backup *b, const char *name, struct err_ctx *ctx),
                          struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    DIR *d = opendir(dir);
    if (!d)
        return err_system(ctx, errno, "open directory %s", dir);
    for (struct dirent *de; e == ERR_OK && (de = readdir(d));)
        if (name_valid(de->d_name))
            e = fn(b, de->d_name, ctx);
    closedir(d);
    return e;
}

static enum err copy_if_collection(struct backup *b, const char *name, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct stat st;
    join(b->data, name, "", path);
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return ERR_OK;
    return copy_collection(b, name, ctx);
}

static enum err copy_small(struct backup *b, const char *folder, const char *name,
                           struct err_ctx *ctx)
{
    char from[PATH_CAP], to[PATH_CAP];
    struct buf data = {0};
    join(b->data, folder, name, from);
    join(b->dest, folder, name, to);
    enum err e = read_whole(b->io, from, &data, ctx);
    if (e == ERR_OK)
        e = io_write_atomic(b->io, to, data.data, data.len, ctx);
    buf_deinit(&data);
    return e;
}

static enum err copy_tombstone(struct backup *b, const char *name, struct err_ctx *ctx)
{
    return copy_small(b, ".tombstones", name, ctx);
}

static enum err check_format(struct backup *b, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct buf text = {0};
    join(b->data, "FORMAT", "", path);
    enum err e = read_whole(b->io, path, &text, ctx);
    if (e == ERR_OK &&
        (text.len != strlen(CATALOG_FORMAT) || memcmp(text.data, CATALOG_FORMAT, text.len) != 0))
        e = err_set(ctx, ERR_CORRUPT, "%s is not of a format this build reads", path);
    buf_deinit(&text);
    return e;
}

/* Tombstones come last: a collection that was dropped before it was copied has left one. */
static enum err copy_all(struct backup *b, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    RETURN_NOT_OK(io_mkdir(b->io, b->dest, ctx));
    join(b->dest, ".tombstones", "", path);
    RETURN_NOT_OK(io_mkdir(b->io, path, ctx));
    RETURN_NOT_OK(each_name(b, b->data, copy_if_collection, ctx));
    join(b->data, ".tombstones", "", path);
    RETURN_NOT_OK(each_name(b, path, copy_tombstone, ctx));
    return copy_small(b, "FORMAT", "", ctx);
}

static void parent_of(const char *path, char out[PATH_CAP])
{
    snprintf(out, PATH_CAP, "%s", path);
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/')
        out[--n] = 0;
    char *slash = strrchr(out, '/');
    if (slash)
        slash[slash == out] = 0;
    else
        snprintf(out, PATH_CAP, ".");
}

static enum err sync_parent(struct io *io, const char *path, struct err_ctx *ctx)
{
    char parent[PATH_CAP];
    parent_of(path, parent);
    return io_sync_dir(io, parent, ctx);
}

/* A copy inside the data directory would be taken for a collection, and be copied itself. */
static enum err check_outside(const char *data, const char *dest, struct err_ctx *ctx)
{
    char parent[PATH_CAP], real_data[PATH_MAX], real_parent[PATH_MAX];
    parent_of(dest, parent);
    if (!realpath(data, real_data))
        return err_system(ctx, errno, "open directory %s", data);
    if (!realpath(parent, real_parent))
        return err_system(ctx, errno, "open directory %s", parent);
    size_t n = strlen(real_data);
    if (strncmp(real_parent, real_data, n) != 0 || (real_parent[n] && real_parent[n] != '/'))
        return ERR_OK;
    return err_set(ctx, ERR_INVALID,
                   "%s lies in the data directory %s: choose a name outside of it", dest, data);
}

static enum err copy_and_rename(struct backup *b, const char *dest, struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    RETURN_NOT_OK(check_format(b, ctx));
    enum err e = copy_all(b, &why);
    if (e == ERR_OK)
        e = io_rename(b->io, b->dest, dest, &why);
    if (e == ERR_OK)
        e = sync_parent(b->io, dest, &why);
    if (e != ERR_OK)
        return exists(b->dest) ? err_set(ctx, e, "%.900s; remove %s", why.detail, b->dest)
                               : err_set(ctx, e, "%s", why.detail);
    if (b->any_fault)
        return err_set(ctx, ERR_CORRUPT,
                       "%s lacks the collections named above: they can't be read whole", dest);
    return ERR_OK;
}

enum err backup_run(struct io *io, const char *data, const char *dest,
                    void (*report)(void *arg, const struct backup_line *line), void *arg,
                    struct err_ctx *ctx)
{
    struct backup b = {.io = io, .data = data, .report = report, .arg = arg};
    if (strlen(data) > CATALOG_DIR_MAX || strlen(dest) > CATALOG_DIR_MAX)
        return err_set(ctx, ERR_INVALID, "a path is longer than %d bytes", CATALOG_DIR_MAX);
    RETURN_NOT_OK(check_outside(data, dest, ctx));
    if (asprintf(&b.dest, "%s.partial", dest) < 0)
        return err_no_memory(ctx, strlen(dest));
    const char *taken = exists(dest) ? dest : exists(b.dest) ? b.dest : NULL;
    enum err e = taken
                     ? err_set(ctx, ERR_CONFLICT,
                               "%s exists: choose another name for the backup, or remove it", taken)
                     : copy_and_rename(&b, dest, ctx);
    free(b.dest);
    return e;
}
