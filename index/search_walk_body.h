/* The loops of a walk, written once: each search_walk_<isa>.c defines the operations below and
 * includes this file, so that distances and pool are compiled into the loops.
 *
 *   ISA                       attribute of every function (the target)
 *   CODE_L2_4, CODE_DOT_4     the kernels on codes of kernels.h, inline
 *   NEAR(keys, bound)         bits of the first WALK_VECTOR keys that are below the bound
 *   OPEN(nodes)               bits of the first WALK_VECTOR nodes without WALK_DONE
 *   POOL_POSITION(keys, n, key)      how many of n keys, in order, are at most `key`
 *   POOL_INSERT(keys, nodes, at, n, key, node)   moves [at, n) one up and fills the gap
 *   LOOPS                     the name of the struct walk_loops to define
 *
 * A walk takes two turns for each node: it lists the node's unvisited neighbours, whose codes are
 * then fetched; it measures them, takes the near ones into the pool and fetches their links.
 * Between the two others of the same thread have theirs, while the memory comes. */

#define BODY ISA static inline __attribute__((always_inline))

/* ---- distances ---- */

/* A long code is measured in two parts: most sums of squares pass the bound in the first. */
BODY size_t body_head(const struct walk *w, enum walk_measure m)
{
    return m == WALK_CODE_L2 && w->stride >= LONG_CODE ? w->head : w->stride;
}

BODY void body_prefetch(const struct walk *w, uint32_t node, enum walk_measure m)
{
    if (m == WALK_VECTORS)
        walk_prefetch_vector(w, node);
    else
        walk_prefetch(w->codes + node * w->stride, body_head(w, m));
}

BODY void body_measure_four(const struct walk *w, const uint32_t list[4], int32_t out[4],
                            enum walk_measure m)
{
    if (m == WALK_VECTORS) {
        walk_measure_vectors(w, list, out);
        return;
    }
    const uint8_t *c[4];
    for (int i = 0; i < 4; i++)
        c[i] = w->codes + list[i] * w->stride;
    if (m == WALK_CODE_L2) {
        CODE_L2_4(w->query_code, c, body_head(w, m), out);
        return;
    }
    CODE_DOT_4((const int8_t *)w->query_code, c, w->stride, out);
    for (int i = 0; i < 4; i++)
        out[i] = (int32_t)(0u - (uint32_t)out[i]);
}

BODY int32_t body_bound(const struct walk *w)
{
    return w->npool == w->ef ? w->keys[w->ef - 1] : WALK_FAR;
}

/* The second part, of four places of the list at a time. */
BODY void body_measure_tails(struct walk *w, const uint32_t *places, uint32_t n)
{
    size_t head = w->head;
    for (uint32_t i = 0; i < n; i += 4) {
        const uint8_t *c[4];
        int32_t sums[4];
        for (uint32_t r = 0; r < 4; r++)
            c[r] = w->codes + w->list[places[i + r < n ? i + r : i]] * w->stride + head;
        CODE_L2_4(w->query_code + head, c, w->stride - head, sums);
        for (uint32_t r = 0; r < 4 && i + r < n; r++)
            w->measured[places[i + r]] =
                (int32_t)((uint32_t)w->measured[places[i + r]] + (uint32_t)sums[r]);
    }
}

/* Of what is below the bound in the first part. */
BODY void body_finish_long(struct walk *w)
{
    int32_t bound = w->layer > 0 ? w->best : body_bound(w);
    uint32_t places[WALK_VECTOR];
    for (uint32_t i = 0; i < w->nlist; i += WALK_VECTOR) {
        uint32_t left = w->nlist - i, near = NEAR(w->measured + i, bound), n = 0;
        near &= left < WALK_VECTOR ? (1u << left) - 1 : UINT32_MAX;
        for (; near; near &= near - 1) {
            places[n] = i + (uint32_t)__builtin_ctz(near);
            walk_prefetch(w->codes + w->list[places[n]] * w->stride + w->head, w->stride - w->head);
            n++;
        }
        body_measure_tails(w, places, n);
    }
}

/* Fetches the codes of list[from, to). */
BODY void body_fetch(const struct walk *w, uint32_t from, uint32_t to, enum walk_measure m)
{
    for (uint32_t i = from; i < to && i < w->nlist; i++)
        body_prefetch(w, w->list[i], m);
}

/* Keys of what is listed; the list has room for three more. In between, what walk `next` has listed
 * is fetched: all at once, it would hold up the processor, which has only so many requests. */
BODY void body_measure(struct walk *w, const struct walk *next, enum walk_measure m)
{
    uint32_t n = w->nlist;
    for (uint32_t i = n; i % 4; i++)
        w->list[i] = w->list[n - 1];
    for (uint32_t i = 0; i < n; i += 4) {
        if (next)
            body_fetch(next, i, i + 4, m);
        body_measure_four(w, w->list + i, w->measured + i, m);
    }
    w->measured_n += n;
    if (next)
        body_fetch(next, (n + 3) / 4 * 4, next->nlist, m);
    if (body_head(w, m) < w->stride)
        body_finish_long(w);
}

/* ---- pool ---- */

BODY void body_insert(struct walk *w, int32_t key, uint32_t node)
{
    uint32_t at = POOL_POSITION(w->keys, w->npool, key);
    w->npool += w->npool < w->ef;
    POOL_INSERT(w->keys, w->nodes, at, w->npool - 1, key, node);
    w->cursor = at < w->cursor ? at : w->cursor;
}

BODY void body_admit(struct walk *w, int32_t key, uint32_t node, bool plain)
{
    size_t lines = w->links * sizeof(uint32_t);
    walk_prefetch(w->a->links + (size_t)node * w->links,
                  lines < 64 * LINK_LINES_MAX ? lines : 64 * LINK_LINES_MAX);
    if (plain || walk_node_returned(w, node))
        body_insert(w, key, node);
    else if (!walk_detour_push(w, key, node))
        w->no_memory = true;
}

/* ---- turns on the bottom layer ---- */

/* Moves the cursor to the nearest node of the pool that waits for expansion. */
BODY void body_seek(struct walk *w)
{
    uint32_t from = w->cursor / WALK_VECTOR * WALK_VECTOR, skip = w->cursor % WALK_VECTOR;
    uint32_t at = w->npool;
    for (; from < w->npool; from += WALK_VECTOR, skip = 0) {
        uint32_t open = OPEN(w->nodes + from) >> skip << skip;
        if (open) {
            at = from + (uint32_t)__builtin_ctz(open);
            break;
        }
    }
    w->cursor = at < w->npool ? at : w->npool;
}

/* Next node to expand: the nearest of pool and detour. ANN_NONE: the walk is over. */
BODY uint32_t body_next(struct walk *w, bool plain)
{
    body_seek(w);
    if (!plain && w->ndetour > 0) {
        int32_t in_pool = w->cursor < w->npool ? w->keys[w->cursor] : body_bound(w);
        if (walk_detour_key(w) < in_pool)
            return walk_detour_pop(w);
    }
    if (w->cursor == w->npool)
        return ANN_NONE;
    uint32_t node = w->nodes[w->cursor];
    w->nodes[w->cursor++] = node | WALK_DONE;
    return node;
}

/* A node out of range ends a list: links come from a file and are not trusted. */
BODY void body_list(struct walk *w, bool plain)
{
    uint32_t node = walk_gives_up(w) || w->no_memory ? ANN_NONE : body_next(w, plain);
    if (node == ANN_NONE) {
        w->state = WALK_SHOW;
        walk_prefetch_best(w);
        return;
    }
    const uint32_t *links = w->a->links + (size_t)node * w->links;
    uint32_t n = 0, nodes = w->a->shape.nodes, nlinks = w->links, *list = w->list;
    for (uint32_t i = 0; i < nlinks && links[i] < nodes; i++) {
        list[n] = links[i];
        n += walk_visit(w, links[i]);
    }
    walk_touch(w, list, n);
    w->nlist = n;
}

/* Of those listed that admit will ask the filter about. */
ISA static void body_prefetch_features(const struct walk *w)
{
    int32_t bound = body_bound(w);
    for (uint32_t i = 0; i < w->nlist; i++) {
        if (w->measured[i] < bound)
            segment_prefetch_row(w->view->segment, ann_row(w->a, w->list[i]));
    }
}

BODY void body_take(struct walk *w, bool plain)
{
    if (!plain && allowed_looks(&w->allowed))
        body_prefetch_features(w);
    for (uint32_t i = 0; i < w->nlist; i += WALK_VECTOR) {
        uint32_t left = w->nlist - i, near = NEAR(w->measured + i, body_bound(w));
        near &= left < WALK_VECTOR ? (1u << left) - 1 : UINT32_MAX;
        for (; near; near &= near - 1) {
            uint32_t at = i + (uint32_t)__builtin_ctz(near);
            if (w->measured[at] < body_bound(w))
                body_admit(w, w->measured[at], w->list[at], plain);
        }
    }
}

/* ---- descent ---- */

BODY void body_enter(struct walk *w, bool plain)
{
    walk_forget(w);
    if (w->query->unknown)
        walk_hide_excluded(w);
    walk_visit(w, w->node);
    walk_touch(w, &w->node, 1);
    body_admit(w, w->best, w->node, plain);
}

/* Lists the neighbours of a node on its upper layer; one measured before is not nearer. */
BODY void body_list_upper(struct walk *w)
{
    const uint32_t *links = ann_upper_links(w->a, w->node, w->layer);
    uint32_t n = 0;
    for (uint32_t i = 0; links && i < w->a->shape.m && links[i] < w->a->shape.nodes; i++) {
        w->list[n] = links[i];
        n += walk_visit(w, links[i]);
    }
    walk_touch(w, w->list, n);
    w->nlist = n;
}

/* Greedy: every step gets strictly nearer, so it ends. */
BODY void body_step_down(struct walk *w, bool plain)
{
    bool nearer = false;
    for (uint32_t i = 0; i < w->nlist; i++) {
        if (w->measured[i] < w->best) {
            w->best = w->measured[i];
            w->node = w->list[i];
            nearer = true;
        }
    }
    w->layer -= !nearer;
    if (w->layer == 0)
        body_enter(w, plain);
}

BODY void body_start(struct walk *w, enum walk_measure m, bool plain)
{
    w->node = w->list[0] = w->a->entry;
    w->nlist = 1;
    w->layer = 1;
    w->best = WALK_FAR;
    body_measure(w, NULL, m);
    w->best = w->measured[0] < WALK_FAR ? w->measured[0] : WALK_FAR - 1;
    w->nlist = 0;
    w->layer = w->a->layers - 1;
    w->state = WALK_LIST;
    if (w->layer == 0)
        body_enter(w, plain);
}

/* ---- lanes ---- */

BODY void body_begin(struct walk_feed *f, struct walk *w, enum walk_measure m, bool plain)
{
    w->state = WALK_OVER;
    w->nlist = 0;
    if (f->start(f, w))
        body_start(w, m, plain);
}

/* What is listed is measured in the walk's next turn. */
BODY void body_turn_list(struct walk_feed *f, struct walk *w, enum walk_measure m, bool plain)
{
    if (w->state == WALK_SHOW) {
        f->finish(f, w);
        body_begin(f, w, m, plain);
    } else if (w->state == WALK_LIST) {
        w->state = WALK_MEASURE;
        if (w->layer > 0)
            body_list_upper(w);
        else
            body_list(w, plain);
    }
}

BODY void body_turn_measure(struct walk *w, const struct walk *next, enum walk_measure m,
                            bool plain)
{
    body_measure(w, next, m);
    if (w->state != WALK_MEASURE)
        return;
    w->state = WALK_LIST;
    if (w->layer > 0)
        body_step_down(w, plain);
    else
        body_take(w, plain);
    w->nlist = 0;
}

/* One alone measures what it has just fetched. Of several, the one measured is the one listed
 * longest ago, and what was listed last is fetched meanwhile. */
BODY void body_run(struct walk *lanes, size_t n, struct walk_feed *f, enum walk_measure m,
                   bool plain)
{
    size_t over = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        body_begin(f, &lanes[i], m, plain);
    while (over < n) {
        struct walk *w = &lanes[at];
        at = at + 1 < n ? at + 1 : 0;
        body_turn_list(f, w, m, plain);
        over = w->state == WALK_OVER ? over + 1 : 0;
        if (n == 1)
            body_fetch(w, 0, w->nlist, m);
        body_turn_measure(&lanes[at], n > 1 ? w : NULL, m, plain);
    }
}

#define BODY_RUN(NAME, MEASURE, PLAIN)                                                             \
    ISA static void NAME(struct walk *lanes, size_t n, struct walk_feed *f)                        \
    {                                                                                              \
        body_run(lanes, n, f, MEASURE, PLAIN);                                                     \
    }
BODY_RUN(run_vectors, WALK_VECTORS, false)
BODY_RUN(run_l2, WALK_CODE_L2, false)
BODY_RUN(run_dot, WALK_CODE_DOT, false)
BODY_RUN(run_l2_plain, WALK_CODE_L2, true)
BODY_RUN(run_dot_plain, WALK_CODE_DOT, true)

const struct walk_loops LOOPS = {.plain = {run_vectors, run_l2_plain, run_dot_plain},
                                 .masked = {run_vectors, run_l2, run_dot}};
