/* The indexer: decides which segments get a graph, has them built one after another by a child
 * process, maps the results.
 *
 *   segment_added ─┬─ a valid .ann is there: attach it, queue a warm-up of its pages
 *                  └─ none, and the segment is worth one: queue a build
 *   build thread:  spawn child ─ read its progress ─ reap ─ open, check, verify ─ attach
 *
 * Which segments are worth a graph: of kind hnsw those with rows_min vectors or more; of kind auto
 * those whose vectors also fill AUTO_BYTES, since scanning less takes under a millisecond; of kind
 * flat none. The others are scanned exactly.
 *
 * Files: <collection dir>/index/<segment id as 16 hex digits>.ann. A file that is damaged, of
 * another segment, or made with other settings is built anew and replaced.
 *
 * Threads: `lock` guards the queue and what index_state_get reads; the build thread alone runs
 * children. A job holds its collection and its segment. Nothing is done under the lock that can
 * wait. Failure: said in the log once and in index_state.error; the segment is scanned exactly and
 * not tried again before the next start. */
#include "index/index.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "base/metrics.h"
#include "index/ann_file.h"
#include "index/build_child.h"
#include "index/kernels.h"
#include "index/search_internal.h"

METRIC_HISTOGRAM(build_time, "loadstone_index_build_duration_seconds",
                 "Time to build the index of one segment.")
METRIC_COUNTER(build_failures, "loadstone_index_build_failures_total",
               "Index builds that failed: their segments are scanned exactly.")

enum { ROWS_MIN_DEFAULT = 1000, AUTO_BYTES = 8 << 20, WARM_BYTES = 32 << 20 };

struct job {
    struct job *next;
    struct collection *collection;
    struct segment *segment;
    uint32_t vectors;
    bool warm; /* touch the pages of an attached graph; else build one */
};

struct failure {
    struct failure *next;
    uint8_t collection_id[16];
    char text[256];
};

struct indexer {
    char *self;
    unsigned threads;
    uint32_t rows_min;
    pthread_t thread;
    bool thread_started;
    pthread_mutex_t lock;
    pthread_cond_t more;
    /* Under the lock: */
    bool stopping;
    struct job *queue, **queue_end;
    struct job *running;
    double progress;     /* of the running build */
    uint64_t started_us; /* when it began */
    double rows_per_s;   /* of the last build that finished; 0 = none yet */
    struct failure *failures;
};

const char *index_isa(void)
{
    return kernels.name;
}

/* As much of a sentence as fits. */
static void copy_text(char *out, size_t cap, const char *text)
{
    size_t n = strnlen(text, cap - 1);
    memcpy(out, text, n);
    out[n] = '\0';
}

/* ---- what is built ---- */

static uint32_t segment_vectors(const struct segment *s)
{
    struct view all = {.segment = (struct segment *)s, .rows = s->rows, .live = s->rows};
    return s->schema->dim ? view_vectors(&all) : 0;
}

static bool worth_a_graph(const struct indexer *ix, const struct schema *schema, uint32_t vectors)
{
    uint64_t bytes = (uint64_t)vectors * schema->dim * sizeof(float);
    if (vectors == 0 || vectors < ix->rows_min || vectors > INT32_MAX)
        return false;
    if (schema->index.kind == INDEX_AUTO)
        return bytes >= AUTO_BYTES;
    return schema->index.kind == INDEX_HNSW;
}

static char *ann_path(const struct collection *c, const struct segment *s)
{
    char *path = NULL;
    if (asprintf(&path, "%s/index/%016llx.ann", collection_dir(c), (unsigned long long)s->id) < 0)
        return NULL;
    return path;
}

static bool same_settings(const struct ann_file *a, const struct schema *schema)
{
    return a->shape.m == schema->index.m &&
           a->shape.ef_construction == schema->index.ef_construction;
}

/* ---- the queue ---- */

static void job_free(struct job *j)
{
    segment_release(j->segment);
    collection_release(j->collection);
    free(j);
}

/* Warm-ups go before builds: they are short. */
static void enqueue(struct indexer *ix, struct job *j)
{
    pthread_mutex_lock(&ix->lock);
    if (j->warm) {
        j->next = ix->queue;
        ix->queue = j;
        if (!j->next)
            ix->queue_end = &j->next;
    } else {
        *ix->queue_end = j;
        ix->queue_end = &j->next;
    }
    pthread_cond_signal(&ix->more);
    pthread_mutex_unlock(&ix->lock);
}

static void queue_job(struct indexer *ix, struct collection *c, struct segment *s, bool warm)
{
    struct job *j = calloc(1, sizeof(*j));
    if (!j) {
        log_error("no memory to queue the index of a segment of %s: it is scanned exactly",
                  collection_name(c));
        return;
    }
    j->collection = collection_acquire(c);
    j->segment = segment_acquire(s);
    j->vectors = segment_vectors(s);
    j->warm = warm;
    enqueue(ix, j);
}

/* The next job, now running; NULL once the indexer stops. */
static struct job *take_job(struct indexer *ix)
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

static void job_done(struct indexer *ix, struct job *j, bool built)
{
    pthread_mutex_lock(&ix->lock);
    uint64_t us = clock_mono_us() - ix->started_us;
    if (built && us > 0)
        ix->rows_per_s = j->vectors * 1e6 / (double)us;
    ix->running = NULL;
    pthread_mutex_unlock(&ix->lock);
    job_free(j);
}

/* A segment whose rows were nearly all replaced or deleted is not worth a graph: searches would
 * scan the few that are left (graph_of_view). */
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
    pthread_mutex_lock(&ix->lock);
    bool stop = ix->stopping;
    pthread_mutex_unlock(&ix->lock);
    return stop || collection_dropped(j->collection) || segment_outlived(j->collection, j->segment);
}

/* ---- failures ---- */

static struct failure **find_failure(struct indexer *ix, const uint8_t *collection_id)
{
    struct failure **f = &ix->failures;
    while (*f && memcmp((*f)->collection_id, collection_id, 16) != 0)
        f = &(*f)->next;
    return f;
}

static void note_failure(struct indexer *ix, const struct job *j, const char *text)
{
    log_error("index of %s, segment %016llx: %s", collection_name(j->collection),
              (unsigned long long)j->segment->id, text);
    metric_add(&build_failures, 0, 1);
    pthread_mutex_lock(&ix->lock);
    struct failure **f = find_failure(ix, collection_id(j->collection));
    if (!*f && (*f = calloc(1, sizeof(**f))))
        memcpy((*f)->collection_id, collection_id(j->collection), 16);
    if (*f)
        copy_text((*f)->text, sizeof((*f)->text), text);
    pthread_mutex_unlock(&ix->lock);
}

static void forget_failure(struct indexer *ix, const struct job *j)
{
    pthread_mutex_lock(&ix->lock);
    struct failure **f = find_failure(ix, collection_id(j->collection)), *gone = *f;
    if (gone) {
        *f = gone->next;
        free(gone);
    }
    pthread_mutex_unlock(&ix->lock);
}

/* ---- warm-up ---- */

/* Maps the pages of [data, data + n) piece by piece, as long as nobody waits for the thread. A
 * kernel without MADV_POPULATE_READ (before 5.14) refuses: pages then come with the searches. */
static void populate(struct indexer *ix, const struct job *j, const void *data, uint64_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t at = (uintptr_t)data & ~(page - 1), end = (uintptr_t)data + n;
    for (; at < end && !cancelled(ix, j); at += WARM_BYTES) {
        size_t part = end - at < WARM_BYTES ? end - at : WARM_BYTES;
        if (madvise((void *)at, part, MADV_POPULATE_READ) != 0)
            return;
    }
}

static void warm(struct indexer *ix, const struct job *j)
{
    const struct segment *s = j->segment;
    const struct ann_file *a = segment_ann(s);
    uint64_t vectors = (uint64_t)s->rows * s->schema->dim * sizeof(float);
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (!a || a->bytes + vectors > memory / 2)
        return;
    populate(ix, j, a->map, a->bytes);
    populate(ix, j, s->vectors, vectors);
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

static enum err run_child(struct indexer *ix, const struct job *j, char *path, struct err_ctx *ctx)
{
    const struct schema *schema = j->segment->schema;
    char m[16], ef[16], threads[16], parent[16], id[33];
    snprintf(m, sizeof(m), "%u", schema->index.m);
    snprintf(ef, sizeof(ef), "%u", schema->index.ef_construction);
    snprintf(threads, sizeof(threads), "%u", ix->threads);
    snprintf(parent, sizeof(parent), "%d", (int)getpid());
    for (size_t i = 0; i < 16; i++)
        snprintf(id + 2 * i, 3, "%02x", collection_id(j->collection)[i]);
    char *argv[] = {ix->self,
                    "build-index",
                    "--segment",
                    j->segment->path,
                    "--out",
                    path,
                    "--kind",
                    "hnsw",
                    "--m",
                    m,
                    "--ef-construction",
                    ef,
                    "--metric",
                    (char *)metric_name(schema->metric),
                    "--threads",
                    threads,
                    "--collection",
                    id,
                    "--parent",
                    parent,
                    NULL};
    struct watched w = {ix, j};
    const struct build_watch watch = {&w, watch_cancelled, watch_progress};
    return build_child_run(ix->self, argv, &watch, ctx);
}

/* Temporary files of builds that were killed; no build runs now. */
static void remove_orphans(const char *path)
{
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
}

/* ---- attaching ---- */

/* Maps the file at `path` and hands it to the segment. */
static enum err attach(const struct collection *c, struct segment *s, const char *path, bool verify,
                       struct err_ctx *ctx)
{
    struct ann_file *a = NULL;
    RETURN_NOT_OK(ann_file_open(path, &a, ctx));
    enum err e = ann_file_check(a, collection_id(c), s, ctx);
    if (e == ERR_OK && !same_settings(a, s->schema))
        e = err_set(ctx, ERR_CONFLICT, "%s was built with other settings", path);
    if (e == ERR_OK && verify)
        e = ann_file_verify(a, path, ctx);
    if (e != ERR_OK) {
        ann_file_close(a);
        return e;
    }
    segment_set_ann(s, a, ann_file_close);
    return ERR_OK;
}

static enum err build(struct indexer *ix, const struct job *j, struct err_ctx *ctx)
{
    char *path = ann_path(j->collection, j->segment);
    if (!path)
        return err_no_memory(ctx, 256);
    remove_orphans(path);
    enum err e = run_child(ix, j, path, ctx);
    if (e == ERR_OK)
        e = attach(j->collection, j->segment, path, true, ctx);
    free(path);
    return e;
}

static bool run_build(struct indexer *ix, const struct job *j)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    if (cancelled(ix, j))
        return false;
    uint64_t start_us = clock_mono_us();
    if (build(ix, j, &ctx) != ERR_OK) {
        if (!cancelled(ix, j))
            note_failure(ix, j, ctx.detail);
        return false;
    }
    forget_failure(ix, j);
    metric_observe_us(&build_time, 0, clock_mono_us() - start_us);
    log_info("index of %s, segment %016llx: hnsw over %u vectors built in %.1f s",
             collection_name(j->collection), (unsigned long long)j->segment->id, j->vectors,
             (double)(clock_mono_us() - start_us) / 1e6);
    warm(ix, j);
    return true;
}

static void *build_thread(void *arg)
{
    struct indexer *ix = arg;
    for (struct job *j; (j = take_job(ix));) {
        bool built = false;
        if (j->warm)
            warm(ix, j);
        else
            built = run_build(ix, j);
        job_done(ix, j, built);
    }
    return NULL;
}

void indexer_segment_added(void *arg, struct collection *c, struct segment *s)
{
    struct indexer *ix = arg;
    struct err_ctx ctx;
    if (!s->path || segment_ann(s) || !worth_a_graph(ix, s->schema, segment_vectors(s)))
        return;
    char *path = ann_path(c, s);
    err_clear(&ctx);
    enum err e = path ? attach(c, s, path, false, &ctx) : ERR_NO_MEMORY;
    if (e == ERR_CORRUPT)
        log_warn("%s", ctx.detail);
    free(path);
    queue_job(ix, c, s, e == ERR_OK);
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
    ix->rows_min = o->rows_min ? o->rows_min : ROWS_MIN_DEFAULT;
    ix->queue_end = &ix->queue;
    pthread_mutex_init(&ix->lock, NULL);
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
    for (struct job *j; (j = ix->queue); job_free(j))
        ix->queue = j->next;
    for (struct failure *f; (f = ix->failures); free(f))
        ix->failures = f->next;
    pthread_cond_destroy(&ix->more);
    pthread_mutex_destroy(&ix->lock);
    free(ix->self);
    free(ix);
}

/* ---- state ---- */

struct pending {
    uint64_t rows;    /* of this collection, to be built */
    uint64_t ahead;   /* of all collections, up to its last job */
    double done_rows; /* of them in the running build of this collection */
    double left;      /* rows of the running build still to do, whosever it is */
    double rows_per_s;
};

/* Under the lock. */
static void count_pending(const struct indexer *ix, const struct collection *c, struct pending *p)
{
    const struct job *r = ix->running && !ix->running->warm ? ix->running : NULL;
    uint64_t ahead = 0;
    p->rows_per_s = ix->rows_per_s;
    if (r) {
        double elapsed_s = (double)(clock_mono_us() - ix->started_us) / 1e6;
        p->left = r->vectors * (1 - ix->progress);
        if (ix->progress > 0.01 && elapsed_s > 0)
            p->rows_per_s = r->vectors * ix->progress / elapsed_s;
        if (r->collection == c) {
            p->rows += r->vectors;
            p->done_rows = r->vectors * ix->progress;
        }
    }
    for (const struct job *j = ix->queue; j; j = j->next) {
        if (j->warm)
            continue;
        ahead += j->vectors;
        if (j->collection == c) {
            p->rows += j->vectors;
            p->ahead = ahead;
        }
    }
}

static void count_indexed(const struct snapshot *s, struct index_state *out)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        const struct ann_file *a = segment_ann(v->segment);
        if (!a)
            continue;
        out->indexed_rows += v->segment->vector_nulls ? view_vectors(v) : v->live;
        out->bytes += a->bytes;
    }
}

void index_state_get(struct indexer *ix, const struct collection *c, const struct snapshot *s,
                     struct index_state *out)
{
    struct pending p = {0};
    *out = (struct index_state){.rows = s->vectors, .progress = 1};
    count_indexed(s, out);
    pthread_mutex_lock(&ix->lock);
    count_pending(ix, c, &p);
    const struct failure *f = *find_failure(ix, collection_id(c));
    if (f)
        copy_text(out->error, sizeof(out->error), f->text);
    pthread_mutex_unlock(&ix->lock);
    out->building = p.rows > 0;
    if (out->building) {
        double total = (double)out->indexed_rows + (double)p.rows;
        out->progress = ((double)out->indexed_rows + p.done_rows) / total;
        out->eta_s = p.rows_per_s > 0 ? (p.left + (double)p.ahead) / p.rows_per_s : -1;
    }
    bool graphs = out->building || out->bytes > 0 || s->schema->index.kind == INDEX_HNSW;
    out->kind = graphs ? INDEX_HNSW : INDEX_FLAT;
}
