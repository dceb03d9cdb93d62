/* Merging segment files into one, in the order of seq: for compaction, and for loads that arrive in
 * many parts.
 *
 * Vectors, keys and cells are copied section by section from file to file. Memory: the key index
 * (at most 28 bytes a row), null bits, and what the order and the maps take; not the rows.
 *
 * Any thread, no lock held. */
#ifndef LOADSTONE_STORE_MERGE_H
#define LOADSTONE_STORE_MERGE_H

#include <roaring/roaring.h>

#include "store/mask.h"
#include "store/segment.h"

struct collection;

struct merge_input {
    struct segment *segment; /* a file; borrowed */
    uint32_t rows;           /* the first of it, that take part */
    const struct mask *drop; /* rows left out; NULL = none */
    /* What a run of version 0 stands for: (base_version, base_ordinal + its ordinal). A version of
     * 0, not known yet, becomes runs of version 0 in the output; then it is 0 for all inputs. */
    uint64_t base_version, base_ordinal;
};

/* Where the kept rows of one input went: both rise, the k-th of `from` is the k-th of `to`. */
struct merge_map {
    roaring_bitmap_t *from; /* rows of the input */
    roaring_bitmap_t *to;   /* rows of the output */
};

struct merge_output {
    uint64_t id;
    char *path; /* staging/<id>.seg, then segments/<id>.seg */
    struct segment
        *segment; /* open; base_version is the caller's to set when runs have version 0 */
    size_t nmaps;
    struct merge_map *maps; /* one an input, in their order */
};

/* True when one segment can hold the rows of all the inputs. */
bool merge_fits(const struct merge_input *in, size_t n);

/* Merges into staging/<a fresh id>.seg, synced, its name not. Rows are written under `schema`,
 * which every input's is a prefix of: later features are null. The inputs' blocks are not checked
 * against their sums here. Rows that share a seq keep the order of the inputs. ERR_UNPROCESSABLE
 * when they don't fit; ERR_UNAVAILABLE when `cancel` (may be NULL) was set. After an error nothing
 * is left behind. */
WARN_UNUSED enum err merge_segments(struct collection *c, const struct merge_input *in, size_t n,
                                    struct schema *schema, const atomic_bool *cancel,
                                    struct merge_output *out, struct err_ctx *ctx);
/* Gives the file its name in segments/, durable. */
WARN_UNUSED enum err merge_place(struct collection *c, struct merge_output *out,
                                 struct err_ctx *ctx);
/* Unlinks the file, wherever it lies: the merge is given up. */
void merge_discard(struct collection *c, struct merge_output *out);
/* Frees; the file stays. */
void merge_output_deinit(struct merge_output *out);

/* The new rows of the old ones in `rows`; those that were not kept are left out. The caller frees
 * it. NULL: no memory. */
roaring_bitmap_t *merge_map_rows(const struct merge_map *m, const roaring_bitmap_t *rows);
void merge_map_deinit(struct merge_map *m);

#endif
