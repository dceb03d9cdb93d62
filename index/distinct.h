/* The distinct vectors of a segment: one node of a graph each, whatever the number of rows that
 * share it. */
#ifndef LOADSTONE_INDEX_DISTINCT_H
#define LOADSTONE_INDEX_DISTINCT_H

#include "store/segment.h"

/* A node's row is the first that has its vector; the rows after it are its twins. */
struct distinct {
    uint32_t nodes;
    uint32_t ntwins;
    uint32_t *rows;     /* per node, ascending; NULL: node = row */
    uint32_t *twins_at; /* nodes + 1: where a node's twins start in `twins`; NULL: no twins */
    uint32_t *twins;    /* rows; those of one node in the order of their keys */
};

/* Sorts the rows of a mapped segment, `vectors` of which have a vector, by graph_vector to the bit.
 * Takes less than 26 bytes a vector and 24 a twin while it runs. Deinit after an error too. */
WARN_UNUSED enum err distinct_find(const struct segment *s, uint32_t vectors, struct distinct *out,
                                   struct err_ctx *ctx);
void distinct_deinit(struct distinct *d);

/* The vector of a row as it goes into a graph (dim float32): of length 1 for cosine, minus zero as
 * zero. Returns what it was multiplied by. */
double graph_vector(const struct segment *s, uint32_t row, float *restrict out);

#endif
