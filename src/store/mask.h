/* The dead rows of one segment in one version: reference-counted pages of 65,536 bits, shared
 * between versions; an absent page has no dead row.
 *
 * A mask reachable from a snapshot is immutable. mask_edit gives the single writer a copy that
 * shares every page until it is changed. */
#ifndef LOADSTONE_STORE_MASK_H
#define LOADSTONE_STORE_MASK_H

#include <stdatomic.h>

#include "base/bytes.h"

enum { MASK_PAGE_BITS = 65536, MASK_PAGE_WORDS = MASK_PAGE_BITS / 64 };

struct mask_page {
    atomic_uint refs;
    uint32_t count; /* bits set */
    uint64_t words[MASK_PAGE_WORDS];
};

struct mask {
    atomic_uint refs;
    uint32_t npages;
    uint64_t count; /* bits set in all */
    struct mask_page *pages[];
};

static inline bool mask_get(const struct mask *m, uint32_t row)
{
    uint32_t page = row >> 16;
    if (page >= m->npages || !m->pages[page])
        return false;
    return m->pages[page]->words[(row & 0xffff) >> 6] >> (row & 63) & 1;
}

struct mask *mask_acquire(struct mask *m);
void mask_release(struct mask *m); /* NULL is allowed */

/* A private copy of `m` (NULL = empty) with room for `rows` rows, pages shared. NULL: no memory. */
struct mask *mask_edit(const struct mask *m, uint32_t rows);
/* Sets a bit of a private mask; *was tells whether it was set. False: no memory. */
WARN_UNUSED bool mask_set(struct mask *m, uint32_t row, bool *was);

/* A mask of the bitmap's rows and those from `from` on (all below `rows`). NULL = none. */
struct roaring_bitmap_s;
WARN_UNUSED enum err mask_from(const struct roaring_bitmap_s *r, uint32_t from, uint32_t rows,
                               struct mask **out, struct err_ctx *ctx);

/* Roaring's portable format, as it stands in the log and in checkpoints. */
WARN_UNUSED bool mask_encode(const struct mask *m, struct buf *out);
WARN_UNUSED enum err mask_decode(const void *data, size_t n, uint32_t rows, struct mask **out,
                                 struct err_ctx *ctx);

#endif
