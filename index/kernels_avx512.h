/* What the kernels for AVX-512 and the loops of walks share: sums over lanes, and the kernels on
 * codes, 64 bytes at a time.
 *
 * Threads: pure functions. */
#ifndef LOADSTONE_INDEX_KERNELS_AVX512_H
#define LOADSTONE_INDEX_KERNELS_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

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

/* ---- codes: 64 bytes at a time ---- */

#define ISA_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma")))

ISA static inline void avx512_code_sum4(const __m512i v[4], int32_t out[4])
{
    __m256i h[4];
    for (int r = 0; r < 4; r++)
        h[r] = _mm256_add_epi32(_mm512_castsi512_si256(v[r]), _mm512_extracti64x4_epi64(v[r], 1));
    __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(h[0], h[1]), _mm256_hadd_epi32(h[2], h[3]));
    __m128i all = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    _mm_storeu_si128((__m128i *)out, all);
}

/* Adds the products of bytes, x unsigned and y signed, to the lanes of sum: by way of 16 bits,
 * which hold a pair since 2 x 127^2 < 2^15; or in one instruction. */
ISA static inline __m512i avx512_code_add(__m512i sum, __m512i x, __m512i y)
{
    __m512i pairs = _mm512_maddubs_epi16(x, y);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

/* Adds the squares of 16-bit numbers, by pairs, to the lanes of sum. */
ISA static inline __m512i avx512_squares_add(__m512i sum, __m512i x, __m512i y)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(x, y));
}

#define CODE_KERNELS(TARGET, NAME, ADD_PRODUCTS, ADD_SQUARES)                                      \
    TARGET static inline void NAME##_code_l2_4(const uint8_t *q, const uint8_t *const c[4],        \
                                               size_t d, int32_t out[4])                           \
    {                                                                                              \
        __m512i zero = _mm512_setzero_si512(), s[4] = {zero, zero, zero, zero};                    \
        for (size_t i = 0; i < d; i += 64) {                                                       \
            __m512i x = _mm512_loadu_si512(q + i);                                                 \
            for (int r = 0; r < 4; r++) {                                                          \
                __m512i t = _mm512_abs_epi8(_mm512_sub_epi8(x, _mm512_loadu_si512(c[r] + i)));     \
                s[r] = ADD_PRODUCTS(s[r], t, t);                                                   \
            }                                                                                      \
        }                                                                                          \
        avx512_code_sum4(s, out);                                                                  \
    }                                                                                              \
                                                                                                   \
    TARGET static inline void NAME##_code_dot_4(const int8_t *q, const uint8_t *const c[4],        \
                                                size_t d, int32_t out[4])                          \
    {                                                                                              \
        __m512i zero = _mm512_setzero_si512(), s[4] = {zero, zero, zero, zero};                    \
        for (size_t i = 0; i < d; i += 64) {                                                       \
            __m512i x = _mm512_loadu_si512(q + i);                                                 \
            for (int r = 0; r < 4; r++)                                                            \
                s[r] = ADD_PRODUCTS(s[r], _mm512_loadu_si512(c[r] + i), x);                        \
        }                                                                                          \
        avx512_code_sum4(s, out);                                                                  \
    }                                                                                              \
                                                                                                   \
    TARGET static inline void NAME##_code8_l2_4(const uint8_t *q, const uint8_t *const c[4],       \
                                                size_t d, int32_t out[4])                          \
    {                                                                                              \
        __m512i zero = _mm512_setzero_si512(), s[4] = {zero, zero, zero, zero};                    \
        for (size_t i = 0; i < d; i += 64) {                                                       \
            __m512i x = _mm512_loadu_si512(q + i);                                                 \
            for (int r = 0; r < 4; r++) {                                                          \
                __m512i y = _mm512_loadu_si512(c[r] + i);                                          \
                __m512i t = _mm512_sub_epi8(_mm512_max_epu8(x, y), _mm512_min_epu8(x, y));         \
                __m512i lo = _mm512_unpacklo_epi8(t, zero), hi = _mm512_unpackhi_epi8(t, zero);    \
                s[r] = ADD_SQUARES(ADD_SQUARES(s[r], lo, lo), hi, hi);                             \
            }                                                                                      \
        }                                                                                          \
        avx512_code_sum4(s, out);                                                                  \
    }

CODE_KERNELS(ISA, avx512, avx512_code_add, avx512_squares_add)
CODE_KERNELS(ISA_VNNI, vnni, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32)

#endif
