/* A file that FAISS wrote, as it lies in memory: read in place and trusted in nothing.
 *
 * Taken are IndexHNSWFlat and IndexIVFFlat, alone or within IndexIDMap or IndexIDMap2, with the l2
 * or the inner product metric. */
#ifndef LOADSTONE_INDEX_FAISS_FILE_H
#define LOADSTONE_INDEX_FAISS_FILE_H

#include <string.h>

#include "store/schema.h"

enum { FAISS_LEVELS_MAX = 64 };

struct faiss_file {
    enum index_kind kind; /* INDEX_HNSW or INDEX_IVF */
    uint32_t dim, n;      /* n vectors */
    bool inner_product;   /* else l2 */
    /* What follows lies at any offset; n of each unless said otherwise. */
    const uint8_t *ids; /* i64; NULL: 0, 1, ...; of lists: NULL, they have their own */
    /* hnsw */
    uint32_t m, layers, entry, ef_construction;
    uint32_t widths[FAISS_LEVELS_MAX + 1]; /* links of a node with so many layers */
    const uint8_t *vectors;                /* dim f32 */
    const uint8_t *node_layers;            /* i32, checked */
    const uint8_t *links;                  /* i32, node by node; not checked */
    /* ivf */
    uint32_t nlist;
    const uint8_t *centroids; /* nlist x dim f32 */
    uint32_t *sizes;          /* nlist; owned */
    const uint8_t *lists;     /* list by list: vectors, then ids */
};

/* Reads `len` bytes. ERR_INVALID says where the file does not add up, ERR_UNPROCESSABLE which kind
 * of index it is when it is another. Deinit after an error too. */
WARN_UNUSED enum err faiss_file_read(const void *data, size_t len, struct faiss_file *out,
                                     struct err_ctx *ctx);
void faiss_file_deinit(struct faiss_file *f);

static inline int32_t faiss_i32(const uint8_t *at, uint64_t i)
{
    int32_t v;
    memcpy(&v, at + i * sizeof(v), sizeof(v));
    return v;
}

static inline int64_t faiss_i64(const uint8_t *at, uint64_t i)
{
    int64_t v;
    memcpy(&v, at + i * sizeof(v), sizeof(v));
    return v;
}

#endif
