/* History in memory: recent items, the base before them, what is kept, what is open.
 *
 * An item is prepared before its record is logged and added after, so that a record in the log is
 * always in history as well. Its inline rows are left out: they are in the tail or in the file that
 * came of it, under the same segment id and row numbers.
 *
 * Threads: history.h. Failure: memory, before anything is changed. */
#include "store/history.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "store/collection_internal.h"

void history_init(struct history *h)
{
    *h = (struct history){0};
    pthread_mutex_init(&h->lock, NULL);
}

void history_deinit(struct history *h)
{
    for (size_t i = 0; i < h->nrecent; i++)
        piece_release(h->recent[i]);
    for (size_t i = 0; i < VERSIONS_CACHED; i++)
        snapshot_release(h->cache[i].snapshot);
    free(h->recent);
    piece_release(h->base);
    buf_deinit(&h->files);
    buf_deinit(&h->kept);
    buf_deinit(&h->pins);
    buf_deinit(&h->in_log);
    pthread_mutex_destroy(&h->lock);
}

void piece_release(struct piece *p)
{
    if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        free(p);
}

static enum err piece_new(const struct buf *data, struct piece **out, struct err_ctx *ctx)
{
    struct piece *p = data->failed ? NULL : calloc(1, sizeof *p + data->len);
    if (!p)
        return err_no_memory(ctx, data->len);
    atomic_init(&p->refs, 1);
    p->len = data->len;
    memcpy(p->data, data->data, data->len);
    *out = p;
    return ERR_OK;
}

/* ---- items ---- */

static enum err reserve_recent(struct history *h, struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&h->lock);
    if (h->nrecent == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 64;
        struct piece **grown = realloc(h->recent, cap * sizeof *grown);
        if (grown) {
            h->recent = grown;
            h->cap = cap;
        } else {
            e = err_no_memory(ctx, cap * sizeof *grown);
        }
    }
    pthread_mutex_unlock(&h->lock);
    return e;
}

static enum err read_commit(const void *record, size_t n, struct piece *item, struct err_ctx *ctx)
{
    struct commit_record r;
    if (!n || *(const uint8_t *)record != RECORD_COMMIT)
        return ERR_OK;
    RETURN_NOT_OK(commit_record_decode(record, n, &r, ctx));
    item->version = r.meta.version;
    item->time_us = r.meta.time_us;
    commit_record_deinit(&r);
    return ERR_OK;
}

/* What history_item_encode wrote, without the number: blob of the record. */
static enum err item_new(const struct buf *encoded, struct piece **out, struct err_ctx *ctx)
{
    struct cursor c = cursor_over(encoded->data, encoded->len);
    struct history_item item;
    if (!history_file_next(&c, &item))
        return err_no_memory(ctx, encoded->len);
    struct buf record = {.data = (uint8_t *)item.record, .len = item.len};
    RETURN_NOT_OK(piece_new(&record, out, ctx));
    enum err e = read_commit(item.record, item.len, *out, ctx);
    if (e != ERR_OK)
        piece_release(*out);
    return e;
}

enum err history_prepare(struct collection *c, const void *record, size_t n, struct piece **out,
                         struct err_ctx *ctx)
{
    struct buf encoded = {0};
    *out = NULL;
    RETURN_NOT_OK(reserve_recent(&c->history, ctx));
    enum err e = history_item_encode(0, record, n, &encoded, ctx);
    if (e == ERR_OK)
        e = item_new(&encoded, out, ctx);
    buf_deinit(&encoded);
    return e;
}

void history_add(struct collection *c, struct piece *item)
{
    struct history *h = &c->history;
    item->number = ++c->items;
    pthread_mutex_lock(&h->lock);
    ASSERT(h->nrecent < h->cap);
    h->recent[h->nrecent++] = item;
    h->commits += item->version != 0;
    pthread_mutex_unlock(&h->lock);
}

enum err collection_log(struct collection *c, const void *record, size_t n, uint64_t *ticket,
                        struct err_ctx *ctx)
{
    struct piece *item;
    RETURN_NOT_OK(history_prepare(c, record, n, &item, ctx));
    enum err e = wal_append(c->wal, record, n, ticket, ctx);
    if (e != ERR_OK) {
        piece_release(item);
        return e;
    }
    history_add(c, item);
    c->last_ticket = *ticket;
    c->last_commit_us = (int64_t)clock_mono_us();
    return ERR_OK;
}

/* ---- the base ---- */

static bool put_mask(const struct mask *m, uint64_t id, struct buf *list, struct buf *blobs)
{
    size_t before = blobs->len;
    if (!m)
        return true;
    if (!mask_encode(m, blobs))
        return false;
    struct dead_ref d = {.segment = id, .mask_len = blobs->len - before};
    buf_put(list, &d, sizeof d);
    return true;
}

/* The blobs moved while they grew. */
static const uint8_t *set_addresses(struct buf *list, const uint8_t *at)
{
    struct dead_ref *d = (struct dead_ref *)list->data;
    for (size_t i = 0; i < list->len / sizeof *d; i++) {
        d[i].mask = at;
        at += d[i].mask_len;
    }
    return at;
}

enum err manifest_of(const struct snapshot *s, struct manifest *out, struct buf *blobs,
                     struct err_ctx *ctx)
{
    bool ok = true;
    *out = (struct manifest){0};
    for (uint32_t i = 0; ok && i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        struct segment_ref ref = {.id = v->segment->id,
                                  .base_version = v->segment->base_version,
                                  .rows = v->rows,
                                  .base_ordinal = v->segment->base_ordinal};
        buf_put(&out->segments, &ref, sizeof ref);
        ok = put_mask(v->dead, ref.id, &out->dead, blobs);
    }
    for (uint32_t i = 0; ok && i < s->nviews; i++)
        ok = put_mask(s->views[i].gone, s->views[i].segment->id, &out->gone, blobs);
    if (ok && !blobs->failed && !out->segments.failed && !out->dead.failed && !out->gone.failed) {
        (void)set_addresses(&out->gone, set_addresses(&out->dead, blobs->data));
        return ERR_OK;
    }
    manifest_deinit(out);
    return err_no_memory(ctx, blobs->len);
}

enum err history_base_of(const struct snapshot *s, uint64_t items, struct piece **out,
                         struct err_ctx *ctx)
{
    struct buf blobs = {0}, data = {0};
    struct history_base b = {.schema = s->schema,
                             .meta = {.version = s->version,
                                      .time_us = s->time_us,
                                      .live_rows = s->rows,
                                      .live_vectors = s->vectors,
                                      .digest = s->digest},
                             .altered = s->altered};
    enum err e = manifest_of(s, &b.manifest, &blobs, ctx);
    if (e == ERR_OK) {
        history_base_encode(&b, &data);
        e = piece_new(&data, out, ctx);
        manifest_deinit(&b.manifest);
    }
    if (e == ERR_OK) {
        (*out)->number = items;
        (*out)->version = s->version;
        (*out)->time_us = s->time_us;
    }
    buf_deinit(&blobs);
    buf_deinit(&data);
    return e;
}

void history_rebase(struct collection *c, struct piece *base)
{
    struct history *h = &c->history;
    size_t gone = 0;
    pthread_mutex_lock(&h->lock);
    while (gone < h->nrecent && h->recent[gone]->number <= base->number) {
        h->commits -= h->recent[gone]->version != 0;
        piece_release(h->recent[gone++]);
    }
    h->nrecent -= gone;
    if (gone)
        memmove(h->recent, h->recent + gone, h->nrecent * sizeof *h->recent);
    piece_release(h->base);
    h->base = base;
    pthread_mutex_unlock(&h->lock);
}

/* ---- what is kept ---- */

static bool contains(const struct buf *numbers, uint64_t number)
{
    const uint64_t *n = (const uint64_t *)numbers->data;
    for (size_t i = 0; i < numbers->len / sizeof *n; i++) {
        if (n[i] == number)
            return true;
    }
    return false;
}

/* With the history lock. */
static bool kept(const struct history *h, uint64_t version)
{
    return version >= h->horizon || version == 0 || version == h->base_version ||
           contains(&h->kept, version);
}

enum err history_check(struct collection *c, uint64_t version, struct err_ctx *ctx)
{
    struct history *h = &c->history;
    epoch_enter();
    uint64_t newest = collection_snapshot(c)->version;
    epoch_leave();
    if (version > newest)
        return err_set(ctx, ERR_NOT_FOUND,
                       "there is no version %" PRIu64 "; the newest is %" PRIu64, version, newest);
    pthread_mutex_lock(&h->lock);
    bool there = kept(h, version);
    uint64_t horizon = h->horizon;
    pthread_mutex_unlock(&h->lock);
    if (there)
        return ERR_OK;
    return err_set(ctx, ERR_GONE,
                   "version %" PRIu64 " was vacuumed; versions from %" PRIu64
                   " on are kept (tag a version, or raise the retention, to keep more)",
                   version, horizon);
}

static bool not_kept(const struct snapshot *s, const void *arg)
{
    return !kept(arg, s->version);
}

/* With the history lock. What is released may free much: collected first. */
static size_t take_cached(struct history *h,
                          bool (*drop)(const struct snapshot *s, const void *arg), const void *arg,
                          struct snapshot *out[VERSIONS_CACHED])
{
    size_t n = 0;
    for (size_t i = 0; i < VERSIONS_CACHED; i++) {
        struct cached_version *v = &h->cache[i];
        if (!v->snapshot || !drop(v->snapshot, arg))
            continue;
        out[n++] = v->snapshot;
        *v = (struct cached_version){0};
    }
    return n;
}

static void release_all(struct snapshot **list, size_t n)
{
    while (n-- > 0)
        snapshot_release(list[n]);
}

void history_forget(struct collection *c, bool (*drop)(const struct snapshot *s, const void *arg),
                    const void *arg)
{
    struct snapshot *dropped[VERSIONS_CACHED];
    pthread_mutex_lock(&c->history.lock);
    size_t n = take_cached(&c->history, drop, arg, dropped);
    pthread_mutex_unlock(&c->history.lock);
    release_all(dropped, n);
}

enum err vacuum_apply(struct collection *c, const struct vacuum_record *r, struct err_ctx *ctx)
{
    struct history *h = &c->history;
    struct snapshot *dropped[VERSIONS_CACHED];
    struct buf list = {0};
    const uint64_t *removed = (const uint64_t *)r->removed.data;
    size_t nremoved = r->removed.len / sizeof *removed;
    for (uint32_t i = 0; i < c->head->nviews; i++) {
        if (contains(&r->removed, c->head->views[i].segment->id))
            return err_set(ctx, ERR_CORRUPT, "a vacuum removes a segment of the newest version");
    }
    buf_put(&list, r->kept.data, r->kept.len);
    if (list.failed)
        return err_no_memory(ctx, r->kept.len);
    pthread_mutex_lock(&h->lock);
    struct buf before = h->kept;
    h->kept = list;
    if (r->horizon > h->horizon)
        h->horizon = r->horizon;
    size_t n = take_cached(h, not_kept, h, dropped);
    pthread_mutex_unlock(&h->lock);
    buf_deinit(&before);
    release_all(dropped, n);
    registry_remove(c, removed, nremoved);
    return ERR_OK;
}

/* ---- pins ---- */

static struct pin *find_pin(struct history *h, uint64_t version)
{
    struct pin *p = (struct pin *)h->pins.data;
    for (size_t i = 0; i < h->pins.len / sizeof *p; i++) {
        if (p[i].version == version)
            return &p[i];
    }
    return NULL;
}

enum err collection_pin(struct collection *c, uint64_t version, struct err_ctx *ctx)
{
    struct history *h = &c->history;
    struct pin fresh = {.version = version, .count = 1};
    pthread_mutex_lock(&h->lock);
    struct pin *p = find_pin(h, version);
    if (p)
        p->count++;
    else
        buf_put(&h->pins, &fresh, sizeof fresh);
    bool failed = h->pins.failed; /* what was there before is whole */
    h->pins.failed = false;
    pthread_mutex_unlock(&h->lock);
    return failed ? err_no_memory(ctx, sizeof fresh) : ERR_OK;
}

void collection_unpin(struct collection *c, uint64_t version)
{
    struct history *h = &c->history;
    pthread_mutex_lock(&h->lock);
    struct pin *p = find_pin(h, version);
    ASSERT(p);
    if (--p->count == 0) {
        *p = *((struct pin *)(h->pins.data + h->pins.len) - 1);
        h->pins.len -= sizeof *p;
    }
    pthread_mutex_unlock(&h->lock);
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void numbers_sort(struct buf *numbers)
{
    uint64_t *n = (uint64_t *)numbers->data;
    size_t count = numbers->len / sizeof *n, kept_n = 0;
    if (!count)
        return;
    qsort(n, count, sizeof *n, compare_numbers);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || n[i] != n[i - 1])
            n[kept_n++] = n[i];
    }
    numbers->len = kept_n * sizeof *n;
}

void collection_held_versions(struct collection *c, struct buf *out)
{
    struct history *h = &c->history;
    const struct tags *t = c->tags_head;
    for (size_t i = 0; i < t->n; i++)
        buf_put(out, &t->list[i].version, sizeof t->list[i].version);
    pthread_mutex_lock(&h->lock);
    const struct pin *p = (const struct pin *)h->pins.data;
    for (size_t i = 0; i < h->pins.len / sizeof *p; i++)
        buf_put(out, &p[i].version, sizeof p[i].version);
    pthread_mutex_unlock(&h->lock);
    numbers_sort(out);
}
