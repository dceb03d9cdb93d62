/* Vectors to codes and back into distances: see codes.h.
 *
 * The range of the uniform scale is found without sorting: elements are counted by the upper half
 * of their bits, put in the order of numbers, which is a bucket per 1/128 of relative precision,
 * from the smallest float to the largest. A quantile is the outer edge of its bucket.
 *
 * The same bits on every machine: the build turns the contraction of a * b + c off (faiss.mk).
 * Threads: pure functions. Failure: no memory for the counters. */
#include "index/codes.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "index/kernels.h"

/* Of 20,000 elements one is clipped at either end. CLIPPED_MAX: what a query may lie outside of the
 * scale, in steps; half of the range. */
enum { CLIP_SHARE = 20000, BUCKETS = 1 << 16, CLIPPED_MAX = 64 };

/* ---- scale, code, query ---- */

bool code_scale_usable(const struct code_scale *s)
{
    bool ok = true;
    for (uint32_t j = 0; j < s->dim; j++) {
        float hi = s->lo[j] + CODE_TOP * s->step[j];
        ok = ok && s->step[j] > 1e-30f && s->step[j] < 1e30f && isfinite(s->lo[j]) && isfinite(hi);
    }
    return ok;
}

static inline float clamp(float t, float least, float most)
{
    return t < least ? least : t > most ? most : t;
}

/* Clamped before the conversion: what lies far outside does not fit an integer. */
static inline uint8_t code_of(float t)
{
    return (uint8_t)(int)(clamp(t, 0, CODE_TOP) + 0.5f);
}

void code_encode(const struct code_scale *s, const float *v, uint8_t *restrict out)
{
    for (uint32_t j = 0; j < s->dim; j++)
        out[j] = code_of((v[j] - s->lo[j]) / s->step[j]);
    memset(out + s->dim, 0, code_stride(s->dim) - s->dim);
}

/* Squared distance, in steps, to what a code can tell. */
static inline float clipped(float v, float lo, float step)
{
    float t = (v - lo) / step, e = t - clamp(t, 0, CODE_TOP);
    return e * e;
}

static float clipped2(const struct code_scale *s, const float *q)
{
    enum { LANES = 8 };
    const float *lo = s->lo, *step = s->step;
    float lane[LANES] = {0}, sum = 0;
    uint32_t j = 0;
    for (; j + LANES <= s->dim; j += LANES) {
        for (int l = 0; l < LANES; l++)
            lane[l] += clipped(q[j + l], lo[j + l], step[j + l]);
    }
    for (; j < s->dim; j++)
        sum += clipped(q[j], lo[j], step[j]);
    for (int l = 0; l < LANES; l++)
        sum += lane[l];
    return sum;
}

/* The elements of the query count by what a step of theirs is worth. */
static bool weights_prepare(const struct code_scale *s, const float *q, int8_t *restrict out)
{
    float most = 0;
    for (uint32_t j = 0; j < s->dim; j++) {
        float w = fabsf(q[j] * s->step[j]);
        most = w > most ? w : most;
    }
    if (!isfinite(most))
        return false;
    float scale = most > FLT_MIN ? CODE_TOP / most : 0;
    if (!isfinite(scale))
        return false;
    for (uint32_t j = 0; j < s->dim; j++) {
        float t = clamp(q[j] * s->step[j] * scale, -CODE_TOP, CODE_TOP);
        out[j] = (int8_t)(int)(t < 0 ? t - 0.5f : t + 0.5f);
    }
    memset(out + s->dim, 0, code_stride(s->dim) - s->dim);
    return true;
}

bool code_query_prepare(const struct code_scale *s, const float *q, uint8_t *out)
{
    if (s->scheme == CODE_SCALED)
        return weights_prepare(s, q, (int8_t *)out);
    code_encode(s, q, out);
    return clipped2(s, q) <= CLIPPED_MAX * CLIPPED_MAX; /* false for NaN, from an overflow */
}

void code_measure_4(const struct code_scale *s, const uint8_t *query, const uint8_t *const c[4],
                    float out[4])
{
    int32_t sums[4];
    if (s->scheme == CODE_UNIFORM)
        kernels.code_l2_4(query, c, code_stride(s->dim), sums);
    else
        kernels.code_dot_4((const int8_t *)query, c, code_stride(s->dim), sums);
    for (int i = 0; i < 4; i++)
        out[i] = s->scheme == CODE_UNIFORM ? (float)sums[i] : -(float)sums[i];
}

/* ---- fitting ---- */

struct code_fit {
    enum code_scheme scheme;
    uint32_t dim;
    uint64_t n;        /* vectors */
    float *lo, *hi;    /* least and largest: per dimension; one of all for uniform */
    uint64_t *buckets; /* uniform: elements of each */
};

enum err code_fit_new(enum code_scheme scheme, uint32_t dim, struct code_fit **out,
                      struct err_ctx *ctx)
{
    uint32_t ranges = scheme == CODE_SCALED ? dim : 1;
    struct code_fit *f = calloc(1, sizeof(*f));
    if (!f)
        return err_no_memory(ctx, sizeof(*f));
    *f = (struct code_fit){.scheme = scheme, .dim = dim};
    f->lo = malloc(ranges * sizeof(float));
    f->hi = malloc(ranges * sizeof(float));
    f->buckets = scheme == CODE_UNIFORM ? calloc(BUCKETS, sizeof(uint64_t)) : NULL;
    if (!f->lo || !f->hi || (scheme == CODE_UNIFORM && !f->buckets)) {
        code_fit_free(f);
        return err_no_memory(ctx, 2 * ranges * sizeof(float) + BUCKETS * sizeof(uint64_t));
    }
    for (uint32_t j = 0; j < ranges; j++) {
        f->lo[j] = FLT_MAX;
        f->hi[j] = -FLT_MAX;
    }
    *out = f;
    return ERR_OK;
}

void code_fit_free(struct code_fit *f)
{
    if (!f)
        return;
    free(f->lo);
    free(f->hi);
    free(f->buckets);
    free(f);
}

/* Bits whose order as unsigned numbers is that of the floats; and back. */
static uint32_t ordered_bits(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof(u));
    return u >> 31 ? ~u : u | 0x80000000u;
}

static float ordered_float(uint32_t bits)
{
    uint32_t u = bits >> 31 ? bits & 0x7fffffffu : ~bits;
    float v;
    memcpy(&v, &u, sizeof(v));
    return v;
}

void code_fit_add(struct code_fit *f, const float *v)
{
    f->n++;
    for (uint32_t j = 0; j < f->dim; j++) {
        uint32_t at = f->scheme == CODE_SCALED ? j : 0;
        f->lo[at] = v[j] < f->lo[at] ? v[j] : f->lo[at];
        f->hi[at] = v[j] > f->hi[at] ? v[j] : f->hi[at];
        if (f->buckets)
            f->buckets[ordered_bits(v[j]) >> 16]++;
    }
}

/* Leaves out one element of CLIP_SHARE at either end. */
static void clip_range(const struct code_fit *f, float *lo, float *hi)
{
    uint64_t out = f->n * f->dim / CLIP_SHARE, below = 0, above = 0;
    uint32_t first = 0, last = BUCKETS - 1;
    while ((below += f->buckets[first]) <= out)
        first++;
    while ((above += f->buckets[last]) <= out)
        last--;
    float edge_lo = ordered_float(first << 16), edge_hi = ordered_float(last << 16 | 0xffff);
    *lo = edge_lo > f->lo[0] ? edge_lo : f->lo[0];
    *hi = edge_hi < f->hi[0] ? edge_hi : f->hi[0];
}

void code_fit_finish(const struct code_fit *f, float *lo, float *step)
{
    const float least_step = 1e-29f; /* all alike: one code, that weighs nothing */
    float least = 0, most = 0;
    if (f->buckets && f->n > 0)
        clip_range(f, &least, &most);
    for (uint32_t j = 0; j < f->dim; j++) {
        if (!f->buckets && f->n > 0) {
            least = f->lo[j];
            most = f->hi[j];
        }
        float s = (most - least) / CODE_TOP;
        lo[j] = least;
        step[j] = s > least_step ? s : f->buckets ? 1 : least_step;
    }
}
