/* The rows of a snapshot in the order of their seq, from any seq on: the live ones, with history
 * those too that are current no more, or only those that another snapshot does not have in the same
 * place.
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

static inline bool seq_less(struct seq a, struct seq b)
{
    return a.version < b.version || (a.version == b.version && a.ordinal < b.ordinal);
}

struct seq_walk;

struct seq_walk_options {
    bool history; /* rows that a later event replaced, too */
    /* Leaves out the rows that are live in the same row of the same segment here. What is left is a
     * row that this snapshot lacks, or has in another segment since a compaction. Borrowed. */
    const struct snapshot *except;
};

/* Starts behind `after`; NULL = at the first row. The snapshot is borrowed. One thread. */
WARN_UNUSED enum err seq_walk_open(const struct snapshot *s, const struct seq_walk_options *o,
                                   const struct seq *after, struct seq_walk **out,
                                   struct err_ctx *ctx);
WARN_UNUSED enum err seq_walk_new(const struct snapshot *s, const struct seq *after,
                                  struct seq_walk **out, struct err_ctx *ctx);
/* False at the end. */
bool seq_walk_next(struct seq_walk *w, struct row_ref *row, struct seq *seq);
void seq_walk_free(struct seq_walk *w); /* NULL is allowed */

#endif
