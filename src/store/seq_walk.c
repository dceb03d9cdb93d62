/* Walking rows in the order of their seq.
 *
 *   view 0  runs:  [ 1.0 .. 1.99 ][ 4.0 .. 4.9 ]           a cursor a view, on its next live row
 *   view 1         [ 2.0 .. 2.299999 ]
 *   view 2         [ 2.17 ][ 3.0 .. 3.99 ]
 *
 * The cursor with the smallest seq is followed until it passes the second smallest; only then are
 * all compared again. So what does not interleave costs nothing, and what does a look at each view.
 * Rows left out are stepped over 64 at a time, and by whole pages where nothing is hidden from
 * either snapshot or both share the page: a walk of what differs costs what differs.
 *
 * Threads: a walk belongs to one; other threads may commit meanwhile. The runs of a tail move when
 * they outgrow their list, so each is read inside an epoch section. Failure: only memory. */
#include "store/seq_walk.h"

#include "base/epoch.h"
#include "store/tail.h"

struct view_cursor {
    const struct view *view;
    const struct mask *hidden; /* rows left out; NULL = none */
    const struct view *except; /* the same segment there; NULL = it has none */
    uint32_t nruns;
    uint32_t run;     /* the one that `row` is in */
    uint32_t run_end; /* its first row no more, or the view's */
    struct seq run_seq;
    uint32_t run_first;
    uint32_t row;   /* walked; view->rows at the end */
    struct seq seq; /* of it */
};

struct seq_walk {
    const struct snapshot *snapshot;
    uint32_t current; /* cursor being followed */
    struct seq bound; /* of all other cursors: the least seq */
    struct view_cursor cursors[];
};

static const struct seq seq_end = {UINT64_MAX, UINT64_MAX};

/* ---- runs ---- */

static uint32_t count_runs(const struct segment *s)
{
    uint32_t n = s->nruns;
    if (!s->tail)
        return n;
    epoch_enter();
    (void)tail_runs(s->tail, &n);
    epoch_leave();
    return n;
}

static struct seq_run run_at(const struct segment *s, uint32_t i)
{
    struct seq_run run;
    uint32_t n;
    if (s->tail) {
        epoch_enter();
        run = tail_runs(s->tail, &n)[i];
        epoch_leave();
    } else {
        run = s->runs[i];
    }
    if (!run.version) {
        run.version = s->base_version;
        run.ordinal += s->base_ordinal;
    }
    return run;
}

static void enter_run(struct view_cursor *c, uint32_t i)
{
    const struct segment *s = c->view->segment;
    struct seq_run run = run_at(s, i);
    c->run = i;
    c->run_first = run.first_row;
    c->run_seq = (struct seq){run.version, run.ordinal};
    c->run_end = c->view->rows;
    if (i + 1 < c->nruns) {
        uint32_t next = run_at(s, i + 1).first_row;
        if (next < c->run_end)
            c->run_end = next;
    }
}

/* ---- cursors ---- */

static const struct mask_page *page_at(const struct mask *m, uint32_t row)
{
    uint32_t page = row / MASK_PAGE_BITS;
    return m && page < m->npages ? m->pages[page] : NULL;
}

static uint64_t word_at(const struct mask_page *p, uint32_t row)
{
    return p ? p->words[row % MASK_PAGE_BITS / 64] : 0;
}

/* Of rows [row & ~63, + 64): a bit set where the other snapshot has no live row. */
static uint64_t lacking(const struct view *other, uint32_t row)
{
    uint32_t first = row & ~63u;
    if (first >= other->rows)
        return UINT64_MAX;
    uint64_t dead = word_at(page_at(other->dead, row), row);
    uint32_t known = other->rows - first;
    return known < 64 ? dead | UINT64_MAX << known : dead;
}

/* The first row of the next page, or behind the rows that the other snapshot knows, when every row
 * up to there is live in both or in none; else `row`. */
static uint64_t skip_shared(const struct view_cursor *c, uint32_t row)
{
    if (row >= c->except->rows || page_at(c->hidden, row) != page_at(c->except->dead, row))
        return row;
    uint64_t next = ((uint64_t)row | (MASK_PAGE_BITS - 1)) + 1;
    return next < c->except->rows ? next : c->except->rows;
}

/* The first row from `row` on that is walked, or view->rows. */
static uint32_t next_live(const struct view_cursor *c, uint64_t row)
{
    const struct view *v = c->view;
    while (row < v->rows) {
        uint64_t next = c->except ? skip_shared(c, (uint32_t)row) : row;
        if (next != row) {
            row = next;
            continue;
        }
        const struct mask_page *page = page_at(c->hidden, (uint32_t)row);
        if (!page && !c->except)
            return (uint32_t)row;
        uint64_t shown = ~word_at(page, (uint32_t)row);
        if (c->except)
            shown &= lacking(c->except, (uint32_t)row);
        shown >>= row % 64;
        if (shown) {
            row += (uint64_t)__builtin_ctzll(shown);
            break;
        }
        row = (row | 63) + 1;
    }
    return row < v->rows ? (uint32_t)row : v->rows;
}

/* To the first row from `row` on that is walked; it is in this run or a later one. */
static void move_to(struct view_cursor *c, uint64_t row)
{
    c->row = next_live(c, row);
    if (c->row == c->view->rows) {
        c->seq = seq_end;
        return;
    }
    while (c->row >= c->run_end)
        enter_run(c, c->run + 1);
    c->seq = (struct seq){c->run_seq.version, c->run_seq.ordinal + (c->row - c->run_first)};
}

/* The last run that starts at or before `after`; false when there is none. */
static bool find_run(const struct view_cursor *c, struct seq after, uint32_t *out)
{
    uint32_t lo = 0, hi = c->nruns;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        struct seq_run run = run_at(c->view->segment, mid);
        if (seq_less(after, (struct seq){run.version, run.ordinal}))
            hi = mid;
        else
            lo = mid + 1;
    }
    *out = lo - 1;
    return lo > 0;
}

static const struct mask *hidden_rows(const struct snapshot *s, const struct view *v, bool history)
{
    return history && s->schema->event_time >= 0 ? v->gone : v->dead;
}

static const struct view *same_segment(const struct snapshot *s, const struct segment *g)
{
    for (uint32_t i = 0; s && i < s->nviews; i++)
        if (s->views[i].segment->id == g->id)
            return &s->views[i];
    return NULL;
}

static void start_cursor(struct view_cursor *c, const struct seq *after)
{
    uint32_t run;
    const struct view *v = c->view;
    c->row = v->rows;
    c->seq = seq_end;
    if (v->rows == 0 || (v->live == 0 && c->hidden == v->dead))
        return;
    c->nruns = count_runs(v->segment);
    bool behind = after && find_run(c, *after, &run);
    enter_run(c, behind ? run : 0);
    if (!behind) {
        move_to(c, 0);
        return;
    }
    uint64_t row = c->run_end;
    if (c->run_seq.version == after->version &&
        after->ordinal - c->run_seq.ordinal < c->run_end - c->run_first)
        row = c->run_first + (after->ordinal - c->run_seq.ordinal) + 1;
    move_to(c, row);
}

/* ---- merging ---- */

static void choose(struct seq_walk *w)
{
    struct seq least = seq_end;
    w->bound = seq_end;
    w->current = 0;
    for (uint32_t i = 0; i < w->snapshot->nviews; i++) {
        struct seq seq = w->cursors[i].seq;
        if (seq_less(seq, least)) {
            w->bound = least;
            least = seq;
            w->current = i;
        } else if (seq_less(seq, w->bound)) {
            w->bound = seq;
        }
    }
}

enum err seq_walk_open(const struct snapshot *s, const struct seq_walk_options *o,
                       const struct seq *after, struct seq_walk **out, struct err_ctx *ctx)
{
    size_t size = sizeof(struct seq_walk) + s->nviews * sizeof(struct view_cursor);
    struct seq_walk *w = malloc(size);
    if (!w)
        return err_no_memory(ctx, size);
    w->snapshot = s;
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        w->cursors[i] = (struct view_cursor){.view = v,
                                             .hidden = hidden_rows(s, v, o->history),
                                             .except = same_segment(o->except, v->segment)};
        start_cursor(&w->cursors[i], after);
    }
    choose(w);
    *out = w;
    return ERR_OK;
}

enum err seq_walk_new(const struct snapshot *s, const struct seq *after, struct seq_walk **out,
                      struct err_ctx *ctx)
{
    return seq_walk_open(s, &(struct seq_walk_options){0}, after, out, ctx);
}

bool seq_walk_next(struct seq_walk *w, struct row_ref *row, struct seq *seq)
{
    if (w->snapshot->nviews == 0)
        return false;
    struct view_cursor *c = &w->cursors[w->current];
    if (seq_less(w->bound, c->seq)) {
        choose(w);
        c = &w->cursors[w->current];
    }
    if (c->row == c->view->rows)
        return false;
    *row = (struct row_ref){.view = w->current, .row = c->row};
    *seq = c->seq;
    move_to(c, (uint64_t)c->row + 1);
    return true;
}

void seq_walk_free(struct seq_walk *w)
{
    free(w);
}
