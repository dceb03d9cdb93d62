/* A batch: columnar rows in memory, the one thing that crosses between codecs and the store.
 *
 * Every cell is ABSENT, NULL or VALUE. A column has one state byte a row; rows past the end of
 * `state` (all of them in a column that is the same throughout) are in state `whole`. Keys are a
 * run (first_key, first_key + 1, ...), an int64 array or a string column.
 *
 * A codec fills a batch row by row (batch_row, batch_set_*), or points vectors at memory of its own
 * (batch_borrow_vectors), and hands it to load_add; then batch_reset and on. One thread at a time.
 */
#ifndef LOADSTONE_STORE_BATCH_H
#define LOADSTONE_STORE_BATCH_H

#include "store/schema.h"

enum cell_state { CELL_ABSENT = 0, CELL_NULL = 1, CELL_VALUE = 2 };

struct column {
    uint8_t whole;      /* state of the rows that `state` does not reach */
    struct buf state;   /* enum cell_state, one byte a row */
    struct buf values;  /* fixed width: n x width. variable: the bytes */
    struct buf offsets; /* variable: u32 x (n + 1) into values */
};

struct batch {
    struct schema *schema; /* referenced */
    size_t rows;
    bool keys_run; /* keys are first_key + row */
    int64_t first_key;
    struct buf int_keys; /* int64 x rows, when the key type is int64 and not a run */
    struct column str_keys;
    struct column vector;    /* values: rows x dim float32 */
    const float *borrowed;   /* replaces vector.values when not NULL */
    struct column *features; /* [schema->nfeatures] */
    uint64_t first_row;      /* row number in the body of row 0, for error messages */
};

WARN_UNUSED enum err batch_new(struct schema *s, struct batch **out, struct err_ctx *ctx);
void batch_free(struct batch *b); /* NULL is allowed */
/* Empties the batch and keeps its memory; first_row moves on by the rows dropped. */
void batch_reset(struct batch *b);
/* Bytes held, for deciding when to flush. */
size_t batch_bytes(const struct batch *b);

/* Starts a row: every cell ABSENT until set. Then exactly one key call. */
WARN_UNUSED enum err batch_row_int(struct batch *b, int64_t key, struct err_ctx *ctx);
WARN_UNUSED enum err batch_row_str(struct batch *b, const char *key, size_t len,
                                   struct err_ctx *ctx);
/* Cells of the last row. A second value for the same cell is 422. `vec` is dim float32. */
WARN_UNUSED enum err batch_set_vector(struct batch *b, const float *vec, struct err_ctx *ctx);
WARN_UNUSED enum err batch_set_vector_null(struct batch *b, struct err_ctx *ctx);
/* `data` is the value in its stored form (see enum feature_type): `len` = width for fixed width. */
WARN_UNUSED enum err batch_set(struct batch *b, uint32_t feature, const void *data, size_t len,
                               struct err_ctx *ctx);
WARN_UNUSED enum err batch_set_null(struct batch *b, uint32_t feature, struct err_ctx *ctx);

/* n rows of borrowed vectors (n x dim float32, valid until reset) with keys first_key, first_key+1,
 * ...; features absent. */
WARN_UNUSED enum err batch_borrow_vectors(struct batch *b, const float *vectors, size_t n,
                                          int64_t first_key, struct err_ctx *ctx);

/* Reading. */
static inline enum cell_state column_state(const struct column *c, size_t row)
{
    return row < c->state.len ? (enum cell_state)c->state.data[row] : (enum cell_state)c->whole;
}
static inline const void *column_var(const struct column *c, size_t row, size_t *len)
{
    const uint32_t *o = (const uint32_t *)c->offsets.data;
    *len = o[row + 1] - o[row];
    return c->values.data + o[row];
}
static inline int64_t batch_int_key(const struct batch *b, size_t row)
{
    return b->keys_run ? b->first_key + (int64_t)row : ((const int64_t *)b->int_keys.data)[row];
}
static inline const float *batch_vector(const struct batch *b, size_t row)
{
    const float *base = b->borrowed ? b->borrowed : (const float *)b->vector.values.data;
    return base + row * b->schema->dim;
}

/* Checks every row against the schema's rules: finite vectors, no zero vector for cosine, key
 * lengths and UTF-8, event_time set. 422 naming row and field. */
WARN_UNUSED enum err batch_validate(const struct batch *b, struct err_ctx *ctx);

#endif
