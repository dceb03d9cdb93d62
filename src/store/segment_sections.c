/* The frame of a segment file, written in one pass.
 *
 *   [ header ][ section ][ section ] ... [ footer: table of the sections, block sums ][ trailer ]
 *
 * Sections start at multiples of IO_SUM_BLOCK; their lengths are noted when the next one begins, so
 * that a section may be put piece by piece. Threads: one. Failure: sticks in the stream; nothing is
 * unlinked here. */
#include "store/segment_sections.h"

#include "base/clock.h"
#include "store/segment_format.h"

struct section {
    uint32_t kind, column;
    uint64_t offset, length;
};

struct segment_sections {
    struct schema *schema;
    struct io_stream *stream;
    struct buf list; /* struct section */
    bool open;       /* the last one's length is not known yet */
};

static enum err write_header(struct segment_sections *w, const uint8_t collection_id[16],
                             uint64_t id, struct err_ctx *ctx)
{
    struct segment_header h = {
        .magic = SEGMENT_MAGIC,
        .format_version = SEGMENT_FORMAT_VERSION,
        .section_align = IO_SUM_BLOCK,
        .segment_id = id,
        .created_us = clock_wall_us(),
    };
    memcpy(h.collection_id, collection_id, sizeof h.collection_id);
    h.crc = crc32c(0, &h, offsetof(struct segment_header, crc));
    RETURN_NOT_OK(io_stream_put(w->stream, &h, sizeof h, ctx));
    return io_stream_align(w->stream, ctx);
}

enum err segment_sections_new(struct io *io, const char *path, const uint8_t collection_id[16],
                              uint64_t id, struct schema *schema, uint64_t size_hint,
                              struct segment_sections **out, struct err_ctx *ctx)
{
    struct segment_sections *w = calloc(1, sizeof *w);
    if (!w)
        return err_no_memory(ctx, sizeof *w);
    w->schema = schema_acquire(schema);
    enum err e = io_stream_open(io, path, size_hint, &w->stream, ctx);
    if (e == ERR_OK)
        e = write_header(w, collection_id, id, ctx);
    if (e != ERR_OK) {
        segment_sections_free(w);
        return e;
    }
    *out = w;
    return ERR_OK;
}

void segment_sections_free(struct segment_sections *w)
{
    if (!w)
        return;
    io_stream_close(w->stream);
    buf_deinit(&w->list);
    schema_release(w->schema);
    free(w);
}

static void end_section(struct segment_sections *w)
{
    if (w->open && !w->list.failed) {
        struct section *last = (struct section *)(w->list.data + w->list.len) - 1;
        last->length = io_stream_offset(w->stream) - last->offset;
    }
    w->open = false;
}

enum err segment_sections_begin(struct segment_sections *w, uint32_t kind, uint32_t column,
                                struct err_ctx *ctx)
{
    end_section(w);
    RETURN_NOT_OK(io_stream_align(w->stream, ctx));
    struct section s = {kind, column, io_stream_offset(w->stream), 0};
    buf_put(&w->list, &s, sizeof s);
    w->open = true;
    return w->list.failed ? err_no_memory(ctx, w->list.len) : ERR_OK;
}

enum err segment_sections_put(struct segment_sections *w, const void *data, size_t n,
                              struct err_ctx *ctx)
{
    return io_stream_put(w->stream, data, n, ctx);
}

static void encode_footer(struct segment_sections *w, const struct segment_totals *t,
                          struct buf *out)
{
    buf_put_u32(out, t->rows);
    buf_put_u64(out, io_stream_offset(w->stream));
    schema_encode(w->schema, out);
    buf_put_u8(out, t->keys_run);
    buf_put_u64(out, (uint64_t)t->first_key);
    buf_put_u64(out, (uint64_t)t->key_min);
    buf_put_u64(out, (uint64_t)t->key_max);
    buf_put_u64(out, t->key_slots);
    buf_put_u32(out, t->runs);
    size_t n = w->list.len / sizeof(struct section);
    const struct section *s = (const struct section *)w->list.data;
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

enum err segment_sections_finish(struct segment_sections *w, const struct segment_totals *totals,
                                 struct err_ctx *ctx)
{
    end_section(w);
    RETURN_NOT_OK(io_stream_align(w->stream, ctx));
    struct buf footer = {0};
    encode_footer(w, totals, &footer);
    if (footer.failed) {
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
    return e == ERR_OK ? io_stream_finish(w->stream, ctx) : e;
}
