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
    double done_rows;     /* of them in running builds */
    double eta_s;         /* until its last build ends; negative: unknown */
    enum index_kind kind; /* of its first build */
};

static double job_floats(const struct job *j)
{
    return (double)j->vectors * j->segment->schema->dim;
}

/* Under the lock: by the job's own pace, before it has one by that of the last of its kind. */
static double left_s(const struct indexer *ix, const struct job *j)
{
    double known = ix->floats_per_s[j->plan.kind];
    uint64_t now_us = j->paused_us ? j->paused_us : clock_mono_us();
    double left = j->started ? pace_left_s(&j->pace, now_us) : -1;
    if (left >= 0)
        return left;
    return known > 0 ? job_floats(j) / known : -1;
}

void state_progress(struct indexer *ix, struct job *j, double share)
{
    pthread_mutex_lock(&ix->lock);
    j->progress = share < 0 ? 0 : share > 1 ? 1 : share;
    pace_note(&j->pace, j->progress, clock_mono_us());
    double left = left_s(ix, j);
    pthread_mutex_unlock(&ix->lock);
    if (!j->watch)
        return;
    atomic_store(&j->watch->progress, j->progress);
    atomic_store(&j->watch->eta_s, left);
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

/* Under the lock: the next build in line, `*ahead_s` after those before it. */
static void count_job(const struct indexer *ix, const struct collection *c, const struct job *j,
                      double *ahead_s, struct pending *p)
{
    if (j->warm || j->superseded)
        return;
    *ahead_s = plus(*ahead_s, left_s(ix, j));
    if (j->collection != c)
        return;
    add_job(p, j);
    p->done_rows += j->vectors * j->progress;
    p->eta_s = *ahead_s;
}

/* Under the lock. */
static void count_pending(const struct indexer *ix, const struct collection *c, struct pending *p)
{
    double ahead_s = 0;
    for (const struct job *j = ix->urgent; j; j = j->next)
        count_job(ix, c, j, &ahead_s, p);
    if (ix->running)
        count_job(ix, c, ix->running, &ahead_s, p);
    for (const struct job *j = ix->queue; j; j = j->next)
        count_job(ix, c, j, &ahead_s, p);
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

static const char *why_no_codes(const struct ann_file *a)
{
    if (a->codes)
        return NULL;
    switch (a->verdict) {
    case CODES_REFUSED:
        return "on a sample, codes of 7 bits lost too many of the nearest";
    case CODES_IMPOSSIBLE:
        return "the range of the vectors is too large or too small for a scale";
    default:
        return "built by a release without codes: a rebuild is queued";
    }
}

bool index_segment_get(const struct view *v, struct index_segment *out)
{
    const struct ann_file *a = segment_ann(v->segment);
    if (!a)
        return false;
    bool unknown = a->shape.builder == BUILDER_AUTO; /* an older release: it had FAISS only */
    *out = (struct index_segment){
        .id = v->segment->id,
        .rows = v->segment->rows,
        .kind = a->shape.kind,
        .builder = index_builder_name(unknown ? BUILDER_FAISS : a->shape.builder),
        .codes = !a->codes                         ? "none"
                 : a->scale.scheme == CODE_UNIFORM ? "uniform"
                                                   : "scaled",
        .why = why_no_codes(a),
        .rerank_permille = a->codes ? a->scale.rerank_permille : 0,
        .recall = a->codes || a->verdict == CODES_REFUSED ? (double)a->code_recall : -1};
    return true;
}
