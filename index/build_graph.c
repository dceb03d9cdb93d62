/* Builds the HNSW graph of a segment.
 *
 *   segment (mapped) ─ distinct vectors, which rows have them ─ scale of their codes
 *        └─ chunks of them, normalised for cosine ─> FAISS ─ graph, node by node ─> file
 *
 * Cosine graphs are built with Euclidean distance over normalised vectors: the order of neighbours
 * is the same. The chunk is the node count halved until it is small: FAISS's arrays double as they
 * grow, and so end exactly full instead of twice too large.
 *
 * Threads: one, and FAISS's. Failure: a sentence; everything is freed. */
#include "index/build_codes.h"
#include "index/build_internal.h"

enum { CHUNK_ROWS_MAX = 4000, CHUNK_BYTES_MAX = 32 << 20 };

struct graph_build {
    const struct build *build;
    struct faiss_graph *graph;
    struct ann_shape shape;
    struct distinct rows;
    float *norms; /* per node, 1 / |vector|; NULL unless cosine */
    float *chunk; /* copies for FAISS */
    size_t chunk_rows;
    struct ann_codes codes;
    float *code_room; /* lo and step */
    bool coded;       /* the file gets codes */
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

static enum err prepare(struct graph_build *g, struct err_ctx *ctx)
{
    const struct ann_shape *sh = &g->shape;
    size_t row_bytes = sh->dim * sizeof(float);
    g->chunk_rows = sh->nodes;
    while (g->chunk_rows > 1 &&
           (g->chunk_rows > CHUNK_ROWS_MAX || g->chunk_rows * row_bytes > CHUNK_BYTES_MAX))
        g->chunk_rows = (g->chunk_rows + 1) / 2;
    RETURN_NOT_OK(build_allocate(&g->chunk, g->chunk_rows, row_bytes, ctx));
    if (sh->metric == DIST_COSINE)
        RETURN_NOT_OK(build_allocate(&g->norms, sh->nodes, sizeof(float), ctx));
    return faiss_graph_new(sh->dim, sh->m, sh->ef_construction, sh->metric == DIST_IP, &g->graph,
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

static enum err add_vectors(struct graph_build *g, struct err_ctx *ctx)
{
    uint32_t node = 0;
    while (node < g->shape.nodes) {
        size_t n = fill_chunk(g, node);
        RETURN_NOT_OK(faiss_graph_add(g->graph, g->chunk, n, ctx));
        node += (uint32_t)n;
        build_progress((double)node / g->shape.nodes);
    }
    return ERR_OK;
}

static enum err make_and_write(struct graph_build *g, const char *path, struct err_ctx *ctx)
{
    RETURN_NOT_OK(find_distinct(g, ctx));
    RETURN_NOT_OK(
        build_codes(g->build->segment, &g->rows, &g->code_room, &g->codes, &g->coded, ctx));
    RETURN_NOT_OK(prepare(g, ctx));
    RETURN_NOT_OK(add_vectors(g, ctx));
    return ann_file_write(g->build->io, path, &g->shape, g->graph, &g->rows, g->norms,
                          g->coded ? &g->codes : NULL, ctx);
}

enum err build_graph(const struct build *b, const char *path, struct err_ctx *ctx)
{
    struct graph_build g = {.build = b};
    enum err e = make_and_write(&g, path, ctx);
    faiss_graph_free(g.graph);
    distinct_deinit(&g.rows);
    free(g.norms);
    free(g.code_room);
    free(g.chunk);
    return e;
}
