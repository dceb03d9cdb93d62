/* The loops of walks in plain C.
 *
 * Threads, failure: see search_walk.h. */
#include "index/search_walk.h"

#include "index/kernels_scalar.h"
#include "index/search_walk_pool.h"

static inline uint32_t scalar_near(const int32_t *keys, int32_t bound)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < WALK_VECTOR; i++)
        bits |= (uint32_t)(keys[i] < bound) << i;
    return bits;
}

static inline uint32_t scalar_open(const uint32_t *nodes)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < WALK_VECTOR; i++)
        bits |= (~nodes[i] >> 31) << i;
    return bits;
}

#define ISA
#define CODE_L2_4 scalar_code_l2_4
#define CODE_DOT_4 scalar_code_dot_4
#define NEAR scalar_near
#define OPEN scalar_open
#define POOL_POSITION pool_position
#define POOL_INSERT pool_insert
#define LOOPS walk_loops_scalar

#include "index/search_walk_body.h"
