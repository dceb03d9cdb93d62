/* What the kernels for AVX2 and the loops of walks share: the kernels on codes. Pairs of products
 * fit 16 bits, since 2 x 127^2 < 2^15.
 *
 * Threads: pure functions. */
#ifndef LOADSTONE_INDEX_KERNELS_AVX2_H
#define LOADSTONE_INDEX_KERNELS_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define ISA __attribute__((target("avx2,fma")))

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

ISA static inline void avx2_code_l2_4(const uint8_t *q, const uint8_t *const c[4], size_t d,
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

ISA static inline void avx2_code_dot_4(const int8_t *q, const uint8_t *const c[4], size_t d,
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

ISA static inline void avx2_code8_l2_4(const uint8_t *q, const uint8_t *const c[4], size_t d,
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

#endif
