/* The native builder's lists, and which neighbours go into them.
 *
 * The choice is FAISS's (shrink_neighbor_list; algorithm 4 of the paper without its extras):
 * nearest first, a candidate is taken unless one that was taken is nearer to it than the node is. A
 * list has room for 2m on the bottom layer, m above. A node's own list is the choice from all that
 * its search found; where the way back finds a full list, that one is chosen anew.
 *
 * A list that was chosen anew begins with the choice, nearest first; later links follow as they
 * come, so that sorting it again moves little.
 *
 * Threads: a list changes under its node's lock, held for one list at a time. A holder may lose its
 * processor (builds run at idle priority): who waits turns a few rounds, then yields. Failure:
 * none. */
#include "index/build_native_internal.h"

#include <sched.h>

enum { SPINS = 64 };

static void lock(struct native_graph *g, uint32_t node)
{
    for (int spins = 0; atomic_exchange_explicit(&g->locks[node], 1, memory_order_acquire);) {
        if (++spins > SPINS) {
            sched_yield();
            continue;
        }
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
}

static void unlock(struct native_graph *g, uint32_t node)
{
    atomic_store_explicit(&g->locks[node], 0, memory_order_release);
}

/* Whether none of the n picked is nearer to the candidate than its key says. */
static bool stands_alone(const struct seeker *s, uint64_t c, uint32_t n)
{
    const uint8_t *from = point(s->graph, candidate_node(c));
    for (uint32_t i = 0; i < n; i += 4) {
        uint32_t key[4], least = candidate_key(c);
        measure_4(s->graph, from, s->picked + i, key);
        if (key[0] < least || key[1] < least || key[2] < least || key[3] < least)
            return false;
    }
    return true;
}

uint32_t choose(const struct seeker *s, const uint64_t *from, uint32_t n, uint32_t most,
                uint64_t *out)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; i < n && taken < most; i++) {
        if (!stands_alone(s, from[i], taken))
            continue;
        uint32_t node = candidate_node(from[i]);
        for (uint32_t j = taken; j < taken + 4; j++) /* the last one fills up the four */
            s->picked[j] = node;
        out[taken++] = from[i];
    }
    return taken;
}

/* Under the lock: the list becomes these. */
static void put_list(const struct list *l, const uint64_t *from, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        l->keys[i] = candidate_key(from[i]);
        link_set(&l->links[i], candidate_node(from[i]));
    }
    for (uint32_t i = n; i < l->width && link_get(&l->links[i]) != LINK_NONE; i++)
        link_set(&l->links[i], LINK_NONE);
}

static void sort(uint64_t *c, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint64_t moved = c[i];
        uint32_t j = i;
        for (; j > 0 && c[j - 1] > moved; j--)
            c[j] = c[j - 1];
        c[j] = moved;
    }
}

/* Under the lock: chooses anew among the links of a full list and one more. */
static void choose_again(struct seeker *s, const struct list *l, uint64_t more)
{
    const struct native_graph *g = s->graph;
    uint32_t n = l->width;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t to = link_get(&l->links[i]);
        s->sorted[i] = candidate(l->keys[i], to);
        prefetch(point(g, to), g->points.stride);
    }
    s->sorted[n++] = more;
    sort(s->sorted, n);
    put_list(l, s->kept, choose(s, s->sorted, n, l->width, s->kept));
}

/* Links `at` to the node that the candidate names. */
static void link_back(struct seeker *s, uint32_t at, uint64_t to, uint32_t layer)
{
    struct native_graph *g = s->graph;
    struct list l = list_of(g, at, layer);
    uint32_t n = 0, node = candidate_node(to), have;
    lock(g, at);
    while (n < l.width && (have = link_get(&l.links[n])) != LINK_NONE && have != node)
        n++;
    if (n == l.width) {
        choose_again(s, &l, to);
    } else if (have != node) {
        l.keys[n] = candidate_key(to);
        link_set(&l.links[n], node);
    }
    unlock(g, at);
}

void connect_layer(struct seeker *s, uint32_t node, uint32_t layer)
{
    struct native_graph *g = s->graph;
    const uint64_t *chosen = s->chosen + (size_t)layer * 2 * g->m;
    struct list own = list_of(g, node, layer);
    lock(g, node);
    put_list(&own, chosen, s->nchosen[layer]);
    unlock(g, node);
    for (uint32_t i = 0; i < s->nchosen[layer]; i++)
        link_back(s, candidate_node(chosen[i]), candidate(candidate_key(chosen[i]), node), layer);
}
