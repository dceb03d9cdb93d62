/* What the parts of the native builder share: build_native.c (levels, order, threads, the way out),
 * build_native_links.c (lists and the choice of neighbours), build_native_search.c (who is near).
 *
 * Distances are keys: 32-bit numbers whose order is that of the distances. A code's sum of squares
 * is one as it is; a float's bits are turned so that they are. A candidate is a key above a node
 * and a bit that says whether its links were read: candidates sort by distance, equal ones by node.
 */
#ifndef LOADSTONE_INDEX_BUILD_NATIVE_INTERNAL_H
#define LOADSTONE_INDEX_BUILD_NATIVE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "index/build_native.h"
#include "index/kernels.h"

#define LINK_NONE UINT32_MAX

/* More layers than this no graph has: FAISS ends where one node in 10^9 would go on. */
enum { NATIVE_LAYERS_MAX = 30 };

typedef _Atomic uint32_t link_t;

/* Links are read while others write them: each by itself, in no order. Who reads a list that is
 * being rewritten may see a link twice or miss one, which costs a little of the graph's quality and
 * nothing else. Lists change, and keys are touched, under the node's lock only. */
struct native_graph {
    struct points points;
    uint32_t m, ef;
    uint8_t *layers;     /* per node, at least 1 */
    uint32_t *upper_at;  /* per node: its first upper list */
    uint32_t *order;     /* nodes as they are inserted */
    link_t *links;       /* nodes x 2m; a list ends at its first LINK_NONE, which fill the rest */
    uint32_t *keys;      /* of the links: how far */
    link_t *upper_links; /* lists x m */
    uint32_t *upper_keys;
    atomic_uchar *locks;   /* per node */
    pthread_mutex_t top;   /* held while a node taller than the graph goes in */
    _Atomic uint64_t head; /* layers << 32 | node where a search starts */
    _Atomic uint64_t next; /* position in `order` */
    const struct native_options *options;
};

struct list {
    link_t *links;
    uint32_t *keys;
    uint32_t width;
};

static inline struct list list_of(const struct native_graph *g, uint32_t node, uint32_t layer)
{
    if (layer == 0) {
        size_t at = (size_t)node * 2 * g->m;
        return (struct list){g->links + at, g->keys + at, 2 * g->m};
    }
    size_t at = ((size_t)g->upper_at[node] + layer - 1) * g->m;
    return (struct list){g->upper_links + at, g->upper_keys + at, g->m};
}

static inline uint32_t link_get(const link_t *l)
{
    return atomic_load_explicit((link_t *)l, memory_order_relaxed);
}

static inline void link_set(link_t *l, uint32_t node)
{
    atomic_store_explicit(l, node, memory_order_relaxed);
}

/* ---- distances ---- */

static inline const uint8_t *point(const struct native_graph *g, uint32_t node)
{
    return g->points.data + node * g->points.stride;
}

static inline uint32_t float_key(float d)
{
    uint32_t u;
    memcpy(&u, &d, sizeof(u));
    return u >> 31 ? ~u : u | 0x80000000u;
}

static inline void measure_4(const struct native_graph *g, const uint8_t *from,
                             const uint32_t nodes[4], uint32_t key[4])
{
    const struct points *p = &g->points;
    const uint8_t *c[4] = {point(g, nodes[0]), point(g, nodes[1]), point(g, nodes[2]),
                           point(g, nodes[3])};
    if (p->kind == POINTS_CODES) {
        kernels.code8_l2_4(from, c, p->stride, (int32_t *)key);
        return;
    }
    const float *v[4] = {(const float *)c[0], (const float *)c[1], (const float *)c[2],
                         (const float *)c[3]};
    float d[4];
    if (p->kind == POINTS_L2)
        kernels.l2sqr_4((const float *)from, v, p->dim, d);
    else
        kernels.dot_4((const float *)from, v, p->dim, d);
    for (int i = 0; i < 4; i++)
        key[i] = float_key(p->kind == POINTS_L2 ? d[i] : -d[i]);
}

static inline uint32_t measure(const struct native_graph *g, const uint8_t *from, uint32_t node)
{
    uint32_t nodes[4] = {node, node, node, node}, key[4];
    measure_4(g, from, nodes, key);
    return key[0];
}

static inline void prefetch(const void *data, size_t n)
{
    enum { LINE = 64, MOST = 16 * LINE };
    for (size_t i = 0; i < n && i < MOST; i += LINE)
        __builtin_prefetch((const char *)data + i);
}

/* ---- candidates ---- */

static inline uint64_t candidate(uint32_t key, uint32_t node)
{
    return (uint64_t)key << 32 | (uint64_t)node << 1;
}

static inline uint32_t candidate_key(uint64_t c)
{
    return (uint32_t)(c >> 32);
}

static inline uint32_t candidate_node(uint64_t c)
{
    return (uint32_t)c >> 1;
}

/* The room of one thread. */
struct seeker {
    struct native_graph *graph;
    uint64_t *visited; /* a bit per node; zeros between searches */
    uint32_t *touched; /* words of it that are not, TOUCHED_MAX of them listed */
    uint32_t ntouched;
    uint64_t *pool; /* the nearest, nearest first; one more place than ef */
    uint32_t npool, cursor;
    uint32_t *open;   /* links that were not visited; 4 more places than a list */
    uint64_t *sorted; /* what a list is chosen from */
    uint64_t *chosen; /* of each layer of the node, 2m places a layer */
    uint32_t nchosen[NATIVE_LAYERS_MAX];
    uint64_t *kept;   /* the choice of a neighbour whose list was full */
    uint32_t *picked; /* nodes of the choice that is being made; 4 more places than a list */
};

enum { TOUCHED_MAX = 1 << 14 };

/* ---- build_native_search.c ---- */

/* Goes down greedily on the layers from `from` to above `to`; returns the candidate nearest to the
 * node. */
uint64_t seek_down(const struct seeker *s, uint32_t node, uint64_t start, uint32_t from,
                   uint32_t to);
/* The pool becomes the (about) ef nearest to the node on that layer, which start is on. */
void seek_layer(struct seeker *s, uint32_t node, uint64_t start, uint32_t layer);

/* ---- build_native_links.c ---- */

/* Of n candidates, nearest first, at most `most` that are nearer to the node than to each other;
 * returns how many, in out. */
uint32_t choose(const struct seeker *s, const uint64_t *from, uint32_t n, uint32_t most,
                uint64_t *out);
/* Links the node with those chosen for the layer, both ways. */
void connect_layer(struct seeker *s, uint32_t node, uint32_t layer);

#endif
