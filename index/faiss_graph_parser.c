/* Parses what FAISS writes for an IndexHNSW, in pieces of any size, without holding it.
 *
 *   "IHNf"  i32 d, i64 ntotal, 2 x i64, u8 trained, i32 metric
 *           u64 count + doubles: level probabilities
 *           u64 count + i32: links of a node with 0, 1, 2 ... layers (0, 2m, 3m, 4m ...)
 *           u64 count + i32: layers of each node
 *           u64 count + u64: where each node's links start
 *           u64 count + i32: links, node by node, -1 = free place
 *           i32 entry, layers - 1, efConstruction, efSearch, beam
 *           the vectors, as an index of their own: ignored
 *
 * (faiss/impl/index_write.cpp, write_HNSW.) The parser always waits for `want` bytes, in `field`,
 * in the links of a node, or to be dropped; when they are there, the step decides what comes next.
 * Every count is checked against the ones before it, so a damaged stream ends in an error.
 *
 * Threads: one. Failure: ERR_CORRUPT says which part did not add up. */
#include "index/faiss_graph.h"

#include <string.h>

enum { LAYERS_MAX = 64, LINKS_MAX = 64 * 1024 };

enum step {
    STEP_HEADER,
    STEP_PROBABILITIES_COUNT,
    STEP_PROBABILITIES,
    STEP_WIDTHS_COUNT,
    STEP_WIDTHS,
    STEP_LAYERS_COUNT,
    STEP_LAYERS,
    STEP_OFFSETS_COUNT,
    STEP_OFFSETS,
    STEP_LINKS_COUNT,
    STEP_LINKS,
    STEP_ENTRY,
    STEP_DONE
};

struct graph_parser {
    struct graph_sink sink;
    enum step step;
    uint8_t *dst; /* NULL: drop the bytes */
    uint64_t want, have;
    uint8_t field[256 + 4]; /* the longest: LAYERS_MAX widths */
    uint32_t widths[LAYERS_MAX + 1];
    uint32_t nwidths;
    uint32_t nodes;
    uint32_t node; /* being read */
    uint64_t links_total;
    uint8_t *layers;
    uint32_t *links;
};

enum { HEADER_BYTES = 4 + 4 + 8 + 8 + 8 + 1 + 4, ENTRY_BYTES = 5 * 4 };

static enum err damaged(const char *what, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_CORRUPT, "the graph that FAISS wrote cannot be read: %s", what);
}

static int32_t field_i32(const struct graph_parser *p, size_t offset)
{
    int32_t v;
    memcpy(&v, p->field + offset, sizeof(v));
    return v;
}

static uint64_t field_u64(const struct graph_parser *p, size_t offset)
{
    uint64_t v;
    memcpy(&v, p->field + offset, sizeof(v));
    return v;
}

static void expect(struct graph_parser *p, enum step step, void *dst, uint64_t want)
{
    p->step = step;
    p->dst = dst;
    p->want = want;
    p->have = 0;
}

static enum err take_header(struct graph_parser *p, struct err_ctx *ctx)
{
    if (memcmp(p->field, "IHNf", 4) != 0)
        return damaged("it is no HNSW index over flat vectors", ctx);
    int64_t n = (int64_t)field_u64(p, 8);
    int32_t metric = field_i32(p, HEADER_BYTES - 4);
    if (n < 1 || n > INT32_MAX || metric < 0 || metric > 1)
        return damaged("impossible size or metric", ctx);
    p->nodes = (uint32_t)n;
    p->layers = malloc(p->nodes);
    if (!p->layers)
        return err_no_memory(ctx, p->nodes);
    expect(p, STEP_PROBABILITIES_COUNT, p->field, 8);
    return ERR_OK;
}

static enum err take_widths(struct graph_parser *p, struct err_ctx *ctx)
{
    for (uint32_t i = 0; i < p->nwidths; i++) {
        int32_t v = field_i32(p, sizeof(int32_t) * i);
        if (v < 0 || v > LINKS_MAX)
            return damaged("impossible number of links", ctx);
        p->widths[i] = (uint32_t)v;
    }
    uint32_t m = p->widths[1] / 2;
    bool regular = p->widths[0] == 0 && m >= 1 && p->widths[1] == 2 * m;
    for (uint32_t i = 2; i < p->nwidths; i++)
        regular = regular && p->widths[i] == p->widths[i - 1] + m;
    if (!regular)
        return damaged("irregular numbers of links", ctx);
    ASSERT(m > 0 && p->nwidths > 1);
    size_t bytes = (size_t)p->nwidths * m * sizeof(uint32_t); /* the widest: the last */
    p->links = calloc(1, bytes);
    if (!p->links)
        return err_no_memory(ctx, bytes);
    expect(p, STEP_LAYERS_COUNT, p->field, 8);
    return ERR_OK;
}

static void next_links(struct graph_parser *p)
{
    uint64_t bytes = (uint64_t)p->widths[p->layers[p->node]] * sizeof(uint32_t);
    expect(p, STEP_LINKS, (uint8_t *)p->links, bytes);
}

static enum err take_layers(struct graph_parser *p, struct err_ctx *ctx)
{
    int32_t layers = field_i32(p, 0);
    if (layers < 1 || (uint32_t)layers >= p->nwidths)
        return damaged("a node has an impossible number of layers", ctx);
    p->layers[p->node++] = (uint8_t)layers;
    p->links_total += p->widths[layers];
    if (p->node < p->nodes)
        expect(p, STEP_LAYERS, p->field, 4);
    else
        expect(p, STEP_OFFSETS_COUNT, p->field, 8);
    return ERR_OK;
}

static enum err take_links(struct graph_parser *p, struct err_ctx *ctx)
{
    RETURN_NOT_OK(p->sink.node(p->sink.arg, p->node, p->links, ctx));
    if (++p->node < p->nodes)
        next_links(p);
    else
        expect(p, STEP_ENTRY, p->field, ENTRY_BYTES);
    return ERR_OK;
}

static enum err take_entry(struct graph_parser *p, struct err_ctx *ctx)
{
    int32_t entry = field_i32(p, 0), top = field_i32(p, 4);
    if (entry < 0 || (uint32_t)entry >= p->nodes || top < 0 || top >= LAYERS_MAX ||
        p->layers[entry] != top + 1)
        return damaged("impossible entry point", ctx);
    expect(p, STEP_DONE, NULL, UINT64_MAX);
    return p->sink.end(p->sink.arg, (uint32_t)entry, (uint32_t)top + 1, ctx);
}

/* A count has arrived: what it must be, and what follows. */
static enum err take_count(struct graph_parser *p, struct err_ctx *ctx)
{
    uint64_t n = field_u64(p, 0);
    switch (p->step) {
    case STEP_PROBABILITIES_COUNT:
        if (n > LAYERS_MAX)
            return damaged("too many layers", ctx);
        expect(p, STEP_PROBABILITIES, NULL, n * 8);
        return ERR_OK;
    case STEP_WIDTHS_COUNT:
        if (n < 2 || n > LAYERS_MAX + 1)
            return damaged("too many layers", ctx);
        p->nwidths = (uint32_t)n;
        expect(p, STEP_WIDTHS, p->field, n * 4);
        return ERR_OK;
    case STEP_LAYERS_COUNT:
        if (n != p->nodes)
            return damaged("the layers do not match the number of nodes", ctx);
        p->node = 0;
        expect(p, STEP_LAYERS, p->field, 4);
        return ERR_OK;
    case STEP_OFFSETS_COUNT:
        if (n != (uint64_t)p->nodes + 1)
            return damaged("the offsets do not match the number of nodes", ctx);
        expect(p, STEP_OFFSETS, NULL, n * 8);
        return ERR_OK;
    default:
        if (n != p->links_total)
            return damaged("the links do not match the layers", ctx);
        p->node = 0;
        next_links(p);
        return p->sink.begin(p->sink.arg, p->nodes, p->widths[1] / 2, p->layers, ctx);
    }
}

static enum err take(struct graph_parser *p, struct err_ctx *ctx)
{
    switch (p->step) {
    case STEP_HEADER:
        return take_header(p, ctx);
    case STEP_PROBABILITIES:
        expect(p, STEP_WIDTHS_COUNT, p->field, 8);
        return ERR_OK;
    case STEP_WIDTHS:
        return take_widths(p, ctx);
    case STEP_LAYERS:
        return take_layers(p, ctx);
    case STEP_OFFSETS:
        expect(p, STEP_LINKS_COUNT, p->field, 8);
        return ERR_OK;
    case STEP_LINKS:
        return take_links(p, ctx);
    case STEP_ENTRY:
        return take_entry(p, ctx);
    case STEP_DONE:
        return ERR_OK;
    default:
        return take_count(p, ctx);
    }
}

enum err graph_parser_new(const struct graph_sink *sink, struct graph_parser **out,
                          struct err_ctx *ctx)
{
    struct graph_parser *p = calloc(1, sizeof(*p));
    if (!p)
        return err_no_memory(ctx, sizeof(*p));
    p->sink = *sink;
    expect(p, STEP_HEADER, p->field, HEADER_BYTES);
    *out = p;
    return ERR_OK;
}

enum err graph_parser_push(struct graph_parser *p, const void *data, size_t n, struct err_ctx *ctx)
{
    const uint8_t *in = data;
    while (n > 0 && p->step != STEP_DONE) {
        uint64_t left = p->want - p->have;
        size_t part = left < n ? (size_t)left : n;
        if (p->dst)
            memcpy(p->dst + p->have, in, part);
        p->have += part;
        in += part;
        n -= part;
        while (p->have == p->want && p->step != STEP_DONE)
            RETURN_NOT_OK(take(p, ctx));
    }
    return ERR_OK;
}

enum err graph_parser_finish(struct graph_parser *p, struct err_ctx *ctx)
{
    return p->step == STEP_DONE ? ERR_OK : damaged("it ends before the graph does", ctx);
}

void graph_parser_free(struct graph_parser *p)
{
    if (!p)
        return;
    free(p->layers);
    free(p->links);
    free(p);
}
