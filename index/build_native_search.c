/* The native builder's searches: who is near a node that goes in.
 *
 *   pool, nearest first:  [r][r][ ][r][ ][ ]    r: its links were read
 *                               cursor
 *
 * The nearest candidate whose links were not read gives its links; those not seen before are
 * measured four at a time and put in their places, until the pool holds ef and all of it was read.
 * Codes are fetched ahead while a list is looked through, lists when their node enters the pool.
 *
 * Threads: each has its seeker; links are read as they are (build_native_internal.h). Failure:
 * none. */
#include "index/build_native_internal.h"

enum { READ = 1, LINK_LINES_MAX = 4 };

/* Whether the node was not visited yet. Without branches: half of the links were. */
static inline bool visit(struct seeker *s, uint32_t node)
{
    uint64_t *word = &s->visited[node / 64], had = *word, bit = 1ull << (node % 64);
    s->touched[s->ntouched < TOUCHED_MAX ? s->ntouched : TOUCHED_MAX] = node / 64;
    s->ntouched += had == 0;
    *word = had | bit;
    return !(had & bit);
}

static void forget_visited(struct seeker *s)
{
    if (s->ntouched > TOUCHED_MAX)
        memset(s->visited, 0, ((size_t)s->graph->points.nodes / 64 + 1) * sizeof(uint64_t));
    for (uint32_t i = 0; i < s->ntouched && i < TOUCHED_MAX; i++)
        s->visited[s->touched[i]] = 0;
    s->ntouched = 0;
}

/* Where c goes among the n candidates of the pool. Which half it is in can't be foreseen: a sum,
 * not a branch. */
static inline uint32_t place(const uint64_t *pool, uint32_t n, uint64_t c)
{
    const uint64_t *at = pool;
    while (n > 1) {
        uint32_t half = n / 2;
        at += (size_t)(at[half - 1] < c) * half;
        n -= half;
    }
    return (uint32_t)(at - pool) + (n == 1 && *at < c);
}

/* The pool has room for one more than ef: the last falls off. */
static void put_in(struct seeker *s, uint64_t c)
{
    uint32_t ef = s->graph->ef, at = place(s->pool, s->npool, c);
    memmove(s->pool + at + 1, s->pool + at, (s->npool - at) * sizeof(uint64_t));
    s->pool[at] = c;
    s->npool += s->npool < ef;
    s->cursor = at < s->cursor ? at : s->cursor;
}

static inline bool insert(struct seeker *s, uint64_t c)
{
    uint32_t ef = s->graph->ef;
    if (s->npool == ef && c >= s->pool[ef - 1])
        return false;
    put_in(s, c);
    return true;
}

/* Lists the links that were not visited yet, and asks for their points. */
static uint32_t open_links(struct seeker *s, uint32_t node, uint32_t layer)
{
    const struct native_graph *g = s->graph;
    struct list l = list_of(g, node, layer);
    uint32_t n = 0;
    for (uint32_t i = 0; i < l.width; i++) {
        uint32_t to = link_get(&l.links[i]);
        if (to == LINK_NONE)
            break;
        s->open[n] = to;
        n += visit(s, to);
    }
    for (uint32_t i = 0; i < n; i++)
        prefetch(point(g, s->open[i]), g->points.stride);
    for (uint32_t i = n; i < n + 3 && n > 0; i++)
        s->open[i] = s->open[n - 1];
    return n;
}

static void take_open(struct seeker *s, const uint8_t *from, uint32_t n, uint32_t layer)
{
    const struct native_graph *g = s->graph;
    for (uint32_t i = 0; i < n; i += 4) {
        uint32_t key[4];
        measure_4(g, from, s->open + i, key);
        for (uint32_t j = 0; j < 4 && i + j < n; j++) {
            uint32_t to = s->open[i + j];
            if (insert(s, candidate(key[j], to)) && layer == 0)
                prefetch(g->links + (size_t)to * 2 * g->m,
                         g->m < 8 * LINK_LINES_MAX ? 8 * g->m : 64 * LINK_LINES_MAX);
        }
    }
}

void seek_layer(struct seeker *s, uint32_t node, uint64_t start, uint32_t layer)
{
    const uint8_t *from = point(s->graph, node);
    s->npool = s->cursor = 0;
    visit(s, node);
    visit(s, candidate_node(start));
    insert(s, start);
    while (s->cursor < s->npool) {
        uint64_t *c = &s->pool[s->cursor++];
        if (*c & READ)
            continue;
        *c |= READ;
        take_open(s, from, open_links(s, candidate_node(*c), layer), layer);
    }
    forget_visited(s);
}

static uint64_t nearest_link(const struct seeker *s, const uint8_t *from, uint64_t best,
                             uint32_t layer)
{
    const struct native_graph *g = s->graph;
    struct list l = list_of(g, candidate_node(best), layer);
    for (uint32_t i = 0; i < l.width; i += 4) {
        uint32_t four[4], key[4], n = 0;
        for (; n < 4 && i + n < l.width; n++) {
            four[n] = link_get(&l.links[i + n]);
            if (four[n] == LINK_NONE)
                break;
        }
        if (n == 0)
            break;
        for (uint32_t j = n; j < 4; j++)
            four[j] = four[0];
        measure_4(g, from, four, key);
        for (uint32_t j = 0; j < n; j++) {
            uint64_t c = candidate(key[j], four[j]);
            best = candidate_key(c) < candidate_key(best) ? c : best;
        }
    }
    return best;
}

uint64_t seek_down(const struct seeker *s, uint32_t node, uint64_t start, uint32_t from,
                   uint32_t to)
{
    const uint8_t *at = point(s->graph, node);
    for (uint32_t layer = from; layer > to; layer--) {
        for (uint64_t best; (best = nearest_link(s, at, start, layer)) != start;)
            start = best;
    }
    return start;
}
