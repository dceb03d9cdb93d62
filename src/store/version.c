/* Versions: selectors, snapshots of versions, lists of them.
 *
 * The newest version and those opened of late are at hand. Any other is made from history: its
 * state by segment ids, then a snapshot whose segments the registry opens. A snapshot of a version
 * whose tail was sealed since sees the file's later rows as dead ones, so that a file's view always
 * has all of its rows.
 *
 * Threads: the cache is under the history lock, which is not held while files are read; two that
 * make the same version at once both get one. Failure: ERR_CORRUPT names the file; a version that a
 * vacuum takes meanwhile is ERR_GONE. */
#include "store/version.h"

#include <inttypes.h>

#include "base/epoch.h"
#include "store/collection_internal.h"

enum { REPLACED_TRIES = 3 };

/* ---- from a state to a snapshot ---- */

static bool readable(const struct schema *s, const struct schema *segment)
{
    return schema_extends(s, segment) || schema_extends(segment, s);
}

/* Rows that the version does not know of are dead in a file; in a tail they lie behind its end. */
static enum err fill_view(const struct history_state *s, const struct history_entry *e,
                          struct view *v, struct err_ctx *ctx)
{
    const struct segment *g = v->segment;
    uint32_t rows = g->tail ? tail_rows(g) : g->rows;
    if (e->ref.rows > rows || !readable(s->schema, g->schema))
        return err_set(ctx, ERR_CORRUPT,
                       "segment %016" PRIx64 " is not the one that history refers to", g->id);
    v->rows = g->tail ? e->ref.rows : rows;
    RETURN_NOT_OK(mask_from(e->dead, e->ref.rows, v->rows, &v->dead, ctx));
    if (s->schema->event_time >= 0)
        RETURN_NOT_OK(mask_from(e->gone, e->ref.rows, v->rows, &v->gone, ctx));
    v->live = v->rows - (v->dead ? (uint32_t)v->dead->count : 0);
    return ERR_OK;
}

static enum err fill_views(struct collection *c, const struct history_state *s,
                           struct snapshot *out, struct err_ctx *ctx)
{
    uint64_t live = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct view *v = &out->views[out->nviews];
        RETURN_NOT_OK(collection_segment(c, s->entries[i].ref.id, &v->segment, ctx));
        out->nviews++;
        RETURN_NOT_OK(fill_view(s, &s->entries[i], v, ctx));
        out->bytes += v->segment->tail ? tail_bytes(v->segment) : v->segment->bytes;
        live += v->live;
    }
    if (live == s->meta.live_rows)
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT,
                   "%s/log: version %" PRIu64 " has %" PRIu64 " rows, but history gives %" PRIu64,
                   c->dir, s->meta.version, s->meta.live_rows, live);
}

static enum err snapshot_of(struct collection *c, const struct history_state *s,
                            struct snapshot **out, struct err_ctx *ctx)
{
    size_t size = sizeof(struct snapshot) + s->n * sizeof(struct view);
    struct snapshot *v = calloc(1, size);
    if (!v)
        return err_no_memory(ctx, size);
    atomic_init(&v->refs, 1);
    v->schema = schema_acquire(s->schema);
    v->version = s->meta.version;
    v->time_us = s->meta.time_us;
    v->rows = s->meta.live_rows;
    v->vectors = s->meta.live_vectors;
    v->digest = s->meta.digest;
    enum err e = fill_views(c, s, v, ctx);
    if (e != ERR_OK) {
        snapshot_release(v);
        return e;
    }
    *out = v;
    return ERR_OK;
}

/* ---- opening ---- */

/* The empty version is not the result of a commit: it may lie before all history that is left. */
static bool is_empty_version(const struct collection *c, uint64_t version)
{
    return version == 0 || version == c->history.base_version;
}

static enum err make_empty(struct collection *c, uint64_t version, struct snapshot **out,
                           struct err_ctx *ctx)
{
    struct history_walk w;
    struct history_state s;
    uint64_t oldest = UINT64_MAX;
    pthread_mutex_lock(&c->history.lock);
    if (c->history.files.len)
        oldest = *(const uint64_t *)c->history.files.data - 1;
    pthread_mutex_unlock(&c->history.lock);
    enum err e = history_walk_begin(c, oldest, &w, &s, ctx);
    history_walk_end(&w);
    RETURN_NOT_OK(e);
    struct history_state empty = {.schema = s.schema, .meta = {.version = version}};
    e = snapshot_of(c, &empty, out, ctx);
    history_state_deinit(&s);
    return e;
}

static enum err from_history(struct collection *c, uint64_t version, struct snapshot **out,
                             struct err_ctx *ctx)
{
    struct history_state s;
    err_clear(ctx);
    RETURN_NOT_OK(history_state_at(c, version, &s, ctx));
    enum err e = snapshot_of(c, &s, out, ctx);
    history_state_deinit(&s);
    return e;
}

/* A purge, or a compaction and a vacuum, may let go of segments between the look at the history
 * and the one at the registry: what the history says then is looked up once more. */
static enum err make_version(struct collection *c, uint64_t version, struct snapshot **out,
                             struct err_ctx *ctx)
{
    struct err_ctx why;
    if (is_empty_version(c, version))
        return make_empty(c, version, out, ctx);
    enum err e = from_history(c, version, out, &why);
    for (int i = 0; i < REPLACED_TRIES && e == ERR_NOT_FOUND; i++)
        e = from_history(c, version, out, &why);
    if (e == ERR_OK)
        return e;
    RETURN_NOT_OK(history_check(c, version, ctx)); /* vacuumed meanwhile? */
    return err_set(ctx, e == ERR_NOT_FOUND ? ERR_CORRUPT : e, "%s", why.detail);
}

/* Referenced, or NULL. */
static struct snapshot *take_cached(struct history *h, uint64_t version)
{
    struct snapshot *found = NULL;
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < VERSIONS_CACHED && !found; i++) {
        struct cached_version *v = &h->cache[i];
        if (!v->snapshot || v->snapshot->version != version)
            continue;
        found = snapshot_acquire(v->snapshot);
        v->used = ++h->stamp;
    }
    pthread_mutex_unlock(&h->lock);
    return found;
}

/* In the place of the one used longest ago. */
static void put_cached(struct history *h, struct snapshot *s)
{
    struct cached_version *oldest = &h->cache[0];
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < VERSIONS_CACHED; i++) {
        struct cached_version *v = &h->cache[i];
        if (v->snapshot && v->snapshot->version == s->version) {
            oldest = v;
            break;
        }
        if (v->used < oldest->used)
            oldest = v;
    }
    struct snapshot *before = oldest->snapshot;
    *oldest = (struct cached_version){snapshot_acquire(s), ++h->stamp};
    pthread_mutex_unlock(&h->lock);
    snapshot_release(before);
}

/* The newest version under the schema of its commit; referenced, or NULL. */
static struct snapshot *take_newest(const struct collection *c, uint64_t version)
{
    epoch_enter();
    struct snapshot *s = collection_snapshot(c);
    s = s->version == version && !s->altered ? snapshot_acquire(s) : NULL;
    epoch_leave();
    return s;
}

static uint64_t purges_of(struct collection *c)
{
    pthread_mutex_lock(&c->commit_lock);
    uint64_t n = c->purges;
    pthread_mutex_unlock(&c->commit_lock);
    return n;
}

static bool is_version(const struct snapshot *s, const void *version)
{
    return s->version == *(const uint64_t *)version;
}

enum err collection_open_version(struct collection *c, uint64_t version, bool wait,
                                 struct snapshot **out, struct err_ctx *ctx)
{
    RETURN_NOT_OK(history_check(c, version, ctx));
    if ((*out = take_newest(c, version)) || (*out = take_cached(&c->history, version)))
        return ERR_OK;
    if (!wait)
        return err_set(ctx, ERR_AGAIN, "version %" PRIu64 " is not open yet", version);
    uint64_t purges = purges_of(c);
    RETURN_NOT_OK(make_version(c, version, out, ctx));
    put_cached(&c->history, *out);
    if (purges % 2 || purges != purges_of(c)) /* it may be of before: nobody else gets it */
        history_forget(c, is_version, &version);
    return ERR_OK;
}

/* ---- selectors ---- */

static enum err before_first(struct err_ctx *ctx)
{
    return err_set(ctx, ERR_NOT_FOUND, "there is no commit at or before that time");
}

struct time_search {
    int64_t time_us;
    uint64_t version; /* 0 = none yet */
};

static void look_at(struct time_search *t, const struct history_item *item)
{
    struct commit_record r;
    if (!item->len || item->record[0] != RECORD_COMMIT ||
        commit_record_decode(item->record, item->len, &r, NULL) != ERR_OK)
        return;
    if (r.meta.time_us <= t->time_us)
        t->version = r.meta.version;
    commit_record_deinit(&r);
}

static enum err read_file(struct collection *c, const struct buf *files, size_t i, struct buf *data,
                          struct history_file *f, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    history_path(c, ((const uint64_t *)files->data)[i], path, sizeof path);
    return history_file_read(c->io, path, c->id, data, f, ctx);
}

/* Before all commits of the history that is left. */
static enum err look_at_base(struct collection *c, const struct history_file *f,
                             struct time_search *t, struct err_ctx *ctx)
{
    struct history_base b;
    RETURN_NOT_OK(history_base_decode(f->base, f->base_len, &b, ctx));
    if (b.meta.version > c->history.base_version)
        t->version = b.meta.version;
    bool before = t->time_us < b.meta.time_us;
    history_base_deinit(&b);
    if (!t->version || !before)
        return ERR_OK;
    return err_set(ctx, ERR_GONE, "the version of that time was vacuumed");
}

/* The last file whose first commit is not after the time holds the version. */
static enum err find_in_files(struct collection *c, const struct buf *files, struct time_search *t,
                              struct err_ctx *ctx)
{
    struct buf data = {0};
    struct history_file f;
    struct history_item item;
    size_t lo = 0, hi = files->len / sizeof(uint64_t);
    enum err e = ERR_OK;
    while (e == ERR_OK && lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        e = read_file(c, files, mid, &data, &f, ctx);
        if (e == ERR_OK && f.first_time_us <= t->time_us)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (e == ERR_OK)
        e = read_file(c, files, lo ? lo - 1 : 0, &data, &f, ctx);
    if (e == ERR_OK && lo == 0) {
        e = look_at_base(c, &f, t, ctx);
    } else if (e == ERR_OK) {
        struct cursor items = cursor_over(f.items, f.items_len);
        while (history_file_next(&items, &item))
            look_at(t, &item);
    }
    buf_deinit(&data);
    return e;
}

/* Among the recent commits that are durable; true when the answer is there. */
static bool find_recent(struct history *h, uint64_t newest, struct time_search *t)
{
    pthread_mutex_lock(&h->lock);
    for (size_t i = h->nrecent; i-- > 0 && !t->version;) {
        const struct piece *p = h->recent[i];
        if (p->version && p->version <= newest && p->time_us <= t->time_us)
            t->version = p->version;
    }
    if (!t->version && h->base->version > h->base_version && h->base->time_us <= t->time_us)
        t->version = h->base->version;
    pthread_mutex_unlock(&h->lock);
    return t->version != 0;
}

static enum err resolve_time(struct collection *c, int64_t time_us, bool wait, uint64_t *version,
                             struct err_ctx *ctx)
{
    struct time_search t = {.time_us = time_us};
    struct buf files = {0};
    epoch_enter();
    uint64_t newest = collection_snapshot(c)->version;
    epoch_leave();
    if (!find_recent(&c->history, newest, &t)) {
        pthread_mutex_lock(&c->history.lock);
        buf_put(&files, c->history.files.data, c->history.files.len);
        pthread_mutex_unlock(&c->history.lock);
        enum err e = ERR_OK;
        if (files.failed)
            e = err_no_memory(ctx, files.len);
        else if (files.len && !wait)
            e = err_set(ctx, ERR_AGAIN, "the time lies far back");
        else if (files.len)
            e = find_in_files(c, &files, &t, ctx);
        buf_deinit(&files);
        RETURN_NOT_OK(e);
    }
    *version = t.version;
    return t.version ? ERR_OK : before_first(ctx);
}

enum err collection_resolve(struct collection *c, const struct selector *sel, bool wait,
                            uint64_t *version, struct err_ctx *ctx)
{
    switch (sel->kind) {
    case SELECT_NEWEST:
        epoch_enter();
        *version = collection_snapshot(c)->version;
        epoch_leave();
        return ERR_OK;
    case SELECT_VERSION:
        *version = sel->version;
        break;
    case SELECT_TAG:
        RETURN_NOT_OK(collection_tag_get(c, sel->tag, version, ctx));
        break;
    case SELECT_TIME:
        RETURN_NOT_OK(resolve_time(c, sel->time_us, wait, version, ctx));
        break;
    }
    return history_check(c, *version, ctx);
}
