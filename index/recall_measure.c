/* Recall measured with rows as queries.
 *
 *   rows, one of each stratum ─ exact search, itself left out ─> distances of the true k nearest
 *        └─ search at an effort, itself left out ─> how many hits are no farther than the k-th
 *
 * A row that is a query must be as hard to find neighbours for as a query from outside. In a graph
 * it is not: it is linked to its neighbours. So walks are made as if the graph had never known the
 * row (search_params.unknown), and rows of upper layers, which many links lead to, or with twins,
 * whose node must stay, are not drawn.
 *
 * Hits count by their distance, which is computed in double: rows that tie with the k-th are as
 * good as it.
 *
 * Threads: one. Failure: no memory; ERR_UNAVAILABLE once cancelled. */
#include "index/recall_measure.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "base/epoch.h"
#include "index/search_internal.h"

enum { GROUP = 64, ATTEMPTS = 200 };

#define EFFORT_STEP 1.3

static double clock_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

double recall_thread_us(void)
{
    return clock_us(CLOCK_THREAD_CPUTIME_ID);
}

double recall_process_us(void)
{
    return clock_us(CLOCK_PROCESS_CPUTIME_ID);
}

/* ---- efforts ---- */

static uint32_t first_effort(enum index_kind kind, uint32_t k)
{
    return kind == INDEX_IVF ? 1 : k < 4 ? 4 : k;
}

uint32_t recall_effort_at(enum index_kind kind, uint32_t size, uint32_t k, uint32_t i)
{
    uint32_t most = kind == INDEX_IVF ? size - 1 : size / 4;
    most = most < RECALL_EFFORT_MAX ? most : RECALL_EFFORT_MAX;
    if (i >= RECALL_POINTS)
        return 0;
    uint32_t effort = first_effort(kind, k);
    for (; i > 0; i--) {
        uint32_t more = (uint32_t)(effort * EFFORT_STEP);
        effort = more > effort ? more : effort + 1;
    }
    return effort <= most ? effort : 0;
}

/* ---- drawing ---- */

/* splitmix64 (S. Vigna). */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Row `at` of all rows of the snapshot, dead ones too. */
static struct row_ref row_at(const struct snapshot *s, uint64_t at)
{
    uint32_t view = 0;
    while (at >= s->views[view].rows)
        at -= s->views[view++].rows;
    return (struct row_ref){view, (uint32_t)at};
}

/* Whether it is as hard to find as a vector from outside. */
static bool is_plain(const struct ann_file *a, uint32_t row)
{
    uint32_t twins;
    if (!a || a->shape.kind == INDEX_IVF)
        return true;
    uint32_t node = ann_node(a, row);
    if (node == ANN_NONE || node == a->entry || a->upper_at[node] != ANN_NONE)
        return false;
    ann_twins(a, node, &twins);
    return twins == 0;
}

static bool may_draw(const struct snapshot *s, struct row_ref ref)
{
    const struct view *v = &s->views[ref.view];
    return view_live(v, ref.row) && segment_vector(v->segment, ref.row) &&
           is_plain(segment_ann(v->segment), ref.row);
}

/* A step that visits all of n places, each next one far from those before it. */
static uint32_t spread_step(uint32_t n)
{
    uint32_t step = (uint32_t)(n * 0.618) | 1;
    for (uint32_t a = step, b = n; b != 1;) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
        if (b == 0) { /* not coprime */
            step += 2;
            a = step;
            b = n;
        }
    }
    return step;
}

/* The strata come in an order of which any beginning is spread over all rows: who can afford only
 * some of the queries takes the first. */
static void draw_rows(struct recall_sample *out, uint64_t rows, uint32_t most, uint64_t seed)
{
    const struct snapshot *s = out->snapshot;
    uint32_t dim = s->schema->dim;
    uint32_t step = spread_step(most);
    epoch_enter();
    for (uint32_t i = 0; i < most; i++) {
        uint64_t at = (uint64_t)i * step % most, from = rows * at / most;
        uint64_t to = rows * (at + 1) / most;
        for (int attempt = 0; attempt < ATTEMPTS && from < to; attempt++) {
            struct row_ref ref = row_at(s, from + draw(&seed) % (to - from));
            if (!may_draw(s, ref))
                continue;
            memcpy(out->queries + (size_t)out->n * dim,
                   segment_vector(s->views[ref.view].segment, ref.row), dim * sizeof(float));
            out->rows[out->n++] = ref;
            break;
        }
    }
    epoch_leave();
}

static enum err allocate(struct recall_sample *s, uint32_t n, struct err_ctx *ctx)
{
    uint32_t dim = s->snapshot->schema->dim, group = n < GROUP ? n : GROUP;
    s->queries = calloc(n, dim * sizeof(float));
    s->rows = calloc(n, sizeof(*s->rows));
    s->truth = calloc((size_t)n * s->k, sizeof(*s->truth));
    s->ntruth = calloc(n, sizeof(*s->ntruth));
    s->hits = calloc((size_t)group * s->k, sizeof(*s->hits));
    s->nhits = calloc(group, sizeof(*s->nhits));
    if (s->queries && s->rows && s->truth && s->ntruth && s->hits && s->nhits)
        return ERR_OK;
    recall_sample_deinit(s);
    return err_no_memory(ctx, n * (dim * sizeof(float) + s->k * sizeof(double)));
}

enum err recall_draw(const struct snapshot *s, uint32_t k, uint32_t most, uint64_t seed,
                     struct recall_sample *out, struct err_ctx *ctx)
{
    uint64_t rows = 0;
    *out = (struct recall_sample){.snapshot = s, .k = k};
    for (uint32_t i = 0; i < s->nviews; i++)
        rows += s->views[i].rows;
    most = rows < most ? (uint32_t)rows : most;
    if (most == 0)
        return ERR_OK;
    RETURN_NOT_OK(allocate(out, most, ctx));
    draw_rows(out, rows, most, seed);
    return ERR_OK;
}

enum err recall_of_query(const struct snapshot *s, uint32_t k, const float *query,
                         struct row_ref exclude, struct recall_sample *out, struct err_ctx *ctx)
{
    *out = (struct recall_sample){.snapshot = s, .k = k};
    RETURN_NOT_OK(allocate(out, 1, ctx));
    memcpy(out->queries, query, s->schema->dim * sizeof(float));
    out->rows[0] = exclude;
    out->n = 1;
    return ERR_OK;
}

void recall_sample_deinit(struct recall_sample *s)
{
    free(s->queries);
    free(s->rows);
    free(s->truth);
    free(s->ntruth);
    free(s->hits);
    free(s->nhits);
    *s = (struct recall_sample){0};
}

/* ---- searching ---- */

/* Queries [from, from + n), n <= GROUP, to hits and nhits. */
static enum err search_group(struct recall_sample *s, uint32_t from, uint32_t n,
                             struct search_params *p, struct err_ctx *ctx)
{
    struct search_scratch *scratch = search_scratch_local();
    if (!scratch)
        return err_no_memory(ctx, 0);
    if (s->cancel && atomic_load(s->cancel))
        return err_set(ctx, ERR_UNAVAILABLE, "the measurement was cut off: the daemon stops");
    p->filter = s->filter;
    p->cancel = s->cancel;
    p->exclude = s->rows + from;
    p->unknown = s->unknown;
    p->unsampled = true;
    return search_run(s->snapshot, s->queries + (size_t)from * s->snapshot->schema->dim, n, p,
                      scratch, s->hits, s->nhits, ctx);
}

enum err recall_find_truth(struct recall_sample *s, uint32_t least, double budget_us,
                           struct err_ctx *ctx)
{
    double start_us = recall_thread_us(), used_us = 0;
    struct search_params p = {.k = s->k, .exact = true};
    while (s->known < s->n && (s->known < least || used_us < budget_us)) {
        uint32_t n = s->n - s->known < GROUP ? s->n - s->known : GROUP;
        RETURN_NOT_OK(search_group(s, s->known, n, &p, ctx));
        for (uint32_t i = 0; i < n; i++) {
            double *to = s->truth + (size_t)(s->known + i) * s->k;
            for (uint32_t j = 0; j < s->nhits[i]; j++)
                to[j] = s->hits[(size_t)i * s->k + j].distance;
            s->ntruth[s->known + i] = s->nhits[i];
        }
        s->known += n;
        used_us = recall_thread_us() - start_us;
    }
    s->exact_us = s->known ? used_us / s->known : 0;
    return ERR_OK;
}

/* Share of the true k nearest of query i among its n hits. */
static double recall_of(const struct recall_sample *s, uint32_t i, uint32_t k,
                        const struct hit *hits, uint32_t n)
{
    uint32_t want = s->ntruth[i] < k ? s->ntruth[i] : k, found = 0;
    if (want == 0)
        return 1;
    double last = s->truth[(size_t)i * s->k + want - 1];
    while (found < n && found < want && hits[found].distance <= last)
        found++;
    return (double)found / want;
}

enum err recall_try(struct recall_sample *s, uint32_t k, uint32_t queries, const uint32_t *efforts,
                    struct recall_point *out, struct err_ctx *ctx)
{
    double start_us = recall_thread_us();
    struct search_params p = {.k = k, .efforts = efforts};
    *out = (struct recall_point){.k = k, .queries = queries};
    for (uint32_t from = 0, n; from < queries; from += n) {
        n = queries - from < GROUP ? queries - from : GROUP;
        RETURN_NOT_OK(search_group(s, from, n, &p, ctx));
        for (uint32_t i = 0; i < n; i++) {
            double r = recall_of(s, from + i, k, s->hits + (size_t)i * k, s->nhits[i]);
            out->sum += r;
            out->sum2 += r * r;
        }
    }
    out->us = queries ? (recall_thread_us() - start_us) / queries : 0;
    return ERR_OK;
}

/* ---- all structures of a snapshot ---- */

/* The largest structure of each kind; 0: there is none. */
static void find_sizes(const struct snapshot *s, uint32_t *nodes, uint32_t *lists)
{
    *nodes = *lists = 0;
    epoch_enter();
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct ann_file *a = segment_ann(s->views[i].segment);
        if (!a || s->views[i].live == 0)
            continue;
        if (a->shape.kind == INDEX_IVF && a->shape.nlist > *lists)
            *lists = a->shape.nlist;
        else if (a->shape.kind != INDEX_IVF && a->shape.nodes + a->shape.twins > *nodes)
            *nodes = a->shape.nodes + a->shape.twins;
    }
    epoch_leave();
}

/* What each view is searched with; a view without structure is scanned whatever stands there. */
static void fill_efforts(const struct snapshot *s, const struct recall_step *step,
                         uint32_t *efforts)
{
    epoch_enter();
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct ann_file *a = segment_ann(s->views[i].segment);
        efforts[i] = a && a->shape.kind == INDEX_IVF ? step->nprobe : step->ef;
    }
    epoch_leave();
}

/* Moves on to the i-th effort of each kind, or leaves the last one; false behind the last of both.
 */
static bool next_step(struct recall_step *step, uint32_t nodes, uint32_t lists, uint32_t k,
                      uint32_t i)
{
    uint32_t ef = nodes ? recall_effort_at(INDEX_HNSW, nodes, k, i) : 0;
    uint32_t nprobe = lists ? recall_effort_at(INDEX_IVF, lists, k, i) : 0;
    step->ef = ef ? ef : step->ef;
    step->nprobe = nprobe ? nprobe : step->nprobe;
    return ef || nprobe;
}

enum err recall_sweep(struct recall_sample *s, uint32_t k, double budget_us,
                      struct recall_step *steps, uint32_t *n, struct err_ctx *ctx)
{
    uint32_t nodes, lists, *efforts = calloc(s->snapshot->nviews + 1u, sizeof(*efforts));
    struct recall_step step = {0};
    enum err e = efforts ? ERR_OK : err_no_memory(ctx, s->snapshot->nviews * sizeof(*efforts));
    find_sizes(s->snapshot, &nodes, &lists);
    *n = 0;
    while (e == ERR_OK && s->known > 0 && budget_us > 0 && next_step(&step, nodes, lists, k, *n)) {
        fill_efforts(s->snapshot, &step, efforts);
        e = recall_try(s, k, s->known, efforts, &step.point, ctx);
        if (e != ERR_OK)
            break;
        steps[(*n)++] = step;
        budget_us -= step.point.us * s->known;
        if (recall_lower(&step.point) > RECALL_ENOUGH || step.point.sum >= s->known)
            break;
    }
    free(efforts);
    return e;
}
