/* Measures recall on the spot: rows of a snapshot as queries, searched exactly and at rising
 * effort. */
#ifndef LOADSTONE_INDEX_RECALL_MEASURE_H
#define LOADSTONE_INDEX_RECALL_MEASURE_H

#include "index/recall.h"
#include "index/search.h"

/* Queries and their true neighbours. */
struct recall_sample {
    const struct snapshot *snapshot;
    const struct filter *filter; /* of all searches; NULL = none */
    const atomic_bool *cancel;   /* NULL = never */
    bool unknown;                /* the queries are drawn rows: search_params.unknown */
    uint32_t k;                  /* of the true neighbours */
    uint32_t n;                  /* queries */
    uint32_t known;              /* of them, whose neighbours are known */
    float *queries;              /* n x dim */
    struct row_ref *rows;        /* which are left out of their own result; view UINT32_MAX: none */
    double *truth;               /* n x k distances, ascending */
    uint32_t *ntruth;            /* how many of them there are */
    struct hit *hits;            /* of a group */
    uint32_t *nhits;
    double exact_us; /* processor time of an exact search */
};

/* Draws up to `most` live rows with a vector, spread over the snapshot; fewer where there are
 * fewer. Rows of graphs that are easier to find than others (of upper layers, with twins) are not
 * drawn. `seed` makes the draw. The caller sets filter, cancel, unknown. ERR_OK with n 0: there are
 * none. */
WARN_UNUSED enum err recall_draw(const struct snapshot *s, uint32_t k, uint32_t most, uint64_t seed,
                                 struct recall_sample *out, struct err_ctx *ctx);
/* Instead: one query given, with the row left out of its result. The memory is the caller's until
 * recall_sample_deinit. */
WARN_UNUSED enum err recall_of_query(const struct snapshot *s, uint32_t k, const float *query,
                                     struct row_ref exclude, struct recall_sample *out,
                                     struct err_ctx *ctx);
void recall_sample_deinit(struct recall_sample *s);

/* Finds the true neighbours of the queries in turn, at least of `least` of them, until `budget_us`
 * of processor time are used up. */
WARN_UNUSED enum err recall_find_truth(struct recall_sample *s, uint32_t least, double budget_us,
                                       struct err_ctx *ctx);

/* Searches for k <= s->k rows with the first `queries` <= known queries at efforts[view]; to *out
 * but its effort, which is the caller's to name. */
WARN_UNUSED enum err recall_try(struct recall_sample *s, uint32_t k, uint32_t queries,
                                const uint32_t *efforts, struct recall_point *out,
                                struct err_ctx *ctx);

/* One effort over all structures of a snapshot. */
struct recall_step {
    uint32_t ef, nprobe; /* 0: no graph, no lists */
    struct recall_point point;
};

/* Rising efforts for k rows with all queries whose neighbours are known, until hardly anything is
 * missed, or until `budget_us` of processor time are used up. *n of them to steps[RECALL_POINTS];
 * none when nothing is indexed. */
WARN_UNUSED enum err recall_sweep(struct recall_sample *s, uint32_t k, double budget_us,
                                  struct recall_step *steps, uint32_t *n, struct err_ctx *ctx);

/* The i-th effort to try for a structure of `size` nodes or lists; 0 behind the last. Each is about
 * a third more than the one before. */
uint32_t recall_effort_at(enum index_kind kind, uint32_t size, uint32_t k, uint32_t i);

/* Processor time of the calling thread and of the process, microseconds. */
double recall_thread_us(void);
double recall_process_us(void);

#endif
