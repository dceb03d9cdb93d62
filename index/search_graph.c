/* Graph search of one view: best-first walk over the HNSW graph of its segment, for each query.
 * (Yu. Malkov, D. Yashunin, "Efficient and robust approximate nearest neighbor search using
 * Hierarchical Navigable Small World graphs", 2016; algorithms 2 and 5.)
 *
 *   upper layers: greedy descent to an entry near the query
 *   bottom layer: expand the nearest node not expanded yet, until none is nearer than the worst
 *                 of the pool
 *
 *   node:    the rows that share a vector; alive as long as one of them is, and matches the filter
 *   pool:    the ef nearest live nodes so far, nearest first, in two flat arrays
 *   detour:  min-heap of dead nodes on the way: walked through, never returned. The pool holds only
 *            live nodes, so deletions and filters lengthen the walk and never shorten the result
 *
 * A walk that has measured half as many nodes as there are vectors, or with a filter what a scan of
 * the matching rows costs, gives up: from there a scan is cheaper. So does one that runs out of
 * nodes before its pool is full: it is caught in a part of the graph that no link leaves, or fewer
 * rows match. For inner product so does one that walks through many more dead nodes than the share
 * of the live ones explains: links lead to long vectors, and hardly to what is left without them.
 *
 * With codes (codes.h) in the file, all of this runs on distances between codes, whole numbers; the
 * rows of the best nodes of the pool are then measured by their vectors, and only that decides. A
 * query far outside of the range of the codes walks on vectors.
 * Rejected: one pool for live and dead nodes, cut to the live ones at the end: a query in the midst
 * of deleted rows fills it with them and returns far rows.
 *
 * Links come from a file and are not trusted: a node out of range ends a list. Neighbours are
 * prefetched as they are listed, measured four at a time, in loops compiled for each instruction
 * set (search_walk_body.h).
 *
 * A walk mostly waits for memory. So several queries take turns in WALK_LANES lanes where the codes
 * exceed the caches; the next query takes the lane of one that is done. What a query finds does not
 * depend on its company.
 *
 * Threads: per call, on the caller's scratch. Failure: no memory for the scratch. */
#include "index/search_walk.h"

enum {
    LANES_BYTES = 8 << 20, /* of what is measured, beyond which walks take turns */
    RERANK_ROWS = 128,     /* measured at once */
    RERANK_PART = 4,       /* of the pool is measured again at least: a 4th */
    MEASURE_MORE = 4       /* nodes beyond k rows whose order float may have got wrong */
};

/* The queries of a group, and where their walks stand. */
struct graph_run {
    struct walk_feed feed; /* first: the loops know only this */
    const struct snapshot *snapshot;
    const struct view_plan *plan;
    struct collect *queries;
    size_t n, next;
    bool *enough;
    struct search_scratch *scratch;
    const uint8_t *codes; /* of the queries, `stride` bytes each */
    const bool *coded;    /* whether a query has one that says something */
    size_t stride;
    bool on_codes; /* the queries that walk: those with a code, or those without */
    bool all_returned;
    bool no_memory;
};

bool graph_pays(const struct view *v, const struct ann_file *a, uint32_t ef)
{
    return view_walkable(v) && ef < (a->shape.nodes + a->shape.twins) / 4;
}

/* ---- the rows of the pool ---- */

static uint32_t rows_of_node(const struct walk *w, uint32_t node)
{
    uint32_t n, rows = walk_row_returned(w, ann_row(w->a, node));
    const uint32_t *twins = ann_twins(w->a, node, &n);
    for (uint32_t i = 0; i < n; i++)
        rows += walk_row_returned(w, twins[i]);
    return rows;
}

/* Shows the rows of a node to the query and returns how many. The twins tie and come in the order
 * of their keys: of those, k are enough. */
static uint32_t show_node(const struct walk *w, uint32_t node, struct collect *query)
{
    uint32_t n, shown = 0, row = ann_row(w->a, node);
    const uint32_t *twins = ann_twins(w->a, node, &n);
    for (uint32_t i = 0; i < n && shown < query->k; i++) {
        if (walk_row_returned(w, twins[i])) {
            collect_measure(query, (struct row_ref){w->view_index, twins[i]});
            shown++;
        }
    }
    if (!walk_row_returned(w, row))
        return shown;
    collect_measure(query, (struct row_ref){w->view_index, row});
    return shown + 1;
}

/* Whether the pool is full or holds all rows that there are. */
static bool pool_enough(const struct walk *w)
{
    if (walk_gives_up(w))
        return false;
    if (w->npool == w->ef)
        return true;
    if (w->allowed.filter) /* how many match is not known */
        return false;
    const struct row_ref *left_out = &w->query->exclude;
    uint32_t rows = left_out->view == w->view_index && view_live(w->view, left_out->row);
    for (uint32_t i = 0; i < w->npool; i++)
        rows += rows_of_node(w, w->nodes[i] & ~WALK_DONE);
    return rows >= view_vectors(w->view);
}

/* The k nearest rows, and some nodes more. */
static void show_pool(const struct walk *w)
{
    struct collect *query = w->query;
    uint32_t more = query->k / 8 + MEASURE_MORE;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < w->npool && more > 0; i++) {
        more -= rows >= query->k;
        rows += show_node(w, w->nodes[i] & ~WALK_DONE, query);
    }
}

/* ---- the rows of the best by code ---- */

struct rerank {
    const struct walk *walk;
    struct collect *query;
    uint32_t *rows;
    const float **vectors;
    uint32_t n;
};

static void rerank_flush(struct rerank *r, const struct snapshot *s)
{
    if (r->n > 0)
        exact_show(s, r->walk->view_index, r->rows, r->vectors, r->n, r->query);
    r->n = 0;
}

static void rerank_row(struct rerank *r, const struct snapshot *s, uint32_t row)
{
    const struct walk *w = r->walk;
    if (r->n == RERANK_ROWS)
        rerank_flush(r, s);
    r->rows[r->n] = row;
    r->vectors[r->n++] = w->vectors + (size_t)row * w->dim;
}

/* As show_node. */
static void rerank_node(struct rerank *r, const struct snapshot *s, uint32_t node)
{
    const struct walk *w = r->walk;
    uint32_t n, shown = 0, row = ann_row(w->a, node);
    const uint32_t *twins = ann_twins(w->a, node, &n);
    for (uint32_t i = 0; i < n && shown < r->query->k; i++) {
        if (walk_row_returned(w, twins[i])) {
            rerank_row(r, s, twins[i]);
            shown++;
        }
    }
    if (walk_row_returned(w, row))
        rerank_row(r, s, row);
}

/* How many nodes of the pool are measured again: as many as the codes need for k, or a part of the
 * pool when more effort is asked for, and all that the codes can't tell from the last of them. */
static uint32_t rerank_nodes(const struct walk *w)
{
    uint64_t n = code_rerank(&w->a->scale, w->query->k);
    n = n > w->ef / RERANK_PART ? n : w->ef / RERANK_PART;
    n = n < w->npool ? n : w->npool;
    while (n > 0 && n < w->npool && w->keys[n] == w->keys[n - 1])
        n++;
    return (uint32_t)n;
}

void walk_prefetch_best(const struct walk *w)
{
    uint32_t n = w->codes ? rerank_nodes(w) : 0;
    for (uint32_t i = 0; i < n; i++)
        walk_prefetch_vector(w, w->nodes[i] & ~WALK_DONE);
}

/* Shows the rows of the nodes that may be among the k nearest, by their vectors. */
static bool rerank_pool(const struct walk *w, const struct snapshot *s,
                        struct search_scratch *scratch)
{
    struct collect *query = w->query;
    uint32_t n = rerank_nodes(w);
    struct rerank r = {.walk = w,
                       .query = query,
                       .rows = scratch_room(&scratch->rows, RERANK_ROWS, sizeof(uint32_t)),
                       .vectors = scratch_room(&scratch->pointers, RERANK_ROWS, sizeof(float *))};
    if (!r.rows || !r.vectors)
        return false;
    for (uint32_t i = 0; i < n; i++)
        rerank_node(&r, s, w->nodes[i] & ~WALK_DONE);
    rerank_flush(&r, s);
    return true;
}

/* ---- lanes ---- */

static inline size_t in_vectors(size_t n)
{
    return round_up(n, WALK_VECTOR);
}

/* The arrays of a walk, one behind the other, each at a cache line. */
static bool lane_arrays(struct walk *w)
{
    size_t pool = in_vectors(w->ef) + WALK_VECTOR, list = in_vectors(w->links + 4u);
    size_t all = 2 * (WALK_VECTOR + pool) + 2 * list + TOUCHED_MAX;
    uint32_t *room = scratch_room(&w->room->arrays, all + WALK_VECTOR, sizeof(uint32_t));
    if (!room)
        return false;
    room = (uint32_t *)round_up((uintptr_t)room, WALK_VECTOR * sizeof(uint32_t));
    w->keys = (int32_t *)room + WALK_VECTOR;
    w->nodes = (uint32_t *)w->keys + pool + WALK_VECTOR;
    w->list = w->nodes + pool;
    w->measured = (int32_t *)w->list + list;
    w->touched = (uint32_t *)w->measured + list;
    return true;
}

static bool lane_visited(struct walk *w)
{
    struct buf *b = &w->room->visited;
    size_t words = ((size_t)w->a->shape.nodes + 63) / 64, had = b->cap;
    w->visited = scratch_room(b, words, sizeof(uint64_t));
    if (w->visited && b->cap > had)
        memset(w->visited, 0, b->cap);
    return w->visited;
}

/* The next query of those that walk. */
static bool lane_start(struct walk_feed *f, struct walk *w)
{
    struct graph_run *g = (struct graph_run *)f;
    while (g->next < g->n && g->coded[g->next] != g->on_codes)
        g->next++;
    if (g->next == g->n || g->no_memory)
        return false;
    w->number = (uint32_t)g->next++;
    w->query = &g->queries[w->number];
    w->query_code = g->codes + w->number * g->stride;
    w->npool = w->cursor = w->ndetour = w->ntouched = 0;
    w->measured_n = w->detours_n = 0;
    return true;
}

static void lane_finish(struct walk_feed *f, struct walk *w)
{
    struct graph_run *g = (struct graph_run *)f;
    walk_forget(w);
    bool enough = g->enough[w->number] = pool_enough(w);
    if (enough && w->codes)
        w->no_memory |= !rerank_pool(w, g->snapshot, g->scratch);
    else if (enough)
        show_pool(w);
    g->no_memory |= w->no_memory;
}

static bool lane_open(const struct graph_run *g, struct walk *w, struct walk_room *room)
{
    const struct ann_file *a = g->plan->a;
    const struct view *v = &g->snapshot->views[g->plan->view];
    uint32_t k = g->queries[0].k, ef = g->plan->effort;
    uint64_t least = g->on_codes ? (k + code_rerank(&a->scale, k)) / 2 : 0;
    *w = (struct walk){.a = a,
                       .view = v,
                       .allowed = g->plan->allowed,
                       .view_index = g->plan->view,
                       .vectors = v->segment->vectors,
                       .dim = g->snapshot->schema->dim,
                       .metric = g->snapshot->schema->metric,
                       .codes = g->on_codes ? a->codes : NULL,
                       .stride = g->stride,
                       .head = round_up(g->stride / 2, CODE_ALIGN),
                       .all_returned = g->all_returned,
                       .links = 2 * a->shape.m,
                       .ef = ef < least ? (uint32_t)least : ef,
                       .measured_max = g->plan->measured_max,
                       .detours_max = g->plan->detours_max,
                       .room = room};
    return lane_arrays(w) && lane_visited(w);
}

/* ---- a group ---- */

/* Encodes the queries where the file has codes. */
static bool encode_queries(struct graph_run *g)
{
    const struct ann_file *a = g->plan->a;
    bool *coded = scratch_room(&g->scratch->coded, g->n, sizeof(*coded));
    g->stride = code_stride(g->snapshot->schema->dim);
    uint8_t *room = scratch_room(&g->scratch->code, g->n + 1, g->stride + CODE_ALIGN);
    if (!coded || !room)
        return false;
    room = (uint8_t *)round_up((uintptr_t)room, CODE_ALIGN);
    for (size_t i = 0; i < g->n; i++)
        coded[i] =
            a->codes && code_query_prepare(&a->scale, g->queries[i].scaled, room + i * g->stride);
    g->codes = room;
    g->coded = coded;
    return true;
}

static size_t lanes_for(const struct graph_run *g, size_t queries)
{
    uint64_t each = g->on_codes ? g->stride : g->snapshot->schema->dim * sizeof(float);
    if (each * g->plan->a->shape.nodes <= LANES_BYTES)
        return 1;
    return queries < WALK_LANES ? queries : WALK_LANES;
}

static bool walk_those(struct graph_run *g, bool on_codes)
{
    struct search_scratch *scratch = g->scratch;
    size_t queries = 0;
    for (size_t i = 0; i < g->n; i++)
        queries += g->coded[i] == on_codes;
    if (queries == 0)
        return true;
    g->on_codes = on_codes;
    g->next = 0;
    size_t lanes = lanes_for(g, queries);
    struct walk *walks = scratch_room(&scratch->walks, lanes, sizeof(*walks));
    bool ok = walks;
    for (size_t i = 0; ok && i < lanes; i++)
        ok = lane_open(g, &walks[i], &scratch->rooms[i]);
    if (!ok)
        return false;
    enum walk_measure m = WALK_VECTORS;
    if (on_codes)
        m = g->plan->a->scale.scheme == CODE_UNIFORM ? WALK_CODE_L2 : WALK_CODE_DOT;
    walk_loop(m, g->all_returned)(walks, lanes, &g->feed);
    return !g->no_memory;
}

/* Whether every row of the view may be a hit of every query. */
static bool none_masked(const struct graph_run *g)
{
    const struct view *v = &g->snapshot->views[g->plan->view];
    bool all = !v->dead && v->rows == v->segment->rows && !g->plan->allowed.filter;
    for (size_t i = 0; i < g->n; i++)
        all = all && g->queries[i].exclude.view != g->plan->view;
    return all;
}

enum err graph_search(const struct snapshot *s, const struct view_plan *plan,
                      struct collect *queries, size_t n, bool *enough,
                      struct search_scratch *scratch, struct err_ctx *ctx)
{
    struct graph_run g = {.feed = {lane_start, lane_finish},
                          .snapshot = s,
                          .plan = plan,
                          .queries = queries,
                          .n = n,
                          .enough = enough,
                          .scratch = scratch};
    g.all_returned = none_masked(&g);
    if (!encode_queries(&g) || !walk_those(&g, true) || !walk_those(&g, false))
        return err_no_memory(ctx, plan->a->shape.nodes);
    return ERR_OK;
}
