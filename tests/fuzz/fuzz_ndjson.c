/* Streams of rows: the framer, fed in pieces of any size, and the row reader behind it. The same
 * bytes in one piece and in many must give the same rows, and the same error code.
 *
 *   byte 0: shape (JSON or lines) and key type; byte 1: seed of the sizes of the pieces */
#include "fuzz.h"

#include "api/framer.h"
#include "api/row_json.h"

enum { ROW_BYTES_MAX = 512 };

struct reading {
    struct row_reader reader;
    struct batch *batch;
};

static enum err add_row(void *arg, const char *text, size_t n, uint64_t offset, struct err_ctx *ctx)
{
    struct reading *r = arg;
    return row_reader_add(&r->reader, r->batch, text, n, r->batch->rows, offset, ctx);
}

static enum err feed(struct framer *f, const uint8_t *data, size_t n, uint32_t seed,
                     struct err_ctx *ctx)
{
    while (n) {
        seed = seed * 1664525 + 1013904223;
        size_t step = (seed >> 24) % 17 + 1;
        step = step < n ? step : n;
        uint8_t *piece = malloc(step); /* of its own, so that reading past it is seen */
        ASSERT(piece);
        memcpy(piece, data, step);
        enum err e = framer_feed(f, piece, step, ctx);
        free(piece);
        RETURN_NOT_OK(e);
        data += step;
        n -= step;
    }
    return ERR_OK;
}

static enum err read_all(struct reading *r, enum framer_shape shape, const uint8_t *data, size_t n,
                         bool pieces, uint8_t seed)
{
    struct framer f;
    struct err_ctx ctx;
    err_clear(&ctx);
    framer_init(&f, shape, ROW_BYTES_MAX, add_row, r);
    enum err e = pieces ? feed(&f, data, n, seed, &ctx) : framer_feed(&f, data, n, &ctx);
    if (e == ERR_OK)
        e = framer_finish(&f, &ctx);
    ASSERT(e == ERR_OK || ctx.detail[0]);
    framer_deinit(&f);
    return e;
}

static struct reading reading_new(enum key_type key)
{
    static struct schema *schemas[2];
    struct reading r;
    if (!schemas[key])
        schemas[key] = fuzz_schema(key);
    ASSERT(row_reader_init(&r.reader, schemas[key], NULL) == ERR_OK);
    ASSERT(batch_new(schemas[key], &r.batch, NULL) == ERR_OK);
    return r;
}

static void reading_free(struct reading *r)
{
    row_reader_deinit(&r->reader);
    batch_free(r->batch);
}

static bool same(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (!a->len || memcmp(a->data, b->data, a->len) == 0);
}

static void expect_same_rows(const struct batch *a, const struct batch *b)
{
    ASSERT(a->rows == b->rows && same(&a->int_keys, &b->int_keys));
    ASSERT(same(&a->str_keys.values, &b->str_keys.values));
    ASSERT(same(&a->vector.values, &b->vector.values));
    for (uint32_t i = 0; i < a->schema->nfeatures; i++) {
        ASSERT(same(&a->features[i].state, &b->features[i].state));
        ASSERT(same(&a->features[i].values, &b->features[i].values));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    enum framer_shape shape = data[0] & 1 ? FRAMER_LINES : FRAMER_JSON;
    enum key_type key = data[0] & 2 ? KEY_STRING : KEY_INT64;
    struct reading whole = reading_new(key), pieces = reading_new(key);
    enum err a = read_all(&whole, shape, data + 2, n - 2, false, 0);
    enum err b = read_all(&pieces, shape, data + 2, n - 2, true, data[1]);
    ASSERT(a == b);
    if (a == ERR_OK) {
        expect_same_rows(whole.batch, pieces.batch);
        (void)!batch_validate(whole.batch, NULL);
    }
    reading_free(&whole);
    reading_free(&pieces);
    return 0;
}
