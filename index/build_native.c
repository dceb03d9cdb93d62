/* The native builder: levels, order, threads, and the way out.
 *
 *   points ─ levels and a shuffled order, by the seed ─ insertions by all threads ─ native_walk
 *
 * A node goes in by a search from the top (build_native_search.c), layer by layer down to the
 * bottom; only when the neighbours on all its layers are chosen is it linked, from the bottom up
 * (build_native_links.c): whoever meets it on a layer finds it linked on those below. A node that
 * is taller than the graph goes in alone among such and becomes the place where searches start.
 *
 * Threads: native_build's caller and threads - 1 of its own. Links are relaxed atomics, lists
 * change under the lock of their node; codes, levels and order are only read. Failure: no memory or
 * no thread, before anything is built. */
#include "index/build_native_internal.h"

#include <errno.h>
#include <math.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, NODE_BYTES = 16, UPPER_BYTES = 16, PROGRESS_STEPS = 1000 };

uint64_t native_bytes(uint64_t nodes, uint32_t dim, uint32_t m, bool codes)
{
    uint64_t point = codes ? code_stride(dim) : dim * sizeof(float), links = 2 * sizeof(uint32_t);
    return nodes * (point + 2 * m * links + UPPER_BYTES + NODE_BYTES);
}

/* splitmix64's step (S. Vigna, prng.di.unimi.it). */
static uint64_t scramble(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- levels and order ---- */

/* A layer more with probability 1 / m. */
static uint8_t random_layers(uint64_t random, uint32_t m)
{
    double u = ((double)(random >> 11) + 1) / (double)(1ull << 53); /* 0 < u <= 1 */
    double above = -log(u) / log(m < 2 ? 2 : m);
    return above < NATIVE_LAYERS_MAX - 1 ? (uint8_t)(1 + (int)above) : NATIVE_LAYERS_MAX;
}

/* Returns the number of upper lists. */
static uint64_t set_layers(struct native_graph *g, uint64_t seed)
{
    uint64_t lists = 0;
    for (uint32_t i = 0; i < g->points.nodes; i++) {
        g->layers[i] = random_layers(scramble(seed ^ scramble(i)), g->m);
        g->upper_at[i] = (uint32_t)lists;
        lists += g->layers[i] - 1u;
    }
    return lists;
}

static void set_order(struct native_graph *g, uint64_t seed)
{
    for (uint32_t i = 0; i < g->points.nodes; i++)
        g->order[i] = i;
    for (uint32_t i = g->points.nodes - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(scramble(~seed ^ scramble(i)) % (i + 1ull)), moved = g->order[i];
        g->order[i] = g->order[j];
        g->order[j] = moved;
    }
}

/* ---- memory ---- */

/* Large arrays that are read all over: in large pages where there are such. */
static void *allocate_large(size_t n, size_t size)
{
    size_t bytes, align = CODE_ALIGN;
    if (!checked_mul(n ? n : 1, size, &bytes))
        return NULL;
    if (bytes >= HUGE_PAGE)
        align = HUGE_PAGE;
    void *p = aligned_alloc(align, round_up(bytes, align));
    if (p && align == HUGE_PAGE)
        madvise(p, round_up(bytes, align), MADV_HUGEPAGE); /* refused: small pages serve too */
    return p;
}

static void clear_links(link_t *links, uint64_t n)
{
    memset((void *)links, 0xff, n * sizeof(link_t)); /* LINK_NONE, while no other thread is there */
}

static bool allocate_lists(struct native_graph *g, uint64_t upper_lists)
{
    uint64_t bottom = (uint64_t)g->points.nodes * 2 * g->m, upper = upper_lists * g->m;
    g->links = allocate_large(bottom, sizeof(link_t));
    g->keys = allocate_large(bottom, sizeof(uint32_t));
    g->upper_links = allocate_large(upper, sizeof(link_t));
    g->upper_keys = allocate_large(upper, sizeof(uint32_t));
    if (!g->links || !g->keys || !g->upper_links || !g->upper_keys)
        return false;
    clear_links(g->links, bottom);
    clear_links(g->upper_links, upper);
    return true;
}

static enum err graph_new(const struct native_options *o, const struct points *p,
                          struct native_graph **out, struct err_ctx *ctx)
{
    struct native_graph *g = calloc(1, sizeof(*g));
    if (!g)
        return err_no_memory(ctx, sizeof(*g));
    *g = (struct native_graph){.points = *p, .m = o->m, .ef = o->ef_construction, .options = o};
    pthread_mutex_init(&g->top, NULL);
    g->layers = malloc(p->nodes);
    g->upper_at = malloc(p->nodes * sizeof(uint32_t));
    g->order = malloc(p->nodes * sizeof(uint32_t));
    g->locks = calloc(p->nodes, 1);
    bool ok = g->layers && g->upper_at && g->order && g->locks;
    if (ok) {
        set_order(g, o->seed);
        ok = allocate_lists(g, set_layers(g, o->seed));
    }
    if (!ok) {
        native_free(g);
        return err_no_memory(ctx, native_bytes(p->nodes, 0, o->m, false));
    }
    *out = g;
    return ERR_OK;
}

void native_free(struct native_graph *g)
{
    if (!g)
        return;
    pthread_mutex_destroy(&g->top);
    free(g->layers);
    free(g->upper_at);
    free(g->order);
    free((void *)g->links);
    free(g->keys);
    free((void *)g->upper_links);
    free(g->upper_keys);
    free((void *)g->locks);
    free(g);
}

static void seeker_deinit(struct seeker *s)
{
    free(s->visited);
    free(s->touched);
    free(s->pool);
    free(s->open);
    free(s->sorted);
    free(s->chosen);
    free(s->kept);
    free(s->picked);
}

static enum err seeker_init(struct seeker *s, struct native_graph *g, struct err_ctx *ctx)
{
    size_t width = 2 * (size_t)g->m + 4;
    *s = (struct seeker){.graph = g};
    s->visited = calloc((size_t)g->points.nodes / 64 + 1, sizeof(uint64_t));
    s->touched = malloc((TOUCHED_MAX + 1) * sizeof(uint32_t));
    s->pool = malloc((g->ef + 1ull) * sizeof(uint64_t));
    s->open = malloc(width * sizeof(uint32_t));
    s->sorted = malloc(width * sizeof(uint64_t));
    s->chosen = malloc((size_t)NATIVE_LAYERS_MAX * 2 * g->m * sizeof(uint64_t));
    s->kept = malloc(width * sizeof(uint64_t));
    s->picked = malloc(width * sizeof(uint32_t));
    return s->visited && s->touched && s->pool && s->open && s->sorted && s->chosen && s->kept &&
                   s->picked
               ? ERR_OK
               : err_no_memory(ctx, g->points.nodes / 8);
}

/* ---- insertions ---- */

static uint64_t head_of(uint32_t layers, uint32_t node)
{
    return (uint64_t)layers << 32 | node;
}

static void insert_under(struct seeker *s, uint32_t node, uint64_t head)
{
    struct native_graph *g = s->graph;
    uint32_t layers = g->layers[node], top = (uint32_t)(head >> 32), start = (uint32_t)head;
    uint32_t shared = layers < top ? layers : top;
    uint64_t nearest = candidate(measure(g, point(g, node), start), start);
    nearest = seek_down(s, node, nearest, top - 1, shared - 1);
    for (uint32_t layer = shared; layer-- > 0;) {
        seek_layer(s, node, nearest, layer);
        nearest = s->pool[0] & ~(uint64_t)1;
        s->nchosen[layer] = choose(s, s->pool, s->npool, layer ? g->m : 2 * g->m,
                                   s->chosen + (size_t)layer * 2 * g->m);
    }
    for (uint32_t layer = 0; layer < shared; layer++)
        connect_layer(s, node, layer);
}

/* `head` is read once at the start: it only ever grows. */
static void insert_node(struct seeker *s, uint32_t node)
{
    struct native_graph *g = s->graph;
    uint64_t head = atomic_load_explicit(&g->head, memory_order_acquire);
    if (g->layers[node] <= head >> 32) {
        insert_under(s, node, head);
        return;
    }
    pthread_mutex_lock(&g->top);
    head = atomic_load_explicit(&g->head, memory_order_acquire);
    insert_under(s, node, head);
    if (g->layers[node] > head >> 32)
        atomic_store_explicit(&g->head, head_of(g->layers[node], node), memory_order_release);
    pthread_mutex_unlock(&g->top);
}

static void *insert_all(void *arg)
{
    struct seeker *s = arg;
    struct native_graph *g = s->graph;
    for (;;) {
        uint64_t i = atomic_fetch_add_explicit(&g->next, 1, memory_order_relaxed);
        if (i >= g->points.nodes)
            return NULL;
        insert_node(s, g->order[i]);
    }
}

/* The caller's share of the work, which also tells how far all of it is. */
static void insert_and_tell(struct seeker *s)
{
    struct native_graph *g = s->graph;
    const struct native_options *o = g->options;
    double said = 0, all = o->progress ? o->work_of(g->points.nodes) : 0;
    for (;;) {
        uint64_t i = atomic_fetch_add_explicit(&g->next, 1, memory_order_relaxed);
        if (i >= g->points.nodes)
            return;
        insert_node(s, g->order[i]);
        double done = o->progress ? o->work_of((double)i) / all : 0;
        if (done - said > 1.0 / PROGRESS_STEPS)
            o->progress(said = done);
    }
}

struct crew {
    unsigned size;
    struct seeker *seekers;
    pthread_t *threads; /* of all but the first */
};

static enum err crew_open(struct crew *c, struct native_graph *g, struct err_ctx *ctx)
{
    c->seekers = calloc(c->size, sizeof(*c->seekers));
    c->threads = calloc(c->size, sizeof(*c->threads));
    if (!c->seekers || !c->threads)
        return err_no_memory(ctx, c->size * sizeof(*c->seekers));
    for (unsigned i = 0; i < c->size; i++)
        RETURN_NOT_OK(seeker_init(&c->seekers[i], g, ctx));
    return ERR_OK;
}

static void crew_close(struct crew *c)
{
    for (unsigned i = 0; c->seekers && i < c->size; i++)
        seeker_deinit(&c->seekers[i]);
    free(c->seekers);
    free(c->threads);
}

/* A thread that can't be started stops those that were: they find nothing left to insert. */
static enum err crew_work(struct crew *c, struct native_graph *g, struct err_ctx *ctx)
{
    unsigned started = 1;
    int failed = 0;
    while (started < c->size && !failed) {
        failed = pthread_create(&c->threads[started], NULL, insert_all, &c->seekers[started]);
        started += !failed;
    }
    if (failed)
        atomic_store(&g->next, g->points.nodes);
    else
        insert_and_tell(&c->seekers[0]);
    while (--started > 0)
        pthread_join(c->threads[started], NULL);
    return failed ? err_system(ctx, failed, "cannot start %u threads for the build", c->size)
                  : ERR_OK;
}

enum err native_build(const struct native_options *o, const struct points *p,
                      struct native_graph **out, struct err_ctx *ctx)
{
    struct native_graph *g = NULL;
    struct crew crew = {.size = o->threads < p->nodes ? o->threads : p->nodes};
    ASSERT(p->nodes >= 1 && p->nodes <= INT32_MAX && o->threads >= 1);
    RETURN_NOT_OK(graph_new(o, p, &g, ctx));
    enum err e = crew_open(&crew, g, ctx);
    if (e == ERR_OK) {
        atomic_store(&g->head, head_of(g->layers[g->order[0]], g->order[0]));
        atomic_store(&g->next, 1);
        e = crew_work(&crew, g, ctx);
    }
    crew_close(&crew);
    if (e != ERR_OK) {
        native_free(g);
        return e;
    }
    *out = g;
    return ERR_OK;
}

/* ---- the way out ---- */

static void copy_links(const link_t *from, uint32_t n, uint32_t *to)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = link_get(&from[i]);
}

static enum err walk_nodes(const struct native_graph *g, uint32_t *links,
                           const struct graph_sink *sink, struct err_ctx *ctx)
{
    RETURN_NOT_OK(sink->begin(sink->arg, g->points.nodes, g->m, g->layers, ctx));
    for (uint32_t i = 0; i < g->points.nodes; i++) {
        copy_links(list_of(g, i, 0).links, 2 * g->m, links);
        copy_links(list_of(g, i, 1).links, (g->layers[i] - 1u) * g->m, links + 2 * g->m);
        RETURN_NOT_OK(sink->node(sink->arg, i, links, ctx));
    }
    uint64_t head = atomic_load(&g->head);
    return sink->end(sink->arg, (uint32_t)head, (uint32_t)(head >> 32), ctx);
}

enum err native_walk(void *graph, const struct graph_sink *sink, struct err_ctx *ctx)
{
    const struct native_graph *g = graph;
    size_t places = (NATIVE_LAYERS_MAX + 1) * (size_t)g->m;
    uint32_t *links = malloc(places * sizeof(uint32_t));
    if (!links)
        return err_no_memory(ctx, places * sizeof(uint32_t));
    enum err e = walk_nodes(g, links, sink, ctx);
    free(links);
    return e;
}
