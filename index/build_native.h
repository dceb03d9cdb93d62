/* Builds an HNSW graph by insertion, on 8-bit codes of the vectors where they are good enough, else
 * on the vectors. (Y. Malkov, D. Yashunin, "Efficient and robust approximate nearest neighbor
 * search using Hierarchical Navigable Small World graphs", 2016; levels and the choice of
 * neighbours as in FAISS 1.7.) */
#ifndef LOADSTONE_INDEX_BUILD_NATIVE_H
#define LOADSTONE_INDEX_BUILD_NATIVE_H

#include "index/codes.h"
#include "index/distinct.h"
#include "index/graph_source.h"

/* What the distances are taken from: a row of `stride` bytes per node. */
enum points_kind { POINTS_CODES, POINTS_L2, POINTS_DOT };

struct points {
    enum points_kind kind;
    uint32_t nodes, dim;
    size_t stride; /* codes: of code_stride; else dim floats */
    uint8_t *data; /* aligned to CODE_ALIGN */
};

/* Whether codes of so many dimensions can be compared. */
bool points_codes_fit(uint32_t dim);
/* Takes the vectors of the nodes: as 8-bit codes over the range of `scale` (uniform), or as floats
 * when that is NULL, at length 1 for cosine. norms (per node, what the vector was multiplied by)
 * may be NULL. Deinit after an error too. */
WARN_UNUSED enum err points_init(struct points *p, const struct segment *s,
                                 const struct distinct *rows, const struct code_scale *scale,
                                 float *norms, struct err_ctx *ctx);
void points_deinit(struct points *p);

struct native_options {
    uint32_t m;                    /* links of a node and layer; 2m on the bottom layer */
    uint32_t ef_construction;      /* candidates while building */
    unsigned threads;              /* at least 1 */
    uint64_t seed;                 /* of levels and order */
    void (*progress)(double done); /* called by the calling thread, 0..1; may be NULL */
    double (*work_of)(double i);   /* what i insertions cost, in any unit; may be NULL with it */
};

/* Builds over the points, at least one and at most INT32_MAX of them. With one thread the same
 * input gives the same graph; with more the order of insertion is the threads'. All memory is
 * allocated before the first insertion: ERR_NO_MEMORY. */
struct native_graph;
WARN_UNUSED enum err native_build(const struct native_options *o, const struct points *p,
                                  struct native_graph **out, struct err_ctx *ctx);
void native_free(struct native_graph *g); /* NULL is allowed */

/* Walks a finished graph (a struct native_graph) into a sink: a graph_source. */
WARN_UNUSED enum err native_walk(void *graph, const struct graph_sink *sink, struct err_ctx *ctx);

/* Memory of a build with one thread, in bytes; each further one takes a fifth of a byte a node. */
uint64_t native_bytes(uint64_t nodes, uint32_t dim, uint32_t m, bool codes);

#endif
