/* Metrics: nothing is lost between threads, buckets hold what their bounds say, and the text is
 * what Prometheus reads. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/metrics.h"

enum { THREADS = 8, EACH = 20000, SPEED_ROUNDS = 4 * 1000 * 1000 };

static void label_size(unsigned series, struct buf *out)
{
    metrics_put_label(out, "size", series ? "large" : "small \"\\\n");
    metrics_put_label(out, "unit", "x");
}

METRIC_COUNTER(plain, "test_plain_total", "Plain.")
METRIC_COUNTERS(sized, "test_sized_total", "By size,\nwith a \\.", 2, label_size)
METRIC_HISTOGRAM(times, "test_times_seconds", "Times.")
METRIC_HISTOGRAMS(sized_times, "test_sized_times_seconds", "Times by size.", 2, label_size)
METRIC_HISTOGRAM(edges, "test_edges_seconds", "Bounds.")
METRIC_COUNTER(speed_counter, "test_speed_total", "Speed.")
METRIC_HISTOGRAM(speed_histogram, "test_speed_seconds", "Speed.")

static char *written(void)
{
    struct buf out = {0};
    metrics_write(&out);
    buf_put_u8(&out, 0);
    assert_false(out.failed);
    return (char *)out.data;
}

static void assert_has(const char *text, const char *line)
{
    if (!strstr(text, line))
        fail_msg("'%s' is not in:\n%s", line, text);
}

static void *count_much(void *arg)
{
    (void)arg;
    for (int i = 0; i < EACH; i++) {
        metric_add(&plain, 0, 1);
        metric_observe_us(&times, 0, 3);
    }
    return NULL;
}

/* Two rounds: the threads of the second take over the blocks of the first. */
static void test_threads_lose_no_count(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, count_much, NULL), 0);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        assert_int_equal(metric_count(&plain, 0), round * THREADS * EACH);
        assert_int_equal(metric_count(&times, 0), round * THREADS * EACH);
    }
    char *text = written();
    assert_has(text, "test_times_seconds_bucket{le=\"0.000002\"} 0\n");
    assert_has(text, "test_times_seconds_bucket{le=\"0.000004\"} 320000\n");
    assert_has(text, "test_times_seconds_sum 0.960000\n");
    assert_has(text, "test_times_seconds_count 320000\n");
    free(text);
}

static void test_a_bound_belongs_to_its_bucket(void **state)
{
    static const uint64_t us[] = {0, 1, 2, 3, 1 << 20, (1 << 20) + 1, 1 << 26, (1 << 26) + 1};
    (void)state;
    for (size_t i = 0; i < sizeof us / sizeof *us; i++)
        metric_observe_us(&edges, 0, us[i]);
    metric_observe_us(&edges, 0, UINT64_MAX / 1024);
    char *text = written();
    assert_has(text, "test_edges_seconds_bucket{le=\"0.000001\"} 2\n");
    assert_has(text, "test_edges_seconds_bucket{le=\"0.000002\"} 3\n");
    assert_has(text, "test_edges_seconds_bucket{le=\"0.000004\"} 4\n");
    assert_has(text, "test_edges_seconds_bucket{le=\"0.524288\"} 4\n");
    assert_has(text, "test_edges_seconds_bucket{le=\"1.048576\"} 5\n");
    assert_has(text, "test_edges_seconds_bucket{le=\"2.097152\"} 6\n");
    assert_has(text, "test_edges_seconds_bucket{le=\"67.108864\"} 7\n");
    assert_has(text, "test_edges_seconds_bucket{le=\"+Inf\"} 9\n");
    assert_has(text, "test_edges_seconds_count 9\n");
    free(text);
}

static void test_labels_and_help_are_escaped(void **state)
{
    (void)state;
    metric_add(&sized, 0, 2);
    metric_observe_us(&sized_times, 1, 1500000);
    char *text = written();
    assert_has(text, "# HELP test_sized_total By size,\\nwith a \\\\.\n");
    assert_has(text, "# TYPE test_sized_total counter\n");
    assert_has(text, "test_sized_total{size=\"small \\\"\\\\\\n\",unit=\"x\"} 2\n");
    assert_has(text, "# TYPE test_sized_times_seconds histogram\n");
    assert_has(text, "test_sized_times_seconds_sum{size=\"large\",unit=\"x\"} 1.500000\n");
    assert_has(text, "test_sized_times_seconds_bucket{size=\"large\",unit=\"x\",le=\"+Inf\"} 1\n");
    assert_null(strstr(text, "test_sized_total{size=\"large\""));
    free(text);
}

static void test_families_stand_in_the_order_of_their_names(void **state)
{
    (void)state;
    char *text = written(), before[256] = "", name[256];
    for (const char *at = text; (at = strstr(at, "# TYPE ")); at++) {
        assert_int_equal(sscanf(at, "# TYPE %255s", name), 1);
        assert_true(strcmp(before, name) < 0);
        memcpy(before, name, sizeof name);
    }
    assert_true(before[0]);
    free(text);
}

static void test_gauges_print_whole_numbers_whole(void **state)
{
    struct buf out = {0};
    (void)state;
    metrics_put_gauge(&out, "g", "Help.", 123456789012);
    metrics_put_gauge(&out, "h", "Help.", 0.25);
    metrics_put_sample(&out, "h", "a=\"b\"", -1);
    buf_put_u8(&out, 0);
    assert_string_equal(out.data, "# HELP g Help.\n# TYPE g gauge\ng 123456789012\n"
                                  "# HELP h Help.\n# TYPE h gauge\nh 0.250000\nh{a=\"b\"} -1\n");
    buf_deinit(&out);
}

/* The figures for metrics.h, in the log of the test. */
static void test_counting_is_cheap(void **state)
{
    (void)state;
    uint64_t since = clock_mono_us();
    for (int i = 0; i < SPEED_ROUNDS; i++)
        metric_add(&speed_counter, 0, 1);
    uint64_t add_us = clock_mono_us() - since;
    since = clock_mono_us();
    for (int i = 0; i < SPEED_ROUNDS; i++)
        metric_observe_us(&speed_histogram, 0, (uint64_t)i);
    uint64_t observe_us = clock_mono_us() - since;
    print_message("metric_add %.1f ns, metric_observe_us %.1f ns\n", add_us * 1e3 / SPEED_ROUNDS,
                  observe_us * 1e3 / SPEED_ROUNDS);
    assert_int_equal(metric_count(&speed_counter, 0), SPEED_ROUNDS);
    assert_int_equal(metric_count(&speed_histogram, 0), SPEED_ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_lose_no_count),
        cmocka_unit_test(test_a_bound_belongs_to_its_bucket),
        cmocka_unit_test(test_labels_and_help_are_escaped),
        cmocka_unit_test(test_families_stand_in_the_order_of_their_names),
        cmocka_unit_test(test_gauges_print_whole_numbers_whole),
        cmocka_unit_test(test_counting_is_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
