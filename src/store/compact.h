/* What the files of compaction share: compact_pick.c (which segments), compact.c (merging them),
 * compact_swap.c (the merged one takes their place). */
#ifndef LOADSTONE_STORE_COMPACT_H
#define LOADSTONE_STORE_COMPACT_H

#include "store/merge.h"
#include "store/snapshot.h"

struct collection;

enum {
    COMPACT_INPUTS_MAX = 64,
    COMPACT_FANOUT = 4, /* so many of one tier become one of the next */
};
/* Of the lowest tier; each next one is four times that. */
#define COMPACT_TIER_BYTES ((uint64_t)1 << 20)
#define COMPACT_BYTES_MAX ((uint64_t)4 << 30) /* of what a merge writes */

/* The rows of a view that no later version can show: dead ones, but for history. */
static inline const struct mask *view_dropped(const struct snapshot *s, const struct view *v)
{
    return s->schema->event_time >= 0 ? v->gone : v->dead;
}

enum compact_mode {
    COMPACT_DUE, /* what the tiers ask for */
    COMPACT_ALL, /* whatever makes segments fewer or drops rows */
};
/* Picks views of `s` to be merged into one segment of at most `bytes_max`, in the order of their
 * views; segments from id `before` on, which came since, are left alone. Returns how many; 0 =
 * nothing to do. `views` holds COMPACT_INPUTS_MAX. */
size_t compact_pick(const struct snapshot *s, enum compact_mode mode, uint64_t bytes_max,
                    uint64_t before, uint32_t *views);

/* A merge and what it was made of. */
struct compaction {
    struct snapshot *base; /* the inputs are views of it; referenced */
    size_t n;
    uint32_t views[COMPACT_INPUTS_MAX];
    struct merge_input inputs[COMPACT_INPUTS_MAX];
    struct merge_output out;
};

/* The merged segment, placed in segments/, replaces its inputs in the newest version; durable when
 * it returns. Rows that died meanwhile are dead in it. ERR_CONFLICT when that can't be: a row that
 * the merge left out lives again, or no input is left. */
WARN_UNUSED enum err compact_swap(struct collection *c, struct compaction *job,
                                  struct err_ctx *ctx);

#endif
