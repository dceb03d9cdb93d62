/* Rows and schemas as JSON: cells reach the batch in their three states; errors name row and
 * field. */
#include "unit/api/cmocka_all.h"

#include <string.h>

#include "api/row_json.h"
#include "api/schema_json.h"

static const char schema_text[] =
    "{\"features\":{\"ok\":\"bool\",\"i\":\"int32\",\"l\":\"int64\",\"f\":\"float32\","
    "\"d\":\"float64\",\"t\":\"timestamp\",\"s\":\"string\",\"b\":\"bytes\",\"fs\":\"float32[]\","
    "\"ls\":\"int64[]\",\"ss\":\"string[]\"},\"vector\":{\"metric\":\"l2\",\"dim\":2},"
    "\"key\":\"int64\"}";

static int open_schema(void **state)
{
    struct err_ctx err;
    struct schema *s;
    if (schema_read_json(schema_text, sizeof schema_text - 1, &s, &err) != ERR_OK)
        return -1;
    *state = s;
    return 0;
}

static int close_schema(void **state)
{
    schema_release(*state);
    return 0;
}

static enum err add(struct schema *s, struct batch *b, const char *text, struct err_ctx *err)
{
    struct row_reader r;
    err_clear(err);
    assert_int_equal(row_reader_init(&r, s, NULL), ERR_OK);
    enum err e = row_reader_add(&r, b, text, strlen(text), b->rows, 0, err);
    row_reader_deinit(&r);
    return e;
}

static void expect_bytes(struct batch *b, const char *feature, const void *wanted, size_t n)
{
    int f = schema_find(b->schema, feature, strlen(feature));
    const struct column *c = &b->features[f];
    uint32_t width = b->schema->features[f].width;
    const void *data = c->values.data + (b->rows - 1) * width;
    size_t len = width;
    assert_int_equal(column_state(c, b->rows - 1), CELL_VALUE);
    if (!width)
        data = column_var(c, b->rows - 1, &len);
    assert_int_equal(len, n);
    assert_memory_equal(data, wanted, n);
}

static void test_values_are_stored_in_their_form(void **state)
{
    struct schema *s = *state;
    struct batch *b;
    struct err_ctx err;
    assert_int_equal(batch_new(s, &b, NULL), ERR_OK);
    enum err e = add(s, b,
                     "{\"ok\":true,\"key\":\"-5\",\"i\":-1,\"l\":9007199254740993,\"f\":0.1,"
                     "\"d\":\"Infinity\",\"t\":\"1970-01-01T00:00:01Z\",\"s\":\"h\\u00e9\","
                     "\"b\":\"AAE=\",\"fs\":[1,\"NaN\"],\"ls\":[],\"ss\":[\"a\",\"\"],"
                     "\"vector\":[1,2]}",
                     &err);
    if (e != ERR_OK)
        fail_msg("%s", err.detail);
    float f = 0.1f;
    double d = __builtin_inf();
    int64_t big = 9007199254740993, second = 1000000;
    int32_t minus = -1;
    assert_int_equal(batch_int_key(b, 0), -5);
    assert_true(batch_vector(b, 0)[1] == 2);
    expect_bytes(b, "ok", "\1", 1);
    expect_bytes(b, "i", &minus, 4);
    expect_bytes(b, "l", &big, 8);
    expect_bytes(b, "f", &f, 4);
    expect_bytes(b, "d", &d, 8);
    expect_bytes(b, "t", &second, 8);
    expect_bytes(b, "s", "h\xc3\xa9", 3);
    expect_bytes(b, "b", "\0\1", 2);
    expect_bytes(b, "ss", "\1\0\0\0a\0\0\0\0", 9);
    batch_free(b);
}

static void test_null_and_absent_differ(void **state)
{
    struct schema *s = *state;
    struct batch *b;
    struct err_ctx err;
    assert_int_equal(batch_new(s, &b, NULL), ERR_OK);
    assert_int_equal(add(s, b, "{\"key\":1,\"vector\":null,\"f\":null}", &err), ERR_OK);
    assert_int_equal(column_state(&b->vector, 0), CELL_NULL);
    assert_int_equal(column_state(&b->features[schema_find(s, "f", 1)], 0), CELL_NULL);
    assert_int_equal(b->features[schema_find(s, "i", 1)].state.len, 0);
    batch_free(b);
}

static const struct {
    const char *text, *field;
    enum err code;
} bad_rows[] = {
    {"{\"vector\":[1,2]}", "key", ERR_UNPROCESSABLE},
    {"{\"key\":null}", "key", ERR_UNPROCESSABLE},
    {"{\"key\":1.5}", "key", ERR_UNPROCESSABLE},
    {"{\"key\":\"x\"}", "key", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"key\":2}", "key", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"vector\":[1]}", "vector", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"vector\":[1,null]}", "vector", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"vector\":[1,1e39]}", "vector", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"vector\":[1,2],\"vector\":[1,2]}", "vector", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"colour\":1}", "colour", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"i\":2147483648}", "i", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"i\":0.5}", "i", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"i\":\"1\"}", "i", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"ok\":1}", "ok", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"f\":\"x\"}", "f", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"f\":NaN}", "f", ERR_INVALID},
    {"{\"key\":1,\"t\":\"yesterday\"}", "t", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"b\":\"*\"}", "b", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"ss\":[null]}", "ss", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"ls\":[1.5]}", "ls", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"s\":[\"a\"]}", "s", ERR_UNPROCESSABLE},
    {"{\"key\":1,\"f\":1,\"f\":2}", "f", ERR_UNPROCESSABLE},
    {"[1]", "", ERR_UNPROCESSABLE},
    {"{\"key\":1", "", ERR_INVALID},
    {"{\"key\":1}{}", "", ERR_INVALID},
};

static void test_bad_rows_name_row_and_field(void **state)
{
    struct schema *s = *state;
    struct err_ctx err;
    for (size_t i = 0; i < sizeof bad_rows / sizeof bad_rows[0]; i++) {
        struct batch *b;
        assert_int_equal(batch_new(s, &b, NULL), ERR_OK);
        assert_int_equal(add(s, b, "{\"key\":77}", &err), ERR_OK);
        enum err e = add(s, b, bad_rows[i].text, &err);
        batch_free(b);
        if (e != bad_rows[i].code || err.row != 1 || strcmp(err.field, bad_rows[i].field) != 0)
            fail_msg("%s: %d, row %d, field '%s': %s", bad_rows[i].text, e, (int)err.row, err.field,
                     err.detail);
    }
}

static void test_schemas_come_back(void **state)
{
    struct schema *s = *state, *back;
    struct buf text = {0};
    schema_write_json(s, &text);
    assert_int_equal(schema_read_json(text.data, text.len, &back, NULL), ERR_OK);
    assert_true(schema_equal(s, back));
    schema_release(back);
    buf_deinit(&text);
}

static const struct {
    const char *text, *field;
} bad_schemas[] = {
    {"", ""},
    {"[]", ""},
    {"{}", "key"},
    {"{\"key\":\"uuid\"}", "key"},
    {"{\"key\":\"string\",\"key\":\"string\"}", "key"},
    {"{\"key\":\"string\",\"colour\":1}", "colour"},
    {"{\"key\":\"string\",\"vector\":{}}", "dim"},
    {"{\"key\":\"string\",\"vector\":{\"dim\":0}}", "dim"},
    {"{\"key\":\"string\",\"vector\":{\"dim\":65537}}", "dim"},
    {"{\"key\":\"string\",\"vector\":{\"dim\":4,\"metric\":\"l1\"}}", "metric"},
    {"{\"key\":\"string\",\"features\":{\"a\":\"int\"}}", "a"},
    {"{\"key\":\"string\",\"features\":{\"a\":{\"type\":\"int32\"}}}", "a"},
    {"{\"key\":\"string\",\"features\":{\"key\":\"int32\"}}", "key"},
    {"{\"key\":\"string\",\"features\":{\"a\":\"int32\",\"a\":\"int32\"}}", "a"},
    {"{\"key\":\"string\",\"features\":{\"a\\u0000b\":\"int32\"}}", "features"},
    {"{\"key\":\"string\",\"index\":{\"kind\":\"lsh\"}}", "kind"},
    {"{\"key\":\"string\",\"index\":{\"nlist\":65537}}", "nlist"},
    {"{\"key\":\"string\",\"partition_by\":[\"day\"]}", "partition_by"},
    {"{\"key\":\"string\",\"event_time\":\"ts\"}", "event_time"},
    {"{\"key\":\"string\",\"join_keys\":[\"a b\"]}", "join_keys"},
    {"{\"key\":\"string\"} x", ""},
};

static void test_bad_schemas_name_the_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_schemas / sizeof bad_schemas[0]; i++) {
        struct err_ctx err;
        struct schema *s;
        const char *text = bad_schemas[i].text;
        err_clear(&err);
        if (schema_read_json(text, strlen(text), &s, &err) == ERR_OK)
            fail_msg("%s was taken", text);
        if (strcmp(err.field, bad_schemas[i].field) != 0)
            fail_msg("%s: field '%s': %s", text, err.field, err.detail);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_stored_in_their_form),
        cmocka_unit_test(test_null_and_absent_differ),
        cmocka_unit_test(test_bad_rows_name_row_and_field),
        cmocka_unit_test(test_schemas_come_back),
        cmocka_unit_test(test_bad_schemas_name_the_field),
    };
    return cmocka_run_group_tests(tests, open_schema, close_schema);
}
