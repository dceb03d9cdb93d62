/* The segment writer: see segment_format.h for the file.
 *
 * Vectors go straight into the stream's aligned buffers and to disk. Keys, strips, variable cells
 * and null bits wait in memory until finish. int64 keys that count up by one stay a run (three
 * numbers, no index); the first that does not turns them into an array.
 *
 * The key index is open addressing with linear probing over u64 slots (hash tag << 32 | row + 1),
 * filled to two thirds at most. Of equal keys the slot leads to the newest row and key_prev on to
 * the older ones. */
#include "store/segment_writer.h"

#include "base/clock.h"
#include "store/segment_format.h"

struct var_column {
    struct buf offsets; /* u32 x (rows + 1) */
    struct buf bytes;
};

struct section {
    uint32_t kind, column;
    uint64_t offset, length;
};

struct segment_writer {
    struct schema *schema;
    struct io_stream *stream;
    uint64_t id;
    uint8_t collection_id[16];
    uint32_t rows;
    bool keys_run;
    int64_t first_key, key_min, key_max;
    struct buf int_keys;
    struct buf key_offsets, key_bytes;
    uint64_t *key_slots;
    uint64_t key_nslots;
    uint32_t *key_prev;
    bool keys_indexed;
    bool any_null_vector;
    struct buf vector_nulls; /* u64 words, filled lazily */
    struct buf strips;
    uint8_t *null_strip;
    struct var_column *var;
    struct buf sections; /* struct section */
};

static enum err write_header(struct segment_writer *w, struct err_ctx *ctx)
{
    struct segment_header h = {
        .magic = SEGMENT_MAGIC,
        .format_version = SEGMENT_FORMAT_VERSION,
        .section_align = IO_SUM_BLOCK,
        .segment_id = w->id,
        .created_us = clock_wall_us(),
    };
    memcpy(h.collection_id, w->collection_id, sizeof h.collection_id);
    h.crc = crc32c(0, &h, offsetof(struct segment_header, crc));
    RETURN_NOT_OK(io_stream_put(w->stream, &h, sizeof h, ctx));
    return io_stream_align(w->stream, ctx);
}

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
    memcpy(w->collection_id, collection_id, sizeof w->collection_id);
    enum err e = init_columns(w) ? ERR_OK : err_no_memory(ctx, sizeof *w);
    if (e == ERR_OK)
        e = io_stream_open(io, path, size_hint, &w->stream, ctx);
    if (e == ERR_OK)
        e = write_header(w, ctx);
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
    io_stream_close(w->stream);
    for (uint32_t i = 0; w->var && i < w->schema->nvar; i++) {
        buf_deinit(&w->var[i].offsets);
        buf_deinit(&w->var[i].bytes);
    }
    buf_deinit(&w->int_keys);
    buf_deinit(&w->key_offsets);
    buf_deinit(&w->key_bytes);
    buf_deinit(&w->vector_nulls);
    buf_deinit(&w->strips);
    buf_deinit(&w->sections);
    free(w->key_slots);
    free(w->key_prev);
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
               w->strips.len;
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

static enum err put_vector(struct segment_writer *w, const float *vector, struct err_ctx *ctx)
{
    size_t n = w->schema->dim * sizeof(float);
    if (vector)
        return io_stream_put(w->stream, vector, n, ctx);
    note_null_vector(w);
    static const uint8_t zeros[4096];
    for (size_t left = n; left;) {
        size_t step = left < sizeof zeros ? left : sizeof zeros;
        RETURN_NOT_OK(io_stream_put(w->stream, zeros, step, ctx));
        left -= step;
    }
    return ERR_OK;
}

static enum err check_memory(const struct segment_writer *w, struct err_ctx *ctx)
{
    bool failed = w->int_keys.failed || w->key_offsets.failed || w->key_bytes.failed ||
                  w->vector_nulls.failed || w->strips.failed;
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
    RETURN_NOT_OK(check_memory(w, ctx));
    return io_stream_put(w->stream, vectors, n * w->schema->dim * sizeof(float), ctx);
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

static bool row_has_key(const struct segment_writer *w, uint32_t row, const struct row *key)
{
    struct row other = {.schema = w->schema};
    segment_writer_key(w, row, &other);
    return row_keys_equal(&other, key);
}

static enum err index_row(struct segment_writer *w, uint32_t row, struct err_ctx *ctx)
{
    struct row key = {.schema = w->schema};
    segment_writer_key(w, row, &key);
    uint64_t hash = row_key_hash(&key), tag = hash >> 32, mask = w->key_nslots - 1;
    for (uint64_t i = hash & mask;; i = (i + 1) & mask) {
        uint64_t slot = w->key_slots[i];
        if (slot && (slot >> 32 != tag || !row_has_key(w, (uint32_t)slot - 1, &key)))
            continue;
        if (slot && !w->key_prev && !(w->key_prev = calloc(w->rows, sizeof *w->key_prev)))
            return err_no_memory(ctx, w->rows * sizeof *w->key_prev);
        if (slot)
            w->key_prev[row] = (uint32_t)slot;
        w->key_slots[i] = tag << 32 | (row + 1);
        return ERR_OK;
    }
}

enum err segment_writer_index_keys(struct segment_writer *w, struct err_ctx *ctx)
{
    if (w->keys_indexed)
        return ERR_OK;
    w->keys_indexed = true;
    if (w->keys_run)
        return ERR_OK;
    w->key_nslots = 64;
    while (w->key_nslots * 2 < w->rows * 3ull)
        w->key_nslots *= 2;
    w->key_slots = calloc(w->key_nslots, sizeof *w->key_slots);
    if (!w->key_slots)
        return err_no_memory(ctx, w->key_nslots * sizeof *w->key_slots);
    for (uint32_t row = 0; row < w->rows; row++)
        RETURN_NOT_OK(index_row(w, row, ctx));
    return ERR_OK;
}

const uint32_t *segment_writer_prev(const struct segment_writer *w)
{
    return w->key_prev;
}

/* ---- the end of the file ---- */

static enum err put_section(struct segment_writer *w, uint32_t kind, uint32_t column,
                            const void *data, size_t length, struct err_ctx *ctx)
{
    RETURN_NOT_OK(io_stream_align(w->stream, ctx));
    struct section s = {kind, column, io_stream_offset(w->stream), length};
    buf_put(&w->sections, &s, sizeof s);
    return io_stream_put(w->stream, data, length, ctx);
}

static enum err put_vector_sections(struct segment_writer *w, struct err_ctx *ctx)
{
    if (!w->schema->dim)
        return ERR_OK;
    struct section s = {SECTION_VECTORS, 0, IO_SUM_BLOCK,
                        (uint64_t)w->rows * w->schema->dim * sizeof(float)};
    buf_put(&w->sections, &s, sizeof s);
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
    RETURN_NOT_OK(put_section(w, SECTION_KEY_SLOTS, 0, w->key_slots,
                              w->key_nslots * sizeof *w->key_slots, ctx));
    if (!w->key_prev)
        return ERR_OK;
    return put_section(w, SECTION_KEY_PREV, 0, w->key_prev, w->rows * sizeof *w->key_prev, ctx);
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

static void encode_footer(struct segment_writer *w, uint32_t nruns, struct buf *out)
{
    buf_put_u32(out, w->rows);
    buf_put_u64(out, io_stream_offset(w->stream));
    schema_encode(w->schema, out);
    buf_put_u8(out, w->keys_run);
    buf_put_u64(out, (uint64_t)w->first_key);
    buf_put_u64(out, (uint64_t)w->key_min);
    buf_put_u64(out, (uint64_t)w->key_max);
    buf_put_u64(out, w->key_nslots);
    buf_put_u32(out, nruns);
    size_t n = w->sections.len / sizeof(struct section);
    const struct section *s = (const struct section *)w->sections.data;
    buf_put_u32(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        buf_put_u32(out, s[i].kind);
        buf_put_u32(out, s[i].column);
        buf_put_u64(out, s[i].offset);
        buf_put_u64(out, s[i].length);
    }
    size_t nsums;
    const uint64_t *sums = io_stream_sums(w->stream, &nsums);
    buf_put_u64(out, nsums);
    buf_put(out, sums, nsums * sizeof *sums);
}

static enum err write_footer(struct segment_writer *w, uint32_t nruns, struct err_ctx *ctx)
{
    RETURN_NOT_OK(io_stream_align(w->stream, ctx));
    struct buf footer = {0};
    encode_footer(w, nruns, &footer);
    if (footer.failed || w->sections.failed) {
        buf_deinit(&footer);
        return err_no_memory(ctx, footer.len);
    }
    struct segment_trailer t = {
        .footer_offset = io_stream_offset(w->stream),
        .footer_length = (uint32_t)footer.len,
        .footer_crc = crc32c(0, footer.data, footer.len),
        .magic = SEGMENT_TRAILER_MAGIC,
    };
    t.crc = crc32c(0, &t, offsetof(struct segment_trailer, crc));
    enum err e = io_stream_put(w->stream, footer.data, footer.len, ctx);
    if (e == ERR_OK)
        e = io_stream_put(w->stream, &t, sizeof t, ctx);
    buf_deinit(&footer);
    return e;
}

enum err segment_writer_finish(struct segment_writer *w, const struct seq_run *runs, uint32_t nruns,
                               struct err_ctx *ctx)
{
    RETURN_NOT_OK(segment_writer_index_keys(w, ctx));
    RETURN_NOT_OK(put_vector_sections(w, ctx));
    RETURN_NOT_OK(put_key_sections(w, ctx));
    RETURN_NOT_OK(put_feature_sections(w, ctx));
    RETURN_NOT_OK(put_section(w, SECTION_RUNS, 0, runs, nruns * sizeof *runs, ctx));
    RETURN_NOT_OK(write_footer(w, nruns, ctx));
    return io_stream_finish(w->stream, ctx);
}
