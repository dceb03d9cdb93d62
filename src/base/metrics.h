/* Metrics: counters and histograms that cost a few nanoseconds and take no lock.
 *
 * A family has one name and a fixed number of series; it is defined at file scope, beside the code
 * that feeds it, and registers itself before main:
 *
 *   METRIC_HISTOGRAM(log_sync, "loadstone_log_sync_duration_seconds", "Time of ...");
 *   ...
 *   metric_observe_us(&log_sync, 0, clock_mono_us() - since_us);
 *
 * Gauges are nobody's memory: whoever answers a scrape reads the value where it lives and writes it
 * with metrics_put_head and metrics_put_sample.
 *
 * Histograms hold times in microseconds, in 28 buckets whose bounds are the powers of two from
 * 1 us to 67 s, and +Inf; a quantile read off them is at most a factor of two off.
 *
 * Measured on a shared Xeon core by this module's test: metric_add 3 ns, metric_observe_us 4 ns.
 */
#ifndef LOADSTONE_BASE_METRICS_H
#define LOADSTONE_BASE_METRICS_H

#include "base/bytes.h"

enum metric_kind { METRIC_IS_COUNTER, METRIC_IS_HISTOGRAM };

enum { METRIC_BUCKETS = 28 /* the last is +Inf */ };

struct metric_family {
    const char *name, *help;
    enum metric_kind kind;
    unsigned nseries;
    /* Writes the labels of a series, `a="x",b="y"`, the values through metrics_put_label; NULL for
     * a family of one series without labels. */
    void (*labels)(unsigned series, struct buf *out);
    unsigned slot; /* of its first cell; given at registration */
    struct metric_family *next;
};

void metric_register(struct metric_family *m);

#define METRIC_DEFINE(var, kind_, name_, help_, nseries_, labels_)                                 \
    static struct metric_family var = {.name = (name_),                                            \
                                       .help = (help_),                                            \
                                       .kind = (kind_),                                            \
                                       .nseries = (nseries_),                                      \
                                       .labels = (labels_)};                                       \
    __attribute__((constructor)) static void var##_register(void)                                  \
    {                                                                                              \
        metric_register(&(var));                                                                   \
    }
#define METRIC_COUNTER(var, name, help) METRIC_DEFINE(var, METRIC_IS_COUNTER, name, help, 1, NULL)
#define METRIC_HISTOGRAM(var, name, help)                                                          \
    METRIC_DEFINE(var, METRIC_IS_HISTOGRAM, name, help, 1, NULL)
#define METRIC_COUNTERS(var, name, help, nseries, labels)                                          \
    METRIC_DEFINE(var, METRIC_IS_COUNTER, name, help, nseries, labels)
#define METRIC_HISTOGRAMS(var, name, help, nseries, labels)                                        \
    METRIC_DEFINE(var, METRIC_IS_HISTOGRAM, name, help, nseries, labels)

/* Any thread. `series` < nseries. */
void metric_add(const struct metric_family *m, unsigned series, uint64_t n);
void metric_observe_us(const struct metric_family *m, unsigned series, uint64_t us);

/* What was counted so far, over all threads; of a histogram how many observations. */
uint64_t metric_count(const struct metric_family *m, unsigned series);

/* ---- Prometheus text, exposition format 0.0.4 ---- */

/* Every registered family, by name; series of a labelled family that counted nothing are left
 * out. */
void metrics_write(struct buf *out);
/* HELP and TYPE; `type` is "gauge" or "counter". */
void metrics_put_head(struct buf *out, const char *name, const char *type, const char *help);
/* `labels` is NULL or what metrics_put_label wrote, NUL-terminated. */
void metrics_put_sample(struct buf *out, const char *name, const char *labels, double value);
/* Head and the one sample of a gauge. */
void metrics_put_gauge(struct buf *out, const char *name, const char *help, double value);
/* `name="value"`, escaped, behind a comma when something stands before it in `out` already. */
void metrics_put_label(struct buf *out, const char *name, const char *value);

#endif
