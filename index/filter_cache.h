/* Which rows of a segment match a filter, kept for the next search with it.
 *
 * From the second use of a filter on a segment on, a search finds a bit per row. Rows that are dead
 * in some version have theirs too, so that every version shares them: who reads combines them with
 * what is alive. Tails and small segments have none.
 *
 * Threads: any number. What is lent stays valid within the reader's epoch section. No lock is taken
 * but to put in something that was not there. Failure: no memory: the filter is evaluated. */
#ifndef LOADSTONE_INDEX_FILTER_CACHE_H
#define LOADSTONE_INDEX_FILTER_CACHE_H

#include "store/filter.h"

enum { FILTER_CACHE_ROWS_MIN = 1024, FILTER_CACHE_SHARE = 32 /* of the memory of indexes */ };

struct filter_bits {
    uint64_t segment; /* serial */
    struct hash128 filter;
    uint32_t rows;     /* of the segment */
    uint32_t matching; /* of them, dead or alive; each has a vector */
    atomic_bool used;  /* since it was last looked at for eviction */
    uint64_t words[];  /* a bit per row, zeros behind the last */
};

/* What is there already. For plans and estimates: counts as no use. */
const struct filter_bits *filter_cache_peek(const struct segment *s, const struct filter *f);
/* What is there. When nothing is: notes the first use; at a later one works the bits out, unless
 * that would take more than us_max (0 = whatever it takes) or `*cancel` (NULL: never) is or becomes
 * true. NULL: the filter is to be evaluated. */
const struct filter_bits *filter_cache_use(const struct segment *s, const struct filter *f,
                                           double us_max, const atomic_bool *cancel);
/* Microseconds that filter_cache_use would take to work the bits out; 0 when it would not. */
double filter_cache_due_us(const struct segment *s, const struct filter *f);

/* Bytes that may be kept; 64 MiB until this is called. */
void filter_cache_limit(uint64_t bytes);
uint64_t filter_cache_bytes(void);
/* Empties it. */
void filter_cache_clear(void);

#endif
