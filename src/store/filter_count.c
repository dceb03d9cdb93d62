/* How many rows match a filter: all of them counted, or a sample.
 *
 * Threads: any number. Failure: only being told to stop. */
#include "store/filter.h"

/* Live rows of [64 w, 64 w + 64). */
static uint64_t live_word(const struct view *v, uint32_t w)
{
    uint32_t left = v->rows - w * 64, page = w / MASK_PAGE_WORDS;
    uint64_t live = left < 64 ? (1ull << left) - 1 : UINT64_MAX;
    if (v->dead && page < v->dead->npages && v->dead->pages[page])
        live &= ~v->dead->pages[page]->words[w % MASK_PAGE_WORDS];
    return live;
}

static uint32_t words_of(const struct view *v)
{
    return v->rows / 64 + (v->rows % 64 != 0);
}

static unsigned matching(const struct filter *f, const struct view *v, uint32_t w)
{
    return (unsigned)__builtin_popcountll(filter_word(f, v->segment, w, live_word(v, w)));
}

enum err filter_count(const struct filter *f, const struct snapshot *s, const atomic_bool *cancel,
                      uint64_t *out, struct err_ctx *ctx)
{
    *out = 0;
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        for (uint32_t w = 0, n = v->live ? words_of(v) : 0; w < n; w++) {
            if (w % 1024 == 0 && cancel && atomic_load_explicit(cancel, memory_order_relaxed))
                return err_set(ctx, ERR_UNAVAILABLE, "the count was cut off: the daemon stops");
            *out += matching(f, v, w);
        }
    }
    return ERR_OK;
}

double filter_share(const struct filter *f, const struct view *v, uint32_t rows)
{
    uint32_t words = words_of(v), looks = rows / 64 + (rows % 64 != 0);
    uint64_t seen = 0, hits = 0;
    if (looks == 0)
        looks = 1;
    bool all = words <= looks;
    for (uint32_t i = 0, n = all ? words : looks; i < n; i++) {
        uint32_t w = all ? i : (uint32_t)((uint64_t)i * words / looks);
        seen += (unsigned)__builtin_popcountll(live_word(v, w));
        hits += matching(f, v, w);
    }
    if (hits > 0 || all)
        return seen ? (double)hits / (double)seen : 0;
    return 0.5 / (double)(seen + 1);
}
