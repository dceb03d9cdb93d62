/* What stands in the log and in checkpoints, as structs.
 *
 * A commit record says everything its version changed: the rows of a small commit themselves, the
 * sealed segments of a large one, and which rows of which segments died. An alter record gives the
 * schema of what follows it. A checkpoint is the whole manifest of one version. Both hold
 * references to segments by id; neither holds pointers.
 *
 * Decoding borrows from the bytes and checks bounds; what the ids mean is the caller's to check. */
#ifndef LOADSTONE_STORE_RECORD_H
#define LOADSTONE_STORE_RECORD_H

#include "store/snapshot.h"

enum record_type { RECORD_CREATE = 1, RECORD_COMMIT = 2, RECORD_ALTER = 3 };

struct commit_meta {
    uint64_t version;
    int64_t time_us;
    uint32_t mode;                             /* enum load_mode */
    uint64_t rows, inserted, updated, deleted; /* as answered */
    uint64_t live_rows, live_vectors;          /* after the commit */
    struct digest digest;                      /* after the commit */
    const char *message;                       /* borrowed; not NUL-terminated */
    size_t message_len;
};

/* A file segment that a commit adds or a checkpoint holds. */
struct segment_ref {
    uint64_t id;
    uint64_t base_version;
    uint32_t rows;
};

struct dead_ref {
    uint64_t segment;
    const void *mask; /* Roaring: newly dead rows (commit), all dead rows (checkpoint) */
    size_t mask_len;
};

/* Rows index .. of the inline rows have ordinals ordinal, ordinal + 1, ... */
struct inline_run {
    uint32_t index;
    uint64_t ordinal;
};

struct commit_record {
    struct commit_meta meta;
    uint64_t tail_id; /* the tail its inline rows go to */
    uint32_t ninline;
    const uint8_t *inline_rows; /* row_encode, one after the other */
    size_t inline_len;
    size_t inline_payload; /* bytes of string keys and variable cells in them */
    struct buf runs;       /* struct inline_run; owned */
    struct buf segments;   /* struct segment_ref; owned */
    struct buf dead;       /* struct dead_ref; owned */
};

void commit_record_deinit(struct commit_record *r);
void commit_record_encode(const struct commit_record *r, struct buf *out);
/* `record` includes the type byte. */
WARN_UNUSED enum err commit_record_decode(const void *record, size_t n, struct commit_record *out,
                                          struct err_ctx *ctx);

void create_record_encode(const struct schema *s, uint64_t base_version, struct buf *out);
WARN_UNUSED enum err create_record_decode(const void *record, size_t n, struct schema **schema,
                                          uint64_t *base_version, struct err_ctx *ctx);

/* `tail_id`: the tail that inline rows go to from here on. */
void alter_record_encode(const struct schema *s, uint64_t tail_id, struct buf *out);
WARN_UNUSED enum err alter_record_decode(const void *record, size_t n, struct schema **schema,
                                         uint64_t *tail_id, struct err_ctx *ctx);

/* The manifest of a version whose rows all lie in file segments. */
struct checkpoint {
    struct schema *schema;
    struct commit_meta meta;
    uint64_t next_segment_id;
    uint64_t first_group; /* of the log file with the checkpoint's number */
    struct buf segments;  /* struct segment_ref; owned */
    struct buf dead;      /* struct dead_ref; owned */
};

void checkpoint_deinit(struct checkpoint *c); /* releases the schema */
/* With magic, collection id and checksum around it. */
void checkpoint_encode(const struct checkpoint *c, const uint8_t collection_id[16],
                       struct buf *out);
/* Borrows masks from `data`. ERR_CORRUPT. An id of NULL takes a checkpoint of any collection. */
WARN_UNUSED enum err checkpoint_decode(const void *data, size_t n, const uint8_t collection_id[16],
                                       struct checkpoint *out, struct err_ctx *ctx);

#endif
