/* JSON in: a pull parser over one text in memory (RFC 8259, strict; UTF-8 checked).
 *
 *   json_object(r)                          [1, 2]: json_array(r)
 *   while (json_next_field(r, &name) ...)           while (json_next_item(r) ...)
 *       read or skip the value                          read or skip the value
 *   json_end(r)
 *
 * Syntax errors are ERR_INVALID and end in "at byte N", counted from the start of the body. A value
 * of the wrong kind, or out of a type's range, is ERR_UNPROCESSABLE. After an error the reader is
 * of no use. One thread at a time. */
#ifndef LOADSTONE_API_JSON_READER_H
#define LOADSTONE_API_JSON_READER_H

#include "base/bytes.h"

enum { JSON_DEPTH_MAX = 64 };

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json_slice {
    const char *data;
    size_t len;
};

struct json_reader {
    const char *start;
    const char *p;
    const char *end;
    uint64_t base; /* where `start` lies in the body */
    unsigned depth;
    bool fresh;              /* just after '[' or '{' */
    struct buf name_scratch; /* names and strings that had escapes */
    struct buf text_scratch;
};

void json_init(struct json_reader *r, const void *text, size_t n, uint64_t base);
/* Keeps the scratch memory for the next text. */
void json_reinit(struct json_reader *r, const void *text, size_t n, uint64_t base);
void json_deinit(struct json_reader *r);

/* The kind of the next value, by its first character. */
WARN_UNUSED enum err json_peek(struct json_reader *r, enum json_type *type, struct err_ctx *ctx);
const char *json_type_name(enum json_type type); /* "a string", "an object" ... */

WARN_UNUSED enum err json_object(struct json_reader *r, struct err_ctx *ctx);
/* `name` is borrowed until the next call of json_next_field; *more false: the object is closed. */
WARN_UNUSED enum err json_next_field(struct json_reader *r, struct json_slice *name, bool *more,
                                     struct err_ctx *ctx);
WARN_UNUSED enum err json_array(struct json_reader *r, struct err_ctx *ctx);
WARN_UNUSED enum err json_next_item(struct json_reader *r, bool *more, struct err_ctx *ctx);

/* `s` is borrowed from the text, or from the reader until the next string. */
WARN_UNUSED enum err json_string(struct json_reader *r, struct json_slice *s, struct err_ctx *ctx);
WARN_UNUSED enum err json_bool(struct json_reader *r, bool *v, struct err_ctx *ctx);
WARN_UNUSED enum err json_null(struct json_reader *r, struct err_ctx *ctx);
/* Whole numbers, "5.0" and "1e3" included. */
WARN_UNUSED enum err json_int64(struct json_reader *r, int64_t *v, struct err_ctx *ctx);
WARN_UNUSED enum err json_float(struct json_reader *r, float *v, struct err_ctx *ctx);
WARN_UNUSED enum err json_double(struct json_reader *r, double *v, struct err_ctx *ctx);
/* An array of numbers: writes the first `cap` and counts them all. */
WARN_UNUSED enum err json_floats(struct json_reader *r, float *out, size_t cap, size_t *n,
                                 struct err_ctx *ctx);
/* Any value, checked for syntax. */
WARN_UNUSED enum err json_skip(struct json_reader *r, struct err_ctx *ctx);
/* The same, and lends its text. */
WARN_UNUSED enum err json_raw(struct json_reader *r, struct json_slice *text, struct err_ctx *ctx);
/* Only white space may be left. */
WARN_UNUSED enum err json_end(struct json_reader *r, struct err_ctx *ctx);

static inline bool json_slice_is(struct json_slice s, const char *text)
{
    return strlen(text) == s.len && memcmp(s.data, text, s.len) == 0;
}

#endif
