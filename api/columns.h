/* Which features an answer shows, and rows written as JSON. */
#ifndef LOADSTONE_API_COLUMNS_H
#define LOADSTONE_API_COLUMNS_H

#include "api/json_reader.h"
#include "api/target.h"
#include "store/snapshot.h"

/* A list of feature indexes in a buffer of the caller's. */
static inline size_t columns_count(const struct buf *list)
{
    return list->len / sizeof(uint32_t);
}
static inline uint32_t columns_get(const struct buf *list, size_t i)
{
    return ((const uint32_t *)list->data)[i];
}

/* ["price","tags"]; a name that comes twice is taken once; null is an empty list. An unknown name
 * is ERR_UNPROCESSABLE. */
WARN_UNUSED enum err columns_read_json(struct json_reader *json, const struct schema *s,
                                       struct buf *list, struct err_ctx *ctx);
/* "price,tags" */
WARN_UNUSED enum err columns_read_text(const char *text, const struct schema *s, struct buf *list,
                                       struct err_ctx *ctx);
/* Those that the query parameter "features" names; all when it is not given. */
WARN_UNUSED enum err columns_of_query(const struct target *t, const struct schema *s,
                                      struct buf *list, struct err_ctx *ctx);
WARN_UNUSED enum err columns_all(const struct schema *s, struct buf *list, struct err_ctx *ctx);

/* Estimated microseconds to write `rows` rows with these columns. */
double columns_cost_us(const struct schema *s, const struct buf *list, bool with_vectors,
                       size_t rows);

/* "name": */
void columns_put_name(struct buf *out, const struct schema *s, uint32_t feature);
void row_put_key(struct buf *out, const struct snapshot *s, struct row_ref ref);
void row_put_cell(struct buf *out, const struct snapshot *s, struct row_ref ref, uint32_t feature);
/* {"price":1.5,"tags":null} */
void row_put_features(struct buf *out, const struct snapshot *s, struct row_ref ref,
                      const struct buf *list);
/* [..] or null */
void row_put_vector(struct buf *out, const struct snapshot *s, struct row_ref ref);

#endif
