/* A load as its commit sees it: segments whose rows are sorted out among themselves.
 *
 *   part "a"  [ seg 0 ][ seg 1 ]      ordinals count on from part to part, in the order of names
 *   part "b"  [ seg 2 ]               lost:  replaced by a later row of the load
 *   later     [ completion ]          past:  with event_time, not the last of its key in the load
 *                                     stale: the last of its key, but older than the current row
 *                                     need:  its absent cells must come from another row
 *
 * `lost` and `past` depend on the load alone (incoming.c); `stale` and `need` on the version that
 * it is resolved against (resolve.c). A completion holds rows of the others anew (complete.c),
 * which are lost there.
 *
 * Internal to src/store; one thread at a time. */
#ifndef LOADSTONE_STORE_INCOMING_H
#define LOADSTONE_STORE_INCOMING_H

#include <roaring/roaring.h>

#include "store/stage.h"

struct collection;

struct incoming {
    struct segment *segment; /* borrowed from `staged`, or owned when the commit made it */
    struct staged *staged;   /* the file as handed over; NULL: the commit made it */
    char *path;              /* where it stands; owned */
    char *home;              /* where it stood before it was placed; NULL = not placed; owned */
    bool scratch;            /* no file: the rows of a small load, all to be put inline */
    bool indexed;            /* the hook has built what is due */
    bool superseded;         /* all rows of it are in another one: not part of the commit */
    uint64_t base_ordinal;   /* added to the ordinals of its runs */
    uint32_t rows;
    const struct partial *partials;
    size_t npartials;
    const uint8_t *present;
    struct buf own_partials, own_present; /* what the two point into when the commit made them */
    roaring_bitmap_t *lost, *past, *stale, *need;
    struct digest digest; /* of the rows that are not lost */
    uint64_t vectors;     /* rows with a vector, neither lost nor past */
};

/* Where a row came from, for messages. */
struct load_place {
    const char *part; /* NULL: the load is one body */
    uint64_t row;
};

struct load_input {
    struct collection *c;
    struct load_options opts;
    uint64_t rows_received;
    uint64_t past_rows; /* of all segments */

    /* A small load without event times: its rows, and those of them that a later one replaces. */
    const struct batch *held;
    const uint32_t *skip; /* a bit a row; may be NULL */

    struct incoming *seg;
    size_t n, cap;
    const struct load_part *parts; /* in order; NULL: one body */
    size_t nparts;

    const struct batch *delete_keys;
    const struct filter *delete_filter;
    bool wait_indexed;
};

WARN_UNUSED enum err load_input_add(struct load_input *in, struct incoming **out,
                                    struct err_ctx *ctx);
void load_input_deinit(struct load_input *in);

uint64_t incoming_ordinal(const struct incoming *seg, uint32_t row);
struct load_place load_locate(const struct load_input *in, uint64_t ordinal);
/* "row 3" or "row 3 of part 'a'" */
void load_place_text(const struct load_place *p, char *out, size_t cap);

/* The note of a row whose cells were completed, or NULL; `*present` then are its bits. */
const struct partial *incoming_partial(const struct incoming *seg, uint32_t row,
                                       const uint8_t **present);
static inline bool incoming_lost(const struct incoming *seg, uint32_t row)
{
    return seg->lost && roaring_bitmap_contains(seg->lost, row);
}

/* Fills in `lost` and `past`, digest and vectors. ERR_UNPROCESSABLE names two rows of one key where
 * that is an error. */
WARN_UNUSED enum err load_sort_out(struct load_input *in, struct err_ctx *ctx);
/* The row of a key that the load makes its newest; false when the load has none. */
bool load_find(const struct load_input *in, const struct row *key, size_t *seg, uint32_t *row);

/* Rows of a held batch whose key comes again later; *skip is NULL when there are none. */
WARN_UNUSED enum err load_skip_held(const struct load_options *opts, const struct batch *b,
                                    uint32_t **skip, struct err_ctx *ctx);
WARN_UNUSED enum err duplicate_error(enum load_mode mode, const struct row *key,
                                     const struct load_place *a, const struct load_place *b,
                                     struct err_ctx *ctx);
/* 'text' or a number, cut short: for messages. */
void key_text(const struct row *key, char *out, size_t cap);

/* A set of the keys of a batch. */
struct key_set {
    const struct batch *keys;
    uint32_t *slots;
    size_t mask;
};
WARN_UNUSED enum err key_set_init(struct key_set *s, const struct batch *keys, struct err_ctx *ctx);
bool key_set_has(const struct key_set *s, const struct row *key);
void key_set_deinit(struct key_set *s);

/* NULL on failure, and *failed is set. */
roaring_bitmap_t *bits_of(roaring_bitmap_t **bits, bool *failed);
static inline bool bit_of(const roaring_bitmap_t *bits, uint32_t row)
{
    return bits && roaring_bitmap_contains(bits, row);
}
static inline uint64_t count_of(const roaring_bitmap_t *bits)
{
    return bits ? roaring_bitmap_get_cardinality(bits) : 0;
}

#endif
