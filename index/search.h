/* Nearest neighbours in a snapshot: per view, the graph or the inverted lists where the segment has
 * them, else an exact scan; merged. A search never misses an acknowledged row.
 *
 * Threads: everything is per call; one scratch per thread (search_scratch_local). No lock; memory
 * is only allocated when a scratch grows. One thread per query, always. */
#ifndef LOADSTONE_INDEX_SEARCH_H
#define LOADSTONE_INDEX_SEARCH_H

#include "store/filter.h"
#include "store/snapshot.h"

enum {
    SEARCH_K_MAX = 10000,
    SEARCH_QUERIES_MAX = 10000,
    SEARCH_EF_MAX = 100000,
    SEARCH_NPROBE_MAX = NLIST_MAX
};

/* What effort several searches took: the highest over all views. */
struct search_report {
    uint32_t ef, nprobe; /* 0: no graph, no lists */
    double recall;       /* to expect, the lowest; NAN: not known. Start with 1 */
};

struct search_params {
    uint32_t k;
    /* How much of the true k nearest to find, at least, in the mean: each structure is searched
     * with the least effort that reached it when measured (recall.h); a view whose structure was
     * never measured is scanned. ERR_UNPROCESSABLE when no effort did. 0 = RECALL_DEFAULT as far as
     * it can be reached. Structures that an effort of their own is named for go by that. */
    double recall;
    uint32_t ef;     /* graph effort; raised to k when below */
    uint32_t nprobe; /* inverted lists read; all of them: exact */
    bool exact;      /* scan everything */
    /* Only rows that match are hits: k of them where so many do, whatever the effort. NULL = all */
    const struct filter *filter;
    bool bounded; /* leave out hits beyond `radius` */
    /* In the collection's distance, inclusive. Compared as float32, which is how distances are
     * given out: what a hit says of itself and was asked for is in. */
    double radius;
    /* Per query: a row left out of its own result (search by key), view = UINT32_MAX for none.
     * NULL = none for all. */
    const struct row_ref *exclude;
    /* With exclude: graphs are walked as if they had never known the row. Who measures with rows as
     * queries wants that: nothing is as easy to find as what the query itself is linked to. The row
     * must have no twin and stand on the bottom layer only */
    bool unknown;
    bool unsampled;          /* a measurement itself: not for the sampler of live queries */
    const uint32_t *efforts; /* per view: ef or nprobe, whatever else is asked for; NULL = none */
    struct search_report *report; /* what was done is put together there; NULL = nobody asks */
    /* A thread that should not be held up: a walk that would take longer, its scan included, ends
     * with ERR_AGAIN, and the search is to be made elsewhere. 0 = it may take what it takes */
    double walk_us_max;
    const atomic_bool *cancel; /* once true, scans end with ERR_UNAVAILABLE; NULL = never */
};

struct hit {
    double distance; /* l2: Euclidean; cosine: 1 - cos; ip: -dot. Computed in double. */
    struct row_ref ref;
};

struct search_scratch; /* pools, visited bitmaps; grows to what the largest search needs */
/* The calling thread's scratch, made at first use and freed with the thread. NULL: no memory. */
struct search_scratch *search_scratch_local(void);

/* nq queries (nq x dim float32, row-major, finite; not zero for cosine: the caller has checked with
 * search_check_query). Writes the hits of query i to hits[i * k ..], nearest first, ties by key,
 * and their number to nhits[i]. Safe inside and outside an epoch section. */
WARN_UNUSED enum err search_run(const struct snapshot *s, const float *queries, size_t nq,
                                const struct search_params *p, struct search_scratch *scratch,
                                struct hit *hits, uint32_t *nhits, struct err_ctx *ctx);

/* NaN, Inf, or a zero vector for cosine: ERR_UNPROCESSABLE naming the query and the element. */
WARN_UNUSED enum err search_check_query(const struct schema *s, const float *query, size_t index,
                                        struct err_ctx *ctx);

/* Estimated CPU microseconds, for the choice between running here and on a worker. */
double search_cost_us(const struct snapshot *s, size_t nq, const struct search_params *p);

/* How search_run goes about it: how many segments by which way, and the rows of those scanned. */
struct search_plan {
    uint32_t graphs, lists, scans;
    uint64_t rows_scanned;
};
/* What searches for 10 that name no effort may expect to find, over all live rows; 1 when they are
 * scanned, NAN when nothing is known. */
double search_expected_recall(const struct snapshot *s);
void search_plan_get(const struct snapshot *s, size_t nq, const struct search_params *p,
                     struct search_plan *out);

/* The same for one view. */
enum search_way { SEARCH_SCAN, SEARCH_GRAPH, SEARCH_LISTS, SEARCH_CODES };
struct search_step {
    enum search_way way;
    uint64_t rows;   /* live */
    double share;    /* of them, that match the filter: estimated from a sample; 1 without one */
    uint32_t effort; /* ef or nprobe; 0: scanned */
    double recall;   /* to expect; NAN: not known */
    bool cached;     /* which rows match is known from searches before */
};
void search_explain(const struct snapshot *s, size_t nq, const struct search_params *p,
                    uint32_t view, struct search_step *out);

#endif
