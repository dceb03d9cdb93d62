/* What the files of purge share: purge.c (the whole), purge_find.c (rows of the keys),
 * purge_history.c (history files). */
#ifndef LOADSTONE_STORE_PURGE_H
#define LOADSTONE_STORE_PURGE_H

#include "store/history_state.h"
#include "store/merge.h"
#include "store/upkeep.h"

/* A row that goes, and what it contributed to the numbers of the versions that had it. */
struct purged_row {
    uint32_t row;
    bool vector;
    struct digest digest;
};

/* A segment that holds such rows, and the one without them that stands for it. */
struct purged_segment {
    struct segment *old; /* referenced */
    struct buf rows;     /* struct purged_row, ascending */
    struct mask *drop;
    uint64_t new_id;
    uint32_t new_rows;       /* 0: no file, and nothing refers to it */
    struct merge_output out; /* when new_rows > 0; map 0 leads from old to new */
};

struct purge {
    struct collection *c;
    const struct batch *keys;
    uint64_t version; /* rows of versions before it go */
    uint8_t *seen;    /* per key: a row of it was found */
    struct purged_segment *list;
    size_t n, cap;
};

/* Looks through every file of the registry; fills p->list, but for what becomes of them. */
WARN_UNUSED enum err purge_find(struct purge *p, struct err_ctx *ctx);
void purge_forget(struct purge *p); /* empties the list */

/* In the history files the new segments stand for the old ones, and the numbers of every version
 * are those without the rows. The newest version, what came since the newest checkpoint and the
 * registry know of the new ones already. Each file is written anew or stays as it is: after a crash
 * some name the old segments, some the new ones, and both are there. */
WARN_UNUSED enum err purge_history(struct purge *p, struct err_ctx *ctx);

#endif
