/* A .npy body into a load: float32 vectors whose keys count on from first_key. One thread at a
 * time. */
#ifndef LOADSTONE_API_NPY_ROWS_H
#define LOADSTONE_API_NPY_ROWS_H

#include "api/npy.h"
#include "api/row_sink.h"

struct npy_rows {
    struct row_sink sink;
    struct batch *batch; /* borrowed; empty between calls */
    int64_t first_key;
    uint64_t body_bytes; /* of the whole body; 0 = unknown */
    bool started;        /* the header is behind us */
    struct npy_array array;
    uint64_t rows;    /* loaded */
    struct buf head;  /* the header, as it comes */
    struct buf carry; /* a row that was cut between two pieces; then, rows on their way to an
                         aligned address */
};

void npy_rows_init(struct npy_rows *s, struct row_sink sink, struct batch *b, int64_t first_key,
                   uint64_t body_bytes);
void npy_rows_deinit(struct npy_rows *s);

WARN_UNUSED enum err npy_rows_feed(struct npy_rows *s, const void *data, size_t n,
                                   struct err_ctx *ctx);
/* The body is complete: ERR_INVALID when rows are missing. */
WARN_UNUSED enum err npy_rows_finish(struct npy_rows *s, struct err_ctx *ctx);

#endif
