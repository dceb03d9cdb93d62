/* Search of one view by the codes of its allowed rows: all of them are measured by code, the best
 * by their vectors again, as after a walk.
 *
 *   block of rows (codes fit the L2 cache) ─> list of nodes, made once
 *        └─ query 0: four codes at a time ─> best: the R nearest by code so far
 *           query 1: ...
 *   the R best of each query ─> exact_show ─> collect
 *
 * A code is a quarter of its vector, so where few rows match this reads a quarter of what a scan
 * reads. Which rows may be missed is what the gate of the codes has measured (build_codes.h), on
 * all rows of a sample; where only some are allowed, the nearest of them lie farther apart, and R
 * is twice that of a walk. What promises to be exact never comes here.
 *
 * Nodes are rows but for twins and rows without a vector (ann_file.h): the node of a row is found
 * from that of the row before. Rows that are twins, which are few or the codes are not used, are
 * shown at once. A query far outside of the range of the codes is answered by a scan.
 *
 * Threads: per call, on the caller's scratch. Failure: no memory for it. */
#include "index/search_internal.h"

enum {
    BLOCK_BYTES = 256 * 1024, /* of codes */
    BLOCK_ROWS_MAX = 4096,
    PREFETCH_ROWS = 12,   /* ahead */
    PREFETCH_BYTES = 512, /* of a code; the processor goes on from there by itself */
    SHOW_ROWS = 128,
    SPARE = 64 /* found rows beside twice those that are kept */
};

struct found {
    float distance;
    uint32_t row;
};

/* The nearest by code of one query: those below `bound` are appended, and when there is no more
 * room, all but the `keep` best go. */
struct best {
    const uint8_t *query; /* code_query_prepare; NULL: codes say little of it */
    float bound;
    uint32_t n;
    struct found *found;
};

struct code_scan {
    const struct snapshot *snapshot;
    const struct view_plan *plan;
    const struct ann_file *a;
    const float *vectors;
    size_t stride;
    uint32_t dim;
    uint32_t keep, found_max; /* of each query */
    struct best *best;
    uint32_t *rows, *nodes; /* of a block */
    uint32_t n, block_max;
    uint32_t *twins; /* rows of the block that have no node, SHOW_ROWS at most */
    const float **twin_vectors;
    uint32_t ntwins;
    uint32_t node; /* of the last row, or where it would stand */
};

bool codes_serve(const struct ann_file *a)
{
    return a->codes && a->shape.kind == INDEX_HNSW && a->shape.twins <= a->shape.nodes / 8;
}

uint64_t codes_keep(const struct ann_file *a, uint32_t k)
{
    return 2 * code_rerank(&a->scale, k);
}

/* ---- the best ---- */

static void swap(struct found *a, struct found *b)
{
    struct found t = *a;
    *a = *b;
    *b = t;
}

/* Brings the `keep` nearest of n to the front, in any order. (C. A. R. Hoare, "Algorithm 65:
 * Find", 1961; the pivot is the median of three.) */
static void select_nearest(struct found *f, uint32_t n, uint32_t keep)
{
    uint32_t from = 0, to = n - 1;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2, i = from, j = to;
        if (f[middle].distance < f[from].distance)
            swap(&f[middle], &f[from]);
        if (f[to].distance < f[from].distance)
            swap(&f[to], &f[from]);
        if (f[to].distance < f[middle].distance)
            swap(&f[to], &f[middle]);
        float pivot = f[middle].distance;
        while (i <= j) {
            while (f[i].distance < pivot)
                i++;
            while (f[j].distance > pivot)
                j--;
            if (i <= j) {
                swap(&f[i++], &f[j]);
                if (j-- == 0)
                    break;
            }
        }
        if (keep <= j + 1 && j < to)
            to = j;
        else if (keep > i)
            from = i;
        else
            return;
    }
}

static void keep_best(const struct code_scan *s, struct best *b)
{
    if (b->n <= s->keep)
        return;
    select_nearest(b->found, b->n, s->keep);
    b->n = s->keep;
    b->bound = b->found[0].distance;
    for (uint32_t i = 1; i < b->n; i++)
        b->bound = b->found[i].distance > b->bound ? b->found[i].distance : b->bound;
}

static inline void add(const struct code_scan *s, struct best *b, float d, uint32_t row)
{
    if (!(d < b->bound))
        return;
    b->found[b->n++] = (struct found){d, row};
    if (b->n == s->found_max)
        keep_best(s, b);
}

/* ---- blocks ---- */

static inline const uint8_t *code_at(const struct code_scan *s, uint32_t i)
{
    return s->a->codes + s->nodes[i] * s->stride;
}

static inline void prefetch_codes(const struct code_scan *s, uint32_t from)
{
    size_t bytes = s->stride < PREFETCH_BYTES ? s->stride : PREFETCH_BYTES;
    for (uint32_t i = from; i < from + 4 && i < s->n; i++) {
        for (size_t at = 0; at < bytes; at += 64)
            __builtin_prefetch(code_at(s, i) + at);
    }
}

static void show_block(const struct code_scan *s, struct best *b, bool fetched)
{
    for (uint32_t i = 0; i < PREFETCH_ROWS && !fetched; i += 4)
        prefetch_codes(s, i);
    for (uint32_t i = 0; i < s->n; i += 4) {
        if (!fetched)
            prefetch_codes(s, i + PREFETCH_ROWS);
        uint32_t n = s->n - i < 4 ? s->n - i : 4, last = i + n - 1;
        const uint8_t *c[4] = {code_at(s, i), code_at(s, i + 1 < last ? i + 1 : last),
                               code_at(s, i + 2 < last ? i + 2 : last), code_at(s, last)};
        float d[4];
        code_measure_4(&s->a->scale, b->query, c, d);
        for (uint32_t j = 0; j < n; j++)
            add(s, b, d[j], s->rows[i + j]);
    }
}

static void show_twins(struct code_scan *s, struct collect *queries, size_t n)
{
    for (size_t q = 0; q < n && s->ntwins > 0; q++) {
        if (s->best[q].query)
            exact_show(s->snapshot, s->plan->view, s->twins, s->twin_vectors, s->ntwins,
                       &queries[q]);
    }
    s->ntwins = 0;
}

static void show_rows(struct code_scan *s, struct collect *queries, size_t n)
{
    bool fetched = false;
    for (size_t q = 0; q < n && s->n > 0; q++) {
        if (!s->best[q].query)
            continue;
        show_block(s, &s->best[q], fetched);
        fetched = true; /* into the cache, by the first query */
    }
    s->n = 0;
    show_twins(s, queries, n);
}

/* Moves s->node on to the first node whose row is not before `row`, and tells whether it is that
 * row's. Rows of nodes ascend, so the node is at most as far off as the row is, and not much less
 * where few rows are twins: it is looked for from there backwards. */
static bool find_node(struct code_scan *s, uint32_t row)
{
    const uint32_t *rows = s->a->rows;
    uint32_t from = s->node, nodes = s->a->shape.nodes, step = 1;
    if (!rows || from == nodes || rows[from] >= row) {
        s->node = rows ? from : row;
        return s->node < nodes && (!rows || rows[from] == row);
    }
    uint32_t to = row - rows[from] < nodes - from ? from + (row - rows[from]) : nodes;
    for (; to - from >= step && rows[to - step] >= row; step *= 2)
        to -= step;
    from = to - from >= step ? to - step + 1 : from;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (rows[middle] < row)
            from = middle + 1;
        else
            to = middle;
    }
    s->node = from;
    return from < nodes && rows[from] == row;
}

static void take_row(struct code_scan *s, uint32_t row)
{
    if (find_node(s, row)) {
        s->rows[s->n] = row;
        s->nodes[s->n++] = s->node;
        return;
    }
    s->twins[s->ntwins] = row;
    s->twin_vectors[s->ntwins++] = s->vectors + (size_t)row * s->dim;
}

static enum err scan_rows(struct code_scan *s, struct collect *queries, size_t n,
                          const atomic_bool *cancel, struct err_ctx *ctx)
{
    const struct allowed *a = &s->plan->allowed;
    uint32_t words = a->view->rows / 64 + (a->view->rows % 64 != 0);
    for (uint32_t w = 0; (w = allowed_next(a, w, words)) < words; w++) {
        for (uint64_t bits = allowed_word(a, w); bits; bits &= bits - 1)
            take_row(s, w * 64 + (uint32_t)__builtin_ctzll(bits));
        if (s->n + 64 > s->block_max)
            show_rows(s, queries, n);
        if (s->ntwins + 64 > SHOW_ROWS)
            show_twins(s, queries, n);
        if (w % 1024 == 0 && cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            return err_set(ctx, ERR_UNAVAILABLE, "the search was cut off: the daemon stops");
    }
    show_rows(s, queries, n);
    return ERR_OK;
}

/* ---- their vectors ---- */

static void show_best(struct code_scan *s, struct best *b, struct collect *query)
{
    keep_best(s, b);
    for (uint32_t from = 0; from < b->n; from += SHOW_ROWS) {
        uint32_t n = b->n - from < SHOW_ROWS ? b->n - from : SHOW_ROWS;
        for (uint32_t i = 0; i < n; i++) {
            s->twins[i] = b->found[from + i].row;
            s->twin_vectors[i] = s->vectors + (size_t)s->twins[i] * s->dim;
        }
        exact_show(s->snapshot, s->plan->view, s->twins, s->twin_vectors, n, query);
    }
}

/* ---- one view ---- */

static bool start_queries(struct code_scan *s, const struct collect *queries, size_t n,
                          struct search_scratch *scratch)
{
    uint8_t *codes = scratch_room(&scratch->code, n * s->stride + CODE_ALIGN, 1);
    struct found *found = scratch_room(&scratch->code_found, n * s->found_max, sizeof(*found));
    s->best = scratch_room(&scratch->code_best, n, sizeof(*s->best));
    if (!codes || !found || !s->best)
        return false;
    codes = (uint8_t *)round_up((uintptr_t)codes, CODE_ALIGN);
    for (size_t q = 0; q < n; q++) {
        uint8_t *code = codes + q * s->stride;
        bool says = code_query_prepare(&s->a->scale, queries[q].scaled, code);
        s->best[q] = (struct best){
            .query = says ? code : NULL, .bound = INFINITY, .found = found + q * s->found_max};
    }
    return true;
}

static bool start_scan(struct code_scan *s, const struct collect *queries, size_t n,
                       struct search_scratch *scratch)
{
    uint32_t rows = (uint32_t)(BLOCK_BYTES / s->stride / 64 * 64);
    s->block_max = rows < 64 ? 64 : rows > BLOCK_ROWS_MAX ? BLOCK_ROWS_MAX : rows;
    s->rows = scratch_room(&scratch->rows, s->block_max + SHOW_ROWS, sizeof(uint32_t));
    s->nodes = scratch_room(&scratch->code_nodes, s->block_max, sizeof(uint32_t));
    s->twin_vectors = scratch_room(&scratch->pointers, SHOW_ROWS, sizeof(float *));
    s->twins = s->rows ? s->rows + s->block_max : NULL;
    return s->rows && s->nodes && s->twin_vectors && start_queries(s, queries, n, scratch);
}

static enum err code_scan(const struct snapshot *s, const struct view_plan *plan,
                          struct collect *queries, size_t n, struct search_scratch *scratch,
                          struct err_ctx *ctx)
{
    const struct ann_file *a = plan->codes;
    uint32_t keep = (uint32_t)codes_keep(a, queries[0].k);
    struct code_scan scan = {.snapshot = s,
                             .plan = plan,
                             .a = a,
                             .vectors = plan->allowed.view->segment->vectors,
                             .stride = code_stride(s->schema->dim),
                             .dim = s->schema->dim,
                             .keep = keep,
                             .found_max = 2 * keep + SPARE};
    if (!start_scan(&scan, queries, n, scratch))
        return err_no_memory(ctx, n * scan.found_max * sizeof(struct found));
    RETURN_NOT_OK(scan_rows(&scan, queries, n, scratch->cancel, ctx));
    for (size_t q = 0; q < n; q++) {
        if (scan.best[q].query)
            show_best(&scan, &scan.best[q], &queries[q]);
    }
    for (size_t q = 0; q < n; q++) { /* last, since it takes the scratch */
        if (!scan.best[q].query)
            RETURN_NOT_OK(exact_scan(s, plan, &queries[q], 1, scratch, ctx));
    }
    return ERR_OK;
}

enum err scan_view(const struct snapshot *s, const struct view_plan *plan, struct collect *queries,
                   size_t n, struct search_scratch *scratch, struct err_ctx *ctx)
{
    return plan->codes ? code_scan(s, plan, queries, n, scratch, ctx)
                       : exact_scan(s, plan, queries, n, scratch, ctx);
}
