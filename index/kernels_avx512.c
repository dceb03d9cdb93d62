/* The kernels for AVX-512: sixteen floats at a time, the end of a row by masked loads (a masked
 * lane is not read, so a row may end at the last byte of a page). A second table has the kernels on
 * codes for processors with VNNI.
 *
 * Threads: pure functions. Failure: none; kernels.c calls them only where the processor has them.
 */
#include "index/kernels.h"

#if defined(__x86_64__)
#include "index/kernels_avx512.h"

#define CODE_L2_4 avx512_code_l2_4
#define CODE_DOT_4 avx512_code_dot_4
#define CODE8_L2_4 avx512_code8_l2_4
#define DOT_DOUBLE distance_dot_avx512
#define SQUARES_DOUBLE distance_squares_avx512
#define ISA_LEVEL KERNELS_AVX512
#define ISA_NAME "avx512"
#define ISA_TABLE kernels_avx512
#define VEC __m512
#define LANES ((size_t)16)
#define LOAD(p) _mm512_loadu_ps(p)
#define LOAD_PART(p, n) _mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), p)
#define ZERO() _mm512_setzero_ps()
#define ADD(a, b) _mm512_add_ps(a, b)
#define SUB(a, b) _mm512_sub_ps(a, b)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define SUM(v) _mm512_reduce_add_ps(v)
#define SUM4(v, out) _mm_storeu_ps(out, avx512_sum4(v))

#include "index/kernels_body.h"

const struct kernels kernels_avx512vnni = {
    .level = KERNELS_AVX512VNNI,
    .name = "avx512vnni",
    .l2sqr = body_l2sqr,
    .dot = body_dot,
    .dot_norm = body_dot_norm,
    .l2sqr_4 = body_l2sqr_4,
    .dot_4 = body_dot_4,
    .dot_norm_4 = body_dot_norm_4,
    .code_l2_4 = vnni_code_l2_4,
    .code_dot_4 = vnni_code_dot_4,
    .code8_l2_4 = vnni_code8_l2_4,
    .dot_double = DOT_DOUBLE,
    .squares_double = SQUARES_DOUBLE,
};
#endif
