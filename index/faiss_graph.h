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

#include "index/graph_source.h"

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

/* Walks the finished graph, a struct faiss_graph, into a sink: a graph_source. */
WARN_UNUSED enum err faiss_graph_walk(void *graph, const struct graph_sink *sink,
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
