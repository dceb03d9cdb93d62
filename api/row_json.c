/* A row as JSON text into a batch.
 *
 * The batch wants the key first, a JSON object may have it anywhere: when it is not the first
 * field, the object is walked once to find it and read again from its start.
 *
 * null sets NULL, a missing field stays ABSENT; the store decides what that means.
 *
 * Threads: one reader, one thread. Failure: the error carries the row and the field. */
#include "api/row_json.h"

#include <math.h>

#include "api/base64.h"
#include "api/number.h"
#include "api/problem.h"
#include "base/clock.h"

enum err row_reader_init(struct row_reader *r, struct schema *s, struct err_ctx *ctx)
{
    *r = (struct row_reader){.schema = s};
    if (s->dim && !(r->vector = malloc(s->dim * sizeof(float))))
        return err_no_memory(ctx, s->dim * sizeof(float));
    return ERR_OK;
}

void row_reader_deinit(struct row_reader *r)
{
    json_deinit(&r->json);
    buf_deinit(&r->cell);
    free(r->vector);
    r->vector = NULL;
}

/* ---- keys ---- */

static enum err key_from_digits(struct json_slice s, int64_t *key, struct err_ctx *ctx)
{
    if (number_parse_int64(s.data, s.len, key) == NUMBER_OK)
        return ERR_OK;
    return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "key",
                      "the key \"%.*s\" is not an int64: write a whole number, or its digits as a "
                      "string",
                      s.len > 40 ? 40 : (int)s.len, s.data);
}

enum err key_read(struct json_reader *json, enum key_type type, int64_t *i, struct json_slice *s,
                  struct err_ctx *ctx)
{
    enum json_type found;
    RETURN_NOT_OK(json_peek(json, &found, ctx));
    if (type == KEY_INT64 && found == JSON_NUMBER)
        return json_int64(json, i, ctx);
    if (found != JSON_STRING)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "key",
                          "the key is %s; keys of this collection are %s", json_type_name(found),
                          type == KEY_INT64 ? "int64: a number, or a string of digits" : "strings");
    RETURN_NOT_OK(json_string(json, s, ctx));
    return type == KEY_INT64 ? key_from_digits(*s, i, ctx) : ERR_OK;
}

enum err key_read_row(struct json_reader *json, struct batch *b, struct err_ctx *ctx)
{
    struct json_slice s;
    int64_t i;
    RETURN_NOT_OK(key_read(json, b->schema->key, &i, &s, ctx));
    if (b->schema->key == KEY_INT64)
        return batch_row_int(b, i, ctx);
    return batch_row_str(b, s.data, s.len, ctx);
}

enum err keys_read_rows(struct json_reader *json, struct batch *b, struct err_ctx *ctx)
{
    bool more;
    RETURN_NOT_OK(json_array(json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(json, &more, ctx));
        if (!more)
            return ERR_OK;
        int64_t row = (int64_t)b->rows;
        enum err e = key_read_row(json, b, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, row, "keys", 4);
            return e;
        }
    }
}

/* ---- values in their stored form ---- */

static enum err wrong_type(const struct feature *f, enum json_type found, const char *wanted,
                           struct err_ctx *ctx)
{
    return err_set(ctx, ERR_UNPROCESSABLE, "'%s' is %s, found %s: write %s", f->name,
                   feature_type_name(f->type), json_type_name(found), wanted);
}

static enum err expect(struct row_reader *r, const struct feature *f, enum json_type wanted,
                       const char *how, struct err_ctx *ctx)
{
    enum json_type found;
    RETURN_NOT_OK(json_peek(&r->json, &found, ctx));
    return found == wanted ? ERR_OK : wrong_type(f, found, how, ctx);
}

/* "NaN", "Infinity", "-Infinity", which JSON has no numbers for. */
static enum err special_value(struct row_reader *r, const struct feature *f, double *v,
                              struct err_ctx *ctx)
{
    struct json_slice s;
    RETURN_NOT_OK(json_string(&r->json, &s, ctx));
    if (json_slice_is(s, "NaN"))
        *v = NAN;
    else if (json_slice_is(s, "Infinity"))
        *v = INFINITY;
    else if (json_slice_is(s, "-Infinity"))
        *v = -INFINITY;
    else
        return wrong_type(f, JSON_STRING,
                          "a number, or one of \"NaN\", \"Infinity\", \"-Infinity\"", ctx);
    return ERR_OK;
}

static enum err put_float32(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    enum json_type found;
    double special;
    float v;
    RETURN_NOT_OK(json_peek(&r->json, &found, ctx));
    if (found == JSON_STRING) {
        RETURN_NOT_OK(special_value(r, f, &special, ctx));
        v = (float)special;
    } else if (found == JSON_NUMBER) {
        RETURN_NOT_OK(json_float(&r->json, &v, ctx));
    } else {
        return wrong_type(f, found, "a number", ctx);
    }
    buf_put(&r->cell, &v, sizeof v);
    return ERR_OK;
}

static enum err put_float64(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    enum json_type found;
    double v;
    RETURN_NOT_OK(json_peek(&r->json, &found, ctx));
    if (found == JSON_STRING)
        RETURN_NOT_OK(special_value(r, f, &v, ctx));
    else if (found == JSON_NUMBER)
        RETURN_NOT_OK(json_double(&r->json, &v, ctx));
    else
        return wrong_type(f, found, "a number", ctx);
    buf_put(&r->cell, &v, sizeof v);
    return ERR_OK;
}

static enum err put_bool(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    bool v;
    RETURN_NOT_OK(expect(r, f, JSON_BOOL, "true or false", ctx));
    RETURN_NOT_OK(json_bool(&r->json, &v, ctx));
    buf_put_u8(&r->cell, v);
    return ERR_OK;
}

static enum err put_int32(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    int64_t v;
    RETURN_NOT_OK(expect(r, f, JSON_NUMBER, "a whole number", ctx));
    RETURN_NOT_OK(json_int64(&r->json, &v, ctx));
    if (v < INT32_MIN || v > INT32_MAX)
        return err_set(ctx, ERR_UNPROCESSABLE, "'%s' is int32; %lld does not fit", f->name,
                       (long long)v);
    buf_put_u32(&r->cell, (uint32_t)v);
    return ERR_OK;
}

static enum err put_int64(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    int64_t v;
    RETURN_NOT_OK(expect(r, f, JSON_NUMBER, "a whole number", ctx));
    RETURN_NOT_OK(json_int64(&r->json, &v, ctx));
    buf_put_u64(&r->cell, (uint64_t)v);
    return ERR_OK;
}

static enum err put_timestamp(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    static const char how[] = "RFC 3339 (2024-05-01T12:00:00Z) or whole microseconds since 1970";
    struct json_slice s;
    enum json_type found;
    int64_t v;
    RETURN_NOT_OK(json_peek(&r->json, &found, ctx));
    if (found == JSON_NUMBER) {
        RETURN_NOT_OK(json_int64(&r->json, &v, ctx));
        if (v < CLOCK_US_MIN || v > CLOCK_US_MAX)
            return err_set(ctx, ERR_UNPROCESSABLE,
                           "'%s': %lld microseconds since 1970 are not in the years 1 to 9999: "
                           "write %s",
                           f->name, (long long)v, how);
    } else if (found == JSON_STRING) {
        RETURN_NOT_OK(json_string(&r->json, &s, ctx));
        if (clock_parse_rfc3339(s.data, s.len, &v) != 0)
            return err_set(ctx, ERR_UNPROCESSABLE, "'%s': \"%.*s\" is not a time: write %s",
                           f->name, s.len > 40 ? 40 : (int)s.len, s.data, how);
    } else {
        return wrong_type(f, found, how, ctx);
    }
    buf_put_u64(&r->cell, (uint64_t)v);
    return ERR_OK;
}

static enum err put_string(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    struct json_slice s;
    RETURN_NOT_OK(expect(r, f, JSON_STRING, "a string", ctx));
    RETURN_NOT_OK(json_string(&r->json, &s, ctx));
    buf_put(&r->cell, s.data, s.len);
    return ERR_OK;
}

static enum err put_list_string(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    struct json_slice s;
    RETURN_NOT_OK(expect(r, f, JSON_STRING, "an array of strings", ctx));
    RETURN_NOT_OK(json_string(&r->json, &s, ctx));
    buf_put_blob(&r->cell, s.data, s.len);
    return ERR_OK;
}

static enum err put_bytes(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    struct json_slice s;
    RETURN_NOT_OK(expect(r, f, JSON_STRING, "base64 in a string", ctx));
    RETURN_NOT_OK(json_string(&r->json, &s, ctx));
    if (!base64_decode(&r->cell, s.data, s.len))
        return err_set(ctx, ERR_UNPROCESSABLE, "'%s' is bytes; the string is not base64", f->name);
    return ERR_OK;
}

typedef enum err (*put_value)(struct row_reader *r, const struct feature *f, struct err_ctx *ctx);

static enum err put_list(struct row_reader *r, const struct feature *f, put_value put,
                         struct err_ctx *ctx)
{
    bool more;
    RETURN_NOT_OK(expect(r, f, JSON_ARRAY, "an array", ctx));
    RETURN_NOT_OK(json_array(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(&r->json, &more, ctx));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(put(r, f, ctx));
    }
}

static enum err put_cell(struct row_reader *r, const struct feature *f, struct err_ctx *ctx)
{
    switch (f->type) {
    case FEATURE_BOOL:
        return put_bool(r, f, ctx);
    case FEATURE_INT32:
        return put_int32(r, f, ctx);
    case FEATURE_INT64:
        return put_int64(r, f, ctx);
    case FEATURE_FLOAT32:
        return put_float32(r, f, ctx);
    case FEATURE_FLOAT64:
        return put_float64(r, f, ctx);
    case FEATURE_TIMESTAMP:
        return put_timestamp(r, f, ctx);
    case FEATURE_STRING:
        return put_string(r, f, ctx);
    case FEATURE_BYTES:
        return put_bytes(r, f, ctx);
    case FEATURE_FLOAT32_LIST:
        return put_list(r, f, put_float32, ctx);
    case FEATURE_INT64_LIST:
        return put_list(r, f, put_int64, ctx);
    case FEATURE_STRING_LIST:
        return put_list(r, f, put_list_string, ctx);
    case FEATURE_TYPE_COUNT:
        break;
    }
    ASSERT(false);
}

/* ---- fields ---- */

enum err row_reader_feature(struct row_reader *r, struct batch *b, uint32_t feature,
                            struct err_ctx *ctx)
{
    enum json_type found;
    RETURN_NOT_OK(json_peek(&r->json, &found, ctx));
    if (found == JSON_NULL) {
        RETURN_NOT_OK(json_null(&r->json, ctx));
        return batch_set_null(b, feature, ctx);
    }
    buf_reset(&r->cell);
    RETURN_NOT_OK(put_cell(r, &r->schema->features[feature], ctx));
    if (r->cell.failed)
        return err_no_memory(ctx, r->cell.len);
    /* an empty cell still needs an address */
    return batch_set(b, feature, r->cell.data ? (const void *)r->cell.data : "", r->cell.len, ctx);
}

enum err row_reader_vector(struct row_reader *r, struct batch *b, struct err_ctx *ctx)
{
    enum json_type found;
    size_t n;
    if (r->schema->dim == 0)
        return err_set(ctx, ERR_UNPROCESSABLE, "the collection has no vectors: leave 'vector' out");
    RETURN_NOT_OK(json_peek(&r->json, &found, ctx));
    if (found == JSON_NULL) {
        RETURN_NOT_OK(json_null(&r->json, ctx));
        return batch_set_vector_null(b, ctx);
    }
    RETURN_NOT_OK(json_floats(&r->json, r->vector, r->schema->dim, &n, ctx));
    if (n != r->schema->dim)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "vector has %zu elements, the collection's dim is %u", n, r->schema->dim);
    return batch_set_vector(b, r->vector, ctx);
}

static int find_feature(struct row_reader *r, struct json_slice name)
{
    if (r->next_guess < r->schema->nfeatures &&
        json_slice_is(name, r->schema->features[r->next_guess].name))
        return (int)r->next_guess++;
    int found = schema_find(r->schema, name.data, name.len);
    if (found >= 0)
        r->next_guess = (uint32_t)found + 1;
    return found;
}

static enum err unknown_feature(struct json_slice name, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_UNPROCESSABLE, "the collection has no feature '%.*s'",
                   name.len > 128 ? 128 : (int)name.len, name.data);
}

static enum err add_field(struct row_reader *r, struct batch *b, struct json_slice name,
                          bool *key_seen, struct err_ctx *ctx)
{
    if (json_slice_is(name, "key")) {
        if (*key_seen)
            return err_set(ctx, ERR_UNPROCESSABLE, "field 'key' is given twice in one row");
        *key_seen = true;
        return json_skip(&r->json, ctx);
    }
    if (json_slice_is(name, "vector"))
        return row_reader_vector(r, b, ctx);
    int feature = find_feature(r, name);
    if (feature < 0)
        return unknown_feature(name, ctx);
    return row_reader_feature(r, b, (uint32_t)feature, ctx);
}

/* Starts the batch's row with the object's key, wherever that stands. */
static enum err add_key(struct row_reader *r, struct batch *b, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "key", "the row has no key");
        if (!json_slice_is(name, "key")) {
            RETURN_NOT_OK(json_skip(&r->json, ctx));
            continue;
        }
        enum err e = key_read_row(&r->json, b, ctx);
        if (e != ERR_OK)
            problem_place(ctx, -1, "key", 3);
        return e;
    }
}

static enum err add_fields(struct row_reader *r, struct batch *b, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more, key_seen = false;
    r->next_guess = 0;
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            return json_end(&r->json, ctx);
        enum err e = add_field(r, b, name, &key_seen, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, -1, name.data, name.len);
            return e;
        }
    }
}

enum err row_reader_add(struct row_reader *r, struct batch *b, const char *text, size_t n,
                        uint64_t number, uint64_t offset, struct err_ctx *ctx)
{
    json_reinit(&r->json, text, n, offset);
    enum err e = add_key(r, b, ctx);
    if (e == ERR_OK) {
        json_reinit(&r->json, text, n, offset);
        e = add_fields(r, b, ctx);
    }
    if (e != ERR_OK)
        problem_place(ctx, (int64_t)number, NULL, 0);
    return e;
}
