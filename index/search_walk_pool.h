/* The pool of a walk, for processors without masked stores of whole vectors.
 *
 * Threads: pure functions. */
#ifndef LOADSTONE_INDEX_SEARCH_WALK_POOL_H
#define LOADSTONE_INDEX_SEARCH_WALK_POOL_H

#include <stdint.h>
#include <string.h>

/* How many of n keys, in order, are at most `key`: halving without a branch on what is found. */
static inline uint32_t pool_position(const int32_t *keys, uint32_t n, int32_t key)
{
    uint32_t at = 0;
    while (n > 0) {
        uint32_t half = n / 2, right = keys[at + half] <= key;
        at += right ? half + 1 : 0;
        n = right ? n - half - 1 : half;
    }
    return at;
}

static inline void pool_insert(int32_t *keys, uint32_t *nodes, uint32_t at, uint32_t n, int32_t key,
                               uint32_t node)
{
    memmove(keys + at + 1, keys + at, (n - at) * sizeof(*keys));
    memmove(nodes + at + 1, nodes + at, (n - at) * sizeof(*nodes));
    keys[at] = key;
    nodes[at] = node;
}

#endif
