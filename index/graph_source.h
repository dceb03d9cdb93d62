/* A finished graph on its way into a file: who has one walks it into a sink, node by node. */
#ifndef LOADSTONE_INDEX_GRAPH_SOURCE_H
#define LOADSTONE_INDEX_GRAPH_SOURCE_H

#include "base/err.h"

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

struct graph_source {
    void *graph;
    enum err (*walk)(void *graph, const struct graph_sink *sink, struct err_ctx *ctx);
};

#endif
