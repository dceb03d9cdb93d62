/* A pool of threads over one FIFO queue of jobs. */
#ifndef LOADSTONE_BASE_WORKER_H
#define LOADSTONE_BASE_WORKER_H

#include "base/err.h"

struct metric_family;
struct worker_pool;

/* Starts `nthreads` threads named `name`; at most `queue_max` jobs wait. */
WARN_UNUSED enum err worker_pool_new(const char *name, unsigned nthreads, size_t queue_max,
                                     struct worker_pool **out, struct err_ctx *ctx);
/* Queues fn(arg). ERR_BUSY when the queue is full; ERR_UNAVAILABLE once the pool is closing. */
WARN_UNUSED enum err worker_pool_submit(struct worker_pool *p, void (*fn)(void *), void *arg,
                                        struct err_ctx *ctx);
/* Runs what is queued, joins the threads, frees the pool. NULL is allowed. */
void worker_pool_free(struct worker_pool *p);

/* Before the first job: how long jobs wait in the queue goes into `series` of a histogram. */
void worker_pool_measure(struct worker_pool *p, const struct metric_family *wait, unsigned series);
/* Before the first job: its threads run at this much lower a priority (nice) than the process. */
void worker_pool_lower(struct worker_pool *p, int nice);
/* Jobs that wait, and jobs that run. */
void worker_pool_stats(struct worker_pool *p, size_t *queued, unsigned *running);

#endif
