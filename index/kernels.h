/* Distance kernels on float32 and on codes, picked at run time for the processor: AVX-512 with or
 * without VNNI, AVX2 or plain C.
 *
 * Shapes: x and y are d floats at any alignment; the _4 forms measure one x against four rows at
 * once and give each row the same bits wherever it stands among the four. Sums run in float: a
 * result differs from the exact one by at most kernels_error(d) times the sum of the magnitudes of
 * the terms. Norms are squared.
 *
 * The code_ forms measure 7-bit codes (codes.h), code8_ 8-bit codes, in whole numbers, exactly: the
 * same on every processor. There d is a multiple of 64 and the sums stay below 2^31 up to the
 * largest dimension. Codes above 127, which only a damaged file holds, give some number. */
#ifndef LOADSTONE_INDEX_KERNELS_H
#define LOADSTONE_INDEX_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Up to this many dimensions a sum of squares of 8-bit differences is below 2^31. */
enum { CODE8_DIM_MAX = 33000 };

enum kernels_level { KERNELS_SCALAR, KERNELS_AVX2, KERNELS_AVX512, KERNELS_AVX512VNNI };

struct kernels {
    enum kernels_level level;
    const char *name; /* "avx512vnni", "avx512", "avx2", "scalar" */
    float (*l2sqr)(const float *x, const float *y, size_t d);
    float (*dot)(const float *x, const float *y, size_t d);
    /* x . y, and y . y in *norm. */
    float (*dot_norm)(const float *x, const float *y, size_t d, float *norm);
    void (*l2sqr_4)(const float *x, const float *const y[4], size_t d, float out[4]);
    void (*dot_4)(const float *x, const float *const y[4], size_t d, float out[4]);
    void (*dot_norm_4)(const float *x, const float *const y[4], size_t d, float dot[4],
                       float norm[4]);
    /* Sum of (q[i] - c[i])^2, both 0..127. */
    void (*code_l2_4)(const uint8_t *q, const uint8_t *const c[4], size_t d, int32_t out[4]);
    /* Sum of q[i] * c[i], q in -127..127. */
    void (*code_dot_4)(const int8_t *q, const uint8_t *const c[4], size_t d, int32_t out[4]);
    /* Sum of (q[i] - c[i])^2, both 0..255; d <= CODE8_DIM_MAX. */
    void (*code8_l2_4)(const uint8_t *q, const uint8_t *const c[4], size_t d, int32_t out[4]);
    /* In double, summed in the order of distance.c: the same bits on every processor. */
    double (*dot_double)(const float *x, const float *y, size_t d);
    double (*squares_double)(const float *x, const float *y, size_t d);
};

/* The kernels in use: plain C until kernels_init, which runs before any other thread. */
extern struct kernels kernels;

/* Picks the best kernels of this processor, or those that LOADSTONE_ISA names: ERR_INVALID when
 * that name is unknown or the processor lacks them. */
WARN_UNUSED enum err kernels_init(struct err_ctx *ctx);

/* The kernels of that name; NULL when unknown or when the processor lacks them. */
const struct kernels *kernels_find(const char *name);

/* Bound of the rounding error of a sum over d terms, relative to the sum of their magnitudes; the
 * same for every instruction set. */
double kernels_error(size_t d);

extern const struct kernels kernels_scalar;
#define DISTANCE_SUMS(isa)                                                                         \
    double distance_dot_##isa(const float *x, const float *y, size_t d);                           \
    double distance_squares_##isa(const float *x, const float *y, size_t d)
DISTANCE_SUMS(scalar);
DISTANCE_SUMS(avx2);
DISTANCE_SUMS(avx512);

#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avx512, kernels_avx512vnni;
#endif

#endif
