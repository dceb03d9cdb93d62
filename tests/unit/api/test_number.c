/* Numbers as text: correctly rounded in, shortest out, and back to the same bits. */
#include "unit/api/cmocka_all.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/number.h"

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void test_floats_come_back_to_the_bit(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u;
    for (int i = 0; i < 200000; i++) {
        uint32_t bits = (uint32_t)next_random(&seed);
        char text[NUMBER_TEXT_MAX];
        float v, back;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v))
            continue;
        size_t n = number_print_float(v, text);
        assert_in_range(n, 1, NUMBER_TEXT_MAX);
        assert_int_equal(number_parse_float(text, n, &back), NUMBER_OK);
        assert_memory_equal(&v, &back, sizeof v);
    }
}

static void test_doubles_come_back_to_the_bit(void **state)
{
    (void)state;
    uint64_t seed = 1234567;
    for (int i = 0; i < 200000; i++) {
        uint64_t bits = next_random(&seed);
        char text[NUMBER_TEXT_MAX];
        double v, back;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v))
            continue;
        size_t n = number_print_double(v, text);
        assert_int_equal(number_parse_double(text, n, &back), NUMBER_OK);
        assert_memory_equal(&v, &back, sizeof v);
    }
}

static void expect_float(const char *text, enum number_status status, float wanted)
{
    float v = -1;
    assert_int_equal(number_parse_float(text, strlen(text), &v), status);
    if (status == NUMBER_OK)
        assert_memory_equal(&v, &wanted, sizeof v);
}

static void test_the_ends_of_the_scale(void **state)
{
    (void)state;
    expect_float("3.4028235e38", NUMBER_OK, FLT_MAX);
    expect_float("3.4028236e38", NUMBER_RANGE, 0);
    expect_float("1e39", NUMBER_RANGE, 0);
    expect_float("-1e999", NUMBER_RANGE, 0);
    expect_float("1e-45", NUMBER_OK, FLT_TRUE_MIN);
    expect_float("1e-46", NUMBER_OK, 0.0f);
    expect_float("-1e-999", NUMBER_OK, -0.0f);
    double d;
    assert_int_equal(number_parse_double("1e309", 5, &d), NUMBER_RANGE);
    assert_int_equal(number_parse_double("5e-324", 6, &d), NUMBER_OK);
    assert_true(d == DBL_TRUE_MIN);
    assert_int_equal(number_parse_double("1e-400", 6, &d), NUMBER_OK);
    assert_true(d == 0);
}

/* Half way between two floats, and a hair above: a float read through a double rounds wrongly. */
static void test_floats_are_rounded_once(void **state)
{
    (void)state;
    expect_float("1.00000017881393432617187499", NUMBER_OK, 1.00000011920928955f);
    expect_float("1.00000017881393432617187500", NUMBER_OK, 1.00000023841857910f);
    expect_float("1.00000005960464477539062500000000000001", NUMBER_OK, 1.00000011920928955f);
}

static void test_malformed_text(void **state)
{
    static const char *const bad[] = {"", "x", "1x", " 1", "1 ", "--1", "1e", "e5"};
    (void)state;
    float f;
    int64_t i;
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        assert_int_equal(number_parse_float(bad[k], strlen(bad[k]), &f), NUMBER_MALFORMED);
        assert_int_equal(number_parse_int64(bad[k], strlen(bad[k]), &i), NUMBER_MALFORMED);
    }
    expect_float("inf", NUMBER_RANGE, 0);
    expect_float("nan", NUMBER_RANGE, 0);
    assert_int_equal(number_parse_int64("1.0", 3, &i), NUMBER_MALFORMED);
    assert_int_equal(number_parse_int64("9223372036854775808", 19, &i), NUMBER_RANGE);
    assert_int_equal(number_parse_int64("-9223372036854775808", 20, &i), NUMBER_OK);
    assert_true(i == INT64_MIN);
}

static void test_long_text(void **state)
{
    (void)state;
    char text[NUMBER_CHARS_MAX + 8];
    float v;
    memset(text, '1', sizeof text);
    assert_int_equal(number_parse_float(text, NUMBER_CHARS_MAX, &v), NUMBER_RANGE);
    assert_int_equal(number_parse_float(text, NUMBER_CHARS_MAX + 1, &v), NUMBER_MALFORMED);
    memset(text, '0', sizeof text);
    text[1] = '.';
    text[NUMBER_CHARS_MAX - 1] = '1';
    assert_int_equal(number_parse_float(text, NUMBER_CHARS_MAX, &v), NUMBER_OK);
    assert_true(v == 0);
}

static void test_shortest_text(void **state)
{
    (void)state;
    char text[NUMBER_TEXT_MAX];
    assert_int_equal(number_print_float(0.1f, text), 3);
    assert_memory_equal(text, "0.1", 3);
    assert_int_equal(number_print_double(0.1f, text), strlen("0.10000000149011612"));
    assert_int_equal(number_print_float(5.0f, text), 1);
    assert_int_equal(number_print_int64(INT64_MIN, text), 20);
    assert_memory_equal(text, "-9223372036854775808", 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats_come_back_to_the_bit),
        cmocka_unit_test(test_doubles_come_back_to_the_bit),
        cmocka_unit_test(test_the_ends_of_the_scale),
        cmocka_unit_test(test_floats_are_rounded_once),
        cmocka_unit_test(test_malformed_text),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_shortest_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
