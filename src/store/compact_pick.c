/* Which segments a compaction merges.
 *
 *   tier   0: < 1 MiB   1: < 4 MiB   2: < 16 MiB ...      by the bytes of the rows that stay
 *
 * Four segments of a tier are merged, together with all smaller ones: so a collection has a handful
 * of segments whatever the number of its loads, and a row is rewritten once a tier. A segment with
 * a quarter of its rows dead is rewritten by itself. What would pass the cap is left alone: large
 * segments cost more to merge than they cost to search side by side.
 *
 * Pure functions of a snapshot. */
#include "store/compact.h"

#include "store/segment_writer.h"

struct candidate {
    uint32_t view;
    unsigned tier;
    uint64_t bytes; /* of the rows that stay */
    uint32_t rows, dropped;
};

static unsigned tier_of(uint64_t bytes)
{
    unsigned tier = 0;
    for (uint64_t end = COMPACT_TIER_BYTES; bytes >= end; end *= COMPACT_FANOUT)
        tier++;
    return tier;
}

static struct candidate candidate_of(const struct snapshot *s, uint32_t i)
{
    const struct view *v = &s->views[i];
    const struct mask *drop = view_dropped(s, v);
    struct candidate c = {.view = i, .rows = v->rows, .dropped = drop ? (uint32_t)drop->count : 0};
    c.bytes = (uint64_t)((double)v->segment->bytes * (v->rows - c.dropped) / (v->rows + 1.0));
    c.tier = tier_of(c.bytes);
    return c;
}

static int smaller_first(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return x->view < y->view ? -1 : x->view > y->view;
}

static bool many_dropped(const struct candidate *c)
{
    return c->dropped >= c->rows / 4 && c->dropped > 0;
}

/* How many of the smallest candidates fit one segment. */
static size_t fitting(const struct snapshot *s, const struct candidate *list, size_t n,
                      uint64_t bytes_max)
{
    struct merge_input in[COMPACT_INPUTS_MAX];
    uint64_t bytes = 0;
    size_t k = 0;
    for (; k < n && k < COMPACT_INPUTS_MAX; k++) {
        const struct view *v = &s->views[list[k].view];
        in[k] = (struct merge_input){.segment = v->segment, .rows = v->rows};
        bytes += list[k].bytes;
        if (bytes > bytes_max || !merge_fits(in, k + 1))
            break;
    }
    return k;
}

/* The smallest candidates, up to a tier that is full; 0 when none is. */
static size_t full_tier(const struct candidate *list, size_t n)
{
    for (size_t i = 0, first = 0; i < n; i++) {
        if (list[i].tier != list[first].tier)
            first = i;
        bool last = i + 1 == n || list[i + 1].tier != list[i].tier;
        if (last && i + 1 - first >= COMPACT_FANOUT)
            return i + 1;
    }
    return 0;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static size_t take(const struct candidate *list, size_t n, uint32_t *views)
{
    for (size_t i = 0; i < n; i++)
        views[i] = list[i].view;
    qsort(views, n, sizeof *views, by_number);
    return n;
}

static size_t pick(const struct snapshot *s, enum compact_mode mode, uint64_t bytes_max,
                   const struct candidate *list, size_t n, uint32_t *views)
{
    size_t fit = fitting(s, list, n, bytes_max);
    size_t want = mode == COMPACT_ALL ? fit : full_tier(list, fit);
    if (want >= 2)
        return take(list, want, views);
    for (size_t i = 0; i < n; i++) {
        bool worth = mode == COMPACT_ALL ? list[i].dropped > 0 : many_dropped(&list[i]);
        if (worth && fitting(s, &list[i], 1, UINT64_MAX))
            return take(&list[i], 1, views);
    }
    return 0;
}

size_t compact_pick(const struct snapshot *s, enum compact_mode mode, uint64_t bytes_max,
                    uint64_t before, uint32_t *views)
{
    struct candidate *list = malloc((s->nviews + 1) * sizeof *list);
    if (!list)
        return 0;
    size_t n = 0;
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (s->views[i].segment->tail || s->views[i].segment->id >= before)
            continue;
        list[n] = candidate_of(s, i);
        n += list[n].dropped < list[n].rows; /* else it was sealed dead: the next commit drops it */
    }
    qsort(list, n, sizeof *list, smaller_first);
    size_t picked = pick(s, mode, bytes_max, list, n, views);
    free(list);
    return picked;
}
