/* The indexer: decides which segments get a structure, has them built one after another by a child
 * process, maps the results.
 *
 *   segment_added ─┬─ a valid .ann is there: attach it, queue a warm-up of its pages
 *                  └─ none, or made with other settings: queue a build
 *   settings changed ─ for each segment: queue a build, or take the structure off
 *   build thread:  spawn child ─ read its progress ─ reap ─ open, check, verify ─ attach
 *
 * What a segment gets is plan.h's rule over the collection's newest schema, looked up when it is
 * queued, when its build starts, and once more before the result is attached.
 *
 * Files: <collection dir>/index/<segment id as 16 hex digits>.ann. A build writes beside it and
 * renames: the old structure serves until the new one is attached, and the old mapping goes when
 * the last reader has left its epoch section. After a crash the file is one or the other; made with
 * other settings than the schema's, it serves all the same while it is built anew. A damaged file,
 * or one of another segment, is not used.
 *
 * A dropped collection's path may be its successor's: files are removed inside
 * collection_enter_dir, and the child works in the directory that was opened inside it, by relative
 * names.
 *
 * Threads: `attach_lock` orders attaching and taking off; `lock` guards the queue and what
 * index_state_get reads; the build thread alone runs children. A job holds its collection and its
 * segment. Failure: said in the log once and in index_state.error; the segment goes on with what it
 * has, or is scanned exactly, and is not tried again before the next start or change. */
#include "index/indexer_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "base/metrics.h"
#include "index/build_child.h"
#include "index/kernels.h"
#include "index/search_internal.h"

METRIC_HISTOGRAM(build_time, "loadstone_index_build_duration_seconds",
                 "Time to build the index of one segment.")

enum { ROWS_MIN_DEFAULT = 1000, WARM_BYTES = 32 << 20, MEMORY_BYTES_MIN = 16 << 20 };

const char *index_isa(void)
{
    return kernels.name;
}

/* ---- what is built ---- */

static uint32_t segment_vectors(const struct segment *s)
{
    struct view all = {.segment = (struct segment *)s, .rows = s->rows, .live = s->rows};
    return s->schema->dim ? view_vectors(&all) : 0;
}

/* By the newest settings of the collection. */
static struct index_plan plan_now(const struct indexer *ix, const struct collection *c,
                                  uint32_t vectors)
{
    epoch_enter();
    struct index_plan p = plan_segment(collection_snapshot(c)->schema, vectors, &ix->limits);
    epoch_leave();
    return p;
}

static char *ann_path(const struct collection *c, const struct segment *s)
{
    char *path = NULL;
    if (asprintf(&path, "%s/index/%016llx.ann", collection_dir(c), (unsigned long long)s->id) < 0)
        return NULL;
    return path;
}

/* A segment whose rows were nearly all replaced or deleted is not worth a structure: searches would
 * scan the few that are left. */
static bool segment_outlived(const struct collection *c, const struct segment *s)
{
    bool lives = false;
    epoch_enter();
    const struct snapshot *now = collection_snapshot(c);
    for (uint32_t i = 0; i < now->nviews && !lives; i++)
        lives = now->views[i].segment == s && view_walkable(&now->views[i]);
    epoch_leave();
    return !lives;
}

static bool cancelled(struct indexer *ix, const struct job *j)
{
    return queue_stopped(ix, j) || collection_dropped(j->collection) ||
           segment_outlived(j->collection, j->segment);
}

/* ---- warm-up ---- */

/* Whether the structure still serves; maps a piece of its pages if so. False ends the warm-up. */
static bool populate_piece(const struct segment *s, const struct ann_file *a, uintptr_t at,
                           size_t n)
{
    epoch_enter();
    bool ok = segment_ann(s) == a && madvise((void *)at, n, MADV_POPULATE_READ) == 0;
    epoch_leave();
    return ok;
}

/* Maps the pages of [data, data + n) piece by piece, as long as nobody waits for the thread. A
 * kernel without MADV_POPULATE_READ (before 5.14) refuses: pages then come with the searches. */
static void populate(struct indexer *ix, const struct job *j, const struct ann_file *a,
                     const void *data, uint64_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t at = (uintptr_t)data & ~(page - 1), end = (uintptr_t)data + n;
    for (; at < end && !cancelled(ix, j); at += WARM_BYTES) {
        if (!populate_piece(j->segment, a, at, end - at < WARM_BYTES ? end - at : WARM_BYTES))
            return;
    }
}

static void warm(struct indexer *ix, const struct job *j)
{
    const struct segment *s = j->segment;
    uint64_t vectors = (uint64_t)s->rows * s->schema->dim * sizeof(float);
    epoch_enter();
    const struct ann_file *a = segment_ann(s);
    const uint8_t *map = a ? a->map : NULL;
    uint64_t bytes = a ? a->bytes : 0;
    epoch_leave();
    if (!a || bytes + vectors > ix->limits.memory_bytes)
        return;
    populate(ix, j, a, map, bytes);
    populate(ix, j, a, s->vectors, vectors);
}

/* ---- building ---- */

struct watched {
    struct indexer *ix;
    const struct job *job;
};

static bool watch_cancelled(void *arg)
{
    const struct watched *w = arg;
    return cancelled(w->ix, w->job);
}

static void watch_progress(void *arg, double share)
{
    struct indexer *ix = ((struct watched *)arg)->ix;
    pthread_mutex_lock(&ix->lock);
    ix->progress = share < 0 ? 0 : share > 1 ? 1 : share;
    pthread_mutex_unlock(&ix->lock);
}

/* The child's command line; the texts are in `t`. */
struct child_args {
    char segment[40], out[40], m[16], ef[16], nlist[16], threads[16], memory[24], parent[16],
        id[33];
    char *argv[32];
};

static void fill_args(const struct indexer *ix, const struct job *j, struct child_args *t)
{
    const struct index_plan *p = &j->plan;
    const struct schema *schema = j->segment->schema;
    unsigned long long id = j->segment->id;
    snprintf(t->segment, sizeof(t->segment), "segments/%016llx.seg", id);
    snprintf(t->out, sizeof(t->out), "index/%016llx.ann", id);
    snprintf(t->m, sizeof(t->m), "%u", p->m);
    snprintf(t->ef, sizeof(t->ef), "%u", p->ef_construction);
    snprintf(t->nlist, sizeof(t->nlist), "%u", p->nlist);
    snprintf(t->threads, sizeof(t->threads), "%u", ix->threads);
    snprintf(t->memory, sizeof(t->memory), "%llu", (unsigned long long)ix->limits.memory_bytes);
    snprintf(t->parent, sizeof(t->parent), "%d", (int)getpid());
    for (size_t i = 0; i < 16; i++)
        snprintf(t->id + 2 * i, 3, "%02x", collection_id(j->collection)[i]);
    bool ivf = p->kind == INDEX_IVF;
    char *const argv[] = {ix->self,
                          "build-index",
                          "--segment",
                          t->segment,
                          "--out",
                          t->out,
                          "--kind",
                          (char *)index_kind_name(p->kind),
                          "--metric",
                          (char *)metric_name(schema->metric),
                          "--threads",
                          t->threads,
                          "--memory-bytes",
                          t->memory,
                          "--collection",
                          t->id,
                          "--parent",
                          t->parent,
                          ivf ? "--nlist" : "--m",
                          ivf ? t->nlist : t->m,
                          ivf ? NULL : "--ef-construction",
                          ivf ? NULL : t->ef,
                          NULL};
    memcpy(t->argv, argv, sizeof(argv));
}

/* Open however the directory is named later; -1 when it is not to be had. */
static int open_dir(struct collection *c, struct err_ctx *ctx)
{
    if (collection_enter_dir(c, ctx) != ERR_OK)
        return -1;
    int dir = open(collection_dir(c), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        err_system(ctx, errno, "open directory %s", collection_dir(c));
    collection_leave_dir(c);
    return dir;
}

static enum err run_child(struct indexer *ix, const struct job *j, struct err_ctx *ctx)
{
    struct child_args args;
    struct watched w = {ix, j};
    const struct build_watch watch = {&w, watch_cancelled, watch_progress};
    int dir = open_dir(j->collection, ctx);
    if (dir < 0)
        return ctx->code;
    fill_args(ix, j, &args);
    enum err e = build_child_run(ix->self, args.argv, dir, &watch, ctx);
    close(dir);
    return e;
}

/* Temporary files of builds that were killed; no build runs now. */
static void remove_orphans(struct collection *c, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (collection_enter_dir(c, &why) != ERR_OK)
        return;
    char *slash = strrchr(path, '/'), *dir = strndup(path, (size_t)(slash - path));
    DIR *d = dir ? opendir(dir) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n > 8 && strcmp(e->d_name + n - 8, ".ann.tmp") == 0)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
    free(dir);
    collection_leave_dir(c);
}

/* ---- attaching ---- */

/* Maps the file at `path`, which belongs to the segment. */
static enum err open_ann(const struct collection *c, const struct segment *s, const char *path,
                         bool verify, struct ann_file **out, struct err_ctx *ctx)
{
    struct ann_file *a = NULL;
    RETURN_NOT_OK(ann_file_open(path, &a, ctx));
    enum err e = ann_file_check(a, collection_id(c), s, ctx);
    if (e == ERR_OK && verify)
        e = ann_file_verify(a, path, ctx);
    if (e != ERR_OK) {
        ann_file_close(a);
        return e;
    }
    *out = a;
    return ERR_OK;
}

/* Under the attach lock. What the segment had goes when its last reader has left. */
static void set_ann(struct segment *s, struct ann_file *a)
{
    segment_set_ann(s, a, ann_file_close);
}

/* Under the attach lock: the segment has no structure from here on, nor a file of one. */
static void take_off(struct collection *c, struct segment *s, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    set_ann(s, NULL);
    if (collection_enter_dir(c, &why) != ERR_OK)
        return;
    if (unlink(path) != 0 && errno != ENOENT)
        log_warn("cannot remove %s, which no setting asks for: %s", path, strerror(errno));
    collection_leave_dir(c);
}

/* Attaches what the job has built, unless the settings ask for something else by now. */
static enum err attach_built(struct indexer *ix, const struct job *j, const char *path,
                             struct err_ctx *ctx)
{
    struct ann_file *a = NULL;
    RETURN_NOT_OK(open_ann(j->collection, j->segment, path, true, &a, ctx));
    pthread_mutex_lock(&ix->attach_lock);
    struct index_plan now = plan_now(ix, j->collection, j->vectors);
    bool wanted = plan_matches(&now, a);
    if (wanted)
        set_ann(j->segment, a);
    else if (now.kind == INDEX_FLAT)
        take_off(j->collection, j->segment, path);
    pthread_mutex_unlock(&ix->attach_lock);
    if (!wanted)
        ann_file_close(a);
    return ERR_OK;
}

/* At start: what stands on disk for a segment that has nothing attached. */
static void attach_found(struct indexer *ix, struct collection *c, struct segment *s,
                         const char *path)
{
    struct ann_file *a = NULL;
    struct err_ctx ctx;
    err_clear(&ctx);
    pthread_mutex_lock(&ix->attach_lock);
    if (!segment_ann(s)) {
        enum err e = open_ann(c, s, path, false, &a, &ctx);
        if (e == ERR_OK)
            set_ann(s, a);
        else if (e == ERR_CORRUPT && !collection_dropped(c))
            log_warn("%s", ctx.detail);
    }
    pthread_mutex_unlock(&ix->attach_lock);
}

static bool has_planned(const struct segment *s, const struct index_plan *p)
{
    epoch_enter();
    const struct ann_file *a = segment_ann(s);
    bool has = a && plan_matches(p, a);
    epoch_leave();
    return has;
}

/* ---- the build thread ---- */

static enum err build(struct indexer *ix, const struct job *j, struct err_ctx *ctx)
{
    char *path = ann_path(j->collection, j->segment);
    if (!path)
        return err_no_memory(ctx, 256);
    remove_orphans(j->collection, path);
    enum err e = run_child(ix, j, ctx);
    if (e == ERR_OK)
        e = attach_built(ix, j, path, ctx);
    free(path);
    return e;
}

static bool run_build(struct indexer *ix, struct job *j)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    struct index_plan plan = plan_now(ix, j->collection, j->vectors);
    queue_start(ix, j, &plan);
    if (plan.kind == INDEX_FLAT || plan.refused || cancelled(ix, j))
        return false;
    uint64_t start_us = clock_mono_us();
    if (build(ix, j, &ctx) != ERR_OK) {
        if (!cancelled(ix, j))
            failure_note(ix, j->collection, j->segment, ctx.detail);
        return false;
    }
    failure_forget(ix, j->collection);
    metric_observe_us(&build_time, 0, clock_mono_us() - start_us);
    log_info("index of %s, segment %016llx: %s over %u vectors built in %.1f s",
             collection_name(j->collection), (unsigned long long)j->segment->id,
             index_kind_name(plan.kind), j->vectors, (double)(clock_mono_us() - start_us) / 1e6);
    warm(ix, j);
    return true;
}

static void *build_thread(void *arg)
{
    struct indexer *ix = arg;
    for (struct job *j; (j = queue_take(ix));) {
        bool built = false;
        if (j->warm)
            warm(ix, j);
        else
            built = run_build(ix, j);
        queue_done(ix, j, built);
    }
    return NULL;
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
        pthread_mutex_lock(&ix->attach_lock);
        take_off(c, s, path);
        pthread_mutex_unlock(&ix->attach_lock);
    } else if (has_planned(s, &plan) && !again) {
        queue_forget(ix, s);
    } else if (plan.refused) {
        queue_forget(ix, s);
        plan_refusal(&plan, &ix->limits, refusal, sizeof(refusal));
        failure_note(ix, c, s, refusal);
    } else {
        queue_build(ix, c, s, vectors, &plan);
    }
}

void indexer_segment_added(void *arg, struct collection *c, struct segment *s)
{
    struct indexer *ix = arg;
    if (!s->path || s->schema->dim == 0)
        return;
    char *path = ann_path(c, s);
    if (!path) {
        log_error("no memory to index a segment of %s: it is scanned exactly", collection_name(c));
        return;
    }
    attach_found(ix, c, s, path);
    apply_plan(ix, c, s, path, false);
    free(path);
    if (segment_ann(s))
        queue_warm(ix, c, s);
}

static void apply_settings(struct indexer *ix, struct collection *c, bool again)
{
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    failure_forget(ix, c);
    for (uint32_t i = 0; i < s->nviews && s->schema->dim > 0; i++) {
        struct segment *g = s->views[i].segment;
        char *path = g->path ? ann_path(c, g) : NULL;
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

/* ---- life ---- */

enum err indexer_new(const struct indexer_options *o, struct indexer **out, struct err_ctx *ctx)
{
    RETURN_NOT_OK(kernels_init(ctx));
    struct indexer *ix = calloc(1, sizeof(*ix));
    if (!ix)
        return err_no_memory(ctx, sizeof(*ix));
    ix->self = strdup(o->self);
    ix->threads = o->threads;
    ix->limits.rows_min = o->rows_min ? o->rows_min : ROWS_MIN_DEFAULT;
    ix->limits.memory_bytes = o->memory_bytes ? o->memory_bytes : plan_memory_default();
    if (ix->limits.memory_bytes < MEMORY_BYTES_MIN)
        ix->limits.memory_bytes = MEMORY_BYTES_MIN;
    ix->queue_end = &ix->queue;
    pthread_mutex_init(&ix->lock, NULL);
    pthread_mutex_init(&ix->attach_lock, NULL);
    pthread_cond_init(&ix->more, NULL);
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

void indexer_free(struct indexer *ix)
{
    if (!ix)
        return;
    pthread_mutex_lock(&ix->lock);
    ix->stopping = true;
    pthread_cond_signal(&ix->more);
    pthread_mutex_unlock(&ix->lock);
    if (ix->thread_started)
        pthread_join(ix->thread, NULL);
    queue_free(ix);
    pthread_cond_destroy(&ix->more);
    pthread_mutex_destroy(&ix->attach_lock);
    pthread_mutex_destroy(&ix->lock);
    free(ix->self);
    free(ix);
}
