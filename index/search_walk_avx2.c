/* The loops of walks for AVX2.
 *
 * Threads, failure: see search_walk.h. */
#include "index/search_walk.h"

#if defined(__x86_64__)
#include "index/kernels_avx2.h"
#include "index/search_walk_pool.h"

ISA static inline uint32_t avx2_near8(const int32_t *keys, __m256i bound)
{
    __m256i near = _mm256_cmpgt_epi32(bound, _mm256_loadu_si256((const __m256i *)keys));
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(near));
}

ISA static inline uint32_t avx2_near(const int32_t *keys, int32_t bound)
{
    __m256i all = _mm256_set1_epi32(bound);
    return avx2_near8(keys, all) | avx2_near8(keys + 8, all) << 8;
}

/* The highest bit of each, which is WALK_DONE. */
ISA static inline uint32_t avx2_open(const uint32_t *nodes)
{
    __m256 low = _mm256_loadu_ps((const float *)nodes);
    __m256 high = _mm256_loadu_ps((const float *)(nodes + 8));
    return ~((uint32_t)_mm256_movemask_ps(low) | (uint32_t)_mm256_movemask_ps(high) << 8) & 0xffff;
}

#define CODE_L2_4 avx2_code_l2_4
#define CODE_DOT_4 avx2_code_dot_4
#define NEAR avx2_near
#define OPEN avx2_open
#define POOL_POSITION pool_position
#define POOL_INSERT pool_insert
#define LOOPS walk_loops_avx2

#include "index/search_walk_body.h"
#endif
