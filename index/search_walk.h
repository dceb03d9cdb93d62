/* A walk over the graph of one view, and what its loops (search_walk_body.h, compiled for each
 * instruction set) share with search_graph.c, which starts and ends walks.
 *
 *   keys    int32, smaller is nearer, whatever is measured: a sum over codes as it is, or negated
 *           where larger sums are nearer; a float by its bits, in the order of numbers
 *   pool    keys and nodes of the nearest so far, in order, in two arrays of room for whole vectors
 *           of them before and behind
 *   detour  min-heap of dead nodes on the way
 *
 * Threads: a walk belongs to one thread. */
#ifndef LOADSTONE_INDEX_SEARCH_WALK_H
#define LOADSTONE_INDEX_SEARCH_WALK_H

#include <string.h>

#include "index/search_internal.h"

#define WALK_DONE 0x80000000u /* of a node of the pool: expanded. Nodes are below 2^31 */
#define WALK_FAR INT32_MAX    /* a key that never enters the pool */

enum {
    WALK_VECTOR = 16, /* keys that a loop may read or write at once */
    TOUCHED_MAX = 1 << 16,
    LONG_CODE = 512,            /* bytes, from which codes are measured in two parts */
    WALK_PREFETCH_BYTES = 1024, /* of a vector; the processor goes on from there by itself */
    LINK_LINES_MAX = 4,         /* of a list of links, fetched when its node enters the pool */
};

/* What a walk measures. */
enum walk_measure { WALK_VECTORS, WALK_CODE_L2, WALK_CODE_DOT };

/* A dead node on the way. */
struct heap_node {
    int32_t key;
    uint32_t node;
};

/* LIST, MEASURE: what the next turn does. SHOW: the pool is complete. OVER: no query is left for
 * this lane. */
enum walk_state { WALK_LIST, WALK_MEASURE, WALK_SHOW, WALK_OVER };

struct walk {
    const struct ann_file *a;
    const struct view *view;
    struct allowed allowed;
    uint32_t view_index;
    struct collect *query;
    uint32_t number; /* of the query in its group */
    const float *vectors;
    uint32_t dim;
    enum metric metric;
    const uint8_t *codes, *query_code;
    size_t stride, head; /* of the codes; of their first part */
    bool all_returned;   /* every row of the view may be a hit */
    bool no_memory;
    uint32_t links; /* per node on the bottom layer */
    uint32_t ef;
    enum walk_state state;
    uint32_t layer, node; /* of the descent */
    int32_t best;
    uint32_t npool, cursor; /* no node of the pool before `cursor` waits for expansion */
    uint32_t ndetour, ntouched, nlist;
    uint64_t measured_max, measured_n;
    uint64_t detours_max, detours_n;
    struct walk_room *room;
    uint64_t *visited;
    uint32_t *touched;
    int32_t *keys; /* the pool, nearest first */
    uint32_t *nodes;
    uint32_t *list; /* neighbours to measure */
    int32_t *measured;
};

/* Who gives queries to lanes and takes their ends. */
struct walk_feed {
    bool (*start)(struct walk_feed *f, struct walk *w); /* false: no query is left, or an error */
    void (*finish)(struct walk_feed *f, struct walk *w);
};

/* Runs walks in n lanes until no query is left. The result of a walk does not depend on what runs
 * beside it. */
typedef void walk_run(struct walk *lanes, size_t n, struct walk_feed *feed);

/* The loops for the three measures, without and with tests of who may be a hit. */
struct walk_loops {
    walk_run *plain[3], *masked[3];
};
extern const struct walk_loops walk_loops_scalar;
#if defined(__x86_64__)
extern const struct walk_loops walk_loops_avx2, walk_loops_avx512, walk_loops_avx512vnni;
#endif

/* ---- search_walk.c ---- */

/* Those for the kernels in use. */
walk_run *walk_loop(enum walk_measure m, bool plain);

/* Keys of four nodes by their vectors. */
void walk_measure_vectors(const struct walk *w, const uint32_t list[4], int32_t out[4]);
/* Whether one of the further rows of a node may be a hit. */
bool walk_twin_returned(const struct walk *w, uint32_t node);
/* Fetches the vectors that walk_feed.finish will measure. */
void walk_prefetch_best(const struct walk *w);
/* Marks the node of the row left out as visited, so that no way leads through it. */
void walk_hide_excluded(struct walk *w);

/* ---- shared with the loops ---- */

static inline bool walk_gives_up(const struct walk *w)
{
    return w->measured_n >= w->measured_max || w->detours_n > w->detours_max;
}

static inline const float *walk_vector(const struct walk *w, uint32_t node)
{
    return w->vectors + (size_t)ann_row(w->a, node) * w->dim;
}

static inline void walk_prefetch(const void *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)at + i);
}

static inline void walk_prefetch_vector(const struct walk *w, uint32_t node)
{
    size_t n = w->dim * sizeof(float);
    walk_prefetch(walk_vector(w, node), n < WALK_PREFETCH_BYTES ? n : WALK_PREFETCH_BYTES);
    if (w->a->norms)
        __builtin_prefetch(&w->a->norms[node]);
}

static inline bool walk_visit(struct walk *w, uint32_t node)
{
    uint64_t *word = &w->visited[node / 64], had = *word, bit = 1ull << (node % 64);
    *word = had | bit;
    return !(had & bit);
}

/* Remembers which bits to clear; beyond TOUCHED_MAX, all of them. */
static inline void walk_touch(struct walk *w, const uint32_t *list, uint32_t n)
{
    if (w->ntouched + n <= TOUCHED_MAX)
        memcpy(w->touched + w->ntouched, list, n * sizeof(uint32_t));
    w->ntouched += n;
}

static inline void walk_forget(struct walk *w)
{
    if (w->ntouched > TOUCHED_MAX)
        memset(w->visited, 0, ((size_t)w->a->shape.nodes + 63) / 64 * 8);
    for (uint32_t i = 0; i < w->ntouched && w->ntouched <= TOUCHED_MAX; i++)
        w->visited[w->touched[i] / 64] = 0;
    w->ntouched = 0;
}

static inline bool walk_row_returned(const struct walk *w, uint32_t row)
{
    const struct row_ref *left_out = &w->query->exclude;
    return allowed_row(&w->allowed, row) &&
           !(left_out->row == row && left_out->view == w->view_index);
}

static inline bool walk_node_returned(const struct walk *w, uint32_t node)
{
    return w->all_returned || walk_row_returned(w, ann_row(w->a, node)) ||
           (w->a->twins_at && walk_twin_returned(w, node));
}

/* ---- detour ---- */

bool walk_detour_push(struct walk *w, int32_t key, uint32_t node);
uint32_t walk_detour_pop(struct walk *w);
/* Of its nearest; there is one. */
static inline int32_t walk_detour_key(const struct walk *w)
{
    return ((const struct heap_node *)w->room->detour.data)->key;
}

#endif
