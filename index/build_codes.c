/* Fits codes to a segment and decides whether its file gets any.
 *
 *   vectors of the nodes ─ scale
 *   sample of nodes ─ a few of them as queries ─ the K nearest of the sample by vector
 *                                              └ the R nearest by code: do they hold the K?
 *
 * The gate. Codes fail where few dimensions hold most of the distance, or none of it: the step is
 * then too coarse for what tells neighbours apart. That is measured, not assumed, for one neighbour
 * and for GATE_K: the least R of those tried that finds GATE_RECALL of them is what searches will
 * measure again. When none does, the file has no codes and nothing is lost but speed. Neighbours at
 * the same distance count alike.
 *
 * The sample streams by: held are the queries and, of each, the K distances and the R nearest
 * codes.
 *
 * Threads: one. Failure: no memory. */
#include "index/build_codes.h"

#include <math.h>
#include <string.h>

#include "index/kernels.h"

#define GATE_RECALL 0.998

enum {
    FIT_ROWS_MAX = 1 << 16,
    GATE_ROWS_MAX = 1 << 16,
    GATE_QUERIES_MAX = 200,
    GATE_QUERY_BYTES_MAX = 8 << 20,
    GATE_K = 10,
    GATE_R_MAX = 40 /* of the widest of gate_permille */
};

/* rerank_permille, tried in this order. */
static const uint32_t gate_permille[] = {250, 500, 1000};

/* The nearest by code, nearest first, with their distances by vector. */
struct gate_query {
    uint32_t node;
    uint32_t nexact, ncoded;
    float exact[GATE_K];
    float code_key[GATE_R_MAX], code_exact[GATE_R_MAX];
};

struct gate {
    const struct segment *segment;
    const struct distinct *rows;
    const struct code_scale *scale;
    uint32_t nqueries;
    struct gate_query *queries;
    float *vectors; /* of the queries */
    uint8_t *codes; /* prepared queries */
    float *block;   /* four vectors of the sample */
    uint8_t *block_codes;
};

static uint32_t node_row(const struct distinct *d, uint32_t node)
{
    return d->rows ? d->rows[node] : node;
}

/* Node i of n that lie evenly spread over all nodes. */
static uint32_t spread(uint32_t i, uint32_t n, uint32_t nodes)
{
    return (uint32_t)((uint64_t)i * nodes / n);
}

/* ---- the gate ---- */

static void *aligned(size_t n, size_t size)
{
    return aligned_alloc(CODE_ALIGN, round_up(n * size, CODE_ALIGN));
}

static enum err gate_open(struct gate *g, struct err_ctx *ctx)
{
    uint32_t dim = g->scale->dim, most = (uint32_t)(GATE_QUERY_BYTES_MAX / (dim * sizeof(float)));
    size_t stride = code_stride(dim);
    most = most > GATE_QUERIES_MAX ? GATE_QUERIES_MAX : most;
    g->nqueries = most < g->rows->nodes ? most : g->rows->nodes;
    g->queries = calloc(g->nqueries, sizeof(*g->queries));
    g->vectors = aligned(g->nqueries, dim * sizeof(float));
    g->codes = aligned(g->nqueries, stride);
    g->block = aligned(4, dim * sizeof(float));
    g->block_codes = aligned(4, stride);
    if (!g->queries || !g->vectors || !g->codes || !g->block || !g->block_codes)
        return err_no_memory(ctx, g->nqueries * dim * sizeof(float));
    for (uint32_t i = 0; i < g->nqueries; i++) {
        struct gate_query *q = &g->queries[i];
        q->node = spread(i, g->nqueries, g->rows->nodes);
        graph_vector(g->segment, node_row(g->rows, q->node), g->vectors + (size_t)i * dim);
        code_query_prepare(g->scale, g->vectors + (size_t)i * dim, g->codes + i * stride);
    }
    return ERR_OK;
}

static void gate_close(struct gate *g)
{
    free(g->queries);
    free(g->vectors);
    free(g->codes);
    free(g->block);
    free(g->block_codes);
}

/* Where d goes among n sorted keys, behind its equals. */
static uint32_t place(const float *keys, uint32_t n, float d)
{
    uint32_t at = n;
    while (at > 0 && keys[at - 1] > d)
        at--;
    return at;
}

/* Puts value at `at` of n; the last of `most` falls off. */
static void put(float *to, uint32_t n, uint32_t most, uint32_t at, float value)
{
    uint32_t moved = (n < most ? n : most - 1) - at;
    memmove(to + at + 1, to + at, moved * sizeof(float));
    to[at] = value;
}

static void show(struct gate_query *q, float exact, float coded)
{
    if (q->nexact < GATE_K || exact < q->exact[GATE_K - 1]) {
        put(q->exact, q->nexact, GATE_K, place(q->exact, q->nexact, exact), exact);
        q->nexact += q->nexact < GATE_K;
    }
    if (q->ncoded == GATE_R_MAX && !(coded < q->code_key[GATE_R_MAX - 1]))
        return;
    uint32_t at = place(q->code_key, q->ncoded, coded);
    put(q->code_key, q->ncoded, GATE_R_MAX, at, coded);
    put(q->code_exact, q->ncoded, GATE_R_MAX, at, exact);
    q->ncoded += q->ncoded < GATE_R_MAX;
}

/* Shows n <= 4 nodes of the sample to all queries. */
static void show_four(struct gate *g, const uint32_t *nodes, uint32_t n)
{
    uint32_t dim = g->scale->dim;
    size_t stride = code_stride(dim);
    const float *v[4];
    const uint8_t *c[4];
    for (uint32_t i = 0; i < 4; i++) {
        float *to = g->block + (size_t)i * dim;
        v[i] = to;
        c[i] = g->block_codes + i * stride;
        graph_vector(g->segment, node_row(g->rows, nodes[i < n ? i : n - 1]), to);
        code_encode(g->scale, to, g->block_codes + i * stride);
    }
    for (uint32_t i = 0; i < g->nqueries; i++) {
        struct gate_query *q = &g->queries[i];
        float exact[4], coded[4];
        if (g->scale->scheme == CODE_SCALED)
            kernels.dot_4(g->vectors + (size_t)i * dim, v, dim, exact);
        else
            kernels.l2sqr_4(g->vectors + (size_t)i * dim, v, dim, exact);
        code_measure_4(g->scale, g->codes + i * stride, c, coded);
        for (uint32_t j = 0; j < n; j++) {
            if (nodes[j] != q->node)
                show(q, g->scale->scheme == CODE_SCALED ? -exact[j] : exact[j], coded[j]);
        }
    }
}

static uint32_t gate_rows(struct gate *g)
{
    uint32_t nodes = g->rows->nodes, n = nodes < GATE_ROWS_MAX ? nodes : GATE_ROWS_MAX;
    for (uint32_t i = 0; i < n; i += 4) {
        uint32_t four[4], have = n - i < 4 ? n - i : 4;
        for (uint32_t j = 0; j < have; j++)
            four[j] = spread(i + j, n, nodes);
        show_four(g, four, have);
    }
    return n;
}

/* Share of the k nearest that are among those that would be measured again. */
static double gate_recall(const struct gate *g, uint32_t k)
{
    uint64_t found = 0, all = 0, r = code_rerank(g->scale, k);
    ASSERT(r <= GATE_R_MAX);
    for (uint32_t i = 0; i < g->nqueries; i++) {
        const struct gate_query *q = &g->queries[i];
        uint32_t hits = 0, want = q->nexact < k ? q->nexact : k;
        if (want == 0)
            continue;
        float last = q->exact[want - 1];
        for (uint32_t j = 0; j < q->ncoded && j < r; j++)
            hits += q->code_exact[j] <= last + fabsf(last) * 1e-6f;
        found += hits < want ? hits : want;
        all += want;
    }
    return all > 0 ? (double)found / (double)all : 1;
}

static enum err gate_pass(const struct segment *s, const struct distinct *rows,
                          struct ann_codes *set, struct err_ctx *ctx)
{
    struct gate g = {.segment = s, .rows = rows, .scale = &set->scale};
    enum err e = gate_open(&g, ctx);
    set->verdict = CODES_REFUSED;
    if (e == ERR_OK)
        set->sample = gate_rows(&g);
    size_t tries = sizeof(gate_permille) / sizeof(gate_permille[0]);
    for (size_t i = 0; e == ERR_OK && set->verdict == CODES_REFUSED && i < tries; i++) {
        set->scale.rerank_permille = gate_permille[i];
        double one = gate_recall(&g, 1), more = gate_recall(&g, GATE_K);
        set->recall = (float)(one < more ? one : more);
        if (set->recall >= GATE_RECALL)
            set->verdict = CODES_TAKEN;
    }
    gate_close(&g);
    return e;
}

/* ---- the scale ---- */

static enum err fit(const struct segment *s, const struct distinct *rows, struct ann_codes *c,
                    float *room, struct err_ctx *ctx)
{
    struct code_fit *f = NULL;
    uint32_t dim = c->scale.dim, n = rows->nodes;
    float *vector = malloc(dim * sizeof(float));
    enum err e = vector ? code_fit_new(c->scale.scheme, dim, &f, ctx)
                        : err_no_memory(ctx, dim * sizeof(float));
    if (c->scale.scheme == CODE_UNIFORM && n > FIT_ROWS_MAX)
        n = FIT_ROWS_MAX;
    for (uint32_t i = 0; e == ERR_OK && i < n; i++) {
        graph_vector(s, node_row(rows, spread(i, n, rows->nodes)), vector);
        code_fit_add(f, vector);
    }
    if (e == ERR_OK)
        code_fit_finish(f, room, room + dim);
    code_fit_free(f);
    free(vector);
    return e;
}

enum err build_codes(const struct segment *s, const struct distinct *rows, float **room,
                     struct ann_codes *out, struct err_ctx *ctx)
{
    uint32_t dim = s->schema->dim;
    *room = malloc(2 * dim * sizeof(float));
    if (!*room)
        return err_no_memory(ctx, 2 * dim * sizeof(float));
    *out = (struct ann_codes){.segment = s,
                              .scale = {.scheme = code_scheme_of(s->schema->metric),
                                        .dim = dim,
                                        .lo = *room,
                                        .step = *room + dim},
                              .verdict = CODES_IMPOSSIBLE};
    RETURN_NOT_OK(fit(s, rows, out, *room, ctx));
    return code_scale_usable(&out->scale) ? gate_pass(s, rows, out, ctx) : ERR_OK;
}
