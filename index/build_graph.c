/* Builds the HNSW graph of a segment.
 *
 *   segment (mapped) ─ distinct vectors, which rows have them ─ scale of their codes, and the gate
 *        ├─ native: codes of 8 bits, or copies of the vectors ─> build_native.c ─┐
 *        └─ FAISS: chunks of vectors ─> faiss_graph.c ───────────────────────────┴ node by node ─>
 * file
 *
 * Cosine graphs are built with Euclidean distance over normalised vectors: the order of neighbours
 * is the same. Where nobody chose a builder it is the native one on codes, and FAISS where the gate
 * refused them (build_codes.c) and for inner products: the native one on floats gains little there.
 *
 * FAISS's chunk is the node count halved until it is small: FAISS's arrays double as they grow, and
 * so end exactly full instead of twice too large.
 *
 * Threads: one, and the builder's. Failure: a sentence; everything is freed. */
#include <math.h>

#include "index/build_codes.h"
#include "index/build_internal.h"
#include "index/build_native.h"
#include "index/faiss_graph.h"

enum { CHUNK_ROWS_MAX = 4000, CHUNK_BYTES_MAX = 32 << 20, SEED = 1 };

struct graph_build {
    const struct build *build;
    struct ann_shape shape;
    struct distinct rows;
    float *norms; /* per node, 1 / |vector|; NULL unless cosine */
    struct ann_codes codes;
    float *code_room; /* lo and step */
    struct faiss_graph *faiss;
    float *chunk; /* copies for FAISS */
    size_t chunk_rows;
    struct points points; /* of the native builder */
    struct native_graph *native;
};

static enum err find_distinct(struct graph_build *g, struct err_ctx *ctx)
{
    const struct build *b = g->build;
    const struct index_settings *settings = &b->segment->schema->index;
    if (b->vectors > INT32_MAX)
        return err_set(ctx, ERR_TOO_LARGE, "%s holds %u vectors; a graph takes %d at most",
                       b->args->segment, b->vectors, INT32_MAX);
    RETURN_NOT_OK(distinct_find(b->segment, b->vectors, &g->rows, ctx));
    g->shape = build_shape(b);
    g->shape.nodes = g->rows.nodes;
    g->shape.twins = g->rows.ntwins;
    g->shape.m = b->args->m ? (uint32_t)b->args->m : settings->m;
    g->shape.ef_construction =
        b->args->ef_construction ? (uint32_t)b->args->ef_construction : settings->ef_construction;
    return ERR_OK;
}

static bool codes_serve(const struct graph_build *g)
{
    return g->codes.verdict == CODES_TAKEN && g->codes.scale.scheme == CODE_UNIFORM &&
           points_codes_fit(g->shape.dim);
}

static enum index_builder pick_builder(const struct graph_build *g)
{
    if (g->build->args->builder != BUILDER_AUTO)
        return g->build->args->builder;
    return codes_serve(g) ? BUILDER_NATIVE : BUILDER_FAISS;
}

/* What the first i insertions cost, in some unit: each searches a graph whose depth grows with the
 * logarithm of its size, and misses the caches the more. The power was measured: from 1 where all
 * fits the caches to 2 where nothing does. */
static double work_of(double i)
{
    return i * pow(log(i + 2), 1.5);
}

/* ---- FAISS ---- */

static enum err faiss_prepare(struct graph_build *g, struct err_ctx *ctx)
{
    const struct ann_shape *sh = &g->shape;
    size_t row_bytes = sh->dim * sizeof(float);
    g->chunk_rows = sh->nodes;
    while (g->chunk_rows > 1 &&
           (g->chunk_rows > CHUNK_ROWS_MAX || g->chunk_rows * row_bytes > CHUNK_BYTES_MAX))
        g->chunk_rows = (g->chunk_rows + 1) / 2;
    RETURN_NOT_OK(build_allocate(&g->chunk, g->chunk_rows, row_bytes, ctx));
    return faiss_graph_new(sh->dim, sh->m, sh->ef_construction, sh->metric == DIST_IP, &g->faiss,
                           ctx);
}

/* Fills the chunk with the vectors of nodes from `node` on; returns how many. */
static size_t fill_chunk(struct graph_build *g, uint32_t node)
{
    uint32_t left = g->shape.nodes - node;
    size_t n = left < g->chunk_rows ? left : g->chunk_rows;
    for (size_t i = 0; i < n; i++) {
        uint32_t at = node + (uint32_t)i, row = g->rows.rows ? g->rows.rows[at] : at;
        double scale = graph_vector(g->build->segment, row, g->chunk + i * g->shape.dim);
        if (g->norms)
            g->norms[at] = (float)scale;
    }
    return n;
}

static enum err faiss_build(struct graph_build *g, struct graph_source *out, struct err_ctx *ctx)
{
    uint32_t node = 0;
    RETURN_NOT_OK(faiss_prepare(g, ctx));
    build_progress(0);
    while (node < g->shape.nodes) {
        size_t n = fill_chunk(g, node);
        RETURN_NOT_OK(faiss_graph_add(g->faiss, g->chunk, n, ctx));
        node += (uint32_t)n;
        build_progress(work_of(node) / work_of(g->shape.nodes));
    }
    *out = (struct graph_source){g->faiss, faiss_graph_walk};
    return ERR_OK;
}

/* ---- native ---- */

static enum err build_natively(struct graph_build *g, struct graph_source *out, struct err_ctx *ctx)
{
    const struct code_scale *scale = codes_serve(g) ? &g->codes.scale : NULL;
    const struct native_options options = {.m = g->shape.m,
                                           .ef_construction = g->shape.ef_construction,
                                           .threads = build_threads(g->build),
                                           .seed = SEED,
                                           .work_of = work_of,
                                           .progress = build_progress};
    RETURN_NOT_OK(points_init(&g->points, g->build->segment, &g->rows, scale, g->norms, ctx));
    build_progress(0);
    RETURN_NOT_OK(native_build(&options, &g->points, &g->native, ctx));
    *out = (struct graph_source){g->native, native_walk};
    return ERR_OK;
}

/* ---- both ---- */

static enum err make_and_write(struct graph_build *g, const char *path, struct err_ctx *ctx)
{
    struct graph_source source;
    RETURN_NOT_OK(find_distinct(g, ctx));
    RETURN_NOT_OK(build_codes(g->build->segment, &g->rows, &g->code_room, &g->codes, ctx));
    if (g->shape.metric == DIST_COSINE)
        RETURN_NOT_OK(build_allocate(&g->norms, g->shape.nodes, sizeof(float), ctx));
    g->shape.builder = pick_builder(g);
    bool native = g->shape.builder == BUILDER_NATIVE;
    RETURN_NOT_OK(native ? build_natively(g, &source, ctx) : faiss_build(g, &source, ctx));
    return ann_file_write(g->build->io, path, &g->shape, &source, &g->rows, g->norms, &g->codes,
                          ctx);
}

enum err build_graph(const struct build *b, const char *path, struct err_ctx *ctx)
{
    struct graph_build g = {.build = b};
    enum err e = make_and_write(&g, path, ctx);
    faiss_graph_free(g.faiss);
    native_free(g.native);
    points_deinit(&g.points);
    distinct_deinit(&g.rows);
    free(g.norms);
    free(g.code_room);
    free(g.chunk);
    return e;
}
