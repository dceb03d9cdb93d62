/* The live rows of a snapshot in the order of their seq, from any seq on.
 *
 * Every segment is sorted by seq, but segments interleave: a large load's rows lie in one file,
 * those of the commits before and after it in another. The walk merges the views. */
#ifndef LOADSTONE_STORE_SEQ_WALK_H
#define LOADSTONE_STORE_SEQ_WALK_H

#include "store/snapshot.h"

struct seq {
    uint64_t version; /* of the commit */
    uint64_t ordinal; /* in it */
};

struct seq_walk;

/* Starts behind `after`; NULL = at the first row. The snapshot is borrowed. One thread. */
WARN_UNUSED enum err seq_walk_new(const struct snapshot *s, const struct seq *after,
                                  struct seq_walk **out, struct err_ctx *ctx);
/* False at the end. */
bool seq_walk_next(struct seq_walk *w, struct row_ref *row, struct seq *seq);
void seq_walk_free(struct seq_walk *w); /* NULL is allowed */

#endif
