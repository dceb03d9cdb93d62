/* .npy bodies: the header alone, and a whole body in pieces.
 *
 *   byte 0: seed of the sizes of the pieces; bit 7: the body's length is told beforehand
 *
 * A header is complete with as many bytes as it says, and never with fewer. */
#include "fuzz_store.h"

#include "api/npy_rows.h"

static void try_header(const uint8_t *data, size_t n)
{
    struct npy_array a;
    struct err_ctx ctx;
    size_t need = 0, again;
    err_clear(&ctx);
    if (npy_header_length(data, n, &need, &ctx) != ERR_OK) {
        ASSERT(ctx.detail[0]);
        return;
    }
    if (need > n)
        return;
    uint8_t *head = malloc(need); /* of its own, so that reading past it is seen */
    ASSERT(head && need);
    memcpy(head, data, need);
    ASSERT(npy_header_length(head, need, &again, &ctx) == ERR_OK && again == need);
    if (npy_header_read(head, need, &a, &ctx) != ERR_OK)
        ASSERT(ctx.detail[0]);
    free(head);
}

static enum err feed(struct npy_rows *s, const uint8_t *data, size_t n, uint32_t seed,
                     struct err_ctx *ctx)
{
    while (n) {
        seed = seed * 1664525 + 1013904223;
        size_t step = (seed >> 24) % 61 + 1;
        step = step < n ? step : n;
        uint8_t *piece = malloc(step);
        ASSERT(piece);
        memcpy(piece, data, step);
        enum err e = npy_rows_feed(s, piece, step, ctx);
        free(piece);
        RETURN_NOT_OK(e);
        data += step;
        n -= step;
    }
    return npy_rows_finish(s, ctx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct npy_rows s;
    struct batch *b;
    struct err_ctx ctx;
    if (n == 0)
        return 0;
    try_header(data + 1, n - 1);
    err_clear(&ctx);
    struct load *l = fuzz_load(KEY_INT64);
    ASSERT(batch_new(load_schema(l), &b, NULL) == ERR_OK);
    npy_rows_init(&s, row_sink_of(l), b, 5, data[0] & 0x80 ? n - 1 : 0);
    enum err e = feed(&s, data + 1, n - 1, data[0], &ctx);
    ASSERT(e == ERR_OK ? s.rows == s.array.rows : ctx.detail[0] != 0);
    npy_rows_deinit(&s);
    batch_free(b);
    load_free(l);
    return 0;
}
