/* Builds: one child process at a time, for the queue or for somebody who waits.
 *
 *   build thread ─ turn_take ──┐
 *                              ├─ spawn child ─ read its progress ─ reap ─ open, verify ─ attach
 *   segment_build ─ urgent_enter
 *
 * An urgent build has the machine for itself: the queue's child is stopped (SIGSTOP) until it is
 * done. Two at once would take twice as long each, and ending the queue's would lose its work.
 *
 * A build writes <id>.ann.tmp and renames it. The child works in the directory that was opened
 * inside collection_enter_dir, by relative names: a dropped collection's path may be its
 * successor's. The segment is opened by the name that it has when the child starts: of a staged
 * one that name stays until segment_build returns; one of the newest version is in segments/.
 *
 * Threads: the build thread runs run_build, anyone segment_build; a job belongs to who runs it.
 * Failure: a sentence; what a killed child left is removed. */
#include "index/indexer_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "base/metrics.h"
#include "index/build_child.h"
#include "index/search_internal.h"

#define IMPORTED ".import.ann" /* ends the name of a structure that an import makes */

METRIC_HISTOGRAM(build_time, "loadstone_index_build_duration_seconds",
                 "Time to build the index of one segment.")

/* ---- who still needs it ---- */

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

bool job_cancelled(struct indexer *ix, const struct job *j)
{
    if (queue_stopped(ix, j) || collection_dropped(j->collection))
        return true;
    if (j->urgent)
        return j->watch && atomic_load(&j->watch->cancel);
    return segment_outlived(j->collection, j->segment);
}

struct watched {
    struct indexer *ix;
    struct job *job;
};

static bool watch_cancelled(void *arg)
{
    const struct watched *w = arg;
    return job_cancelled(w->ix, w->job);
}

static bool watch_paused(void *arg)
{
    const struct watched *w = arg;
    return queue_paused(w->ix, w->job);
}

static void watch_progress(void *arg, double share)
{
    const struct watched *w = arg;
    state_progress(w->ix, w->job, share);
}

/* ---- the child ---- */

/* A file as seen from the collection's directory. */
static enum err relative_path(const struct job *j, const char *path, char *out, size_t cap,
                              struct err_ctx *ctx)
{
    const char *dir = collection_dir(j->collection);
    size_t n = strlen(dir);
    if (strncmp(path, dir, n) != 0 || path[n] != '/' || strlen(path + n + 1) >= cap)
        return err_set(ctx, ERR_INTERNAL, "%s is not a file of %s", path, dir);
    strcpy(out, path + n + 1);
    return ERR_OK;
}

/* The child's command line; the texts are in `t`. */
struct child_args {
    char segment[64], import[64], out[40], m[16], ef[16], nlist[16], threads[16], memory[24],
        parent[16], id[33];
    char *argv[32];
};

static enum err fill_args(const struct indexer *ix, const struct job *j, struct child_args *t,
                          struct err_ctx *ctx)
{
    const struct index_plan *p = &j->plan;
    const struct schema *schema = j->segment->schema;
    unsigned long long id = j->segment->id;
    RETURN_NOT_OK(relative_path(j, j->segment->path, t->segment, sizeof(t->segment), ctx));
    snprintf(t->out, sizeof(t->out), "index/%016llx%s", id, j->import ? IMPORTED : ".ann");
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
                          NULL};
    size_t n = sizeof argv / sizeof argv[0] - 1;
    memcpy(t->argv, argv, sizeof(argv));
    if (!ivf) {
        t->argv[n++] = "--ef-construction";
        t->argv[n++] = t->ef;
        t->argv[n++] = "--builder";
        t->argv[n++] = (char *)index_builder_name(p->builder);
    }
    if (j->urgent)
        t->argv[n++] = "--awaited";
    if (j->import) {
        RETURN_NOT_OK(relative_path(j, j->import, t->import, sizeof(t->import), ctx));
        t->argv[n++] = "--import";
        t->argv[n++] = t->import;
    }
    t->argv[n] = NULL;
    return ERR_OK;
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

static enum err run_child(struct indexer *ix, struct job *j, struct err_ctx *ctx)
{
    struct child_args args;
    struct watched w = {ix, j};
    const struct child_watch watch = {&w, watch_cancelled, watch_paused, watch_progress};
    RETURN_NOT_OK(fill_args(ix, j, &args, ctx));
    int dir = open_dir(j->collection, ctx);
    if (dir < 0)
        return ctx->code;
    enum err e = build_child_run(ix->self, args.argv, dir, &watch, ctx);
    close(dir);
    return e;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

/* Temporary files of builds that were killed, and files that were sent in before a crash. */
static void remove_orphans(struct indexer *ix, struct collection *c, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (collection_enter_dir(c, &why) != ERR_OK)
        return;
    char *slash = strrchr(path, '/'), *dir = strndup(path, (size_t)(slash - path));
    DIR *d = dir ? opendir(dir) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        unsigned long long id;
        bool temporary = ends_with(e->d_name, ".ann.tmp") || ends_with(e->d_name, IMPORTED);
        bool sent_in = ends_with(e->d_name, ".faiss") && atomic_load(&ix->imports) == 0;
        if (sent_in ||
            (temporary && (sscanf(e->d_name, "%16llx", &id) != 1 || !queue_builds(ix, c, id))))
            unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
    free(dir);
    collection_leave_dir(c);
}

/* The structure that an import has made takes its place. */
static enum err place_import(const struct job *j, const char *path, struct err_ctx *ctx)
{
    char *made = NULL;
    int n = (int)(strlen(path) - strlen(".ann"));
    if (asprintf(&made, "%.*s%s", n, path, IMPORTED) < 0)
        return err_no_memory(ctx, strlen(path));
    enum err e = collection_enter_dir(j->collection, ctx);
    if (e == ERR_OK) {
        if (rename(made, path) != 0)
            e = err_system(ctx, errno, "cannot rename %s", made);
        collection_leave_dir(j->collection);
    }
    if (e != ERR_OK)
        remove_file(j->collection, made);
    free(made);
    return e;
}

static void remove_tmp(struct collection *c, const char *path)
{
    char *tmp = NULL;
    if (asprintf(&tmp, "%s.tmp", path) < 0)
        return; /* the next build's remove_orphans does it */
    remove_file(c, tmp);
    free(tmp);
}

static enum err build_at(struct indexer *ix, struct job *j, const char *path, struct err_ctx *ctx)
{
    uint64_t start_us = clock_mono_us();
    enum err e = run_child(ix, j, ctx);
    if (e == ERR_OK && j->import)
        e = place_import(j, path, ctx);
    if (e == ERR_OK)
        e = attach_built(ix, j, path, ctx);
    if (queue_removed(ix, j))
        remove_file(j->collection, path);
    if (e != ERR_OK) {
        if (!j->import) /* whose own the next build removes */
            remove_tmp(j->collection, path);
        return e;
    }
    failure_forget(ix, j->collection);
    metric_observe_us(&build_time, 0, clock_mono_us() - start_us);
    log_info("index of %s, segment %016llx: %s over %u vectors built in %.1f s",
             collection_name(j->collection), (unsigned long long)j->segment->id,
             index_kind_name(j->plan.kind), j->vectors, (double)(clock_mono_us() - start_us) / 1e6);
    warm(ix, j);
    return ERR_OK;
}

static enum err build(struct indexer *ix, struct job *j, struct err_ctx *ctx)
{
    char *path = ann_path(j->collection, j->segment->id);
    if (!path)
        return err_no_memory(ctx, 256);
    remove_orphans(ix, j->collection, path);
    enum err e = build_at(ix, j, path, ctx);
    free(path);
    return e;
}

/* ---- of the queue ---- */

bool run_build(struct indexer *ix, struct job *j)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    struct index_plan plan = plan_now(ix, j->collection, j->vectors);
    if (plan.kind == INDEX_FLAT || plan.refused || !turn_take(ix, j, &plan, job_cancelled))
        return false;
    if (build(ix, j, &ctx) == ERR_OK)
        return true;
    if (!job_cancelled(ix, j))
        failure_note(ix, j->collection, j->segment, ctx.detail);
    return false;
}

/* ---- while somebody waits ---- */

static enum err given_up(struct indexer *ix, const struct job *j, struct err_ctx *ctx)
{
    const char *name = collection_name(j->collection);
    if (collection_dropped(j->collection))
        return err_set(ctx, ERR_NOT_FOUND, "collection %s was dropped", name);
    if (queue_stopped(ix, j))
        return err_set(ctx, ERR_UNAVAILABLE,
                       "the server stopped while it built the index of %s: try again later", name);
    return err_set(ctx, ERR_CONFLICT, "the build of the index of %s was ended", name);
}

static enum err build_urgent(struct indexer *ix, struct job *j, struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    bool entered = urgent_enter(ix, j, &j->plan, job_cancelled);
    enum err e = entered ? build(ix, j, &why) : ERR_OK;
    bool built = entered && e == ERR_OK;
    urgent_leave(ix, j, built);
    if (built)
        return ERR_OK;
    if (!entered || job_cancelled(ix, j))
        return given_up(ix, j, ctx);
    return err_set(ctx, e, "%.1000s", why.detail);
}

static enum err build_planned(struct indexer *ix, struct collection *c, struct segment *s,
                              struct build_watch *watch, uint32_t vectors,
                              const struct index_plan *plan, const char *import,
                              struct err_ctx *ctx)
{
    struct job *j = job_new(c, s);
    if (!j)
        return err_no_memory(ctx, sizeof(*j));
    j->urgent = true;
    j->watch = watch;
    j->import = import;
    j->vectors = vectors;
    j->plan = *plan;
    enum err e = build_urgent(ix, j, ctx);
    job_free(j);
    return e;
}

enum err build_imported(struct indexer *ix, struct collection *c, struct segment *s,
                        uint32_t vectors, const struct index_plan *plan, const char *path,
                        struct err_ctx *ctx)
{
    return build_planned(ix, c, s, NULL, vectors, plan, path, ctx);
}

enum err indexer_segment_build(void *arg, struct collection *c, struct segment *s,
                               struct build_watch *watch, struct err_ctx *ctx)
{
    struct indexer *ix = arg;
    char refusal[256];
    if (watch)
        atomic_store(&watch->eta_s, -1);
    uint32_t vectors = segment_vectors(s);
    struct index_plan plan = plan_now(ix, c, vectors);
    if (plan.refused) {
        plan_refusal(&plan, &ix->limits, refusal, sizeof(refusal));
        return err_set(ctx, ERR_UNPROCESSABLE, "%s", refusal);
    }
    bool wanted = s->path && plan.kind != INDEX_FLAT && !has_planned(s, &plan);
    if (wanted)
        RETURN_NOT_OK(build_planned(ix, c, s, watch, vectors, &plan, NULL, ctx));
    if (watch) {
        atomic_store(&watch->progress, 1);
        atomic_store(&watch->eta_s, 0);
    }
    return ERR_OK;
}
