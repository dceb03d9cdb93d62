/* What stands in the log, in checkpoints and in history files, as structs.
 *
 * A commit record says everything its version changed: the rows of a small commit themselves, the
 * sealed segments of a large one, and which rows of which segments died. An alter record gives the
 * schema of what follows it, a compaction names the segments that stand for others from here on, a
 * tag names a version, a vacuum says which versions are still kept. A checkpoint is the whole
 * manifest of one version and what else a start needs. All hold references to segments by id; none
 * holds pointers.
 *
 * Every record after the first (CREATE) is an item of the collection's history and counts one up,
 * in the log and in replay alike: checkpoints and history files name items by that number.
 *
 * Decoding borrows from the bytes and checks bounds; what the ids mean is the caller's to check. */
#ifndef LOADSTONE_STORE_RECORD_H
#define LOADSTONE_STORE_RECORD_H

#include "store/snapshot.h"

enum record_type {
    RECORD_CREATE = 1,
    RECORD_COMMIT = 2,
    RECORD_ALTER = 3,
    RECORD_COMPACT = 4,
    RECORD_TAG = 5,
    RECORD_VACUUM = 6
};

struct commit_meta {
    uint64_t version;
    int64_t time_us;
    uint32_t mode;                             /* enum load_mode */
    uint64_t rows, inserted, updated, deleted; /* as answered */
    uint64_t stale;                            /* event_time: rows kept as history only */
    uint64_t live_rows, live_vectors;          /* after the commit */
    struct digest digest;                      /* after the commit */
    const char *message;                       /* borrowed; not NUL-terminated */
    size_t message_len;
    const char *metadata; /* JSON text; borrowed; empty = none */
    size_t metadata_len;
    const void *load_id; /* of the load session; empty or 16 bytes */
    size_t load_id_len;
    const void *idem_key; /* of the request that may be sent again; empty = none */
    size_t idem_key_len;
    uint8_t idem_hash[16]; /* of its body */
};

/* A segment that a commit adds or a manifest holds: a file but for the active tail in the manifest
 * of a restore. */
struct segment_ref {
    uint64_t id;
    uint64_t base_version; /* see struct seq_run */
    uint32_t rows;
    uint64_t base_ordinal;
};

struct dead_ref {
    uint64_t segment;
    const void *mask; /* Roaring: newly dead rows (commit), all dead rows (manifest) */
    size_t mask_len;
};

/* Segments with all their dead and gone rows (see struct view). */
struct manifest {
    struct buf segments; /* struct segment_ref; owned */
    struct buf dead;     /* struct dead_ref; owned */
    struct buf gone;     /* struct dead_ref; owned */
};
void manifest_deinit(struct manifest *m);

/* Rows index .. of the inline rows have ordinals ordinal, ordinal + 1, ... */
struct inline_run {
    uint32_t index;
    uint64_t ordinal;
};

/* What the version before holds becomes: all of it stays minus `dead` and `gone`; or with
 * `replace_all` none of it does; or with `restores` exactly `target` does. Then come the record's
 * own segments and rows. A segment may be born with dead rows. */
struct commit_record {
    struct commit_meta meta;
    uint64_t tail_id; /* the tail its inline rows go to */
    uint32_t ninline;
    const uint8_t *inline_rows; /* row_encode, one after the other; empty in history files */
    size_t inline_len;
    size_t inline_payload;  /* bytes of string keys and variable cells in them */
    struct buf runs;        /* struct inline_run; owned */
    struct buf segments;    /* struct segment_ref; owned */
    struct buf dead;        /* struct dead_ref; owned */
    struct buf gone;        /* struct dead_ref, rows dead before or in `dead`; owned */
    bool replace_all;       /* no row of before survives */
    bool restores;          /* `target` takes the place of what was there */
    struct manifest target; /* may hold the active tail, with fewer rows than it has by now */
};

void commit_record_deinit(struct commit_record *r);
void commit_record_encode(const struct commit_record *r, struct buf *out);
/* `record` includes the type byte. Takes records of before the fields from `stale` on, too. */
WARN_UNUSED enum err commit_record_decode(const void *record, size_t n, struct commit_record *out,
                                          struct err_ctx *ctx);

void create_record_encode(const struct schema *s, uint64_t base_version, struct buf *out);
WARN_UNUSED enum err create_record_decode(const void *record, size_t n, struct schema **schema,
                                          uint64_t *base_version, struct err_ctx *ctx);

/* `tail_id`: the tail that inline rows go to from here on. */
void alter_record_encode(const struct schema *s, uint64_t tail_id, struct buf *out);
WARN_UNUSED enum err alter_record_decode(const void *record, size_t n, struct schema **schema,
                                         uint64_t *tail_id, struct err_ctx *ctx);

/* Makes no version: the newest one and those after it hold `added` in place of `removed`. */
struct compact_record {
    struct buf removed;    /* u64 ids, in head; owned */
    struct manifest added; /* with their dead and gone rows at the swap */
};
void compact_record_deinit(struct compact_record *r);
void compact_record_encode(const struct compact_record *r, struct buf *out);
WARN_UNUSED enum err compact_record_decode(const void *record, size_t n, struct compact_record *out,
                                           struct err_ctx *ctx);

struct tag_record {
    const char *tag; /* borrowed; not NUL-terminated */
    size_t tag_len;
    bool set; /* to `version`; else the tag goes */
    uint64_t version;
};
void tag_record_encode(const struct tag_record *r, struct buf *out);
WARN_UNUSED enum err tag_record_decode(const void *record, size_t n, struct tag_record *out,
                                       struct err_ctx *ctx);

/* What is kept from here on. The files of `removed` are no version's any more; they are unlinked
 * once a checkpoint behind this record is durable. */
struct vacuum_record {
    uint64_t horizon;   /* versions from here on are kept ... */
    struct buf kept;    /* ... and these older ones: u64, ascending; owned */
    struct buf removed; /* u64 segment ids; owned */
};
void vacuum_record_deinit(struct vacuum_record *r);
void vacuum_record_encode(const struct vacuum_record *r, struct buf *out);
WARN_UNUSED enum err vacuum_record_decode(const void *record, size_t n, struct vacuum_record *out,
                                          struct err_ctx *ctx);

struct tag_ref {
    const char *tag; /* borrowed */
    size_t tag_len;
    uint64_t version;
};

/* The manifest of a version whose rows all lie in file segments, and all else that a start needs
 * to know of what came before. */
struct checkpoint {
    struct schema *schema;
    struct commit_meta meta; /* what `struct snapshot` keeps of it */
    uint64_t next_segment_id;
    uint64_t first_group;     /* of the log file with the checkpoint's number */
    struct manifest manifest; /* of the newest version */
    uint64_t items;           /* before the log file with the checkpoint's number */
    bool altered;             /* see struct snapshot */
    uint64_t base_version;    /* of the CREATE record */
    uint64_t horizon;         /* see struct vacuum_record */
    struct buf kept;          /* u64; owned */
    struct buf tags;          /* struct tag_ref; owned */
    struct buf registry;      /* struct segment_ref: all that any kept version needs; owned */
};

void checkpoint_deinit(struct checkpoint *c); /* releases the schema */
/* With magic, collection id and checksum around it. */
void checkpoint_encode(const struct checkpoint *c, const uint8_t collection_id[16],
                       struct buf *out);
/* Borrows masks and texts from `data`. ERR_CORRUPT. An id of NULL takes a checkpoint of any
 * collection. One of format 1 reads as a collection that keeps no version before its own. */
WARN_UNUSED enum err checkpoint_decode(const void *data, size_t n, const uint8_t collection_id[16],
                                       struct checkpoint *out, struct err_ctx *ctx);

/* The envelope of a file that is written whole: magic, format, collection id, checksum. */
void envelope_encode(const char magic[8], uint32_t format, const uint8_t collection_id[16],
                     const struct buf *body, struct buf *out);
/* `what` names the file's kind in the sentence. Checks all but the format. */
WARN_UNUSED enum err envelope_decode(const void *data, size_t n, const char magic[8],
                                     const uint8_t collection_id[16], const char *what,
                                     uint32_t *format, struct cursor *body, struct err_ctx *ctx);

/* Pieces that history files share with records. */
void meta_encode(const struct commit_meta *m, struct buf *out);
void meta_decode(struct cursor *c, struct commit_meta *out);
void manifest_encode(const struct manifest *m, struct buf *out);
/* Errors show in c->failed and in the lists' own. */
void manifest_decode(struct cursor *c, struct manifest *out);
/* The same as the first releases wrote them. */
void first_meta_decode(struct cursor *c, struct commit_meta *out);
void first_manifest_decode(struct cursor *c, struct manifest *out);

#endif
