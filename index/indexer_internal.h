/* What the parts of the indexer share: indexer.c (what is built, building, attaching),
 * indexer_queue.c (jobs and failures), indexer_state.c (what is reported). */
#ifndef LOADSTONE_INDEX_INDEXER_INTERNAL_H
#define LOADSTONE_INDEX_INDEXER_INTERNAL_H

#include <pthread.h>

#include "index/index.h"
#include "index/plan.h"

/* What is to be done for a segment; holds it and its collection. */
struct job {
    struct job *next;
    struct collection *collection;
    struct segment *segment;
    uint32_t vectors;
    bool warm; /* touch the pages of an attached structure; else build one */
    /* Under the lock: */
    struct index_plan plan; /* by the schema when it was queued; when it runs, what it builds */
    bool started;           /* the plan is what it builds */
    bool superseded;        /* another job builds this segment: give up */
};

struct failure {
    struct failure *next;
    uint8_t collection_id[16];
    char text[256];
};

struct indexer {
    char *self;
    unsigned threads;
    struct plan_limits limits;
    pthread_t thread;
    bool thread_started;
    pthread_mutex_t attach_lock; /* one structure is attached or taken off at a time */
    pthread_mutex_t lock;
    pthread_cond_t more;
    /* Under the lock: */
    bool stopping;
    struct job *queue, **queue_end;
    struct job *running;
    double progress;                 /* of the running build */
    uint64_t started_us;             /* when it began */
    double floats_per_s[INDEX_AUTO]; /* by kind, of the last build that finished; 0 = none yet */
    struct failure *failures;
};

/* ---- indexer_queue.c ---- */

/* Queues a job; ERR_NO_MEMORY is said in the log. Warm-ups go before builds: they are short. */
void queue_warm(struct indexer *ix, struct collection *c, struct segment *s);
/* One build per segment is queued at most. When one runs, `plan` decides: the same goes on and
 * nothing is queued, another is given up. */
void queue_build(struct indexer *ix, struct collection *c, struct segment *s, uint32_t vectors,
                 const struct index_plan *plan);
/* No build of the segment is wanted: the queued one goes, the running one is given up. */
void queue_forget(struct indexer *ix, const struct segment *s);
/* The next job, now running; NULL once the indexer stops. */
struct job *queue_take(struct indexer *ix);
/* Frees the running job; `built` when it finished a build. */
void queue_done(struct indexer *ix, struct job *j, bool built);
/* Sets what the running job builds. */
void queue_start(struct indexer *ix, struct job *j, const struct index_plan *plan);
/* Whether the job shall end: the indexer stops, or the build is superseded. */
bool queue_stopped(struct indexer *ix, const struct job *j);
void queue_free(struct indexer *ix);

/* Why the last build of a collection failed: said in the log, kept until one succeeds. */
void failure_note(struct indexer *ix, const struct collection *c, const struct segment *s,
                  const char *text);
void failure_forget(struct indexer *ix, const struct collection *c);
/* Under the lock: NULL when there is none. */
const char *failure_of(const struct indexer *ix, const struct collection *c);

#endif
