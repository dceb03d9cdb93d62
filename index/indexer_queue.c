/* The indexer's queue and its failures.
 *
 *   queue: warm-up, warm-up, build, build ... ─ one at a time ─> running
 *
 * A segment has at most one queued build and one that runs; when both are there, the running one is
 * superseded and about to end.
 *
 * Threads: everything under `lock`, which is never held while something waits. Failure: no memory
 * for a job is said in the log; the segment stays as it is. */
#include "index/indexer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

METRIC_COUNTER(build_failures, "loadstone_index_build_failures_total",
               "Index builds that failed: their segments are scanned exactly.")

/* ---- jobs ---- */

static void job_free(struct job *j)
{
    segment_release(j->segment);
    collection_release(j->collection);
    free(j);
}

static struct job *job_new(struct collection *c, struct segment *s)
{
    struct job *j = calloc(1, sizeof(*j));
    if (!j) {
        log_error("no memory to queue the index of a segment of %s: it stays as it is",
                  collection_name(c));
        return NULL;
    }
    j->collection = collection_acquire(c);
    j->segment = segment_acquire(s);
    return j;
}

void queue_warm(struct indexer *ix, struct collection *c, struct segment *s)
{
    struct job *j = job_new(c, s);
    if (!j)
        return;
    j->warm = true;
    pthread_mutex_lock(&ix->lock);
    j->next = ix->queue;
    ix->queue = j;
    if (!j->next)
        ix->queue_end = &j->next;
    pthread_cond_signal(&ix->more);
    pthread_mutex_unlock(&ix->lock);
}

/* Under the lock: the link to the queued build of a segment, or to NULL. */
static struct job **find_queued(struct indexer *ix, const struct segment *s)
{
    struct job **at = &ix->queue;
    while (*at && ((*at)->warm || (*at)->segment != s))
        at = &(*at)->next;
    return at;
}

/* Under the lock: the running build of a segment, unless it is given up already. */
static struct job *find_running(struct indexer *ix, const struct segment *s)
{
    struct job *r = ix->running;
    return r && !r->warm && r->segment == s && !r->superseded ? r : NULL;
}

/* Under the lock; true when the job went in. */
static bool enqueue_build(struct indexer *ix, struct job *j)
{
    struct job *queued = *find_queued(ix, j->segment), *running = find_running(ix, j->segment);
    if (queued) {
        queued->plan = j->plan;
        return false;
    }
    if (running && running->started && plan_equal(&running->plan, &j->plan))
        return false;
    if (running)
        running->superseded = true;
    *ix->queue_end = j;
    ix->queue_end = &j->next;
    pthread_cond_signal(&ix->more);
    return true;
}

void queue_build(struct indexer *ix, struct collection *c, struct segment *s, uint32_t vectors,
                 const struct index_plan *plan)
{
    struct job *j = job_new(c, s);
    if (!j)
        return;
    j->vectors = vectors;
    j->plan = *plan;
    pthread_mutex_lock(&ix->lock);
    bool queued = enqueue_build(ix, j);
    pthread_mutex_unlock(&ix->lock);
    if (!queued)
        job_free(j);
}

void queue_forget(struct indexer *ix, const struct segment *s)
{
    pthread_mutex_lock(&ix->lock);
    struct job **at = find_queued(ix, s), *gone = *at, *running = find_running(ix, s);
    if (gone) {
        *at = gone->next;
        if (!*at)
            ix->queue_end = at;
    }
    if (running)
        running->superseded = true;
    pthread_mutex_unlock(&ix->lock);
    if (gone)
        job_free(gone);
}

struct job *queue_take(struct indexer *ix)
{
    pthread_mutex_lock(&ix->lock);
    while (!ix->stopping && !ix->queue)
        pthread_cond_wait(&ix->more, &ix->lock);
    struct job *j = ix->stopping ? NULL : ix->queue;
    if (j) {
        ix->queue = j->next;
        if (!ix->queue)
            ix->queue_end = &ix->queue;
        j->next = NULL;
        ix->running = j;
        ix->progress = 0;
        ix->started_us = clock_mono_us();
    }
    pthread_mutex_unlock(&ix->lock);
    return j;
}

void queue_start(struct indexer *ix, struct job *j, const struct index_plan *plan)
{
    pthread_mutex_lock(&ix->lock);
    j->plan = *plan;
    j->started = true;
    pthread_mutex_unlock(&ix->lock);
}

void queue_done(struct indexer *ix, struct job *j, bool built)
{
    pthread_mutex_lock(&ix->lock);
    uint64_t us = clock_mono_us() - ix->started_us;
    if (built && us > 0)
        ix->floats_per_s[j->plan.kind] =
            (double)j->vectors * j->segment->schema->dim * 1e6 / (double)us;
    ix->running = NULL;
    pthread_mutex_unlock(&ix->lock);
    job_free(j);
}

bool queue_stopped(struct indexer *ix, const struct job *j)
{
    pthread_mutex_lock(&ix->lock);
    bool stop = ix->stopping || j->superseded;
    pthread_mutex_unlock(&ix->lock);
    return stop;
}

void queue_free(struct indexer *ix)
{
    for (struct job *j; (j = ix->queue); job_free(j))
        ix->queue = j->next;
    for (struct failure *f; (f = ix->failures); free(f))
        ix->failures = f->next;
}

/* ---- failures ---- */

static struct failure **find_failure(struct indexer *ix, const uint8_t *collection_id)
{
    struct failure **f = &ix->failures;
    while (*f && memcmp((*f)->collection_id, collection_id, 16) != 0)
        f = &(*f)->next;
    return f;
}

const char *failure_of(const struct indexer *ix, const struct collection *c)
{
    const struct failure *f = *find_failure((struct indexer *)ix, collection_id(c));
    return f ? f->text : NULL;
}

void failure_note(struct indexer *ix, const struct collection *c, const struct segment *s,
                  const char *text)
{
    log_error("index of %s, segment %016llx: %s", collection_name(c), (unsigned long long)s->id,
              text);
    metric_add(&build_failures, 0, 1);
    pthread_mutex_lock(&ix->lock);
    struct failure **f = find_failure(ix, collection_id(c));
    if (!*f && (*f = calloc(1, sizeof(**f))))
        memcpy((*f)->collection_id, collection_id(c), 16);
    if (*f)
        snprintf((*f)->text, sizeof((*f)->text), "%.255s", text);
    pthread_mutex_unlock(&ix->lock);
}

void failure_forget(struct indexer *ix, const struct collection *c)
{
    pthread_mutex_lock(&ix->lock);
    struct failure **f = find_failure(ix, collection_id(c)), *gone = *f;
    if (gone)
        *f = gone->next;
    pthread_mutex_unlock(&ix->lock);
    free(gone);
}
