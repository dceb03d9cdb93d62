/* Keys of a fetch: read first, then looked up together.
 *
 *   r->queries  [ u32 len, bytes | u32 len, bytes | .. ]    or [ i64 | i64 | .. ]
 *   r->refs     [ view, row      | view, row      | .. ]    view UINT32_MAX: not found
 *
 * Memory: an answer takes ANSWER_BYTES_MIN bytes a key at least, so that result_bytes_max bounds
 * the number of keys before they are looked up.
 *
 * Threads: the request's. Failure: the first bad key ends the reading. */
#include "api/fetch_keys.h"

#include "api/json_writer.h"
#include "api/number.h"
#include "api/problem.h"
#include "api/row_json.h"

enum { ANSWER_BYTES_MIN = 7 /* `1,` and `true,` */, GROUP_KEYS = 64 };

void fetch_keys_reset(struct request *r)
{
    buf_reset(&r->queries);
    buf_reset(&r->refs);
}

static enum err add_key(struct request *r, const struct schema *s, const void *key, size_t len,
                        struct err_ctx *ctx)
{
    static const struct row_ref none = {.view = UINT32_MAX};
    uint64_t max = r->service->limits.result_bytes_max;
    if ((fetch_key_count(r) + 1) * ANSWER_BYTES_MIN > max)
        return err_set(ctx, ERR_TOO_LARGE,
                       "the answer for so many keys is larger than result_bytes_max (%llu bytes): "
                       "ask for fewer at a time",
                       (unsigned long long)max);
    if (s->key == KEY_INT64)
        buf_put(&r->queries, key, len);
    else
        buf_put_blob(&r->queries, key, len);
    buf_put(&r->refs, &none, sizeof none);
    return r->queries.failed || r->refs.failed ? err_no_memory(ctx, r->refs.len) : ERR_OK;
}

static struct cursor keys_start(const struct request *r)
{
    return cursor_over(r->queries.data, r->queries.len);
}

static const void *next_key(struct cursor *c, const struct schema *s, size_t *len)
{
    if (s->key != KEY_INT64)
        return cursor_blob(c, len);
    *len = sizeof(int64_t);
    return cursor_take(c, sizeof(int64_t));
}

/* ---- reading ---- */

static enum err read_key(struct request *r, const struct schema *s, struct err_ctx *ctx)
{
    struct json_slice text;
    int64_t number;
    RETURN_NOT_OK(key_read(&r->json, s->key, &number, &text, ctx));
    if (s->key == KEY_INT64)
        return add_key(r, s, &number, sizeof number, ctx);
    return add_key(r, s, text.data, text.len, ctx);
}

enum err fetch_keys_read_json(struct request *r, const struct schema *s, struct err_ctx *ctx)
{
    bool more;
    RETURN_NOT_OK(json_array(&r->json, ctx));
    for (int64_t row = 0;; row++) {
        RETURN_NOT_OK(json_next_item(&r->json, &more, ctx));
        if (!more)
            return ERR_OK;
        enum err e = read_key(r, s, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, row, "keys", 4);
            return e;
        }
    }
}

enum err fetch_keys_read_octets(struct request *r, const struct schema *s, struct err_ctx *ctx)
{
    if (s->key != KEY_INT64)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the keys of this collection are strings: send them as JSON, "
                       "{\"keys\":[..]}");
    if (r->body.len == 0 || r->body.len % sizeof(int64_t))
        return err_set(ctx, ERR_INVALID,
                       "the body has %zu bytes: it must be one or more keys of 8 bytes each "
                       "(little-endian int64)",
                       r->body.len);
    for (size_t at = 0; at < r->body.len; at += sizeof(int64_t))
        RETURN_NOT_OK(add_key(r, s, r->body.data + at, sizeof(int64_t), ctx));
    return ERR_OK;
}

enum err fetch_keys_read_path(struct request *r, const struct schema *s, struct err_ctx *ctx)
{
    const struct target_segment *text = request_segment(r, 4);
    int64_t number;
    if (s->key != KEY_INT64)
        return add_key(r, s, text->text, text->len, ctx);
    if (number_parse_int64(text->text, text->len, &number) != NUMBER_OK)
        return err_set_at(ctx, ERR_INVALID, -1, "key",
                          "'%.40s' is not a key of this collection: its keys are int64",
                          text->text);
    return add_key(r, s, &number, sizeof number, ctx);
}

/* ---- finding and writing ---- */

void fetch_keys_find(struct request *r, const struct snapshot *s)
{
    struct key_probe probes[GROUP_KEYS];
    struct row_ref *refs = (struct row_ref *)r->refs.data;
    struct cursor c = keys_start(r);
    size_t n = fetch_key_count(r);
    for (size_t from = 0; from < n; from += GROUP_KEYS) {
        size_t group = n - from < GROUP_KEYS ? n - from : GROUP_KEYS;
        for (size_t i = 0; i < group; i++)
            probes[i].key = next_key(&c, s->schema, &probes[i].len);
        snapshot_find_many(s, probes, group);
        for (size_t i = 0; i < group; i++)
            if (probes[i].found)
                refs[from + i] = probes[i].ref;
    }
}

void fetch_keys_put(struct request *r, const struct schema *s)
{
    struct cursor c = keys_start(r);
    for (size_t i = 0; i < fetch_key_count(r); i++) {
        size_t len;
        const void *key = next_key(&c, s, &len);
        if (i)
            buf_put_u8(&r->out, ',');
        if (s->key != KEY_INT64) {
            json_put_string(&r->out, key, len);
            continue;
        }
        int64_t number;
        memcpy(&number, key, sizeof number);
        json_put_int(&r->out, number);
    }
}
