/* Measures the recall of a structure that was just written, and puts the curve into its file.
 *
 *   file ─ opened, attached to the segment ─ rows as queries (recall_measure.c)
 *        └─ for k 1, 10, 32, 100: rising efforts, until hardly anything is missed ─> ANN_CURVE
 *
 * Costs a small part of what the build took: the true neighbours are found for as many rows as a
 * twentieth of that pays for, the efforts get as much again. LEAST rows are always asked.
 *
 * Threads: one. Failure: a sentence; the file is then worthless. */
#include "index/ann_format.h"
#include "index/build_internal.h"
#include "index/recall_measure.h"

enum { MOST = 1000, LEAST = 200, FLAT = 3, QUERY_BYTES_MAX = 16 << 20 };

#define COST_SHARE 0.05
#define COST_LEAST_US 6e5
#define COST_GROWTH 1.25 /* of a query, from one effort to the next */
#define WANTED 0.85      /* recall below which nobody asks */
#define FLAT_GAIN 0.0003

static const uint32_t ks[] = {1, 10, 32, 100};
enum { KS = sizeof(ks) / sizeof(ks[0]) };

struct curve {
    const struct build *build;
    enum index_kind kind;
    uint32_t size; /* nodes or lists */
    struct recall_sample sample;
    struct recall_point points[KS * RECALL_POINTS];
    uint32_t npoints;
    double left_us; /* of the budget */
};

static struct snapshot *snapshot_of(const struct build *b)
{
    struct snapshot *s = calloc(1, sizeof(*s) + sizeof(s->views[0]));
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(b->segment->schema);
    s->rows = b->segment->rows;
    s->vectors = b->vectors;
    s->nviews = 1;
    s->views[0] = (struct view){
        .segment = segment_acquire(b->segment), .rows = b->segment->rows, .live = b->segment->rows};
    return s;
}

/* How many queries the next point gets: few where the last one is too low for anybody to want. */
static uint32_t affordable(const struct curve *c, const struct recall_point *last, double budget_us)
{
    double n = c->sample.known;
    if (last && last->us > 0)
        n = recall_mean(last) < WANTED ? LEAST : budget_us / (last->us * COST_GROWTH);
    n = n < LEAST ? LEAST : n;
    return n < c->sample.known ? (uint32_t)n : c->sample.known;
}

/* Whether the last FLAT steps gained nothing: what is missed then no effort finds. */
static bool is_flat(const struct recall_point *p)
{
    return recall_mean(p) > WANTED && recall_mean(p) - recall_mean(p - FLAT) < FLAT_GAIN;
}

static enum err measure_k(struct curve *c, unsigned i, struct err_ctx *ctx)
{
    double budget_us = c->left_us / (KS - i);
    const struct recall_point *last = NULL;
    for (uint32_t j = 0, effort; (effort = recall_effort_at(c->kind, c->size, ks[i], j)); j++) {
        struct recall_point *p = &c->points[c->npoints];
        uint32_t queries = affordable(c, last, budget_us);
        RETURN_NOT_OK(recall_try(&c->sample, ks[i], queries, &effort, p, ctx));
        p->effort = effort;
        c->npoints++;
        budget_us -= p->us * queries;
        c->left_us -= p->us * queries;
        last = p;
        if (recall_lower(p) > RECALL_ENOUGH || p->sum >= queries || (j >= FLAT && is_flat(p)))
            break;
    }
    build_progress_curve((double)(i + 2) / (KS + 1));
    return ERR_OK;
}

static enum err measure(struct curve *c, const struct snapshot *s, struct err_ctx *ctx)
{
    uint64_t most = QUERY_BYTES_MAX / (s->schema->dim * sizeof(float));
    double budget_us = recall_process_us() * COST_SHARE;
    budget_us = budget_us < COST_LEAST_US ? COST_LEAST_US : budget_us;
    most = most < LEAST ? LEAST : most > MOST ? MOST : most;
    RETURN_NOT_OK(recall_draw(s, ks[KS - 1], (uint32_t)most, s->vectors, &c->sample, ctx));
    c->sample.unknown = true;
    RETURN_NOT_OK(recall_find_truth(&c->sample, LEAST, budget_us, ctx));
    build_progress_curve(1.0 / (KS + 1));
    c->left_us = budget_us;
    for (unsigned i = 0; i < KS && c->sample.known > 0; i++)
        RETURN_NOT_OK(measure_k(c, i, ctx));
    return ERR_OK;
}

static enum err append(const struct curve *c, const char *path, struct err_ctx *ctx)
{
    struct buf section = {0};
    recall_encode(c->points, c->npoints, &section);
    enum err e = section.failed ? err_no_memory(ctx, sizeof(c->points))
                                : ann_file_append(c->build->io, path, ANN_CURVE, section.data,
                                                  section.len, ctx);
    buf_deinit(&section);
    return e;
}

enum err build_curve(const struct build *b, const char *path, struct err_ctx *ctx)
{
    struct ann_file *a;
    RETURN_NOT_OK(ann_file_open(path, &a, ctx));
    struct curve c = {.build = b, .kind = a->shape.kind};
    c.size = c.kind == INDEX_IVF ? a->shape.nlist : a->shape.nodes + a->shape.twins;
    segment_set_ann(b->segment, a, ann_file_close);
    struct snapshot *s = snapshot_of(b);
    enum err e = s ? measure(&c, s, ctx) : err_no_memory(ctx, sizeof(*s));
    recall_sample_deinit(&c.sample);
    snapshot_release(s);
    return e == ERR_OK ? append(&c, path, ctx) : e;
}
