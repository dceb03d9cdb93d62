/* Search over a snapshot: which view is walked, which is scanned, and for whom.
 *
 *   group of queries (as many as fit a few MiB of candidates)
 *     for each view:  graph ─ walk for each query; who found too little scans the view alone
 *                     lists ─ the nearest lists for each query
 *                     none  ─ one scan for all queries of the group, by codes or by vectors
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
#include "index/recall_live.h"

enum { GROUP_BYTES = 8 << 20, GROUP_QUERIES_MAX = 64 };

/* ---- scratch ---- */

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static bool scratch_key_made;

static void scratch_free(void *arg)
{
    struct search_scratch *s = arg;
    struct buf *all[] = {&s->collects,   &s->bounds, &s->found, &s->queries,    &s->rows,
                         &s->pointers,   &s->lists,  &s->plan,  &s->matches,    &s->code,
                         &s->best,       &s->coded,  &s->walks, &s->code_nodes, &s->code_best,
                         &s->code_found, &s->reads,  &s->read};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        buf_deinit(all[i]);
    for (size_t i = 0; i < WALK_LANES; i++) {
        buf_deinit(&s->rooms[i].visited);
        buf_deinit(&s->rooms[i].arrays);
        buf_deinit(&s->rooms[i].detour);
    }
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
                             .unknown = p->unknown,
                             .k = p->k,
                             .candidates_max = found_max,
                             .bound = INFINITY,
                             .bounds = bounds + i * p->k,
                             .candidates = found + i * found_max};
    }
    return all;
}

/* ---- views ---- */

/* Who found too little scans the view. */
static enum err walk_view(const struct snapshot *s, struct view_plan *plan, struct collect *queries,
                          size_t n, struct search_scratch *scratch, struct err_ctx *ctx)
{
    bool enough[GROUP_QUERIES_MAX];
    RETURN_NOT_OK(graph_search(s, plan, queries, n, enough, scratch, ctx));
    for (size_t i = 0; i < n; i++) {
        if (enough[i])
            continue;
        if (plan->short_of_time)
            return err_set(ctx, ERR_AGAIN, "the search takes longer than this thread may");
        if (n > 1)
            plan_match_all(s, plan, scratch);
        RETURN_NOT_OK(scan_view(s, plan, &queries[i], 1, scratch, ctx));
    }
    return ERR_OK;
}

static enum err search_view(const struct snapshot *s, struct view_plan *plan,
                            struct collect *queries, size_t n, struct search_scratch *scratch,
                            struct err_ctx *ctx)
{
    if (!plan->a)
        return scan_view(s, plan, queries, n, scratch, ctx);
    if (plan->a->shape.kind != INDEX_IVF)
        return walk_view(s, plan, queries, n, scratch, ctx);
    for (size_t i = 0; i < n; i++)
        RETURN_NOT_OK(ivf_search(s, plan, plan->effort, &queries[i], scratch, ctx));
    return ERR_OK;
}

/* Every view once. What it is searched with is decided once too: a structure that comes or goes
 * between the passes changes nothing. */
static enum err search_views(const struct snapshot *s, struct view_plan *plan,
                             struct collect *queries, size_t n, struct search_scratch *scratch,
                             struct err_ctx *ctx)
{
    for (int indexed = 1; indexed >= 0; indexed--) {
        for (uint32_t i = 0; i < s->nviews; i++) {
            if ((plan[i].a != NULL) == indexed && s->views[i].live > 0)
                RETURN_NOT_OK(search_view(s, &plan[i], queries, n, scratch, ctx));
        }
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
    if (!(p->recall >= 0 && p->recall <= 1))
        return err_set(ctx, ERR_INVALID, "recall is %.9g; it must be above 0, and 1 at most",
                       p->recall);
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

static void choose_ways(const struct snapshot *s, const struct search_params *p, size_t nq,
                        size_t group, struct view_plan *plan, struct search_scratch *scratch)
{
    plan_choose(s, p, nq, plan);
    for (uint32_t i = 0; p->filter && i < s->nviews; i++) {
        if (plan_match_pays(&plan[i], p, nq, group))
            plan_match_all(s, &plan[i], scratch);
    }
}

/* Adds the plan to the report; ERR_UNPROCESSABLE when the recall asked for is out of reach. */
static enum err settle_plan(const struct snapshot *s, const struct search_params *p,
                            const struct view_plan *plan, struct err_ctx *ctx)
{
    struct search_report *r = p->report;
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (s->views[i].live == 0)
            continue;
        if (plan[i].a && plan[i].unreached)
            return err_set_at(
                ctx, ERR_UNPROCESSABLE, -1, "recall",
                "recall %.9g at k = %u is out of reach of the index: the highest that "
                "was measured, with 95 %% confidence, is %.4f; ask for less, or for "
                "exact",
                p->recall, p->k, floor(plan[i].highest * 1e4) / 1e4);
        if (!r)
            continue;
        bool ivf = plan[i].a && plan[i].a->shape.kind == INDEX_IVF;
        uint32_t *effort = ivf ? &r->nprobe : &r->ef;
        *effort = *effort < plan[i].effort ? plan[i].effort : *effort;
        if (!isnan(r->recall) && !(plan[i].recall >= r->recall))
            r->recall = plan[i].recall;
    }
    return ERR_OK;
}

static enum err search_group(const struct snapshot *s, const struct search_params *p,
                             struct view_plan *plan, struct collect *queries, size_t n,
                             struct search_scratch *scratch, struct hit *hits, uint32_t *nhits,
                             struct err_ctx *ctx)
{
    RETURN_NOT_OK(search_views(s, plan, queries, n, scratch, ctx));
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
    struct view_plan *plan = scratch_room(&scratch->plan, s->nviews + 1u, sizeof(*plan));
    if (!plan)
        return err_no_memory(ctx, s->nviews * sizeof(*plan));
    plan_start(s, p, plan);
    size_t group = group_size(p, s->schema->dim, nq);
    bool borrows = !p->exact || p->filter; /* structures, or bits of a filter */
    for (size_t first = 0, n; first < nq; first += n) {
        n = nq - first < group ? nq - first : group;
        struct collect *all = start_group(s, queries + first * s->schema->dim, n, p, scratch);
        if (!all)
            return err_set(ctx, ERR_NO_MEMORY, "out of memory for a search");
        for (size_t i = 0; p->exclude && i < n; i++)
            all[i].exclude = p->exclude[first + i];
        if (borrows)
            epoch_enter();
        choose_ways(s, p, nq, group, plan, scratch);
        enum err e = settle_plan(s, p, plan, ctx);
        if (e == ERR_OK)
            e = search_group(s, p, plan, all, n, scratch, hits + first * p->k, nhits + first, ctx);
        if (e == ERR_OK)
            recall_live_offer(s, queries + first * s->schema->dim, n, p, first, plan);
        if (borrows)
            epoch_leave();
        RETURN_NOT_OK(e);
    }
    return ERR_OK;
}
