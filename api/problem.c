/* Errors as HTTP: enum err -> status and title.
 *
 * Threads: no state. Failure: memory running out shows in out->failed. */
#include "api/problem.h"

#include <stdio.h>
#include <string.h>

#include "api/json_writer.h"

static const struct {
    unsigned status;
    const char *title;
} table[ERR_COUNT] = {
    [ERR_OK] = {200, "OK"},
    [ERR_INVALID] = {400, "Bad request"},
    [ERR_UNAUTHORIZED] = {401, "Not authorized"},
    [ERR_FORBIDDEN] = {403, "Forbidden"},
    [ERR_NOT_FOUND] = {404, "Not found"},
    [ERR_METHOD] = {405, "Method not allowed"},
    [ERR_NOT_ACCEPTABLE] = {406, "Not acceptable"},
    [ERR_TIMEOUT] = {408, "Too slow"},
    [ERR_CONFLICT] = {409, "Conflict"},
    [ERR_GONE] = {410, "Gone"},
    [ERR_PRECONDITION] = {412, "Precondition failed"},
    [ERR_TOO_LARGE] = {413, "Too large"},
    [ERR_RANGE] = {416, "No such range"},
    [ERR_UNSUPPORTED] = {415, "Unsupported media type"},
    [ERR_UNPROCESSABLE] = {422, "Data does not fit"},
    [ERR_BUSY] = {429, "Too busy"},
    [ERR_IO] = {500, "Input/output error"},
    [ERR_CORRUPT] = {500, "Damaged data"},
    [ERR_INTERNAL] = {500, "Internal error"},
    [ERR_UNAVAILABLE] = {503, "Unavailable"},
    [ERR_NO_MEMORY] = {503, "Out of memory"},
    [ERR_NO_SPACE] = {507, "Disk full"},
    [ERR_AGAIN] = {503, "Unavailable"},
};

unsigned problem_status(enum err code)
{
    ASSERT((unsigned)code < ERR_COUNT);
    return table[code].status;
}

void problem_write(const struct err_ctx *err, struct buf *out)
{
    buf_printf(out, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%u,\"detail\":",
               table[err->code].title, problem_status(err->code));
    json_put_text(out, err->detail);
    if (err->row >= 0) {
        json_put_raw(out, ",\"row\":");
        json_put_int(out, err->row);
    }
    if (err->field[0]) {
        json_put_raw(out, ",\"field\":");
        json_put_text(out, err->field);
    }
    json_put_raw(out, "}\n");
}

static void name_field(struct err_ctx *ctx)
{
    char sentence[sizeof ctx->detail];
    if (strstr(ctx->detail, ctx->field))
        return;
    memcpy(sentence, ctx->detail, sizeof sentence);
    int n = snprintf(ctx->detail, sizeof ctx->detail, "%s: ", ctx->field);
    snprintf(ctx->detail + n, sizeof ctx->detail - (size_t)n, "%s", sentence);
}

void problem_place(struct err_ctx *ctx, int64_t row, const char *field, size_t field_len)
{
    if (!ctx)
        return;
    if (ctx->row < 0)
        ctx->row = row;
    if (ctx->field[0] || !field)
        return;
    int n = (int)(field_len < sizeof ctx->field ? field_len : sizeof ctx->field - 1);
    snprintf(ctx->field, sizeof ctx->field, "%.*s", n, field);
    name_field(ctx);
}
