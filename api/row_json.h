/* A row as JSON text, {"key":..,"vector":[..],"price":..}, into a batch; and keys as JSON. */
#ifndef LOADSTONE_API_ROW_JSON_H
#define LOADSTONE_API_ROW_JSON_H

#include "api/json_reader.h"
#include "store/batch.h"

struct row_reader {
    struct schema *schema; /* borrowed */
    struct json_reader json;
    struct buf cell;     /* a value in its stored form */
    float *vector;       /* dim */
    uint32_t next_guess; /* the feature that probably comes next: rows repeat their order */
};

WARN_UNUSED enum err row_reader_init(struct row_reader *r, struct schema *s, struct err_ctx *ctx);
void row_reader_deinit(struct row_reader *r);

/* Appends one row. `number` is its place in the body, `offset` the byte where its text starts.
 * Errors name row and field; the batch is then fit for nothing but freeing. */
WARN_UNUSED enum err row_reader_add(struct row_reader *r, struct batch *b, const char *text,
                                    size_t n, uint64_t number, uint64_t offset,
                                    struct err_ctx *ctx);

/* One cell of the batch's last row: the value that comes next in r->json. */
WARN_UNUSED enum err row_reader_feature(struct row_reader *r, struct batch *b, uint32_t feature,
                                        struct err_ctx *ctx);
WARN_UNUSED enum err row_reader_vector(struct row_reader *r, struct batch *b, struct err_ctx *ctx);

/* A key of the collection's type; int64 keys come as numbers or as strings of digits. Fills `i` or
 * `s`. */
WARN_UNUSED enum err key_read(struct json_reader *json, enum key_type type, int64_t *i,
                              struct json_slice *s, struct err_ctx *ctx);
/* Starts a row of the batch with the key that comes next. */
WARN_UNUSED enum err key_read_row(struct json_reader *json, struct batch *b, struct err_ctx *ctx);
/* An array of keys, each a row of its own. An error names the row and the field 'keys'. */
WARN_UNUSED enum err keys_read_rows(struct json_reader *json, struct batch *b, struct err_ctx *ctx);

#endif
