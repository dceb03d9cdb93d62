/* Builds HNSW graphs with FAISS.
 *
 * FAISS owns vectors and graph until faiss_graph_free; faiss_graph_walk lets it write itself to a
 * stream whose other end is the parser of faiss_graph_parser.c.
 *
 * Threads: one caller; FAISS takes OpenMP threads while adding. Failure: an exception that FAISS
 * throws inside an OpenMP region ends the process, which is why builds run in a child. */
#include "index/faiss_graph.h"

#include <errno.h>
#include <stdio.h>

#include "index/faiss_error.h"
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

struct faiss_graph {
    FaissIndex *index;
};

static enum err set_ef_construction(FaissIndex *index, uint32_t ef, struct err_ctx *ctx)
{
    FaissParameterSpace *space = NULL;
    if (faiss_ParameterSpace_new(&space))
        return faiss_failed("preparing an index", ctx);
    int failed = faiss_ParameterSpace_set_index_parameter(space, index, "efConstruction", ef);
    enum err e = failed ? faiss_failed("setting efConstruction", ctx) : ERR_OK;
    faiss_ParameterSpace_free(space);
    return e;
}

enum err faiss_graph_new(uint32_t dim, uint32_t m, uint32_t ef_construction, bool inner_product,
                         struct faiss_graph **out, struct err_ctx *ctx)
{
    char description[64];
    snprintf(description, sizeof(description), "HNSW%u,Flat", m);
    struct faiss_graph *g = calloc(1, sizeof(*g));
    if (!g)
        return err_no_memory(ctx, sizeof(*g));
    FaissMetricType metric = inner_product ? METRIC_INNER_PRODUCT : METRIC_L2;
    enum err e = ERR_OK;
    if (faiss_index_factory(&g->index, (int)dim, description, metric))
        e = faiss_failed("making an index", ctx);
    if (e == ERR_OK)
        e = set_ef_construction(g->index, ef_construction, ctx);
    if (e != ERR_OK) {
        faiss_graph_free(g);
        return e;
    }
    *out = g;
    return ERR_OK;
}

void faiss_graph_free(struct faiss_graph *g)
{
    if (!g)
        return;
    if (g->index)
        faiss_Index_free(g->index);
    free(g);
}

enum err faiss_graph_add(struct faiss_graph *g, const float *vectors, size_t n, struct err_ctx *ctx)
{
    if (faiss_Index_add(g->index, (idx_t)n, vectors))
        return faiss_failed("adding vectors", ctx);
    return ERR_OK;
}

struct walk {
    struct graph_parser *parser;
    struct err_ctx *ctx;
    enum err err; /* of the parser or the sink */
};

static ssize_t walk_write(void *cookie, const char *data, size_t n)
{
    struct walk *w = cookie;
    if (w->err == ERR_OK)
        w->err = graph_parser_push(w->parser, data, n, w->ctx);
    return w->err == ERR_OK ? (ssize_t)n : 0; /* 0 is how a cookie stream reports an error */
}

static enum err walk_stream(struct faiss_graph *g, struct walk *w)
{
    FILE *f = fopencookie(w, "w", (cookie_io_functions_t){.write = walk_write});
    if (!f)
        return err_system(w->ctx, errno, "cannot open a stream for the graph");
    int failed = faiss_write_index(g->index, f);
    int closed = fclose(f);
    if (w->err != ERR_OK)
        return w->err;
    if (failed)
        return faiss_failed("writing the graph", w->ctx);
    if (closed != 0)
        return err_set(w->ctx, ERR_INTERNAL, "FAISS failed while writing the graph: cut short");
    return graph_parser_finish(w->parser, w->ctx);
}

enum err faiss_graph_walk(void *graph, const struct graph_sink *sink, struct err_ctx *ctx)
{
    struct walk w = {.ctx = ctx};
    RETURN_NOT_OK(graph_parser_new(sink, &w.parser, ctx));
    enum err e = walk_stream(graph, &w);
    graph_parser_free(w.parser);
    return e;
}
