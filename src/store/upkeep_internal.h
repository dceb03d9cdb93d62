/* What upkeep.c (the thread) and compact.c, vacuum.c, purge.c share. */
#ifndef LOADSTONE_STORE_UPKEEP_INTERNAL_H
#define LOADSTONE_STORE_UPKEEP_INTERNAL_H

#include "store/compact.h"
#include "store/upkeep.h"

/* The newest durable version, referenced. */
struct snapshot *collection_newest(struct collection *c);

/* Takes upkeep_lock, unless the collection is being closed: ERR_UNAVAILABLE. Waits half a minute,
 * and beside a few others at most: ERR_BUSY; the threads that wait are those of all loads. */
WARN_UNUSED enum err upkeep_begin(struct collection *c, struct err_ctx *ctx);
void upkeep_end(struct collection *c);

/* Waits until a record is durable, then shows `next` (NULL: nothing) to readers; a failure makes
 * the collection read-only. */
WARN_UNUSED enum err upkeep_wait(struct collection *c, uint64_t ticket, struct snapshot *next,
                                 struct err_ctx *ctx);

/* With upkeep_lock: at most one merge; *did tells whether there was anything to merge. */
WARN_UNUSED enum err compact_step(struct collection *c, enum compact_mode mode, uint64_t before,
                                  bool *did, struct err_ctx *ctx);
/* With upkeep_lock. ERR_CONFLICT when something was tagged while it ran: try again. */
WARN_UNUSED enum err vacuum_step(struct collection *c, const struct vacuum_options *o,
                                 struct vacuum_result *out, struct err_ctx *ctx);
/* With upkeep_lock: removes the files of segments that a vacuum let go, behind a checkpoint. */
WARN_UNUSED enum err vacuum_remove_files(struct collection *c, struct err_ctx *ctx);

#endif
