/* Filters as they come over HTTP.
 *
 * Threads: the request's. Failure: 413 over filter_bytes_max, else what filter_parse says. */
#include "api/filter_param.h"

#include <stdio.h>

enum err filter_read(const struct request *r, const struct schema *s, const char *text, size_t n,
                     struct filter **out, struct err_ctx *ctx)
{
    uint64_t max = r->service->limits.filter_bytes_max;
    enum err e = n > max ? err_set(ctx, ERR_TOO_LARGE,
                                   "the filter has %zu bytes, more than filter_bytes_max (%llu)", n,
                                   (unsigned long long)max)
                         : filter_parse(s, text, n, out, ctx);
    if (e != ERR_OK && ctx && !ctx->field[0])
        snprintf(ctx->field, sizeof(ctx->field), "filter");
    return e;
}

enum err filter_read_param(const struct request *r, const struct schema *s, struct filter **out,
                           struct err_ctx *ctx)
{
    const struct target_segment *text = target_param(&r->target, "filter");
    *out = NULL;
    return text ? filter_read(r, s, text->text, text->len, out, ctx) : ERR_OK;
}

enum err filter_read_json(struct request *r, const struct schema *s, struct filter **out,
                          struct err_ctx *ctx)
{
    enum json_type type;
    struct json_slice text;
    *out = NULL;
    RETURN_NOT_OK(json_peek(&r->json, &type, ctx));
    if (type == JSON_NULL)
        return json_null(&r->json, ctx);
    RETURN_NOT_OK(json_string(&r->json, &text, ctx));
    return filter_read(r, s, text.data, text.len, out, ctx);
}

double filter_cost_us(const struct filter *f, const struct snapshot *s)
{
    double rows = 0;
    for (uint32_t i = 0; f && i < s->nviews; i++)
        rows += s->views[i].rows;
    return f ? rows * (filter_row_ns(f) + 1) / 1000 : 0;
}
