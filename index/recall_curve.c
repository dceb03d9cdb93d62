/* The curve of recall of one structure: read from its file, asked for an effort, corrected by live
 * queries.
 *
 *   recall
 *     1 ┤            ____·____·  mean of the points
 *       │      __·---  _---
 *     r ┤- - -/- - _--- - - - -  lower bounds; straight between them
 *       │    ·  _-^
 *       └───────┴──┴────────── effort
 *                  the least whose lower bound is r
 *
 * Recall grows with effort ever more slowly, so a straight line between two points lies below it.
 *
 * k between those measured: the next larger one's list, whose effort finds the k nearest of its
 * more at least as well. (Rejected: the smaller one's list at k / its k times the effort. That
 * holds for l2 and cosine; by inner product it promised .95 and found .93.) Beyond the largest
 * nobody measured: its list at as many times the effort, and half as many may be missed.
 *
 * Live queries. While they do as well as the rows did, both are put together, the rows counting for
 * ROWS_WEIGHT queries and for nothing once LIVE_ENOUGH were heard. When they differ by more than
 * the error of what they say, only they count: the rows then speak of other queries. For worse, one
 * deviation is taken for it (a wrong alarm costs a little effort), for better, two. What was heard
 * is halved every LIVE_HALF, so the curve goes on following.
 *
 * Threads: one thread hears; all read, each value on its own, none depends on another. Failure: a
 * hostile section is refused whole. */
#include "index/recall.h"

#include <math.h>

enum { CURVE_VERSION = 1, CURVE_HEAD = 32, POINT_BYTES = 48, K_MAX = 10000, EFFORT_MAX = 100000 };
enum { HEARD_MIN = 16, SCAN_HEARD = 64, ROWS_WEIGHT = 200, LIVE_ENOUGH = 1000, LIVE_HALF = 1024 };

#define ONE_SIDED_95 1.645
#define DIFFER_FROM 0.8
#define DIFFER_LEAST 0.002

/* ---- statistics ---- */

double recall_mean(const struct recall_point *p)
{
    return p->queries ? p->sum / p->queries : 0;
}

/* Of n queries, which may be weighted ones. */
static double lower_bound(uint32_t k, double n, double sum, double sum2)
{
    double missed_one = 1 - 1.0 / k;
    if (n <= 0)
        return 0;
    double mean = (sum + missed_one) / (n + 1);
    double variance = (sum2 + missed_one * missed_one) / (n + 1) - mean * mean;
    double lower = mean - ONE_SIDED_95 * sqrt(fmax(variance, 0) / n);
    return lower > 0 ? lower : 0;
}

double recall_lower(const struct recall_point *p)
{
    return lower_bound(p->k, p->queries, p->sum, p->sum2);
}

/* ---- the section ---- */

static void put_double(struct buf *out, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    buf_put_u64(out, bits);
}

static double take_double(struct cursor *c)
{
    uint64_t bits = cursor_u64(c);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

void recall_encode(const struct recall_point *points, uint32_t n, struct buf *out)
{
    buf_put_u32(out, CURVE_VERSION);
    buf_put_u32(out, n);
    buf_put_zeros(out, CURVE_HEAD - 8);
    for (uint32_t i = 0; i < n; i++) {
        buf_put_u32(out, points[i].k);
        buf_put_u32(out, points[i].effort);
        buf_put_u32(out, points[i].queries);
        buf_put_u32(out, 0);
        put_double(out, points[i].sum);
        put_double(out, points[i].sum2);
        put_double(out, points[i].us);
        buf_put_zeros(out, 8);
    }
}

bool recall_length_valid(uint64_t n)
{
    return n >= CURVE_HEAD && (n - CURVE_HEAD) % POINT_BYTES == 0 &&
           (n - CURVE_HEAD) / POINT_BYTES <= RECALL_LISTS * RECALL_POINTS;
}

static struct recall_point take_point(struct cursor *c)
{
    struct recall_point p = {.k = cursor_u32(c), .effort = cursor_u32(c)};
    p.queries = cursor_u32(c);
    cursor_u32(c);
    p.sum = take_double(c);
    p.sum2 = take_double(c);
    p.us = take_double(c);
    cursor_take(c, 8);
    return p;
}

/* Comparisons with NaN are false. */
static bool point_valid(const struct recall_point *p)
{
    double most = p->queries * (1 + 1e-9);
    return p->k >= 1 && p->k <= K_MAX && p->effort >= 1 && p->effort <= EFFORT_MAX &&
           p->queries >= 1 && p->sum >= 0 && p->sum <= most && p->sum2 >= 0 &&
           p->sum2 <= p->sum * (1 + 1e-9) && p->us >= 0 && p->us < 1e12;
}

/* Adds a point behind those that are there; false when it belongs elsewhere. */
static bool add_point(struct recall_curve *c, const struct recall_point *p)
{
    struct recall_list *last = c->nlists ? &c->lists[c->nlists - 1] : NULL;
    if (!last || p->k > last->k) {
        if (c->nlists == RECALL_LISTS)
            return false;
        last = &c->lists[c->nlists++];
        last->k = p->k;
    }
    if (p->k < last->k || last->n == RECALL_POINTS ||
        (last->n > 0 && p->effort <= last->points[last->n - 1].effort))
        return false;
    last->points[last->n++] = *p;
    return true;
}

static void publish(struct recall_curve *c, uint32_t list, unsigned class);

enum err recall_decode(const uint8_t *data, size_t n, struct recall_curve **out,
                       struct err_ctx *ctx)
{
    struct cursor at = cursor_over(data, n);
    uint32_t version = cursor_u32(&at), points = cursor_u32(&at);
    cursor_take(&at, CURVE_HEAD - 8);
    if (!recall_length_valid(n) || version != CURVE_VERSION ||
        points != (n - CURVE_HEAD) / POINT_BYTES)
        return err_set(ctx, ERR_CORRUPT, "the curve of recall is no curve");
    struct recall_curve *c = calloc(1, sizeof(*c));
    if (!c)
        return err_no_memory(ctx, sizeof(*c));
    bool ok = true;
    for (uint32_t i = 0; ok && i < points; i++) {
        struct recall_point p = take_point(&at);
        ok = point_valid(&p) && add_point(c, &p);
    }
    if (!ok) {
        free(c);
        return err_set(ctx, ERR_CORRUPT, "the curve of recall holds an impossible point");
    }
    for (uint32_t i = 0; i < c->nlists; i++)
        for (unsigned class = 0; class < RECALL_CLASSES; class ++)
            publish(c, i, class);
    *out = c;
    return ERR_OK;
}

void recall_free(struct recall_curve *c)
{
    free(c);
}

/* ---- choosing ---- */

unsigned recall_class(bool filtered, double share)
{
    if (!filtered)
        return 0;
    return share >= 0.5 ? 1 : share >= 0.1 ? 2 : share >= 0.01 ? 3 : 4;
}

const struct recall_list *recall_list_of(const struct recall_curve *c, uint32_t k, double *times)
{
    *times = 1;
    if (c->nlists == 0)
        return NULL;
    uint32_t i = 0;
    while (i + 1 < c->nlists && c->lists[i].k < k)
        i++;
    if (k > c->lists[i].k)
        *times = (double)k / c->lists[i].k;
    return &c->lists[i];
}

static uint32_t scaled(double effort, double times)
{
    double e = ceil(effort * times - 1e-9);
    return e < EFFORT_MAX ? (uint32_t)e : EFFORT_MAX;
}

static float lower_at(const struct recall_curve *c, uint32_t list, unsigned class, uint32_t point)
{
    if (class == RECALL_ROWS)
        return (float)recall_lower(&c->lists[list].points[point]);
    return atomic_load_explicit(&c->lower[list][class][point], memory_order_relaxed);
}

static float mean_at(const struct recall_curve *c, uint32_t list, unsigned class, uint32_t point)
{
    if (class == RECALL_ROWS)
        return (float)recall_mean(&c->lists[list].points[point]);
    return atomic_load_explicit(&c->mean[list][class][point], memory_order_relaxed);
}

/* Where value v lies between a and b, 0 to 1. */
static double between(double a, double b, double v)
{
    return b > a ? (v - a) / (b - a) : 1;
}

static bool rows_reach(const struct recall_list *l, double target)
{
    bool reach = false;
    for (uint32_t i = 0; i < l->n && !reach; i++)
        reach = recall_lower(&l->points[i]) >= target;
    return reach;
}

static bool heard(const struct recall_curve *c, uint32_t list, unsigned class)
{
    return class < RECALL_CLASSES &&
           atomic_load_explicit(&c->nheard[list][class], memory_order_relaxed) >= SCAN_HEARD;
}

void recall_choose(const struct recall_curve *c, double target, uint32_t k, unsigned class,
                   struct recall_choice *out)
{
    double times, part = 1;
    const struct recall_list *l = recall_list_of(c, k, &times);
    *out = (struct recall_choice){.recall = NAN};
    if (!l)
        return;
    uint32_t list = (uint32_t)(l - c->lists), last = l->n - 1, i = 0;
    if (k > c->lists[c->nlists - 1].k)
        target = fmin(1 - (1 - target) / 2, fmax(target, lower_at(c, list, class, last)));
    while (i < last && lower_at(c, list, class, i) < target)
        i++;
    double here = lower_at(c, list, class, i), effort = l->points[i].effort;
    double recall = mean_at(c, list, class, i);
    out->highest = lower_at(c, list, class, last);
    out->reached = here >= target;
    out->promised = !out->reached && rows_reach(l, target);
    out->scan = out->promised && mean_at(c, list, class, last) < target && heard(c, list, class);
    if (i > 0 && out->reached) {
        double before = l->points[i - 1].effort;
        part = between(lower_at(c, list, class, i - 1), here, target);
        effort = before + (effort - before) * part;
        recall = recall * part + mean_at(c, list, class, i - 1) * (1 - part);
    }
    out->effort = scaled(effort, times);
    out->recall = recall;
}

double recall_expect(const struct recall_curve *c, uint32_t k, unsigned class, uint32_t effort)
{
    double times;
    const struct recall_list *l = recall_list_of(c, k, &times);
    if (!l || effort < l->points[0].effort * times)
        return NAN;
    uint32_t list = (uint32_t)(l - c->lists), i = 1;
    double e = effort / times;
    while (i < l->n && l->points[i].effort < e)
        i++;
    double before = mean_at(c, list, class, i - 1);
    if (i == l->n)
        return before;
    double part = between(l->points[i - 1].effort, l->points[i].effort, e);
    return before + (mean_at(c, list, class, i) - before) * part;
}

/* ---- live queries ---- */

/* A point as it stands: of rows, of live queries, or of both. */
struct belief {
    double n, sum, sum2;
};

/* Whether live queries differ from the rows at some point that matters: of efforts that find little
 * nobody asks, and where all is found by both there is nothing to learn. */
static bool differ(const struct recall_list *l, const struct recall_heard *h)
{
    for (uint32_t i = 0; i < l->n; i++) {
        double rows = recall_mean(&l->points[i]), live = h->sum[i] / h->queries;
        double variance = h->sum2[i] / h->queries - live * live;
        double error = sqrt(fmax(variance, 0) / h->queries) + DIFFER_LEAST;
        if (rows >= DIFFER_FROM && (live + error < rows || live - 2 * error > rows))
            return true;
    }
    return false;
}

static struct belief believe(const struct recall_point *p, const struct recall_heard *h, uint32_t i,
                             bool live_only)
{
    struct belief b = {h->queries, h->sum[i], h->sum2[i]};
    double weight = live_only ? 0 : fmax(0, 1 - h->queries / LIVE_ENOUGH);
    if (h->queries >= HEARD_MIN && p->queries > ROWS_WEIGHT)
        weight *= (double)ROWS_WEIGHT / p->queries;
    b.n += weight * p->queries;
    b.sum += weight * p->sum;
    b.sum2 += weight * p->sum2;
    return b;
}

static void publish(struct recall_curve *c, uint32_t list, unsigned class)
{
    static const struct recall_heard nothing;
    const struct recall_list *l = &c->lists[list];
    const struct recall_heard *h = &c->heard[list][class];
    if (h->queries < HEARD_MIN)
        h = &nothing;
    bool live_only = h->queries > 0 && differ(l, h);
    double lower = 0, mean = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        struct belief b = believe(&l->points[i], h, i, live_only);
        lower = fmax(lower, lower_bound(l->k, b.n, b.sum, b.sum2));
        mean = fmax(mean, b.n > 0 ? b.sum / b.n : 0);
        atomic_store_explicit(&c->mean[list][class][i], (float)mean, memory_order_relaxed);
        atomic_store_explicit(&c->lower[list][class][i], (float)lower, memory_order_relaxed);
    }
}

void recall_hear(struct recall_curve *c, uint32_t list, unsigned class, const float *recall,
                 uint32_t n)
{
    struct recall_heard *h = &c->heard[list][class];
    bool halve = h->queries >= LIVE_HALF;
    h->queries = (halve ? h->queries / 2 : h->queries) + 1;
    for (uint32_t i = 0; i < c->lists[list].n; i++) {
        double r = i < n ? recall[i] : 1;
        h->sum[i] = (halve ? h->sum[i] / 2 : h->sum[i]) + r;
        h->sum2[i] = (halve ? h->sum2[i] / 2 : h->sum2[i]) + r * r;
    }
    atomic_store_explicit(&c->nheard[list][class], (unsigned)h->queries, memory_order_relaxed);
    publish(c, list, class);
}
