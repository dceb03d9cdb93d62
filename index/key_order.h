/* The order of keys: int64 by value, strings by their bytes. Ties of distance are broken by it. */
#ifndef LOADSTONE_INDEX_KEY_ORDER_H
#define LOADSTONE_INDEX_KEY_ORDER_H

#include <string.h>

#include "store/segment.h"

/* Below, at or above 0 as the key of row_a in a comes before, equals or follows that of row_b in b;
 * both segments are of one collection. */
static inline int key_order(const struct segment *a, uint32_t row_a, const struct segment *b,
                            uint32_t row_b)
{
    if (a->schema->key == KEY_INT64) {
        int64_t ka = segment_key_int(a, row_a), kb = segment_key_int(b, row_b);
        return (ka > kb) - (ka < kb);
    }
    size_t na, nb;
    const void *ka = segment_key_str(a, row_a, &na), *kb = segment_key_str(b, row_b, &nb);
    int order = memcmp(ka, kb, na < nb ? na : nb);
    return order ? order : (na > nb) - (na < nb);
}

#endif
