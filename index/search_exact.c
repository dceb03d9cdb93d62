/* Exact search of a view: every live row that has a vector and matches is shown to every query.
 *
 *   block of rows (fits the L2 cache) ─> list of allowed rows and their vectors, made once
 *        └─ query 0: four rows at a time ─> collect
 *           query 1: ...
 *
 * Distances are float with a bound of their error; what the bound leaves open, collect settles in
 * double. Bounds, with g = kernels_error(dim) and all sums of non-negative terms:
 *   l2      g times the squared distance
 *   ip      g |q| |v|, since the sum of |q_i v_i| is at most that
 *   cosine  2 g and a few roundings
 * plus what the smallest float can hide. Where a square overflows or all but vanishes, nothing is
 * known and the row is measured in double.
 *
 * Threads: per call. Failure: no memory for the block lists. */
#include "index/search_internal.h"

#include <float.h>

#include "index/kernels.h"

enum {
    BLOCK_BYTES = 256 * 1024,
    BLOCK_ROWS_MAX = 4096,
    FILL_WORDS_MAX = 1 << 14, /* of 64 rows, looked at for a block */
    PREFETCH_ROWS = 8,        /* ahead, when they are scattered */
    PREFETCH_BYTES = 512      /* of a row; the processor goes on from there by itself */
};

struct block {
    uint32_t *rows;
    const float **vectors;
    uint32_t n;
};

struct scan {
    uint32_t view;
    uint32_t dim;
    enum metric metric;
    float relative; /* error bound: relative part, per metric */
    float absolute;
    bool scattered; /* the vectors don't follow each other in memory */
};

/* ---- which rows ---- */

static uint64_t dead_word(const struct mask *m, uint32_t w)
{
    uint32_t page = w / MASK_PAGE_WORDS;
    if (!m || page >= m->npages || !m->pages[page])
        return 0;
    return m->pages[page]->words[w % MASK_PAGE_WORDS];
}

uint64_t view_live_word(const struct view *v, uint32_t w)
{
    uint64_t first = (uint64_t)w * 64;
    if (first >= v->rows)
        return 0;
    uint64_t live = ~(dead_word(v->dead, w) | segment_vector_nulls(v->segment, w));
    return v->rows - first >= 64 ? live : live & ((1ull << (v->rows - first)) - 1);
}

uint32_t view_vectors(const struct view *v)
{
    uint32_t n = 0;
    for (uint32_t w = 0; (uint64_t)w * 64 < v->rows; w++)
        n += (uint32_t)__builtin_popcountll(view_live_word(v, w));
    return n;
}

/* Appends the allowed rows of [64 w, 64 w + 64). */
static void block_add_word(struct block *b, const struct allowed *a, uint32_t w, uint32_t dim)
{
    const struct segment *s = a->view->segment;
    uint32_t run_first = 0, run_rows = 0;
    const float *run = NULL;
    for (uint64_t bits = allowed_word(a, w); bits; bits &= bits - 1) {
        uint32_t row = w * 64 + (uint32_t)__builtin_ctzll(bits);
        if (row - run_first >= run_rows) {
            run = segment_vector_run(s, row, &run_rows);
            run_first = row;
        }
        b->rows[b->n] = row;
        b->vectors[b->n++] = run + (size_t)(row - run_first) * dim;
    }
}

static uint32_t block_rows(uint32_t dim)
{
    uint32_t rows = (uint32_t)(BLOCK_BYTES / (dim * sizeof(float))) / 64 * 64;
    return rows < 64 ? 64 : rows > BLOCK_ROWS_MAX ? BLOCK_ROWS_MAX : rows;
}

/* ---- distances ---- */

/* A squared norm that neither overflowed nor lost its precision to the smallest float. */
static bool norm_sound(float norm2)
{
    return norm2 > 1e-30f && norm2 < FLT_MAX;
}

static void show_l2(const struct scan *s, struct collect *c, const float *const v[4],
                    const uint32_t *rows, uint32_t n)
{
    float d[4];
    kernels.l2sqr_4(c->query, v, s->dim, d);
    for (uint32_t i = 0; i < n; i++)
        collect_add(c, d[i], d[i] * s->relative + s->absolute, (struct row_ref){s->view, rows[i]});
}

static void show_ip(const struct scan *s, struct collect *c, const float *const v[4],
                    const uint32_t *rows, uint32_t n)
{
    float dot[4], norm2[4], length = (float)sqrt(c->norm2) * s->relative;
    kernels.dot_norm_4(c->query, v, s->dim, dot, norm2);
    for (uint32_t i = 0; i < n; i++) {
        bool sound = norm_sound(norm2[i]) && isfinite(dot[i]);
        float error = sound ? sqrtf(norm2[i]) * length + s->absolute : NAN;
        collect_add(c, -dot[i], error, (struct row_ref){s->view, rows[i]});
    }
}

static void show_cosine(const struct scan *s, struct collect *c, const float *const v[4],
                        const uint32_t *rows, uint32_t n)
{
    float dot[4], norm2[4];
    kernels.dot_norm_4(c->scaled, v, s->dim, dot, norm2);
    for (uint32_t i = 0; i < n; i++) {
        float error = norm_sound(norm2[i]) ? s->relative : NAN;
        collect_add(c, 1 - dot[i] / sqrtf(norm2[i]), error, (struct row_ref){s->view, rows[i]});
    }
}

static inline void prefetch_rows(const struct scan *s, const struct block *b, uint32_t from)
{
    size_t bytes =
        s->dim * sizeof(float) < PREFETCH_BYTES ? s->dim * sizeof(float) : PREFETCH_BYTES;
    for (uint32_t i = from; i < from + 4 && i < b->n; i++) {
        for (size_t at = 0; at < bytes; at += 64)
            __builtin_prefetch((const char *)b->vectors[i] + at);
    }
}

static void show_block(const struct scan *s, const struct block *b, struct collect *c)
{
    for (uint32_t i = 0; i < b->n; i += 4) {
        if (s->scattered)
            prefetch_rows(s, b, i + PREFETCH_ROWS);
        uint32_t n = b->n - i < 4 ? b->n - i : 4, last = i + n - 1;
        const float *v[4] = {b->vectors[i], b->vectors[i + 1 < last ? i + 1 : last],
                             b->vectors[i + 2 < last ? i + 2 : last], b->vectors[last]};
        if (s->metric == DIST_L2)
            show_l2(s, c, v, b->rows + i, n);
        else if (s->metric == DIST_IP)
            show_ip(s, c, v, b->rows + i, n);
        else
            show_cosine(s, c, v, b->rows + i, n);
    }
}

static struct scan scan_of(const struct snapshot *s, uint32_t view)
{
    double g = kernels_error(s->schema->dim), u = FLT_EPSILON;
    struct scan scan = {.view = view, .dim = s->schema->dim, .metric = s->schema->metric};
    scan.relative = (float)(scan.metric == DIST_COSINE ? 2 * g + 16 * u : g + 4 * u);
    scan.absolute = (float)scan.dim * 3e-45f;
    return scan;
}

void exact_show(const struct snapshot *s, uint32_t view, uint32_t *rows, const float **vectors,
                uint32_t n, struct collect *query)
{
    struct scan scan = scan_of(s, view);
    const struct block b = {rows, vectors, n};
    scan.scattered = true;
    show_block(&scan, &b, query);
}

/* Fills the block from word *w on, and leaves *w behind its last one. */
static void fill_block(struct block *b, const struct allowed *a, uint32_t *w, uint32_t words,
                       uint32_t room, uint32_t dim)
{
    uint32_t end = words - *w < FILL_WORDS_MAX ? words : *w + FILL_WORDS_MAX;
    b->n = 0;
    while ((*w = allowed_next(a, *w, end)) < end && b->n + 64 <= room)
        block_add_word(b, a, (*w)++, dim);
}

enum err exact_scan(const struct snapshot *s, const struct view_plan *plan, struct collect *queries,
                    size_t n, struct search_scratch *scratch, struct err_ctx *ctx)
{
    const struct view *v = &s->views[plan->view];
    struct scan scan = scan_of(s, plan->view);
    uint32_t per_block = block_rows(scan.dim), words = v->rows / 64 + (v->rows % 64 != 0);
    struct block b = {.rows = scratch_room(&scratch->rows, per_block, sizeof(uint32_t)),
                      .vectors = scratch_room(&scratch->pointers, per_block, sizeof(float *))};
    if (!b.rows || !b.vectors)
        return err_no_memory(ctx, per_block * (sizeof(uint32_t) + sizeof(float *)));
    for (uint32_t w = 0; w < words;) {
        uint32_t from = w;
        if (scratch->cancel && atomic_load_explicit(scratch->cancel, memory_order_relaxed))
            return err_set(ctx, ERR_UNAVAILABLE, "the search was cut off: the daemon stops");
        fill_block(&b, &plan->allowed, &w, words, per_block, scan.dim);
        scan.scattered = b.n < (w - from) * 32;
        for (size_t q = 0; b.n > 0 && q < n; q++) {
            show_block(&scan, &b, &queries[q]);
            scan.scattered = false; /* the first query has brought it into the cache */
        }
    }
    return ERR_OK;
}
