/* Schemas as JSON, as in PUT and PATCH /v1/collections/{c}. */
#ifndef LOADSTONE_API_SCHEMA_JSON_H
#define LOADSTONE_API_SCHEMA_JSON_H

#include "store/schema.h"

/* The caller gets one reference to a sealed schema. */
WARN_UNUSED enum err schema_read_json(const void *text, size_t n, struct schema **out,
                                      struct err_ctx *ctx);
/* PATCH: `current` with more features and other settings. ERR_CONFLICT when a feature is there with
 * another type. */
WARN_UNUSED enum err schema_patch_json(const void *text, size_t n, const struct schema *current,
                                       struct schema **out, struct err_ctx *ctx);
/* The same with a body that holds the fields of `index` and may be empty. */
WARN_UNUSED enum err schema_patch_index_json(const void *text, size_t n,
                                             const struct schema *current, struct schema **out,
                                             struct err_ctx *ctx);
void schema_write_json(const struct schema *s, struct buf *out);

#endif
