/* FAISS's distance functions on our kernels, put in place of its own at link time.
 *
 * Debian's libfaiss.a is built for plain SSE2. All distance functions that HNSW and flat indexes
 * call live in one archive member, distances_simd.cpp.o. This object defines that member's 15
 * public C++ functions under their mangled names, and stands before the archive on the link line,
 * so the member is never pulled. faiss_probe.sh checks both halves of that (same symbols, member
 * not linked) and otherwise builds without: LOADSTONE_NO_FAISS_KERNELS.
 *
 * Parameter order and meaning follow faiss/utils/distances.h of 1.7.3: d is the dimension, ny the
 * number of rows of y (row-major).
 *
 * Threads: pure functions, called from OpenMP threads too. Failure: none. */
#ifndef LOADSTONE_NO_FAISS_KERNELS
#include <math.h>

#include "index/kernels.h"

#define FAISS_SYMBOL(mangled) __asm__(mangled)

float faiss_l2sqr(const float *, const float *, size_t)
    FAISS_SYMBOL("_ZN5faiss10fvec_L2sqrEPKfS1_m");
float faiss_inner_product(const float *, const float *, size_t)
    FAISS_SYMBOL("_ZN5faiss18fvec_inner_productEPKfS1_m");
float faiss_norm_l2sqr(const float *, size_t) FAISS_SYMBOL("_ZN5faiss15fvec_norm_L2sqrEPKfm");
float faiss_l1(const float *, const float *, size_t) FAISS_SYMBOL("_ZN5faiss7fvec_L1EPKfS1_m");
float faiss_linf(const float *, const float *, size_t) FAISS_SYMBOL("_ZN5faiss9fvec_LinfEPKfS1_m");
void faiss_l2sqr_ny(float *, const float *, const float *, size_t, size_t)
    FAISS_SYMBOL("_ZN5faiss13fvec_L2sqr_nyEPfPKfS2_mm");
void faiss_inner_products_ny(float *, const float *, const float *, size_t, size_t)
    FAISS_SYMBOL("_ZN5faiss22fvec_inner_products_nyEPfPKfS2_mm");
size_t faiss_l2sqr_ny_nearest(float *, const float *, const float *, size_t, size_t)
    FAISS_SYMBOL("_ZN5faiss21fvec_L2sqr_ny_nearestEPfPKfS2_mm");
size_t faiss_l2sqr_ny_nearest_transposed(float *, const float *, const float *, const float *,
                                         size_t, size_t, size_t)
    FAISS_SYMBOL("_ZN5faiss34fvec_L2sqr_ny_nearest_y_transposedEPfPKfS2_S2_mmm");
void faiss_madd(size_t, const float *, float, const float *, float *)
    FAISS_SYMBOL("_ZN5faiss9fvec_maddEmPKffS1_Pf");
int faiss_madd_and_argmin(size_t, const float *, float, const float *, float *)
    FAISS_SYMBOL("_ZN5faiss20fvec_madd_and_argminEmPKffS1_Pf");
void faiss_add_vector(size_t, const float *, const float *, float *)
    FAISS_SYMBOL("_ZN5faiss8fvec_addEmPKfS1_Pf");
void faiss_add_scalar(size_t, const float *, float, float *)
    FAISS_SYMBOL("_ZN5faiss8fvec_addEmPKffPf");
void faiss_sub_vector(size_t, const float *, const float *, float *)
    FAISS_SYMBOL("_ZN5faiss8fvec_subEmPKfS1_Pf");
void faiss_pq_tables_dsub2(size_t, size_t, const float *, size_t, const float *, bool, float *)
    FAISS_SYMBOL("_ZN5faiss27compute_PQ_dis_tables_dsub2EmmPKfmS1_bPf");

float faiss_l2sqr(const float *x, const float *y, size_t d)
{
    return kernels.l2sqr(x, y, d);
}

float faiss_inner_product(const float *x, const float *y, size_t d)
{
    return kernels.dot(x, y, d);
}

float faiss_norm_l2sqr(const float *x, size_t d)
{
    return kernels.dot(x, x, d);
}

float faiss_l1(const float *x, const float *y, size_t d)
{
    float sum = 0;
    for (size_t i = 0; i < d; i++)
        sum += fabsf(x[i] - y[i]);
    return sum;
}

float faiss_linf(const float *x, const float *y, size_t d)
{
    float max = 0;
    for (size_t i = 0; i < d; i++)
        max = fmaxf(max, fabsf(x[i] - y[i]));
    return max;
}

void faiss_l2sqr_ny(float *dis, const float *x, const float *y, size_t d, size_t ny)
{
    size_t i = 0;
    for (; i + 4 <= ny; i += 4) {
        const float *r = y + i * d;
        kernels.l2sqr_4(x, (const float *[4]){r, r + d, r + 2 * d, r + 3 * d}, d, dis + i);
    }
    for (; i < ny; i++)
        dis[i] = kernels.l2sqr(x, y + i * d, d);
}

void faiss_inner_products_ny(float *dis, const float *x, const float *y, size_t d, size_t ny)
{
    size_t i = 0;
    for (; i + 4 <= ny; i += 4) {
        const float *r = y + i * d;
        kernels.dot_4(x, (const float *[4]){r, r + d, r + 2 * d, r + 3 * d}, d, dis + i);
    }
    for (; i < ny; i++)
        dis[i] = kernels.dot(x, y + i * d, d);
}

static size_t index_of_least(const float *dis, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (dis[i] < dis[best])
            best = i;
    }
    return best;
}

size_t faiss_l2sqr_ny_nearest(float *tmp, const float *x, const float *y, size_t d, size_t ny)
{
    faiss_l2sqr_ny(tmp, x, y, d, ny);
    return index_of_least(tmp, ny);
}

/* y is d x d_offset, one column a vector; y_sqlen holds the columns' squared norms. */
size_t faiss_l2sqr_ny_nearest_transposed(float *tmp, const float *x, const float *y,
                                         const float *y_sqlen, size_t d, size_t d_offset, size_t ny)
{
    for (size_t i = 0; i < ny; i++)
        tmp[i] = 0;
    for (size_t j = 0; j < d; j++) {
        for (size_t i = 0; i < ny; i++)
            tmp[i] += x[j] * y[j * d_offset + i];
    }
    float x_sqlen = kernels.dot(x, x, d);
    for (size_t i = 0; i < ny; i++)
        tmp[i] = x_sqlen + y_sqlen[i] - 2 * tmp[i];
    return index_of_least(tmp, ny);
}

void faiss_madd(size_t n, const float *a, float bf, const float *b, float *c)
{
    for (size_t i = 0; i < n; i++)
        c[i] = a[i] + bf * b[i];
}

int faiss_madd_and_argmin(size_t n, const float *a, float bf, const float *b, float *c)
{
    faiss_madd(n, a, bf, b, c);
    int best = -1;
    float least = 1e20f; /* FAISS answers -1 when nothing is below this */
    for (size_t i = 0; i < n; i++) {
        if (c[i] < least) {
            least = c[i];
            best = (int)i;
        }
    }
    return best;
}

void faiss_add_vector(size_t d, const float *a, const float *b, float *c)
{
    for (size_t i = 0; i < d; i++)
        c[i] = a[i] + b[i];
}

void faiss_add_scalar(size_t d, const float *a, float b, float *c)
{
    for (size_t i = 0; i < d; i++)
        c[i] = a[i] + b;
}

void faiss_sub_vector(size_t d, const float *a, const float *b, float *c)
{
    for (size_t i = 0; i < d; i++)
        c[i] = a[i] - b[i];
}

static float pair_distance(const float *x, const float *c, bool inner_product)
{
    if (inner_product)
        return x[0] * c[0] + x[1] * c[1];
    float a = x[0] - c[0], b = x[1] - c[1];
    return a * a + b * b;
}

/* Tables of a product quantiser with two-dimensional sub-spaces: dis_tables is nx x (d / 2) x ksub,
 * the centroids are (d / 2) x ksub x 2. */
void faiss_pq_tables_dsub2(size_t d, size_t ksub, const float *centroids, size_t nx, const float *x,
                           bool inner_product, float *dis_tables)
{
    size_t subspaces = d / 2;
    for (size_t i = 0; i < nx; i++) {
        for (size_t m = 0; m < subspaces; m++) {
            float *table = dis_tables + (i * subspaces + m) * ksub;
            for (size_t k = 0; k < ksub; k++)
                table[k] =
                    pair_distance(x + i * d + m * 2, centroids + (m * ksub + k) * 2, inner_product);
        }
    }
}
#else
typedef int faiss_kernels_left_out;
#endif
