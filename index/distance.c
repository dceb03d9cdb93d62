/* Distances in double with a fixed order of summation.
 *
 * Eight running sums, element i into sum i mod 8, folded pairwise at the end. Products of floats
 * are exact in double; the build turns the contraction of a * b + c off (faiss.mk), so that a
 * compiler for a processor with fused operations rounds like any other. The sums are compiled for
 * each instruction set that the kernels know, and called through their table.
 *
 * Threads: pure functions. Failure: none. */
#include "index/distance.h"

#include <math.h>
#include <string.h>

#include "index/kernels.h"

enum { LANES = 8 };

typedef float floats __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef double doubles __attribute__((vector_size(LANES * sizeof(double))));

#define LOAD(p) __builtin_convertvector(*(const floats *)(p), doubles)

static double fold(const double l[LANES])
{
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

/* The two sums, compiled for an instruction set. */
#define SUMS(NAME, TARGET)                                                                         \
    TARGET double distance_dot_##NAME(const float *x, const float *y, size_t dim)                  \
    {                                                                                              \
        doubles sum = {0};                                                                         \
        double lane[LANES];                                                                        \
        size_t i = 0;                                                                              \
        for (; i + LANES <= dim; i += LANES)                                                       \
            sum += LOAD(x + i) * LOAD(y + i);                                                      \
        memcpy(lane, &sum, sizeof(lane));                                                          \
        for (int l = 0; i < dim; i++, l++)                                                         \
            lane[l] += (double)x[i] * (double)y[i];                                                \
        return fold(lane);                                                                         \
    }                                                                                              \
                                                                                                   \
    TARGET double distance_squares_##NAME(const float *x, const float *y, size_t dim)              \
    {                                                                                              \
        doubles sum = {0};                                                                         \
        double lane[LANES];                                                                        \
        size_t i = 0;                                                                              \
        for (; i + LANES <= dim; i += LANES) {                                                     \
            doubles t = LOAD(x + i) - LOAD(y + i);                                                 \
            sum += t * t;                                                                          \
        }                                                                                          \
        memcpy(lane, &sum, sizeof(lane));                                                          \
        for (int l = 0; i < dim; i++, l++) {                                                       \
            double t = (double)x[i] - (double)y[i];                                                \
            lane[l] += t * t;                                                                      \
        }                                                                                          \
        return fold(lane);                                                                         \
    }

SUMS(scalar, )
#if defined(__x86_64__)
SUMS(avx2, __attribute__((target("avx2"))))
SUMS(avx512, __attribute__((target("avx512f,avx512vl,avx512dq"))))
#endif

double distance_norm2(const float *v, uint32_t dim)
{
    return kernels.dot_double(v, v, dim);
}

/* sqrt(a * a) is a: a vector is at distance 0 from itself, exactly. */
static double cosine(const float *q, double q_norm2, const float *v, uint32_t dim)
{
    double scale = sqrt(q_norm2 * distance_norm2(v, dim));
    double d = scale > 0 ? 1 - kernels.dot_double(q, v, dim) / scale : 1;
    return d < 0 ? 0 : d > 2 ? 2 : d;
}

double distance_exact(enum metric metric, const float *query, double query_norm2, const float *v,
                      uint32_t dim)
{
    switch (metric) {
    case DIST_L2:
        return sqrt(kernels.squares_double(query, v, dim));
    case DIST_IP:
        return 0 - kernels.dot_double(query, v, dim); /* no negative zero */
    case DIST_COSINE:
        return cosine(query, query_norm2, v, dim);
    }
    ASSERT(false);
}
