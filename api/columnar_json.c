/* Columns as JSON into a load.
 *
 *   {"features":{"price":[1.5,null,2]},"keys":["a","b","c"],"vectors":[[..],null,[..]]}
 *                        |                     |                      |
 *   one reader a column, all at the same row: +----------------------+--> a row of the batch
 *
 * A first walk checks the syntax and notes where each column stands; then the columns are read side
 * by side, so that batches stay small and an error names its row. A column that is left out is
 * absent in every row; null in a column is null.
 *
 * Threads: one. Failure: the load can only be freed. */
#include "api/columnar_json.h"

#include <stdio.h>

#include "api/problem.h"

enum {
    SNIFF_BYTES_MAX = 4096, /* of white space before the first field */
    BATCH_BYTES = 1 << 20,
    ROWS_PER_LOOK = 64, /* at the batch's size */
};

/* Which column; else the number of a feature. */
enum { COLUMN_KEYS = UINT32_MAX, COLUMN_VECTORS = UINT32_MAX - 1 };

struct column_reader {
    struct json_reader json;
    uint32_t what;
    const char *name;
};

struct columns {
    const char *text; /* of the body */
    const struct schema *schema;
    struct buf list; /* struct column_reader; keys come first once all are known */
    bool features_seen;
};

/* ---- which form ---- */

static size_t skip_space(const char *p, size_t at, size_t n)
{
    while (at < n && (p[at] == ' ' || p[at] == '\t' || p[at] == '\n' || p[at] == '\r'))
        at++;
    return at;
}

enum columnar_form columnar_form(const void *text, size_t n)
{
    static const char *const names[] = {"keys\"", "vectors\"", "features\""};
    const char *p = text;
    enum columnar_form short_of = n < SNIFF_BYTES_MAX ? COLUMNAR_UNDECIDED : COLUMNAR_NO;
    size_t at = skip_space(p, 0, n);
    if (at == n)
        return short_of;
    if (p[at] != '{')
        return COLUMNAR_NO;
    at = skip_space(p, at + 1, n);
    if (at == n)
        return short_of;
    if (p[at] != '"')
        return COLUMNAR_NO;
    at++;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t len = strlen(names[i]), part = n - at < len ? n - at : len;
        if (memcmp(p + at, names[i], part) == 0)
            return part == len ? COLUMNAR_YES : COLUMNAR_UNDECIDED;
    }
    return COLUMNAR_NO;
}

/* ---- finding the columns ---- */

static struct column_reader *columns(const struct columns *c)
{
    return (struct column_reader *)c->list.data;
}

static size_t columns_count(const struct columns *c)
{
    return c->list.len / sizeof(struct column_reader);
}

static void columns_deinit(struct columns *c)
{
    for (size_t i = 0; i < columns_count(c); i++)
        json_deinit(&columns(c)[i].json);
    buf_deinit(&c->list);
}

/* The next value is a column: notes where it stands, and steps over it. */
static enum err add_column(struct columns *c, struct json_reader *json, uint32_t what,
                           const char *name, struct err_ctx *ctx)
{
    enum json_type type;
    struct json_slice text;
    for (size_t i = 0; i < columns_count(c); i++) {
        if (columns(c)[i].what == what)
            return err_set_at(ctx, ERR_INVALID, -1, name, "column '%s' comes twice", name);
    }
    RETURN_NOT_OK(json_peek(json, &type, ctx));
    if (type != JSON_ARRAY)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, name,
                          "column '%s' is %s: write an array with a value for every key, or leave "
                          "it out",
                          name, json_type_name(type));
    RETURN_NOT_OK(json_raw(json, &text, ctx));
    struct column_reader col = {.what = what, .name = name};
    json_init(&col.json, text.data, text.len, (uint64_t)(text.data - c->text));
    buf_put(&c->list, &col, sizeof col);
    return c->list.failed ? err_no_memory(ctx, c->list.len) : ERR_OK;
}

static enum err add_feature(struct columns *c, struct json_reader *json, struct json_slice name,
                            struct err_ctx *ctx)
{
    int at = schema_find(c->schema, name.data, name.len);
    if (at >= 0)
        return add_column(c, json, (uint32_t)at, c->schema->features[at].name, ctx);
    char text[NAME_MAX_BYTES + 1];
    snprintf(text, sizeof text, "%.*s", name.len > NAME_MAX_BYTES ? NAME_MAX_BYTES : (int)name.len,
             name.data);
    return err_set_at(ctx, ERR_UNPROCESSABLE, -1, text, "the collection has no feature '%s'", text);
}

static enum err add_features(struct columns *c, struct json_reader *json, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    if (c->features_seen)
        return err_set_at(ctx, ERR_INVALID, -1, "features", "field 'features' comes twice");
    c->features_seen = true;
    RETURN_NOT_OK(json_object(json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(json, &name, &more, ctx));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(add_feature(c, json, name, ctx));
    }
}

static enum err add_field(struct columns *c, struct json_reader *json, struct json_slice name,
                          struct err_ctx *ctx)
{
    if (json_slice_is(name, "keys"))
        return add_column(c, json, COLUMN_KEYS, "keys", ctx);
    if (json_slice_is(name, "features"))
        return add_features(c, json, ctx);
    if (!json_slice_is(name, "vectors"))
        return err_set(ctx, ERR_INVALID,
                       "unknown field '%.*s' in columnar rows; known: keys, vectors, features",
                       name.len > NAME_MAX_BYTES ? NAME_MAX_BYTES : (int)name.len, name.data);
    if (c->schema->dim == 0)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "vectors",
                          "the collection has no vectors: leave 'vectors' out");
    return add_column(c, json, COLUMN_VECTORS, "vectors", ctx);
}

static enum err find_columns(struct columns *c, struct json_reader *json, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    RETURN_NOT_OK(json_object(json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(json, &name, &more, ctx));
        if (!more)
            return json_end(json, ctx);
        enum err e = add_field(c, json, name, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, -1, name.data, name.len);
            return e;
        }
    }
}

/* A row starts with its key. */
static enum err put_keys_first(struct columns *c, struct err_ctx *ctx)
{
    struct column_reader *list = columns(c);
    for (size_t i = 0; i < columns_count(c); i++) {
        if (list[i].what != COLUMN_KEYS)
            continue;
        struct column_reader keys = list[i];
        list[i] = list[0];
        list[0] = keys;
        return ERR_OK;
    }
    return err_set(ctx, ERR_INVALID, "columnar rows need \"keys\":[..]");
}

/* ---- reading them side by side ---- */

/* Items of a column from row `row` on, when its reader has just asked whether there are `more`. */
static enum err count_items(struct column_reader *col, uint64_t row, bool more, uint64_t *n,
                            struct err_ctx *ctx)
{
    for (*n = row; more; ++*n) {
        RETURN_NOT_OK(json_skip(&col->json, ctx));
        RETURN_NOT_OK(json_next_item(&col->json, &more, ctx));
    }
    return ERR_OK;
}

static enum err ragged(struct columns *c, struct column_reader *col, uint64_t row, bool keys_more,
                       struct err_ctx *ctx)
{
    uint64_t nkeys, n;
    RETURN_NOT_OK(count_items(&columns(c)[0], row, keys_more, &nkeys, ctx));
    RETURN_NOT_OK(count_items(col, row, !keys_more, &n, ctx));
    return err_set_at(ctx, ERR_UNPROCESSABLE, -1, col->name,
                      "column '%s' has %llu values, 'keys' has %llu: every column needs one value "
                      "for every key",
                      col->name, (unsigned long long)n, (unsigned long long)nkeys);
}

/* Moves every column to row `row`; *more false: all have ended. */
static enum err next_row(struct columns *c, uint64_t row, bool *more, struct err_ctx *ctx)
{
    RETURN_NOT_OK(json_next_item(&columns(c)[0].json, more, ctx));
    for (size_t i = 1; i < columns_count(c); i++) {
        bool same;
        RETURN_NOT_OK(json_next_item(&columns(c)[i].json, &same, ctx));
        if (same != *more)
            return ragged(c, &columns(c)[i], row, *more, ctx);
    }
    return ERR_OK;
}

/* The row reader reads from the column. */
static enum err read_cell(struct row_reader *r, struct column_reader *col, struct batch *b,
                          struct err_ctx *ctx)
{
    if (col->what == COLUMN_KEYS)
        return key_read_row(&col->json, b, ctx);
    struct json_reader own = r->json;
    r->json = col->json;
    enum err e = col->what == COLUMN_VECTORS ? row_reader_vector(r, b, ctx)
                                             : row_reader_feature(r, b, col->what, ctx);
    col->json = r->json;
    r->json = own;
    return e;
}

static enum err read_row(struct columns *c, struct row_reader *r, struct batch *b, uint64_t row,
                         struct err_ctx *ctx)
{
    for (size_t i = 0; i < columns_count(c); i++) {
        struct column_reader *col = &columns(c)[i];
        enum err e = read_cell(r, col, b, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, (int64_t)row, col->name, strlen(col->name));
            return e;
        }
    }
    return ERR_OK;
}

static bool batch_is_full(const struct batch *b, size_t rows_max)
{
    return b->rows >= rows_max || (b->rows % ROWS_PER_LOOK == 0 && batch_bytes(b) >= BATCH_BYTES);
}

static enum err add_batch(struct row_sink sink, struct batch *b, struct err_ctx *ctx)
{
    RETURN_NOT_OK(sink.add(sink.to, b, ctx));
    batch_reset(b);
    return ERR_OK;
}

static enum err read_rows(struct columns *c, struct row_sink sink, struct batch *b,
                          struct row_reader *r, size_t rows_max, struct err_ctx *ctx)
{
    bool more;
    for (size_t i = 0; i < columns_count(c); i++)
        RETURN_NOT_OK(json_array(&columns(c)[i].json, ctx));
    for (uint64_t row = 0;; row++) {
        RETURN_NOT_OK(next_row(c, row, &more, ctx));
        if (!more)
            return b->rows ? add_batch(sink, b, ctx) : ERR_OK;
        RETURN_NOT_OK(read_row(c, r, b, row, ctx));
        if (batch_is_full(b, rows_max))
            RETURN_NOT_OK(add_batch(sink, b, ctx));
    }
}

enum err columnar_json_load(const void *text, size_t n, struct row_sink sink, struct batch *b,
                            struct row_reader *r, size_t rows_max, struct err_ctx *ctx)
{
    struct columns c = {.text = text, .schema = sink.schema};
    struct json_reader json;
    json_init(&json, text, n, 0);
    enum err e = find_columns(&c, &json, ctx);
    json_deinit(&json);
    if (e == ERR_OK)
        e = put_keys_first(&c, ctx);
    if (e == ERR_OK)
        e = read_rows(&c, sink, b, r, rows_max, ctx);
    columns_deinit(&c);
    return e;
}
