/* Finds the rows of a segment that share their vector to the bit.
 *
 *   row ─ graph_vector ─ hash ─> slots: tag << 32 | node + 1, open addressing
 *                                  no such vector yet: the row is a node
 *                                  same tag, same bytes: the row is a twin of that node
 *   twins, as (node, row), sorted by node and key ─> twins_at, twins
 *
 * Why: points at distance 0 fill each other's neighbour lists in an HNSW graph (its selection rule
 * prunes none of them), and a walk that enters such a clique finds no way out, whatever its effort.
 *
 * Only the first vector of a node is compared with, read again from the segment, so that nothing of
 * the size of the vectors is held. Slots are at most three quarters full.
 *
 * Threads: one. Failure: no memory; what was found so far is freed by distinct_deinit. */
#include "index/distinct.h"

#include <math.h>

#include "base/hash.h"
#include "index/distance.h"
#include "index/key_order.h"

struct twin {
    uint32_t node;
    uint32_t row;
};

struct finder {
    const struct segment *segment;
    size_t vector_bytes;
    struct distinct *out;
    uint64_t *slots, slot_mask;
    float *vector, *other; /* of the row at hand; of the node it is compared with */
    struct buf twins;      /* struct twin */
};

double graph_vector(const struct segment *s, uint32_t row, float *restrict out)
{
    uint32_t dim = s->schema->dim;
    const float *v = s->vectors + (size_t)row * dim;
    double scale = 1;
    if (s->schema->metric == DIST_COSINE) {
        double norm2 = distance_norm2(v, dim); /* in double large float32 do not overflow */
        scale = norm2 > 0 ? 1 / sqrt(norm2) : 0;
    }
    for (uint32_t i = 0; i < dim; i++)
        out[i] = (float)(v[i] * scale) + 0.0f; /* minus zero becomes zero */
    return scale;
}

/* ---- which rows ---- */

static bool same_vector(struct finder *f, uint32_t node)
{
    graph_vector(f->segment, f->out->rows[node], f->other);
    return memcmp(f->vector, f->other, f->vector_bytes) == 0;
}

static void add_row(struct finder *f, uint32_t row)
{
    struct distinct *d = f->out;
    graph_vector(f->segment, row, f->vector);
    uint64_t hash = hash64(f->vector, f->vector_bytes), tag = hash >> 32, at = hash & f->slot_mask;
    for (; f->slots[at]; at = (at + 1) & f->slot_mask) {
        uint32_t node = (uint32_t)f->slots[at] - 1;
        if (f->slots[at] >> 32 == tag && same_vector(f, node)) {
            struct twin twin = {node, row};
            buf_put(&f->twins, &twin, sizeof(twin));
            return;
        }
    }
    d->rows[d->nodes++] = row;
    f->slots[at] = tag << 32 | d->nodes;
}

static enum err add_rows(struct finder *f, struct err_ctx *ctx)
{
    const struct segment *s = f->segment;
    for (uint32_t row = 0; row < s->rows; row++) {
        if (!(segment_vector_nulls(s, row / 64) >> (row % 64) & 1))
            add_row(f, row);
    }
    return f->twins.failed ? err_no_memory(ctx, 2 * f->twins.len) : ERR_OK;
}

/* ---- twins ---- */

static int twin_compare(const void *a, const void *b, void *segment)
{
    const struct twin *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    return key_order(segment, x->row, segment, y->row);
}

static enum err list_twins(struct finder *f, struct err_ctx *ctx)
{
    struct distinct *d = f->out;
    struct twin *found = (struct twin *)f->twins.data;
    size_t n = f->twins.len / sizeof(*found), at = 0;
    if (n == 0)
        return ERR_OK;
    d->ntwins = (uint32_t)n;
    d->twins_at = calloc(d->nodes + 1ul, sizeof(uint32_t));
    d->twins = calloc(n, sizeof(uint32_t));
    if (!d->twins_at || !d->twins)
        return err_no_memory(ctx, (d->nodes + 1 + n) * sizeof(uint32_t));
    qsort_r(found, n, sizeof(*found), twin_compare, (void *)f->segment);
    for (uint32_t node = 0; node < d->nodes; node++) {
        d->twins_at[node] = (uint32_t)at;
        for (; at < n && found[at].node == node; at++)
            d->twins[at] = found[at].row;
    }
    d->twins_at[d->nodes] = (uint32_t)n;
    return ERR_OK;
}

/* ---- a segment ---- */

static enum err prepare(struct finder *f, uint32_t vectors, struct err_ctx *ctx)
{
    uint64_t slots = 1;
    while (slots - slots / 4 <= vectors)
        slots *= 2;
    f->slot_mask = slots - 1;
    f->vector_bytes = f->segment->schema->dim * sizeof(float);
    f->slots = calloc(slots, sizeof(uint64_t));
    f->vector = malloc(f->vector_bytes);
    f->other = malloc(f->vector_bytes);
    f->out->rows = malloc(vectors * sizeof(uint32_t));
    bool ok = f->slots && f->vector && f->other && f->out->rows;
    return ok ? ERR_OK : err_no_memory(ctx, slots * sizeof(uint64_t));
}

/* Gives back the memory of rows that turned out to be twins, and all of it when node = row. */
static void trim_rows(struct distinct *d, uint32_t rows)
{
    if (d->nodes == rows) {
        free(d->rows);
        d->rows = NULL;
        return;
    }
    uint32_t *less = realloc(d->rows, d->nodes * sizeof(uint32_t));
    d->rows = less ? less : d->rows;
}

enum err distinct_find(const struct segment *s, uint32_t vectors, struct distinct *out,
                       struct err_ctx *ctx)
{
    struct finder f = {.segment = s, .out = out};
    *out = (struct distinct){0};
    ASSERT(vectors > 0 && vectors <= s->rows);
    enum err e = prepare(&f, vectors, ctx);
    if (e == ERR_OK)
        e = add_rows(&f, ctx);
    free(f.slots);
    if (e == ERR_OK)
        e = list_twins(&f, ctx);
    if (e == ERR_OK)
        trim_rows(out, s->rows);
    free(f.vector);
    free(f.other);
    buf_deinit(&f.twins);
    return e;
}

void distinct_deinit(struct distinct *d)
{
    free(d->rows);
    free(d->twins_at);
    free(d->twins);
}
