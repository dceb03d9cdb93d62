/* Columnar JSON: the first field tells the form, whatever the pieces; columns become rows; errors
 * name row and column. */
#include "unit/store/store_fixture.h"

#include "api/columnar_json.h"
#include "api/decoder.h"

static struct service service;

static void the_first_field_tells_the_form(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum columnar_form form;
    } cases[] = {
        {"", COLUMNAR_UNDECIDED},
        {" \r\n\t", COLUMNAR_UNDECIDED},
        {" {", COLUMNAR_UNDECIDED},
        {"{ \"", COLUMNAR_UNDECIDED},
        {"{\"key", COLUMNAR_UNDECIDED},
        {"{\"keys", COLUMNAR_UNDECIDED},
        {"{\"keys\"", COLUMNAR_YES},
        {" { \"vectors\":", COLUMNAR_YES},
        {"{\n\"features\":{}}", COLUMNAR_YES},
        {"{\"rows\":[{\"keys\":1}]}", COLUMNAR_NO},
        {"{\"r", COLUMNAR_NO},
        {"{\"key\"", COLUMNAR_NO},
        {"{\"keyss\"", COLUMNAR_NO},
        {"{}", COLUMNAR_NO},
        {"[\"keys\"", COLUMNAR_NO},
        {"\"keys\"", COLUMNAR_NO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (columnar_form(cases[i].text, strlen(cases[i].text)) != cases[i].form)
            fail_msg("%s", cases[i].text);
    }
    char *spaces = malloc(1 << 20);
    assert_non_null(spaces);
    memset(spaces, ' ', 1 << 20);
    assert_int_equal(columnar_form(spaces, 1 << 20), COLUMNAR_NO);
    free(spaces);
}

static enum err load_text(struct fixture *f, struct collection *c, const char *body, size_t piece)
{
    struct decoder_options o = {.media = MEDIA_JSON, .service = &service, .row_bytes_max = 1 << 20};
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct decoder *d;
    struct commit_result r;
    size_t len = strlen(body);
    err_clear(&f->ctx);
    OK(decoder_new(row_sink_of(l), &o, &d, &f->ctx));
    enum err e = ERR_OK;
    for (size_t at = 0; at < len && e == ERR_OK; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        char *copy = malloc(n); /* exact, so that a sanitizer sees a read past the end */
        assert_non_null(copy);
        memcpy(copy, body + at, n);
        e = decoder_feed(d, copy, n, &f->ctx);
        free(copy);
    }
    if (e == ERR_OK)
        e = decoder_finish(d, &f->ctx);
    if (e == ERR_OK)
        e = load_commit(l, &r, &f->ctx);
    decoder_free(d);
    load_free(l);
    assert_int_equal(atomic_load(&service.buffer_bytes), 0);
    return e;
}

static struct digest digest_of(struct collection *c)
{
    epoch_enter();
    struct digest d = collection_snapshot(c)->digest;
    epoch_leave();
    return d;
}

static const char rows_text[] =
    "{\"rows\":[{\"key\":\"a\",\"vector\":[1,2,3,4],\"price\":1.5,\"name\":\"x\",\"tags\":[]},"
    "{\"key\":\"b\",\"vector\":null,\"price\":null,\"name\":\"\",\"tags\":[\"t\",\"u\"]},"
    "{\"key\":\"c\\n\",\"vector\":[0,0,0,1],\"price\":\"NaN\",\"name\":null,\"tags\":null}]}";

static const char *const columnar_texts[] = {
    "{\"keys\":[\"a\",\"b\",\"c\\n\"],\"vectors\":[[1,2,3,4],null,[0,0,0,1]],"
    "\"features\":{\"price\":[1.5,null,\"NaN\"],\"name\":[\"x\",\"\",null],"
    "\"tags\":[[],[\"t\",\"u\"],null]}}",
    " {\n\"features\" : { \"tags\" : [ [ ] , [\"t\",\"u\"] , null ] , "
    "\"name\":[\"x\",\"\",null],\"price\":[1.5,null,\"NaN\"] } ,\n"
    "\"vectors\":[[1,2,3,4],null,[0,0,0,1]], \"keys\":[\"a\",\"b\",\"c\\n\"] } \n",
};

static void columns_are_the_rows_they_stand_for(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    OK(load_text(f, fixture_create(f, "rows", KEY_STRING), rows_text, 7));
    struct digest wanted = digest_of(fixture_find(f, "rows"));
    for (size_t i = 0; i < 2; i++) {
        struct collection *c = fixture_create(f, i ? "c1" : "c0", KEY_STRING);
        size_t len = strlen(columnar_texts[i]);
        for (size_t piece = 1; piece <= len; piece += piece < 16 ? 1 : 13) {
            OK(load_text(f, c, columnar_texts[i], piece));
            struct digest d = digest_of(c);
            assert_memory_equal(&d, &wanted, sizeof d);
        }
    }
    fixture_free(f);
}

static void rows_may_come_after_much_white_space(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    char *body = malloc(10000 + sizeof rows_text);
    assert_non_null(body);
    memset(body, ' ', 10000);
    memcpy(body + 10000, rows_text, sizeof rows_text);
    struct collection *c = fixture_create(f, "c", KEY_STRING);
    for (size_t piece = 1; piece < 9000; piece += 1111)
        OK(load_text(f, c, body, piece));
    epoch_enter();
    assert_int_equal(collection_snapshot(c)->rows, 3);
    epoch_leave();
    free(body);
    fixture_free(f);
}

static const struct {
    const char *body;
    enum err err;
    int64_t row;
    const char *field, *words;
} bad[] = {
    {"{\"keys\":[1,2],\"features\":{\"count\":[1]}}", ERR_UNPROCESSABLE, -1, "count",
     "has 1 values, 'keys' has 2"},
    {"{\"keys\":[1],\"features\":{\"count\":[1,[2],3]}}", ERR_UNPROCESSABLE, -1, "count",
     "has 3 values, 'keys' has 1"},
    {"{\"vectors\":[],\"keys\":[1,2,3]}", ERR_UNPROCESSABLE, -1, "vectors",
     "has 0 values, 'keys' has 3"},
    {"{\"features\":{}}", ERR_INVALID, -1, "", "need \"keys\""},
    {"{\"keys\":[1],\"keys\":[1]}", ERR_INVALID, -1, "keys", "twice"},
    {"{\"keys\":[1],\"features\":{},\"features\":{}}", ERR_INVALID, -1, "features", "twice"},
    {"{\"keys\":[1],\"features\":{\"count\":[1],\"count\":[1]}}", ERR_INVALID, -1, "count",
     "twice"},
    {"{\"keys\":[1],\"features\":{\"nothing\":[1]}}", ERR_UNPROCESSABLE, -1, "nothing",
     "no feature 'nothing'"},
    {"{\"keys\":[1],\"rows\":[]}", ERR_INVALID, -1, "rows", "known: keys, vectors, features"},
    {"{\"keys\":null}", ERR_UNPROCESSABLE, -1, "keys", "null"},
    {"{\"keys\":[1],\"vectors\":{}}", ERR_UNPROCESSABLE, -1, "vectors", "object"},
    {"{\"keys\":[1],\"features\":{\"count\":5}}", ERR_UNPROCESSABLE, -1, "count", "array"},
    {"{\"keys\":[1],\"features\":[]}", ERR_UNPROCESSABLE, -1, "features", "array"},
    {"{\"keys\":[1,true]}", ERR_UNPROCESSABLE, 1, "key", "int64"},
    {"{\"keys\":[1,2],\"features\":{\"count\":[1,\"x\"]}}", ERR_UNPROCESSABLE, 1, "count", "int64"},
    {"{\"keys\":[1,2],\"vectors\":[[1,2,3,4],[1,2]]}", ERR_UNPROCESSABLE, 1, "vectors",
     "2 elements"},
    {"{\"keys\":[1,2],\"vectors\":[[1,2,3,4],[1,2,null,4]]}", ERR_UNPROCESSABLE, 1, "vectors",
     "null"},
    {"{\"keys\":[1,1]}", ERR_UNPROCESSABLE, 1, "key", "rows 0 and 1 have the same key 1"},
    {"{\"keys\":[1,2,]}", ERR_INVALID, -1, "keys", "byte 13"},
    {"{\"keys\":[1,2]", ERR_INVALID, -1, "", "byte"},
    {"{\"keys\":[1,2]} x", ERR_INVALID, -1, "", "byte 15"},
    {"{\"keys\":[1,2],\"vectors\":[[1,2,3,4],[1,2,NaN,4]]}", ERR_INVALID, -1, "vectors", "byte"},
};

static void errors_name_row_and_column(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (size_t piece = 1; piece < 100; piece += 33) {
            enum err e = load_text(f, c, bad[i].body, piece);
            if (e != bad[i].err || f->ctx.row != bad[i].row ||
                strcmp(f->ctx.field, bad[i].field) != 0 || !strstr(f->ctx.detail, bad[i].words))
                fail_msg("%s: %d row %lld field '%s': %s", bad[i].body, e, (long long)f->ctx.row,
                         f->ctx.field, f->ctx.detail);
        }
    }
    fixture_free(f);
}

static void what_a_body_holds_is_counted(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    uint64_t max = service.limits.buffer_bytes_max;
    service.limits.buffer_bytes_max = 4096;
    char body[8192];
    size_t len = (size_t)snprintf(body, sizeof body, "{\"keys\":[0");
    for (int i = 1; i < 1500; i++)
        len += (size_t)snprintf(body + len, sizeof body - len, ",%d", i);
    snprintf(body + len, sizeof body - len, "]}");
    assert_int_equal(load_text(f, c, body, 512), ERR_BUSY);
    assert_non_null(strstr(f->ctx.detail, "buffer_bytes_max"));
    service.limits.buffer_bytes_max = max;
    OK(load_text(f, c, body, 512));
    assert_true(has_key(c, 1499));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_field_tells_the_form),
        cmocka_unit_test(columns_are_the_rows_they_stand_for),
        cmocka_unit_test(rows_may_come_after_much_white_space),
        cmocka_unit_test(errors_name_row_and_column),
        cmocka_unit_test(what_a_body_holds_is_counted),
    };
    limits_init(&service.limits);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
