/* The tail: a segment that grows in memory, holding the rows of small commits until they are sealed
 * into a file with the same id and the same row numbers.
 *
 *   chunk[i]: vectors  chunk_rows x dim      rows never move: readers keep pointers
 *             strips   chunk_rows x strip_bytes
 *             keys, var cells: pointers into append-only blocks
 *   table:    hash -> newest row + 1;  prev[row] -> older row of the same key + 1
 *
 * One writer (the collection's commit lock), any number of readers. A row is complete before the
 * table leads to it; a snapshot's row count decides whether a reader may use it. */
#ifndef LOADSTONE_STORE_TAIL_H
#define LOADSTONE_STORE_TAIL_H

#include "store/row.h"

enum {
    TAIL_ROWS_SOFT = 65536, /* from here on it is sealed */
    TAIL_BYTES_SOFT = 32 << 20,
    TAIL_ROWS_HARD = 4 * TAIL_ROWS_SOFT, /* from here on commits wait for the sealing */
    TAIL_BYTES_HARD = 4 * TAIL_BYTES_SOFT,
    INLINE_ROWS_MAX = 16384, /* what one commit may put into the tail */
    INLINE_BYTES_MAX = 4 << 20,
};

/* A new tail as a segment (tail != NULL). */
WARN_UNUSED enum err tail_new(uint64_t id, struct schema *schema, struct segment **out,
                              struct err_ctx *ctx);
void tail_free(struct tail *t);

/* Room for `rows` more rows in at most `runs` runs of consecutive seq, with `payload` bytes of
 * string keys and variable cells in all, so that the appends that follow cannot fail. */
WARN_UNUSED enum err tail_reserve(struct segment *s, uint32_t rows, uint32_t runs, size_t payload,
                                  struct err_ctx *ctx);
/* Appends a row within the reservation; its number is tail_rows() before the call. */
void tail_append(struct segment *s, const struct row *r, uint64_t version, uint64_t ordinal);
/* On any thread; exact under the commit lock only. */
uint32_t tail_rows(const struct segment *s);
size_t tail_bytes(const struct segment *s);

/* The tail's part of the segment calls. */
int64_t tail_key_int(const struct tail *t, uint32_t row);
const void *tail_key_str(const struct tail *t, uint32_t row, size_t *len);
const float *tail_vector_run(const struct tail *t, uint32_t row, uint32_t *n);
uint64_t tail_vector_nulls(const struct tail *t, uint32_t w);
const uint8_t *tail_strip(const struct tail *t, uint32_t row);
const void *tail_var(const struct tail *t, uint32_t row, uint32_t var_index, size_t *len);
uint32_t tail_find(const struct tail *t, const void *key, size_t len, uint64_t hash);
uint32_t tail_older(const struct tail *t, uint32_t row);
/* Inside an epoch section, unless no rows come any more: the list moves when it is outgrown. */
const struct seq_run *tail_runs(const struct tail *t, uint32_t *n);

#endif
