/* The kernels for AVX2 with FMA: eight floats at a time, the end of a row by masked loads (a masked
 * lane is not read, so a row may end at the last byte of a page).
 *
 * Threads: pure functions. Failure: none; kernels.c calls them only where the processor has them.
 */
#include "index/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define ISA __attribute__((target("avx2,fma")))

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

/* ---- codes: pairs of products fit 16 bits, since 2 x 127^2 < 2^15 ---- */

ISA static inline __m256i avx2_load_code(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* Adds the products of bytes, x unsigned and y signed, to the lanes of sum. */
ISA static inline __m256i avx2_code_add(__m256i x, __m256i y, __m256i sum)
{
    __m256i pairs = _mm256_maddubs_epi16(x, y);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

ISA static inline void avx2_code_sum4(const __m256i v[4], int32_t out[4])
{
    __m256i ab = _mm256_hadd_epi32(v[0], v[1]);
    __m256i cd = _mm256_hadd_epi32(v[2], v[3]);
    __m256i s = _mm256_hadd_epi32(ab, cd);
    __m128i all = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    _mm_storeu_si128((__m128i *)out, all);
}

ISA static void avx2_code_l2_4(const uint8_t *q, const uint8_t *const c[4], size_t d,
                               int32_t out[4])
{
    __m256i zero = _mm256_setzero_si256(), s[4] = {zero, zero, zero, zero};
    for (size_t i = 0; i < d; i += 32) {
        __m256i x = avx2_load_code(q + i);
        for (int r = 0; r < 4; r++) {
            __m256i t = _mm256_abs_epi8(_mm256_sub_epi8(x, avx2_load_code(c[r] + i)));
            s[r] = avx2_code_add(t, t, s[r]);
        }
    }
    avx2_code_sum4(s, out);
}

ISA static void avx2_code_dot_4(const int8_t *q, const uint8_t *const c[4], size_t d,
                                int32_t out[4])
{
    __m256i zero = _mm256_setzero_si256(), s[4] = {zero, zero, zero, zero};
    for (size_t i = 0; i < d; i += 32) {
        __m256i x = avx2_load_code(q + i);
        for (int r = 0; r < 4; r++)
            s[r] = avx2_code_add(avx2_load_code(c[r] + i), x, s[r]);
    }
    avx2_code_sum4(s, out);
}

ISA static inline __m256i avx2_code8_add(__m256i x, __m256i y, __m256i sum)
{
    __m256i zero = _mm256_setzero_si256();
    __m256i t = _mm256_sub_epi8(_mm256_max_epu8(x, y), _mm256_min_epu8(x, y));
    __m256i lo = _mm256_unpacklo_epi8(t, zero), hi = _mm256_unpackhi_epi8(t, zero);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(lo, lo));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(hi, hi));
}

ISA static void avx2_code8_l2_4(const uint8_t *q, const uint8_t *const c[4], size_t d,
                                int32_t out[4])
{
    __m256i zero = _mm256_setzero_si256(), s[4] = {zero, zero, zero, zero};
    for (size_t i = 0; i < d; i += 32) {
        __m256i x = avx2_load_code(q + i);
        for (int r = 0; r < 4; r++)
            s[r] = avx2_code8_add(x, avx2_load_code(c[r] + i), s[r]);
    }
    avx2_code_sum4(s, out);
}

#define CODE_L2_4 avx2_code_l2_4
#define CODE_DOT_4 avx2_code_dot_4
#define CODE8_L2_4 avx2_code8_l2_4
#define DOT_DOUBLE distance_dot_avx2
#define SQUARES_DOUBLE distance_squares_avx2
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
