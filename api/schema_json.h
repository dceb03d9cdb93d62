/* Schemas as JSON, as in PUT /v1/collections/{c}. */
#ifndef LOADSTONE_API_SCHEMA_JSON_H
#define LOADSTONE_API_SCHEMA_JSON_H

#include "store/schema.h"

/* The caller gets one reference to a sealed schema. */
WARN_UNUSED enum err schema_read_json(const void *text, size_t n, struct schema **out,
                                      struct err_ctx *ctx);
void schema_write_json(const struct schema *s, struct buf *out);

#endif
