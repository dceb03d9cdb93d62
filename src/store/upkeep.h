/* Upkeep: what keeps a collection's files few and its history bounded.
 *
 *   compact  segments that stand side by side become one; no version changes
 *   vacuum   versions beyond the retention go, and with them the files that only they needed
 *   purge    keys leave every version and the disk: the one thing that changes old versions
 *
 * A thread of the catalog does both by itself once it was started; these calls do them at once.
 * Threads: any but those of the HTTP pool; they block, one at a time a collection. */
#ifndef LOADSTONE_STORE_UPKEEP_H
#define LOADSTONE_STORE_UPKEEP_H

#include "store/collection.h"

struct batch;
struct catalog;

struct upkeep_options {
    bool compaction; /* by itself; retention always is */
};
/* After catalog_open, once. */
WARN_UNUSED enum err catalog_start_upkeep(struct catalog *cat, const struct upkeep_options *options,
                                          struct err_ctx *ctx);
/* Ends it, and whatever the calls below are at, soon: they return ERR_UNAVAILABLE from here on.
 * catalog_close does it too. */
void catalog_stop_upkeep(struct catalog *cat);

struct compact_result {
    uint32_t segments_before, segments_after; /* of the newest version */
    uint64_t bytes_before, bytes_after;
};
/* Merges until nothing is left to gain: as few segments as the limits allow, without dead rows. */
WARN_UNUSED enum err collection_compact(struct collection *c, struct compact_result *out,
                                        struct err_ctx *ctx);

struct vacuum_options {
    bool dry_run;       /* only say what would go */
    bool keep_versions; /* all that are there: only files that none of them needs go */
    /* How much is kept, in place of the retention setting when one of them is not 0: versions
     * counted from the newest (at least one is kept), and what could be read so many hours ago. A 0
     * beside the other is no limit that keeps anything. */
    uint64_t versions, hours;
};
struct vacuum_result {
    uint64_t versions; /* that went, or would */
    uint64_t segments;
    uint64_t bytes;   /* of their files, indexes included */
    uint64_t horizon; /* versions from here on are all kept */
};
/* Lets versions go that neither limit keeps; tagged and pinned ones stay. The files are gone when
 * it returns, unless a reader still has them open. */
WARN_UNUSED enum err collection_vacuum(struct collection *c, const struct vacuum_options *options,
                                       struct vacuum_result *out, struct err_ctx *ctx);

struct purge_result {
    uint64_t version; /* the newest, the first without the keys */
    uint64_t purged;  /* keys of which any version had rows */
};
/* Removes the keys in `keys` (features ignored) from every version. When it returns ERR_OK no file
 * holds a row of theirs; after an error, or a crash, some may: do it again. */
WARN_UNUSED enum err collection_purge(struct collection *c, const struct batch *keys,
                                      struct purge_result *out, struct err_ctx *ctx);

#endif
