/* A .npy body into a load.
 *
 *   piece:  ..row | row row row row row row | ro..
 *           carry   lent to the batch         carry
 *
 * Pieces end anywhere, so each adds at most two batches: the row that is made whole with its first
 * bytes, and the whole rows behind it, borrowed from the piece. The header's claims are checked
 * before the first row: against the schema, the keys and, where it is known, the body's length;
 * nothing is allocated by them.
 *
 * Threads: one. Failure: the load can only be freed. */
#include "api/npy_rows.h"

#include <inttypes.h>

void npy_rows_init(struct npy_rows *s, struct row_sink sink, struct batch *b, int64_t first_key,
                   uint64_t body_bytes)
{
    *s = (struct npy_rows){
        .sink = sink, .batch = b, .first_key = first_key, .body_bytes = body_bytes};
}

void npy_rows_deinit(struct npy_rows *s)
{
    buf_deinit(&s->head);
    buf_deinit(&s->carry);
}

static size_t row_bytes(const struct npy_rows *s)
{
    return s->batch->schema->dim * sizeof(float);
}

/* ---- the header ---- */

static enum err check_claims(const struct npy_rows *s, struct err_ctx *ctx)
{
    const struct npy_array *a = &s->array;
    uint32_t dim = s->batch->schema->dim;
    size_t bytes, whole;
    int64_t last;
    if (a->dim != dim)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "vector",
                          "the array is %" PRIu64 " x %" PRIu64 ", the collection's dim is %u",
                          a->rows, a->dim, dim);
    if (!checked_mul(a->rows, row_bytes(s), &bytes) || !checked_add(bytes, s->head.len, &whole))
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the .npy header claims %" PRIu64 " rows, more than any body can hold",
                       a->rows);
    if (s->body_bytes && s->body_bytes != whole)
        return err_set(ctx, ERR_INVALID,
                       "the .npy header says %" PRIu64 " x %u float32, %zu bytes with the header, "
                       "but the body has %" PRIu64,
                       a->rows, dim, whole, s->body_bytes);
    if (a->rows && __builtin_add_overflow(s->first_key, (int64_t)(a->rows - 1), &last))
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "first_key",
                          "%" PRIu64 " keys counted from first_key overflow int64", a->rows);
    return ERR_OK;
}

/* Takes what belongs to the header; returns how much that was in *taken. */
static enum err take_header(struct npy_rows *s, const uint8_t *data, size_t n, size_t *taken,
                            struct err_ctx *ctx)
{
    size_t need;
    *taken = 0;
    for (;;) {
        RETURN_NOT_OK(
            npy_header_length(s->head.len ? s->head.data : data, s->head.len, &need, ctx));
        size_t wanted = need - s->head.len;
        if (wanted == 0)
            break;
        size_t part = n - *taken < wanted ? n - *taken : wanted;
        if (part == 0)
            return ERR_OK;
        buf_put(&s->head, data + *taken, part);
        if (s->head.failed)
            return err_no_memory(ctx, need);
        *taken += part;
    }
    RETURN_NOT_OK(npy_header_read(s->head.data, s->head.len, &s->array, ctx));
    s->started = true;
    return check_claims(s, ctx);
}

/* ---- the rows ---- */

static enum err add_rows(struct npy_rows *s, const void *vectors, size_t n, struct err_ctx *ctx)
{
    int64_t key = s->first_key + (int64_t)s->rows;
    if (n > s->array.rows - s->rows)
        return err_set(ctx, ERR_INVALID,
                       "the body goes on behind the %" PRIu64 " rows that the .npy header says",
                       s->array.rows);
    RETURN_NOT_OK(batch_borrow_vectors(s->batch, vectors, n, key, ctx));
    RETURN_NOT_OK(s->sink.add(s->sink.to, s->batch, ctx));
    batch_reset(s->batch);
    s->rows += n;
    return ERR_OK;
}

static enum err carry_on(struct npy_rows *s, const uint8_t *data, size_t n, struct err_ctx *ctx)
{
    buf_put(&s->carry, data, n);
    return s->carry.failed ? err_no_memory(ctx, row_bytes(s)) : ERR_OK;
}

/* A header of an odd length makes for odd addresses. */
static enum err add_whole_rows(struct npy_rows *s, const uint8_t *data, size_t rows,
                               struct err_ctx *ctx)
{
    if ((uintptr_t)data % _Alignof(float) == 0)
        return add_rows(s, data, rows, ctx);
    RETURN_NOT_OK(carry_on(s, data, rows * row_bytes(s), ctx));
    enum err e = add_rows(s, s->carry.data, rows, ctx);
    buf_reset(&s->carry);
    return e;
}

static enum err feed_vectors(struct npy_rows *s, const uint8_t *data, size_t n, struct err_ctx *ctx)
{
    size_t width = row_bytes(s);
    if (s->carry.len) {
        size_t missing = width - s->carry.len, part = n < missing ? n : missing;
        RETURN_NOT_OK(carry_on(s, data, part, ctx));
        data += part;
        n -= part;
        if (s->carry.len < width)
            return ERR_OK;
        RETURN_NOT_OK(add_rows(s, s->carry.data, 1, ctx));
        buf_reset(&s->carry);
    }
    size_t rows = n / width;
    if (rows)
        RETURN_NOT_OK(add_whole_rows(s, data, rows, ctx));
    return n % width ? carry_on(s, data + rows * width, n % width, ctx) : ERR_OK;
}

enum err npy_rows_feed(struct npy_rows *s, const void *data, size_t n, struct err_ctx *ctx)
{
    size_t taken = 0;
    if (!s->started)
        RETURN_NOT_OK(take_header(s, data, n, &taken, ctx));
    if (taken == n)
        return ERR_OK;
    return feed_vectors(s, (const uint8_t *)data + taken, n - taken, ctx);
}

enum err npy_rows_finish(struct npy_rows *s, struct err_ctx *ctx)
{
    if (s->head.len == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send what numpy.save writes");
    if (!s->started)
        return err_set(ctx, ERR_INVALID, "the body ends within the .npy header, after %zu bytes",
                       s->head.len);
    if (s->rows == s->array.rows && s->carry.len)
        return err_set(ctx, ERR_INVALID,
                       "the body goes on behind the %" PRIu64 " rows that the .npy header says",
                       s->array.rows);
    if (s->rows != s->array.rows)
        return err_set(ctx, ERR_INVALID,
                       "the body ends after %" PRIu64 " of the %" PRIu64
                       " rows that the .npy header says",
                       s->rows, s->array.rows);
    return ERR_OK;
}
