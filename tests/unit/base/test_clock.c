/* Time: RFC 3339 both ways against what the GNU date command prints, and what is refused. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/clock.h"

static const struct {
    const char *text;
    int64_t us;
} ROUND_TRIPS[] = {
    {"1970-01-01T00:00:00Z", 0},
    {"1970-01-01T00:00:00.000001Z", 1},
    {"1969-12-31T23:59:59.999999Z", -1},
    {"1969-12-31T23:59:59Z", -1000000},
    {"2024-05-01T12:00:00.25Z", 1714564800250000},
    {"2000-02-29T23:59:59Z", 951868799000000},
    {"1900-03-01T00:00:00Z", -2203891200000000},
    {"0001-01-01T00:00:00Z", -62135596800000000},
    {"9999-12-31T23:59:59.999999Z", 253402300799999999},
};

static const struct {
    const char *text;
    int64_t us;
} PARSED[] = {
    {"2024-05-01 12:00:00z", 1714564800000000},
    {"2024-05-01t14:30:00+02:30", 1714564800000000},
    {"2024-05-01T00:00:00-12:00", 1714564800000000},
    {"2024-05-01T12:00:00-00:00", 1714564800000000},
    {"2024-05-01T12:00:00.5Z", 1714564800500000},
    {"2024-05-01T12:00:00.123456789Z", 1714564800123456},
    {"1969-12-31T23:59:58.75+00:00", -1250000},
};

static const char *const REFUSED[] = {
    "",
    "2024",
    "2024-05-01",
    "2024-05-01T12:00:00",
    "2024-05-01T12:00Z",
    "2024-05-01T12:00:00.Z",
    "2024-05-01T12:00:00.1234567890Z",
    "2024-05-01T12:00:00,5Z",
    "2024-05-01T12:00:00+0200",
    "2024-05-01T12:00:00+24:00",
    "2024-05-01T12:00:00+02:60",
    "2024-05-01T12:00:00Zx",
    " 2024-05-01T12:00:00Z",
    "2024-05-01_12:00:00Z",
    "2024-5-01T12:00:00Z",
    "+024-05-01T12:00:00Z",
    "2024-00-01T12:00:00Z",
    "2024-13-01T12:00:00Z",
    "2024-05-00T12:00:00Z",
    "2024-05-32T12:00:00Z",
    "2023-02-29T12:00:00Z",
    "1900-02-29T12:00:00Z",
    "2024-05-01T24:00:00Z",
    "2024-05-01T12:60:00Z",
    "2024-05-01T12:00:60Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01",
};

static void test_format_and_parse_are_inverse(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(ROUND_TRIPS) / sizeof(ROUND_TRIPS[0]); i++) {
        char text[32];
        int64_t us = 42;
        clock_format_rfc3339(ROUND_TRIPS[i].us, text);
        assert_string_equal(text, ROUND_TRIPS[i].text);
        assert_int_equal(clock_parse_rfc3339(text, strlen(text), &us), 0);
        assert_true(us == ROUND_TRIPS[i].us);
    }
}

static void test_round_trip_over_the_whole_range(void **state)
{
    (void)state;
    for (int64_t us = -62135596800000000; us < 253402300799999999; us += 31415926535897) {
        char text[32];
        int64_t back = 0;
        clock_format_rfc3339(us, text);
        assert_int_equal(clock_parse_rfc3339(text, strlen(text), &back), 0);
        assert_true(back == us);
    }
}

static void test_other_forms_are_parsed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(PARSED) / sizeof(PARSED[0]); i++) {
        int64_t us = 42;
        assert_int_equal(clock_parse_rfc3339(PARSED[i].text, strlen(PARSED[i].text), &us), 0);
        assert_true(us == PARSED[i].us);
    }
}

static void test_bad_times_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(REFUSED) / sizeof(REFUSED[0]); i++) {
        int64_t us;
        if (clock_parse_rfc3339(REFUSED[i], strlen(REFUSED[i]), &us) == 0)
            fail_msg("\"%s\" was taken", REFUSED[i]);
    }
}

/* Each prefix lies in memory of its own, so that a look past the end is caught. */
static void test_no_prefix_is_a_time(void **state)
{
    (void)state;
    static const char TIME[] = "2024-05-01T12:00:00.25+01:00";
    for (size_t n = 0; n < sizeof(TIME) - 1; n++) {
        int64_t us;
        char *prefix = test_malloc(n + 1);
        memcpy(prefix, TIME, n);
        assert_int_equal(clock_parse_rfc3339(prefix, n, &us), -1);
        test_free(prefix);
    }
}

static void test_extreme_times_fit_the_text(void **state)
{
    (void)state;
    char text[32];
    clock_format_rfc3339(INT64_MAX, text);
    assert_string_equal(text, "294247-01-10T04:00:54.775807Z");
    clock_format_rfc3339(INT64_MIN, text);
    assert_string_equal(text, "-290308-12-21T19:59:05.224192Z");
}

static void test_clocks_move_and_random_bytes_differ(void **state)
{
    (void)state;
    uint64_t before = clock_mono_us();
    while (clock_mono_us() == before) {
    }
    assert_true(clock_mono_us() > before);
    assert_true(clock_wall_us() > 1700000000000000);
    uint8_t a[32], b[32];
    random_bytes(a, sizeof(a));
    random_bytes(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_and_parse_are_inverse),
        cmocka_unit_test(test_round_trip_over_the_whole_range),
        cmocka_unit_test(test_other_forms_are_parsed),
        cmocka_unit_test(test_bad_times_are_refused),
        cmocka_unit_test(test_no_prefix_is_a_time),
        cmocka_unit_test(test_extreme_times_fit_the_text),
        cmocka_unit_test(test_clocks_move_and_random_bytes_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
