/* The invariants of a segment, one pass a part: offsets, seq, key index, rows.
 *
 * The key index is right when every key leads to its newest row and key_prev on to the older ones:
 * each row is either what its key finds, or the older row of exactly one newer row with that key.
 *
 * Nothing read is trusted: a segment with hostile contents gives an error, not a crash. */
#include "store/segment_check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "store/tail.h"

/* `at` points into the file: its offset goes into the sentence. */
static enum err wrong(const struct segment *s, const void *at, struct err_ctx *ctx, const char *fmt,
                      ...) PRINTF_LIKE(4, 5);

static enum err wrong(const struct segment *s, const void *at, struct err_ctx *ctx, const char *fmt,
                      ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (s->tail)
        return err_set(ctx, ERR_CORRUPT, "the rows in the log: %s", what);
    return err_set(ctx, ERR_CORRUPT, "%s: offset %zu: %s", s->path,
                   at ? (size_t)((const uint8_t *)at - s->map) : 0, what);
}

/* ---- offsets ---- */

static enum err check_offsets(const struct segment *s, struct err_ctx *ctx)
{
    const uint64_t *k = s->key_offsets;
    for (uint32_t i = 0; k && i < s->rows; i++) {
        if (k[i] > k[i + 1] || (i == 0 && k[0] != 0))
            return wrong(s, &k[i], ctx, "row %u: the offsets of the keys do not ascend", i);
    }
    if (k && k[s->rows] != s->key_bytes_len)
        return wrong(s, &k[s->rows], ctx, "the keys do not end where their bytes do");
    for (uint32_t v = 0; v < s->schema->nvar; v++) {
        const uint32_t *o = s->var_offsets[v];
        for (uint32_t i = 0; i < s->rows; i++) {
            if (o[i] > o[i + 1] || (i == 0 && o[0] != 0))
                return wrong(s, &o[i], ctx,
                             "row %u: the offsets of variable column %u do not "
                             "ascend",
                             i, v);
        }
        if (o[s->rows] != s->var_lengths[v])
            return wrong(s, &o[s->rows], ctx, "variable column %u does not end where its bytes do",
                         v);
    }
    return ERR_OK;
}

static enum err check_null_bits(const struct segment *s, struct err_ctx *ctx)
{
    if (!s->vector_nulls || s->rows % 64 == 0)
        return ERR_OK;
    const uint64_t *last = &s->vector_nulls[s->rows / 64];
    if (*last >> (s->rows % 64))
        return wrong(s, last, ctx, "bits of vectors are set behind the last row");
    return ERR_OK;
}

/* ---- seq ---- */

static enum err check_seq(const struct segment *s, struct err_ctx *ctx)
{
    for (uint32_t i = 1; i < s->nruns; i++) {
        const struct seq_run *a = &s->runs[i - 1], *b = &s->runs[i];
        uint64_t end;
        bool wraps = __builtin_add_overflow(a->ordinal, b->first_row - a->first_row, &end);
        if (wraps || b->version < a->version || (b->version == a->version && b->ordinal < end))
            return wrong(s, b, ctx, "row %u: the order of commits goes backwards", b->first_row);
    }
    return ERR_OK;
}

/* ---- keys ---- */

static uint32_t find(const struct segment *s, const struct row *key)
{
    return s->schema->key == KEY_INT64
               ? segment_find_int(s, key->int_key)
               : segment_find_str(s, key->key, key->key_len, key_hash(key->key, key->key_len));
}

static const void *key_place(const struct segment *s, uint32_t row)
{
    return s->schema->key == KEY_INT64 ? (const void *)&s->int_keys[row] : &s->key_offsets[row];
}

/* Marks in `newer` the rows that have a newer one with their key. */
static enum err mark_older(const struct segment *s, uint8_t *newer, struct err_ctx *ctx)
{
    for (uint32_t row = 0; row < s->rows; row++) {
        struct row key = {.schema = s->schema}, old = {.schema = s->schema};
        uint32_t prev = s->key_prev[row];
        if (!prev)
            continue;
        if (prev > row || newer[prev - 1])
            return wrong(s, &s->key_prev[row], ctx, "row %u: its older row is wrong", row);
        segment_row_key(s, row, &key);
        segment_row_key(s, prev - 1, &old);
        if (!row_keys_equal(&key, &old))
            return wrong(s, &s->key_prev[row], ctx, "row %u: its older row has another key", row);
        newer[prev - 1] = 1;
    }
    return ERR_OK;
}

static enum err check_found(const struct segment *s, const uint8_t *newer, struct err_ctx *ctx)
{
    uint64_t newest = 0, used = 0;
    for (uint32_t row = 0; row < s->rows; row++) {
        struct row key = {.schema = s->schema};
        segment_row_key(s, row, &key);
        newest += !newer[row];
        if ((find(s, &key) == row + 1) == newer[row])
            return wrong(s, key_place(s, row), ctx, "row %u: its key does not lead to it", row);
    }
    for (uint64_t i = 0; i <= s->key_slots_mask; i++)
        used += s->key_slots[i] != 0;
    if (used != newest)
        return wrong(s, s->key_slots, ctx, "the key index has %llu entries for %llu keys",
                     (unsigned long long)used, (unsigned long long)newest);
    return ERR_OK;
}

static enum err check_bounds(const struct segment *s, struct err_ctx *ctx)
{
    if (s->schema->key != KEY_INT64 || !s->rows)
        return ERR_OK;
    int64_t min = segment_key_int(s, 0), max = min;
    for (uint32_t row = 1; row < s->rows; row++) {
        int64_t key = segment_key_int(s, row);
        min = key < min ? key : min;
        max = key > max ? key : max;
    }
    if (min != s->key_min || max != s->key_max)
        return wrong(s, s->map + s->data_len, ctx,
                     "the bounds of the keys are not those of the rows");
    return ERR_OK;
}

static enum err check_keys(const struct segment *s, struct err_ctx *ctx)
{
    if (s->keys_run)
        return ERR_OK;
    RETURN_NOT_OK(check_bounds(s, ctx));
    uint8_t *newer = calloc(1, (size_t)s->rows + 1);
    if (!newer)
        return err_no_memory(ctx, s->rows);
    enum err e = s->key_prev ? mark_older(s, newer, ctx) : ERR_OK;
    if (e == ERR_OK)
        e = check_found(s, newer, ctx);
    free(newer);
    return e;
}

/* ---- rows ---- */

static enum err check_key(const struct segment *s, uint32_t row, struct err_ctx *ctx)
{
    size_t len;
    if (s->schema->key == KEY_INT64)
        return ERR_OK;
    const void *key = segment_key_str(s, row, &len);
    if (len == 0 || len > KEY_MAX_BYTES)
        return wrong(s, key_place(s, row), ctx, "row %u: its key has %zu bytes", row, len);
    if (!utf8_valid(key, len))
        return wrong(s, key, ctx, "row %u: its key is not UTF-8", row);
    return ERR_OK;
}

static enum err check_vector(const struct segment *s, uint32_t row, struct err_ctx *ctx)
{
    uint32_t n, dim = s->schema->dim;
    if (!dim)
        return ERR_OK;
    bool null = !segment_vector(s, row), zero = true;
    const float *v = segment_vector_run(s, row, &n);
    for (uint32_t i = 0; i < dim; i++) {
        if (!isfinite(v[i]))
            return wrong(s, &v[i], ctx, "row %u: its vector is not finite", row);
        zero = zero && v[i] == 0;
    }
    if (null && !zero)
        return wrong(s, v, ctx, "row %u has no vector, but the place of it is not empty", row);
    if (!null && zero && s->schema->metric == DIST_COSINE)
        return wrong(s, v, ctx, "row %u: its vector is zero, which cosine refuses", row);
    return ERR_OK;
}

static bool string_list_valid(const void *data, size_t n)
{
    struct cursor c = cursor_over(data, n);
    while (cursor_left(&c)) {
        size_t len;
        const void *item = cursor_blob(&c, &len);
        if (!item || !utf8_valid(item, len))
            return false;
    }
    return true;
}

static bool cell_valid(enum feature_type type, const void *data, size_t n)
{
    switch (type) {
    case FEATURE_BOOL:
        return *(const uint8_t *)data <= 1;
    case FEATURE_STRING:
        return utf8_valid(data, n);
    case FEATURE_FLOAT32_LIST:
        return n % sizeof(float) == 0;
    case FEATURE_INT64_LIST:
        return n % sizeof(int64_t) == 0;
    case FEATURE_STRING_LIST:
        return string_list_valid(data, n);
    default:
        return true;
    }
}

/* A null cell takes no bytes: its value in the strip is zero, its variable part empty. */
static bool null_cell_empty(const struct segment *s, const struct feature *f, const uint8_t *strip,
                            uint32_t row)
{
    size_t len = 0;
    for (uint32_t i = 0; i < f->width; i++)
        len |= strip[f->strip_offset + i];
    if (f->width)
        return len == 0;
    if (s->tail)
        (void)tail_var(s->tail, row, f->var_index, &len);
    else
        len = s->var_offsets[f->var_index][row + 1] - s->var_offsets[f->var_index][row];
    return len == 0;
}

static enum err check_cells(const struct segment *s, uint32_t row, struct err_ctx *ctx)
{
    const struct schema *schema = s->schema;
    const uint8_t *strip = segment_strip(s, row);
    for (uint32_t i = schema->nfeatures; strip && i < schema->null_bytes * 8; i++) {
        if (strip_null(strip, i))
            return wrong(s, strip, ctx, "row %u: a null bit of no feature is set", row);
    }
    for (uint32_t i = 0; i < schema->nfeatures; i++) {
        const struct feature *f = &schema->features[i];
        size_t len;
        const void *cell = segment_cell(s, row, i, &len);
        if (!cell && !null_cell_empty(s, f, strip, row))
            return wrong(s, strip, ctx, "row %u: feature '%s' is null and not empty", row, f->name);
        if (cell && !cell_valid(f->type, cell, len))
            return wrong(s, cell, ctx, "row %u: feature '%s' is no %s", row, f->name,
                         feature_type_name(f->type));
    }
    return ERR_OK;
}

static enum err check_rows(const struct segment *s, uint32_t rows, struct err_ctx *ctx)
{
    for (uint32_t row = 0; row < rows; row++) {
        RETURN_NOT_OK(check_key(s, row, ctx));
        RETURN_NOT_OK(check_vector(s, row, ctx));
        RETURN_NOT_OK(check_cells(s, row, ctx));
    }
    return ERR_OK;
}

enum err segment_check(const struct segment *s, struct err_ctx *ctx)
{
    if (s->tail)
        return check_rows(s, tail_rows(s), ctx);
    RETURN_NOT_OK(check_offsets(s, ctx));
    RETURN_NOT_OK(check_null_bits(s, ctx));
    RETURN_NOT_OK(check_seq(s, ctx));
    RETURN_NOT_OK(check_keys(s, ctx));
    return check_rows(s, s->rows, ctx);
}
