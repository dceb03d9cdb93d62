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
 * Costs are measured on one core of a Zen 5, those of codes estimated, and all rough: at shares of
 * 1 % and less exact scans were a little faster. They decide between ways and between this
 * thread and a worker.
 *
 * Threads: per call. Failure: none. */
#include "index/search_internal.h"

#include "base/epoch.h"
#include "index/filter_cache.h"
#include "index/ivf.h"

enum {
    EF_DEFAULT = 128,
    FILTERED_TIMES = 2,
    DETOURS_SPARE = 32, /* dead nodes near the entry say nothing */
    CODES_LEAST = 4     /* times the rows that a scan by codes measures again, that must match */
};

/* Microseconds. A scan streams its rows from memory once and computes for each query; a walk jumps
 * from row to row; so does a look at the features of one. */
static const double stream_us = 0.0002, compute_us = 0.00004, row_us = 0.004; /* per float, row */
static const double jump_us = 0.03, scattered_us = 0.00012;
static const double disk_us = 3000;   /* of lists that are read from disk: not for an HTTP thread */
static const double skip_us = 0.008;  /* to a row that is known ahead */
static const double word_us = 0.0005; /* 64 rows, of which none matches */
/* The same of codes, per byte. */
static const double code_jump_us = 0.012, code_scattered_us = 0.00004;
static const double code_skip_us = 0.004, code_stream_us = 0.00003, code_compute_us = 0.00001;
static const double code_row_us = 0.003;

static const double detours = 1.5;

/* ---- costs ---- */

/* Of finding out which rows of a view match. */
static double match_cost_us(const struct view_plan *plan)
{
    const struct allowed *a = &plan->allowed;
    return a->view->rows * (allowed_looks(a) ? filter_row_ns(a->filter) / 1000 : word_us / 64);
}

/* Of a scan by vectors for nq queries; the filter is worked out once. */
static double exact_cost_us(const struct view_plan *plan, uint32_t dim, double nq)
{
    const struct view *v = plan->allowed.view;
    double each = dim * (stream_us + compute_us * nq) + row_us * nq;
    if (!plan->allowed.filter)
        return v->rows * each;
    double scattered = plan->share < 0.5 ? skip_us : 0;
    return match_cost_us(plan) + v->live * plan->share * (each + scattered);
}

/* Of a scan by codes. */
static double code_cost_us(const struct view_plan *plan, const struct ann_file *a, uint32_t k,
                           double nq)
{
    const struct view *v = plan->allowed.view;
    uint32_t dim = a->shape.dim;
    double each = code_skip_us + code_stride(dim) * (code_stream_us + code_compute_us * nq);
    double again = (double)codes_keep(a, k) * (jump_us + dim * scattered_us);
    return match_cost_us(plan) + v->live * plan->share * (each + code_row_us * nq) + again * nq;
}

static double scan_cost_us(const struct view_plan *plan, const struct search_params *p,
                           uint32_t dim, double nq)
{
    return plan->codes ? code_cost_us(plan, plan->codes, p->k, nq) : exact_cost_us(plan, dim, nq);
}

/* Of looking at the features of one row. */
static double look_us(const struct view_plan *plan)
{
    const struct allowed *a = &plan->allowed;
    if (!a->filter)
        return 0;
    return allowed_looks(a) ? jump_us + filter_row_ns(a->filter) / 1000 : jump_us / 4;
}

/* Nodes that a walk of effort ef measures, and what one costs: a quarter of them come near enough
 * to be looked at. */
static double walk_nodes(const struct ann_file *a, uint32_t ef, double share)
{
    return (ef / share + 30.0) * (8 + a->shape.m / 4.0);
}

static double node_cost_us(const struct view_plan *plan, uint32_t dim)
{
    double measured = plan->a->codes ? code_jump_us + code_stride(dim) * code_scattered_us
                                     : jump_us + dim * scattered_us;
    return measured + look_us(plan) / 4;
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
    double disk = plan->a->reads ? disk_us : 0;
    return disk + plan->a->shape.nlist * each +
           list_rows(plan, p) * (plan->share * each + look_us(plan));
}

static double view_cost_us(const struct view_plan *plan, const struct search_params *p,
                           uint32_t dim, double nq)
{
    const struct ann_file *a = plan->a;
    if (!a)
        return scan_cost_us(plan, p, dim, nq);
    if (a->shape.kind == INDEX_IVF)
        return list_cost_us(plan, p, dim) * nq;
    double nodes = walk_nodes(a, plan->effort, plan->share);
    if (nodes >= plan->allowed.view->rows / 2.0) /* it gives up and scans */
        return scan_cost_us(plan, p, dim, nq);
    return nodes * node_cost_us(plan, dim) * nq;
}

/* ---- ways ---- */

/* Rows that match may lie where the query does not, and a class of filters holds easy and hard
 * ones: a filter gets FILTERED_TIMES what rows without one needed, or what live queries ask for
 * when that is more. */
static uint32_t filtered_effort(const struct recall_curve *curve, double target, uint32_t k,
                                uint32_t live)
{
    struct recall_choice rows;
    recall_choose(curve, target, k, RECALL_ROWS, &rows);
    uint32_t least = rows.effort * FILTERED_TIMES;
    return live > least ? live : least;
}

/* Without a curve, recall can't be promised: who asks for it gets a scan. */
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
    plan->effort = class > 0 ? filtered_effort(a->curve, target, p->k, c.effort) : c.effort;
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
    if (!ivf && asked && asked < p->k)
        asked = p->k;
    if (p->filter && a->curve)
        allowed_estimate(plan);
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

/* By codes where they were chosen. */
static void plan_scan(struct view_plan *plan)
{
    plan->a = NULL;
    plan->effort = 0;
    plan->recall = plan->codes ? plan->codes->code_recall : 1;
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

/* Scans by codes, planned or after a walk that gave up, where they may be used and cost less: never
 * where a scan was asked for, or is the way because most of the rows would be looked at anyway. */
static void choose_codes(struct view_plan *plan, const struct search_params *p, uint32_t dim,
                         double nq)
{
    const struct ann_file *a = plan->a;
    if (!codes_serve(a) || p->recall > a->code_recall)
        return;
    double matching = plan->allowed.view->live * plan->share;
    if (matching >= CODES_LEAST * (double)codes_keep(a, p->k) &&
        code_cost_us(plan, a, p->k, nq) < exact_cost_us(plan, dim, nq))
        plan->codes = a;
}

/* Scans instead where the filter makes that cheaper, and sets a walk's budget. */
static void weigh(struct view_plan *plan, const struct search_params *p, uint32_t dim, double nq)
{
    const struct ann_file *a = plan->a;
    double scan = scan_cost_us(plan, p, dim, nq);
    if (plan->share == 0 || view_cost_us(plan, p, dim, nq) >= scan) {
        plan_scan(plan);
        return;
    }
    uint64_t budget = (uint64_t)(scan_cost_us(plan, p, dim, 1) / node_cost_us(plan, dim));
    if (a->shape.kind != INDEX_IVF && budget < plan->measured_max)
        plan->measured_max = budget;
}

/* Dead nodes that a walk goes through, of a share that lies anywhere: for inner product, far more
 * of them say that what matches is hard to reach. Measured: 1.0-1.8 times (1 - share) / share of
 * the effort where it lies anywhere (recall .99), 2.0-9 where it is far (.77). */
static uint64_t detours_max(const struct view_plan *plan)
{
    if (!plan->allowed.filter || plan->share == 0 || plan->a->shape.metric != DIST_IP)
        return UINT64_MAX;
    return (uint64_t)(DETOURS_SPARE + detours * plan->effort * (1 - plan->share) / plan->share);
}

static void hurry(struct view_plan *plan, const struct search_params *p, uint32_t dim)
{
    double nodes = p->walk_us_max / node_cost_us(plan, dim);
    plan->short_of_time = nodes < (double)plan->measured_max ||
                          (plan->share > 0 && scan_cost_us(plan, p, dim, 1) > p->walk_us_max);
    if (nodes < (double)plan->measured_max)
        plan->measured_max = (uint64_t)nodes;
}

/* A view's way, once it is known which rows match. */
static void choose(struct view_plan *plan, const struct search_params *p, uint32_t dim, double nq)
{
    plan->codes = NULL;
    choose_structure(plan, p);
    const struct ann_file *a = plan->a;
    if (!a)
        return;
    allowed_estimate(plan);
    choose_codes(plan, p, dim, nq);
    plan->measured_max = ((uint64_t)a->shape.nodes + a->shape.twins) / 2;
    plan->detours_max = detours_max(plan);
    if (p->filter)
        weigh(plan, p, dim, nq);
    if (plan->a && p->walk_us_max > 0)
        hurry(plan, p, dim);
}

void plan_choose(const struct snapshot *s, const struct search_params *p, size_t nq,
                 struct view_plan *plan)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (p->filter && s->views[i].live > 0)
            allowed_use_cache(&plan[i], p);
        choose(&plan[i], p, s->schema->dim, (double)nq);
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
    if (p->filter)
        allowed_peek_cache(&plan);
    choose(&plan, p, s->schema->dim, (double)nq);
    allowed_estimate(&plan);
    return plan;
}

double search_cost_us(const struct snapshot *s, size_t nq, const struct search_params *p)
{
    double cost = 2 * (double)nq;
    epoch_enter();
    for (uint32_t i = 0; i < s->nviews; i++) {
        struct view_plan plan = plan_view(s, i, nq, p);
        cost += view_cost_us(&plan, p, s->schema->dim, (double)nq);
        if (p->filter)
            cost += filter_cache_due_us(s->views[i].segment, p->filter);
    }
    epoch_leave();
    return cost;
}

void search_explain(const struct snapshot *s, size_t nq, const struct search_params *p,
                    uint32_t view, struct search_step *out)
{
    epoch_enter();
    struct view_plan plan = plan_view(s, view, nq, p);
    out->way = !plan.a                           ? plan.codes ? SEARCH_CODES : SEARCH_SCAN
               : plan.a->shape.kind == INDEX_IVF ? SEARCH_LISTS
                                                 : SEARCH_GRAPH;
    epoch_leave();
    out->rows = s->views[view].live;
    out->share = plan.share;
    out->effort = plan.effort;
    out->recall = plan.recall;
    out->cached = plan.allowed.matching != NULL;
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
        bool scan = step.way == SEARCH_SCAN || step.way == SEARCH_CODES;
        out->scans += scan;
        out->rows_scanned += scan ? step.rows : 0;
    }
}
