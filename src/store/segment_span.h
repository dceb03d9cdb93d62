/* Checks the blocks that a span of rows lies in against their checksums: for who copies rows out of
 * a segment and must not pass on what the disk has damaged. */
#ifndef LOADSTONE_STORE_SEGMENT_SPAN_H
#define LOADSTONE_STORE_SEGMENT_SPAN_H

#include "store/snapshot.h"

enum { SPAN_VECTORS = 1, SPAN_FEATURES = 2 };

/* Keys of rows [first, last], and what `parts` adds. Nothing for a tail. ERR_CORRUPT names file and
 * offset. */
WARN_UNUSED enum err segment_verify_span(const struct segment *s, uint32_t first, uint32_t last,
                                         unsigned parts, struct err_ctx *ctx);
/* The same for the seqs of all its rows. */
WARN_UNUSED enum err segment_verify_runs(const struct segment *s, struct err_ctx *ctx);

/* The rows that were copied since the last check, a span a view. */
struct row_spans {
    const struct snapshot *snapshot; /* borrowed */
    struct row_span *views;
};

WARN_UNUSED enum err row_spans_init(struct row_spans *r, const struct snapshot *s,
                                    struct err_ctx *ctx);
void row_spans_deinit(struct row_spans *r);
/* Rows of a view come in ascending order. */
void row_spans_add(struct row_spans *r, struct row_ref row);
/* Checks what was added, and starts anew. */
WARN_UNUSED enum err row_spans_check(struct row_spans *r, unsigned parts, struct err_ctx *ctx);

#endif
