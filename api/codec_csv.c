/* CSV out, as RFC 4180 has it: a header, lines that end in CR LF, quotes around what needs them.
 *
 *   key,vector,price,tags
 *   a,"[1.5,2]",9.25,"[""x"",""y""]"
 *   b,,,                              null is nothing at all; an empty string is ""
 *
 * Vectors and lists stand as JSON text in their cell, bytes as base64, times as RFC 3339, bool as
 * true and false; NaN, Infinity and -Infinity as those words.
 *
 * Threads: no state. Failure: memory running out shows in the buffer. */
#include "api/codec.h"

#include "api/base64.h"
#include "api/columns.h"
#include "api/json_writer.h"

static bool needs_quotes(const char *s, size_t n)
{
    return n == 0 || memchr(s, ',', n) || memchr(s, '"', n) || memchr(s, '\n', n) ||
           memchr(s, '\r', n);
}

static void put_quoted(struct buf *out, const char *s, size_t n)
{
    buf_put_u8(out, '"');
    for (const char *quote; (quote = memchr(s, '"', n)); s = quote + 1) {
        size_t upto = (size_t)(quote - s) + 1;
        buf_put(out, s, upto);
        buf_put_u8(out, '"');
        n -= upto;
    }
    buf_put(out, s, n);
    buf_put_u8(out, '"');
}

static void put_text(struct buf *out, const char *s, size_t n)
{
    if (needs_quotes(s, n))
        put_quoted(out, s, n);
    else
        buf_put(out, s, n);
}

/* Quotes what was appended from `start` on, which has no quotes of its own unless it is doubled:
 * JSON text of lists. */
static void quote_json(struct buf *out, size_t start)
{
    struct buf text = {0};
    if (out->failed)
        return;
    buf_put(&text, out->data + start, out->len - start);
    out->len = start;
    if (text.failed)
        out->failed = true;
    else
        put_quoted(out, (const char *)text.data, text.len);
    buf_deinit(&text);
}

/* A list of numbers has no quotes inside, but for NaN and the infinities. */
static void put_json(struct buf *out, size_t start)
{
    if (out->failed)
        return;
    if (memchr(out->data + start, '"', out->len - start)) {
        quote_json(out, start);
        return;
    }
    if (!memchr(out->data + start, ',', out->len - start) || !buf_reserve(out, 2))
        return;
    memmove(out->data + start + 1, out->data + start, out->len - start);
    out->data[start] = '"';
    out->len++;
    buf_put_u8(out, '"');
}

/* A JSON string that needs no escape and no quotes: "NaN", a time, base64. */
static void strip_quotes(struct buf *out, size_t start)
{
    if (out->failed || out->len < start + 2 || out->data[start] != '"')
        return;
    out->len -= 2;
    memmove(out->data + start, out->data + start + 1, out->len - start);
}

static void put_cell(struct buf *out, enum feature_type type, const void *data, size_t len)
{
    size_t start = out->len;
    switch (type) {
    case FEATURE_STRING:
        put_text(out, data, len);
        return;
    case FEATURE_FLOAT32_LIST:
    case FEATURE_INT64_LIST:
    case FEATURE_STRING_LIST:
        json_put_cell(out, type, data, len);
        put_json(out, start);
        return;
    case FEATURE_BYTES:
        if (len == 0) {
            json_put_raw(out, "\"\"");
            return;
        }
        base64_encode(out, data, len);
        return;
    default:
        json_put_cell(out, type, data, len);
        strip_quotes(out, start);
    }
}

static void put_key(const struct projection *p, struct row_ref ref, struct buf *out)
{
    const struct segment *g = p->snapshot->views[ref.view].segment;
    size_t len;
    if (p->snapshot->schema->key == KEY_INT64) {
        json_put_int(out, segment_key_int(g, ref.row));
        return;
    }
    const char *key = segment_key_str(g, ref.row, &len);
    put_text(out, key, len);
}

static void put_vector(const struct projection *p, struct row_ref ref, struct buf *out)
{
    const float *v = segment_vector(p->snapshot->views[ref.view].segment, ref.row);
    if (!v)
        return;
    bool many = p->snapshot->schema->dim > 1;
    if (many)
        buf_put_u8(out, '"');
    json_put_floats(out, v, p->snapshot->schema->dim);
    if (many)
        buf_put_u8(out, '"');
}

static void put_row(const struct projection *p, struct row_ref ref, struct buf *out)
{
    const struct segment *g = p->snapshot->views[ref.view].segment;
    put_key(p, ref, out);
    if (p->with_vectors) {
        buf_put_u8(out, ',');
        put_vector(p, ref, out);
    }
    for (size_t i = 0; i < columns_count(&p->columns); i++) {
        uint32_t feature = columns_get(&p->columns, i);
        size_t len = 0;
        const void *data = segment_cell(g, ref.row, feature, &len);
        buf_put_u8(out, ',');
        if (data)
            put_cell(out, p->snapshot->schema->features[feature].type, data, len);
    }
    json_put_raw(out, "\r\n");
}

static void put_head(const struct projection *p, struct buf *out)
{
    json_put_raw(out, "key");
    if (p->with_vectors)
        json_put_raw(out, ",vector");
    for (size_t i = 0; i < columns_count(&p->columns); i++) {
        const char *name = p->snapshot->schema->features[columns_get(&p->columns, i)].name;
        buf_put_u8(out, ',');
        buf_put(out, name, strlen(name));
    }
    json_put_raw(out, "\r\n");
}

const struct codec codec_csv = {
    .name = "csv",
    .content_type = "text/csv; charset=utf-8; header=present",
    .revision = 1,
    .put_head = put_head,
    .put_row = put_row,
};
