/* The kernels for AVX2 with FMA: eight floats at a time, the end of a row by masked loads (a masked
 * lane is not read, so a row may end at the last byte of a page).
 *
 * Threads: pure functions. Failure: none; kernels.c calls them only where the processor has them.
 */
#include "index/kernels.h"

#if defined(__x86_64__)
#include "index/kernels_avx2.h"

static const int32_t avx2_masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

ISA static inline __m256 avx2_load_part(const float *p, size_t n)
{
    return _mm256_maskload_ps(p, _mm256_loadu_si256((const __m256i *)(avx2_masks + 8 - n)));
}

/* Lane r of the result is the sum of v[r]. */
ISA static inline __m128 avx2_sum4(const __m256 v[4])
{
    __m256 ab = _mm256_hadd_ps(v[0], v[1]);
    __m256 cd = _mm256_hadd_ps(v[2], v[3]);
    __m256 s = _mm256_hadd_ps(ab, cd);
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

ISA static inline float avx2_sum(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#define CODE_L2_4 avx2_code_l2_4
#define CODE_DOT_4 avx2_code_dot_4
#define CODE8_L2_4 avx2_code8_l2_4
#define DOT_DOUBLE distance_dot_avx2
#define SQUARES_DOUBLE distance_squares_avx2
#define ISA_LEVEL KERNELS_AVX2
#define ISA_NAME "avx2"
#define ISA_TABLE kernels_avx2
#define VEC __m256
#define LANES ((size_t)8)
#define LOAD(p) _mm256_loadu_ps(p)
#define LOAD_PART(p, n) avx2_load_part(p, n)
#define ZERO() _mm256_setzero_ps()
#define ADD(a, b) _mm256_add_ps(a, b)
#define SUB(a, b) _mm256_sub_ps(a, b)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define SUM(v) avx2_sum(v)
#define SUM4(v, out) _mm_storeu_ps(out, avx2_sum4(v))

#include "index/kernels_body.h"
#endif
