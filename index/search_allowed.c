/* Which rows of a view may be hits.
 *
 *   filter evaluated                 for every row that is asked about
 *          cached (filter_cache.h)   bits of all rows of the segment, and of those the live ones
 *          worked out                bits of the view's rows, for the queries of one request
 *
 * Threads: per call. Failure: no memory to work a filter out: it is evaluated. */
#include "index/filter_cache.h"
#include "index/search_internal.h"

enum { SAMPLE_ROWS = 1024, SAMPLE_WORDS = 1024 /* of bits, which are cheaper to look at */ };

static uint32_t view_words(const struct view *v)
{
    return v->rows / 64 + (v->rows % 64 != 0);
}

uint64_t allowed_word(const struct allowed *a, uint32_t w)
{
    if (a->bits)
        return a->bits[w];
    if (a->matching)
        return a->matching[w] ? a->matching[w] & view_live_word(a->view, w) : 0;
    uint64_t live = view_live_word(a->view, w);
    return a->filter ? filter_word(a->filter, a->view->segment, w, live) : live;
}

uint32_t allowed_next(const struct allowed *a, uint32_t w, uint32_t end)
{
    const uint64_t *words = a->bits ? a->bits : a->matching;
    if (!words)
        return w;
    while (w + 4 <= end && !(words[w] | words[w + 1] | words[w + 2] | words[w + 3]))
        w += 4;
    while (w < end && !words[w])
        w++;
    return w;
}

/* ---- shares ---- */

/* Of the live rows, that match; from a sample of the bits when there are many. Never 0 unless it
 * is. */
static double share_of_bits(const struct allowed *a, uint32_t matching)
{
    const struct view *v = a->view;
    uint32_t words = view_words(v), looks = words < SAMPLE_WORDS ? words : SAMPLE_WORDS;
    uint64_t live = 0, hits = 0;
    if (matching == 0 || v->live == 0)
        return 0;
    if (!v->dead && v->rows == v->segment->rows)
        return (double)matching / v->live;
    for (uint32_t i = 0; i < looks; i++) {
        uint32_t w = (uint32_t)((uint64_t)i * words / looks);
        uint64_t alive = view_live_word(v, w);
        live += (unsigned)__builtin_popcountll(alive);
        hits += (unsigned)__builtin_popcountll(alive & a->matching[w]);
    }
    if (looks == words)
        return (double)hits / v->live;
    if (hits > 0)
        return (double)hits / (double)live;
    double most = (double)matching / v->live, guess = 0.5 / (double)(live + 1);
    return guess < most ? guess : most;
}

void allowed_estimate(struct view_plan *plan)
{
    if (isnan(plan->share))
        plan->share = filter_share(plan->allowed.filter, plan->allowed.view, SAMPLE_ROWS);
}

/* ---- bits ---- */

static void take_bits(struct view_plan *plan, const struct filter_bits *b)
{
    struct allowed *a = &plan->allowed;
    const struct view *v = a->view;
    if (!b)
        return;
    a->matching = b->words;
    if (!v->dead && v->rows == v->segment->rows)
        a->bits = b->words;
    plan->share = share_of_bits(a, b->matching);
}

void allowed_use_cache(struct view_plan *plan, const struct search_params *p)
{
    struct allowed *a = &plan->allowed;
    if (a->bits && a->bits != a->matching) /* worked out: theirs for the whole request */
        return;
    a->bits = a->matching = NULL; /* of an epoch section that is over */
    take_bits(plan, filter_cache_use(a->view->segment, a->filter, p->walk_us_max, p->cancel));
}

void allowed_peek_cache(struct view_plan *plan)
{
    const struct allowed *a = &plan->allowed;
    take_bits(plan, filter_cache_peek(a->view->segment, a->filter));
}

void plan_match_all(const struct snapshot *s, struct view_plan *plan,
                    struct search_scratch *scratch)
{
    struct allowed *a = &plan->allowed;
    size_t words = 0, before = 0;
    if (!a->filter || a->bits)
        return;
    for (uint32_t i = 0; i < s->nviews; i++) {
        before += i < plan->view ? view_words(&s->views[i]) : 0;
        words += view_words(&s->views[i]);
    }
    uint64_t *bits = scratch_room(&scratch->matches, words, sizeof(*bits)), matching = 0;
    if (!bits)
        return;
    bits += before;
    for (uint32_t w = 0, n = view_words(a->view); w < n; w++) {
        bits[w] = allowed_word(a, w);
        matching += (unsigned)__builtin_popcountll(bits[w]);
    }
    a->bits = bits;
    plan->share = a->view->live ? (double)matching / a->view->live : 0;
}
