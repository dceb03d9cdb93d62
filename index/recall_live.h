/* Live queries that are searched again, exactly and at rising effort, so that curves of recall
 * follow what users really ask. */
#ifndef LOADSTONE_INDEX_RECALL_LIVE_H
#define LOADSTONE_INDEX_RECALL_LIVE_H

#include "index/search_internal.h"

/* Starts the thread that searches again; without it nothing is offered. Once per start a stop. */
WARN_UNUSED enum err recall_live_start(struct err_ctx *ctx);
/* Drops what waits and cuts off what runs. */
void recall_live_stop(void);
/* Queries that wait or are being searched again. */
unsigned recall_live_waiting(void);

/* Takes some of nq queries that were just searched by `plan`, as copies; never waits. They are
 * those from `first` on of the search that p speaks of. Inside the epoch section in which the plan
 * was made. */
void recall_live_offer(const struct snapshot *s, const float *queries, size_t nq,
                       const struct search_params *p, size_t first, const struct view_plan *plan);

#endif
