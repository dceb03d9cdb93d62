/* The swap: a merged segment takes the place of its inputs in the newest version.
 *
 * While the merge ran, commits let rows of the inputs die; and a restore may have brought others
 * back to life. What changed is the difference between the masks of then and of now, found page by
 * page (pages that nobody changed are shared), and is carried over through the maps:
 *
 *   died since          dead in the merged segment
 *   alive again         alive in it, if the merge took the row along (history); else: conflict
 *   input is no view    all its rows are dead
 *
 * Threads: the commit lock is held from the comparison to the head's change; nothing in it depends
 * on the size of the merge but the mask that is written. Failure: before the record is queued
 * nothing has changed; a failed sync makes the collection read-only. */
#include "store/compact.h"

#include "store/collection_internal.h"
#include "store/upkeep_internal.h"

/* What the output is born with. */
struct carried {
    roaring_bitmap_t *dead, *gone; /* rows of the output */
    bool revived;                  /* a row that was left out lives */
    bool failed;
};

/* ---- what changed ---- */

struct difference {
    roaring_bitmap_t *set, *cleared; /* rows of the input */
};

static const struct mask_page *page_of(const struct mask *m, uint32_t i)
{
    return m && i < m->npages ? m->pages[i] : NULL;
}

static void compare_pages(const struct mask_page *before, const struct mask_page *now,
                          uint32_t first, struct difference *d)
{
    for (uint32_t w = 0; w < MASK_PAGE_WORDS; w++) {
        uint64_t a = before ? before->words[w] : 0, b = now ? now->words[w] : 0;
        for (uint64_t bits = a ^ b; bits; bits &= bits - 1) {
            uint32_t bit = (uint32_t)__builtin_ctzll(bits);
            roaring_bitmap_add(b >> bit & 1 ? d->set : d->cleared, first + w * 64 + bit);
        }
    }
}

static void difference_deinit(struct difference *d)
{
    if (d->set)
        roaring_bitmap_free(d->set);
    if (d->cleared)
        roaring_bitmap_free(d->cleared);
}

static bool compare_masks(const struct mask *before, const struct mask *now, struct difference *d)
{
    *d = (struct difference){roaring_bitmap_create(), roaring_bitmap_create()};
    if (!d->set || !d->cleared)
        return false;
    uint32_t n = before ? before->npages : 0;
    if (now && now->npages > n)
        n = now->npages;
    for (uint32_t i = 0; i < n; i++) {
        const struct mask_page *a = page_of(before, i), *b = page_of(now, i);
        if (a != b)
            compare_pages(a, b, i * MASK_PAGE_BITS, d);
    }
    return true;
}

/* Rows of the output that the rows in `rows` became are set or cleared in `out`. */
static bool carry(const struct merge_map *map, const roaring_bitmap_t *rows, bool set,
                  roaring_bitmap_t *out)
{
    if (roaring_bitmap_is_empty(rows))
        return true;
    roaring_bitmap_t *to = merge_map_rows(map, rows);
    if (!to)
        return false;
    if (set)
        roaring_bitmap_or_inplace(out, to);
    else
        roaring_bitmap_andnot_inplace(out, to);
    roaring_bitmap_free(to);
    return true;
}

/* True when none of the rows was left out of the merge. */
static bool all_kept(const struct merge_map *map, const roaring_bitmap_t *rows)
{
    return roaring_bitmap_is_subset(rows, map->from);
}

static void carry_mask(const struct merge_map *map, const struct mask *before,
                       const struct mask *now, roaring_bitmap_t *out, struct carried *all)
{
    struct difference d;
    if (!compare_masks(before, now, &d) || !carry(map, d.set, true, out) ||
        !carry(map, d.cleared, false, out))
        all->failed = true;
    else
        all->revived |= !all_kept(map, d.cleared);
    difference_deinit(&d);
}

/* ---- what the output is born with ---- */

static void carry_view(const struct merge_map *map, const struct view *before,
                       const struct view *now, struct carried *all)
{
    if (!now) {
        roaring_bitmap_or_inplace(all->dead, map->to);
        roaring_bitmap_or_inplace(all->gone, map->to);
        return;
    }
    carry_mask(map, before->dead, now->dead, all->dead, all);
    carry_mask(map, before->gone, now->gone, all->gone, all);
}

/* Rows of the merge that were dead, and kept, when it began. Outside the lock. */
static void start_carried(const struct compaction *job, struct carried *all)
{
    *all = (struct carried){.dead = roaring_bitmap_create(), .gone = roaring_bitmap_create()};
    all->failed = !all->dead || !all->gone;
    for (size_t i = 0; i < job->n && !all->failed; i++) {
        const struct view *v = &job->base->views[job->views[i]];
        if (v->dead != job->inputs[i].drop)
            carry_mask(&job->out.maps[i], NULL, v->dead, all->dead, all);
        if (v->gone != job->inputs[i].drop)
            carry_mask(&job->out.maps[i], NULL, v->gone, all->gone, all);
    }
}

static void carried_deinit(struct carried *all)
{
    if (all->dead)
        roaring_bitmap_free(all->dead);
    if (all->gone)
        roaring_bitmap_free(all->gone);
}

/* ---- the record ---- */

static const struct view *find_view(const struct snapshot *s, uint64_t id)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (s->views[i].segment->id == id)
            return &s->views[i];
    }
    return NULL;
}

/* With the commit lock. */
static enum err carry_over(struct collection *c, const struct compaction *job, struct carried *all,
                           struct compact_record *rec, struct err_ctx *ctx)
{
    for (size_t i = 0; i < job->n; i++) {
        uint64_t id = job->inputs[i].segment->id;
        const struct view *now = find_view(c->head, id);
        carry_view(&job->out.maps[i], &job->base->views[job->views[i]], now, all);
        if (now)
            buf_put_u64(&rec->removed, id);
    }
    if (all->failed || rec->removed.failed)
        return err_no_memory(ctx, rec->removed.len);
    bool history = job->base->schema->event_time >= 0;
    uint64_t rows = job->out.segment->rows;
    uint64_t lost = roaring_bitmap_get_cardinality(history ? all->gone : all->dead);
    if (all->revived || rec->removed.len == 0 || lost == rows)
        return err_set(ctx, ERR_CONFLICT,
                       "the segments of a compaction were changed by a commit while it ran");
    return ERR_OK;
}

static bool put_mask(const roaring_bitmap_t *rows, uint64_t id, struct buf *blob, struct buf *refs)
{
    if (roaring_bitmap_is_empty(rows))
        return true;
    size_t n = roaring_bitmap_portable_size_in_bytes(rows);
    char *at = buf_extend(blob, n);
    if (!at)
        return false;
    roaring_bitmap_portable_serialize(rows, at);
    struct dead_ref ref = {.segment = id, .mask = at, .mask_len = n};
    buf_put(refs, &ref, sizeof ref);
    return !refs->failed;
}

static enum err encode(const struct compaction *job, const struct carried *all,
                       struct compact_record *rec, struct buf *out, struct err_ctx *ctx)
{
    struct buf dead = {0}, gone = {0};
    struct segment_ref ref = {.id = job->out.id, .rows = job->out.segment->rows};
    buf_put(&rec->added.segments, &ref, sizeof ref);
    bool ok = put_mask(all->dead, ref.id, &dead, &rec->added.dead);
    if (ok && job->base->schema->event_time >= 0)
        ok = put_mask(all->gone, ref.id, &gone, &rec->added.gone);
    if (ok)
        compact_record_encode(rec, out);
    ok = ok && !out->failed && !rec->added.segments.failed;
    buf_deinit(&dead);
    buf_deinit(&gone);
    return ok ? ERR_OK : err_no_memory(ctx, out->len);
}

/* With the commit lock: everything up to the queued record. */
static enum err log_swap(struct collection *c, struct compaction *job, const struct buf *record,
                         uint64_t *ticket, struct snapshot **next, struct err_ctx *ctx)
{
    struct plan plan;
    RETURN_NOT_OK(plan_compact(c, record->data, record->len, &job->out.segment, &plan, ctx));
    enum err e = collection_log(c, record->data, record->len, ticket, ctx);
    if (e == ERR_OK) {
        plan_apply(c, &plan);
        *next = snapshot_acquire(c->head);
    }
    plan_deinit(&plan);
    return e;
}

static enum err swap_locked(struct collection *c, struct compaction *job, struct carried *all,
                            uint64_t *ticket, struct snapshot **next, struct err_ctx *ctx)
{
    struct compact_record rec = {0};
    struct buf record = {0};
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    enum err e = carry_over(c, job, all, &rec, ctx);
    if (e == ERR_OK)
        e = encode(job, all, &rec, &record, ctx);
    if (e == ERR_OK)
        e = log_swap(c, job, &record, ticket, next, ctx);
    buf_deinit(&record);
    compact_record_deinit(&rec);
    return e;
}

enum err compact_swap(struct collection *c, struct compaction *job, struct err_ctx *ctx)
{
    struct carried all;
    struct snapshot *next = NULL;
    uint64_t ticket = 0;
    start_carried(job, &all);
    pthread_mutex_lock(&c->commit_lock);
    enum err e = all.failed ? err_no_memory(ctx, sizeof all)
                            : swap_locked(c, job, &all, &ticket, &next, ctx);
    pthread_mutex_unlock(&c->commit_lock);
    carried_deinit(&all);
    RETURN_NOT_OK(e);
    e = upkeep_wait(c, ticket, next, ctx);
    snapshot_release(next);
    return e;
}
