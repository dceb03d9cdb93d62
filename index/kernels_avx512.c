/* The kernels for AVX-512: sixteen floats at a time, the end of a row by masked loads (a masked
 * lane is not read, so a row may end at the last byte of a page).
 *
 * Threads: pure functions. Failure: none; kernels.c calls them only where the processor has them.
 */
#include "index/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define ISA __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))

ISA static inline __m256 avx512_fold(__m512 v)
{
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

/* Lane r of the result is the sum of v[r]. */
ISA static inline __m128 avx512_sum4(const __m512 v[4])
{
    __m256 ab = _mm256_hadd_ps(avx512_fold(v[0]), avx512_fold(v[1]));
    __m256 cd = _mm256_hadd_ps(avx512_fold(v[2]), avx512_fold(v[3]));
    __m256 s = _mm256_hadd_ps(ab, cd);
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

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
#endif
