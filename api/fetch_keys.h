/* The keys that a fetch asks for and the rows they led to, held in the request in the order in
 * which they came, repeats kept: r->queries has the keys' bytes, r->refs a row_ref each. */
#ifndef LOADSTONE_API_FETCH_KEYS_H
#define LOADSTONE_API_FETCH_KEYS_H

#include "api/request.h"

static inline size_t fetch_key_count(const struct request *r)
{
    return r->refs.len / sizeof(struct row_ref);
}
/* The row of key i; false when there is none. */
static inline bool fetch_key_row(const struct request *r, size_t i, struct row_ref *out)
{
    *out = ((const struct row_ref *)r->refs.data)[i];
    return out->view != UINT32_MAX;
}

void fetch_keys_reset(struct request *r);
/* The array of keys that the JSON reader stands before. Errors name the row of the bad one. */
WARN_UNUSED enum err fetch_keys_read_json(struct request *r, const struct schema *s,
                                          struct err_ctx *ctx);
/* The whole body: n little-endian int64. */
WARN_UNUSED enum err fetch_keys_read_octets(struct request *r, const struct schema *s,
                                            struct err_ctx *ctx);
/* The path's segment 4. */
WARN_UNUSED enum err fetch_keys_read_path(struct request *r, const struct schema *s,
                                          struct err_ctx *ctx);
/* Looks them all up. */
void fetch_keys_find(struct request *r, const struct snapshot *s);
/* Writes them with commas between them. */
void fetch_keys_put(struct request *r, const struct schema *s);

#endif
