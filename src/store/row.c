/* Rows: completing, hashing and encoding them one at a time.
 *
 * Invariant: strip and var cells of a built row are canonical: a null cell has its null bit set and
 * a zero value, so equal rows have equal bytes. Not thread-safe; a builder belongs to one thread.
 */
#include "store/row.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/hash.h"

enum err row_builder_init(struct row_builder *rb, const struct schema *s, struct err_ctx *ctx)
{
    memset(rb, 0, sizeof *rb);
    rb->strip = calloc(1, s->strip_bytes + 1);
    rb->var = calloc(s->nvar + 1, sizeof *rb->var);
    if (!rb->strip || !rb->var) {
        row_builder_deinit(rb);
        return err_no_memory(ctx, s->strip_bytes + s->nvar * sizeof *rb->var);
    }
    rb->row.schema = s;
    rb->row.strip = rb->strip;
    rb->row.var = rb->var;
    return ERR_OK;
}

void row_builder_deinit(struct row_builder *rb)
{
    free(rb->strip);
    free(rb->var);
    rb->strip = NULL;
    rb->var = NULL;
}

static void clear_cells(struct row_builder *rb)
{
    const struct schema *s = rb->row.schema;
    memset(rb->strip, 0, s->strip_bytes);
    memset(rb->strip, 0xff, s->nfeatures / 8);
    if (s->nfeatures % 8)
        rb->strip[s->nfeatures / 8] = (uint8_t)((1u << s->nfeatures % 8) - 1);
    for (uint32_t i = 0; i < s->nvar; i++)
        rb->var[i] = (struct cell){"", 0};
}

static void set_cell(struct row_builder *rb, uint32_t i, const void *data, size_t len)
{
    const struct feature *f = &rb->row.schema->features[i];
    rb->strip[i >> 3] &= (uint8_t) ~(1u << (i & 7));
    if (f->width)
        memcpy(rb->strip + f->strip_offset, data, f->width);
    else
        rb->var[f->var_index] = (struct cell){data, len};
}

static void copy_cell(struct row_builder *rb, uint32_t i, const struct segment *s, uint32_t row)
{
    size_t len;
    const void *data = segment_cell(s, row, i, &len);
    if (data)
        set_cell(rb, i, data, len);
}

static void set_batch_cell(struct row_builder *rb, uint32_t i, const struct column *c, size_t row)
{
    const struct feature *f = &rb->row.schema->features[i];
    size_t len = f->width;
    const void *data = f->width ? c->values.data + row * f->width : column_var(c, row, &len);
    set_cell(rb, i, data, len);
}

void row_from_batch(struct row_builder *rb, const struct batch *b, size_t i,
                    const struct segment *old, uint32_t old_row, bool *partial)
{
    const struct schema *s = rb->row.schema;
    struct row *r = &rb->row;
    *partial = false;
    batch_row_key(b, i, r);
    clear_cells(rb);
    for (uint32_t f = 0; f < s->nfeatures; f++) {
        bool known = f < b->schema->nfeatures;
        switch (known ? column_state(&b->features[f], i) : CELL_ABSENT) {
        case CELL_VALUE:
            set_batch_cell(rb, f, &b->features[f], i);
            break;
        case CELL_ABSENT:
            if ((int32_t)f == s->created_time)
                break;
            *partial = true;
            if (old)
                copy_cell(rb, f, old, old_row);
            break;
        case CELL_NULL:
            break;
        }
    }
    r->vector = r->hashed = NULL;
    if (!s->dim)
        return;
    enum cell_state state = column_state(&b->vector, i);
    if (state == CELL_VALUE)
        r->vector = batch_vector(b, i);
    else if (state == CELL_ABSENT) {
        *partial = true;
        r->vector = old ? segment_vector(old, old_row) : NULL;
    }
}

void row_from_segment(struct row_builder *rb, const struct segment *s, uint32_t row)
{
    struct row *r = &rb->row;
    segment_row_key(s, row, r);
    clear_cells(rb);
    for (uint32_t f = 0; f < r->schema->nfeatures; f++)
        copy_cell(rb, f, s, row);
    row_builder_set_vector(rb, s, row);
}

static void clear_cell(struct row_builder *rb, uint32_t i)
{
    const struct feature *f = &rb->row.schema->features[i];
    rb->strip[i >> 3] |= (uint8_t)(1u << (i & 7));
    if (f->width)
        memset(rb->strip + f->strip_offset, 0, f->width);
    else
        rb->var[f->var_index] = (struct cell){"", 0};
}

void row_builder_refill(struct row_builder *rb, const uint8_t *present, uint32_t known,
                        const struct segment *old, uint32_t old_row)
{
    for (uint32_t i = 0; i < rb->row.schema->nfeatures; i++) {
        if (i < known && (!present || present[i >> 3] >> (i & 7) & 1))
            continue;
        row_builder_copy_cell(rb, i, old, old_row);
    }
}

void row_builder_copy_cell(struct row_builder *rb, uint32_t feature, const struct segment *from,
                           uint32_t row)
{
    clear_cell(rb, feature);
    if (from)
        copy_cell(rb, feature, from, row);
}

void row_builder_set_vector(struct row_builder *rb, const struct segment *from, uint32_t row)
{
    struct row *r = &rb->row;
    r->vector = from ? segment_vector(from, row) : NULL;
    r->hashed = from && from->vector_hashes ? r->vector : NULL;
    r->hash = r->hashed ? from->vector_hashes + row : NULL;
}

void batch_row_key(const struct batch *b, size_t i, struct row *out)
{
    if (b->schema->key == KEY_INT64)
        out->int_key = batch_int_key(b, i);
    else
        out->key = column_var(&b->str_keys, i, &out->key_len);
}

void segment_row_key(const struct segment *s, uint32_t row, struct row *out)
{
    if (s->schema->key == KEY_INT64)
        out->int_key = segment_key_int(s, row);
    else
        out->key = segment_key_str(s, row, &out->key_len);
}

bool row_keys_equal(const struct row *a, const struct row *b)
{
    if (a->schema->key == KEY_INT64)
        return a->int_key == b->int_key;
    return a->key_len == b->key_len && memcmp(a->key, b->key, a->key_len) == 0;
}

uint64_t key_hash(const void *key, size_t len)
{
    return XXH3_64bits(key, len);
}

uint64_t row_key_hash(const struct row *r)
{
    return r->schema->key == KEY_INT64 ? key_hash(&r->int_key, sizeof r->int_key)
                                       : key_hash(r->key, r->key_len);
}

struct hash128 row_vector_hash(const struct row *r)
{
    if (!r->vector)
        return (struct hash128){0};
    if (r->hashed == r->vector)
        return *r->hash;
    return hash128(r->vector, r->schema->dim * sizeof *r->vector);
}

void row_hash_vector(struct row *r, struct hash128 *out)
{
    *out = row_vector_hash(r);
    r->hashed = r->vector;
    r->hash = out;
}

/* H(H(key, cells), H(vector bytes)): the vector, nearly all of the bytes, goes through the wide
 * hash, which is fast only without a seed. Its hash stands in segment files, so that the digest of
 * a row that goes is had without reading its vector. */
static struct digest digest_from(uint64_t seed, struct hash128 vector)
{
    struct {
        uint64_t seed;
        struct hash128 vector;
    } parts = {seed, vector};
    XXH128_hash_t h = XXH3_128bits(&parts, sizeof parts);
    return (struct digest){h.low64, h.high64};
}

struct digest row_digest_vector(int64_t key, const float *vector, uint32_t dim)
{
    return digest_from(key_hash(&key, sizeof key), hash128(vector, dim * sizeof *vector));
}

struct digest row_digest_hashed(int64_t key, const struct hash128 *vector)
{
    return digest_from(key_hash(&key, sizeof key), *vector);
}

struct digest row_digest(const struct row *r)
{
    const struct schema *s = r->schema;
    uint64_t seed = row_key_hash(r);
    for (uint32_t i = 0; i < s->nfeatures; i++) {
        if (strip_null(r->strip, i))
            continue;
        const struct feature *f = &s->features[i];
        struct cell c =
            f->width ? (struct cell){r->strip + f->strip_offset, f->width} : r->var[f->var_index];
        seed = XXH3_64bits_withSeed(c.data, c.len, seed + i + 1);
    }
    return digest_from(seed, row_vector_hash(r));
}

void row_encode(const struct row *r, struct buf *out)
{
    const struct schema *s = r->schema;
    if (s->key == KEY_INT64)
        buf_put_u64(out, (uint64_t)r->int_key);
    else
        buf_put_blob(out, r->key, r->key_len);
    buf_put_u8(out, r->vector != NULL);
    if (r->vector)
        buf_put(out, r->vector, s->dim * sizeof(float));
    buf_put(out, r->strip, s->strip_bytes);
    for (uint32_t i = 0; i < s->nvar; i++)
        buf_put_blob(out, r->var[i].data, r->var[i].len);
}

bool row_decode(struct row_builder *rb, struct cursor *c, float *vector)
{
    const struct schema *s = rb->row.schema;
    struct row *r = &rb->row;
    if (s->key == KEY_INT64)
        r->int_key = (int64_t)cursor_u64(c);
    else
        r->key = cursor_blob(c, &r->key_len);
    r->vector = r->hashed = NULL;
    if (cursor_u8(c)) {
        const void *v = cursor_take(c, s->dim * sizeof(float));
        if (!v || !s->dim)
            return false;
        memcpy(vector, v, s->dim * sizeof(float));
        r->vector = vector;
    }
    const void *strip = cursor_take(c, s->strip_bytes);
    if (!strip)
        return false;
    memcpy(rb->strip, strip, s->strip_bytes);
    for (uint32_t i = 0; i < s->nvar; i++) {
        rb->var[i].data = cursor_blob(c, &rb->var[i].len);
        if (!rb->var[i].data)
            return false;
    }
    return !c->failed;
}
