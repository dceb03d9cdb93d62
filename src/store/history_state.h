/* A version by segment ids, as history computes it: from a base, item after item.
 *
 *   schema, counts, [ segment 3: rows, dead, gone | segment 4: ... | tail 9: rows, dead, gone ]
 *
 * It follows the same rules as plan.c, which makes snapshots of the same records; that the two
 * agree is what test_history.c shows. Bitmaps instead of masks: they are small and never shared.
 *
 * Threads: one state, one thread. */
#ifndef LOADSTONE_STORE_HISTORY_STATE_H
#define LOADSTONE_STORE_HISTORY_STATE_H

#include <roaring/roaring.h>

#include "store/history_file.h"

struct history_entry {
    struct segment_ref ref; /* rows: those that the version knows of */
    roaring_bitmap_t *dead; /* NULL = none */
    roaring_bitmap_t *gone; /* NULL = none */
};

struct history_state {
    struct schema *schema;   /* of the newest commit or alteration applied */
    struct commit_meta meta; /* of the newest commit; its texts are not kept */
    bool altered;
    uint64_t tail_id; /* the active tail, 0 = not known of */
    struct history_entry *entries;
    size_t n, cap;
};

void history_state_deinit(struct history_state *s);
/* Reads history_base_encode's bytes. */
WARN_UNUSED enum err history_state_init(struct history_state *s, const void *base, size_t n,
                                        struct err_ctx *ctx);
uint64_t history_state_live(const struct history_state *s); /* rows that are current */
/* Goes on from the base of another file, which is the same version. ERR_CORRUPT when it is not. */
WARN_UNUSED enum err history_state_go_on(struct history_state *s, const void *base, size_t n,
                                         struct err_ctx *ctx);
/* Applies a record of any type. ERR_CORRUPT when it contradicts the state. */
WARN_UNUSED enum err history_state_apply(struct history_state *s, const void *record, size_t n,
                                         struct err_ctx *ctx);

#endif
