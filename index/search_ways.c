/* By which way a view is searched, and what that costs.
 *
 *   filter matches few rows of the view   scan of those: 1 pass of the filter + their distances
 *                  many                   walk or lists, over what does not match too
 *
 * Few and many are told by cost: a walk for ef matching rows crosses ef / share rows, each measured
 * with its neighbours; a scan looks at every row's features and measures share x rows. The share is
 * estimated from a sample, so it may be wrong, and rows that match may lie far from the query. So a
 * walk gets a budget, the cost of the scan, after which the scan is made instead: the search takes
 * twice the better way's time at most, and its answer never has fewer hits than there are.
 *
 * When many queries come with one filter, it is worked out once for all rows (plan_match_all).
 *
 * Costs are measured on one core of a Zen 5, and rough: they decide between ways and between this
 * thread and a worker.
 *
 * Threads: per call. Failure: none. */
#include "index/search_internal.h"

#include "base/epoch.h"
#include "index/ivf.h"

enum { EF_DEFAULT = 128, FILTERED_TIMES = 2, SAMPLE_ROWS = 1024 };

/* Microseconds. A scan streams its rows from memory once and computes for each query; a walk jumps
 * from row to row; so does a look at the features of one. */
static const double stream_us = 0.0002, compute_us = 0.00004, row_us = 0.004; /* per float, row */
static const double jump_us = 0.03, scattered_us = 0.00012;
static const double skip_us = 0.008; /* to a row that is known ahead */

/* ---- allowed rows ---- */

uint64_t allowed_word(const struct allowed *a, uint32_t w)
{
    if (a->bits)
        return a->bits[w];
    uint64_t live = view_live_word(a->view, w);
    return a->filter ? filter_word(a->filter, a->view->segment, w, live) : live;
}

static uint32_t view_words(const struct view *v)
{
    return v->rows / 64 + (v->rows % 64 != 0);
}

void plan_match_all(const struct snapshot *s, struct view_plan *plan,
                    struct search_scratch *scratch)
{
    struct allowed *a = &plan->allowed;
    size_t words = 0, before = 0;
    if (!a->filter || a->bits)
        return;
    for (uint32_t i = 0; i < s->nviews; i++) {
        before += i < plan->view ? view_words(&s->views[i]) : 0;
        words += view_words(&s->views[i]);
    }
    uint64_t *bits = scratch_room(&scratch->matches, words, sizeof(*bits)), matching = 0;
    if (!bits)
        return;
    bits += before;
    for (uint32_t w = 0, n = view_words(a->view); w < n; w++) {
        bits[w] = allowed_word(a, w);
        matching += (unsigned)__builtin_popcountll(bits[w]);
    }
    a->bits = bits;
    plan->share = a->view->live ? (double)matching / a->view->live : 0;
}

/* ---- costs ---- */

/* Of a scan for nq queries; the filter is worked out once. */
static double scan_cost_us(const struct view_plan *plan, uint32_t dim, double nq)
{
    const struct view *v = plan->allowed.view;
    double each = dim * (stream_us + compute_us * nq) + row_us * nq;
    if (!plan->allowed.filter)
        return v->rows * each;
    double filter = plan->allowed.bits ? 0 : filter_row_ns(plan->allowed.filter) / 1000;
    double scattered = plan->share < 0.5 ? skip_us : 0;
    return v->rows * (filter + stream_us) + v->live * plan->share * (each + scattered);
}

/* Of looking at the features of one row. */
static double look_us(const struct view_plan *plan)
{
    const struct allowed *a = &plan->allowed;
    if (!a->filter)
        return 0;
    return a->bits ? jump_us / 4 : jump_us + filter_row_ns(a->filter) / 1000;
}

/* Nodes that a walk of effort ef measures, and what one costs: a quarter of them come near enough
 * to be looked at. */
static double walk_nodes(const struct ann_file *a, uint32_t ef, double share)
{
    return (ef / share + 30.0) * (8 + a->shape.m / 4.0);
}

static double node_cost_us(const struct view_plan *plan, uint32_t dim)
{
    return jump_us + dim * scattered_us + look_us(plan) / 4;
}

/* Rows that a search by lists looks at for one query. */
static double list_rows(const struct view_plan *plan, const struct search_params *p)
{
    const struct view *v = plan->allowed.view;
    double rows = ivf_rows_read(v, plan->a, plan->effort) - plan->a->shape.nlist, wanted = 0;
    if (plan->allowed.filter) {
        double in_list = (double)v->live / plan->a->shape.nlist * plan->share;
        rows = in_list < 1 ? rows / in_list : rows; /* lists without a match do not count */
        wanted = IVF_FILTERED * p->k / plan->share;
    }
    rows = rows > wanted ? rows : wanted;
    return rows < v->live ? rows : v->live;
}

static double list_cost_us(const struct view_plan *plan, const struct search_params *p,
                           uint32_t dim)
{
    double each = row_us + jump_us / 4 + dim * scattered_us;
    return plan->a->shape.nlist * each + list_rows(plan, p) * (plan->share * each + look_us(plan));
}

static double view_cost_us(const struct view_plan *plan, const struct search_params *p,
                           uint32_t dim, double nq)
{
    const struct ann_file *a = plan->a;
    if (!a)
        return scan_cost_us(plan, dim, nq);
    if (a->shape.kind == INDEX_IVF)
        return list_cost_us(plan, p, dim) * nq;
    double nodes = walk_nodes(a, plan->effort, plan->share);
    if (nodes >= plan->allowed.view->rows / 2.0) /* it gives up and scans */
        return scan_cost_us(plan, dim, nq);
    return nodes * node_cost_us(plan, dim) * nq;
}

/* ---- ways ---- */

static void estimate(struct view_plan *plan)
{
    if (isnan(plan->share))
        plan->share = filter_share(plan->allowed.filter, plan->allowed.view, SAMPLE_ROWS);
}

/* Rows that match may lie where the query does not: until live queries tell, a filter gets
 * FILTERED_TIMES what rows without one needed. Without a curve, recall can't be promised: who asks
 * for it gets a scan. */
static bool effort_by_recall(struct view_plan *plan, const struct ann_file *a,
                             const struct search_params *p, unsigned class)
{
    double target = p->recall > 0 ? p->recall : RECALL_DEFAULT;
    bool ivf = a->shape.kind == INDEX_IVF;
    struct recall_choice c = {0};
    if (a->curve)
        recall_choose(a->curve, target, p->k, class, &c);
    if (c.effort == 0) {
        plan->effort = ivf ? ivf_nprobe_default(a->shape.nlist) : EF_DEFAULT;
        plan->recall = NAN;
        return p->recall == 0;
    }
    plan->effort = c.effort * (class > 0 && !c.heard ? FILTERED_TIMES : 1);
    plan->recall = c.recall;
    plan->unreached = p->recall > 0 && !c.reached && !c.promised;
    plan->highest = c.highest;
    return p->recall == 0 || !c.scan;
}

/* Sets what the structure is searched with; false: not at all. */
static bool set_effort(struct view_plan *plan, const struct ann_file *a,
                       const struct search_params *p)
{
    bool ivf = a->shape.kind == INDEX_IVF;
    uint32_t asked = p->efforts ? p->efforts[plan->view] : ivf ? p->nprobe : p->ef;
    if (p->filter && a->curve)
        estimate(plan);
    unsigned class = recall_class(p->filter, plan->share);
    bool use = true;
    if (asked) {
        plan->effort = asked;
        plan->recall = a->curve ? recall_expect(a->curve, p->k, class, asked) : NAN;
    } else {
        use = effort_by_recall(plan, a, p, class);
    }
    if (!ivf && plan->effort < p->k)
        plan->effort = p->k;
    return use;
}

static void plan_scan(struct view_plan *plan)
{
    plan->a = NULL;
    plan->effort = 0;
    plan->recall = 1;
    plan->unreached = false;
}

/* The structure to search a view with, and the effort; none where a scan costs less. */
static void choose_structure(struct view_plan *plan, const struct search_params *p)
{
    const struct view *v = plan->allowed.view;
    const struct ann_file *a = p->exact ? NULL : segment_ann(v->segment);
    plan_scan(plan);
    if (!a || !set_effort(plan, a, p))
        return plan_scan(plan);
    bool pays =
        a->shape.kind == INDEX_IVF ? ivf_pays(v, a, plan->effort) : graph_pays(v, a, plan->effort);
    if (!pays)
        return plan_scan(plan);
    plan->a = a;
}

void plan_start(const struct snapshot *s, const struct search_params *p, struct view_plan *plan)
{
    for (uint32_t i = 0; i < s->nviews; i++)
        plan[i] = (struct view_plan){.view = i,
                                     .allowed = {.view = &s->views[i], .filter = p->filter},
                                     .share = p->filter ? NAN : 1};
}

/* Scans instead where the filter makes that cheaper, and sets a walk's budget. */
static void weigh(struct view_plan *plan, const struct search_params *p, uint32_t dim, double nq)
{
    const struct ann_file *a = plan->a;
    estimate(plan);
    double scan = scan_cost_us(plan, dim, nq);
    if (plan->share == 0 || view_cost_us(plan, p, dim, nq) >= scan) {
        plan_scan(plan);
        return;
    }
    uint64_t budget = (uint64_t)(scan_cost_us(plan, dim, 1) / node_cost_us(plan, dim));
    if (a->shape.kind != INDEX_IVF && budget < plan->measured_max)
        plan->measured_max = budget;
}

static void hurry(struct view_plan *plan, const struct search_params *p, uint32_t dim)
{
    double nodes = p->walk_us_max / node_cost_us(plan, dim);
    plan->short_of_time = nodes < (double)plan->measured_max ||
                          (plan->share > 0 && scan_cost_us(plan, dim, 1) > p->walk_us_max);
    if (nodes < (double)plan->measured_max)
        plan->measured_max = (uint64_t)nodes;
}

void plan_choose(const struct snapshot *s, const struct search_params *p, size_t nq,
                 struct view_plan *plan)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        choose_structure(&plan[i], p);
        const struct ann_file *a = plan[i].a;
        if (!a)
            continue;
        plan[i].measured_max = ((uint64_t)a->shape.nodes + a->shape.twins) / 2;
        if (p->filter)
            weigh(&plan[i], p, s->schema->dim, (double)nq);
        if (p->walk_us_max > 0)
            hurry(&plan[i], p, s->schema->dim);
    }
}

bool plan_match_pays(const struct view_plan *plan, const struct search_params *p, size_t nq,
                     size_t group)
{
    double rows = plan->allowed.view->rows;
    if (!plan->a)
        return nq > group;
    double looks = plan->a->shape.kind == INDEX_IVF
                       ? list_rows(plan, p)
                       : walk_nodes(plan->a, plan->effort, plan->share) / 4;
    return nq > 1 && looks * (double)nq > rows;
}

/* ---- for others ---- */

/* The plan of one view as search_run would make it. Inside an epoch section. */
static struct view_plan plan_view(const struct snapshot *s, uint32_t view, size_t nq,
                                  const struct search_params *p)
{
    struct view_plan plan = {.view = view,
                             .allowed = {.view = &s->views[view], .filter = p->filter},
                             .share = p->filter ? NAN : 1};
    choose_structure(&plan, p);
    if (p->filter && plan.a)
        weigh(&plan, p, s->schema->dim, (double)nq);
    else if (p->filter)
        estimate(&plan);
    return plan;
}

double search_cost_us(const struct snapshot *s, size_t nq, const struct search_params *p)
{
    double cost = 2 * (double)nq;
    epoch_enter();
    for (uint32_t i = 0; i < s->nviews; i++) {
        struct view_plan plan = plan_view(s, i, nq, p);
        cost += view_cost_us(&plan, p, s->schema->dim, (double)nq);
    }
    epoch_leave();
    return cost;
}

void search_explain(const struct snapshot *s, size_t nq, const struct search_params *p,
                    uint32_t view, struct search_step *out)
{
    epoch_enter();
    struct view_plan plan = plan_view(s, view, nq, p);
    out->way = !plan.a                           ? SEARCH_SCAN
               : plan.a->shape.kind == INDEX_IVF ? SEARCH_LISTS
                                                 : SEARCH_GRAPH;
    epoch_leave();
    out->rows = s->views[view].live;
    out->share = plan.share;
    out->effort = plan.effort;
    out->recall = plan.recall;
}

double search_expected_recall(const struct snapshot *s)
{
    const struct search_params p = {.k = 10};
    double known = 0, sum = 0;
    for (uint32_t i = 0; i < s->nviews; i++) {
        struct search_step step;
        search_explain(s, 1, &p, i, &step);
        if (isnan(step.recall))
            continue;
        known += (double)step.rows;
        sum += (double)step.rows * step.recall;
    }
    return known > 0 ? sum / known : s->rows > 0 ? NAN : 1;
}

void search_plan_get(const struct snapshot *s, size_t nq, const struct search_params *p,
                     struct search_plan *out)
{
    *out = (struct search_plan){0};
    for (uint32_t i = 0; i < s->nviews; i++) {
        struct search_step step;
        search_explain(s, nq, p, i, &step);
        out->graphs += step.way == SEARCH_GRAPH;
        out->lists += step.way == SEARCH_LISTS;
        out->scans += step.way == SEARCH_SCAN;
        out->rows_scanned += step.way == SEARCH_SCAN ? step.rows : 0;
    }
}
