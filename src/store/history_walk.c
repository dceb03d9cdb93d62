/* Walking through history, and what is computed on the way: a version's state, the segments that
 * versions need.
 *
 * A walk takes note of the files, the base and the recent items at its start. What happens
 * meanwhile cannot break it: files are replaced by longer ones with the same beginning, and an item
 * that comes twice is known by its number. A number that is missing is ERR_CORRUPT.
 *
 * Where a walk comes from one file into the next, a state goes on from that one's base: a purge
 * rewrites file by file, so that the two may name other segments for the same rows. */
#include "store/history.h"

#include <inttypes.h>

#include "store/collection_internal.h"

/* ---- walking ---- */

static enum err note_sources(struct history_walk *w, struct err_ctx *ctx)
{
    struct history *h = &w->c->history;
    pthread_mutex_lock(&h->lock);
    buf_put(&w->files, h->files.data, h->files.len);
    w->recent = malloc((h->nrecent + 1) * sizeof *w->recent);
    bool ok = !w->files.failed && w->recent;
    for (size_t i = 0; ok && i < h->nrecent; i++) {
        w->recent[i] = h->recent[i];
        atomic_fetch_add_explicit(&h->recent[i]->refs, 1, memory_order_relaxed);
    }
    if (ok) {
        w->nrecent = h->nrecent;
        w->base = h->base;
        atomic_fetch_add_explicit(&w->base->refs, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&h->lock);
    return ok ? ERR_OK : err_no_memory(ctx, h->nrecent * sizeof *w->recent);
}

static enum err open_file(struct history_walk *w, size_t i, struct history_file *f,
                          struct err_ctx *ctx)
{
    char path[PATH_CAP];
    history_path(w->c, ((const uint64_t *)w->files.data)[i], path, sizeof path);
    RETURN_NOT_OK(history_file_read(w->c->io, path, w->c->id, &w->data, f, ctx));
    w->items = cursor_over(f->items, f->items_len);
    w->next_file = i + 1;
    return ERR_OK;
}

/* The newest file whose commits begin at or before the version; the first one when none does. */
static size_t file_of(const struct buf *files, uint64_t version)
{
    const uint64_t *first = (const uint64_t *)files->data;
    size_t i = files->len / sizeof *first;
    while (i > 1 && first[i - 1] > version)
        i--;
    return i - 1;
}

static enum err begin_in_file(struct history_walk *w, uint64_t version, struct history_state *state,
                              struct err_ctx *ctx)
{
    struct history_file f;
    RETURN_NOT_OK(open_file(w, file_of(&w->files, version), &f, ctx));
    w->covered = f.base_items;
    return history_state_init(state, f.base, f.base_len, ctx);
}

enum err history_walk_begin(struct collection *c, uint64_t version, struct history_walk *w,
                            struct history_state *state, struct err_ctx *ctx)
{
    *w = (struct history_walk){.c = c};
    *state = (struct history_state){0};
    RETURN_NOT_OK(note_sources(w, ctx));
    if (w->base->version < version || !w->files.len) {
        w->next_file = w->files.len / sizeof(uint64_t);
        w->covered = w->base->number;
        RETURN_NOT_OK(history_state_init(state, w->base->data, w->base->len, ctx));
    } else {
        RETURN_NOT_OK(begin_in_file(w, version, state, ctx));
    }
    if (state->meta.version <= version)
        return ERR_OK;
    history_state_deinit(state);
    return err_set(ctx, ERR_CORRUPT, "%s/log: the history file with version %" PRIu64 " is missing",
                   c->dir, version);
}

static enum err check_gap(const struct history_walk *w, uint64_t number, struct err_ctx *ctx)
{
    if (number <= w->covered + 1)
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT,
                   "%s/log: history goes from item %" PRIu64 " to %" PRIu64
                   "; a history file is missing",
                   w->c->dir, w->covered, number);
}

/* From the file at hand or the next ones; false in *found when there are no more. */
static enum err next_in_files(struct history_walk *w, struct history_item *item, bool *found,
                              struct err_ctx *ctx)
{
    struct history_file f;
    for (*found = false;;) {
        while (history_file_next(&w->items, item)) {
            *found = item->number > w->covered;
            if (*found)
                return check_gap(w, item->number, ctx);
        }
        if (w->next_file == w->files.len / sizeof(uint64_t))
            return ERR_OK;
        RETURN_NOT_OK(open_file(w, w->next_file, &f, ctx));
        RETURN_NOT_OK(check_gap(w, f.base_items + 1, ctx));
        w->entered = f.base_items == w->covered ? f.base : NULL;
        w->entered_len = f.base_len;
    }
}

enum err history_walk_next(struct history_walk *w, struct history_item *item, bool *more,
                           struct err_ctx *ctx)
{
    w->entered = NULL;
    RETURN_NOT_OK(next_in_files(w, item, more, ctx));
    while (!*more && w->next_recent < w->nrecent) {
        const struct piece *p = w->recent[w->next_recent++];
        *item = (struct history_item){p->number, p->data, p->len};
        *more = p->number > w->covered;
        RETURN_NOT_OK(check_gap(w, p->number, ctx));
    }
    if (*more)
        w->covered = item->number;
    return ERR_OK;
}

void history_walk_end(struct history_walk *w)
{
    for (size_t i = 0; i < w->nrecent; i++)
        piece_release(w->recent[i]);
    free(w->recent);
    piece_release(w->base);
    buf_deinit(&w->files);
    buf_deinit(&w->data);
}

/* ---- states ---- */

static uint8_t kind_of(const struct history_item *item)
{
    return item->len ? item->record[0] : 0;
}

static enum err apply_up_to(struct history_walk *w, uint64_t version, struct history_state *s,
                            struct err_ctx *ctx)
{
    struct history_item item;
    bool more;
    while (s->meta.version < version) {
        RETURN_NOT_OK(history_walk_next(w, &item, &more, ctx));
        if (!more)
            return err_set(ctx, ERR_CORRUPT,
                           "%s/log: history ends before version %" PRIu64 "; a file is missing",
                           w->c->dir, version);
        RETURN_NOT_OK(history_state_apply(s, item.record, item.len, ctx));
    }
    return ERR_OK;
}

/* The version goes on in the next file, with the schema that it had. */
static enum err go_on(const struct history_walk *w, struct history_state *s, struct err_ctx *ctx)
{
    if (!w->entered)
        return ERR_OK;
    struct schema *schema = schema_acquire(s->schema);
    bool altered = s->altered;
    enum err e = history_state_go_on(s, w->entered, w->entered_len, ctx);
    if (e == ERR_OK) {
        schema_release(s->schema);
        s->schema = schema;
        s->altered = altered;
    } else {
        schema_release(schema);
    }
    return e;
}

/* Compactions before the next commit stand for what the version holds. Another schema belongs to
 * the versions after it. */
static enum err apply_compactions(struct history_walk *w, struct history_state *s,
                                  struct err_ctx *ctx)
{
    struct history_item item;
    for (bool more;;) {
        RETURN_NOT_OK(history_walk_next(w, &item, &more, ctx));
        if (!more || kind_of(&item) == RECORD_COMMIT)
            return ERR_OK;
        RETURN_NOT_OK(go_on(w, s, ctx));
        if (kind_of(&item) == RECORD_COMPACT)
            RETURN_NOT_OK(history_state_apply(s, item.record, item.len, ctx));
    }
}

enum err history_state_at(struct collection *c, uint64_t version, struct history_state *out,
                          struct err_ctx *ctx)
{
    struct history_walk w;
    enum err e = history_walk_begin(c, version, &w, out, ctx);
    if (e == ERR_OK) {
        e = apply_up_to(&w, version, out, ctx);
        if (e == ERR_OK)
            e = apply_compactions(&w, out, ctx);
        if (e != ERR_OK)
            history_state_deinit(out);
    }
    history_walk_end(&w);
    return e;
}

/* ---- which segments versions need ---- */

/* Commits one after the other name the same tail. */
static void put_id(uint64_t id, struct buf *ids)
{
    uint64_t last;
    if (ids->len)
        memcpy(&last, ids->data + ids->len - sizeof last, sizeof last);
    if (!ids->len || last != id)
        buf_put(ids, &id, sizeof id);
}

static void put_ids(const struct buf *segments, struct buf *ids)
{
    const struct segment_ref *refs = (const struct segment_ref *)segments->data;
    for (size_t i = 0; i < segments->len / sizeof *refs; i++)
        put_id(refs[i].id, ids);
}

static void put_state(const struct history_state *s, struct buf *ids)
{
    for (size_t i = 0; i < s->n; i++)
        put_id(s->entries[i].ref.id, ids);
}

static enum err put_commit(const struct history_item *item, struct buf *ids, struct err_ctx *ctx)
{
    struct commit_record r;
    RETURN_NOT_OK(commit_record_decode(item->record, item->len, &r, ctx));
    put_ids(&r.segments, ids);
    put_ids(&r.target.segments, ids);
    if (r.ninline)
        put_id(r.tail_id, ids);
    commit_record_deinit(&r);
    return ERR_OK;
}

static enum err put_compact(const struct history_item *item, struct buf *ids, struct err_ctx *ctx)
{
    struct compact_record r;
    RETURN_NOT_OK(compact_record_decode(item->record, item->len, &r, ctx));
    put_ids(&r.added.segments, ids);
    compact_record_deinit(&r);
    return ERR_OK;
}

static enum err put_base(const void *data, size_t n, struct buf *ids, struct err_ctx *ctx)
{
    struct history_base b;
    RETURN_NOT_OK(history_base_decode(data, n, &b, ctx));
    put_ids(&b.manifest.segments, ids);
    history_base_deinit(&b);
    return ERR_OK;
}

/* What came after a state, from its next commit on; a compaction before that is in the state. */
static enum err put_rest(struct history_walk *w, struct buf *ids, struct err_ctx *ctx)
{
    struct history_item item;
    for (bool more;;) {
        RETURN_NOT_OK(history_walk_next(w, &item, &more, ctx));
        if (w->entered)
            RETURN_NOT_OK(put_base(w->entered, w->entered_len, ids, ctx));
        if (!more)
            return ERR_OK;
        if (kind_of(&item) == RECORD_COMMIT)
            RETURN_NOT_OK(put_commit(&item, ids, ctx));
        else if (kind_of(&item) == RECORD_COMPACT)
            RETURN_NOT_OK(put_compact(&item, ids, ctx));
    }
}

static enum err needed_at(struct collection *c, uint64_t version, struct buf *ids,
                          struct err_ctx *ctx)
{
    struct history_state s;
    RETURN_NOT_OK(history_state_at(c, version, &s, ctx));
    put_state(&s, ids);
    history_state_deinit(&s);
    return ERR_OK;
}

static enum err needed_from(struct collection *c, uint64_t horizon, struct buf *ids,
                            struct err_ctx *ctx)
{
    struct history_walk w;
    struct history_state s;
    enum err e = history_walk_begin(c, horizon, &w, &s, ctx);
    if (e == ERR_OK)
        e = apply_up_to(&w, horizon, &s, ctx);
    history_state_deinit(&s);
    if (e == ERR_OK)
        e = put_rest(&w, ids, ctx);
    history_walk_end(&w);
    return e;
}

enum err history_needed(struct collection *c, uint64_t horizon, const uint64_t *kept, size_t n,
                        struct buf *ids, struct err_ctx *ctx)
{
    for (size_t i = 0; i < n; i++) {
        if (kept[i] < horizon)
            RETURN_NOT_OK(needed_at(c, kept[i], ids, ctx));
    }
    RETURN_NOT_OK(needed_at(c, horizon, ids, ctx));
    RETURN_NOT_OK(needed_from(c, horizon, ids, ctx));
    numbers_sort(ids);
    return ids->failed ? err_no_memory(ctx, ids->len) : ERR_OK;
}
