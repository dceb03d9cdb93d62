/* The time that a build will still take, on times that are made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "index/pace.h"

enum { SECOND_US = 1000000 };

/* A build of `all_s`, which says its share 1,000 times, after a time in which it says nothing. The
 * share runs ahead of the time, or behind, by `bend`. */
static void play(double silent_s, double all_s, double bend, double worst)
{
    struct pace p;
    uint64_t start_us = 77 * (uint64_t)SECOND_US;
    pace_start(&p, start_us);
    assert_true(pace_left_s(&p, start_us) < 0);
    for (int i = 0; i <= 1000; i++) {
        double time = i / 1000.0, share = pow(time, bend), left_s = all_s * (1 - time);
        uint64_t now_us = start_us + (uint64_t)((silent_s + all_s * time) * SECOND_US);
        pace_note(&p, share, now_us);
        double said_s = pace_left_s(&p, now_us);
        if (share < 0.1)
            continue;
        assert_true(said_s >= 0);
        if (fabs(said_s - left_s) > worst * left_s + 1e-6)
            fail_msg("%.3f done: %.3f s left, said %.3f", share, left_s, said_s);
    }
}

static void an_even_pace_is_known_after_a_tenth(void **state)
{
    (void)state;
    play(0, 100, 1, 0.001);
    play(30, 100, 1, 0.001); /* however long it read and sorted before */
    play(500, 2, 1, 0.001);
}

/* Shares that run ahead of the time, or behind, by a twentieth of the power. */
static void an_uneven_pace_is_known_within_a_fifth(void **state)
{
    (void)state;
    play(0, 100, 1.05, 0.2);
    play(0, 100, 0.95, 0.2);
}

static void nothing_is_said_before_there_is_a_pace(void **state)
{
    (void)state;
    struct pace p;
    pace_start(&p, 5);
    pace_note(&p, 0.5, 1000); /* the first share, however large */
    assert_true(pace_left_s(&p, 1000) < 0);
    pace_note(&p, 0.505, 2000);
    assert_true(pace_left_s(&p, 2000) < 0);
    pace_note(&p, 0.6, 1000 + SECOND_US);
    assert_true(fabs(pace_left_s(&p, 1000 + SECOND_US) - 4) < 1e-6);
}

static void the_time_since_the_last_share_counts(void **state)
{
    (void)state;
    struct pace p;
    pace_start(&p, 0);
    pace_note(&p, 0, 0);
    pace_note(&p, 0.5, 10 * SECOND_US);
    assert_true(fabs(pace_left_s(&p, 14 * SECOND_US) - 6) < 1e-6);
    assert_true(pace_left_s(&p, 30 * SECOND_US) == 0); /* late, but never negative: unknown */
}

static void time_spent_standing_still_does_not_count(void **state)
{
    (void)state;
    struct pace p;
    pace_start(&p, 0);
    pace_note(&p, 0, 0);
    pace_note(&p, 0.25, 10 * SECOND_US);
    pace_skip(&p, 1000 * (uint64_t)SECOND_US);
    pace_note(&p, 0.5, 1020 * (uint64_t)SECOND_US);
    assert_true(fabs(pace_left_s(&p, 1020 * (uint64_t)SECOND_US) - 20) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_even_pace_is_known_after_a_tenth),
        cmocka_unit_test(an_uneven_pace_is_known_within_a_fifth),
        cmocka_unit_test(nothing_is_said_before_there_is_a_pace),
        cmocka_unit_test(the_time_since_the_last_share_counts),
        cmocka_unit_test(time_spent_standing_still_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
