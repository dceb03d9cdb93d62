/* What the kernels in plain C and the loops of walks share: the kernels on codes.
 *
 * Threads: pure functions. */
#ifndef LOADSTONE_INDEX_KERNELS_SCALAR_H
#define LOADSTONE_INDEX_KERNELS_SCALAR_H

#include <stddef.h>
#include <stdint.h>

/* Unsigned: codes of a damaged file may wrap around. */
static inline void scalar_code_l2_4(const uint8_t *q, const uint8_t *const c[4], size_t d,
                                    int32_t out[4])
{
    for (int r = 0; r < 4; r++) {
        const uint8_t *row = c[r];
        uint32_t sum = 0;
        for (size_t i = 0; i < d; i++) {
            int t = q[i] - row[i];
            sum += (uint32_t)(t * t);
        }
        out[r] = (int32_t)sum;
    }
}

static inline void scalar_code_dot_4(const int8_t *q, const uint8_t *const c[4], size_t d,
                                     int32_t out[4])
{
    for (int r = 0; r < 4; r++) {
        const uint8_t *row = c[r];
        uint32_t sum = 0;
        for (size_t i = 0; i < d; i++)
            sum += (uint32_t)(q[i] * row[i]);
        out[r] = (int32_t)sum;
    }
}

#endif
