/* Vacuum: versions that retention does not keep go, and the files that only they needed.
 *
 *   versions   1 . . 4 . . . . . . [ 12 . . . . . 20 ]      horizon 12: all from it on are kept
 *                  tag             horizon       newest     older ones: tagged, or pinned
 *
 *   1. the horizon, from the retention; what is kept before it
 *   2. the segments that kept versions need; all other files of the registry can go
 *   3. commit lock: nothing was tagged meanwhile; the VACUUM record
 *   4. a checkpoint behind the record: replay opens no file that is about to go
 *   5. unlink
 *
 * A crash or a failure before 5 leaves files that nothing needs: condemned, the next vacuum removes
 * them, or the next start once a checkpoint has come. History files stay: answers to repeated
 * requests lie in them.
 *
 * Threads: under upkeep_lock; readers keep what they have open. Failure: as for any record. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "store/collection_internal.h"
#include "store/history.h"
#include "store/upkeep_internal.h"
#include "store/version.h"

METRIC_COUNTER(vacuum_versions, "loadstone_vacuum_versions_total",
               "Versions that were let go beyond retention.")
METRIC_COUNTER(vacuum_segments, "loadstone_vacuum_segments_total",
               "Segments whose files were removed since no version needed them.")
METRIC_COUNTER(vacuum_bytes, "loadstone_vacuum_bytes_total", "Bytes of these files.")

static const int64_t HOUR_US = 3600ll * 1000 * 1000;

struct vacuum {
    struct collection *c;
    bool keep_versions;
    uint64_t newest, base; /* versions: of the collection's start, the empty one */
    uint64_t old_horizon, horizon;
    struct buf old_kept, kept; /* u64, ascending, before their horizon */
    struct buf removed;        /* u64: segments that no kept version needs */
    uint64_t bytes;            /* of their files */
    uint64_t restores;         /* before the survey: one since may need some of `removed` */
    struct surveyed seen;      /* what the survey is of */
};

static void vacuum_deinit(struct vacuum *v)
{
    buf_deinit(&v->old_kept);
    buf_deinit(&v->kept);
    buf_deinit(&v->removed);
}

static size_t length(const struct buf *list)
{
    return list->len / sizeof(uint64_t);
}

static bool contains(const struct buf *sorted, uint64_t x)
{
    const uint64_t *list = (const uint64_t *)sorted->data;
    size_t lo = 0, hi = length(sorted);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (list[mid] < x)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < length(sorted) && list[lo] == x;
}

/* ---- the horizon ---- */

static struct retention limits_of(struct collection *c, const struct vacuum_options *o)
{
    struct snapshot *s = collection_newest(c);
    struct retention r = s->schema->retention;
    snapshot_release(s);
    if (o->versions || o->hours) {
        r.versions = o->versions < UINT32_MAX ? (uint32_t)o->versions : UINT32_MAX;
        r.hours = o->hours < UINT32_MAX ? (uint32_t)o->hours : UINT32_MAX;
    }
    return r;
}

/* The first version that `hours` keep: the one that was the newest so long ago. */
static enum err first_by_time(struct collection *c, uint32_t hours, uint64_t *version,
                              struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    int64_t now = clock_wall_us(), back = 0;
    if (__builtin_mul_overflow((int64_t)hours, (int64_t)HOUR_US, &back) || back > now) {
        *version = 0; /* longer ago than there is time: all are kept */
        return ERR_OK;
    }
    struct selector at = {.kind = SELECT_TIME, .time_us = now - back};
    enum err e = collection_resolve(c, &at, true, version, &why);
    if (e == ERR_NOT_FOUND || e == ERR_GONE) { /* before the first one there is */
        *version = 0;
        return ERR_OK;
    }
    return e == ERR_OK ? e : err_set(ctx, e, "%s", why.detail);
}

static enum err find_horizon(struct vacuum *v, const struct vacuum_options *o, struct err_ctx *ctx)
{
    v->horizon = v->old_horizon;
    if (o->keep_versions)
        return ERR_OK;
    struct retention keep = limits_of(v->c, o);
    uint64_t by_count = keep.versions ? keep.versions : 1, by_time = UINT64_MAX;
    uint64_t horizon = v->newest >= by_count ? v->newest - by_count + 1 : 0;
    if (keep.hours && horizon > v->old_horizon)
        RETURN_NOT_OK(first_by_time(v->c, keep.hours, &by_time, ctx));
    if (by_time < horizon)
        horizon = by_time;
    v->horizon = horizon > v->old_horizon ? horizon : v->old_horizon;
    return ERR_OK;
}

/* ---- what goes ---- */

static void read_history(struct vacuum *v)
{
    struct history *h = &v->c->history;
    pthread_mutex_lock(&h->lock);
    v->base = h->base_version;
    v->old_horizon = h->horizon;
    buf_put(&v->old_kept, h->kept.data, h->kept.len);
    pthread_mutex_unlock(&h->lock);
    struct snapshot *s = collection_newest(v->c);
    v->newest = s->version;
    snapshot_release(s);
}

static bool available(const struct vacuum *v, uint64_t version)
{
    return version > v->base && (version >= v->old_horizon || contains(&v->old_kept, version));
}

/* With the commit lock: what tags and pins hold before the horizon and is there; or all there is.
 */
static void find_kept(const struct vacuum *v, struct buf *kept)
{
    struct buf held = {0};
    if (v->keep_versions) {
        buf_put(kept, v->old_kept.data, v->old_kept.len);
        return;
    }
    collection_held_versions(v->c, &held);
    const uint64_t *list = (const uint64_t *)held.data;
    for (size_t i = 0; i < length(&held); i++) {
        if (list[i] < v->horizon && available(v, list[i]))
            buf_put_u64(kept, list[i]);
    }
    kept->failed |= held.failed;
    buf_deinit(&held);
}

static uint64_t versions_lost(const struct vacuum *v)
{
    uint64_t from = v->old_horizon > v->base ? v->old_horizon : v->base + 1;
    uint64_t to = v->horizon > from ? v->horizon : from;
    return to - from + length(&v->old_kept) - length(&v->kept);
}

static uint64_t file_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static uint64_t segment_bytes(const struct collection *c, uint64_t id)
{
    char seg[PATH_CAP], ann[PATH_CAP];
    segment_file_path(c, "segments", id, seg, sizeof seg);
    snprintf(ann, sizeof ann, "%s/index/%016llx.ann", c->dir, (unsigned long long)id);
    return file_bytes(seg) + file_bytes(ann);
}

/* With the commit lock. */
static void note_seen(struct vacuum *v)
{
    v->seen = (struct surveyed){.valid = true,
                                .items = v->c->items,
                                .registry_changes = registry_changes(v->c),
                                .horizon = v->horizon,
                                .kept = hash128(v->kept.data, v->kept.len)};
}

static bool seen_before(const struct vacuum *v)
{
    const struct surveyed *a = &v->seen, *b = &v->c->surveyed;
    return b->valid && a->items == b->items && a->registry_changes == b->registry_changes &&
           a->horizon == b->horizon && memcmp(&a->kept, &b->kept, sizeof a->kept) == 0;
}

/* Files of the registry that kept versions don't need. What came after `before` is left alone. */
static enum err find_removable(struct vacuum *v, struct err_ctx *ctx)
{
    struct buf needed = {0}, files = {0};
    uint64_t before = atomic_load(&v->c->next_segment_id);
    registry_files(v->c, &files);
    enum err e = history_needed(v->c, v->horizon, (const uint64_t *)v->kept.data, length(&v->kept),
                                &needed, ctx);
    const uint64_t *ids = (const uint64_t *)files.data;
    for (size_t i = 0; e == ERR_OK && i < length(&files); i++) {
        if (ids[i] >= before || contains(&needed, ids[i]))
            continue;
        buf_put_u64(&v->removed, ids[i]);
        v->bytes += segment_bytes(v->c, ids[i]);
    }
    if (e == ERR_OK && (files.failed || v->removed.failed))
        e = err_no_memory(ctx, files.len);
    buf_deinit(&needed);
    buf_deinit(&files);
    return e;
}

static enum err survey(struct vacuum *v, const struct vacuum_options *o, struct err_ctx *ctx)
{
    read_history(v);
    RETURN_NOT_OK(find_horizon(v, o, ctx));
    pthread_mutex_lock(&v->c->commit_lock);
    find_kept(v, &v->kept);
    v->restores = v->c->restores;
    note_seen(v);
    pthread_mutex_unlock(&v->c->commit_lock);
    if (v->kept.failed || v->old_kept.failed)
        return err_no_memory(ctx, v->kept.len);
    if (seen_before(v))
        return ERR_OK;
    RETURN_NOT_OK(find_removable(v, ctx));
    if (length(&v->removed) == 0)
        v->c->surveyed = v->seen;
    return ERR_OK;
}

/* ---- the record ---- */

static bool same(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* With the commit lock. ERR_CONFLICT when a version was tagged, pinned or restored since the
 * survey. */
static enum err check_kept(const struct vacuum *v, struct err_ctx *ctx)
{
    struct buf kept = {0};
    find_kept(v, &kept);
    enum err e = ERR_OK;
    if (kept.failed)
        e = err_no_memory(ctx, kept.len);
    else if (!same(&kept, &v->kept) || v->restores != v->c->restores)
        e = err_set(ctx, ERR_CONFLICT,
                    "tags kept changing, or restores coming, while vacuum ran; try again");
    buf_deinit(&kept);
    return e;
}

/* With the commit lock: from here on the versions are gone and nothing needs the files. */
static enum err log_locked(struct vacuum *v, uint64_t *ticket, struct err_ctx *ctx)
{
    struct buf bytes = {0};
    struct vacuum_record r = {.horizon = v->horizon, .kept = v->kept, .removed = v->removed};
    RETURN_NOT_OK(collection_check_writable(v->c, ctx));
    RETURN_NOT_OK(check_kept(v, ctx));
    vacuum_record_encode(&r, &bytes);
    /* Should the record then fail, the versions are gone until a restart, and nothing else is. */
    enum err e = bytes.failed ? err_no_memory(ctx, bytes.len) : vacuum_apply(v->c, &r, ctx);
    if (e == ERR_OK)
        e = collection_log(v->c, bytes.data, bytes.len, ticket, ctx);
    buf_deinit(&bytes);
    return e;
}

static enum err log_vacuum(struct vacuum *v, struct err_ctx *ctx)
{
    uint64_t ticket;
    pthread_mutex_lock(&v->c->commit_lock);
    enum err e = log_locked(v, &ticket, ctx);
    pthread_mutex_unlock(&v->c->commit_lock);
    return e == ERR_OK ? upkeep_wait(v->c, ticket, NULL, ctx) : e;
}

/* ---- files ---- */

static enum err unlink_segment(struct collection *c, uint64_t id, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    segment_file_path(c, "segments", id, path, sizeof path);
    RETURN_NOT_OK(collection_enter_dir(c, ctx));
    enum err e = access(path, F_OK) == 0 ? io_unlink(c->io, path, ctx) : ERR_OK;
    collection_leave_dir(c);
    if (e == ERR_OK && c->hooks && c->hooks->segment_removed)
        c->hooks->segment_removed(c->hooks->arg, c, id);
    return e;
}

enum err vacuum_remove_files(struct collection *c, struct err_ctx *ctx)
{
    size_t n = length(&c->condemned), kept = 0;
    if (n == 0)
        return ERR_OK;
    RETURN_NOT_OK(collection_checkpoint(c, ctx));
    RETURN_NOT_OK(collection_check_writable(c, ctx)); /* a drop makes no checkpoint */
    uint64_t *ids = (uint64_t *)c->condemned.data;
    enum err e = ERR_OK;
    for (size_t i = 0; i < n; i++) {
        uint64_t id = ids[i];
        enum err failed = unlink_segment(c, id, ctx);
        if (failed != ERR_OK) {
            e = failed;
            ids[kept++] = id;
        }
    }
    c->condemned.len = kept * sizeof *ids;
    char dir[PATH_CAP];
    snprintf(dir, sizeof dir, "%s/segments", c->dir);
    return e == ERR_OK ? io_sync_dir(c->io, dir, ctx) : e;
}

static enum err let_go(struct vacuum *v, struct err_ctx *ctx)
{
    struct collection *c = v->c;
    if (!buf_reserve(&c->condemned, v->removed.len)) {
        c->condemned.failed = false;
        return err_no_memory(ctx, v->removed.len);
    }
    RETURN_NOT_OK(log_vacuum(v, ctx));
    buf_put(&c->condemned, v->removed.data, v->removed.len);
    metric_add(&vacuum_versions, 0, versions_lost(v));
    metric_add(&vacuum_segments, 0, length(&v->removed));
    metric_add(&vacuum_bytes, 0, v->bytes);
    return ERR_OK;
}

enum err vacuum_step(struct collection *c, const struct vacuum_options *o,
                     struct vacuum_result *out, struct err_ctx *ctx)
{
    struct vacuum v = {.c = c, .keep_versions = o->keep_versions};
    enum err e = survey(&v, o, ctx);
    *out = (struct vacuum_result){versions_lost(&v), length(&v.removed), v.bytes, v.horizon};
    bool idle = out->versions == 0 && out->segments == 0;
    if (e == ERR_OK && !o->dry_run && !idle)
        e = let_go(&v, ctx);
    if (e == ERR_OK && !o->dry_run)
        e = vacuum_remove_files(c, ctx);
    vacuum_deinit(&v);
    return e;
}

enum { TRIES_MAX = 5 };

enum err collection_vacuum(struct collection *c, const struct vacuum_options *options,
                           struct vacuum_result *out, struct err_ctx *ctx)
{
    enum err e = ERR_CONFLICT;
    RETURN_NOT_OK(upkeep_begin(c, ctx));
    for (int i = 0; i < TRIES_MAX && e == ERR_CONFLICT; i++)
        e = vacuum_step(c, options, out, ctx);
    upkeep_end(c);
    return e;
}
