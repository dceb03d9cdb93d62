/* The indexer: decides which segments get a structure.
 *
 *   segment_added ─┬─ a valid .ann is there: attach it, queue a check and a warm-up of its pages
 *                  ├─ of a release without codes: it serves; queue a build behind all others
 *                  └─ none, made with other settings, or damaged: queue a build
 *   segment_opened ── a valid .ann is there: attach it                (indexer_attach.c)
 *   segment_build ─── build while the caller waits                    (indexer_build.c)
 *   settings changed ─ for each segment: queue a build, or take the structure off
 *   build thread:  warm-ups and builds, one after another             (indexer_queue.c)
 *
 * What a segment gets is plan.h's rule over the collection's newest schema, looked up when it is
 * queued, when its build starts, and once more before the result is attached.
 *
 * Threads: `attach_lock` orders attaching and taking off; `lock` guards the queue and what
 * index_state_get reads. A job holds its collection and its segment. Failure: said in the log once
 * and in index_state.error; the segment goes on with what it has, or is scanned exactly, and is not
 * tried again before the next start or change. */
#include "index/indexer_internal.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "index/filter_cache.h"
#include "index/kernels.h"
#include "index/recall_live.h"

enum { ROWS_MIN_DEFAULT = 1000, MEMORY_BYTES_MIN = 16 << 20 };

const char *index_isa(void)
{
    return kernels.name;
}

unsigned index_recall_waiting(void)
{
    return recall_live_waiting();
}

/* ---- what comes in ---- */

/* Brings a segment to what the settings ask for; `again` builds it also when it has that. */
static void apply_plan(struct indexer *ix, struct collection *c, struct segment *s,
                       const char *path, bool again)
{
    uint32_t vectors = segment_vectors(s);
    struct index_plan plan = plan_now(ix, c, vectors);
    char refusal[256];
    if (plan.kind == INDEX_FLAT) {
        queue_forget(ix, s);
        take_off(ix, c, s, path);
    } else if (has_planned(s, &plan) && !again && !has_dated(s)) {
        queue_forget(ix, s);
    } else if (plan.refused) {
        queue_forget(ix, s);
        plan_refusal(&plan, &ix->limits, refusal, sizeof(refusal));
        failure_note(ix, c, s, refusal);
    } else if (has_planned(s, &plan) && !again) {
        queue_build_idle(ix, c, s, vectors, &plan);
    } else {
        queue_build(ix, c, s, vectors, &plan);
    }
}

/* In place of a structure that is damaged, which `why` says. */
static void build_anew(struct indexer *ix, struct collection *c, struct segment *s,
                       const char *path, const char *why)
{
    if (plan_now(ix, c, segment_vectors(s)).kind != INDEX_FLAT && !collection_dropped(c))
        damage_note(ix, c, why);
    apply_plan(ix, c, s, path, false);
}

void indexer_segment_added(void *arg, struct collection *c, struct segment *s)
{
    struct indexer *ix = arg;
    struct err_ctx ctx;
    if (!s->path || s->schema->dim == 0)
        return;
    char *path = ann_path(c, s->id);
    if (!path) {
        log_error("no memory to index a segment of %s: it is scanned exactly", collection_name(c));
        return;
    }
    err_clear(&ctx);
    if (attach_found(ix, c, s, path, &ctx) == ERR_CORRUPT)
        build_anew(ix, c, s, path, ctx.detail);
    else
        apply_plan(ix, c, s, path, false);
    free(path);
    if (segment_ann(s))
        queue_warm(ix, c, s);
}

void indexer_segment_opened(void *arg, struct collection *c, struct segment *s)
{
    char *path = s->path && s->schema->dim > 0 ? ann_path(c, s->id) : NULL;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (path)
        attach_found(arg, c, s, path, &ctx);
    free(path);
}

void indexer_segment_removed(void *arg, struct collection *c, uint64_t id)
{
    char *path = ann_path(c, id);
    queue_forget_id(arg, c, id);
    if (path)
        remove_file(c, path);
    else
        log_error("no memory to remove the index of a segment of %s: the next start does it",
                  collection_name(c));
    free(path);
}

static void apply_settings(struct indexer *ix, struct collection *c, bool again)
{
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    failure_forget(ix, c);
    for (uint32_t i = 0; i < s->nviews && s->schema->dim > 0; i++) {
        struct segment *g = s->views[i].segment;
        char *path = g->path ? ann_path(c, g->id) : NULL;
        if (path)
            apply_plan(ix, c, g, path, again);
        free(path);
    }
    snapshot_release(s);
}

void indexer_settings_changed(struct indexer *ix, struct collection *c)
{
    apply_settings(ix, c, false);
}

void indexer_rebuild(struct indexer *ix, struct collection *c)
{
    apply_settings(ix, c, true);
}

/* ---- the build thread ---- */

/* Checks what was attached unread; warms it up, or builds it anew. */
static void check_and_warm(struct indexer *ix, struct job *j)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    char *path = ann_path(j->collection, j->segment->id);
    if (verify_found(ix, j, &ctx) != ERR_CORRUPT)
        warm(ix, j);
    else if (path)
        build_anew(ix, j->collection, j->segment, path, ctx.detail);
    free(path);
}

static void *build_thread(void *arg)
{
    struct indexer *ix = arg;
    for (struct job *j; (j = queue_take(ix));) {
        bool built = false;
        if (j->warm)
            check_and_warm(ix, j);
        else
            built = run_build(ix, j);
        queue_done(ix, j, built);
    }
    return NULL;
}

/* ---- life ---- */

enum err indexer_new(const struct indexer_options *o, struct indexer **out, struct err_ctx *ctx)
{
    RETURN_NOT_OK(kernels_init(ctx));
    RETURN_NOT_OK(recall_live_start(ctx));
    struct indexer *ix = calloc(1, sizeof(*ix));
    if (!ix) {
        recall_live_stop();
        return err_no_memory(ctx, sizeof(*ix));
    }
    ix->sampling = true;
    ix->self = strdup(o->self);
    ix->threads = o->threads;
    ix->io = o->io;
    ix->limits.rows_min = o->rows_min ? o->rows_min : ROWS_MIN_DEFAULT;
    ix->limits.memory_bytes = o->memory_bytes ? o->memory_bytes : plan_memory_default();
    if (ix->limits.memory_bytes < MEMORY_BYTES_MIN)
        ix->limits.memory_bytes = MEMORY_BYTES_MIN;
    filter_cache_limit(ix->limits.memory_bytes / FILTER_CACHE_SHARE);
    ix->queue_end = &ix->queue;
    pthread_mutex_init(&ix->lock, NULL);
    pthread_mutex_init(&ix->attach_lock, NULL);
    pthread_cond_init(&ix->more, NULL);
    clock_cond_init(&ix->turn);
    int failed = ix->self ? pthread_create(&ix->thread, NULL, build_thread, ix) : ENOMEM;
    ix->thread_started = !failed;
    if (failed) {
        indexer_free(ix);
        return err_system(ctx, failed, "cannot start the index build thread");
    }
    pthread_setname_np(ix->thread, "indexer");
    *out = ix;
    return ERR_OK;
}

void indexer_stop(struct indexer *ix)
{
    pthread_mutex_lock(&ix->lock);
    ix->stopping = true;
    pthread_cond_signal(&ix->more);
    pthread_cond_broadcast(&ix->turn);
    pthread_mutex_unlock(&ix->lock);
    if (ix->thread_started)
        pthread_join(ix->thread, NULL);
    ix->thread_started = false;
    if (ix->sampling)
        recall_live_stop();
    ix->sampling = false;
    queue_clear(ix);
}

void indexer_free(struct indexer *ix)
{
    if (!ix)
        return;
    indexer_stop(ix);
    for (struct failure *f; (f = ix->failures); free(f))
        ix->failures = f->next;
    pthread_cond_destroy(&ix->turn);
    pthread_cond_destroy(&ix->more);
    pthread_mutex_destroy(&ix->attach_lock);
    pthread_mutex_destroy(&ix->lock);
    filter_cache_clear();
    free(ix->self);
    free(ix);
}
