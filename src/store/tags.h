/* The tags of a collection: an immutable table, sorted by name, replaced as a whole.
 *
 *   tags       what readers see, inside an epoch section: durable
 *   tags_head  the newest one whose record is queued; under the commit lock */
#ifndef LOADSTONE_STORE_TAGS_H
#define LOADSTONE_STORE_TAGS_H

#include "store/record.h"
#include "store/version.h"

struct tag {
    char name[TAG_MAX_BYTES + 1];
    uint64_t version;
};

struct tags {
    size_t n;
    struct tag list[];
};

/* An empty table; NULL: no memory. */
struct tags *tags_new(void);
/* A table with the change made; ERR_NOT_FOUND when what is to be deleted is not there, ERR_CORRUPT
 * for a name that is none. */
WARN_UNUSED enum err tags_change(const struct tags *t, const struct tag_record *r,
                                 struct tags **out, struct err_ctx *ctx);
/* From a checkpoint. */
WARN_UNUSED enum err tags_from_refs(const struct buf *refs, struct tags **out, struct err_ctx *ctx);
/* For a checkpoint: struct tag_ref that borrow from the table. Errors show in out->failed. */
void tags_list(const struct tags *t, struct buf *out);

#endif
