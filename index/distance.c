/* Distances in double with a fixed order of summation.
 *
 * Eight running sums, element i into sum i mod 8, folded pairwise at the end. Products of floats
 * are exact in double; the build turns the contraction of a * b + c off (faiss.mk), so that a
 * compiler for a processor with fused operations rounds like any other.
 *
 * Threads: pure functions. Failure: none. */
#include "index/distance.h"

#include <math.h>
#include <string.h>

enum { LANES = 8 };

struct sums {
    double lane[LANES];
};

static double fold(const struct sums *s)
{
    const double *l = s->lane;
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

static double sum_dot(const float *x, const float *y, uint32_t dim)
{
    struct sums s = {{0}};
    uint32_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        for (int l = 0; l < LANES; l++)
            s.lane[l] += (double)x[i + l] * (double)y[i + l];
    }
    for (int l = 0; i < dim; i++, l++)
        s.lane[l] += (double)x[i] * (double)y[i];
    return fold(&s);
}

static double sum_squares(const float *x, const float *y, uint32_t dim)
{
    struct sums s = {{0}};
    uint32_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            double t = (double)x[i + l] - (double)y[i + l];
            s.lane[l] += t * t;
        }
    }
    for (int l = 0; i < dim; i++, l++) {
        double t = (double)x[i] - (double)y[i];
        s.lane[l] += t * t;
    }
    return fold(&s);
}

double distance_norm2(const float *v, uint32_t dim)
{
    return sum_dot(v, v, dim);
}

/* sqrt(a * a) is a: a vector is at distance 0 from itself, exactly. */
static double cosine(const float *q, double q_norm2, const float *v, uint32_t dim)
{
    double scale = sqrt(q_norm2 * distance_norm2(v, dim));
    double d = scale > 0 ? 1 - sum_dot(q, v, dim) / scale : 1;
    return d < 0 ? 0 : d > 2 ? 2 : d;
}

double distance_exact(enum metric metric, const float *query, double query_norm2, const float *v,
                      uint32_t dim)
{
    switch (metric) {
    case DIST_L2:
        return sqrt(sum_squares(query, v, dim));
    case DIST_IP:
        return 0 - sum_dot(query, v, dim); /* no negative zero */
    case DIST_COSINE:
        return cosine(query, query_norm2, v, dim);
    }
    ASSERT(false);
}
