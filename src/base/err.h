/* Errors: an errno-style code plus an optional sentence for the user.
 *
 * Functions return `enum err`; the last argument is an optional `struct err_ctx *` that carries
 * the sentence a person will read, and the row and field it speaks of. Only api/ maps codes to
 * HTTP statuses. A NULL context is allowed everywhere. */
#ifndef LOADSTONE_BASE_ERR_H
#define LOADSTONE_BASE_ERR_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define WARN_UNUSED __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

enum err {
    ERR_OK = 0,
    ERR_INVALID,        /* does not parse, or options conflict: 400 */
    ERR_UNAUTHORIZED,   /* 401 */
    ERR_FORBIDDEN,      /* 403 */
    ERR_NOT_FOUND,      /* 404 */
    ERR_METHOD,         /* 405 */
    ERR_NOT_ACCEPTABLE, /* 406 */
    ERR_TIMEOUT,        /* 408 */
    ERR_CONFLICT,       /* 409 */
    ERR_GONE,           /* 410 */
    ERR_PRECONDITION,   /* 412 */
    ERR_TOO_LARGE,      /* 413 */
    ERR_RANGE,          /* no such part of what is there: 416 */
    ERR_UNSUPPORTED,    /* 415 */
    ERR_UNPROCESSABLE,  /* parses but contradicts schema or data: 422 */
    ERR_BUSY,           /* over a limit for the moment: 429 with Retry-After */
    ERR_IO,             /* the system failed a file operation: 500 */
    ERR_CORRUPT,        /* a checksum or an invariant of a file does not hold: 500 */
    ERR_INTERNAL,       /* 500 */
    ERR_UNAVAILABLE,    /* read-only or quarantined: 503 */
    ERR_NO_MEMORY,      /* 503 */
    ERR_NO_SPACE,       /* the disk is full: 507 */
    ERR_AGAIN,          /* would have to read files here: once more on a worker. Inside only: 503 */
    ERR_COUNT
};

struct err_ctx {
    enum err code;
    int64_t row;       /* 0-based row of the body, or -1 */
    char field[136];   /* name of the field, or "" */
    char detail[1024]; /* one sentence: what is wrong and what to do */
};

/* Resets `ctx` to "no error" (row -1, no field). */
void err_clear(struct err_ctx *ctx);

/* Writes the sentence and returns `code`, so that callers say `return err_set(...)`. The row and
 * the field already noted stay. */
enum err err_set(struct err_ctx *ctx, enum err code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* As err_set, and names the row (or -1) and the field (or NULL). */
enum err err_set_at(struct err_ctx *ctx, enum err code, int64_t row, const char *field,
                    const char *fmt, ...) PRINTF_LIKE(5, 6);

/* Sentence for a failed system call: "WHAT: strerror(errnum)". ENOSPC and EDQUOT become
 * ERR_NO_SPACE, ENOMEM becomes ERR_NO_MEMORY, everything else ERR_IO. */
enum err err_system(struct err_ctx *ctx, int errnum, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* ERR_NO_MEMORY with a sentence that names the size. */
enum err err_no_memory(struct err_ctx *ctx, size_t size_bytes);

#define RETURN_NOT_OK(expr)                                                                        \
    do {                                                                                           \
        enum err err_ = (expr);                                                                    \
        if (err_ != ERR_OK)                                                                        \
            return err_;                                                                           \
    } while (0)

/* A broken invariant: prints the place and aborts, in release builds too. */
#define ASSERT(cond)                                                                               \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            assert_failed(#cond, __FILE__, __LINE__);                                              \
    } while (0)
_Noreturn void assert_failed(const char *cond, const char *file, int line);

#endif
