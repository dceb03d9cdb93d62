/* The k nearest of one query: see struct collect.
 *
 * Rounding is bounded, not hoped about: a row leaves the race only when its lower bound is above
 * the upper bounds of k other rows, or when k others are nearer in double (ties by key).
 *
 * Threads: one collect belongs to one thread. Failure: none; all memory is given. */
#include "index/search_internal.h"

#include <float.h>

#include "index/distance.h"
#include "index/key_order.h"

enum { PREFETCH_ROWS = 16, PREFETCH_BYTES = 1024 };

/* ---- the heap of upper bounds ---- */

static void sift_down(float *heap, uint32_t n, float value)
{
    uint32_t i = 0;
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] > heap[child])
            child++;
        if (heap[child] <= value)
            break;
        heap[i] = heap[child];
    }
    heap[i] = value;
}

static void sift_up(float *heap, uint32_t i, float value)
{
    for (; i > 0 && heap[(i - 1) / 2] < value; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = value;
}

static void note_upper_bound(struct collect *c, float hi)
{
    if (c->nbounds < c->k)
        sift_up(c->bounds, c->nbounds++, hi);
    else if (hi < c->bounds[0])
        sift_down(c->bounds, c->k, hi);
    if (c->nbounds == c->k)
        c->bound = c->bounds[0];
}

/* ---- candidates ---- */

static double measure_vector(const struct collect *c, const float *v)
{
    const struct schema *schema = c->snapshot->schema;
    return distance_exact(schema->metric, c->query, c->norm2, v, schema->dim);
}

static double measure(const struct collect *c, struct row_ref ref)
{
    return measure_vector(c, segment_vector(c->snapshot->views[ref.view].segment, ref.row));
}

static int candidate_compare(const void *a, const void *b, void *snapshot)
{
    const struct candidate *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    const struct snapshot *s = snapshot;
    return key_order(s->views[x->ref.view].segment, x->ref.row, s->views[y->ref.view].segment,
                     y->ref.row);
}

static void drop_hopeless(struct collect *c)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->ncandidates; i++) {
        if (c->candidates[i].lo <= c->bound)
            c->candidates[kept++] = c->candidates[i];
    }
    c->ncandidates = kept;
}

/* In a group of queries, others came between the vectors' first use and this. */
static void prefetch_candidates(const struct collect *c)
{
    size_t bytes = c->snapshot->schema->dim * sizeof(float);
    bytes = bytes < PREFETCH_BYTES ? bytes : PREFETCH_BYTES;
    for (uint32_t i = 0; i < c->ncandidates && i < PREFETCH_ROWS; i++) {
        struct row_ref ref = c->candidates[i].ref;
        const float *v = segment_vector(c->snapshot->views[ref.view].segment, ref.row);
        for (size_t at = 0; at < bytes; at += 64)
            __builtin_prefetch((const char *)v + at);
    }
}

/* Leaves the best k in order, all measured. */
static void settle(struct collect *c)
{
    prefetch_candidates(c);
    for (uint32_t i = 0; i < c->ncandidates; i++) {
        if (isnan(c->candidates[i].distance))
            c->candidates[i].distance = measure(c, c->candidates[i].ref);
    }
    qsort_r(c->candidates, c->ncandidates, sizeof(struct candidate), candidate_compare,
            (void *)c->snapshot);
    if (c->ncandidates > c->k)
        c->ncandidates = c->k;
}

static void keep(struct collect *c, double distance, float lo, struct row_ref ref)
{
    if (c->ncandidates == c->candidates_max) {
        drop_hopeless(c);
        if (c->ncandidates > c->candidates_max - COLLECT_SPARE / 2)
            settle(c);
    }
    c->candidates[c->ncandidates++] =
        (struct candidate){.distance = distance, .lo = lo, .ref = ref};
}

static bool excluded(const struct collect *c, struct row_ref ref)
{
    return ref.view == c->exclude.view && ref.row == c->exclude.row;
}

void collect_push(struct collect *c, float lo, float hi, struct row_ref ref)
{
    if (excluded(c, ref))
        return;
    if (isnan(lo) || isnan(hi)) {
        lo = -INFINITY;
        hi = INFINITY;
    }
    note_upper_bound(c, hi);
    keep(c, NAN, lo, ref);
}

/* In the kernels' measure, and wide enough for the step to float. */
static void keep_measured(struct collect *c, double d, struct row_ref ref)
{
    double internal = c->snapshot->schema->metric == DIST_L2 ? d * d : d;
    double error = fabs(internal) * FLT_EPSILON + FLT_MIN;
    note_upper_bound(c, (float)(internal + error));
    keep(c, d, (float)(internal - error), ref);
}

void collect_measure(struct collect *c, struct row_ref ref)
{
    if (!excluded(c, ref))
        keep_measured(c, measure(c, ref), ref);
}

void collect_measure_vector(struct collect *c, struct row_ref ref, const float *vector)
{
    if (!excluded(c, ref))
        keep_measured(c, measure_vector(c, vector), ref);
}

uint32_t collect_finish(struct collect *c, struct hit *hits)
{
    drop_hopeless(c);
    settle(c);
    for (uint32_t i = 0; i < c->ncandidates; i++)
        hits[i] = (struct hit){c->candidates[i].distance, c->candidates[i].ref};
    return c->ncandidates;
}
