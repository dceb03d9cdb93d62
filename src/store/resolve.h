/* A load against a version: which rows of it die, which of the load's become current, what is
 * counted.
 *
 *   resolve_prepare   all keys against a snapshot, outside the commit lock
 *   resolve_rebase    only the keys that other commits touched between that snapshot and a newer
 *                     one; the effect of each is taken back and found anew
 *   resolve_held      the rows of a small load, under the lock
 *
 * Internal to src/store; one thread at a time. */
#ifndef LOADSTONE_STORE_RESOLVE_H
#define LOADSTONE_STORE_RESOLVE_H

#include "store/collection_internal.h"
#include "store/incoming.h"
#include "store/partition.h"
#include "store/timeline.h"

/* Rows of one view of the base that this commit takes out. */
struct kills {
    roaring_bitmap_t *dead; /* no longer current */
    roaring_bitmap_t *gone; /* with event_time: not kept as history either */
};

struct resolve {
    struct collection *c;
    struct load_input *in;
    struct snapshot *base; /* referenced */
    struct kills *kills;   /* [base->nviews] */
    struct partition_set *partitions;
    struct key_set deletes; /* slots NULL: nothing is deleted by key */
    struct row_builder row; /* under the base's schema */
    struct timeline timeline;
    bool failed;   /* memory */
    bool need_all; /* rows so long that few of them fill a record: complete all into files */

    uint64_t inserted, updated, stale;
    uint64_t swept; /* keys removed by partition, filter or name, put back or not */
    uint64_t killed, killed_vectors;
    uint64_t stale_vectors;
    struct digest removed;

    /* Under the lock: */
    struct buf inline_rows;
    struct commit_record rec;
    roaring_bitmap_t *inline_dead; /* of the inline rows: born as history */
    uint64_t added, added_vectors; /* by inline rows */
    struct digest added_digest;
};

WARN_UNUSED enum err resolve_init(struct resolve *rv, struct collection *c, struct load_input *in,
                                  struct err_ctx *ctx);
void resolve_deinit(struct resolve *rv);

/* Against `base`, from the start. ERR_UNPROCESSABLE names row and field. */
WARN_UNUSED enum err resolve_prepare(struct resolve *rv, struct snapshot *base,
                                     struct err_ctx *ctx);
/* Against `next`, which came after the base. *again: it is too far away, prepare instead. */
WARN_UNUSED enum err resolve_rebase(struct resolve *rv, struct snapshot *next, bool *again,
                                    struct err_ctx *ctx);
/* About how many rows differ between the base and `next`; UINT64_MAX: prepare instead. */
uint64_t resolve_distance(const struct resolve *rv, const struct snapshot *next);

/* The effect of one key, put (sign 1) or taken back (sign -1), for what the prepared part knows. */
WARN_UNUSED enum err resolve_key(struct resolve *rv, const struct row *key, int sign,
                                 struct err_ctx *ctx);

/* Rows of the load that must be completed from another row than they were. */
uint64_t resolve_needs(const struct resolve *rv);
bool resolve_many_needs(const struct resolve *rv); /* more than a record takes */

/* With the lock, once the base is the head: puts the rows of a small load and what is to be
 * completed into the record. *again: more than a record takes, complete outside. */
WARN_UNUSED enum err resolve_held(struct resolve *rv, struct err_ctx *ctx);
WARN_UNUSED enum err resolve_inline(struct resolve *rv, bool *again, struct err_ctx *ctx);
/* Writes the rows that need it anew, into files of their own. */
WARN_UNUSED enum err resolve_complete(struct resolve *rv, struct err_ctx *ctx);

/* Fills in the sums, the dead rows and the segments of the record and encodes it. */
WARN_UNUSED enum err resolve_record(struct resolve *rv, struct buf *out, struct err_ctx *ctx);

/* Shared by the files of the resolver. */
bool find_key(const struct snapshot *s, const struct row *key, struct row_ref *out);
bool resolve_keeps_base(const struct resolve *rv); /* rows of before stay unless replaced */
void resolve_kill(struct resolve *rv, uint32_t view, uint32_t row, int sign, bool current,
                  bool removed);
WARN_UNUSED enum err resolve_load_row(struct resolve *rv, size_t seg, uint32_t row,
                                      const struct row *key, bool found, struct row_ref ref,
                                      int sign, struct err_ctx *ctx);
/* Whether the partitions or the filter take a live row of the base. */
bool resolve_sweeps(struct resolve *rv, struct row_ref ref);
void resolve_remove_key(struct resolve *rv, const struct row *key, struct row_ref ref, int sign);
/* Sets and checks what partitions are replaced, once. */
WARN_UNUSED enum err resolve_partitions(struct resolve *rv, struct err_ctx *ctx);
WARN_UNUSED enum err resolve_sweep_all(struct resolve *rv, struct err_ctx *ctx);

/* Rows of the load by their place in it. */
struct row_place {
    uint64_t ordinal;
    uint32_t seg, row;
};
struct row_places {
    struct buf list; /* struct row_place */
};
/* The rows to be completed, in the order of ordinals; with `scratch` also all of a small load. */
WARN_UNUSED enum err resolve_list(const struct resolve *rv, bool scratch, struct row_places *out,
                                  struct err_ctx *ctx);
/* They stand elsewhere: here they are lost. */
WARN_UNUSED enum err resolve_drop(struct resolve *rv, const struct row_places *places,
                                  struct err_ctx *ctx);
/* Row `row` of segment `seg` of the load, complete, in rv->row, and the row before it. */
WARN_UNUSED enum err resolve_build(struct resolve *rv, size_t seg, uint32_t row,
                                   struct partial *source, struct err_ctx *ctx);

#endif
