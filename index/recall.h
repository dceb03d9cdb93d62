/* Recall: the share of the true k nearest that a search finds, and the effort that it takes.
 *
 *   build ─ measured on rows (recall_measure.c) ─> curve in the .ann file (recall_curve.c)
 *                                                     │ one list for each of a few k:
 *                                                     │ effort -> recall, lower bound
 *   live queries ─ sampled, run again ────────────────┤ (recall_live.c)
 *                                                     v
 *   search of k rows with recall r ────────────> effort
 *
 * An effort is ef for a graph and the number of lists read for inverted lists. The recall of one
 * query is a number from 0 to 1; a point of the curve is the mean of many, and its lower bound what
 * the true mean is above with 95 % confidence. */
#ifndef LOADSTONE_INDEX_RECALL_H
#define LOADSTONE_INDEX_RECALL_H

#include <stdatomic.h>

#include "base/bytes.h"
#include "store/schema.h"

#define RECALL_DEFAULT 0.95 /* of a search that names no effort */
#define RECALL_ENOUGH 0.999 /* lower bound at which further efforts are of no use */

enum {
    RECALL_LISTS = 4,             /* values of k that a curve may know */
    RECALL_POINTS = 32,           /* efforts per k */
    RECALL_CLASSES = 5,           /* of filters, by the share of rows that match: recall_class */
    RECALL_ROWS = RECALL_CLASSES, /* no class: what the rows of the build said, whoever asks */
    RECALL_EFFORT_MAX = 4096
};

/* Recall of some queries at one effort. */
struct recall_point {
    uint32_t k, effort, queries;
    double sum, sum2; /* of the recall of each query, and of its square */
    double us;        /* processor time of a query */
};

double recall_mean(const struct recall_point *p);
/* One-sided, 95 %. As if one more query had missed one neighbour, so that a sample without a miss
 * is not taken for certainty. 0 without queries. */
double recall_lower(const struct recall_point *p);

/* The points of one k, efforts ascending. */
struct recall_list {
    uint32_t k, n;
    struct recall_point points[RECALL_POINTS];
};

/* What live queries said of one list and class of filters; the sampler's alone. */
struct recall_heard {
    double queries, sum[RECALL_POINTS], sum2[RECALL_POINTS];
};

/* Of one structure. What searches read is atomic: any thread, beside the sampler. */
struct recall_curve {
    uint32_t nlists;
    struct recall_list lists[RECALL_LISTS]; /* k ascending; as measured at the build */
    _Atomic float mean[RECALL_LISTS][RECALL_CLASSES][RECALL_POINTS];
    _Atomic float lower[RECALL_LISTS][RECALL_CLASSES][RECALL_POINTS]; /* not falling */
    atomic_uint nheard[RECALL_LISTS][RECALL_CLASSES];
    struct recall_heard heard[RECALL_LISTS][RECALL_CLASSES];
};

/* ---- the section of a file ---- */

/* Appends points, ordered by k and effort. */
void recall_encode(const struct recall_point *points, uint32_t n, struct buf *out);
/* Whether a section may have this length. */
bool recall_length_valid(uint64_t n);
/* NULL in *out with ERR_OK never happens: ERR_CORRUPT says what is wrong, without a file name. */
WARN_UNUSED enum err recall_decode(const uint8_t *data, size_t n, struct recall_curve **out,
                                   struct err_ctx *ctx);
void recall_free(struct recall_curve *c); /* NULL is allowed */

/* ---- choosing ---- */

/* Class of filters that `share` of the rows match; `filtered` false: no filter. */
unsigned recall_class(bool filtered, double share);

/* Which list speaks for k, and how many times its effort k takes. NULL: the curve is empty. */
const struct recall_list *recall_list_of(const struct recall_curve *c, uint32_t k, double *times);

struct recall_choice {
    uint32_t effort;
    bool reached;   /* else `effort` is the highest that was measured */
    bool promised;  /* not reached by live queries, but by the rows of the build */
    bool scan;      /* live queries show that no effort reaches it, though rows did */
    double recall;  /* expected at `effort` */
    double highest; /* lower bound of the highest point */
};

/* The least effort whose lower bound is `target`; 0 for an empty curve, which knows nothing. */
void recall_choose(const struct recall_curve *c, double target, uint32_t k, unsigned class,
                   struct recall_choice *out);
/* Recall to expect of an effort; NAN when the curve says nothing of it. */
double recall_expect(const struct recall_curve *c, uint32_t k, unsigned class, uint32_t effort);

/* ---- live queries ---- */

/* Takes the recall of a query at the first n points of a list, those from n on being 1, and brings
 * what searches read up to date. The sampler's thread. */
void recall_hear(struct recall_curve *c, uint32_t list, unsigned class, const float *recall,
                 uint32_t n);

#endif
