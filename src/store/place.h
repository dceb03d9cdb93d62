/* The files of a load on their way from staging into a version.
 *
 *   staging/a.seg  b.seg  c.seg       small ones merged, an index built beside each while readers
 *        \     /     |                know nothing of them, then renamed into segments/ and only
 *   segments/d.seg  c.seg             after that named by the log record
 *
 * Internal to src/store. Blocks: outside locks and epoch sections. */
#ifndef LOADSTONE_STORE_PLACE_H
#define LOADSTONE_STORE_PLACE_H

#include "store/incoming.h"

/* Whether an index is due before the commit. */
bool load_index_due(const struct load_input *in);
/* Merges many files into few; the merged ones are superseded. */
WARN_UNUSED enum err load_merge(struct load_input *in, struct err_ctx *ctx);
/* Builds what the collection's settings ask for beside each file that has nothing yet. */
WARN_UNUSED enum err load_build_indexes(struct load_input *in, struct err_ctx *ctx);
/* Renames the files into segments/, durably. */
WARN_UNUSED enum err load_place(struct load_input *in, struct err_ctx *ctx);
/* ERR_UNAVAILABLE once whoever watches has set `cancel`. */
WARN_UNUSED enum err load_check_cancel(const struct load_input *in, struct err_ctx *ctx);
void load_set_phase(const struct load_input *in, enum load_phase phase);

/* The record is queued: the files in it are the version's. What was merged and made on the way
 * goes; staged files that were merged stay, not taken. */
void load_settle(struct load_input *in);
/* Nothing was committed: handed-over files go back to where they stood, others go. */
void load_put_back(struct load_input *in);

#endif
