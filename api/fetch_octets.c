/* Features as application/octet-stream: no header, little-endian, blocks one after the other, each
 * padded with zeros to a multiple of 8 bytes. For n keys:
 *
 *   found                     n x u8: 1 = the collection has the key
 *   for each feature asked    n x u8: 0 = no such key, 1 = null, 2 = a value
 *                             n x value: bool 1 byte, int32 and float32 4, int64, float64 and
 *                             timestamp (microseconds since 1970) 8; zero where there is none
 *   with_vectors              n x u8 as above, then n x dim float32
 *
 * Keys and features stand in the order in which they were asked; the version is in the
 * Loadstone-Version header.
 *
 * Strips are looked up once a row, into r->counts; columns are then cut from them.
 *
 * Threads: the request's. Failure: an answer over result_bytes_max, or without memory, is refused
 * before anything is written. */
#include "api/fetch_octets.h"

#include "api/columns.h"
#include "api/fetch_keys.h"

enum { STATE_NO_KEY = 0, STATE_NULL = 1, STATE_VALUE = 2, BLOCK_ALIGN = 8 };

/* Where the fixed-width cells of a key lie. */
struct strip_at {
    const uint8_t *strip;        /* NULL: none, the segment knows no features */
    const struct schema *schema; /* NULL: no such key */
};

enum err fetch_octets_check(const struct request *r, const struct schema *s, struct err_ctx *ctx)
{
    for (size_t i = 0; i < columns_count(&r->columns); i++) {
        const struct feature *f = &s->features[columns_get(&r->columns, i)];
        if (!f->width)
            return err_set_at(ctx, ERR_NOT_ACCEPTABLE, -1, f->name,
                              "'%s' is %s, which has no fixed width: name other features, or "
                              "accept application/json",
                              f->name, feature_type_name(f->type));
    }
    return ERR_OK;
}

static uint64_t block_bytes(uint64_t n, uint64_t width)
{
    return (n * width + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
}

static enum err check_size(const struct request *r, const struct schema *s, bool with_vectors,
                           struct err_ctx *ctx)
{
    uint64_t n = fetch_key_count(r), bytes = block_bytes(n, 1);
    uint64_t max = r->service->limits.result_bytes_max;
    for (size_t i = 0; i < columns_count(&r->columns); i++)
        bytes += block_bytes(n, 1) + block_bytes(n, s->features[columns_get(&r->columns, i)].width);
    if (with_vectors)
        bytes += block_bytes(n, 1) + block_bytes(n, s->dim * sizeof(float));
    if (bytes <= max)
        return ERR_OK;
    return err_set(ctx, ERR_TOO_LARGE,
                   "%llu keys give more than result_bytes_max (%llu bytes): ask for fewer at a "
                   "time",
                   (unsigned long long)n, (unsigned long long)max);
}

/* A block of zeros behind what is there; NULL when memory is out. */
static uint8_t *add_block(struct request *r, size_t n, size_t width)
{
    size_t bytes = block_bytes(n, width);
    uint8_t *at = buf_extend(&r->out, bytes);
    if (at)
        memset(at, 0, bytes);
    return at;
}

static bool find_strips(struct request *r, const struct snapshot *s)
{
    size_t n = fetch_key_count(r);
    buf_reset(&r->counts);
    struct strip_at *at = buf_extend(&r->counts, n * sizeof *at);
    for (size_t i = 0; at && i < n; i++) {
        struct row_ref ref;
        at[i] = (struct strip_at){0};
        if (!fetch_key_row(r, i, &ref))
            continue;
        const struct segment *g = s->views[ref.view].segment;
        at[i] = (struct strip_at){segment_strip(g, ref.row), g->schema};
    }
    return at != NULL;
}

static bool put_found(struct request *r)
{
    size_t n = fetch_key_count(r);
    const struct strip_at *at = (const struct strip_at *)r->counts.data;
    uint8_t *found = add_block(r, n, 1);
    for (size_t i = 0; found && i < n; i++)
        found[i] = at[i].schema != NULL;
    return found != NULL;
}

/* A row older than the feature has no cell for it: null. */
static void put_cell(const struct strip_at *at, uint32_t feature, uint32_t width, uint8_t *state,
                     uint8_t *value)
{
    *state = at->schema ? STATE_NULL : STATE_NO_KEY;
    if (!at->schema || !at->strip || feature >= at->schema->nfeatures ||
        strip_null(at->strip, feature))
        return;
    *state = STATE_VALUE;
    const uint8_t *cell = at->strip + at->schema->features[feature].strip_offset;
    if (width == 4)
        memcpy(value, cell, 4);
    else if (width == 8)
        memcpy(value, cell, 8);
    else
        *value = *cell;
}

static bool put_column(struct request *r, const struct schema *s, uint32_t feature)
{
    size_t n = fetch_key_count(r), width = s->features[feature].width;
    const struct strip_at *at = (const struct strip_at *)r->counts.data;
    size_t states_at = r->out.len;
    if (!add_block(r, n, 1))
        return false;
    uint8_t *values = add_block(r, n, width);
    if (!values)
        return false;
    uint8_t *states = r->out.data + states_at; /* the second block may have moved the first */
    for (size_t i = 0; i < n; i++)
        put_cell(&at[i], feature, (uint32_t)width, &states[i], values + i * width);
    return true;
}

static bool put_vectors(struct request *r, const struct snapshot *s)
{
    size_t n = fetch_key_count(r), bytes = s->schema->dim * sizeof(float);
    size_t states_at = r->out.len;
    if (!add_block(r, n, 1))
        return false;
    uint8_t *values = add_block(r, n, bytes);
    for (size_t i = 0; values && i < n; i++) {
        struct row_ref ref;
        if (!fetch_key_row(r, i, &ref))
            continue;
        const float *v = segment_vector(s->views[ref.view].segment, ref.row);
        if (v)
            memcpy(values + i * bytes, v, bytes);
        r->out.data[states_at + i] = v ? STATE_VALUE : STATE_NULL;
    }
    return values != NULL;
}

enum err fetch_octets_put(struct request *r, const struct snapshot *s, bool with_vectors,
                          struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_size(r, s->schema, with_vectors, ctx));
    r->content_type = "application/octet-stream";
    bool ok = find_strips(r, s) && put_found(r);
    for (size_t i = 0; ok && i < columns_count(&r->columns); i++)
        ok = put_column(r, s->schema, columns_get(&r->columns, i));
    if (ok && with_vectors)
        ok = put_vectors(r, s);
    return ok ? ERR_OK : err_no_memory(ctx, r->out.len);
}
