/* The indexer's queue, whose turn it is, and its failures.
 *
 *   queue:  warm-up, warm-up, build, build, idle build ... ─ one at a time ─> running
 *   urgent: build, build ...                   ─ the first one ─> has the turn
 *
 * The running build of the queue starts no child while there is an urgent one, and stands still
 * while the child of one runs. A segment has at most one queued build and one that runs; when both
 * are there, the running one is superseded and about to end.
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

enum { TURN_MS = 100 };

/* ---- jobs ---- */

void job_free(struct job *j)
{
    segment_release(j->segment);
    collection_release(j->collection);
    free(j);
}

struct job *job_new(struct collection *c, struct segment *s)
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
    if (ix->stopping) {
        pthread_mutex_unlock(&ix->lock);
        job_free(j);
        return;
    }
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

/* Under the lock: at the end of its class. */
static void put_in_line(struct indexer *ix, struct job *j)
{
    struct job **at = &ix->queue;
    while (*at && (j->idle || !(*at)->idle))
        at = &(*at)->next;
    j->next = *at;
    *at = j;
    if (!j->next)
        ix->queue_end = &j->next;
}

/* Under the lock: an idle job becomes one like the others. */
static void move_up(struct indexer *ix, struct job *j)
{
    struct job **at = find_queued(ix, j->segment);
    *at = j->next;
    if (!*at)
        ix->queue_end = at;
    j->idle = false;
    put_in_line(ix, j);
}

/* Under the lock; true when the job went in. */
static bool enqueue_build(struct indexer *ix, struct job *j)
{
    struct job *queued = *find_queued(ix, j->segment), *running = find_running(ix, j->segment);
    if (ix->stopping)
        return false;
    if (queued) {
        queued->plan = j->plan;
        if (queued->idle && !j->idle)
            move_up(ix, queued);
        return false;
    }
    if (running && running->started && plan_equal(&running->plan, &j->plan))
        return false;
    if (running)
        running->superseded = true;
    put_in_line(ix, j);
    pthread_cond_signal(&ix->more);
    return true;
}

static void queue_new(struct indexer *ix, struct collection *c, struct segment *s, uint32_t vectors,
                      const struct index_plan *plan, bool idle)
{
    struct job *j = job_new(c, s);
    if (!j)
        return;
    j->idle = idle;
    j->vectors = vectors;
    j->plan = *plan;
    pthread_mutex_lock(&ix->lock);
    bool queued = enqueue_build(ix, j);
    pthread_mutex_unlock(&ix->lock);
    if (!queued)
        job_free(j);
}

void queue_build(struct indexer *ix, struct collection *c, struct segment *s, uint32_t vectors,
                 const struct index_plan *plan)
{
    queue_new(ix, c, s, vectors, plan, false);
}

void queue_build_idle(struct indexer *ix, struct collection *c, struct segment *s, uint32_t vectors,
                      const struct index_plan *plan)
{
    queue_new(ix, c, s, vectors, plan, true);
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

/* Under the lock: the queued jobs of a segment that is gone. */
static struct job *unqueue_id(struct indexer *ix, const struct collection *c, uint64_t id)
{
    struct job *gone = NULL, **at = &ix->queue;
    while (*at) {
        struct job *j = *at;
        if (j->collection == c && j->segment->id == id) {
            *at = j->next;
            j->next = gone;
            gone = j;
        } else {
            at = &j->next;
        }
    }
    ix->queue_end = at;
    return gone;
}

void queue_forget_id(struct indexer *ix, const struct collection *c, uint64_t id)
{
    pthread_mutex_lock(&ix->lock);
    struct job *gone = unqueue_id(ix, c, id), *r = ix->running;
    if (r && r->collection == c && r->segment->id == id)
        r->superseded = r->removed = true;
    pthread_mutex_unlock(&ix->lock);
    for (struct job *next; gone; gone = next) {
        next = gone->next;
        job_free(gone);
    }
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
    }
    pthread_mutex_unlock(&ix->lock);
    return j;
}

/* Under the lock: how fast builds of this kind are. */
static void note_rate(struct indexer *ix, const struct job *j)
{
    uint64_t us = clock_mono_us() - j->started_us;
    if (us > 0)
        ix->floats_per_s[j->plan.kind] =
            (double)j->vectors * j->segment->schema->dim * 1e6 / (double)us;
}

void queue_done(struct indexer *ix, struct job *j, bool built)
{
    pthread_mutex_lock(&ix->lock);
    if (built)
        note_rate(ix, j);
    ix->running = NULL;
    pthread_cond_broadcast(&ix->turn);
    pthread_mutex_unlock(&ix->lock);
    job_free(j);
}

void queue_clear(struct indexer *ix)
{
    for (struct job *j; (j = ix->queue); job_free(j))
        ix->queue = j->next;
    ix->queue_end = &ix->queue;
}

/* ---- turns ---- */

/* Under the lock, which is let go meanwhile: until a turn may have come, or to look whether the job
 * was cancelled. */
static void wait_turn(struct indexer *ix)
{
    struct timespec until = clock_after_ms(TURN_MS);
    pthread_cond_timedwait(&ix->turn, &ix->lock, &until);
}

/* `cancelled` takes the lock itself. */
static bool cancelled_unlocked(struct indexer *ix, const struct job *j,
                               bool (*cancelled)(struct indexer *, const struct job *))
{
    pthread_mutex_unlock(&ix->lock);
    bool yes = cancelled(ix, j);
    pthread_mutex_lock(&ix->lock);
    return yes;
}

/* Under the lock. */
static void start_job(struct job *j, const struct index_plan *plan)
{
    j->plan = *plan;
    j->started = true;
    j->progress = 0;
    j->started_us = clock_mono_us();
    pace_start(&j->pace, j->started_us);
}

bool turn_take(struct indexer *ix, struct job *j, const struct index_plan *plan,
               bool (*cancelled)(struct indexer *, const struct job *))
{
    pthread_mutex_lock(&ix->lock);
    bool given_up;
    while (!(given_up = cancelled_unlocked(ix, j, cancelled)) && ix->urgent)
        wait_turn(ix);
    if (!given_up)
        start_job(j, plan);
    pthread_mutex_unlock(&ix->lock);
    return !given_up;
}

/* Under the lock: whether the queue's child and this build may be in memory together. */
static bool fits_beside(const struct indexer *ix, const struct index_plan *plan)
{
    const struct job *r = ix->running;
    if (!r || !r->started)
        return true;
    return r->plan.kind == INDEX_HNSW && plan->kind == INDEX_HNSW &&
           r->plan.need_bytes + plan->need_bytes <= ix->limits.memory_bytes;
}

bool urgent_enter(struct indexer *ix, struct job *j, const struct index_plan *plan,
                  bool (*cancelled)(struct indexer *, const struct job *))
{
    pthread_mutex_lock(&ix->lock);
    struct job **end = &ix->urgent;
    while (*end)
        end = &(*end)->next;
    *end = j;
    bool given_up;
    while (!(given_up = cancelled_unlocked(ix, j, cancelled)) &&
           (ix->urgent != j || !fits_beside(ix, plan)))
        wait_turn(ix);
    if (!given_up)
        start_job(j, plan);
    pthread_mutex_unlock(&ix->lock);
    return !given_up;
}

void urgent_leave(struct indexer *ix, struct job *j, bool built)
{
    pthread_mutex_lock(&ix->lock);
    struct job **at = &ix->urgent;
    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    j->next = NULL;
    if (built)
        note_rate(ix, j);
    pthread_cond_broadcast(&ix->turn);
    pthread_mutex_unlock(&ix->lock);
}

bool queue_stopped(struct indexer *ix, const struct job *j)
{
    pthread_mutex_lock(&ix->lock);
    bool stop = ix->stopping || j->superseded;
    pthread_mutex_unlock(&ix->lock);
    return stop;
}

bool queue_removed(struct indexer *ix, const struct job *j)
{
    pthread_mutex_lock(&ix->lock);
    bool removed = j->removed;
    pthread_mutex_unlock(&ix->lock);
    return removed;
}

bool queue_paused(struct indexer *ix, struct job *j)
{
    pthread_mutex_lock(&ix->lock);
    bool paused = !j->urgent && ix->urgent && ix->urgent->started;
    uint64_t now_us = clock_mono_us();
    if (paused && !j->paused_us) {
        j->paused_us = now_us;
    } else if (!paused && j->paused_us) {
        j->started_us += now_us - j->paused_us;
        pace_skip(&j->pace, now_us - j->paused_us);
        j->paused_us = 0;
    }
    pthread_mutex_unlock(&ix->lock);
    return paused;
}

static bool is_of(const struct job *j, const struct collection *c, uint64_t id)
{
    return j->started && j->collection == c && j->segment->id == id;
}

bool queue_builds(struct indexer *ix, const struct collection *c, uint64_t id)
{
    pthread_mutex_lock(&ix->lock);
    bool found =
        (ix->running && is_of(ix->running, c, id)) || (ix->urgent && is_of(ix->urgent, c, id));
    pthread_mutex_unlock(&ix->lock);
    return found;
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

static void keep_text(struct indexer *ix, const struct collection *c, const char *text)
{
    pthread_mutex_lock(&ix->lock);
    struct failure **f = find_failure(ix, collection_id(c));
    if (!*f && (*f = calloc(1, sizeof(**f))))
        memcpy((*f)->collection_id, collection_id(c), 16);
    if (*f)
        snprintf((*f)->text, sizeof((*f)->text), "%.255s", text);
    pthread_mutex_unlock(&ix->lock);
}

void failure_note(struct indexer *ix, const struct collection *c, const struct segment *s,
                  const char *text)
{
    log_error("index of %s, segment %016llx: %s", collection_name(c), (unsigned long long)s->id,
              text);
    metric_add(&build_failures, 0, 1);
    keep_text(ix, c, text);
}

void damage_note(struct indexer *ix, const struct collection *c, const char *text)
{
    keep_text(ix, c, text);
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
