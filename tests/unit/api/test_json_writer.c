/* The JSON writer: every value of every type as text that reads back. */
#include "unit/api/cmocka_all.h"

#include <math.h>

#include "api/json_writer.h"
#include "api/problem.h"

static void expect_text(struct buf *b, const char *wanted)
{
    buf_put_u8(b, 0);
    assert_false(b->failed);
    assert_string_equal((char *)b->data, wanted);
    buf_reset(b);
}

static void test_strings_are_escaped(void **state)
{
    (void)state;
    struct buf b = {0};
    json_put_string(&b, "", 0);
    expect_text(&b, "\"\"");
    json_put_string(&b, "a\"b\\c/\b\f\n\r\t\x01\x1f\0z", 15);
    expect_text(&b, "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0001\\u001f\\u0000z\"");
    json_put_string(&b, "h\xc3\xa9\x7f", 4);
    expect_text(&b, "\"h\xc3\xa9\x7f\"");
    json_put_text(&b, "bad \xff\xc3 \"quoted\"");
    expect_text(&b, "\"bad ?? \\\"quoted\\\"\"");
    buf_deinit(&b);
}

static void test_numbers(void **state)
{
    (void)state;
    struct buf b = {0};
    float list[] = {1, -0.5f, NAN};
    json_put_float(&b, 0.1f);
    expect_text(&b, "0.1");
    json_put_float(&b, -INFINITY);
    expect_text(&b, "\"-Infinity\"");
    json_put_double(&b, NAN);
    expect_text(&b, "\"NaN\"");
    json_put_double(&b, INFINITY);
    expect_text(&b, "\"Infinity\"");
    json_put_uint(&b, UINT64_MAX);
    expect_text(&b, "18446744073709551615");
    json_put_floats(&b, list, 3);
    expect_text(&b, "[1,-0.5,\"NaN\"]");
    json_put_floats(&b, list, 0);
    expect_text(&b, "[]");
    json_put_timestamp(&b, 1714564800250000);
    expect_text(&b, "\"2024-05-01T12:00:00.25Z\"");
    buf_deinit(&b);
}

/* Cells lie at any address. */
static void expect_cell(enum feature_type type, const void *data, size_t len, const char *wanted)
{
    struct buf b = {0};
    char odd[64];
    assert_in_range(len, 0, sizeof odd - 1);
    memcpy(odd + 1, data, len);
    json_put_cell(&b, type, odd + 1, len);
    expect_text(&b, wanted);
    json_put_cell(&b, type, NULL, 0);
    expect_text(&b, "null");
    buf_deinit(&b);
}

static void test_cells_of_every_type(void **state)
{
    (void)state;
    uint8_t yes = 1;
    int32_t i32 = -7;
    int64_t i64 = INT64_MIN, pair[] = {1, -2};
    float f32 = 1.1f, floats[] = {0.1f, 2};
    double f64 = 1.1;
    expect_cell(FEATURE_BOOL, &yes, 1, "true");
    expect_cell(FEATURE_INT32, &i32, 4, "-7");
    expect_cell(FEATURE_INT64, &i64, 8, "-9223372036854775808");
    expect_cell(FEATURE_FLOAT32, &f32, 4, "1.1");
    expect_cell(FEATURE_FLOAT64, &f64, 8, "1.1");
    expect_cell(FEATURE_STRING, "a\n", 2, "\"a\\n\"");
    expect_cell(FEATURE_STRING, "", 0, "\"\"");
    expect_cell(FEATURE_BYTES, "\0\xff", 2, "\"AP8=\"");
    expect_cell(FEATURE_FLOAT32_LIST, floats, 8, "[0.1,2]");
    expect_cell(FEATURE_FLOAT32_LIST, "", 0, "[]");
    expect_cell(FEATURE_INT64_LIST, pair, 16, "[1,-2]");
    expect_cell(FEATURE_STRING_LIST, "\1\0\0\0a\0\0\0\0\2\0\0\0bc", 15, "[\"a\",\"\",\"bc\"]");
}

static void test_a_problem_names_row_and_field(void **state)
{
    (void)state;
    struct buf b = {0};
    struct err_ctx err;
    err_clear(&err);
    assert_int_equal(err_set(&err, ERR_UNPROCESSABLE, "expected a number at byte 3"),
                     ERR_UNPROCESSABLE);
    problem_place(&err, 4, "price", 5);
    problem_place(&err, 5, "other", 5); /* the first place stays */
    problem_write(&err, &b);
    expect_text(
        &b, "{\"type\":\"about:blank\",\"title\":\"Data does not fit\",\"status\":422,"
            "\"detail\":\"price: expected a number at byte 3\",\"row\":4,\"field\":\"price\"}\n");
    buf_deinit(&b);
}

static void test_every_error_has_a_status(void **state)
{
    (void)state;
    for (int e = ERR_INVALID; e < ERR_COUNT; e++)
        assert_in_range(problem_status((enum err)e), 400, 507);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings_are_escaped),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_cells_of_every_type),
        cmocka_unit_test(test_a_problem_names_row_and_field),
        cmocka_unit_test(test_every_error_has_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
