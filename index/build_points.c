/* The points of a native build: what the distances between nodes are taken from.
 *
 * Codes have 8 bits over the range of the 7-bit ones that the file gets: the graph is the better
 * for twice the precision, and a file with its codes comes from the same clipped range. Where codes
 * lose too much, and for inner products, the vectors themselves are copied.
 *
 * Threads: one. Failure: no memory. */
#include "index/build_native.h"
#include "index/kernels.h"

#include <string.h>
#include <sys/mman.h>

enum { TOP = 255, HUGE_PAGE = 2 << 20 };

bool points_codes_fit(uint32_t dim)
{
    return dim <= CODE8_DIM_MAX;
}

static void encode(const float *restrict v, float lo, float per_step, uint32_t dim,
                   uint8_t *restrict out)
{
    for (uint32_t j = 0; j < dim; j++) {
        float t = (v[j] - lo) * per_step;
        t = t < 0 ? 0 : t > TOP ? TOP : t;
        out[j] = (uint8_t)(int)(t + 0.5f);
    }
}

static void take(struct points *p, const struct segment *s, const struct distinct *rows,
                 const struct code_scale *scale, float *norms, float *vector)
{
    float per_step = scale ? TOP / (CODE_TOP * scale->step[0]) : 0;
    for (uint32_t i = 0; i < p->nodes; i++) {
        uint8_t *to = p->data + i * p->stride;
        float *v = scale ? vector : (float *)to;
        double norm = graph_vector(s, rows->rows ? rows->rows[i] : i, v);
        if (norms)
            norms[i] = (float)norm;
        if (!scale)
            continue;
        encode(vector, scale->lo[0], per_step, p->dim, to);
        memset(to + p->dim, 0, p->stride - p->dim);
    }
}

enum err points_init(struct points *p, const struct segment *s, const struct distinct *rows,
                     const struct code_scale *scale, float *norms, struct err_ctx *ctx)
{
    uint32_t dim = s->schema->dim;
    ASSERT(!scale || (scale->scheme == CODE_UNIFORM && points_codes_fit(dim)));
    *p = (struct points){.kind = scale                          ? POINTS_CODES
                                 : s->schema->metric == DIST_IP ? POINTS_DOT
                                                                : POINTS_L2,
                         .nodes = rows->nodes,
                         .dim = dim,
                         .stride = scale ? code_stride(dim) : dim * sizeof(float)};
    size_t bytes = p->nodes * p->stride, align = bytes >= HUGE_PAGE ? HUGE_PAGE : CODE_ALIGN;
    float *vector = malloc(dim * sizeof(float));
    p->data = aligned_alloc(align, round_up(bytes, align));
    bool ok = vector && p->data;
    if (ok) {
        if (align == HUGE_PAGE)
            madvise(p->data, round_up(bytes, align), MADV_HUGEPAGE); /* a wish */
        take(p, s, rows, scale, norms, vector);
    }
    free(vector);
    return ok ? ERR_OK : err_no_memory(ctx, bytes);
}

void points_deinit(struct points *p)
{
    free(p->data);
    p->data = NULL;
}
