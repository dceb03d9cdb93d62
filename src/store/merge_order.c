/* Ordering the rows of a merge.
 *
 * A cursor an input stands on its next kept row. The one with the least seq is followed as far as
 * its run, its kept rows and the second least seq allow: that is a piece. So inputs that don't
 * interleave cost a piece a run, and every other change of input a look at each cursor.
 *
 * Invariant: within an input rows rise with seq, so that both sides of a map rise. Threads: one.
 * Failure: only memory. */
#include "store/merge_order.h"

#include "store/seq_walk.h"

struct input_cursor {
    const struct merge_input *in;
    uint32_t run;     /* the one that `row` is in */
    uint32_t run_end; /* its first row no more, or in->rows */
    uint32_t row;     /* kept; in->rows at the end */
    struct seq seq;   /* of it */
};

static const struct seq seq_end = {UINT64_MAX, UINT64_MAX};

/* The first row in [row, rows) whose bit in `m` is `bit`, or rows. */
static uint32_t next_bit(const struct mask *m, uint64_t row, uint32_t rows, bool bit)
{
    while (row < rows) {
        uint64_t page = row / MASK_PAGE_BITS;
        if (!m || page >= m->npages || !m->pages[page]) {
            if (!bit)
                return (uint32_t)row;
            row = m && page < m->npages ? (page + 1) * MASK_PAGE_BITS : rows;
            continue;
        }
        uint64_t word = m->pages[page]->words[row % MASK_PAGE_BITS / 64];
        word = (bit ? word : ~word) >> row % 64;
        if (word) {
            row += (uint64_t)__builtin_ctzll(word);
            break;
        }
        row = (row | 63) + 1;
    }
    return row < rows ? (uint32_t)row : rows;
}

static struct seq run_seq(const struct merge_input *in, uint32_t i)
{
    const struct seq_run *r = &in->segment->runs[i];
    if (r->version)
        return (struct seq){r->version, r->ordinal};
    return (struct seq){in->base_version, in->base_ordinal + r->ordinal};
}

static void enter_run(struct input_cursor *c, uint32_t i)
{
    const struct segment *s = c->in->segment;
    c->run = i;
    c->run_end = c->in->rows;
    if (i + 1 < s->nruns && s->runs[i + 1].first_row < c->run_end)
        c->run_end = s->runs[i + 1].first_row;
}

/* To the first kept row from `row` on, which is in this run or a later one. */
static void move_to(struct input_cursor *c, uint32_t row)
{
    c->row = next_bit(c->in->drop, row, c->in->rows, false);
    if (c->row == c->in->rows) {
        c->seq = seq_end;
        return;
    }
    while (c->row >= c->run_end)
        enter_run(c, c->run + 1);
    c->seq = run_seq(c->in, c->run);
    c->seq.ordinal += c->row - c->in->segment->runs[c->run].first_row;
}

static void start_cursor(struct input_cursor *c, const struct merge_input *in)
{
    ASSERT(!in->segment->tail && in->rows <= in->segment->rows);
    *c = (struct input_cursor){.in = in, .row = in->rows, .seq = seq_end};
    if (in->rows == 0)
        return;
    enter_run(c, 0);
    move_to(c, 0);
}

/* The cursor with the least seq; *bound is the least of the others. */
static size_t choose(const struct input_cursor *cursors, size_t n, struct seq *bound)
{
    size_t current = 0;
    struct seq least = cursors[0].seq;
    *bound = seq_end;
    for (size_t i = 1; i < n; i++) {
        struct seq seq = cursors[i].seq;
        if (seq_less(seq, least)) {
            *bound = least;
            least = seq;
            current = i;
        } else if (seq_less(seq, *bound)) {
            *bound = seq;
        }
    }
    return current;
}

/* How many rows from the cursor's on come before `bound`, in one go. */
static uint32_t piece_length(const struct input_cursor *c, struct seq bound)
{
    uint32_t n = next_bit(c->in->drop, c->row, c->run_end, true) - c->row;
    if (bound.version != c->seq.version)
        return n;
    uint64_t before = bound.ordinal - c->seq.ordinal;
    if (before == 0) /* the same seq twice */
        before = 1;
    return before < n ? (uint32_t)before : n;
}

static void put_run(struct merge_order *o, struct seq seq)
{
    const struct seq_run *last =
        o->runs.len ? (const struct seq_run *)(o->runs.data + o->runs.len) - 1 : NULL;
    if (last && last->version == seq.version &&
        last->ordinal + (o->rows - last->first_row) == seq.ordinal)
        return;
    struct seq_run run = {.first_row = o->rows, .version = seq.version, .ordinal = seq.ordinal};
    buf_put(&o->runs, &run, sizeof run);
}

static void put_piece(struct merge_order *o, struct merge_map *map, size_t input,
                      const struct input_cursor *c, uint32_t n)
{
    const struct merge_piece *last =
        o->pieces.len ? (const struct merge_piece *)(o->pieces.data + o->pieces.len) - 1 : NULL;
    put_run(o, c->seq);
    roaring_bitmap_add_range(map->from, c->row, (uint64_t)c->row + n);
    roaring_bitmap_add_range(map->to, o->rows, (uint64_t)o->rows + n);
    if (!last || last->input != input || last->row + (o->rows - last->first) != c->row) {
        struct merge_piece p = {.input = (uint32_t)input, .row = c->row, .first = o->rows};
        buf_put(&o->pieces, &p, sizeof p);
    }
    o->rows += n;
}

static enum err new_maps(struct merge_map *maps, size_t n, struct err_ctx *ctx)
{
    for (size_t i = 0; i < n; i++) {
        maps[i].from = roaring_bitmap_create();
        maps[i].to = roaring_bitmap_create();
        if (!maps[i].from || !maps[i].to)
            return err_no_memory(ctx, sizeof maps[i]);
    }
    return ERR_OK;
}

static enum err order_rows(struct merge_order *o, struct input_cursor *cursors, size_t n,
                           struct merge_map *maps, struct err_ctx *ctx)
{
    struct seq bound;
    for (size_t i = choose(cursors, n, &bound); cursors[i].row < cursors[i].in->rows;) {
        struct input_cursor *c = &cursors[i];
        uint32_t length = piece_length(c, bound);
        put_piece(o, &maps[i], i, c, length);
        if (o->pieces.failed || o->runs.failed)
            return err_no_memory(ctx, o->pieces.len);
        move_to(c, c->row + length);
        if (!seq_less(c->seq, bound))
            i = choose(cursors, n, &bound);
    }
    for (size_t i = 0; i < n; i++) {
        roaring_bitmap_run_optimize(maps[i].from);
        roaring_bitmap_run_optimize(maps[i].to);
    }
    return ERR_OK;
}

enum err merge_order_make(const struct merge_input *in, size_t n, struct merge_order *out,
                          struct merge_map *maps, struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    RETURN_NOT_OK(new_maps(maps, n, ctx));
    if (n == 0)
        return ERR_OK;
    struct input_cursor *cursors = malloc(n * sizeof *cursors);
    if (!cursors)
        return err_no_memory(ctx, n * sizeof *cursors);
    for (size_t i = 0; i < n; i++)
        start_cursor(&cursors[i], &in[i]);
    enum err e = order_rows(out, cursors, n, maps, ctx);
    free(cursors);
    if (e != ERR_OK)
        merge_order_deinit(out);
    return e;
}

void merge_order_deinit(struct merge_order *o)
{
    buf_deinit(&o->pieces);
    buf_deinit(&o->runs);
}
