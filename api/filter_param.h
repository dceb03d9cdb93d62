/* The filter of a request, wherever it stands: in a query string or in a body. */
#ifndef LOADSTONE_API_FILTER_PARAM_H
#define LOADSTONE_API_FILTER_PARAM_H

#include "api/request.h"
#include "store/filter.h"

/* Parses text[0, n) within filter_bytes_max; the caller frees. The error's field is the feature
 * that it is about, or `filter`. */
WARN_UNUSED enum err filter_read(const struct request *r, const struct schema *s, const char *text,
                                 size_t n, struct filter **out, struct err_ctx *ctx);
/* The query parameter `filter`; NULL when there is none. */
WARN_UNUSED enum err filter_read_param(const struct request *r, const struct schema *s,
                                       struct filter **out, struct err_ctx *ctx);
/* A JSON string, or null for none. */
WARN_UNUSED enum err filter_read_json(struct request *r, const struct schema *s,
                                      struct filter **out, struct err_ctx *ctx);

/* Microseconds to evaluate it on every row of a snapshot; NULL: none. */
double filter_cost_us(const struct filter *f, const struct snapshot *s);

#endif
