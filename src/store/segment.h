/* A segment: rows that never change. Either a mapped file (segment_file.c) or the tail, a growing
 * segment in memory (tail.c); both are read through the same calls and number their rows alike, so
 * that sealing a tail into a file renumbers nothing.
 *
 * File: [ header 64 KiB ][ vectors ][ vector nulls ][ keys ][ key index ][ strips ][ var columns ]
 *       [ seq runs ][ footer: section table, XXH3 of each 64 KiB block, totals, CRC ]
 *
 * Fixed-width features lie as a strip a row (schema.h), not as a column each: 8 features of random
 * rows among 5M are gathered in 37 ns a row against 141 from columns, 2 in 30 against 40, a single
 * one in 26 against 20 (bench/strip_layout.c).
 *
 * Threads: readers are many and take no lock; a tail has one writer, under its collection's commit
 * lock, and publishes rows by the snapshot's row count. */
#ifndef LOADSTONE_STORE_SEGMENT_H
#define LOADSTONE_STORE_SEGMENT_H

#include <stdatomic.h>

#include "base/hash.h"
#include "io/io.h"
#include "io/mapping.h"
#include "store/schema.h"

/* Rows first_row .. next run's first_row - 1 have seq (version, ordinal, ordinal + 1, ...). Version
 * 0 stands for the commit that brought the segment: (segment.base_version, segment.base_ordinal +
 * ordinal ...), since a bulk load writes its files before it knows its version, and a part of one
 * before it knows which parts come before it. */
struct seq_run {
    uint32_t first_row;
    uint32_t pad;
    uint64_t version;
    uint64_t ordinal;
};

struct tail;

struct segment {
    atomic_uint refs;
    uint64_t id;           /* unique in its collection, never used again */
    uint64_t serial;       /* unique in this process, never used again; 0 for a tail */
    struct schema *schema; /* it was written under: a prefix of the features of later schemas */
    uint32_t rows;         /* of a file; of a tail: see view.rows */
    uint64_t bytes;        /* of the file */
    uint64_t base_version; /* see struct seq_run; both set before the segment is shared */
    uint64_t base_ordinal;
    char *path; /* NULL for a tail */

    /* A mapped file: */
    const uint8_t *map;
    size_t map_len;
    struct mapping *watch;
    uint64_t data_len;         /* bytes before the footer */
    const uint8_t *block_sums; /* in the footer: u64 per IO_SUM_BLOCK, unaligned */
    atomic_bool damage_noted;
    uint64_t scrubbed;           /* blocks checked since it was opened: scrub.c */
    bool keys_run;               /* keys are first_key + row */
    int64_t first_key;           /* run */
    int64_t key_min, key_max;    /* int64 keys: bounds over all rows */
    const int64_t *int_keys;     /* int64, not a run */
    const uint64_t *key_offsets; /* string: rows + 1 offsets into key_bytes */
    const uint8_t *key_bytes;
    uint64_t key_bytes_len;
    const uint64_t *key_slots; /* hash index: tag << 32 | row + 1; NULL for a run */
    uint64_t key_slots_mask;
    const uint32_t *key_prev;     /* older row with the same key + 1; NULL when keys are unique */
    const float *vectors;         /* rows x dim, row-major; NULL when the schema has none */
    const uint64_t *vector_nulls; /* bit set: the row has no vector; NULL = every row has one */
    const struct hash128 *vector_hashes; /* of rows' vectors; NULL: not in the file */
    const uint8_t *strips;               /* rows x strip_bytes */
    const uint32_t **var_offsets;        /* [schema->nvar] each rows + 1 */
    const uint8_t **var_bytes;           /* [schema->nvar] */
    uint64_t *var_lengths;               /* [schema->nvar] */
    const struct seq_run *runs;
    uint32_t nruns;

    struct tail *tail; /* NULL for a file */

    /* The ANN structure of this segment, made by index/. Readers use it inside an epoch section. */
    void *_Atomic ann;
    void (*ann_free)(void *ann);
};

struct segment *segment_acquire(struct segment *s);
void segment_release(struct segment *s); /* NULL is allowed */

/* Maps a file and validates header, footer and section bounds against its size; data blocks are
 * checked by segment_verify. ERR_CORRUPT names the file and what is wrong. `collection_id` (16
 * bytes) may be NULL (the build child). The schema stored in the file is used. */
WARN_UNUSED enum err segment_open(const char *path, const uint8_t *collection_id,
                                  struct segment **out, struct err_ctx *ctx);
/* Nothing is left for the scrub: this process wrote the file and summed it on its way out. */
static inline void segment_set_scrubbed(struct segment *s)
{
    s->scrubbed = s->data_len / IO_SUM_BLOCK;
}
/* Checks one block of IO_SUM_BLOCK, or every one, against its checksum; ERR_CORRUPT names file and
 * offset. (scrub.c) */
WARN_UNUSED enum err segment_verify_block(const struct segment *s, uint64_t block,
                                          struct err_ctx *ctx);
WARN_UNUSED enum err segment_verify(const struct segment *s, struct err_ctx *ctx);

/* Attaches an ANN structure, or none (NULL); readers see it at once. The one before it is freed
 * when the last reader has left its epoch section, the last one with the segment. `ann_free` is
 * always the same. One thread at a time. */
void segment_set_ann(struct segment *s, void *ann, void (*ann_free)(void *));
static inline void *segment_ann(const struct segment *s)
{
    return atomic_load_explicit(&s->ann, memory_order_acquire);
}

int64_t segment_key_int(const struct segment *s, uint32_t row);
const void *segment_key_str(const struct segment *s, uint32_t row, size_t *len);

/* The vector of a row (dim float32), or NULL when it has none. */
const float *segment_vector(const struct segment *s, uint32_t row);
/* `*n` vectors lie contiguously from `row` on (rows x dim, including those of rows without one,
 * which are zero). A file: all the rest; a tail: the rest of a chunk. NULL when dim is 0. */
const float *segment_vector_run(const struct segment *s, uint32_t row, uint32_t *n);
/* Bits of rows [64 w, 64 w + 64) that have no vector. */
uint64_t segment_vector_nulls(const struct segment *s, uint32_t w);

/* The strip of a row; NULL when the schema has no features. Layout: s->schema. */
const uint8_t *segment_strip(const struct segment *s, uint32_t row);
/* A cell's stored value and length, or NULL when it is null or the segment is older than the
 * feature. */
const void *segment_cell(const struct segment *s, uint32_t row, uint32_t feature, size_t *len);

/* Hash of a key, the same in every segment and on every machine (XXH3-64, seed 0, of the bytes; an
 * int64 as 8 little-endian bytes). */
uint64_t key_hash(const void *key, size_t len);

/* Rows of a key, newest first: start with segment_find*, go on with segment_older; each returns
 * row + 1, or 0 for none. A tail may return rows that a snapshot does not know of yet. `key` is the
 * bytes of a string, or an int64 with len 8; `hash` its key_hash. */
uint32_t segment_find(const struct segment *s, const void *key, size_t len, uint64_t hash);
static inline uint32_t segment_find_int(const struct segment *s, int64_t key)
{
    return segment_find(s, &key, sizeof key, key_hash(&key, sizeof key));
}
static inline uint32_t segment_find_str(const struct segment *s, const void *key, size_t len,
                                        uint64_t hash)
{
    return segment_find(s, key, len, hash);
}
uint32_t segment_older(const struct segment *s, uint32_t row);

/* Lookups that come in groups call these for the whole group, one after the other, so that their
 * cache misses overlap. They read ahead and decide nothing; a tail, which is small, ignores them.
 */
void segment_prefetch_slot(const struct segment *s, uint64_t hash);
/* The row + 1 that the key index suggests before the key itself was compared; 0 = none. */
uint32_t segment_guess(const struct segment *s, const void *key, uint64_t hash);
void segment_prefetch_row(const struct segment *s, uint32_t row);
void segment_prefetch_key(const struct segment *s, uint32_t row);

/* seq of a row. */
void segment_seq(const struct segment *s, uint32_t row, uint64_t *version, uint64_t *ordinal);

#endif
