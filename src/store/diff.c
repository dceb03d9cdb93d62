/* Diffs.
 *
 *   walk of `side` without what `other` has in the same place   1.4  2.0  2.1  7.0
 *   walk of `other` without what `side` has in the same place   1.4       2.1
 *                                                               same      same    -> 2.0, 7.0
 *
 * Both walks are in the order of seq, so that rows which only moved (a compaction wrote them into
 * another segment) meet and drop out without a look at their keys. Each row that is left is looked
 * up by key on the other side.
 *
 * Threads: one at a time. Failure: only memory. */
#include "store/diff.h"

#include "store/seq_walk.h"

enum { STEPS_MAX = 16384 };

struct diff {
    const struct snapshot *side, *other;
    unsigned ops;
    struct seq_walk *mine, *theirs;
    struct seq their_seq; /* where `theirs` stands */
    bool their_end;
};

static void step_theirs(struct diff *d)
{
    struct row_ref row;
    d->their_end = !seq_walk_next(d->theirs, &row, &d->their_seq);
}

enum err diff_new(const struct snapshot *from, const struct snapshot *to, unsigned ops,
                  struct diff **out, struct err_ctx *ctx)
{
    bool removed = ops & DIFF_REMOVED;
    ASSERT(!removed || ops == DIFF_REMOVED);
    struct diff *d = calloc(1, sizeof *d);
    if (!d)
        return err_no_memory(ctx, sizeof *d);
    d->side = removed ? from : to;
    d->other = removed ? to : from;
    d->ops = ops;
    struct seq_walk_options mine = {.except = d->other}, theirs = {.except = d->side};
    enum err e = seq_walk_open(d->side, &mine, NULL, &d->mine, ctx);
    if (e == ERR_OK)
        e = seq_walk_open(d->other, &theirs, NULL, &d->theirs, ctx);
    if (e != ERR_OK) {
        diff_free(d);
        return e;
    }
    step_theirs(d);
    *out = d;
    return ERR_OK;
}

/* True when the other side has the very row elsewhere. */
static bool moved(struct diff *d, struct seq seq)
{
    while (!d->their_end && seq_less(d->their_seq, seq))
        step_theirs(d);
    return !d->their_end && !seq_less(seq, d->their_seq);
}

static bool other_has_key(const struct diff *d, struct row_ref row)
{
    const struct segment *g = d->side->views[row.view].segment;
    struct row_ref found;
    size_t len;
    if (d->side->schema->key == KEY_INT64)
        return snapshot_find_int(d->other, segment_key_int(g, row.row), &found);
    const void *key = segment_key_str(g, row.row, &len);
    return snapshot_find_str(d->other, key, len, &found);
}

static enum diff_op op_of(const struct diff *d, struct row_ref row)
{
    bool there = other_has_key(d, row);
    if (d->ops == DIFF_REMOVED)
        return there ? DIFF_UPDATED : DIFF_REMOVED;
    return there ? DIFF_UPDATED : DIFF_ADDED;
}

enum diff_step diff_next(struct diff *d, enum diff_op *op, struct row_ref *row)
{
    struct seq seq;
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        if (!seq_walk_next(d->mine, row, &seq))
            return DIFF_END;
        if (moved(d, seq))
            continue;
        *op = op_of(d, *row);
        if (*op & d->ops)
            return DIFF_ROW;
    }
    return DIFF_PAUSE;
}

void diff_free(struct diff *d)
{
    if (!d)
        return;
    seq_walk_free(d->mine);
    seq_walk_free(d->theirs);
    free(d);
}
