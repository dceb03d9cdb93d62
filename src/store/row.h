/* One complete row: no cell is absent any more. The form in which rows go into the tail, into
 * segment files and into log records, whatever they came from.
 *
 * A row borrows: from the batch and the segments it was made of, and from its builder. */
#ifndef LOADSTONE_STORE_ROW_H
#define LOADSTONE_STORE_ROW_H

#include "store/batch.h"
#include "store/segment.h"
#include "store/snapshot.h"

struct cell {
    const void *data; /* never NULL for a value, an empty one included */
    size_t len;
};

struct row {
    const struct schema *schema;
    int64_t int_key; /* int64 collections */
    const void *key; /* string collections */
    size_t key_len;
    const float *vector; /* NULL = none */
    const float *hashed; /* the vector whose hash is at `hash`, if it is `vector`: else unknown */
    const struct hash128 *hash;
    const uint8_t *strip;   /* schema->strip_bytes */
    const struct cell *var; /* [schema->nvar]; a null cell has length 0 */
};

/* Memory that rows are built in: one strip and one set of variable cells. */
struct row_builder {
    struct row row;
    uint8_t *strip;
    struct cell *var;
};

WARN_UNUSED enum err row_builder_init(struct row_builder *rb, const struct schema *s,
                                      struct err_ctx *ctx);
void row_builder_deinit(struct row_builder *rb);

/* Row i of a batch; absent cells become those of `old_row` of `old`, or null when `old` is NULL. A
 * created_time belongs to its row alone: absent is null. True in *partial when another was absent.
 * Features that the batch's schema does not know, an older one than the builder's, are absent. */
void row_from_batch(struct row_builder *rb, const struct batch *b, size_t i,
                    const struct segment *old, uint32_t old_row, bool *partial);

/* A stored row under the builder's schema (features that the segment does not know are null). */
void row_from_segment(struct row_builder *rb, const struct segment *s, uint32_t row);

/* Replaces cells by those of `old` (null when it is NULL): those whose bit in `present` is clear
 * (NULL = all are set), and those of features from `known` on, which `present` has no bits for. */
void row_builder_refill(struct row_builder *rb, const uint8_t *present, uint32_t known,
                        const struct segment *old, uint32_t old_row);

/* One cell becomes that of `row` of `from` (NULL: null). */
void row_builder_copy_cell(struct row_builder *rb, uint32_t feature, const struct segment *from,
                           uint32_t row);

/* The same for the vector. */
void row_builder_set_vector(struct row_builder *rb, const struct segment *from, uint32_t row);

/* Only the key of a row. */
void batch_row_key(const struct batch *b, size_t i, struct row *out);
void segment_row_key(const struct segment *s, uint32_t row, struct row *out);
bool row_keys_equal(const struct row *a, const struct row *b);
uint64_t row_key_hash(const struct row *r);

/* Hash of the canonical row: key, non-null features in schema order, vector bytes. It does not
 * depend on how the row is stored, nor on features added later that are null. Digests of versions
 * are sums of these. */
struct digest row_digest(const struct row *r);
/* The same for a row that has an int64 key and a vector only, or the vector's hash. */
struct digest row_digest_vector(int64_t key, const float *vector, uint32_t dim);
struct digest row_digest_hashed(int64_t key, const struct hash128 *vector);

/* Hash of the row's vector, all zero for none: from where it is stored, else reckoned. */
struct hash128 row_vector_hash(const struct row *r);
/* The same kept in *out, which must live as long as the row, for who hashes and stores it. */
void row_hash_vector(struct row *r, struct hash128 *out);

static inline void digest_add(struct digest *d, struct digest x)
{
    d->hi += x.hi + __builtin_add_overflow(d->lo, x.lo, &d->lo);
}
static inline void digest_sub(struct digest *d, struct digest x)
{
    d->hi -= x.hi + __builtin_sub_overflow(d->lo, x.lo, &d->lo);
}

/* The stored form in log records. row_decode borrows from the cursor's bytes; the vector may be
 * unaligned there, so it is copied into `vector` (dim floats). */
void row_encode(const struct row *r, struct buf *out);
WARN_UNUSED bool row_decode(struct row_builder *rb, struct cursor *c, float *vector);

#endif
