/* Commits that may take long, on threads of their own, and who waits for them.
 *
 *   commit_job_rows(load)      a one-shot body: its load, with an id of its own to ask for
 *   commit_job_session(load)   the parts of a load session
 *         |
 *         `── runs to the end whoever waits ── the load's state says how it went ── wake
 *
 * A request waits with its connection suspended, at most until its deadline; then it looks at the
 * load's state like anybody else. So asking again attaches, and nobody who gives up disturbs the
 * commit. */
#ifndef LOADSTONE_API_COMMIT_JOB_H
#define LOADSTONE_API_COMMIT_JOB_H

#include <microhttpd.h>

#include "api/idempotency.h"
#include "api/service.h"
#include "store/session.h"

struct load_call;
struct waits;

/* The thread that wakes those whose time is over. */
WARN_UNUSED enum err waits_new(struct service *s, struct waits **out, struct err_ctx *ctx);
/* Wakes everybody; whoever comes later does not wait. */
void waits_close(struct waits *w);
void waits_free(struct waits *w); /* NULL is allowed */

/* The connection is suspended; it is resumed when the load is no longer being committed or at
 * `deadline_us` (monotonic), whichever comes first. False: no wait is needed (or possible): the
 * caller goes on. */
WARN_UNUSED bool waits_add(struct waits *w, struct session *s, struct MHD_Connection *conn,
                           uint64_t deadline_us);

/* Takes `l` and what *i holds over, on success only: `i` is then empty. *out is the load to wait
 * for, referenced. */
WARN_UNUSED enum err commit_job_rows(struct service *s, struct collection *c, struct load *l,
                                     enum load_mode mode, struct idempotency *i,
                                     struct session **out, struct err_ctx *ctx);
/* The load is committing (SESSION_RUN); `call` holds its options and is taken over in any case.
 * When the job can't be started the load is open again. */
WARN_UNUSED enum err commit_job_session(struct service *s, struct session *load,
                                        struct load_call *call, struct err_ctx *ctx);
/* Asks the commits that run to end. */
void commit_jobs_cancel(struct service *s);

#endif
