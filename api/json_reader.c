/* JSON in: a pull parser.
 *
 * Invariant: between calls `p` stands at a value, at a separator or at a closing bracket; `fresh`
 * is true exactly between an opening bracket and the first thing inside it, which is where a comma
 * is not yet due. Values without escapes are lent from the text itself.
 *
 * Threads: one reader, one thread. Failure: the first error ends the reading; its sentence names
 * the byte. */
#include "api/json_reader.h"

#include <math.h>

#include "api/float_run.h"
#include "api/json_scan.h"
#include "api/number.h"

void json_init(struct json_reader *r, const void *text, size_t n, uint64_t base)
{
    *r = (struct json_reader){0};
    json_reinit(r, text, n, base);
}

void json_reinit(struct json_reader *r, const void *text, size_t n, uint64_t base)
{
    r->start = text;
    r->p = text;
    r->end = r->start + n;
    r->base = base;
    r->depth = 0;
    r->fresh = false;
}

void json_deinit(struct json_reader *r)
{
    buf_deinit(&r->name_scratch);
    buf_deinit(&r->text_scratch);
}

static unsigned long long byte_of(const struct json_reader *r, const char *p)
{
    return r->base + (uint64_t)(p - r->start);
}

/* What stands at `p`, for a sentence. */
static enum err unexpected(const struct json_reader *r, const char *wanted, struct err_ctx *ctx)
{
    unsigned long long at = byte_of(r, r->p);
    if (r->p == r->end)
        return err_set(ctx, ERR_INVALID, "the JSON ends too early: expected %s at byte %llu",
                       wanted, at);
    unsigned char c = (unsigned char)*r->p;
    if (c < 0x20 || c >= 0x7f)
        return err_set(ctx, ERR_INVALID, "expected %s, found byte 0x%02x at byte %llu", wanted, c,
                       at);
    return err_set(ctx, ERR_INVALID, "expected %s, found '%c' at byte %llu", wanted, c, at);
}

static void skip_space(struct json_reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\t' || *r->p == '\r'))
        r->p++;
}

const char *json_type_name(enum json_type type)
{
    static const char *const names[] = {"null",     "true or false", "a number",
                                        "a string", "an array",      "an object"};
    return names[type];
}

enum err json_peek(struct json_reader *r, enum json_type *type, struct err_ctx *ctx)
{
    skip_space(r);
    switch (r->p < r->end ? *r->p : 0) {
    case '{':
        *type = JSON_OBJECT;
        return ERR_OK;
    case '[':
        *type = JSON_ARRAY;
        return ERR_OK;
    case '"':
        *type = JSON_STRING;
        return ERR_OK;
    case 't':
    case 'f':
        *type = JSON_BOOL;
        return ERR_OK;
    case 'n':
        *type = JSON_NULL;
        return ERR_OK;
    case '-':
    case '0' ... '9':
        *type = JSON_NUMBER;
        return ERR_OK;
    case 'N':
    case 'I':
        return err_set(ctx, ERR_INVALID,
                       "bare NaN and Infinity are not JSON (byte %llu); a float feature takes them "
                       "as the strings \"NaN\", \"Infinity\", \"-Infinity\"",
                       byte_of(r, r->p));
    default:
        return unexpected(r, "a value", ctx);
    }
}

static enum err want(struct json_reader *r, enum json_type wanted, struct err_ctx *ctx)
{
    enum json_type found = JSON_NULL;
    RETURN_NOT_OK(json_peek(r, &found, ctx));
    if (found == wanted)
        return ERR_OK;
    return err_set(ctx, ERR_UNPROCESSABLE, "expected %s, found %s at byte %llu",
                   json_type_name(wanted), json_type_name(found), byte_of(r, r->p));
}

static enum err open_bracket(struct json_reader *r, enum json_type type, struct err_ctx *ctx)
{
    RETURN_NOT_OK(want(r, type, ctx));
    if (r->depth == JSON_DEPTH_MAX)
        return err_set(ctx, ERR_INVALID, "the JSON nests deeper than %d levels at byte %llu",
                       JSON_DEPTH_MAX, byte_of(r, r->p));
    r->p++;
    r->depth++;
    r->fresh = true;
    return ERR_OK;
}

/* Steps over the comma that is due, or over the closing bracket. */
static enum err next_element(struct json_reader *r, char close, const char *wanted, bool *more,
                             struct err_ctx *ctx)
{
    skip_space(r);
    *more = true;
    if (r->p < r->end && *r->p == close) {
        r->p++;
        r->depth--;
        r->fresh = false;
        *more = false;
        return ERR_OK;
    }
    if (r->fresh) {
        r->fresh = false;
        return ERR_OK;
    }
    if (r->p == r->end || *r->p != ',')
        return unexpected(r, wanted, ctx);
    r->p++;
    skip_space(r);
    return ERR_OK;
}

enum err json_object(struct json_reader *r, struct err_ctx *ctx)
{
    return open_bracket(r, JSON_OBJECT, ctx);
}

enum err json_array(struct json_reader *r, struct err_ctx *ctx)
{
    return open_bracket(r, JSON_ARRAY, ctx);
}

enum err json_next_item(struct json_reader *r, bool *more, struct err_ctx *ctx)
{
    return next_element(r, ']', "',' or ']'", more, ctx);
}

/* ---- strings ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex4(struct json_reader *r, uint32_t *code)
{
    *code = 0;
    if (r->end - r->p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        int v = hex_digit(r->p[i]);
        if (v < 0)
            return false;
        *code = *code << 4 | (uint32_t)v;
    }
    r->p += 4;
    return true;
}

static void put_utf8(struct buf *out, uint32_t code)
{
    if (code < 0x80) {
        buf_put_u8(out, (uint8_t)code);
        return;
    }
    if (code < 0x800) {
        buf_put_u8(out, (uint8_t)(0xc0 | code >> 6));
    } else if (code < 0x10000) {
        buf_put_u8(out, (uint8_t)(0xe0 | code >> 12));
        buf_put_u8(out, (uint8_t)(0x80 | (code >> 6 & 63)));
    } else {
        buf_put_u8(out, (uint8_t)(0xf0 | code >> 18));
        buf_put_u8(out, (uint8_t)(0x80 | (code >> 12 & 63)));
        buf_put_u8(out, (uint8_t)(0x80 | (code >> 6 & 63)));
    }
    buf_put_u8(out, (uint8_t)(0x80 | (code & 63)));
}

static enum err bad_escape(const struct json_reader *r, const char *at, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_INVALID, "bad escape in a string at byte %llu", byte_of(r, at));
}

/* After "\u". A character outside the basic plane comes as two escapes, high half first. */
static enum err read_unicode_escape(struct json_reader *r, struct buf *out, struct err_ctx *ctx)
{
    const char *at = r->p - 2;
    uint32_t code, low;
    if (!read_hex4(r, &code))
        return bad_escape(r, at, ctx);
    if (code >= 0xdc00 && code <= 0xdfff)
        return bad_escape(r, at, ctx);
    if (code >= 0xd800 && code <= 0xdbff) {
        if (r->end - r->p < 6 || r->p[0] != '\\' || r->p[1] != 'u')
            return bad_escape(r, at, ctx);
        r->p += 2;
        if (!read_hex4(r, &low) || low < 0xdc00 || low > 0xdfff)
            return bad_escape(r, at, ctx);
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    put_utf8(out, code);
    return ERR_OK;
}

static enum err read_escape(struct json_reader *r, struct buf *out, struct err_ctx *ctx)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = r->p++;
    char c = r->p < r->end ? *r->p++ : 0;
    if (c == 'u')
        return read_unicode_escape(r, out, ctx);
    const char *found = c ? strchr(from, c) : NULL;
    if (!found)
        return bad_escape(r, at, ctx);
    buf_put_u8(out, (uint8_t)to[found - from]);
    return ERR_OK;
}

static enum err check_utf8(const struct json_reader *r, const char *from, struct err_ctx *ctx)
{
    if (utf8_valid(from, (size_t)(r->p - from)))
        return ERR_OK;
    return err_set(ctx, ERR_INVALID, "a string is not valid UTF-8 at byte %llu", byte_of(r, from));
}

static enum err plain_run(struct json_reader *r, struct json_slice *run, struct err_ctx *ctx)
{
    const char *from = r->p;
    bool high;
    r->p = json_scan_string(from, r->end, &high);
    if (high)
        RETURN_NOT_OK(check_utf8(r, from, ctx));
    if (r->p == r->end || (*r->p != '"' && *r->p != '\\'))
        return unexpected(r, "the end of a string", ctx);
    *run = (struct json_slice){from, (size_t)(r->p - from)};
    return ERR_OK;
}

static enum err read_string(struct json_reader *r, struct buf *scratch, struct json_slice *s,
                            struct err_ctx *ctx)
{
    r->p++;
    RETURN_NOT_OK(plain_run(r, s, ctx));
    if (*r->p == '"') {
        r->p++;
        return ERR_OK;
    }
    buf_reset(scratch);
    buf_put(scratch, s->data, s->len);
    while (*r->p == '\\') {
        RETURN_NOT_OK(read_escape(r, scratch, ctx));
        RETURN_NOT_OK(plain_run(r, s, ctx));
        buf_put(scratch, s->data, s->len);
    }
    r->p++;
    if (scratch->failed)
        return err_no_memory(ctx, scratch->len);
    *s = (struct json_slice){(const char *)scratch->data, scratch->len};
    return ERR_OK;
}

enum err json_string(struct json_reader *r, struct json_slice *s, struct err_ctx *ctx)
{
    RETURN_NOT_OK(want(r, JSON_STRING, ctx));
    return read_string(r, &r->text_scratch, s, ctx);
}

enum err json_next_field(struct json_reader *r, struct json_slice *name, bool *more,
                         struct err_ctx *ctx)
{
    RETURN_NOT_OK(next_element(r, '}', "',' or '}'", more, ctx));
    if (!*more)
        return ERR_OK;
    if (r->p == r->end || *r->p != '"')
        return unexpected(r, "a name in quotes", ctx);
    RETURN_NOT_OK(read_string(r, &r->name_scratch, name, ctx));
    skip_space(r);
    if (r->p == r->end || *r->p != ':')
        return unexpected(r, "':'", ctx);
    r->p++;
    return ERR_OK;
}

/* ---- words and numbers ---- */

static enum err read_word(struct json_reader *r, const char *word, struct err_ctx *ctx)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
        return unexpected(r, word, ctx);
    r->p += n;
    return ERR_OK;
}

enum err json_null(struct json_reader *r, struct err_ctx *ctx)
{
    RETURN_NOT_OK(want(r, JSON_NULL, ctx));
    return read_word(r, "null", ctx);
}

enum err json_bool(struct json_reader *r, bool *v, struct err_ctx *ctx)
{
    RETURN_NOT_OK(want(r, JSON_BOOL, ctx));
    *v = *r->p == 't';
    return read_word(r, *v ? "true" : "false", ctx);
}

static bool skip_digits(struct json_reader *r)
{
    const char *from = r->p;
    while (r->p < r->end && *r->p >= '0' && *r->p <= '9')
        r->p++;
    return r->p > from;
}

static bool accept(struct json_reader *r, char a, char b)
{
    if (r->p == r->end || (*r->p != a && *r->p != b))
        return false;
    r->p++;
    return true;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)? */
static bool skip_number(struct json_reader *r, bool *whole)
{
    accept(r, '-', '-');
    *whole = true;
    if (!accept(r, '0', '0') && !skip_digits(r))
        return false;
    if (accept(r, '.', '.')) {
        *whole = false;
        if (!skip_digits(r))
            return false;
    }
    if (accept(r, 'e', 'E')) {
        *whole = false;
        accept(r, '+', '-');
        return skip_digits(r);
    }
    return true;
}

/* `whole`: neither fraction nor exponent. */
static enum err read_number(struct json_reader *r, struct json_slice *text, bool *whole,
                            struct err_ctx *ctx)
{
    RETURN_NOT_OK(want(r, JSON_NUMBER, ctx));
    const char *from = r->p;
    if (!skip_number(r, whole))
        return unexpected(r, "a digit", ctx);
    *text = (struct json_slice){from, (size_t)(r->p - from)};
    if (text->len > NUMBER_CHARS_MAX)
        return err_set(ctx, ERR_INVALID, "a number has more than %d characters at byte %llu",
                       NUMBER_CHARS_MAX, byte_of(r, from));
    return ERR_OK;
}

static enum err out_of_range(const struct json_reader *r, struct json_slice text, const char *type,
                             struct err_ctx *ctx)
{
    return err_set(ctx, ERR_UNPROCESSABLE, "the number %.*s does not fit %s (byte %llu)",
                   text.len > 40 ? 40 : (int)text.len, text.data, type, byte_of(r, text.data));
}

enum err json_double(struct json_reader *r, double *v, struct err_ctx *ctx)
{
    struct json_slice text;
    bool whole;
    RETURN_NOT_OK(read_number(r, &text, &whole, ctx));
    if (number_parse_double(text.data, text.len, v) != NUMBER_OK)
        return out_of_range(r, text, "float64", ctx);
    return ERR_OK;
}

enum err json_float(struct json_reader *r, float *v, struct err_ctx *ctx)
{
    struct json_slice text;
    bool whole;
    RETURN_NOT_OK(read_number(r, &text, &whole, ctx));
    if (number_parse_float(text.data, text.len, v) != NUMBER_OK)
        return out_of_range(r, text, "float32", ctx);
    return ERR_OK;
}

enum err json_int64(struct json_reader *r, int64_t *v, struct err_ctx *ctx)
{
    struct json_slice text;
    bool whole;
    double wide;
    RETURN_NOT_OK(read_number(r, &text, &whole, ctx));
    if (whole) {
        if (number_parse_int64(text.data, text.len, v) != NUMBER_OK)
            return out_of_range(r, text, "int64", ctx);
        return ERR_OK;
    }
    if (number_parse_double(text.data, text.len, &wide) != NUMBER_OK || fabs(wide) >= 0x1p63)
        return out_of_range(r, text, "int64", ctx);
    if (wide != trunc(wide))
        return err_set(ctx, ERR_UNPROCESSABLE, "expected a whole number, found %.*s at byte %llu",
                       text.len > 40 ? 40 : (int)text.len, text.data, byte_of(r, text.data));
    *v = (int64_t)wide;
    return ERR_OK;
}

enum err json_floats(struct json_reader *r, float *out, size_t cap, size_t *n, struct err_ctx *ctx)
{
    float beyond;
    bool more;
    *n = 0;
    RETURN_NOT_OK(json_array(r, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(r, &more, ctx));
        if (!more)
            return ERR_OK;
        size_t run = *n < cap ? float_run_read(r->p, r->end, out + *n, cap - *n, &r->p) : 0;
        *n += run;
        if (run)
            continue;
        RETURN_NOT_OK(json_float(r, *n < cap ? out + *n : &beyond, ctx));
        ++*n;
    }
}

/* ---- whole values ---- */

static enum err skip_object(struct json_reader *r, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    RETURN_NOT_OK(json_object(r, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(r, &name, &more, ctx));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(json_skip(r, ctx));
    }
}

static enum err skip_array(struct json_reader *r, struct err_ctx *ctx)
{
    float unused[64];
    bool more;
    RETURN_NOT_OK(json_array(r, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(r, &more, ctx));
        if (!more)
            return ERR_OK;
        if (!float_run_read(r->p, r->end, unused, sizeof unused / sizeof unused[0], &r->p))
            RETURN_NOT_OK(json_skip(r, ctx));
    }
}

/* Recursion is bounded by JSON_DEPTH_MAX. */
enum err json_skip(struct json_reader *r, struct err_ctx *ctx)
{
    struct json_slice text;
    enum json_type type;
    bool b;
    RETURN_NOT_OK(json_peek(r, &type, ctx));
    switch (type) {
    case JSON_OBJECT:
        return skip_object(r, ctx);
    case JSON_ARRAY:
        return skip_array(r, ctx);
    case JSON_STRING:
        return json_string(r, &text, ctx);
    case JSON_NUMBER:
        return read_number(r, &text, &b, ctx);
    case JSON_BOOL:
        return json_bool(r, &b, ctx);
    case JSON_NULL:
        break;
    }
    return json_null(r, ctx);
}

enum err json_raw(struct json_reader *r, struct json_slice *text, struct err_ctx *ctx)
{
    skip_space(r);
    text->data = r->p;
    RETURN_NOT_OK(json_skip(r, ctx));
    text->len = (size_t)(r->p - text->data);
    return ERR_OK;
}

enum err json_end(struct json_reader *r, struct err_ctx *ctx)
{
    skip_space(r);
    if (r->p == r->end)
        return ERR_OK;
    return unexpected(r, "nothing after the JSON value", ctx);
}
