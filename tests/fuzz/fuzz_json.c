/* JSON as it comes in requests: the reader itself, rows, columns, schemas, searches. The first byte
 * picks. What is read must be read alike again: a skipped value is a walked one, an array of floats
 * its floats one by one, a schema that was written reads back as the same. */
#include "fuzz_store.h"

#include "api/columnar_json.h"
#include "api/schema_json.h"
#include "api/search_body.h"
#include "api/service.h"

/* ---- any value ---- */

static enum err walk(struct json_reader *r);

static enum err walk_object(struct json_reader *r)
{
    struct json_slice name;
    bool more;
    RETURN_NOT_OK(json_object(r, NULL));
    for (;;) {
        RETURN_NOT_OK(json_next_field(r, &name, &more, NULL));
        if (!more)
            return ERR_OK;
        fuzz_touch(name.data, name.len);
        ASSERT(utf8_valid(name.data, name.len));
        RETURN_NOT_OK(walk(r));
    }
}

static enum err walk_array(struct json_reader *r)
{
    bool more;
    RETURN_NOT_OK(json_array(r, NULL));
    for (;;) {
        RETURN_NOT_OK(json_next_item(r, &more, NULL));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(walk(r));
    }
}

static enum err walk(struct json_reader *r)
{
    enum json_type type;
    struct json_slice s;
    double d;
    bool b;
    RETURN_NOT_OK(json_peek(r, &type, NULL));
    switch (type) {
    case JSON_NULL:
        return json_null(r, NULL);
    case JSON_BOOL:
        return json_bool(r, &b, NULL);
    case JSON_NUMBER:
        return json_double(r, &d, NULL);
    case JSON_STRING:
        RETURN_NOT_OK(json_string(r, &s, NULL));
        fuzz_touch(s.data, s.len);
        ASSERT(utf8_valid(s.data, s.len));
        return ERR_OK;
    case JSON_ARRAY:
        return walk_array(r);
    case JSON_OBJECT:
        return walk_object(r);
    }
    return ERR_INTERNAL;
}

/* The fast road for arrays of floats against the one for single numbers. */
static void try_floats(const uint8_t *text, size_t n)
{
    enum { CAP = 64 };
    struct json_reader r;
    float fast[CAP], slow[CAP], v;
    size_t nfast = 0, nslow = 0;
    bool more = true;
    json_init(&r, text, n, 0);
    enum err a = json_floats(&r, fast, CAP, &nfast, NULL);
    ASSERT(r.p <= r.end);
    json_reinit(&r, text, n, 0);
    enum err b = json_array(&r, NULL);
    while (b == ERR_OK && (b = json_next_item(&r, &more, NULL)) == ERR_OK && more) {
        if ((b = json_float(&r, &v, NULL)) != ERR_OK)
            break;
        if (nslow < CAP)
            slow[nslow] = v;
        nslow++;
    }
    ASSERT((a == ERR_OK) == (b == ERR_OK));
    if (a == ERR_OK)
        ASSERT(nfast == nslow && memcmp(fast, slow, (nfast < CAP ? nfast : CAP) * 4) == 0);
    json_deinit(&r);
}

static void try_value(const uint8_t *text, size_t n)
{
    struct json_reader r;
    int64_t whole;
    json_init(&r, text, n, 7);
    enum err skipped = json_skip(&r, NULL);
    if (skipped == ERR_OK)
        skipped = json_end(&r, NULL);
    json_reinit(&r, text, n, 0);
    enum err walked = walk(&r);
    if (walked == ERR_OK)
        walked = json_end(&r, NULL);
    /* a number out of range is well-formed, and so may be skipped */
    ASSERT(skipped == ERR_OK ? walked == ERR_OK || walked == ERR_UNPROCESSABLE : walked != ERR_OK);
    json_reinit(&r, text, n, 0);
    if (json_int64(&r, &whole, NULL) == ERR_OK)
        ASSERT(r.p <= r.end);
    json_deinit(&r);
    try_floats(text, n);
}

/* ---- rows, columns, schemas, searches ---- */

static void try_row(const uint8_t *text, size_t n, enum key_type key)
{
    static struct schema *schemas[2];
    struct row_reader r;
    struct batch *b;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (!schemas[key])
        schemas[key] = fuzz_schema(key);
    ASSERT(row_reader_init(&r, schemas[key], NULL) == ERR_OK);
    ASSERT(batch_new(schemas[key], &b, NULL) == ERR_OK);
    enum err e = row_reader_add(&r, b, (const char *)text, n, 0, 0, &ctx);
    ASSERT(e == ERR_OK ? b->rows == 1 : ctx.detail[0] != 0);
    if (e == ERR_OK)
        (void)!batch_validate(b, &ctx);
    batch_free(b);
    row_reader_deinit(&r);
}

static void try_columns(const uint8_t *text, size_t n, enum key_type key)
{
    struct load *l = fuzz_load(key);
    struct row_reader r;
    struct batch *b;
    struct err_ctx ctx;
    err_clear(&ctx);
    ASSERT(row_reader_init(&r, load_schema(l), NULL) == ERR_OK);
    ASSERT(batch_new(load_schema(l), &b, NULL) == ERR_OK);
    (void)columnar_form(text, n);
    if (columnar_json_load(text, n, row_sink_of(l), b, &r, 3, &ctx) != ERR_OK)
        ASSERT(ctx.detail[0]);
    batch_free(b);
    row_reader_deinit(&r);
    load_free(l);
}

static void try_schema(const uint8_t *text, size_t n)
{
    struct schema *s, *again;
    struct err_ctx ctx;
    struct buf out = {0};
    err_clear(&ctx);
    if (schema_read_json(text, n, &s, &ctx) != ERR_OK) {
        ASSERT(ctx.detail[0]);
        return;
    }
    schema_write_json(s, &out);
    ASSERT(schema_read_json(out.data, out.len, &again, &ctx) == ERR_OK);
    ASSERT(schema_equal(s, again));
    schema_release(again);
    schema_release(s);
    buf_deinit(&out);
}

static void try_search(const uint8_t *text, size_t n)
{
    static struct service service;
    static struct snapshot *empty;
    struct request r = {.service = &service, .media_in = MEDIA_JSON, .media_out = MEDIA_JSON};
    struct search_ask ask;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (!empty) {
        limits_init(&service.limits);
        empty = calloc(1, sizeof *empty);
        ASSERT(empty);
        empty->schema = fuzz_schema(KEY_STRING);
    }
    buf_put(&r.body, text, n);
    json_init(&r.json, "", 0, 0);
    if (search_body_read(&r, empty, &ask, &ctx) == ERR_OK)
        ASSERT(r.queries.len == ask.nq * FUZZ_DIM * sizeof(float));
    else
        ASSERT(ctx.detail[0]);
    filter_free(ask.filter);
    json_deinit(&r.json);
    buf_deinit(&r.body);
    buf_deinit(&r.queries);
    buf_deinit(&r.refs);
    buf_deinit(&r.columns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    switch (data[0] % 7) {
    case 0:
        try_value(data + 1, n - 1);
        break;
    case 1:
        try_row(data + 1, n - 1, KEY_STRING);
        break;
    case 2:
        try_row(data + 1, n - 1, KEY_INT64);
        break;
    case 3:
        try_schema(data + 1, n - 1);
        break;
    case 4:
        try_search(data + 1, n - 1);
        break;
    case 5:
        try_columns(data + 1, n - 1, KEY_STRING);
        break;
    case 6:
        try_columns(data + 1, n - 1, KEY_INT64);
        break;
    }
    return 0;
}
