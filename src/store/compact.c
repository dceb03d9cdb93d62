/* Compaction: pick, merge, index, swap.
 *
 *   pick    views of the newest version (compact_pick.c)
 *   merge   a thread of the lowest priority: checks the inputs' blocks, writes staging/<id>.seg
 *   index   hooks->segment_build: nobody ever searches the merged segment without its index
 *   place   staging/ -> segments/
 *   swap    commit lock, shortly: the COMPACT record (compact_swap.c)
 *
 * Readers keep what they hold; commits go on meanwhile. Older versions keep the old segments, whose
 * files go when vacuum finds that no version needs them.
 *
 * Threads: upkeep_lock lets one compaction, vacuum or purge run at a time. Failure: the merged file
 * is unlinked and nothing has changed; what the index refuses (memory) makes merges of the
 * collection smaller. */
#include "store/compact.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "store/collection_internal.h"
#include "store/upkeep_internal.h"

METRIC_HISTOGRAM(compact_time, "loadstone_compaction_duration_seconds",
                 "Time to merge segments into one, its index included.")
METRIC_COUNTER(compact_failures, "loadstone_compaction_failures_total",
               "Compactions given up; each is tried again.")
METRIC_COUNTER(compact_segments, "loadstone_compaction_segments_total",
               "Segments that compactions merged.")
METRIC_COUNTER(compact_bytes, "loadstone_compaction_written_bytes_total",
               "Bytes of the segment files that compactions wrote.")

enum {
    MERGE_NICE = 19,
    ROOM_TIMES =
        3, /* what a merge writes: the segment, about as much of index, and room for loads */
};

/* ---- merging ---- */

struct merge_call {
    struct collection *c;
    struct compaction *job;
    enum err e;
    struct err_ctx *ctx;
};

static enum err check_inputs(struct collection *c, const struct compaction *job,
                             struct err_ctx *ctx)
{
    for (size_t i = 0; i < job->n; i++) {
        const struct segment *s = job->inputs[i].segment;
        for (uint64_t block = 0; block < s->data_len / IO_SUM_BLOCK; block++) {
            if (atomic_load(&c->upkeep_cancel))
                return err_set(ctx, ERR_UNAVAILABLE, "the compaction was stopped");
            RETURN_NOT_OK(segment_verify_block(s, block, ctx));
        }
    }
    return ERR_OK;
}

static void *merge_low(void *arg)
{
    struct merge_call *call = arg;
    struct compaction *job = call->job;
    setpriority(PRIO_PROCESS, (id_t)gettid(), MERGE_NICE); /* Linux: of this thread alone */
    call->e = check_inputs(call->c, job, call->ctx);
    if (call->e == ERR_OK)
        call->e = merge_segments(call->c, job->inputs, job->n, job->base->schema,
                                 &call->c->upkeep_cancel, &job->out, call->ctx);
    return NULL;
}

/* On a thread of its own: priority, once lowered, is not given back, and the swap holds a lock that
 * commits wait for. */
static enum err merge(struct collection *c, struct compaction *job, struct err_ctx *ctx)
{
    struct merge_call call = {.c = c, .job = job, .ctx = ctx};
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, merge_low, &call);
    if (rc)
        return err_system(ctx, rc, "start a thread for a merge");
    pthread_join(thread, NULL);
    return call.e;
}

static enum err build_index(struct collection *c, struct segment *s, struct err_ctx *ctx)
{
    if (!c->hooks || !c->hooks->segment_build)
        return ERR_OK;
    return c->hooks->segment_build(c->hooks->arg, c, s, NULL, ctx);
}

static void give_up(struct collection *c, struct compaction *job)
{
    if (c->hooks && c->hooks->segment_removed)
        c->hooks->segment_removed(c->hooks->arg, c, job->out.id);
    merge_discard(c, &job->out);
}

static enum err run(struct collection *c, struct compaction *job, struct err_ctx *ctx)
{
    RETURN_NOT_OK(merge(c, job, ctx));
    enum err e = build_index(c, job->out.segment, ctx);
    if (e == ERR_UNPROCESSABLE)
        c->compact_bytes_max = job->out.segment->bytes / 2;
    if (e == ERR_OK)
        e = merge_place(c, &job->out, ctx);
    if (e == ERR_OK)
        e = compact_swap(c, job, ctx);
    /* A record that may have reached the disk must find its segment after a restart. */
    if (e != ERR_OK && !collection_read_only(c))
        give_up(c, job);
    if (e == ERR_OK && c->hooks && c->hooks->segment_added)
        c->hooks->segment_added(c->hooks->arg, c, job->out.segment);
    return e;
}

/* ---- one after the other ---- */

static void set_inputs(struct compaction *job)
{
    for (size_t i = 0; i < job->n; i++) {
        const struct view *v = &job->base->views[job->views[i]];
        job->inputs[i] = (struct merge_input){
            .segment = v->segment,
            .rows = v->rows,
            .drop = view_dropped(job->base, v),
            .base_version = v->segment->base_version,
            .base_ordinal = v->segment->base_ordinal,
        };
    }
}

static enum err compact_picked(struct collection *c, struct compaction *job, struct err_ctx *ctx)
{
    uint64_t since_us = clock_mono_us();
    set_inputs(job);
    enum err e = run(c, job, ctx);
    metric_observe_us(&compact_time, 0, clock_mono_us() - since_us);
    metric_add(&compact_failures, 0, e != ERR_OK);
    if (e == ERR_OK) {
        metric_add(&compact_segments, 0, job->n);
        metric_add(&compact_bytes, 0, job->out.segment->bytes);
        log_info("collection %s: %zu segments are one of %u rows in %.1f s", c->name, job->n,
                 job->out.segment->rows, (double)(clock_mono_us() - since_us) / 1e6);
    }
    merge_output_deinit(&job->out);
    return e;
}

/* Whether the disk has room for a merge that nobody asked for. Its inputs stay for older versions,
 * so on a full disk it would take what loads need. Where the disk does not tell, it has. */
static bool has_room(struct collection *c, const struct compaction *job)
{
    struct statvfs disk;
    uint64_t bytes = 0;
    for (size_t i = 0; i < job->n; i++)
        bytes += job->base->views[job->views[i]].segment->bytes;
    bool room = statvfs(c->dir, &disk) != 0 ||
                (uint64_t)disk.f_bavail * disk.f_frsize / ROOM_TIMES >= bytes;
    if (!room && !c->compact_waits)
        log_warn("collection %s: its %zu segments are not merged until the disk has %llu MB free",
                 c->name, job->n, (unsigned long long)(bytes * ROOM_TIMES >> 20));
    c->compact_waits = !room;
    return room;
}

enum err compact_step(struct collection *c, enum compact_mode mode, uint64_t before, bool *did,
                      struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    struct compaction *job = calloc(1, sizeof *job);
    if (!job)
        return err_no_memory(ctx, sizeof *job);
    job->base = collection_newest(c);
    job->n = compact_pick(job->base, mode, c->compact_bytes_max, before, job->views);
    *did = job->n > 0 && (mode == COMPACT_ALL || has_room(c, job));
    enum err e = *did ? compact_picked(c, job, ctx) : ERR_OK;
    snapshot_release(job->base);
    free(job);
    return e;
}

static void measure(struct collection *c, uint32_t *segments, uint64_t *bytes)
{
    struct snapshot *s = collection_newest(c);
    *segments = 0;
    *bytes = 0;
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct segment *seg = s->views[i].segment;
        *segments += !seg->tail;
        *bytes += seg->tail ? 0 : seg->bytes;
    }
    snapshot_release(s);
}

enum { CONFLICTS_MAX = 5 };

enum err collection_compact(struct collection *c, struct compact_result *out, struct err_ctx *ctx)
{
    bool did = true;
    enum err e = ERR_OK;
    RETURN_NOT_OK(upkeep_begin(c, ctx));
    measure(c, &out->segments_before, &out->bytes_before);
    uint64_t before = atomic_load(&c->next_segment_id);
    for (int conflicts = 0; did && (e == ERR_OK || conflicts < CONFLICTS_MAX);) {
        e = compact_step(c, COMPACT_ALL, before, &did, ctx);
        if (e != ERR_OK && e != ERR_CONFLICT && e != ERR_UNPROCESSABLE)
            break;
        conflicts += e != ERR_OK;
    }
    measure(c, &out->segments_after, &out->bytes_after);
    upkeep_end(c);
    return e == ERR_UNPROCESSABLE ? ERR_OK : e;
}
