/* The registry: every segment that any kept version of a collection needs, by id.
 *
 *   id 3  file, open       the newest version and some before it
 *   id 4  file, not open   older versions only: opened when one of them is first read
 *   id 7  tail, closed     waits to be sealed, whether or not the newest version still sees it
 *   id 9  tail, active
 *
 * Checkpoints list it; a file that it does not name is nobody's, and goes at the next start.
 *
 * Threads: a lock of its own, the last to be taken, never held while a file is opened. */
#ifndef LOADSTONE_STORE_REGISTRY_H
#define LOADSTONE_STORE_REGISTRY_H

#include <pthread.h>

#include "store/record.h"

struct collection;

struct registered {
    struct segment_ref ref;  /* of a tail: rows are read from it */
    struct segment *segment; /* referenced; NULL = not open */
};

struct registry {
    pthread_mutex_t lock;
    struct registered *list; /* ascending by id */
    size_t n, cap;
    uint64_t changes; /* so far */
};

void registry_init(struct registry *r);
void registry_deinit(struct registry *r);

/* Room for n more, so that adding them cannot fail. */
WARN_UNUSED enum err registry_reserve(struct collection *c, size_t n, struct err_ctx *ctx);
/* Within the reservation; takes a reference. The id is not there yet. */
void registry_add(struct collection *c, struct segment *s);
/* A segment that is not opened yet, within the reservation. */
void registry_add_closed(struct collection *c, const struct segment_ref *ref);
uint64_t registry_changes(struct collection *c); /* a number that every change raises */
bool registry_has(struct collection *c, uint64_t id);
/* The file of a sealed tail takes the tail's place. */
void registry_replace(struct collection *c, struct segment *file);
/* Ids that are not there are left alone. */
void registry_remove(struct collection *c, const uint64_t *ids, size_t n);

/* A tail with rows that is not `active`; referenced. NULL = none. */
struct segment *registry_closed_tail(struct collection *c, const struct segment *active);
/* What those hold in all. */
void registry_closed_tails_size(struct collection *c, const struct segment *active, uint64_t *rows,
                                uint64_t *bytes);
/* Appends a struct segment_ref for each segment that has rows. Errors show in out->failed. */
void registry_list(struct collection *c, struct buf *out);

/* Appends the ids (u64, ascending) of those that are files. Errors show in out->failed. */
void registry_files(struct collection *c, struct buf *out);

/* The segment, referenced; opened when it is not yet, which reads a file. ERR_NOT_FOUND when the
 * registry does not know it, ERR_CORRUPT naming the file when it is not what it should be. */
WARN_UNUSED enum err collection_segment(struct collection *c, uint64_t id, struct segment **out,
                                        struct err_ctx *ctx);
/* Opens segments/<id>.seg and checks that it is the segment that `ref` speaks of. */
WARN_UNUSED enum err segment_open_ref(struct collection *c, const struct segment_ref *ref,
                                      struct segment **out, struct err_ctx *ctx);

#endif
