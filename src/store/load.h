/* A load: batches gathered into one commit.
 *
 * Small loads stay in memory and are written into the log record itself; once a load outgrows
 * LOAD_INLINE_BYTES it streams into segment files under staging/ (stage.h), so memory does not grow
 * with the body. A load session stages its parts itself and commits them with load_commit_parts.
 * Nothing is visible until the commit, and then all of it is.
 *
 * One thread at a time (it may move between threads). */
#ifndef LOADSTONE_STORE_LOAD_H
#define LOADSTONE_STORE_LOAD_H

#include "store/batch.h"

struct collection;
struct load;
struct staged;
struct filter;
struct build_watch; /* catalog.h */

enum load_mode {
    LOAD_UPSERT = 0,
    LOAD_APPEND = 1,
    LOAD_FULL_REFRESH = 2,
    LOAD_PARTITION = 3,
    LOAD_DELETE = 4,
    LOAD_RESTORE = 5,
    LOAD_PURGE = 6
};

/* What a commit waits for. By default full_refresh and partition_overwrite wait for the index, the
 * others for the disk. */
enum load_wait { LOAD_WAIT_DEFAULT = 0, LOAD_WAIT_DURABLE, LOAD_WAIT_INDEXED };

/* Kept with the version: who asks again is told the same. */
struct load_receipt {
    const void *key; /* opaque; NULL and 0 = none */
    size_t key_len;
    uint8_t hash[16];       /* of the request's body */
    const uint8_t *load_id; /* 16 bytes, or NULL */
};

enum load_phase { LOAD_PREPARING = 0, LOAD_INDEXING, LOAD_RECORDING };

/* A commit as others may watch it. */
struct load_watch {
    struct build_watch *build; /* progress of the index; its `cancel` ends the commit until it
                                  records: ERR_UNAVAILABLE, nothing is changed */
    _Atomic int phase;         /* enum load_phase */
};

struct load_options {
    enum load_mode mode;
    bool duplicates_last;     /* the last of equal keys wins, instead of 422 */
    int64_t expected_version; /* -1 = any; else 412 when the newest differs */
    const char *message;      /* NULL or UTF-8, kept with the version */
    const char *metadata;     /* NULL or JSON text, kept with the version */
    uint64_t size_hint;       /* bytes of vectors to come, 0 = unknown; only for allocation */
    enum load_wait wait;
    /* partition_overwrite: the partitions that are replaced, a row each, whose partition_by
     * features are values or null (keys and other cells are ignored); NULL = those that the load's
     * rows hold. Borrowed until the commit. */
    const struct batch *partitions;
    const struct load_receipt *receipt; /* NULL = none; borrowed until the commit */
    struct load_watch *watch;           /* may be NULL */
};

struct commit_result {
    uint64_t version;
    int64_t time_us;
    uint64_t rows, inserted, updated, deleted;
    uint64_t stale; /* with event_time: rows that are not their key's current one */
};

const char *load_mode_name(enum load_mode mode);

/* References the collection's current schema. ERR_UNAVAILABLE when the collection is read-only,
 * ERR_PRECONDITION when expected_version is not the newest. `message` and `metadata` are copied. */
WARN_UNUSED enum err load_new(struct collection *c, const struct load_options *opts,
                              struct load **out, struct err_ctx *ctx);
struct schema *load_schema(struct load *l); /* borrowed */
/* Validates and takes a batch over by copying; 422 names row and field. After an error the load
 * can only be freed. */
WARN_UNUSED enum err load_add(struct load *l, const struct batch *b, struct err_ctx *ctx);
/* Replaces the receipt of the options: what it hashes is known only at the body's end. */
void load_set_receipt(struct load *l, const struct load_receipt *receipt);
/* The same for who watches. */
void load_set_watch(struct load *l, struct load_watch *watch);
/* The commit may take long: it has files to place or an index to wait for. */
bool load_is_large(const struct load *l);
/* Makes one version, durable when it returns. A load without rows makes a version too. */
WARN_UNUSED enum err load_commit(struct load *l, struct commit_result *out, struct err_ctx *ctx);
/* Frees; staged files of a load that was not committed are removed. NULL is allowed. */
void load_free(struct load *l);

/* One part of a load session. */
struct load_part {
    const char *name;      /* for messages, and for the order of the rows */
    struct staged *staged; /* of stage_finish */
    size_t nstaged;
    uint64_t rows;
};

/* Commits the parts, rows in the bytewise order of their names. After success the files of the
 * staged segments are `taken`, or merged into others and still to be unlinked. After an error the
 * files that are not taken stand where they stood and the parts can be committed again. `parts` is
 * put into order. Blocks: run it on a thread that may. */
WARN_UNUSED enum err load_commit_parts(struct collection *c, const struct load_options *opts,
                                       struct load_part *parts, size_t n, struct commit_result *out,
                                       struct err_ctx *ctx);

/* Deletes the rows of the keys in `keys` (features ignored); unknown and repeated keys count
 * nothing. Makes one version. `rows` in the result = keys given. */
WARN_UNUSED enum err collection_delete_keys(struct collection *c, const struct batch *keys,
                                            const struct load_options *opts,
                                            struct commit_result *out, struct err_ctx *ctx);
/* Deletes the rows that match. `rows` in the result = rows deleted. */
WARN_UNUSED enum err collection_delete_filter(struct collection *c, const struct filter *f,
                                              const struct load_options *opts,
                                              struct commit_result *out, struct err_ctx *ctx);
/* A commit that brings back the rows of `version` with their seq, under the newest schema.
 * ERR_NOT_FOUND, ERR_GONE. */
WARN_UNUSED enum err collection_restore(struct collection *c, uint64_t version,
                                        const struct load_options *opts, struct commit_result *out,
                                        struct err_ctx *ctx);

#endif
