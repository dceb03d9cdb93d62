/* Search over a snapshot: which view is walked, which is scanned, and for whom.
 *
 *   group of queries (as many as fit a few MiB of candidates)
 *     for each view:  graph ─ walk for each query; who found too little scans the view alone
 *                     lists ─ the nearest lists for each query
 *                     none  ─ one scan for all queries of the group
 *     for each query: settle the candidates of all views
 *
 * All views feed the same candidates, so merging needs no step of its own. Indexed views come
 * first: their rows tighten the bounds before the scans begin.
 *
 * The structure of a segment may be replaced at any time. A group stays in one epoch section, so
 * what it has found there stays mapped until it is done.
 *
 * Threads: one scratch per thread, made at first use, freed when the thread ends; nothing else is
 * shared. Failure: no memory when a scratch grows; the snapshot is untouched. */
#include "index/search_internal.h"

#include <pthread.h>
#include <string.h>

#include "base/epoch.h"
#include "index/distance.h"

enum { GROUP_BYTES = 8 << 20, GROUP_QUERIES_MAX = 64, EF_DEFAULT = 128 };

/* ---- scratch ---- */

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static bool scratch_key_made;

static void scratch_free(void *arg)
{
    struct search_scratch *s = arg;
    struct buf *all[] = {&s->collects, &s->bounds,  &s->found,    &s->queries,   &s->rows,
                         &s->pointers, &s->visited, &s->touched,  &s->distances, &s->nodes,
                         &s->detour,   &s->list,    &s->measured, &s->lists,     &s->plan};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        buf_deinit(all[i]);
    free(s);
}

static void scratch_make_key(void)
{
    scratch_key_made = pthread_key_create(&scratch_key, scratch_free) == 0;
}

struct search_scratch *search_scratch_local(void)
{
    static __thread struct search_scratch *mine;
    if (mine)
        return mine;
    pthread_once(&scratch_once, scratch_make_key);
    struct search_scratch *s = scratch_key_made ? calloc(1, sizeof(*s)) : NULL;
    if (s && pthread_setspecific(scratch_key, s) != 0) {
        free(s);
        s = NULL;
    }
    return mine = s;
}

void *scratch_room(struct buf *b, size_t n, size_t size)
{
    size_t bytes;
    if (!checked_mul(n, size, &bytes))
        return NULL;
    b->failed = false;
    b->len = b->cap; /* growing keeps what is there: the bits of a bitmap, the nodes of a heap */
    if (bytes > b->cap && !buf_reserve(b, bytes - b->cap))
        return NULL;
    return b->data;
}

/* ---- queries ---- */

enum err search_check_query(const struct schema *s, const float *query, size_t index,
                            struct err_ctx *ctx)
{
    bool zero = true;
    for (uint32_t i = 0; i < s->dim; i++) {
        if (!isfinite(query[i]))
            return err_set(ctx, ERR_UNPROCESSABLE,
                           "query %zu: element %u is %s; every element must be a finite number",
                           index, i, isnan(query[i]) ? "NaN" : "infinite");
        zero = zero && query[i] == 0;
    }
    if (zero && s->metric == DIST_COSINE)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "query %zu is a zero vector, which has no direction: cosine distance is "
                       "not defined for it",
                       index);
    return ERR_OK;
}

static uint32_t effort(const struct search_params *p)
{
    uint32_t ef = p->ef ? p->ef : EF_DEFAULT;
    return ef < p->k ? p->k : ef;
}

static size_t group_size(const struct search_params *p, uint32_t dim, size_t nq)
{
    size_t each = p->k * sizeof(float) + (p->k + COLLECT_SPARE) * sizeof(struct candidate) +
                  dim * sizeof(float);
    size_t n = GROUP_BYTES / each;
    n = n < 1 ? 1 : n > GROUP_QUERIES_MAX ? GROUP_QUERIES_MAX : n;
    return n < nq ? n : nq;
}

/* The query at length 1, so that its squares stay within float. */
static const float *scale_query(const float *q, double norm2, uint32_t dim, float *out)
{
    double inv = 1 / sqrt(norm2);
    for (uint32_t i = 0; i < dim; i++)
        out[i] = (float)(q[i] * inv);
    return out;
}

static struct collect *start_group(const struct snapshot *s, const float *queries, size_t n,
                                   const struct search_params *p, struct search_scratch *scratch)
{
    uint32_t dim = s->schema->dim, found_max = p->k + COLLECT_SPARE;
    struct collect *all = scratch_room(&scratch->collects, n, sizeof(*all));
    float *bounds = scratch_room(&scratch->bounds, n * p->k, sizeof(float));
    struct candidate *found = scratch_room(&scratch->found, n * found_max, sizeof(*found));
    float *scaled = scratch_room(&scratch->queries, n * dim, sizeof(float));
    if (!all || !bounds || !found || !scaled)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        const float *q = queries + i * dim;
        double norm2 = distance_norm2(q, dim);
        bool scale = s->schema->metric == DIST_COSINE;
        all[i] =
            (struct collect){.snapshot = s,
                             .query = q,
                             .scaled = scale ? scale_query(q, norm2, dim, scaled + i * dim) : q,
                             .norm2 = norm2,
                             .exclude = {UINT32_MAX, 0},
                             .k = p->k,
                             .candidates_max = found_max,
                             .bound = INFINITY,
                             .bounds = bounds + i * p->k,
                             .candidates = found + i * found_max};
    }
    return all;
}

/* ---- views ---- */

/* The structure to search a view with; NULL: a scan costs less or is the only way. */
static const struct ann_file *ann_of_view(const struct view *v, const struct search_params *p)
{
    const struct ann_file *a = p->exact ? NULL : segment_ann(v->segment);
    if (!a)
        return NULL;
    bool pays =
        a->shape.kind == INDEX_IVF ? ivf_pays(v, a, p->nprobe) : graph_pays(v, a, effort(p));
    return pays ? a : NULL;
}

static enum err walk_view(const struct snapshot *s, uint32_t view, const struct ann_file *a,
                          const struct search_params *p, struct collect *queries, size_t n,
                          struct search_scratch *scratch, struct err_ctx *ctx)
{
    for (size_t i = 0; i < n; i++) {
        bool enough = true;
        if (a->shape.kind == INDEX_IVF)
            RETURN_NOT_OK(ivf_search(s, view, a, p->nprobe, &queries[i], scratch, ctx));
        else
            RETURN_NOT_OK(graph_search(s, view, a, effort(p), &queries[i], scratch, &enough, ctx));
        if (!enough)
            RETURN_NOT_OK(exact_scan(s, view, &queries[i], 1, scratch, ctx));
    }
    return ERR_OK;
}

/* Every view once. What it is searched with is decided once too: a structure that comes or goes
 * between the passes changes nothing. */
static enum err search_views(const struct snapshot *s, const struct search_params *p,
                             struct collect *queries, size_t n, struct search_scratch *scratch,
                             struct err_ctx *ctx)
{
    const struct ann_file **plan = scratch_room(&scratch->plan, s->nviews, sizeof(*plan));
    if (!plan)
        return err_no_memory(ctx, s->nviews * sizeof(*plan));
    for (uint32_t i = 0; i < s->nviews; i++)
        plan[i] = ann_of_view(&s->views[i], p);
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (plan[i] && s->views[i].live > 0)
            RETURN_NOT_OK(walk_view(s, i, plan[i], p, queries, n, scratch, ctx));
    }
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (!plan[i] && s->views[i].live > 0)
            RETURN_NOT_OK(exact_scan(s, i, queries, n, scratch, ctx));
    }
    return ERR_OK;
}

static enum err check_params(const struct snapshot *s, size_t nq, const struct search_params *p,
                             const struct search_scratch *scratch, struct err_ctx *ctx)
{
    if (s->schema->dim == 0)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "this collection has no vectors, so it cannot be searched; fetch by key");
    if (p->k < 1 || p->k > SEARCH_K_MAX)
        return err_set(ctx, ERR_INVALID, "k is %u; it must be 1 to %d", p->k, SEARCH_K_MAX);
    if (p->ef > SEARCH_EF_MAX)
        return err_set(ctx, ERR_INVALID, "ef is %u; it must be 1 to %d", p->ef, SEARCH_EF_MAX);
    if (p->nprobe > SEARCH_NPROBE_MAX)
        return err_set(ctx, ERR_INVALID, "nprobe is %u; it must be 1 to %d", p->nprobe,
                       SEARCH_NPROBE_MAX);
    if (nq > SEARCH_QUERIES_MAX)
        return err_set(ctx, ERR_TOO_LARGE, "%zu queries in one request; the limit is %d", nq,
                       SEARCH_QUERIES_MAX);
    return scratch ? ERR_OK : err_set(ctx, ERR_NO_MEMORY, "out of memory for a search");
}

/* Cuts sorted hits at the radius; returns how many stay. */
static uint32_t within(const struct search_params *p, const struct hit *hits, uint32_t n)
{
    while (p->bounded && n > 0 && (float)hits[n - 1].distance > (float)p->radius)
        n--;
    return n;
}

static enum err search_group(const struct snapshot *s, const struct search_params *p,
                             struct collect *queries, size_t n, struct search_scratch *scratch,
                             struct hit *hits, uint32_t *nhits, struct err_ctx *ctx)
{
    RETURN_NOT_OK(search_views(s, p, queries, n, scratch, ctx));
    for (size_t i = 0; i < n; i++) {
        struct hit *to = hits + i * p->k;
        nhits[i] = within(p, to, collect_finish(&queries[i], to));
    }
    return ERR_OK;
}

enum err search_run(const struct snapshot *s, const float *queries, size_t nq,
                    const struct search_params *p, struct search_scratch *scratch, struct hit *hits,
                    uint32_t *nhits, struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_params(s, nq, p, scratch, ctx));
    scratch->cancel = p->cancel;
    size_t group = group_size(p, s->schema->dim, nq);
    for (size_t first = 0, n; first < nq; first += n) {
        n = nq - first < group ? nq - first : group;
        struct collect *all = start_group(s, queries + first * s->schema->dim, n, p, scratch);
        if (!all)
            return err_set(ctx, ERR_NO_MEMORY, "out of memory for a search");
        for (size_t i = 0; p->exclude && i < n; i++)
            all[i].exclude = p->exclude[first + i];
        epoch_enter();
        enum err e = search_group(s, p, all, n, scratch, hits + first * p->k, nhits + first, ctx);
        epoch_leave();
        RETURN_NOT_OK(e);
    }
    return ERR_OK;
}

/* ---- cost ---- */

/* Measured: a scan streams its rows from memory once and computes for each query; a walk of effort
 * ef measures about (ef + 30) x (8 + m / 4) rows scattered over memory, a search by lists the
 * centroids and the rows of the lists. A radius changes nothing: it cuts what was found. */
static double view_cost_us(const struct snapshot *s, const struct view *v, double nq,
                           const struct search_params *p)
{
    const double stream_us = 0.0002, compute_us = 0.00004, row_us = 0.004; /* per float, row */
    const double jump_us = 0.03, scattered_us = 0.00012;
    double dim = s->schema->dim;
    double scan = v->rows * (dim * (stream_us + compute_us * nq) + row_us * nq);
    const struct ann_file *a = ann_of_view(v, p);
    if (!a)
        return scan;
    if (a->shape.kind == INDEX_IVF)
        return ivf_rows_read(v, a, p->nprobe) * (row_us + jump_us / 4 + dim * scattered_us) * nq;
    double steps = (effort(p) + 30.0) * (8 + a->shape.m / 4.0);
    return steps < v->rows / 2.0 ? steps * (jump_us + dim * scattered_us) * nq : scan;
}

double search_cost_us(const struct snapshot *s, size_t nq, const struct search_params *p)
{
    double cost = 2 * (double)nq;
    epoch_enter();
    for (uint32_t i = 0; i < s->nviews; i++)
        cost += view_cost_us(s, &s->views[i], (double)nq, p);
    epoch_leave();
    return cost;
}

void search_plan_get(const struct snapshot *s, const struct search_params *p,
                     struct search_plan *out)
{
    *out = (struct search_plan){0};
    epoch_enter();
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct ann_file *a = ann_of_view(&s->views[i], p);
        out->graphs += a && a->shape.kind != INDEX_IVF;
        out->lists += a && a->shape.kind == INDEX_IVF;
        out->scans += !a;
        out->rows_scanned += a ? 0 : s->views[i].live;
    }
    epoch_leave();
}
