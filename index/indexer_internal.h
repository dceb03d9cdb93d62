/* What the parts of the indexer share: indexer.c (what is to be done), indexer_build.c (building),
 * indexer_import.c (files of FAISS), indexer_attach.c (files and segments), indexer_queue.c (jobs,
 * turns, failures), indexer_state.c (what is reported). */
#ifndef LOADSTONE_INDEX_INDEXER_INTERNAL_H
#define LOADSTONE_INDEX_INDEXER_INTERNAL_H

#include <pthread.h>

#include "index/index.h"
#include "index/pace.h"
#include "index/plan.h"

/* What is to be done for a segment; holds it and its collection. */
struct job {
    struct job *next;
    struct collection *collection;
    struct segment *segment;
    uint32_t vectors;
    bool warm;                 /* touch the pages of an attached structure; else build one */
    bool urgent;               /* somebody waits for it */
    bool idle;                 /* goes behind all others: what is there serves */
    struct build_watch *watch; /* of an urgent build; may be NULL */
    const char *import; /* a file of FAISS that the structure comes from; NULL: it is built */
    /* Under the lock: */
    struct index_plan plan; /* by the schema when it was queued; when it runs, what it builds */
    bool started;           /* the plan is what it builds, its child runs */
    bool superseded;        /* another job builds this segment, or nobody needs it: give up */
    bool removed;           /* the segment is gone: so is what was built */
    double progress;
    uint64_t started_us; /* its child's start, moved on by the time that it stood still */
    struct pace pace;    /* likewise */
    uint64_t paused_us;  /* since when it stands still; 0: it runs */
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
    struct io *io;       /* NULL: no files are sent in */
    atomic_uint imports; /* under way */
    pthread_t thread;
    bool thread_started;
    bool sampling;               /* recall_live_start is owed its stop */
    pthread_mutex_t attach_lock; /* one structure is attached or taken off at a time */
    pthread_mutex_t lock;
    pthread_cond_t more; /* the queue has a job, or the indexer stops */
    pthread_cond_t turn; /* a build ended, or the indexer stops */
    /* Under the lock: */
    bool stopping;
    struct job *queue, **queue_end;
    struct job *running;             /* of the queue */
    struct job *urgent;              /* in the order they came; the first has the turn */
    double floats_per_s[INDEX_AUTO]; /* by kind, of the last build that finished; 0 = none yet */
    struct failure *failures;
};

/* ---- indexer_queue.c ---- */

/* NULL when memory is out, which the log says. */
struct job *job_new(struct collection *c, struct segment *s);
void job_free(struct job *j);

/* Queues a job; ERR_NO_MEMORY is said in the log. Warm-ups go before builds: they are short. */
void queue_warm(struct indexer *ix, struct collection *c, struct segment *s);
/* One build per segment is queued at most. When one runs, `plan` decides: the same goes on and
 * nothing is queued, another is given up. */
void queue_build(struct indexer *ix, struct collection *c, struct segment *s, uint32_t vectors,
                 const struct index_plan *plan);
/* The same behind every other build: of a structure that serves but can be bettered. */
void queue_build_idle(struct indexer *ix, struct collection *c, struct segment *s, uint32_t vectors,
                      const struct index_plan *plan);
/* No build of the segment is wanted: the queued one goes, the running one is given up. */
void queue_forget(struct indexer *ix, const struct segment *s);
/* The same for a segment that is gone, known by its id. */
void queue_forget_id(struct indexer *ix, const struct collection *c, uint64_t id);
/* The next job, now running; NULL once the indexer stops. */
struct job *queue_take(struct indexer *ix);
/* Frees the running job; `built` when it finished a build. */
void queue_done(struct indexer *ix, struct job *j, bool built);
/* Drops all that is queued. */
void queue_clear(struct indexer *ix);

/* Waits until no urgent build stands in the way of the running job, then sets what it builds. False
 * when `cancelled` said so meanwhile. */
WARN_UNUSED bool turn_take(struct indexer *ix, struct job *j, const struct index_plan *plan,
                           bool (*cancelled)(struct indexer *, const struct job *));
/* The same for an urgent job, which is the caller's: until the urgent ones before it are done, and
 * the running build, unless both fit into the memory budget. Whatever it returns, urgent_leave must
 * follow. */
WARN_UNUSED bool urgent_enter(struct indexer *ix, struct job *j, const struct index_plan *plan,
                              bool (*cancelled)(struct indexer *, const struct job *));
void urgent_leave(struct indexer *ix, struct job *j, bool built);

/* Whether the job shall end: the indexer stops, or the build is superseded. */
bool queue_stopped(struct indexer *ix, const struct job *j);
/* Whether the job shall stand still: an urgent one runs. Notes the time that it does. */
bool queue_paused(struct indexer *ix, struct job *j);
/* Whether a build of that segment runs. */
bool queue_builds(struct indexer *ix, const struct collection *c, uint64_t id);
bool queue_removed(struct indexer *ix, const struct job *j);

/* Why the last build of a collection failed: said in the log, kept until one succeeds. */
void failure_note(struct indexer *ix, const struct collection *c, const struct segment *s,
                  const char *text);
/* That an index is damaged, kept until it is built. */
void damage_note(struct indexer *ix, const struct collection *c, const char *text);
void failure_forget(struct indexer *ix, const struct collection *c);
/* Under the lock: NULL when there is none. */
const char *failure_of(const struct indexer *ix, const struct collection *c);

/* ---- indexer_state.c ---- */

/* Notes how far the build is, for index_state_get and for the watch of an urgent one. */
void state_progress(struct indexer *ix, struct job *j, double share);

/* ---- indexer_attach.c ---- */

/* Rows with a vector. */
uint32_t segment_vectors(const struct segment *s);
/* By the newest settings of the collection. */
struct index_plan plan_now(const struct indexer *ix, const struct collection *c, uint32_t vectors);
/* Whether what is attached is what the plan would build. */
bool has_planned(const struct segment *s, const struct index_plan *p);
/* Whether what is attached was made by a release that knew no codes. */
bool has_dated(const struct segment *s);

/* Of the segment's .ann file; the caller frees it. NULL when memory is out. */
char *ann_path(const struct collection *c, uint64_t segment_id);
/* Maps and attaches what stands on disk for a segment that has nothing attached. ERR_CORRUPT, said
 * in the log too, when that is damaged. */
enum err attach_found(struct indexer *ix, struct collection *c, struct segment *s, const char *path,
                      struct err_ctx *ctx);
/* Reads the whole file of the job's structure, unless that was done before it was attached. Where
 * it is damaged, it is taken off, and the segment scanned from here on: ERR_CORRUPT. */
WARN_UNUSED enum err verify_found(struct indexer *ix, const struct job *j, struct err_ctx *ctx);
/* Attaches what the job has built; not when the settings ask for something else by now. */
WARN_UNUSED enum err attach_built(struct indexer *ix, const struct job *j, const char *path,
                                  struct err_ctx *ctx);
/* The segment has no structure from here on, nor a file of one. */
void take_off(struct indexer *ix, struct collection *c, struct segment *s, const char *path);
/* Removes a file of the collection; one that is not there is no error. */
void remove_file(struct collection *c, const char *path);

/* Maps the pages of the job's structure and vectors, if there is memory for them. */
void warm(struct indexer *ix, const struct job *j);

/* ---- indexer_build.c ---- */

/* Whether nobody needs the job any more. */
bool job_cancelled(struct indexer *ix, const struct job *j);
/* Runs a build of the queue to its end; true when the structure is made. */
bool run_build(struct indexer *ix, struct job *j);
/* Urgent: makes the structure from a file of FAISS in the collection's directory, and attaches it.
 */
WARN_UNUSED enum err build_imported(struct indexer *ix, struct collection *c, struct segment *s,
                                    uint32_t vectors, const struct index_plan *plan,
                                    const char *path, struct err_ctx *ctx);

#endif
