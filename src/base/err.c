/* Errors: codes with a sentence for the user.
 *
 * A sentence is formatted beside the context and copied in, so that a caller may wrap the sentence
 * that is already there: err_set(ctx, code, "part 3: %s", ctx->detail). It never overflows: a
 * longer one is cut.
 *
 * Threads: a context belongs to one call chain. Failure: nothing here fails; a NULL context drops
 * the sentence and keeps the code. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void err_clear(struct err_ctx *ctx)
{
    if (!ctx)
        return;
    ctx->code = ERR_OK;
    ctx->row = -1;
    ctx->field[0] = '\0';
    ctx->detail[0] = '\0';
}

static void set_detail(struct err_ctx *ctx, enum err code, const char *fmt, va_list args)
{
    char detail[sizeof(ctx->detail)];
    vsnprintf(detail, sizeof(detail), fmt, args);
    ctx->code = code;
    memcpy(ctx->detail, detail, sizeof(detail));
}

enum err err_set(struct err_ctx *ctx, enum err code, const char *fmt, ...)
{
    if (ctx) {
        va_list args;
        va_start(args, fmt);
        set_detail(ctx, code, fmt, args);
        va_end(args);
    }
    return code;
}

enum err err_set_at(struct err_ctx *ctx, enum err code, int64_t row, const char *field,
                    const char *fmt, ...)
{
    if (ctx) {
        va_list args;
        va_start(args, fmt);
        set_detail(ctx, code, fmt, args);
        va_end(args);
        ctx->row = row;
        snprintf(ctx->field, sizeof(ctx->field), "%s", field ? field : "");
    }
    return code;
}

static enum err code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ENOMEM:
        return ERR_NO_MEMORY;
    default:
        return ERR_IO;
    }
}

enum err err_system(struct err_ctx *ctx, int errnum, const char *fmt, ...)
{
    enum err code = code_of_errno(errnum);
    if (ctx) {
        va_list args;
        va_start(args, fmt);
        set_detail(ctx, code, fmt, args);
        va_end(args);
        char reason[128];
        const char *text = strerror_r(errnum, reason, sizeof(reason));
        size_t len = strlen(ctx->detail);
        snprintf(ctx->detail + len, sizeof(ctx->detail) - len, ": %s", text);
    }
    return code;
}

enum err err_no_memory(struct err_ctx *ctx, size_t size_bytes)
{
    return err_set(ctx, ERR_NO_MEMORY, "out of memory while reserving %zu bytes", size_bytes);
}

void assert_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, cond);
    abort();
}
