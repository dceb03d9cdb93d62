/* Versions: finding, reading, listing and naming those that are kept.
 *
 * A version is a number; what is read of it is a snapshot like that of the newest, equal to the
 * bit to what it was when it was committed, its schema included. Those that vacuum let go are
 * ERR_GONE, those that never were ERR_NOT_FOUND. Version 0 (of a collection that was dropped and
 * made again: the last one before) is the empty one.
 *
 * Threads: every call is safe on any thread. Calls that say so may read files: not on the threads
 * of the HTTP pool. */
#ifndef LOADSTONE_STORE_VERSION_H
#define LOADSTONE_STORE_VERSION_H

#include "store/collection.h"

struct commit_meta; /* store/record.h */

enum selector_kind { SELECT_NEWEST, SELECT_VERSION, SELECT_TAG, SELECT_TIME };

struct selector {
    enum selector_kind kind;
    uint64_t version;
    int64_t time_us; /* the newest commit at or before it */
    const char *tag;
};

/* The version's number, which is durable. Reads files only with `wait`: without it ERR_AGAIN where
 * that would be needed (SELECT_TIME, far back). ERR_NOT_FOUND: unknown, or before the first commit;
 * ERR_GONE: vacuumed. */
WARN_UNUSED enum err collection_resolve(struct collection *c, const struct selector *sel, bool wait,
                                        uint64_t *version, struct err_ctx *ctx);

/* A snapshot of the version under the schema of its commit; the caller's reference. Without `wait`
 * only what is at hand (the newest, and those opened of late), else ERR_AGAIN: then once more on a
 * worker with `wait`, which reads files. ERR_NOT_FOUND, ERR_GONE, ERR_CORRUPT naming the file. */
WARN_UNUSED enum err collection_open_version(struct collection *c, uint64_t version, bool wait,
                                             struct snapshot **out, struct err_ctx *ctx);

/* A pinned version outlives vacuum, whatever retention says, until it is unpinned as often. Pin,
 * then open. */
WARN_UNUSED enum err collection_pin(struct collection *c, uint64_t version, struct err_ctx *ctx);
void collection_unpin(struct collection *c, uint64_t version);

struct version_info {
    uint64_t version;
    int64_t time_us;
    uint32_t mode; /* enum load_mode */
    uint64_t rows, inserted, updated, deleted, stale;
    uint64_t live_rows, live_vectors; /* after it */
    struct digest digest;
    const char *message, *metadata; /* not NUL-terminated; borrowed; metadata is JSON or empty */
    size_t message_len, metadata_len;
};

/* Calls fn for the versions before `before` (0 = from the newest on), newest first, at most
 * `limit`, until it returns false; vacuumed ones are left out. What fn sees is borrowed for the
 * call. Reads files. */
typedef bool (*version_fn)(void *arg, const struct version_info *info);
WARN_UNUSED enum err collection_versions(struct collection *c, uint64_t before, uint64_t limit,
                                         version_fn fn, void *arg, struct err_ctx *ctx);
/* One of them; texts borrow from `hold`. Reads files. ERR_NOT_FOUND (version 0, too), ERR_GONE. */
WARN_UNUSED enum err collection_version_info(struct collection *c, uint64_t version,
                                             struct buf *hold, struct version_info *out,
                                             struct err_ctx *ctx);

/* Every commit after `since_us`, oldest first, vacuumed versions too (7 days at least): what
 * answers repeated requests. Borrowed for the call; false ends it. Reads files. */
typedef bool (*commit_fn)(void *arg, const struct commit_meta *meta);
WARN_UNUSED enum err collection_history_each(struct collection *c, int64_t since_us, commit_fn fn,
                                             void *arg, struct err_ctx *ctx);

/* ---- tags ---- */

enum { TAG_MAX_BYTES = 128, TAGS_MAX = 10000 };

/* [A-Za-z0-9_][A-Za-z0-9_.-]{0,127} */
bool tag_valid(const char *tag);
/* Names a version, or moves the name to it; durable when it returns. *created tells which. A tagged
 * version is kept. ERR_INVALID, ERR_NOT_FOUND, ERR_GONE; ERR_UNPROCESSABLE past TAGS_MAX. Waits for
 * the disk. */
WARN_UNUSED enum err collection_tag_set(struct collection *c, const char *tag, uint64_t version,
                                        bool *created, struct err_ctx *ctx);
/* ERR_NOT_FOUND. Waits for the disk. */
WARN_UNUSED enum err collection_tag_delete(struct collection *c, const char *tag,
                                           struct err_ctx *ctx);
/* Lock-free, of durable tags. ERR_NOT_FOUND. */
WARN_UNUSED enum err collection_tag_get(struct collection *c, const char *tag, uint64_t *version,
                                        struct err_ctx *ctx);
/* In the order of their names, inside an epoch section of its own. */
void collection_tags_each(struct collection *c,
                          void (*fn)(void *arg, const char *tag, uint64_t version), void *arg);

#endif
