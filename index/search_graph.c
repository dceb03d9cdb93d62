/* Graph search of one view: best-first walk over the HNSW graph of its segment.
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
 * With codes (codes.h) in the file, all of this runs on distances between codes, whole numbers; the
 * rows of the best nodes of the pool are then measured by their vectors, and only that decides. A
 * query far outside of the range of the codes walks on vectors.
 * Rejected: one pool for live and dead nodes, cut to the live ones at the end: a query in the midst
 * of deleted rows fills it with them and returns far rows.
 *
 * Links come from a file and are not trusted: a node out of range ends a list. Neighbours are
 * prefetched as they are listed, measured four at a time.
 *
 * Threads: per call, on the caller's scratch. Failure: no memory for the scratch. */
#include "index/search_internal.h"

#include <string.h>

#include "index/kernels.h"

#define WALK_DONE 0x80000000u /* nodes are below 2^31 */

enum {
    TOUCHED_MAX = 1 << 16,
    PREFETCH_BYTES = 1024, /* of a vector; the processor goes on from there by itself */
    RERANK_ROWS = 128,     /* measured at once */
    MEASURE_MORE = 4       /* nodes beyond k rows whose order float may have got wrong */
};

/* A dead node on the way. */
struct heap_node {
    float distance;
    uint32_t node;
};

struct walk {
    const struct ann_file *a;
    const struct view *view;
    struct allowed allowed;
    uint32_t view_index;
    const struct collect *query;
    const float *vectors;
    uint32_t dim;
    enum metric metric;
    const uint8_t *codes;      /* NULL: the walk runs on vectors */
    const uint8_t *query_code; /* code_query_prepare */
    size_t stride;             /* of the codes */
    bool all_returned;         /* every row of the view may be a hit */
    uint32_t links;            /* per node on the bottom layer */
    uint32_t ef;
    uint32_t npool, cursor; /* no node of the pool before `cursor` waits for expansion */
    uint32_t ndetour;
    uint32_t ntouched;
    uint64_t measured_max, measured_n;
    uint64_t detours_max, detours_n;
    struct search_scratch *scratch;
    uint64_t *visited;
    uint32_t *touched;
    float *distances;
    uint32_t *nodes;
    uint32_t *list;
    float *measured;
};

bool graph_pays(const struct view *v, const struct ann_file *a, uint32_t ef)
{
    return view_walkable(v) && ef < (a->shape.nodes + a->shape.twins) / 4;
}

/* ---- distances ---- */

static inline const float *node_vector(const struct walk *w, uint32_t node)
{
    return w->vectors + (size_t)ann_row(w->a, node) * w->dim;
}

static inline void prefetch_vector(const struct walk *w, uint32_t node)
{
    const char *p = (const char *)node_vector(w, node);
    size_t n = w->dim * sizeof(float);
    if (n > PREFETCH_BYTES)
        n = PREFETCH_BYTES;
    for (size_t i = 0; i < n; i += 64)
        __builtin_prefetch(p + i);
    if (w->a->norms)
        __builtin_prefetch(&w->a->norms[node]);
}

static inline void prefetch_node(const struct walk *w, uint32_t node)
{
    if (!w->codes) {
        prefetch_vector(w, node);
        return;
    }
    const char *p = (const char *)w->codes + node * w->stride;
    size_t n = w->stride < PREFETCH_BYTES ? w->stride : PREFETCH_BYTES;
    for (size_t i = 0; i < n; i += 64)
        __builtin_prefetch(p + i);
}

static void measure_four(struct walk *w, const uint32_t list[4], float out[4])
{
    const float *v[4] = {node_vector(w, list[0]), node_vector(w, list[1]), node_vector(w, list[2]),
                         node_vector(w, list[3])};
    if (w->metric == DIST_L2) {
        kernels.l2sqr_4(w->query->query, v, w->dim, out);
        return;
    }
    kernels.dot_4(w->query->scaled, v, w->dim, out);
    for (int i = 0; i < 4; i++)
        out[i] = w->metric == DIST_IP ? -out[i] : -out[i] * w->a->norms[list[i]];
}

/* Whole numbers, which float rounds alike everywhere. */
static void measure_four_codes(struct walk *w, const uint32_t list[4], float out[4])
{
    const uint8_t *c[4];
    int32_t sums[4];
    for (int i = 0; i < 4; i++)
        c[i] = w->codes + list[i] * w->stride;
    bool uniform = w->a->scale.scheme == CODE_UNIFORM;
    if (uniform)
        kernels.code_l2_4(w->query_code, c, w->stride, sums);
    else
        kernels.code_dot_4((const int8_t *)w->query_code, c, w->stride, sums);
    for (int i = 0; i < 4; i++)
        out[i] = uniform ? (float)sums[i] : -(float)sums[i];
}

/* Distances of list[0..n) to measured[0..n); the list has room for three more. */
static void measure_list(struct walk *w, uint32_t n)
{
    for (uint32_t i = n; i % 4; i++)
        w->list[i] = w->list[n - 1];
    for (uint32_t i = 0; !w->codes && i < n; i += 4)
        measure_four(w, w->list + i, w->measured + i);
    for (uint32_t i = 0; w->codes && i < n; i += 4)
        measure_four_codes(w, w->list + i, w->measured + i);
    w->measured_n += n;
}

/* ---- pool and detour ---- */

static inline float walk_bound(const struct walk *w)
{
    return w->npool == w->ef ? w->distances[w->ef - 1] : INFINITY;
}

static inline uint32_t pool_position(const struct walk *w, float d)
{
    uint32_t at = 0, n = w->npool;
    while (n > 0) {
        uint32_t half = n / 2;
        bool right = w->distances[at + half] <= d;
        at = right ? at + half + 1 : at;
        n = right ? n - half - 1 : half;
    }
    return at;
}

static void pool_insert(struct walk *w, float d, uint32_t node)
{
    uint32_t at = pool_position(w, d);
    if (w->npool < w->ef)
        w->npool++;
    uint32_t moved = w->npool - 1 - at;
    memmove(w->distances + at + 1, w->distances + at, moved * sizeof(float));
    memmove(w->nodes + at + 1, w->nodes + at, moved * sizeof(uint32_t));
    w->distances[at] = d;
    w->nodes[at] = node;
    if (at < w->cursor)
        w->cursor = at;
}

static bool detour_push(struct walk *w, float d, uint32_t node)
{
    struct heap_node *h = scratch_room(&w->scratch->detour, w->ndetour + 1u, sizeof(*h));
    if (!h)
        return false;
    uint32_t i = w->ndetour++;
    for (; i > 0 && h[(i - 1) / 2].distance > d; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = (struct heap_node){d, node};
    return true;
}

static uint32_t detour_pop(struct walk *w)
{
    struct heap_node *h = (struct heap_node *)w->scratch->detour.data;
    uint32_t top = h[0].node, n = --w->ndetour, i = 0;
    struct heap_node last = h[n];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && h[child + 1].distance < h[child].distance)
            child++;
        if (h[child].distance >= last.distance)
            break;
        h[i] = h[child];
    }
    h[i] = last;
    w->detours_n++;
    return top;
}

/* ---- the rows of a node ---- */

static inline bool row_returned(const struct walk *w, uint32_t row)
{
    const struct row_ref *left_out = &w->query->exclude;
    return allowed_row(&w->allowed, row) &&
           !(left_out->row == row && left_out->view == w->view_index);
}

static bool twin_returned(const struct walk *w, uint32_t node)
{
    uint32_t n;
    const uint32_t *twins = ann_twins(w->a, node, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (row_returned(w, twins[i]))
            return true;
    }
    return false;
}

static inline bool node_returned(const struct walk *w, uint32_t node)
{
    return w->all_returned || row_returned(w, ann_row(w->a, node)) || twin_returned(w, node);
}

static uint32_t rows_of_node(const struct walk *w, uint32_t node)
{
    uint32_t n, rows = row_returned(w, ann_row(w->a, node));
    const uint32_t *twins = ann_twins(w->a, node, &n);
    for (uint32_t i = 0; i < n; i++)
        rows += row_returned(w, twins[i]);
    return rows;
}

/* Shows the rows of a node to the query and returns how many. The twins tie and come in the order
 * of their keys: of those, k are enough. */
static uint32_t show_node(const struct walk *w, uint32_t node, struct collect *query)
{
    uint32_t n, shown = 0, row = ann_row(w->a, node);
    const uint32_t *twins = ann_twins(w->a, node, &n);
    for (uint32_t i = 0; i < n && shown < query->k; i++) {
        if (row_returned(w, twins[i])) {
            collect_measure(query, (struct row_ref){w->view_index, twins[i]});
            shown++;
        }
    }
    if (!row_returned(w, row))
        return shown;
    collect_measure(query, (struct row_ref){w->view_index, row});
    return shown + 1;
}

/* ---- the walk ---- */

static inline bool admit(struct walk *w, float d, uint32_t node)
{
    if (!(d < walk_bound(w)))
        return true;
    const char *links = (const char *)(w->a->links + (size_t)node * w->links);
    __builtin_prefetch(links);
    __builtin_prefetch(links + 64);
    if (!node_returned(w, node))
        return detour_push(w, d, node);
    pool_insert(w, d, node);
    return true;
}

static inline bool visit(struct walk *w, uint32_t node)
{
    uint64_t *word = &w->visited[node / 64], had = *word, bit = 1ull << (node % 64);
    *word = had | bit;
    return !(had & bit);
}

/* Remembers which bits to clear; beyond TOUCHED_MAX, all of them. */
static void touch(struct walk *w, const uint32_t *list, uint32_t n)
{
    if (w->ntouched + n <= TOUCHED_MAX)
        memcpy(w->touched + w->ntouched, list, n * sizeof(uint32_t));
    w->ntouched += n;
}

static void forget_visits(struct walk *w)
{
    if (w->ntouched > TOUCHED_MAX) {
        memset(w->visited, 0, ((size_t)w->a->shape.nodes + 63) / 64 * 8);
        return;
    }
    for (uint32_t i = 0; i < w->ntouched; i++)
        w->visited[w->touched[i] / 64] = 0;
}

/* Next node to expand: the nearest of pool and detour. ANN_NONE: the walk is over. */
static uint32_t next_node(struct walk *w)
{
    while (w->cursor < w->npool && w->nodes[w->cursor] & WALK_DONE)
        w->cursor++;
    float in_pool = w->cursor < w->npool ? w->distances[w->cursor] : walk_bound(w);
    if (w->ndetour > 0 && ((struct heap_node *)w->scratch->detour.data)[0].distance < in_pool)
        return detour_pop(w);
    if (w->cursor == w->npool)
        return ANN_NONE;
    uint32_t node = w->nodes[w->cursor];
    w->nodes[w->cursor++] = node | WALK_DONE;
    return node;
}

/* Of those of list[0..n) that admit will ask the filter about. */
static void prefetch_features(const struct walk *w, uint32_t n)
{
    float bound = walk_bound(w);
    for (uint32_t i = 0; i < n; i++) {
        if (w->measured[i] < bound)
            segment_prefetch_row(w->view->segment, ann_row(w->a, w->list[i]));
    }
}

static bool expand(struct walk *w, uint32_t node)
{
    const uint32_t *links = w->a->links + (size_t)node * w->links;
    uint32_t n = 0, nodes = w->a->shape.nodes;
    for (uint32_t i = 0; i < w->links && links[i] < nodes; i++) {
        w->list[n] = links[i];
        n += visit(w, links[i]);
    }
    if (n == 0)
        return true;
    touch(w, w->list, n);
    for (uint32_t i = 0; i < n; i++)
        prefetch_node(w, w->list[i]);
    measure_list(w, n);
    if (allowed_looks(&w->allowed))
        prefetch_features(w, n);
    bool ok = true;
    for (uint32_t i = 0; i < n; i++)
        ok = admit(w, w->measured[i], w->list[i]) && ok;
    return ok;
}

/* Lists the neighbours of a node on an upper layer. */
static uint32_t list_upper(struct walk *w, uint32_t node, uint32_t layer)
{
    const uint32_t *links = ann_upper_links(w->a, node, layer);
    uint32_t n = 0;
    for (uint32_t i = 0; links && i < w->a->shape.m && links[i] < w->a->shape.nodes; i++) {
        prefetch_node(w, links[i]);
        w->list[n++] = links[i];
    }
    return n;
}

/* Greedy descent; every step gets strictly nearer, so it ends. */
static uint32_t descend(struct walk *w, float *distance)
{
    uint32_t node = w->a->entry;
    w->list[0] = node;
    measure_list(w, 1);
    float best = w->measured[0];
    for (uint32_t layer = w->a->layers - 1; layer >= 1; layer--) {
        for (bool nearer = true; nearer;) {
            nearer = false;
            uint32_t n = list_upper(w, node, layer);
            if (n > 0)
                measure_list(w, n);
            for (uint32_t i = 0; i < n; i++) {
                if (w->measured[i] < best) {
                    best = w->measured[i];
                    node = w->list[i];
                    nearer = true;
                }
            }
        }
    }
    *distance = best;
    return node;
}

/* Marks the node of the row left out as visited, so that no way leads through it. */
static void hide_excluded(struct walk *w)
{
    const struct row_ref *left_out = &w->query->exclude;
    uint32_t node = ANN_NONE;
    if (left_out->view == w->view_index)
        node = ann_node(w->a, left_out->row);
    if (node != ANN_NONE && visit(w, node))
        touch(w, &node, 1);
}

static bool walk_gives_up(const struct walk *w)
{
    return w->measured_n >= w->measured_max || w->detours_n > w->detours_max;
}

static bool walk_run(struct walk *w)
{
    float d;
    uint32_t node = descend(w, &d);
    bool ok = true;
    if (w->query->unknown)
        hide_excluded(w);
    visit(w, node);
    touch(w, &node, 1);
    if (node_returned(w, node))
        pool_insert(w, d, node);
    else
        ok = detour_push(w, d, node);
    while (ok && !walk_gives_up(w) && (node = next_node(w)) != ANN_NONE)
        ok = expand(w, node);
    forget_visits(w);
    return ok;
}

/* ---- one view ---- */

static bool walk_scratch(struct walk *w)
{
    struct search_scratch *s = w->scratch;
    size_t words = ((size_t)w->a->shape.nodes + 63) / 64, had = s->visited.cap;
    w->visited = scratch_room(&s->visited, words, sizeof(uint64_t));
    if (w->visited && s->visited.cap > had)
        memset(w->visited, 0, s->visited.cap);
    w->touched = scratch_room(&s->touched, TOUCHED_MAX, sizeof(uint32_t));
    w->distances = scratch_room(&s->distances, w->ef, sizeof(float));
    w->nodes = scratch_room(&s->nodes, w->ef, sizeof(uint32_t));
    w->list = scratch_room(&s->list, w->links + 4u, sizeof(uint32_t));
    w->measured = scratch_room(&s->measured, w->links + 4u, sizeof(float));
    return w->visited && w->touched && w->distances && w->nodes && w->list && w->measured;
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
static void show_pool(const struct walk *w, struct collect *query)
{
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
        if (row_returned(w, twins[i])) {
            rerank_row(r, s, twins[i]);
            shown++;
        }
    }
    if (row_returned(w, row))
        rerank_row(r, s, row);
}

/* Shows the rows of the nodes that may be among the k nearest, by their vectors. */
static enum err rerank_pool(const struct walk *w, const struct snapshot *s, struct collect *query,
                            struct err_ctx *ctx)
{
    struct search_scratch *scratch = w->scratch;
    uint64_t n = code_rerank(&w->a->scale, query->k);
    struct rerank r = {.walk = w,
                       .query = query,
                       .rows = scratch_room(&scratch->rows, RERANK_ROWS, sizeof(uint32_t)),
                       .vectors = scratch_room(&scratch->pointers, RERANK_ROWS, sizeof(float *))};
    if (!r.rows || !r.vectors)
        return err_no_memory(ctx, RERANK_ROWS * (sizeof(uint32_t) + sizeof(float *)));
    n = n < w->npool ? n : w->npool;
    for (uint32_t i = 0; i < n; i++)
        prefetch_vector(w, w->nodes[i] & ~WALK_DONE);
    for (uint32_t i = 0; i < n; i++)
        rerank_node(&r, s, w->nodes[i] & ~WALK_DONE);
    rerank_flush(&r, s);
    return ERR_OK;
}

/* Lets the walk run on codes where the file has them and they say something of this query. */
static bool use_codes(struct walk *w)
{
    const struct ann_file *a = w->a;
    if (!a->codes)
        return true;
    size_t stride = code_stride(w->dim);
    uint8_t *room = scratch_room(&w->scratch->code, stride + CODE_ALIGN, 1);
    if (!room)
        return false;
    room = (uint8_t *)round_up((uintptr_t)room, CODE_ALIGN);
    if (!code_query_prepare(&a->scale, w->query->scaled, room))
        return true;
    uint64_t least = (w->query->k + code_rerank(&a->scale, w->query->k)) / 2;
    w->codes = a->codes;
    w->stride = stride;
    w->query_code = room;
    w->ef = w->ef < least ? (uint32_t)least : w->ef;
    return true;
}

enum err graph_search(const struct snapshot *s, const struct view_plan *plan, uint32_t ef,
                      struct collect *query, struct search_scratch *scratch, bool *enough,
                      struct err_ctx *ctx)
{
    const struct view *v = &s->views[plan->view];
    struct walk w = {.a = plan->a,
                     .view = v,
                     .allowed = plan->allowed,
                     .view_index = plan->view,
                     .query = query,
                     .vectors = v->segment->vectors,
                     .dim = s->schema->dim,
                     .metric = s->schema->metric,
                     .links = 2 * plan->a->shape.m,
                     .ef = ef,
                     .all_returned = !v->dead && v->rows == v->segment->rows &&
                                     !plan->allowed.filter && query->exclude.view != plan->view,
                     .measured_max = plan->measured_max,
                     .detours_max = plan->detours_max,
                     .scratch = scratch};
    if (!use_codes(&w) || !walk_scratch(&w) || !walk_run(&w))
        return err_no_memory(ctx, plan->a->shape.nodes);
    *enough = pool_enough(&w);
    if (*enough && w.codes)
        return rerank_pool(&w, s, query, ctx);
    if (*enough)
        show_pool(&w, query);
    return ERR_OK;
}
