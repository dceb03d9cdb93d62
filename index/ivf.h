/* The numbers that inverted lists (IVF) start from. */
#ifndef LOADSTONE_INDEX_IVF_H
#define LOADSTONE_INDEX_IVF_H

#include <math.h>

#include "store/schema.h"

/* How many lists `vectors` vectors get: what the settings ask for, or 4 sqrt(vectors); never more
 * than one list for 8 vectors unless asked for, nor more than vectors. */
static inline uint32_t ivf_nlist(uint32_t asked, uint32_t vectors)
{
    uint32_t n = asked;
    if (n == 0) {
        n = (uint32_t)lround(4 * sqrt(vectors));
        n = n > vectors / 8 ? vectors / 8 : n;
    }
    n = n > NLIST_MAX ? NLIST_MAX : n > vectors ? vectors : n;
    return n < 1 ? 1 : n;
}

/* How many lists a search reads when it does not say: recall@10 0.995 on MNIST (60,000 x 784), at a
 * 26th of the rows measured. */
static inline uint32_t ivf_nprobe_default(uint32_t nlist)
{
    return (nlist + 31) / 32;
}

#endif
