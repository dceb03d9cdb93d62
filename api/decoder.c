/* Request bodies into rows.
 *
 *   JSON, NDJSON:  bytes -> framer -> row text -> row_reader -> batch -> sink when full
 *   columnar JSON: gathered whole; columnar_json.c. Its first field tells it from rows.
 *   octet-stream:  bytes = vectors; the batch borrows them, keys count on; no work per row
 *   npy:           the same behind a header: npy_rows.c
 *
 * Threads: one decoder, one thread at a time. Failure: what the sink leads to can only be
 * freed; the error names
 * row and field. */
#include "api/decoder.h"

#include "api/columnar_json.h"
#include "api/framer.h"
#include "api/npy_rows.h"
#include "api/row_json.h"

enum {
    BATCH_TEXT_BYTES = 1 << 20,  /* of row text that a batch gathers */
    BATCH_FIXED_BYTES = 8 << 20, /* of fixed-width cells, those padded for rows without them too */
    BATCH_ROWS = 8192,
};

struct decoder {
    struct row_sink sink;
    struct batch *batch;
    enum media media;
    struct framer framer;
    struct row_reader reader;
    struct npy_rows npy;
    enum columnar_form form; /* of a JSON body */
    struct buf text;         /* of a body whose form is not known, or columnar */
    struct service *service;
    uint64_t reserved; /* for `text` */
    uint64_t rows;
    int64_t first_key;
    size_t pending_bytes; /* text of the rows in the batch */
    size_t batch_rows_max;
};

static enum err flush(struct decoder *d, struct err_ctx *ctx)
{
    if (d->batch->rows == 0)
        return ERR_OK;
    RETURN_NOT_OK(d->sink.add(d->sink.to, d->batch, ctx));
    batch_reset(d->batch);
    d->pending_bytes = 0;
    return ERR_OK;
}

static enum err add_row(void *arg, const char *text, size_t n, uint64_t offset, struct err_ctx *ctx)
{
    struct decoder *d = arg;
    RETURN_NOT_OK(row_reader_add(&d->reader, d->batch, text, n, d->rows, offset, ctx));
    d->rows++;
    d->pending_bytes += n;
    if (d->batch->rows >= d->batch_rows_max || d->pending_bytes >= BATCH_TEXT_BYTES)
        return flush(d, ctx);
    return ERR_OK;
}

/* A single cell pads its whole column, so that the rows are bounded by their full width. */
static size_t rows_max(const struct schema *s)
{
    size_t n = BATCH_FIXED_BYTES / (s->dim * sizeof(float) + s->strip_bytes + 1);
    return n < 1 ? 1 : n > BATCH_ROWS ? BATCH_ROWS : n;
}

enum err decoder_new(struct row_sink sink, const struct decoder_options *o, struct decoder **out,
                     struct err_ctx *ctx)
{
    struct decoder *d = calloc(1, sizeof *d);
    if (!d)
        return err_no_memory(ctx, sizeof *d);
    d->sink = sink;
    d->media = o->media;
    d->first_key = o->first_key;
    d->service = o->service;
    d->batch_rows_max = rows_max(sink.schema);
    enum framer_shape shape = o->media == MEDIA_JSON ? FRAMER_JSON : FRAMER_LINES;
    framer_init(&d->framer, shape, o->row_bytes_max, add_row, d);
    enum err e = row_reader_init(&d->reader, sink.schema, ctx);
    if (e == ERR_OK)
        e = batch_new(sink.schema, &d->batch, ctx);
    npy_rows_init(&d->npy, sink, d->batch, o->first_key, o->body_bytes);
    if (e != ERR_OK) {
        decoder_free(d);
        return e;
    }
    *out = d;
    return ERR_OK;
}

void decoder_free(struct decoder *d)
{
    if (!d)
        return;
    framer_deinit(&d->framer);
    row_reader_deinit(&d->reader);
    npy_rows_deinit(&d->npy);
    buf_deinit(&d->text);
    service_unreserve(d->service, d->reserved);
    batch_free(d->batch);
    free(d);
}

static enum err feed_vectors(struct decoder *d, const void *data, size_t n, struct err_ctx *ctx)
{
    size_t row_bytes = d->batch->schema->dim * sizeof(float);
    size_t rows = n / row_bytes;
    int64_t key;
    if (n % row_bytes)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the body's length is no multiple of %zu bytes (dim %u x 4): %zu bytes are "
                       "left over after row %llu",
                       row_bytes, d->batch->schema->dim, n % row_bytes,
                       (unsigned long long)(d->rows + rows));
    if (d->rows > INT64_MAX || __builtin_add_overflow(d->first_key, (int64_t)d->rows, &key))
        return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)d->rows, "key",
                          "keys counted from first_key overflow int64");
    RETURN_NOT_OK(batch_borrow_vectors(d->batch, data, rows, key, ctx));
    d->rows += rows;
    return flush(d, ctx);
}

static enum err gather(struct decoder *d, const void *data, size_t n, struct err_ctx *ctx)
{
    size_t before = d->text.cap;
    buf_put(&d->text, data, n);
    if (d->text.failed)
        return err_no_memory(ctx, d->text.len + n);
    size_t grown = d->text.cap - before;
    RETURN_NOT_OK(service_reserve(d->service, d->reserved, grown, ctx));
    d->reserved += grown;
    return ERR_OK;
}

/* Nearly always the first piece tells the form and nothing is gathered for rows. */
static enum err feed_json(struct decoder *d, const void *data, size_t n, struct err_ctx *ctx)
{
    if (d->form == COLUMNAR_NO)
        return framer_feed(&d->framer, data, n, ctx);
    if (d->form == COLUMNAR_UNDECIDED && d->text.len == 0 &&
        (d->form = columnar_form(data, n)) == COLUMNAR_NO)
        return framer_feed(&d->framer, data, n, ctx);
    RETURN_NOT_OK(gather(d, data, n, ctx));
    if (d->form == COLUMNAR_YES)
        return ERR_OK;
    d->form = columnar_form(d->text.data, d->text.len);
    return d->form == COLUMNAR_NO ? framer_feed(&d->framer, d->text.data, d->text.len, ctx)
                                  : ERR_OK;
}

static enum err finish_json(struct decoder *d, struct err_ctx *ctx)
{
    if (d->form == COLUMNAR_YES)
        return columnar_json_load(d->text.data, d->text.len, d->sink, d->batch, &d->reader,
                                  d->batch_rows_max, ctx);
    if (d->form == COLUMNAR_UNDECIDED && d->text.len)
        RETURN_NOT_OK(framer_feed(&d->framer, d->text.data, d->text.len, ctx));
    RETURN_NOT_OK(framer_finish(&d->framer, ctx));
    return flush(d, ctx);
}

enum err decoder_feed(struct decoder *d, const void *data, size_t n, struct err_ctx *ctx)
{
    if (d->media == MEDIA_OCTETS)
        return feed_vectors(d, data, n, ctx);
    if (d->media == MEDIA_NPY)
        return npy_rows_feed(&d->npy, data, n, ctx);
    if (d->media == MEDIA_JSON)
        return feed_json(d, data, n, ctx);
    return framer_feed(&d->framer, data, n, ctx);
}

enum err decoder_finish(struct decoder *d, struct err_ctx *ctx)
{
    if (d->media == MEDIA_NPY)
        return npy_rows_finish(&d->npy, ctx);
    if (d->media == MEDIA_JSON)
        return finish_json(d, ctx);
    if (d->media != MEDIA_OCTETS) {
        RETURN_NOT_OK(framer_finish(&d->framer, ctx));
        return flush(d, ctx);
    }
    if (d->rows == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send n x dim float32");
    return ERR_OK;
}
