/* The segment writer: see segment_format.h for the file.
 *
 * Vectors go straight into the stream's aligned buffers and to disk. Keys, strips, variable cells,
 * null bits and the vectors' hashes wait in memory until finish. int64 keys that count up by one
 * stay a run (three numbers, no index); the first that does not turns them into an array.
 *
 * The key index (key_index.h) is built when all keys are there. */
#include "store/segment_writer.h"

#include "store/key_index.h"
#include "store/segment_format.h"
#include "store/segment_sections.h"

enum { HASHED_DIM_MIN = 64 }; /* shorter vectors are read as fast as their hashes */

struct var_column {
    struct buf offsets; /* u32 x (rows + 1) */
    struct buf bytes;
};

struct segment_writer {
    struct schema *schema;
    struct segment_sections *out; /* its vectors are begun from the start */
    uint64_t id;
    uint32_t rows;
    bool keys_run;
    int64_t first_key, key_min, key_max;
    struct buf int_keys;
    struct buf key_offsets, key_bytes;
    struct key_index index;
    bool keys_indexed;
    bool any_null_vector;
    struct buf vector_nulls;  /* u64 words, filled lazily */
    struct buf vector_hashes; /* struct hash128 */
    struct buf strips;
    uint8_t *null_strip;
    struct var_column *var;
};

static bool init_columns(struct segment_writer *w)
{
    const struct schema *s = w->schema;
    w->var = calloc(s->nvar + 1, sizeof *w->var);
    w->null_strip = calloc(1, s->strip_bytes + 1);
    if (!w->var || !w->null_strip)
        return false;
    for (uint32_t i = 0; i < s->nfeatures; i++)
        w->null_strip[i >> 3] |= (uint8_t)(1u << (i & 7));
    for (uint32_t i = 0; i < s->nvar; i++)
        buf_put_u32(&w->var[i].offsets, 0);
    if (s->key == KEY_STRING)
        buf_put_u64(&w->key_offsets, 0);
    w->keys_run = s->key == KEY_INT64;
    return true;
}

enum err segment_writer_new(struct io *io, const char *path, const uint8_t collection_id[16],
                            uint64_t id, struct schema *schema, uint64_t size_hint,
                            struct segment_writer **out, struct err_ctx *ctx)
{
    struct segment_writer *w = calloc(1, sizeof *w);
    if (!w)
        return err_no_memory(ctx, sizeof *w);
    w->schema = schema_acquire(schema);
    w->id = id;
    enum err e = init_columns(w) ? ERR_OK : err_no_memory(ctx, sizeof *w);
    if (e == ERR_OK)
        e = segment_sections_new(io, path, collection_id, id, schema, size_hint, &w->out, ctx);
    if (e == ERR_OK && schema->dim)
        e = segment_sections_begin(w->out, SECTION_VECTORS, 0, ctx);
    if (e != ERR_OK) {
        segment_writer_free(w);
        return e;
    }
    *out = w;
    return ERR_OK;
}

void segment_writer_free(struct segment_writer *w)
{
    if (!w)
        return;
    segment_sections_free(w->out);
    for (uint32_t i = 0; w->var && i < w->schema->nvar; i++) {
        buf_deinit(&w->var[i].offsets);
        buf_deinit(&w->var[i].bytes);
    }
    buf_deinit(&w->int_keys);
    buf_deinit(&w->key_offsets);
    buf_deinit(&w->key_bytes);
    buf_deinit(&w->vector_nulls);
    buf_deinit(&w->vector_hashes);
    buf_deinit(&w->strips);
    key_index_deinit(&w->index);
    free(w->null_strip);
    free(w->var);
    schema_release(w->schema);
    free(w);
}

uint32_t segment_writer_rows(const struct segment_writer *w)
{
    return w->rows;
}

uint64_t segment_writer_id(const struct segment_writer *w)
{
    return w->id;
}

size_t segment_writer_side_bytes(const struct segment_writer *w)
{
    size_t n = w->int_keys.len + w->key_offsets.len + w->key_bytes.len + w->vector_nulls.len +
               w->vector_hashes.len + w->strips.len;
    for (uint32_t i = 0; i < w->schema->nvar; i++)
        n += w->var[i].offsets.len + w->var[i].bytes.len;
    return n;
}

/* ---- rows ---- */

/* Gives up the run: its keys become an array. */
static void materialise_run(struct segment_writer *w)
{
    w->keys_run = false;
    for (uint32_t i = 0; i < w->rows; i++)
        buf_put_u64(&w->int_keys, (uint64_t)(w->first_key + i));
}

/* True when `key` counts on from the last row's. */
static bool continues_run(const struct segment_writer *w, int64_t key)
{
    return key != INT64_MIN && key - 1 == w->first_key + (int64_t)(w->rows - 1);
}

static void put_int_key(struct segment_writer *w, int64_t key)
{
    if (w->rows == 0) {
        w->first_key = w->key_min = w->key_max = key;
    } else if (w->keys_run && !continues_run(w, key)) {
        materialise_run(w);
    }
    if (!w->keys_run)
        buf_put_u64(&w->int_keys, (uint64_t)key);
    w->key_min = key < w->key_min ? key : w->key_min;
    w->key_max = key > w->key_max ? key : w->key_max;
}

static void note_null_vector(struct segment_writer *w)
{
    size_t word = w->rows >> 6;
    if (w->vector_nulls.len / 8 <= word)
        buf_put_zeros(&w->vector_nulls, (word + 1) * 8 - w->vector_nulls.len);
    if (!w->vector_nulls.failed)
        ((uint64_t *)w->vector_nulls.data)[word] |= 1ull << (w->rows & 63);
    w->any_null_vector = true;
}

static bool keeps_hashes(const struct segment_writer *w)
{
    return w->schema->dim >= HASHED_DIM_MIN;
}

const struct hash128 *segment_writer_hashes(const struct segment_writer *w, size_t n)
{
    if (!keeps_hashes(w) || w->vector_hashes.failed)
        return NULL;
    return (const struct hash128 *)(w->vector_hashes.data + w->vector_hashes.len) - n;
}

static enum err put_vector(struct segment_writer *w, const float *vector, struct err_ctx *ctx)
{
    size_t n = w->schema->dim * sizeof(float);
    if (vector)
        return segment_sections_put(w->out, vector, n, ctx);
    note_null_vector(w);
    static const uint8_t zeros[4096];
    for (size_t left = n; left;) {
        size_t step = left < sizeof zeros ? left : sizeof zeros;
        RETURN_NOT_OK(segment_sections_put(w->out, zeros, step, ctx));
        left -= step;
    }
    return ERR_OK;
}

static enum err check_memory(const struct segment_writer *w, struct err_ctx *ctx)
{
    bool failed = w->int_keys.failed || w->key_offsets.failed || w->key_bytes.failed ||
                  w->vector_nulls.failed || w->vector_hashes.failed || w->strips.failed;
    for (uint32_t i = 0; i < w->schema->nvar; i++)
        failed = failed || w->var[i].offsets.failed || w->var[i].bytes.failed;
    return failed ? err_no_memory(ctx, segment_writer_side_bytes(w)) : ERR_OK;
}

enum err segment_writer_append(struct segment_writer *w, const struct row *r, struct err_ctx *ctx)
{
    const struct schema *s = w->schema;
    ASSERT(w->rows < SEGMENT_ROWS_MAX && !w->keys_indexed);
    if (s->key == KEY_INT64) {
        put_int_key(w, r->int_key);
    } else {
        buf_put(&w->key_bytes, r->key, r->key_len);
        buf_put_u64(&w->key_offsets, w->key_bytes.len);
    }
    if (s->dim)
        RETURN_NOT_OK(put_vector(w, r->vector, ctx));
    if (keeps_hashes(w)) {
        struct hash128 hash = row_vector_hash(r);
        buf_put(&w->vector_hashes, &hash, sizeof hash);
    }
    buf_put(&w->strips, r->strip, s->strip_bytes);
    for (uint32_t i = 0; i < s->nvar; i++) {
        buf_put(&w->var[i].bytes, r->var[i].data, r->var[i].len);
        buf_put_u32(&w->var[i].offsets, (uint32_t)w->var[i].bytes.len);
    }
    RETURN_NOT_OK(check_memory(w, ctx));
    w->rows++;
    return ERR_OK;
}

static void put_null_features(struct segment_writer *w, size_t n)
{
    const struct schema *s = w->schema;
    for (size_t i = 0; s->strip_bytes && i < n; i++)
        buf_put(&w->strips, w->null_strip, s->strip_bytes);
    for (uint32_t v = 0; v < s->nvar; v++) {
        for (size_t i = 0; i < n; i++)
            buf_put_u32(&w->var[v].offsets, (uint32_t)w->var[v].bytes.len);
    }
}

static void put_hashes(struct segment_writer *w, const float *vectors, size_t n)
{
    size_t dim = w->schema->dim;
    struct hash128 *out = buf_extend(&w->vector_hashes, n * sizeof *out);
    for (size_t i = 0; out && i < n; i++)
        out[i] = hash128(vectors + i * dim, dim * sizeof *vectors);
}

enum err segment_writer_append_run(struct segment_writer *w, const float *vectors, size_t n,
                                   int64_t first_key, struct err_ctx *ctx)
{
    ASSERT(w->schema->key == KEY_INT64 && w->schema->dim && !w->keys_indexed);
    ASSERT(n <= SEGMENT_ROWS_MAX - w->rows);
    if (!n)
        return ERR_OK;
    if (w->keys_run && (w->rows == 0 || continues_run(w, first_key))) {
        if (w->rows == 0)
            w->first_key = w->key_min = first_key;
        w->key_max = first_key + (int64_t)n - 1;
        w->rows += (uint32_t)n;
    } else {
        for (size_t i = 0; i < n; i++, w->rows++)
            put_int_key(w, first_key + (int64_t)i);
    }
    put_null_features(w, n);
    if (keeps_hashes(w))
        put_hashes(w, vectors, n);
    RETURN_NOT_OK(check_memory(w, ctx));
    return segment_sections_put(w->out, vectors, n * w->schema->dim * sizeof(float), ctx);
}

void segment_writer_key(const struct segment_writer *w, uint32_t row, struct row *out)
{
    if (w->schema->key == KEY_INT64) {
        out->int_key = w->keys_run ? w->first_key + row : ((const int64_t *)w->int_keys.data)[row];
        return;
    }
    const uint64_t *o = (const uint64_t *)w->key_offsets.data;
    out->key = w->key_bytes.data + o[row];
    out->key_len = o[row + 1] - o[row];
}

/* ---- key index ---- */

static bool row_has_key(const void *arg, uint32_t row, const struct row *key)
{
    const struct segment_writer *w = arg;
    struct row other = {.schema = w->schema};
    segment_writer_key(w, row, &other);
    return row_keys_equal(&other, key);
}

enum err segment_writer_index_keys(struct segment_writer *w, struct err_ctx *ctx)
{
    if (w->keys_indexed)
        return ERR_OK;
    w->keys_indexed = true;
    if (w->keys_run)
        return ERR_OK;
    RETURN_NOT_OK(key_index_init(&w->index, w->rows, ctx));
    for (uint32_t row = 0; row < w->rows; row++) {
        struct row key = {.schema = w->schema};
        segment_writer_key(w, row, &key);
        RETURN_NOT_OK(key_index_add(&w->index, row, &key, row_has_key, w, ctx));
    }
    return ERR_OK;
}

const uint32_t *segment_writer_prev(const struct segment_writer *w)
{
    return w->index.prev;
}

/* ---- the end of the file ---- */

static enum err put_section(struct segment_writer *w, uint32_t kind, uint32_t column,
                            const void *data, size_t length, struct err_ctx *ctx)
{
    RETURN_NOT_OK(segment_sections_begin(w->out, kind, column, ctx));
    return segment_sections_put(w->out, data, length, ctx);
}

static enum err put_vector_nulls(struct segment_writer *w, struct err_ctx *ctx)
{
    if (!w->any_null_vector)
        return ERR_OK;
    size_t n = ((size_t)w->rows + 63) / 64 * 8;
    buf_put_zeros(&w->vector_nulls, n - w->vector_nulls.len);
    RETURN_NOT_OK(check_memory(w, ctx));
    return put_section(w, SECTION_VECTOR_NULLS, 0, w->vector_nulls.data, n, ctx);
}

static enum err put_key_sections(struct segment_writer *w, struct err_ctx *ctx)
{
    if (w->keys_run)
        return ERR_OK;
    if (w->schema->key == KEY_INT64) {
        RETURN_NOT_OK(put_section(w, SECTION_INT_KEYS, 0, w->int_keys.data, w->int_keys.len, ctx));
    } else {
        RETURN_NOT_OK(
            put_section(w, SECTION_KEY_OFFSETS, 0, w->key_offsets.data, w->key_offsets.len, ctx));
        RETURN_NOT_OK(
            put_section(w, SECTION_KEY_BYTES, 0, w->key_bytes.data, w->key_bytes.len, ctx));
    }
    return key_index_write(&w->index, w->out, ctx);
}

static enum err put_feature_sections(struct segment_writer *w, struct err_ctx *ctx)
{
    if (w->schema->strip_bytes)
        RETURN_NOT_OK(put_section(w, SECTION_STRIPS, 0, w->strips.data, w->strips.len, ctx));
    for (uint32_t i = 0; i < w->schema->nvar; i++) {
        struct var_column *v = &w->var[i];
        RETURN_NOT_OK(put_section(w, SECTION_VAR_OFFSETS, i, v->offsets.data, v->offsets.len, ctx));
        RETURN_NOT_OK(put_section(w, SECTION_VAR_BYTES, i, v->bytes.data, v->bytes.len, ctx));
    }
    return ERR_OK;
}

enum err segment_writer_finish(struct segment_writer *w, const struct seq_run *runs, uint32_t nruns,
                               struct err_ctx *ctx)
{
    RETURN_NOT_OK(segment_writer_index_keys(w, ctx));
    RETURN_NOT_OK(put_vector_nulls(w, ctx));
    RETURN_NOT_OK(put_key_sections(w, ctx));
    RETURN_NOT_OK(put_feature_sections(w, ctx));
    if (keeps_hashes(w))
        RETURN_NOT_OK(put_section(w, SECTION_VECTOR_HASHES, 0, w->vector_hashes.data,
                                  w->vector_hashes.len, ctx));
    RETURN_NOT_OK(put_section(w, SECTION_RUNS, 0, runs, nruns * sizeof *runs, ctx));
    struct segment_totals totals = {
        .rows = w->rows,
        .keys_run = w->keys_run,
        .first_key = w->first_key,
        .key_min = w->key_min,
        .key_max = w->key_max,
        .key_slots = w->index.nslots,
        .runs = nruns,
    };
    return segment_sections_finish(w->out, &totals, ctx);
}
