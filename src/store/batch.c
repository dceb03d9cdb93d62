/* Batches: columnar rows in memory.
 *
 * Columns are filled lazily: a cell that was never set costs nothing, and the first cell that is
 * set pads its column up to the row. So `state`, `values` and `offsets` of a column may be shorter
 * than the batch, and what lies past their end is ABSENT (or `whole`).
 *
 * One thread at a time. Out of memory leaves the batch fit only for batch_reset or batch_free. */
#include "store/batch.h"

#include <immintrin.h>
#include <math.h>

enum { CELL_BYTES_MAX = 64 << 20 };

enum err batch_new(struct schema *s, struct batch **out, struct err_ctx *ctx)
{
    struct batch *b = calloc(1, sizeof *b);
    if (!b)
        return err_no_memory(ctx, sizeof *b);
    if (s->nfeatures && !(b->features = calloc(s->nfeatures, sizeof *b->features))) {
        free(b);
        return err_no_memory(ctx, s->nfeatures * sizeof *b->features);
    }
    b->schema = schema_acquire(s);
    *out = b;
    return ERR_OK;
}

static void column_deinit(struct column *c)
{
    buf_deinit(&c->state);
    buf_deinit(&c->values);
    buf_deinit(&c->offsets);
}

void batch_free(struct batch *b)
{
    if (!b)
        return;
    for (uint32_t i = 0; i < b->schema->nfeatures; i++)
        column_deinit(&b->features[i]);
    column_deinit(&b->vector);
    column_deinit(&b->str_keys);
    buf_deinit(&b->int_keys);
    free(b->features);
    schema_release(b->schema);
    free(b);
}

static void column_reset(struct column *c)
{
    c->whole = CELL_ABSENT;
    buf_reset(&c->state);
    buf_reset(&c->values);
    buf_reset(&c->offsets);
}

void batch_reset(struct batch *b)
{
    for (uint32_t i = 0; i < b->schema->nfeatures; i++)
        column_reset(&b->features[i]);
    column_reset(&b->vector);
    column_reset(&b->str_keys);
    buf_reset(&b->int_keys);
    b->first_row += b->rows;
    b->rows = 0;
    b->keys_run = false;
    b->borrowed = NULL;
}

static size_t column_bytes(const struct column *c)
{
    return c->state.len + c->values.len + c->offsets.len;
}

size_t batch_bytes(const struct batch *b)
{
    size_t n = b->int_keys.len + column_bytes(&b->str_keys) + column_bytes(&b->vector);
    for (uint32_t i = 0; i < b->schema->nfeatures; i++)
        n += column_bytes(&b->features[i]);
    if (b->borrowed)
        n += b->rows * b->schema->dim * sizeof(float);
    return n;
}

static int64_t body_row(const struct batch *b, size_t row)
{
    return (int64_t)(b->first_row + row);
}

enum err batch_row_int(struct batch *b, int64_t key, struct err_ctx *ctx)
{
    ASSERT(b->schema->key == KEY_INT64 && !b->keys_run);
    buf_put(&b->int_keys, &key, sizeof key);
    if (b->int_keys.failed)
        return err_no_memory(ctx, b->int_keys.len);
    b->rows++;
    return ERR_OK;
}

/* Appends a variable cell for row `row`, giving skipped rows empty cells. */
static bool column_put_var(struct column *c, size_t row, const void *data, size_t len)
{
    if (c->values.len + len > UINT32_MAX)
        return false;
    for (size_t n = c->offsets.len / 4; n <= row; n++)
        buf_put_u32(&c->offsets, (uint32_t)c->values.len);
    buf_put(&c->values, data, len);
    buf_put_u32(&c->offsets, (uint32_t)c->values.len);
    return !c->values.failed && !c->offsets.failed;
}

enum err batch_row_str(struct batch *b, const char *key, size_t len, struct err_ctx *ctx)
{
    ASSERT(b->schema->key == KEY_STRING);
    if (len == 0 || len > KEY_MAX_BYTES)
        return err_set_at(ctx, ERR_UNPROCESSABLE, body_row(b, b->rows), "key",
                          "the key has %zu bytes; it must have 1 to %d", len, KEY_MAX_BYTES);
    if (!column_put_var(&b->str_keys, b->rows, key, len))
        return err_no_memory(ctx, b->str_keys.values.len);
    b->rows++;
    return ERR_OK;
}

/* Marks the last row's cell; false when memory is out. */
static bool column_mark(struct column *c, size_t row, enum cell_state state)
{
    if (c->state.len < row)
        buf_put_zeros(&c->state, row - c->state.len);
    buf_put_u8(&c->state, (uint8_t)state);
    return !c->state.failed;
}

static bool column_put_fixed(struct column *c, size_t row, const void *data, size_t width)
{
    if (c->values.len < row * width)
        buf_put_zeros(&c->values, row * width - c->values.len);
    buf_put(&c->values, data, width);
    return !c->values.failed;
}

static enum err check_unset(struct batch *b, const struct column *c, const char *name,
                            struct err_ctx *ctx)
{
    ASSERT(b->rows > 0);
    if (c->state.len >= b->rows)
        return err_set_at(ctx, ERR_UNPROCESSABLE, body_row(b, b->rows - 1), name,
                          "field '%s' is given twice in one row", name);
    return ERR_OK;
}

enum err batch_set_vector(struct batch *b, const float *vec, struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_unset(b, &b->vector, "vector", ctx));
    size_t row = b->rows - 1;
    if (!column_put_fixed(&b->vector, row, vec, b->schema->dim * sizeof(float)) ||
        !column_mark(&b->vector, row, CELL_VALUE))
        return err_no_memory(ctx, b->vector.values.len);
    return ERR_OK;
}

enum err batch_set_vector_null(struct batch *b, struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_unset(b, &b->vector, "vector", ctx));
    if (!column_mark(&b->vector, b->rows - 1, CELL_NULL))
        return err_no_memory(ctx, b->vector.state.len);
    return ERR_OK;
}

enum err batch_set(struct batch *b, uint32_t feature, const void *data, size_t len,
                   struct err_ctx *ctx)
{
    const struct feature *f = &b->schema->features[feature];
    struct column *c = &b->features[feature];
    RETURN_NOT_OK(check_unset(b, c, f->name, ctx));
    size_t row = b->rows - 1;
    if (len > CELL_BYTES_MAX)
        return err_set_at(ctx, ERR_UNPROCESSABLE, body_row(b, row), f->name,
                          "the value has %zu bytes; the most is %d", len, CELL_BYTES_MAX);
    ASSERT(f->width == 0 || len == f->width);
    bool ok = f->width ? column_put_fixed(c, row, data, len) : column_put_var(c, row, data, len);
    if (!ok || !column_mark(c, row, CELL_VALUE))
        return err_no_memory(ctx, c->values.len);
    return ERR_OK;
}

enum err batch_set_null(struct batch *b, uint32_t feature, struct err_ctx *ctx)
{
    struct column *c = &b->features[feature];
    RETURN_NOT_OK(check_unset(b, c, b->schema->features[feature].name, ctx));
    if (!column_mark(c, b->rows - 1, CELL_NULL))
        return err_no_memory(ctx, c->state.len);
    return ERR_OK;
}

enum err batch_borrow_vectors(struct batch *b, const float *vectors, size_t n, int64_t first_key,
                              struct err_ctx *ctx)
{
    ASSERT(b->rows == 0 && b->schema->key == KEY_INT64);
    int64_t last;
    if (n && __builtin_add_overflow(first_key, (int64_t)(n - 1), &last))
        return err_set_at(ctx, ERR_UNPROCESSABLE, body_row(b, 0), "key",
                          "keys counted from first_key overflow int64");
    b->keys_run = true;
    b->first_key = first_key;
    b->borrowed = vectors;
    b->vector.whole = CELL_VALUE;
    b->rows = n;
    return ERR_OK;
}

/* ---- validation ---- */

/* OR of "exponent all ones" and OR of the magnitudes over n floats. */
struct scan {
    bool special; /* a NaN or an infinity */
    bool nonzero;
};

__attribute__((target("avx2"))) static struct scan scan_avx2(const float *v, size_t n)
{
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i special = _mm256_setzero_si256(), any = special;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(v + i));
        special =
            _mm256_or_si256(special, _mm256_cmpeq_epi32(_mm256_and_si256(x, exponent), exponent));
        any = _mm256_or_si256(any, x);
    }
    struct scan s = {!_mm256_testz_si256(special, special), !_mm256_testz_si256(any, magnitude)};
    for (; i < n; i++) {
        s.special |= !isfinite(v[i]);
        s.nonzero |= v[i] != 0;
    }
    return s;
}

static struct scan scan_scalar(const float *v, size_t n)
{
    struct scan s = {false, false};
    for (size_t i = 0; i < n; i++) {
        s.special |= !isfinite(v[i]);
        s.nonzero |= v[i] != 0;
    }
    return s;
}

static struct scan scan_floats(const float *v, size_t n)
{
    return __builtin_cpu_supports("avx2") ? scan_avx2(v, n) : scan_scalar(v, n);
}

static enum err bad_vector(const struct batch *b, size_t row, struct err_ctx *ctx)
{
    const float *v = batch_vector(b, row);
    for (uint32_t i = 0; i < b->schema->dim; i++) {
        if (!isfinite(v[i]))
            return err_set_at(ctx, ERR_UNPROCESSABLE, body_row(b, row), "vector",
                              "vector element %u is %s; every element must be finite", i,
                              isnan(v[i]) ? "NaN" : "infinite");
    }
    return err_set_at(ctx, ERR_UNPROCESSABLE, body_row(b, row), "vector",
                      "a zero vector has no direction: the cosine metric refuses it");
}

static enum err validate_vectors(const struct batch *b, struct err_ctx *ctx)
{
    const struct schema *s = b->schema;
    if (!s->dim)
        return ERR_OK;
    bool refuse_zero = s->metric == DIST_COSINE;
    if (b->borrowed && !refuse_zero && !scan_floats(b->borrowed, b->rows * s->dim).special)
        return ERR_OK;
    for (size_t row = 0; row < b->rows; row++) {
        if (column_state(&b->vector, row) != CELL_VALUE)
            continue;
        struct scan r = scan_floats(batch_vector(b, row), s->dim);
        if (r.special || (refuse_zero && !r.nonzero))
            return bad_vector(b, row, ctx);
    }
    return ERR_OK;
}

static enum err validate_str_keys(const struct batch *b, struct err_ctx *ctx)
{
    for (size_t row = 0; row < b->rows; row++) {
        size_t len;
        const void *key = column_var(&b->str_keys, row, &len);
        if (!utf8_valid(key, len))
            return err_set_at(ctx, ERR_UNPROCESSABLE, body_row(b, row), "key",
                              "the key is not valid UTF-8");
    }
    return ERR_OK;
}

static enum err validate_event_time(const struct batch *b, struct err_ctx *ctx)
{
    const struct schema *s = b->schema;
    for (size_t row = 0; s->event_time >= 0 && row < b->rows; row++) {
        enum cell_state state = column_state(&b->features[s->event_time], row);
        if (state != CELL_VALUE)
            return err_set_at(
                ctx, ERR_UNPROCESSABLE, body_row(b, row), s->features[s->event_time].name,
                "'%s' is the event_time and must be given: the row %s",
                s->features[s->event_time].name, state == CELL_NULL ? "has null" : "leaves it out");
    }
    return ERR_OK;
}

enum err batch_validate(const struct batch *b, struct err_ctx *ctx)
{
    RETURN_NOT_OK(validate_event_time(b, ctx));
    if (b->schema->key == KEY_STRING)
        RETURN_NOT_OK(validate_str_keys(b, ctx));
    return validate_vectors(b, ctx);
}
