/* JSON out.
 *
 * Invariant: whatever is put is a complete JSON value; separators are the caller's. Stored strings
 * were checked to be UTF-8 when they came in, so that only quotes, backslashes and control
 * characters need work: runs between them are copied whole.
 *
 * Threads: no state. Failure: memory running out shows in out->failed. */
#include "api/json_writer.h"

#include <math.h>

#include "api/base64.h"
#include "api/number.h"
#include "base/clock.h"

static bool needs_escape(unsigned char c)
{
    return c < 0x20 || c == '"' || c == '\\';
}

static void put_escaped(struct buf *out, unsigned char c)
{
    static const char short_forms[] = "\bb\ff\nn\rr\tt\"\"\\\\";
    for (size_t i = 0; i + 1 < sizeof short_forms; i += 2) {
        if (c == (unsigned char)short_forms[i]) {
            buf_put_u8(out, '\\');
            buf_put_u8(out, (uint8_t)short_forms[i + 1]);
            return;
        }
    }
    buf_printf(out, "\\u%04x", c);
}

void json_put_string(struct buf *out, const char *s, size_t n)
{
    buf_put_u8(out, '"');
    size_t start = 0;
    for (size_t i = 0; i < n; i++) {
        if (!needs_escape((unsigned char)s[i]))
            continue;
        buf_put(out, s + start, i - start);
        put_escaped(out, (unsigned char)s[i]);
        start = i + 1;
    }
    buf_put(out, s + start, n - start);
    buf_put_u8(out, '"');
}

void json_put_text(struct buf *out, const char *s)
{
    size_t n = strlen(s);
    if (utf8_valid(s, n)) {
        json_put_string(out, s, n);
        return;
    }
    buf_put_u8(out, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (needs_escape(c))
            put_escaped(out, c);
        else
            buf_put_u8(out, c < 0x80 ? c : '?');
    }
    buf_put_u8(out, '"');
}

static bool put_non_finite(struct buf *out, double v)
{
    if (isfinite(v))
        return false;
    if (isnan(v))
        json_put_raw(out, "\"NaN\"");
    else if (v > 0)
        json_put_raw(out, "\"Infinity\"");
    else
        json_put_raw(out, "\"-Infinity\"");
    return true;
}

void json_put_float(struct buf *out, float v)
{
    if (put_non_finite(out, v) || !buf_reserve(out, NUMBER_TEXT_MAX))
        return;
    out->len += number_print_float(v, (char *)out->data + out->len);
}

void json_put_double(struct buf *out, double v)
{
    if (put_non_finite(out, v) || !buf_reserve(out, NUMBER_TEXT_MAX))
        return;
    out->len += number_print_double(v, (char *)out->data + out->len);
}

void json_put_int(struct buf *out, int64_t v)
{
    if (buf_reserve(out, NUMBER_TEXT_MAX))
        out->len += number_print_int64(v, (char *)out->data + out->len);
}

void json_put_uint(struct buf *out, uint64_t v)
{
    if (v <= INT64_MAX)
        json_put_int(out, (int64_t)v);
    else
        buf_printf(out, "%llu", (unsigned long long)v);
}

void json_put_bool(struct buf *out, bool v)
{
    if (v)
        json_put_raw(out, "true");
    else
        json_put_raw(out, "false");
}

void json_put_timestamp(struct buf *out, int64_t wall_us)
{
    char text[32];
    clock_format_rfc3339(wall_us, text);
    json_put_string(out, text, strlen(text));
}

void json_put_floats(struct buf *out, const float *v, size_t n)
{
    buf_put_u8(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_put_u8(out, ',');
        json_put_float(out, v[i]);
    }
    buf_put_u8(out, ']');
}

/* Cells may lie at any address: lists start where the cell before them ended. */
static void put_float_list(struct buf *out, const uint8_t *p, size_t len)
{
    buf_put_u8(out, '[');
    for (size_t at = 0; at + sizeof(float) <= len; at += sizeof(float)) {
        float v;
        memcpy(&v, p + at, sizeof v);
        if (at)
            buf_put_u8(out, ',');
        json_put_float(out, v);
    }
    buf_put_u8(out, ']');
}

static void put_int_list(struct buf *out, const uint8_t *p, size_t len)
{
    buf_put_u8(out, '[');
    for (size_t at = 0; at + sizeof(int64_t) <= len; at += sizeof(int64_t)) {
        int64_t v;
        memcpy(&v, p + at, sizeof v);
        if (at)
            buf_put_u8(out, ',');
        json_put_int(out, v);
    }
    buf_put_u8(out, ']');
}

static void put_string_list(struct buf *out, const void *data, size_t len)
{
    struct cursor c = cursor_over(data, len);
    buf_put_u8(out, '[');
    for (bool first = true; cursor_left(&c) > 0; first = false) {
        size_t n;
        const char *s = cursor_blob(&c, &n);
        if (!s)
            break;
        if (!first)
            buf_put_u8(out, ',');
        json_put_string(out, s, n);
    }
    buf_put_u8(out, ']');
}

static void put_bytes(struct buf *out, const void *data, size_t len)
{
    buf_put_u8(out, '"');
    base64_encode(out, data, len);
    buf_put_u8(out, '"');
}

static int64_t load_int(const void *data, size_t width)
{
    int32_t narrow;
    int64_t wide;
    if (width == sizeof narrow) {
        memcpy(&narrow, data, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, data, sizeof wide);
    return wide;
}

static void put_real(struct buf *out, const void *data, size_t width)
{
    float narrow;
    double wide;
    if (width == sizeof narrow) {
        memcpy(&narrow, data, sizeof narrow);
        json_put_float(out, narrow);
        return;
    }
    memcpy(&wide, data, sizeof wide);
    json_put_double(out, wide);
}

void json_put_cell(struct buf *out, enum feature_type type, const void *data, size_t len)
{
    if (!data) {
        json_put_raw(out, "null");
        return;
    }
    switch (type) {
    case FEATURE_BOOL:
        json_put_bool(out, *(const uint8_t *)data != 0);
        break;
    case FEATURE_INT32:
        json_put_int(out, load_int(data, sizeof(int32_t)));
        break;
    case FEATURE_INT64:
        json_put_int(out, load_int(data, sizeof(int64_t)));
        break;
    case FEATURE_FLOAT32:
        put_real(out, data, sizeof(float));
        break;
    case FEATURE_FLOAT64:
        put_real(out, data, sizeof(double));
        break;
    case FEATURE_TIMESTAMP:
        json_put_timestamp(out, load_int(data, sizeof(int64_t)));
        break;
    case FEATURE_STRING:
        json_put_string(out, data, len);
        break;
    case FEATURE_BYTES:
        put_bytes(out, data, len);
        break;
    case FEATURE_FLOAT32_LIST:
        put_float_list(out, data, len);
        break;
    case FEATURE_INT64_LIST:
        put_int_list(out, data, len);
        break;
    case FEATURE_STRING_LIST:
        put_string_list(out, data, len);
        break;
    case FEATURE_TYPE_COUNT:
        ASSERT(type != FEATURE_TYPE_COUNT);
    }
}
