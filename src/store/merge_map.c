/* Maps of a merge: from rows of an input to rows of the output.
 *
 *   from  3 4 5 9 ...      the k-th row of `from` became the k-th of `to`
 *   to    0 1 7 8 ...
 *
 * A few rows are looked up by rank and select, many by walking both sides at once. Immutable once
 * the merge is done: any thread. Failure: only memory. */
#include "store/merge.h"

enum { WALK_SHARE = 128 }; /* walking the map costs as much as so many look-ups a row of it */

void merge_map_deinit(struct merge_map *m)
{
    if (m->from)
        roaring_bitmap_free(m->from);
    if (m->to)
        roaring_bitmap_free(m->to);
    *m = (struct merge_map){0};
}

static void look_up(const struct merge_map *m, const roaring_bitmap_t *kept, roaring_bitmap_t *out)
{
    roaring_uint32_iterator_t at;
    roaring_init_iterator(kept, &at);
    for (; at.has_value; roaring_advance_uint32_iterator(&at)) {
        uint32_t to;
        uint64_t rank = roaring_bitmap_rank(m->from, at.current_value);
        if (roaring_bitmap_select(m->to, (uint32_t)rank - 1, &to))
            roaring_bitmap_add(out, to);
    }
}

static void walk(const struct merge_map *m, const roaring_bitmap_t *kept, roaring_bitmap_t *out)
{
    roaring_uint32_iterator_t at, from, to;
    roaring_init_iterator(kept, &at);
    roaring_init_iterator(m->from, &from);
    roaring_init_iterator(m->to, &to);
    while (at.has_value && from.has_value && to.has_value) {
        if (from.current_value == at.current_value) {
            roaring_bitmap_add(out, to.current_value);
            roaring_advance_uint32_iterator(&at);
        }
        roaring_advance_uint32_iterator(&from);
        roaring_advance_uint32_iterator(&to);
    }
}

roaring_bitmap_t *merge_map_rows(const struct merge_map *m, const roaring_bitmap_t *rows)
{
    roaring_bitmap_t *kept = roaring_bitmap_and(rows, m->from), *out = roaring_bitmap_create();
    if (!kept || !out) {
        if (kept)
            roaring_bitmap_free(kept);
        if (out)
            roaring_bitmap_free(out);
        return NULL;
    }
    uint64_t n = roaring_bitmap_get_cardinality(kept);
    if (n < roaring_bitmap_get_cardinality(m->from) / WALK_SHARE)
        look_up(m, kept, out);
    else
        walk(m, kept, out);
    roaring_bitmap_free(kept);
    return out;
}
