/* Opening a collection: the newest valid checkpoint gives a version whose rows all lie in segment
 * files; the log files from its number on are replayed over it; what nothing refers to is removed.
 *
 * Segments of the newest version are opened, those that only older ones need are noted. Of history
 * files only the names are read, so that a start costs the same however many versions there are.
 *
 * Threads: one; nobody else knows of the collection. Failure: a damaged checkpoint is passed over
 * while the logs before it are still there. Any contradiction is ERR_CORRUPT and nothing is changed
 * on disk: the catalog quarantines the collection. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "store/session.h"
#include "store/collection_internal.h"

/* Calls fn for each name in the folder that parses as <16 hex digits>.<suffix>; other names get
 * number UINT64_MAX. */
static enum err each_file(const struct collection *c, const char *folder, const char *suffix,
                          void (*fn)(void *arg, const char *path, uint64_t number), void *arg,
                          struct err_ctx *ctx)
{
    char dir[PATH_CAP], path[PATH_CAP + 300];
    snprintf(dir, sizeof dir, "%s/%s", c->dir, folder);
    DIR *d = opendir(dir);
    if (!d)
        return err_system(ctx, errno, "open directory %s", dir);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || e->d_name[1] == '.'))
            continue;
        char *end;
        uint64_t number = strtoull(e->d_name, &end, 16);
        bool ours = end == e->d_name + 16 && *end == '.' && strcmp(end + 1, suffix) == 0;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        fn(arg, path, ours ? number : UINT64_MAX);
    }
    closedir(d);
    return ERR_OK;
}

static void collect_number(void *arg, const char *path, uint64_t number)
{
    (void)path;
    if (number != UINT64_MAX)
        buf_put(arg, &number, sizeof number);
}

static enum err list_numbers(const struct collection *c, const char *suffix, struct buf *out,
                             struct err_ctx *ctx)
{
    RETURN_NOT_OK(each_file(c, "log", suffix, collect_number, out, ctx));
    numbers_sort(out);
    return out->failed ? err_no_memory(ctx, out->len) : ERR_OK;
}

static size_t count_of(const struct buf *numbers)
{
    return numbers->len / sizeof(uint64_t);
}

static uint64_t number_at(const struct buf *numbers, size_t i)
{
    return ((const uint64_t *)numbers->data)[i];
}

/* ---- where to start ---- */

/* Loads the newest checkpoint that is whole and whose log is there; *start stays 0 without. */
static enum err load_newest(struct collection *c, const struct buf *ckpts, uint64_t first_log,
                            uint64_t *start, struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    for (size_t i = count_of(ckpts); i-- > 0 && number_at(ckpts, i) >= first_log;) {
        struct err_ctx why;
        err_clear(&why);
        e = checkpoint_load(c, number_at(ckpts, i), &why);
        if (e == ERR_OK) {
            *start = number_at(ckpts, i);
            return ERR_OK;
        }
        log_warn("collection %s: checkpoint %llu is passed over: %s", c->name,
                 (unsigned long long)number_at(ckpts, i), why.detail);
        err_set(ctx, e, "%s", why.detail);
    }
    return e;
}

/* A checkpoint, else log 1. */
static enum err find_start(struct collection *c, const struct buf *logs, uint64_t *start,
                           struct err_ctx *ctx)
{
    struct buf ckpts = {0};
    *start = 0;
    enum err e = list_numbers(c, "ckpt", &ckpts, ctx);
    if (e == ERR_OK) {
        e = load_newest(c, &ckpts, number_at(logs, 0), start, ctx);
        if (e == ERR_OK && !*start && number_at(logs, 0) != 1)
            e = err_set(ctx, ERR_CORRUPT, "%s/log: no checkpoint and no first log file", c->dir);
        else if (number_at(logs, 0) == 1)
            e = ERR_OK;
        if (!*start)
            *start = 1;
    }
    buf_deinit(&ckpts);
    return e;
}

/* ---- what nothing refers to ---- */

struct orphans {
    struct collection *c;
    uint64_t start; /* logs and checkpoints before it are superseded */
};

static void unlink_or_warn(struct collection *c, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (io_unlink(c->io, path, &why) != ERR_OK)
        log_warn("%s stays behind: %s", path, why.detail);
}

/* A vacuum let go of it, but what is replayed at the next start opens it before it comes to that.
 */
static bool in_log(const struct collection *c, uint64_t segment)
{
    const struct buf *kept = &c->history.in_log;
    for (size_t i = 0; i < count_of(kept); i++) {
        if (number_at(kept, i) == segment)
            return true;
    }
    return false;
}

static void drop_orphan_segment(void *arg, const char *path, uint64_t number)
{
    struct orphans *o = arg;
    if (number != UINT64_MAX && registry_has(o->c, number))
        return;
    if (number != UINT64_MAX && in_log(o->c, number))
        buf_put_u64(&o->c->condemned, number);
    else
        unlink_or_warn(o->c, path);
}

/* Of a load that a kill ended: its number is given again, and its index would fit the next segment
 * that has as many rows. */
static void drop_orphan_index(void *arg, const char *path, uint64_t number)
{
    struct orphans *o = arg;
    if (number != UINT64_MAX && !registry_has(o->c, number) && !in_log(o->c, number))
        unlink_or_warn(o->c, path);
}

/* Open loads lie in folders of their own (session_file.c). */
static void drop_staged(void *arg, const char *path, uint64_t number)
{
    if (number == UINT64_MAX)
        return;
    unlink_or_warn(((struct orphans *)arg)->c, path);
}

static void drop_old_log(void *arg, const char *path, uint64_t number)
{
    struct orphans *o = arg;
    if (number < o->start)
        unlink_or_warn(o->c, path);
}

/* What a kill left of a file that was being written. */
static void drop_half_written(void *arg, const char *path, uint64_t number)
{
    if (number != UINT64_MAX)
        unlink_or_warn(((struct orphans *)arg)->c, path);
}

static enum err remove_orphans(struct collection *c, uint64_t start, struct err_ctx *ctx)
{
    struct orphans o = {c, start};
    RETURN_NOT_OK(each_file(c, "segments", "seg", drop_orphan_segment, &o, ctx));
    RETURN_NOT_OK(each_file(c, "index", "ann", drop_orphan_index, &o, ctx));
    RETURN_NOT_OK(each_file(c, "staging", "seg", drop_staged, &o, ctx));
    RETURN_NOT_OK(each_file(c, "log", "log", drop_old_log, &o, ctx));
    RETURN_NOT_OK(each_file(c, "log", "log.tmp", drop_half_written, &o, ctx));
    RETURN_NOT_OK(each_file(c, "log", "ckpt.tmp", drop_half_written, &o, ctx));
    RETURN_NOT_OK(each_file(c, "log", "hist.tmp", drop_half_written, &o, ctx));
    return each_file(c, "log", "ckpt", drop_old_log, &o, ctx);
}

/* ---- the whole ---- */

static enum err load_start(struct collection *c, const char *dir, uint64_t *start, uint64_t *last,
                           struct err_ctx *ctx)
{
    struct buf logs = {0};
    enum err e = list_numbers(c, "log", &logs, ctx);
    if (e == ERR_OK && logs.len == 0)
        e = err_set(ctx, ERR_CORRUPT, "%s: the log is missing", dir);
    if (e == ERR_OK)
        e = wal_read_id(c->io, dir, number_at(&logs, count_of(&logs) - 1), c->id, ctx);
    if (e == ERR_OK)
        e = find_start(c, &logs, start, ctx);
    *last = e == ERR_OK ? number_at(&logs, count_of(&logs) - 1) : 0;
    buf_deinit(&logs);
    return e;
}

static enum err open_state(struct collection *c, struct err_ctx *ctx)
{
    uint64_t start, last;
    char dir[PATH_CAP];
    snprintf(dir, sizeof dir, "%s/log", c->dir);
    RETURN_NOT_OK(load_start(c, dir, &start, &last, ctx));
    if (c->head)
        RETURN_NOT_OK(collection_init_apply(c, ctx));
    RETURN_NOT_OK(wal_open(c->io, dir, c->id, start, replay_record, c, &c->wal, ctx));
    if (last > wal_number(c->wal) + 1) /* the next one was looked at, and never used */
        return err_set(ctx, ERR_CORRUPT,
                       "%s: log file %016" PRIx64 " is missing before %016" PRIx64, dir,
                       wal_number(c->wal) + 1, last);
    if (!c->head)
        return err_set(ctx, ERR_CORRUPT, "%s: the log holds no schema", dir);
    c->tags = c->tags_head;
    RETURN_NOT_OK(history_open(c, ctx));
    RETURN_NOT_OK(sessions_read(c, ctx)); /* its segments' ids are taken, the tail's is the next */
    if (!c->tail)
        RETURN_NOT_OK(collection_switch_tail(c, atomic_load(&c->next_segment_id), ctx));
    return remove_orphans(c, start, ctx);
}

enum err collection_open(struct io *io, const char *name, const char *dir,
                         const struct store_hooks *hooks, struct collection **out,
                         struct err_ctx *ctx)
{
    struct collection *c = collection_alloc(io, name, dir, hooks);
    if (!c)
        return err_no_memory(ctx, sizeof *c);
    enum err e = open_state(c, ctx);
    if (e != ERR_OK) {
        collection_release(c);
        return e;
    }
    collection_publish(c, c->head);
    *out = c;
    return ERR_OK;
}
