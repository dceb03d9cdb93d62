/* Building the key index of a segment file; segment.c reads it. The invariant that both share: the
 * probe for a key ends at an empty slot, which there always is, or at the slot of the key's newest
 * row. Threads: one. Failure: only memory. */
#include "store/key_index.h"

#include "store/segment_format.h"

enum { SLOTS_MIN = 64 };

enum err key_index_init(struct key_index *ix, uint32_t rows, struct err_ctx *ctx)
{
    *ix = (struct key_index){.nslots = SLOTS_MIN, .rows = rows};
    while (ix->nslots * 2 < rows * 3ull)
        ix->nslots *= 2;
    ix->slots = calloc(ix->nslots, sizeof *ix->slots);
    return ix->slots ? ERR_OK : err_no_memory(ctx, ix->nslots * sizeof *ix->slots);
}

void key_index_deinit(struct key_index *ix)
{
    free(ix->slots);
    free(ix->prev);
    *ix = (struct key_index){0};
}

enum err key_index_add(struct key_index *ix, uint32_t row, const struct row *key,
                       key_index_same same, const void *arg, struct err_ctx *ctx)
{
    uint64_t hash = row_key_hash(key), tag = hash >> 32, mask = ix->nslots - 1;
    for (uint64_t i = hash & mask;; i = (i + 1) & mask) {
        uint64_t slot = ix->slots[i];
        if (slot && (slot >> 32 != tag || !same(arg, (uint32_t)slot - 1, key)))
            continue;
        if (slot && !ix->prev && !(ix->prev = calloc(ix->rows, sizeof *ix->prev)))
            return err_no_memory(ctx, ix->rows * sizeof *ix->prev);
        if (slot)
            ix->prev[row] = (uint32_t)slot;
        ix->slots[i] = tag << 32 | (row + 1);
        return ERR_OK;
    }
}

enum err key_index_write(const struct key_index *ix, struct segment_sections *out,
                         struct err_ctx *ctx)
{
    RETURN_NOT_OK(segment_sections_begin(out, SECTION_KEY_SLOTS, 0, ctx));
    RETURN_NOT_OK(segment_sections_put(out, ix->slots, ix->nslots * sizeof *ix->slots, ctx));
    if (!ix->prev)
        return ERR_OK;
    RETURN_NOT_OK(segment_sections_begin(out, SECTION_KEY_PREV, 0, ctx));
    return segment_sections_put(out, ix->prev, ix->rows * sizeof *ix->prev, ctx);
}
