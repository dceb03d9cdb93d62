/* What the parts of a search share: search.c (who searches what), search_ways.c (by which way, at
 * which cost), search_allowed.c (which rows may be hits), search_exact.c (scans), search_codes.c
 * (scans by code), search_graph.c (walks), search_ivf.c (lists), search_collect.c (which rows are
 * the nearest). */
#ifndef LOADSTONE_INDEX_SEARCH_INTERNAL_H
#define LOADSTONE_INDEX_SEARCH_INTERNAL_H

#include <math.h>

#include "index/ann_file.h"
#include "index/search.h"

/* ---- search_collect.c ---- */

/* A row that may be among the k nearest. `lo` is a lower bound of its distance in the kernels'
 * measure (l2: squared; cosine: 1 - cos; ip: -dot); `distance` is what the user sees, NaN until it
 * is needed. */
struct candidate {
    double distance;
    float lo;
    struct row_ref ref;
};

/* The k nearest of one query, as rows stream by with float distances and their error bounds.
 *
 *   bounds:      max-heap of the k smallest upper bounds; its top is `bound`
 *   candidates:  every row whose lower bound is not above `bound`
 *
 * The true k nearest are always among the candidates. When those are full, their distances are
 * taken in double and all but the best k go. So the result does not depend on rounding, on the
 * order of the rows or on the instruction set. */
struct collect {
    const struct snapshot *snapshot;
    const float *query;  /* as given */
    const float *scaled; /* cosine: of length 1; else `query` */
    double norm2;        /* of the query */
    struct row_ref exclude;
    bool unknown; /* search_params.unknown */
    uint32_t k;
    uint32_t nbounds;
    uint32_t ncandidates, candidates_max;
    float bound; /* INFINITY until k rows were seen */
    float *bounds;
    struct candidate *candidates;
};

/* Candidates kept beside the k of a result. */
enum { COLLECT_SPARE = 256 };

void collect_push(struct collect *c, float lo, float hi, struct row_ref ref);
/* Takes a row whose distance in float is within `error` of `distance`. */
static inline void collect_add(struct collect *c, float distance, float error, struct row_ref ref)
{
    float lo = distance - error;
    if (!(lo > c->bound)) /* NaN, from an overflow, passes */
        collect_push(c, lo, distance + error, ref);
}
/* Takes a row and measures it in double at once. */
void collect_measure(struct collect *c, struct row_ref ref);
/* The same with its vector, from anywhere in memory. */
void collect_measure_vector(struct collect *c, struct row_ref ref, const float *vector);
/* Writes the hits, nearest first, ties by key; returns their number, at most k. */
uint32_t collect_finish(struct collect *c, struct hit *hits);

/* ---- scratch ---- */

/* Walks that run in turn on one thread. */
enum { WALK_LANES = 4 };

/* Of one of them. */
struct walk_room {
    struct buf visited; /* bit per node; all zero between walks */
    struct buf arrays;  /* pool, list and touched nodes */
    struct buf detour;  /* struct heap_node: min-heap of dead nodes on the way */
};

struct search_scratch {
    const atomic_bool *cancel; /* of the search that runs */
    struct buf collects;       /* struct collect x queries of a group */
    struct buf bounds;         /* float */
    struct buf found;          /* struct candidate */
    struct buf queries;        /* float: queries scaled to length 1 */
    struct buf rows;           /* uint32_t: live rows of a block */
    struct buf pointers;       /* const float *: their vectors */
    struct buf plan;           /* struct view_plan: per view */
    struct buf matches;        /* uint64_t: bits of view_plan.allowed, view after view */
    struct buf code;           /* uint8_t: the queries as codes */
    struct buf code_nodes;     /* uint32_t: nodes of a block of rows */
    struct buf code_best;      /* struct best: the nearest by code, per query */
    struct buf code_found;     /* struct found: theirs */
    struct buf lists;          /* struct list_node: min-heap of inverted lists */
    struct buf best;           /* struct ivf_best: the pool of a search by lists */
    struct buf coded;          /* bool: queries whose code says something */
    struct buf walks;          /* struct walk x lanes */
    struct buf reads;          /* struct io_read */
    struct buf read;           /* what they read */
    struct walk_room rooms[WALK_LANES];
};

/* Room for n x size bytes, contents undefined where it grew; NULL when memory is out. */
void *scratch_room(struct buf *b, size_t n, size_t size);

/* ---- search_allowed.c ---- */

/* Which rows of a view may be hits: the live ones with a vector that match the filter. */
struct allowed {
    const struct view *view;
    const struct filter *filter; /* NULL: all match */
    const uint64_t *bits;        /* the answer for every row, worked out before; NULL: it was not */
    const uint64_t *matching;    /* rows that match, dead ones too; NULL: not known */
};

/* For a row that has a vector. */
static inline bool allowed_row(const struct allowed *a, uint32_t row)
{
    if (a->bits)
        return row < a->view->rows && (a->bits[row / 64] >> row % 64 & 1);
    if (a->matching)
        return (a->matching[row / 64] >> row % 64 & 1) && view_live(a->view, row);
    return view_live(a->view, row) &&
           (!a->filter || filter_match(a->filter, a->view->segment, row));
}
/* Bits of rows [64 w, 64 w + 64). */
uint64_t allowed_word(const struct allowed *a, uint32_t w);
/* The first word from w on, below end, that may have bits; `end`: none. */
uint32_t allowed_next(const struct allowed *a, uint32_t w, uint32_t end);
/* Whether allowed_row looks at the features of a row. */
static inline bool allowed_looks(const struct allowed *a)
{
    return a->filter && !a->bits && !a->matching;
}

/* ---- search_ways.c ---- */

/* How a view is searched. */
struct view_plan {
    uint32_t view;
    const struct ann_file *a;     /* NULL: scan */
    const struct ann_file *codes; /* to scan by; NULL: scans are by the vectors */
    struct allowed allowed;
    uint32_t effort; /* ef of a walk, or lists to read; 0 where a view is scanned */
    double recall;   /* to expect; NAN: unknown */
    bool unreached;  /* the recall asked for was never measured; `highest` was */
    double highest;
    double share;          /* of the live rows, that match; NAN: not estimated */
    uint64_t measured_max; /* nodes that a walk measures before it gives up */
    uint64_t detours_max;  /* nodes that are no hits, which it walks through before it does */
    bool short_of_time;    /* measured_max comes from walk_us_max, or the scan would take longer */
};

/* A plan without ways: for each view, which rows are allowed. */
void plan_start(const struct snapshot *s, const struct search_params *p, struct view_plan *plan);
/* Decides the ways, inside the epoch section in which they are gone. nq is of the whole request. */
void plan_choose(const struct snapshot *s, const struct search_params *p, size_t nq,
                 struct view_plan *plan);
/* Takes what is cached of the plan's filter, inside the epoch section in which it is read. The
 * first also notes the use, and works the filter out when it is time to. (search_allowed.c) */
void allowed_use_cache(struct view_plan *plan, const struct search_params *p);
void allowed_peek_cache(struct view_plan *plan);
/* Estimates the share unless it is known. (search_allowed.c) */
void allowed_estimate(struct view_plan *plan);
/* Works the filter out for a whole view, so that several queries share that. No memory: it is left
 * to each of them. (search_allowed.c) */
void plan_match_all(const struct snapshot *s, struct view_plan *plan,
                    struct search_scratch *scratch);
/* Whether that pays for the way chosen. `group` queries share a scan. */
bool plan_match_pays(const struct view_plan *plan, const struct search_params *p, size_t nq,
                     size_t group);

/* ---- search_exact.c ---- */

/* Shows every allowed row of a view to n queries. */
WARN_UNUSED enum err exact_scan(const struct snapshot *s, const struct view_plan *plan,
                                struct collect *queries, size_t n, struct search_scratch *scratch,
                                struct err_ctx *ctx);

/* Shows n live rows of a view, and their vectors from anywhere in memory, to one query. */
void exact_show(const struct snapshot *s, uint32_t view, uint32_t *rows, const float **vectors,
                uint32_t n, struct collect *query);

/* Bits of rows [64 w, 64 w + 64) of a view that are live and have a vector. */
uint64_t view_live_word(const struct view *v, uint32_t w);
/* Live rows of a view with a vector. */
uint32_t view_vectors(const struct view *v);

/* ---- search_codes.c ---- */

/* Whether a graph's codes are of use to scans: few rows are twins, which are not known by code. */
bool codes_serve(const struct ann_file *a);
/* How many rows of the best by code are measured again. */
uint64_t codes_keep(const struct ann_file *a, uint32_t k);
/* Scans a view for n queries: by plan->codes where there are, else as exact_scan does. */
WARN_UNUSED enum err scan_view(const struct snapshot *s, const struct view_plan *plan,
                               struct collect *queries, size_t n, struct search_scratch *scratch,
                               struct err_ctx *ctx);

/* ---- search_graph.c ---- */

/* Whether a graph over all rows of the view is of use: below a quarter of them alive, a walk mostly
 * crosses dead ones, and a scan of the live is cheaper. */
static inline bool view_walkable(const struct view *v)
{
    return v->live >= v->rows / 4;
}

/* Whether a walk of effort `ef` over the graph of a view takes less than a scan. */
bool graph_pays(const struct view *v, const struct ann_file *a, uint32_t ef);
/* Shows the nearest rows that walks of the plan's effort find to each of n queries; enough[i] is
 * false, and nothing shown, where one found too few or took too long: the view must then be
 * scanned. */
WARN_UNUSED enum err graph_search(const struct snapshot *s, const struct view_plan *plan,
                                  struct collect *queries, size_t n, bool *enough,
                                  struct search_scratch *scratch, struct err_ctx *ctx);

/* ---- search_ivf.c ---- */

/* Whether reading nprobe lists (0 = default) of the view takes less than a scan. */
bool ivf_pays(const struct view *v, const struct ann_file *a, uint32_t nprobe);
/* How many vectors that measures, about: centroids and rows. */
double ivf_rows_read(const struct view *v, const struct ann_file *a, uint32_t nprobe);
/* Shows the allowed rows of the nprobe nearest lists (0 = default) that have some to the query, and
 * of further ones until it has seen k or all; with a filter, IVF_FILTERED times k. */
enum { IVF_FILTERED = 16 };
WARN_UNUSED enum err ivf_search(const struct snapshot *s, const struct view_plan *plan,
                                uint32_t nprobe, struct collect *query,
                                struct search_scratch *scratch, struct err_ctx *ctx);

#endif
