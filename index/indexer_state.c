/* What is reported of a collection's index.
 *
 *   progress = rows whose structure stands / (those + rows queued or running)
 *
 * where a running build counts by its own share, and a segment that is rebuilt counts as not done
 * though its old structure still serves. The time left is that of all builds up to the collection's
 * last, whosever they are: by the running build's own pace, and for the queued ones by that of the
 * last build of their kind. While one of these is unknown, so is the sum.
 *
 * Threads: any; the snapshot's views are read in an epoch section, the queue under its lock.
 * Failure: none. */
#include "index/indexer_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "index/search_internal.h"

struct pending {
    uint64_t rows;        /* of this collection, to be built */
    uint64_t rebuilt;     /* of them with a structure that still serves */
    double done_rows;     /* of them in the running build of this collection */
    double eta_s;         /* until its last build ends; negative: unknown */
    enum index_kind kind; /* of its first build */
};

static double job_floats(const struct job *j)
{
    return (double)j->vectors * j->segment->schema->dim;
}

static double running_left_s(const struct indexer *ix)
{
    double elapsed_s = (double)(clock_mono_us() - ix->started_us) / 1e6;
    double known = ix->floats_per_s[ix->running->plan.kind];
    if (ix->progress > 0.01)
        return elapsed_s * (1 - ix->progress) / ix->progress;
    return known > 0 ? job_floats(ix->running) / known : -1;
}

static void add_job(struct pending *p, const struct job *j)
{
    if (p->rows == 0)
        p->kind = j->plan.kind;
    p->rows += j->vectors;
    if (segment_ann(j->segment))
        p->rebuilt += j->vectors;
}

static double plus(double eta_s, double more_s)
{
    return eta_s < 0 || more_s < 0 ? -1 : eta_s + more_s;
}

/* Under the lock. */
static void count_pending(const struct indexer *ix, const struct collection *c, struct pending *p)
{
    const struct job *r = ix->running && !ix->running->warm ? ix->running : NULL;
    double ahead_s = r && !r->superseded ? running_left_s(ix) : 0;
    if (r && r->collection == c && !r->superseded) {
        add_job(p, r);
        p->done_rows = r->vectors * ix->progress;
        p->eta_s = ahead_s;
    }
    for (const struct job *j = ix->queue; j; j = j->next) {
        if (j->warm)
            continue;
        double rate = ix->floats_per_s[j->plan.kind];
        ahead_s = plus(ahead_s, rate > 0 ? job_floats(j) / rate : -1);
        if (j->collection != c)
            continue;
        add_job(p, j);
        p->eta_s = ahead_s;
    }
}

static void count_indexed(const struct snapshot *s, struct index_state *out)
{
    uint64_t of_kind[INDEX_AUTO] = {0};
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        const struct ann_file *a = segment_ann(v->segment);
        if (!a)
            continue;
        uint64_t rows = v->segment->vector_nulls ? view_vectors(v) : v->live;
        out->indexed_rows += rows;
        of_kind[a->shape.kind] += rows + 1;
        out->bytes += a->bytes;
    }
    if (out->bytes > 0)
        out->kind = of_kind[INDEX_IVF] > of_kind[INDEX_HNSW] ? INDEX_IVF : INDEX_HNSW;
}

/* What serves; where nothing stands: what is being built, or what was asked for by name. */
static enum index_kind kind_in_use(const struct index_state *state, const struct schema *schema,
                                   const struct pending *p)
{
    if (state->bytes > 0)
        return state->kind;
    if (state->building)
        return p->kind;
    return schema->index.kind == INDEX_AUTO || state->error[0] ? INDEX_FLAT : schema->index.kind;
}

void index_state_get(struct indexer *ix, const struct collection *c, const struct snapshot *s,
                     struct index_state *out)
{
    struct pending p = {0};
    *out = (struct index_state){.rows = s->vectors, .progress = 1};
    epoch_enter();
    count_indexed(s, out);
    pthread_mutex_lock(&ix->lock);
    count_pending(ix, c, &p);
    const char *failure = failure_of(ix, c);
    snprintf(out->error, sizeof(out->error), "%s", failure ? failure : "");
    pthread_mutex_unlock(&ix->lock);
    epoch_leave();
    out->building = p.rows > 0;
    if (out->building) {
        double done = (double)out->indexed_rows - (double)p.rebuilt;
        done = done < 0 ? 0 : done;
        out->progress = (done + p.done_rows) / (done + (double)p.rows);
        out->eta_s = p.eta_s;
    }
    out->kind = kind_in_use(out, s->schema, &p);
}
