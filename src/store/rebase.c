/* Rebasing: from the snapshot that a load was resolved against to a newer one.
 *
 *   base      view A  rows 0..99 .....x....      x: dead in next, not in base
 *   next      view A  rows 0..120 ....x....++    +: rows that base did not know
 *             view B  +++++                      views are matched by segment id
 *
 * The keys of those rows are all whose effect can differ. A segment of the base with rows in it
 * that is not in `next` was merged into another: then everything is resolved anew.
 *
 * Threads: as the resolver's. Failure: the resolver is then good for nothing but to be prepared
 * again or freed. */
#include "store/resolve.h"

#include "base/epoch.h"

enum { CHANGES_MAX = 4 << 20 }; /* more rows than that: resolving anew is no dearer */

static const struct view *view_of(const struct snapshot *s, uint64_t id)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (s->views[i].segment->id == id)
            return &s->views[i];
    }
    return NULL;
}

static uint64_t set_in(const struct mask *m)
{
    return m ? m->count : 0;
}

static uint64_t kept_rows(const struct snapshot *s, const struct view *v)
{
    return s->schema->event_time < 0 ? v->live : v->rows - set_in(v->gone);
}

static uint64_t apart(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

static bool same_layout(const struct resolve *rv, const struct snapshot *next)
{
    if (rv->base->schema != next->schema)
        return false;
    for (uint32_t i = 0; i < rv->base->nviews; i++) {
        const struct view *v = &rv->base->views[i];
        if (kept_rows(rv->base, v) && !view_of(next, v->segment->id))
            return false;
    }
    return true;
}

uint64_t resolve_distance(const struct resolve *rv, const struct snapshot *next)
{
    uint64_t rows = 0;
    if (!same_layout(rv, next))
        return UINT64_MAX;
    for (uint32_t i = 0; i < next->nviews; i++) {
        const struct view *v = &next->views[i], *b = view_of(rv->base, v->segment->id);
        if (b)
            rows += apart(v->rows, b->rows) + apart(set_in(v->dead), set_in(b->dead)) +
                    apart(set_in(v->gone), set_in(b->gone));
        else
            rows += v->rows;
    }
    return rows;
}

/* ---- the keys that changed ---- */

struct change {
    const struct segment *segment;
    uint64_t hash;
    uint32_t row;
};

struct changes {
    struct change *list;
    size_t n, cap;
    bool failed;
};

static void note(struct changes *all, const struct segment *s, uint32_t row)
{
    struct row key = {.schema = s->schema};
    if (all->n == all->cap) {
        size_t cap = all->cap ? all->cap * 2 : 256;
        struct change *grown = realloc(all->list, cap * sizeof *grown);
        if (!grown) {
            all->failed = true;
            return;
        }
        all->list = grown;
        all->cap = cap;
    }
    segment_row_key(s, row, &key);
    all->list[all->n++] = (struct change){s, row_key_hash(&key), row};
}

static uint64_t mask_word(const struct mask *m, uint32_t w)
{
    uint32_t page = w / MASK_PAGE_WORDS;
    return m && page < m->npages && m->pages[page] ? m->pages[page]->words[w % MASK_PAGE_WORDS] : 0;
}

static bool same_page(const struct mask *a, const struct mask *b, uint32_t page)
{
    const struct mask_page *x = a && page < a->npages ? a->pages[page] : NULL;
    const struct mask_page *y = b && page < b->npages ? b->pages[page] : NULL;
    return x == y;
}

/* Rows of both whose state differs; pages that both share are passed over. */
static void note_turned(struct changes *all, const struct view *old, const struct view *v)
{
    for (uint32_t w = 0; w < (old->rows + 63) / 64 && !all->failed; w++) {
        uint32_t page = w / MASK_PAGE_WORDS;
        if (w % MASK_PAGE_WORDS == 0 && same_page(old->dead, v->dead, page) &&
            same_page(old->gone, v->gone, page)) {
            w += MASK_PAGE_WORDS - 1;
            continue;
        }
        uint64_t bits = (mask_word(old->dead, w) ^ mask_word(v->dead, w)) |
                        (mask_word(old->gone, w) ^ mask_word(v->gone, w));
        for (; bits; bits &= bits - 1) {
            uint32_t row = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (row < old->rows)
                note(all, v->segment, row);
        }
    }
}

static void note_view(struct changes *all, const struct snapshot *next, const struct view *old,
                      const struct view *v)
{
    bool events = next->schema->event_time >= 0;
    if (old)
        note_turned(all, old, v);
    for (uint32_t row = old ? old->rows : 0; row < v->rows && !all->failed; row++) {
        if (events ? view_kept(v, row) : view_live(v, row))
            note(all, v->segment, row);
    }
}

static int compare_changes(const void *a, const void *b)
{
    const struct change *x = a, *y = b;
    return (x->hash > y->hash) - (x->hash < y->hash);
}

static bool same_key(const struct change *a, const struct change *b)
{
    struct row x = {.schema = a->segment->schema}, y = {.schema = b->segment->schema};
    segment_row_key(a->segment, a->row, &x);
    segment_row_key(b->segment, b->row, &y);
    return row_keys_equal(&x, &y);
}

/* Each key once: behind the sort equal hashes are neighbours. */
static void drop_repeats(struct changes *all)
{
    size_t kept = 0;
    qsort(all->list, all->n, sizeof *all->list, compare_changes);
    for (size_t i = 0; i < all->n; i++) {
        bool seen = false;
        for (size_t j = kept; j-- > 0 && all->list[j].hash == all->list[i].hash && !seen;)
            seen = same_key(&all->list[j], &all->list[i]);
        if (!seen)
            all->list[kept++] = all->list[i];
    }
    all->n = kept;
}

static enum err find_changes(const struct resolve *rv, const struct snapshot *next,
                             struct changes *all, struct err_ctx *ctx)
{
    epoch_enter();
    for (uint32_t i = 0; i < next->nviews; i++)
        note_view(all, next, view_of(rv->base, next->views[i].segment->id), &next->views[i]);
    epoch_leave();
    if (all->failed)
        return err_no_memory(ctx, all->cap * sizeof *all->list);
    if (all->n)
        drop_repeats(all);
    return ERR_OK;
}

/* ---- moving over ---- */

static enum err apply_all(struct resolve *rv, const struct changes *all, int sign,
                          struct err_ctx *ctx)
{
    for (size_t i = 0; i < all->n; i++) {
        struct row key = {.schema = all->list[i].segment->schema};
        segment_row_key(all->list[i].segment, all->list[i].row, &key);
        RETURN_NOT_OK(resolve_key(rv, &key, sign, ctx));
    }
    return ERR_OK;
}

static void free_bits(roaring_bitmap_t *bits)
{
    if (bits)
        roaring_bitmap_free(bits);
}

/* The kills go with their segments; a view that left had no row in it. */
static enum err move_kills(struct resolve *rv, struct snapshot *next, struct err_ctx *ctx)
{
    struct kills *kills = calloc(next->nviews + 1, sizeof *kills);
    if (!kills)
        return err_no_memory(ctx, next->nviews * sizeof *kills);
    for (uint32_t i = 0; i < next->nviews; i++) {
        const struct view *old = view_of(rv->base, next->views[i].segment->id);
        if (!old)
            continue;
        struct kills *from = &rv->kills[old - rv->base->views];
        kills[i] = *from;
        *from = (struct kills){0};
    }
    for (uint32_t i = 0; i < rv->base->nviews; i++) {
        free_bits(rv->kills[i].dead);
        free_bits(rv->kills[i].gone);
    }
    free(rv->kills);
    rv->kills = kills;
    snapshot_release(rv->base);
    rv->base = snapshot_acquire(next);
    return ERR_OK;
}

enum err resolve_rebase(struct resolve *rv, struct snapshot *next, bool *again, struct err_ctx *ctx)
{
    struct changes all = {0};
    *again = false;
    if (next == rv->base)
        return ERR_OK;
    if (resolve_distance(rv, next) > CHANGES_MAX) {
        *again = true;
        return ERR_OK;
    }
    enum err e = find_changes(rv, next, &all, ctx);
    if (e == ERR_OK)
        e = apply_all(rv, &all, -1, ctx);
    if (e == ERR_OK)
        e = move_kills(rv, next, ctx);
    if (e == ERR_OK)
        e = apply_all(rv, &all, 1, ctx);
    free(all.list);
    return e;
}
