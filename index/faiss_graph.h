/* An HNSW graph under construction in FAISS, through its C API, and the way to get the links out.
 *
 * FAISS's C API has no access to the graph itself, but faiss_write_index writes it to a FILE: that
 * stream is parsed as it is produced and handed on node by node, so the graph never exists twice.
 *
 * One thread at a time; FAISS itself runs OpenMP threads inside faiss_graph_add. Errors of FAISS
 * become sentences that begin with "FAISS". */
#ifndef LOADSTONE_INDEX_FAISS_GRAPH_H
#define LOADSTONE_INDEX_FAISS_GRAPH_H

#include <stddef.h>

#include "base/err.h"

struct faiss_graph;

/* An empty graph with m links per node (2m on the bottom layer) over Euclidean distance or inner
 * product. */
WARN_UNUSED enum err faiss_graph_new(uint32_t dim, uint32_t m, uint32_t ef_construction,
                                     bool inner_product, struct faiss_graph **out,
                                     struct err_ctx *ctx);
void faiss_graph_free(struct faiss_graph *g); /* NULL is allowed */

/* Adds n x dim vectors; their nodes count on from those before. */
WARN_UNUSED enum err faiss_graph_add(struct faiss_graph *g, const float *vectors, size_t n,
                                     struct err_ctx *ctx);

/* What takes the graph. An error returned by a call ends the walk and is passed on. */
struct graph_sink {
    void *arg;
    /* Once, first: layers[i] = number of layers of node i, 1 = bottom only; borrowed until the
     * walk ends. m is the width of an upper list. */
    enum err (*begin)(void *arg, uint32_t nodes, uint32_t m, const uint8_t *layers,
                      struct err_ctx *ctx);
    /* Each node in order: 2m links of the bottom layer, then m of each upper one; UINT32_MAX in
     * the places that are free. */
    enum err (*node)(void *arg, uint32_t node, const uint32_t *links, struct err_ctx *ctx);
    /* Once, last. */
    enum err (*end)(void *arg, uint32_t entry, uint32_t layers, struct err_ctx *ctx);
};
WARN_UNUSED enum err faiss_graph_walk(struct faiss_graph *g, const struct graph_sink *sink,
                                      struct err_ctx *ctx);

/* The parser of that stream by itself: bytes of a FAISS "IHNf" index in pieces of any size. */
struct graph_parser;
WARN_UNUSED enum err graph_parser_new(const struct graph_sink *sink, struct graph_parser **out,
                                      struct err_ctx *ctx);
WARN_UNUSED enum err graph_parser_push(struct graph_parser *p, const void *data, size_t n,
                                       struct err_ctx *ctx);
/* ERR_CORRUPT when the stream ended before the graph did. */
WARN_UNUSED enum err graph_parser_finish(struct graph_parser *p, struct err_ctx *ctx);
void graph_parser_free(struct graph_parser *p); /* NULL is allowed */

#endif
