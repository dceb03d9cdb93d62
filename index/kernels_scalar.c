/* The kernels in plain C, for processors without AVX2: vectors of four floats that the compiler
 * maps to whatever the machine has (SSE2 on x86-64).
 *
 * Threads: pure functions. Failure: none. */
#include <string.h>

#include "index/kernels_scalar.h"

#include "index/kernels.h"

typedef float scalar_vec __attribute__((vector_size(16)));

static inline scalar_vec scalar_load(const float *p)
{
    scalar_vec v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline scalar_vec scalar_load_part(const float *p, size_t n)
{
    scalar_vec v = {0, 0, 0, 0};
    for (size_t i = 0; i < n; i++)
        v[i] = p[i];
    return v;
}

static inline float scalar_sum(scalar_vec v)
{
    return (v[0] + v[2]) + (v[1] + v[3]);
}

#define ISA
#define CODE_L2_4 scalar_code_l2_4
#define CODE_DOT_4 scalar_code_dot_4
#define CODE8_L2_4 scalar_code_l2_4
#define DOT_DOUBLE distance_dot_scalar
#define SQUARES_DOUBLE distance_squares_scalar
#define ISA_LEVEL KERNELS_SCALAR
#define ISA_NAME "scalar"
#define ISA_TABLE kernels_scalar
#define VEC scalar_vec
#define LANES ((size_t)4)
#define LOAD(p) scalar_load(p)
#define LOAD_PART(p, n) scalar_load_part(p, n)
#define ZERO() ((scalar_vec){0, 0, 0, 0})
#define ADD(a, b) ((a) + (b))
#define SUB(a, b) ((a) - (b))
#define FMA(a, b, c) ((a) * (b) + (c))
#define SUM(v) scalar_sum(v)
#define SUM4(v, out)                                                                               \
    do {                                                                                           \
        for (int sum_ = 0; sum_ < 4; sum_++)                                                       \
            (out)[sum_] = scalar_sum((v)[sum_]);                                                   \
    } while (0)

#include "index/kernels_body.h"
