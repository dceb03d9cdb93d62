/* The order in which a merge takes rows: those of all inputs that are kept, by seq, as pieces of
 * consecutive rows of one input.
 *
 *   input 0  [ 1.0 .. 1.99 ][ 4.0 .. 4.9 ]        pieces  0: 0..99 | 1: 0..16 | 2: 0 | 1: 17.. | 0:
 *   input 1  [ 2.0 .. 2.299 ]                             100..
 *   input 2  [ 2.17 ]
 *
 * What does not interleave comes whole: memory grows with the pieces, not with the rows. */
#ifndef LOADSTONE_STORE_MERGE_ORDER_H
#define LOADSTONE_STORE_MERGE_ORDER_H

#include "store/merge.h"

/* Rows row, row + 1, ... of an input are rows first, first + 1, ... of the output. */
struct merge_piece {
    uint32_t input;
    uint32_t row;
    uint32_t first;
};

struct merge_order {
    struct buf pieces; /* struct merge_piece */
    struct buf runs;   /* struct seq_run of the output */
    uint32_t rows;
};

/* Fills `maps` too (n of them, zeroed by the caller, who frees them after an error as well). */
WARN_UNUSED enum err merge_order_make(const struct merge_input *in, size_t n,
                                      struct merge_order *out, struct merge_map *maps,
                                      struct err_ctx *ctx);
void merge_order_deinit(struct merge_order *o);

static inline const struct merge_piece *merge_pieces(const struct merge_order *o, size_t *n)
{
    *n = o->pieces.len / sizeof(struct merge_piece);
    return (const struct merge_piece *)o->pieces.data;
}
static inline uint32_t merge_piece_rows(const struct merge_order *o, size_t i)
{
    size_t n;
    const struct merge_piece *p = merge_pieces(o, &n);
    return (i + 1 < n ? p[i + 1].first : o->rows) - p[i].first;
}

#endif
