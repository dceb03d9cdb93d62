/* The key index of a segment file while it is made.
 *
 *   slots:  open addressing, linear probing, filled to two thirds at most: hash tag << 32 | row + 1
 *   prev:   row -> the older row with the same key + 1; not there while all keys differ
 *
 * Of equal keys the slot leads to the newest row. Takes 12 to 24 bytes a row, 4 more when keys
 * repeat. One thread at a time. */
#ifndef LOADSTONE_STORE_KEY_INDEX_H
#define LOADSTONE_STORE_KEY_INDEX_H

#include "store/row.h"
#include "store/segment_sections.h"

struct key_index {
    uint64_t *slots;
    uint64_t nslots; /* a power of two */
    uint32_t *prev;
    uint32_t rows;
};

typedef bool (*key_index_same)(const void *arg, uint32_t row, const struct row *key);

WARN_UNUSED enum err key_index_init(struct key_index *ix, uint32_t rows, struct err_ctx *ctx);
void key_index_deinit(struct key_index *ix);
/* Rows come in rising order; `same` tells whether an earlier row has this key. */
WARN_UNUSED enum err key_index_add(struct key_index *ix, uint32_t row, const struct row *key,
                                   key_index_same same, const void *arg, struct err_ctx *ctx);
/* Puts its sections. */
WARN_UNUSED enum err key_index_write(const struct key_index *ix, struct segment_sections *out,
                                     struct err_ctx *ctx);

#endif
