/* History files: encoding, decoding, and the items in them.
 *
 * Body: first and last version u64 x 2 | first and last time i64 x 2 | item numbers u64 x 2 | blob
 * of the base | then per item: number u64, blob of the record. Threads: none of it is shared.
 * Failure: the envelope's checksum covers every byte; what passes it and still contradicts itself
 * is ERR_CORRUPT as well. */
#include "store/history_file.h"

#define HISTORY_MAGIC "LSTNHIS\x1a"

enum { HISTORY_FORMAT = 1 };

/* ---- the base ---- */

void history_base_deinit(struct history_base *b)
{
    schema_release(b->schema);
    manifest_deinit(&b->manifest);
}

void history_base_encode(const struct history_base *b, struct buf *out)
{
    schema_encode(b->schema, out);
    meta_encode(&b->meta, out);
    buf_put_u8(out, b->altered);
    manifest_encode(&b->manifest, out);
}

enum err history_base_decode(const void *data, size_t n, struct history_base *out,
                             struct err_ctx *ctx)
{
    struct cursor c = cursor_over(data, n);
    memset(out, 0, sizeof *out);
    RETURN_NOT_OK(schema_decode(&c, &out->schema, ctx));
    meta_decode(&c, &out->meta);
    out->altered = cursor_u8(&c);
    manifest_decode(&c, &out->manifest);
    enum err e = ERR_OK;
    const struct manifest *m = &out->manifest;
    if (c.failed || cursor_left(&c))
        e = err_set(ctx, ERR_CORRUPT, "the base of a history file is damaged");
    else if (m->segments.failed || m->dead.failed || m->gone.failed)
        e = err_no_memory(ctx, n);
    if (e != ERR_OK)
        history_base_deinit(out);
    return e;
}

/* ---- items ---- */

static enum err put_without_rows(const void *record, size_t n, struct buf *out, struct err_ctx *ctx)
{
    struct commit_record r;
    struct buf bare = {0};
    RETURN_NOT_OK(commit_record_decode(record, n, &r, ctx));
    r.inline_rows = NULL;
    r.inline_len = r.inline_payload = 0;
    commit_record_encode(&r, &bare);
    buf_put_blob(out, bare.data, bare.len);
    out->failed |= bare.failed;
    buf_deinit(&bare);
    commit_record_deinit(&r);
    return ERR_OK;
}

enum err history_item_encode(uint64_t number, const void *record, size_t n, struct buf *out,
                             struct err_ctx *ctx)
{
    buf_put_u64(out, number);
    if (n && *(const uint8_t *)record == RECORD_COMMIT)
        RETURN_NOT_OK(put_without_rows(record, n, out, ctx));
    else
        buf_put_blob(out, record, n);
    return out->failed ? err_no_memory(ctx, n) : ERR_OK;
}

bool history_file_next(struct cursor *items, struct history_item *out)
{
    if (!cursor_left(items))
        return false;
    out->number = cursor_u64(items);
    out->record = cursor_blob(items, &out->len);
    return !items->failed;
}

/* ---- files ---- */

void history_file_encode(const struct history_file *f, const uint8_t collection_id[16],
                         struct buf *out)
{
    struct buf body = {0};
    buf_put_u64(&body, f->first_version);
    buf_put_u64(&body, f->last_version);
    buf_put_u64(&body, (uint64_t)f->first_time_us);
    buf_put_u64(&body, (uint64_t)f->last_time_us);
    buf_put_u64(&body, f->base_items);
    buf_put_u64(&body, f->last_item);
    buf_put_blob(&body, f->base, f->base_len);
    buf_put(&body, f->items, f->items_len);
    envelope_encode(HISTORY_MAGIC, HISTORY_FORMAT, collection_id, &body, out);
    buf_deinit(&body);
}

static bool items_valid(const struct history_file *f)
{
    struct cursor c = cursor_over(f->items, f->items_len);
    struct history_item item;
    uint64_t before = f->base_items;
    while (history_file_next(&c, &item)) {
        if (item.number <= before || item.len == 0)
            return false;
        before = item.number;
    }
    return !c.failed && before <= f->last_item;
}

enum err history_file_decode(const void *data, size_t n, const uint8_t collection_id[16],
                             struct history_file *out, struct err_ctx *ctx)
{
    struct cursor c;
    uint32_t format;
    RETURN_NOT_OK(
        envelope_decode(data, n, HISTORY_MAGIC, collection_id, "history file", &format, &c, ctx));
    if (format != HISTORY_FORMAT)
        return err_set(ctx, ERR_CORRUPT,
                       "the history file is of format %u, written by another release", format);
    *out = (struct history_file){.first_version = cursor_u64(&c)};
    out->last_version = cursor_u64(&c);
    out->first_time_us = (int64_t)cursor_u64(&c);
    out->last_time_us = (int64_t)cursor_u64(&c);
    out->base_items = cursor_u64(&c);
    out->last_item = cursor_u64(&c);
    out->base = cursor_blob(&c, &out->base_len);
    out->items = c.p;
    out->items_len = cursor_left(&c);
    if (c.failed || !items_valid(out))
        return err_set(ctx, ERR_CORRUPT, "the history file contradicts itself");
    return ERR_OK;
}

enum err history_file_read(struct io *io, const char *path, const uint8_t collection_id[16],
                           struct buf *data, struct history_file *out, struct err_ctx *ctx)
{
    struct io_file *f;
    uint64_t size;
    struct err_ctx why;
    err_clear(&why);
    buf_reset(data);
    RETURN_NOT_OK(io_file_open(io, path, IO_READ, &f, ctx));
    enum err e = io_file_size(f, &size, ctx);
    void *at = e == ERR_OK ? buf_extend(data, size) : NULL;
    if (e == ERR_OK && !at)
        e = err_no_memory(ctx, size);
    if (e == ERR_OK)
        e = io_file_read(f, at, size, 0, ctx);
    io_file_close(f);
    RETURN_NOT_OK(e);
    e = history_file_decode(data->data, data->len, collection_id, out, &why);
    return e == ERR_OK ? e : err_set(ctx, e, "%s: offset 0: %.900s", path, why.detail);
}
