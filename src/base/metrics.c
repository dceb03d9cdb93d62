/* Metrics.
 *
 *   blocks: [ thread A: cell cell cell ... ] -> [ thread B: ... ] -> ...   added up at a scrape
 *
 *   cells of a counter family     nseries x 1
 *   cells of a histogram family   nseries x (METRIC_BUCKETS + 1): the buckets, then the sum in us
 *
 * Invariant: a block is written by the one thread that owns it, so that counting is a plain load
 * and store and no two threads share a cache line. A thread's block stays when the thread ends,
 * with what it counted, and goes to the next thread that needs one: blocks are as many as threads
 * ever lived at once, and a counter never falls.
 *
 * Threads: families register before main, alone. Blocks are pushed on a list that only grows. A
 * scrape reads cells while they are written: each is whole, and the count of a histogram is summed
 * from the very buckets that are printed, so that they agree. Its sum may be an observation ahead.
 *
 * Failure: a thread that finds no memory for a block counts nothing. */
#include "base/metrics.h"

#include <pthread.h>
#include <stdatomic.h>

enum { CACHE_LINE = 64, HISTOGRAM_CELLS = METRIC_BUCKETS + 1 };

typedef _Atomic uint64_t cell;

struct block {
    struct block *next;
    atomic_bool owned;
    _Alignas(CACHE_LINE) cell cells[];
};

static struct metric_family *families; /* by name */
static unsigned cells_total;
static struct block *_Atomic blocks;

static __thread struct block *mine;
static pthread_key_t owner_key;
static pthread_once_t owner_once = PTHREAD_ONCE_INIT;

/* ---- registration ---- */

static unsigned cells_per_series(const struct metric_family *m)
{
    return m->kind == METRIC_IS_HISTOGRAM ? HISTOGRAM_CELLS : 1;
}

void metric_register(struct metric_family *m)
{
    struct metric_family **at = &families;
    ASSERT(!atomic_load(&blocks));
    while (*at && strcmp((*at)->name, m->name) < 0)
        at = &(*at)->next;
    m->next = *at;
    *at = m;
    m->slot = cells_total;
    cells_total += m->nseries * cells_per_series(m);
}

/* ---- counting ---- */

static void give_back(void *arg)
{
    mine = NULL;
    atomic_store_explicit(&((struct block *)arg)->owned, false, memory_order_release);
}

static void make_key(void)
{
    ASSERT(pthread_key_create(&owner_key, give_back) == 0);
}

static struct block *find_unowned(void)
{
    for (struct block *b = atomic_load(&blocks); b; b = b->next) {
        bool owned = false;
        if (atomic_compare_exchange_strong(&b->owned, &owned, true))
            return b;
    }
    return NULL;
}

static struct block *add_block(void)
{
    size_t size = round_up(sizeof(struct block) + cells_total * sizeof(cell), CACHE_LINE);
    struct block *b = aligned_alloc(CACHE_LINE, size);
    if (!b)
        return NULL;
    memset((void *)b, 0, size);
    atomic_init(&b->owned, true);
    b->next = atomic_load(&blocks);
    while (!atomic_compare_exchange_weak(&blocks, &b->next, b))
        ;
    return b;
}

static __attribute__((noinline)) struct block *own_block(void)
{
    pthread_once(&owner_once, make_key);
    struct block *b = find_unowned();
    if (!b)
        b = add_block();
    if (b)
        pthread_setspecific(owner_key, b);
    mine = b;
    return b;
}

static inline void bump(cell *c, uint64_t n)
{
    uint64_t v = atomic_load_explicit(c, memory_order_relaxed);
    atomic_store_explicit(c, v + n, memory_order_relaxed);
}

void metric_add(const struct metric_family *m, unsigned series, uint64_t n)
{
    struct block *b = mine ? mine : own_block();
    if (b)
        bump(&b->cells[m->slot + series], n);
}

/* The first bucket whose bound, 2^i us, is not below `us`. */
static inline unsigned bucket_of(uint64_t us)
{
    unsigned i = us <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(us - 1);
    return i < METRIC_BUCKETS - 1 ? i : METRIC_BUCKETS - 1;
}

void metric_observe_us(const struct metric_family *m, unsigned series, uint64_t us)
{
    struct block *b = mine ? mine : own_block();
    if (!b)
        return;
    cell *c = &b->cells[m->slot + series * HISTOGRAM_CELLS];
    bump(&c[bucket_of(us)], 1);
    bump(&c[METRIC_BUCKETS], us);
}

/* ---- reading ---- */

static uint64_t cell_total(unsigned at)
{
    uint64_t n = 0;
    for (struct block *b = atomic_load(&blocks); b; b = b->next)
        n += atomic_load_explicit(&b->cells[at], memory_order_relaxed);
    return n;
}

uint64_t metric_count(const struct metric_family *m, unsigned series)
{
    uint64_t n = 0;
    if (m->kind == METRIC_IS_COUNTER)
        return cell_total(m->slot + series);
    for (unsigned i = 0; i < METRIC_BUCKETS; i++)
        n += cell_total(m->slot + series * HISTOGRAM_CELLS + i);
    return n;
}

/* ---- text ---- */

static void put_escaped(struct buf *out, const char *text, bool quotes)
{
    for (; *text; text++) {
        if (*text == '\n')
            buf_put(out, "\\n", 2);
        else if (*text == '\\' || (quotes && *text == '"'))
            buf_printf(out, "\\%c", *text);
        else
            buf_put_u8(out, (uint8_t)*text);
    }
}

void metrics_put_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s ", name);
    put_escaped(out, help, false);
    buf_printf(out, "\n# TYPE %s %s\n", name, type);
}

void metrics_put_label(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s%s=\"", out->len ? "," : "", name);
    put_escaped(out, value, true);
    buf_put_u8(out, '"');
}

void metrics_put_sample(struct buf *out, const char *name, const char *labels, double value)
{
    bool whole = value == (double)(int64_t)value;
    buf_printf(out, labels ? "%s{%s} " : "%s%s ", name, labels ? labels : "");
    if (whole)
        buf_printf(out, "%lld\n", (long long)value);
    else
        buf_printf(out, "%.6f\n", value);
}

void metrics_put_gauge(struct buf *out, const char *name, const char *help, double value)
{
    metrics_put_head(out, name, "gauge", help);
    metrics_put_sample(out, name, NULL, value);
}

static void put_seconds(struct buf *out, uint64_t us)
{
    buf_printf(out, "%llu.%06llu", (unsigned long long)(us / 1000000),
               (unsigned long long)(us % 1000000));
}

static void put_histogram(struct buf *out, const struct metric_family *m, unsigned series,
                          const char *labels)
{
    unsigned at = m->slot + series * HISTOGRAM_CELLS;
    const char *comma = *labels ? "," : "", *open = *labels ? "{" : "", *close = *labels ? "}" : "";
    uint64_t count = 0;
    for (unsigned i = 0; i < METRIC_BUCKETS; i++) {
        count += cell_total(at + i);
        buf_printf(out, "%s_bucket{%s%sle=\"", m->name, labels, comma);
        if (i < METRIC_BUCKETS - 1)
            put_seconds(out, 1ull << i);
        else
            buf_put(out, "+Inf", 4);
        buf_printf(out, "\"} %llu\n", (unsigned long long)count);
    }
    buf_printf(out, "%s_sum%s%s%s ", m->name, open, labels, close);
    put_seconds(out, cell_total(at + METRIC_BUCKETS));
    buf_printf(out, "\n%s_count%s%s%s %llu\n", m->name, open, labels, close,
               (unsigned long long)count);
}

static void put_series(struct buf *out, const struct metric_family *m, unsigned series)
{
    struct buf labels = {0};
    if (m->labels) {
        if (metric_count(m, series) == 0)
            return;
        m->labels(series, &labels);
    }
    buf_put_u8(&labels, 0);
    if (labels.failed) {
        out->failed = true;
    } else if (m->kind == METRIC_IS_HISTOGRAM) {
        put_histogram(out, m, series, (const char *)labels.data);
    } else {
        buf_printf(out, m->labels ? "%s{%s} %llu\n" : "%s%s %llu\n", m->name,
                   (const char *)labels.data, (unsigned long long)metric_count(m, series));
    }
    buf_deinit(&labels);
}

void metrics_write(struct buf *out)
{
    for (const struct metric_family *m = families; m; m = m->next) {
        metrics_put_head(out, m->name, m->kind == METRIC_IS_COUNTER ? "counter" : "histogram",
                         m->help);
        for (unsigned i = 0; i < m->nseries; i++)
            put_series(out, m, i);
    }
}
