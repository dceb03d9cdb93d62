/* A load: batches gathered into one commit.
 *
 * Small loads stay in memory and are written into the log record itself; once a load outgrows
 * LOAD_INLINE_BYTES it streams into segment files under staging/, so memory does not grow with the
 * body. Nothing is visible until load_commit, and then all of it is.
 *
 * One thread at a time (it may move between threads). */
#ifndef LOADSTONE_STORE_LOAD_H
#define LOADSTONE_STORE_LOAD_H

#include "store/batch.h"

struct collection;
struct load;

enum load_mode {
    LOAD_UPSERT = 0,
    LOAD_APPEND = 1,
    LOAD_FULL_REFRESH = 2,
    LOAD_PARTITION = 3,
    LOAD_DELETE = 4,
    LOAD_RESTORE = 5,
    LOAD_PURGE = 6
};

struct load_options {
    enum load_mode mode;
    bool duplicates_last;     /* the last of equal keys wins, instead of 422 */
    int64_t expected_version; /* -1 = any; else 412 when the newest differs */
    const char *message;      /* NULL or UTF-8, kept with the version */
    uint64_t size_hint;       /* bytes of vectors to come, 0 = unknown; only for allocation */
};

struct commit_result {
    uint64_t version;
    int64_t time_us;
    uint64_t rows, inserted, updated, deleted;
};

const char *load_mode_name(enum load_mode mode);

/* References the collection's current schema. ERR_UNAVAILABLE when the collection is read-only. */
WARN_UNUSED enum err load_new(struct collection *c, const struct load_options *opts,
                              struct load **out, struct err_ctx *ctx);
struct schema *load_schema(struct load *l); /* borrowed */
/* Validates and takes a batch over by copying; 422 names row and field. After an error the load
 * can only be freed. */
WARN_UNUSED enum err load_add(struct load *l, const struct batch *b, struct err_ctx *ctx);
/* Makes one version, durable when it returns. A load without rows makes a version too. */
WARN_UNUSED enum err load_commit(struct load *l, struct commit_result *out, struct err_ctx *ctx);
/* Frees; staged files of a load that was not committed are removed. NULL is allowed. */
void load_free(struct load *l);

/* Deletes the rows of the keys in `keys` (features ignored); unknown and repeated keys count
 * nothing. Makes one version. `rows` in the result = keys given. */
WARN_UNUSED enum err collection_delete_keys(struct collection *c, const struct batch *keys,
                                            const struct load_options *opts,
                                            struct commit_result *out, struct err_ctx *ctx);

#endif
