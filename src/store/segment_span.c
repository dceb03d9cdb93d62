/* Spans of rows and the blocks that they lie in.
 *
 *   section of 12-byte strips   |  block 40  |  block 41  |  block 42  |
 *   rows 5000 .. 11000              first -> ............... <- last
 *
 * Offsets into a variable column are checked before they are followed.
 *
 * Threads: any. Failure: the first block that does not match. */
#include "store/segment_span.h"

struct row_span {
    uint32_t first, last; /* first > last: none */
};

static const struct row_span no_rows = {1, 0};

static enum err verify(const struct segment *s, const void *from, uint64_t len, struct err_ctx *ctx)
{
    if (!from || !len)
        return ERR_OK;
    uint64_t at = (uint64_t)((const uint8_t *)from - s->map);
    for (uint64_t block = at / IO_SUM_BLOCK; block <= (at + len - 1) / IO_SUM_BLOCK; block++)
        RETURN_NOT_OK(segment_verify_block(s, block, ctx));
    return ERR_OK;
}

/* Bytes [from, to) of `n`, which offsets that match their checksums lead to. */
static enum err verify_bytes(const struct segment *s, const uint8_t *bytes, uint64_t n,
                             uint64_t from, uint64_t to, struct err_ctx *ctx)
{
    if (from > to || to > n)
        return err_set(ctx, ERR_CORRUPT, "%s: an offset leads out of its column", s->path);
    return verify(s, bytes + from, to - from, ctx);
}

/* Elements of `size` bytes that belong to rows [first, last]. */
static enum err verify_array(const struct segment *s, const void *array, size_t size,
                             uint32_t first, uint32_t last, struct err_ctx *ctx)
{
    if (!array)
        return ERR_OK;
    return verify(s, (const uint8_t *)array + size * first, size * (last - first + 1ull), ctx);
}

static enum err verify_keys(const struct segment *s, uint32_t first, uint32_t last,
                            struct err_ctx *ctx)
{
    if (!s->key_offsets)
        return verify_array(s, s->int_keys, sizeof *s->int_keys, first, last, ctx);
    RETURN_NOT_OK(verify_array(s, s->key_offsets, sizeof *s->key_offsets, first, last + 1, ctx));
    return verify_bytes(s, s->key_bytes, s->key_bytes_len, s->key_offsets[first],
                        s->key_offsets[last + 1], ctx);
}

static enum err verify_vectors(const struct segment *s, uint32_t first, uint32_t last,
                               struct err_ctx *ctx)
{
    size_t bytes = s->schema->dim * sizeof(float);
    RETURN_NOT_OK(verify_array(s, s->vector_nulls, 8, first / 64, last / 64, ctx));
    return verify_array(s, s->vectors, bytes, first, last, ctx);
}

static enum err verify_features(const struct segment *s, uint32_t first, uint32_t last,
                                struct err_ctx *ctx)
{
    RETURN_NOT_OK(verify_array(s, s->strips, s->schema->strip_bytes, first, last, ctx));
    for (uint32_t v = 0; v < s->schema->nvar; v++) {
        const uint32_t *offsets = s->var_offsets[v];
        RETURN_NOT_OK(verify_array(s, offsets, sizeof *offsets, first, last + 1, ctx));
        RETURN_NOT_OK(verify_bytes(s, s->var_bytes[v], s->var_lengths[v], offsets[first],
                                   offsets[last + 1], ctx));
    }
    return ERR_OK;
}

enum err segment_verify_span(const struct segment *s, uint32_t first, uint32_t last, unsigned parts,
                             struct err_ctx *ctx)
{
    if (s->tail)
        return ERR_OK;
    ASSERT(first <= last && last < s->rows);
    RETURN_NOT_OK(verify_keys(s, first, last, ctx));
    if (parts & SPAN_VECTORS)
        RETURN_NOT_OK(verify_vectors(s, first, last, ctx));
    return parts & SPAN_FEATURES ? verify_features(s, first, last, ctx) : ERR_OK;
}

enum err segment_verify_runs(const struct segment *s, struct err_ctx *ctx)
{
    return s->tail ? ERR_OK : verify(s, s->runs, s->nruns * sizeof *s->runs, ctx);
}

/* ---- what was copied ---- */

enum err row_spans_init(struct row_spans *r, const struct snapshot *s, struct err_ctx *ctx)
{
    *r = (struct row_spans){s, malloc((s->nviews + 1) * sizeof *r->views)};
    if (!r->views)
        return err_no_memory(ctx, s->nviews * sizeof *r->views);
    for (uint32_t i = 0; i < s->nviews; i++)
        r->views[i] = no_rows;
    return ERR_OK;
}

void row_spans_deinit(struct row_spans *r)
{
    free(r->views);
    r->views = NULL;
}

void row_spans_add(struct row_spans *r, struct row_ref row)
{
    struct row_span *span = &r->views[row.view];
    if (span->first > span->last)
        span->first = row.row;
    span->last = row.row;
}

enum err row_spans_check(struct row_spans *r, unsigned parts, struct err_ctx *ctx)
{
    for (uint32_t i = 0; i < r->snapshot->nviews; i++) {
        struct row_span *span = &r->views[i];
        if (span->first > span->last)
            continue;
        RETURN_NOT_OK(segment_verify_span(r->snapshot->views[i].segment, span->first, span->last,
                                          parts, ctx));
        *span = no_rows;
    }
    return ERR_OK;
}
