/* The pool of a walk for AVX-512: sixteen keys at a time.
 *
 * Threads: pure functions. */
#ifndef LOADSTONE_INDEX_SEARCH_WALK_AVX512_H
#define LOADSTONE_INDEX_SEARCH_WALK_AVX512_H

#include "index/kernels_avx512.h"

enum { POOL_COUNTED_MAX = 256 }; /* beyond, halving finds the sixteen to count in */

ISA static inline uint32_t avx512_near(const int32_t *keys, int32_t bound)
{
    return _mm512_cmplt_epi32_mask(_mm512_loadu_si512(keys), _mm512_set1_epi32(bound));
}

/* The highest bit of each, which is WALK_DONE. */
ISA static inline uint32_t avx512_open(const uint32_t *nodes)
{
    return ~(uint32_t)_mm512_movepi32_mask(_mm512_loadu_si512(nodes)) & 0xffff;
}

/* What stands behind the n keys is not below the last of them, or is cut off. */
ISA static inline uint32_t avx512_position(const int32_t *keys, uint32_t n, int32_t key)
{
    uint32_t at = 0, first = 0, end = n;
    while (end - first > POOL_COUNTED_MAX) {
        uint32_t middle = (first + end) / 2;
        bool right = keys[middle] <= key;
        first = right ? middle : first;
        end = right ? end : middle;
    }
    at = first;
    for (uint32_t i = first; i < end; i += 16) {
        __mmask16 in = end - i < 16 ? (__mmask16)((1u << (end - i)) - 1) : 0xffff;
        __m512i have = _mm512_loadu_si512(keys + i);
        at += (uint32_t)__builtin_popcount(
            _mm512_mask_cmple_epi32_mask(in, have, _mm512_set1_epi32(key)));
    }
    return at;
}

/* One up from `at` within the vector from which `at` counts, `put` into the gap. */
ISA static inline void avx512_open_gap(uint32_t *from, uint32_t at, uint32_t put)
{
    __mmask16 above = (__mmask16)(0xfffeu << at), gap = (__mmask16)(1u << at);
    __m512i v = _mm512_mask_loadu_epi32(_mm512_loadu_si512(from), above, from - 1);
    _mm512_storeu_si512(from, _mm512_mask_set1_epi32(v, gap, (int)put));
}

/* From the top down, so that nothing is overwritten before it has moved. */
ISA static inline void avx512_insert(int32_t *keys, uint32_t *nodes, uint32_t at, uint32_t n,
                                     int32_t key, uint32_t node)
{
    uint32_t first = at & ~15u;
    for (uint32_t i = n & ~15u; i > first; i -= 16) {
        _mm512_storeu_si512(keys + i, _mm512_loadu_si512(keys + i - 1));
        _mm512_storeu_si512(nodes + i, _mm512_loadu_si512(nodes + i - 1));
    }
    avx512_open_gap((uint32_t *)keys + first, at & 15, (uint32_t)key);
    avx512_open_gap(nodes + first, at & 15, node);
}

#define NEAR avx512_near
#define OPEN avx512_open
#define POOL_POSITION avx512_position
#define POOL_INSERT avx512_insert

#endif
