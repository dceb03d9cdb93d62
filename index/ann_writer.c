/* Writes .ann files in one sequential pass: inverted lists from memory, a graph while its builder
 * gives it out.
 *
 *   zeros for the header ─ links, node by node ─ upper_at ─ upper ─ rows ─ norms ─ twins_at ─ twins
 *   ─ codes ─ scale ─ made ─ sync ─ header
 *
 * Only the upper lists (about a 30th of the nodes have any) wait in memory until the links are
 * done. The header goes in last, after everything else is synced: a file that has one is whole.
 *
 * Threads: one. Failure: the caller removes the file. */
#include "index/ann_file.h"

#include <string.h>
#include <xxhash.h>

#include "index/ann_format.h"

struct ann_writer {
    struct io_stream *stream;
    struct ann_shape shape;
    const struct distinct *rows;
    const float *norms;
    const struct ann_codes *codes; /* with what the gate found */
    const uint8_t *layers;         /* borrowed from the graph walk */
    struct buf upper;
    uint32_t upper_lists, entry, layers_max;
    struct ann_section sections[ANN_SECTIONS_MAX];
    uint32_t nsections;
    XXH3_state_t *sum;
};

static enum err put_zeros_to(struct ann_writer *w, uint64_t offset, struct err_ctx *ctx)
{
    static const uint8_t zeros[4096];
    while (io_stream_offset(w->stream) < offset) {
        uint64_t left = offset - io_stream_offset(w->stream);
        size_t n = left < sizeof(zeros) ? (size_t)left : sizeof(zeros);
        RETURN_NOT_OK(io_stream_put(w->stream, zeros, n, ctx));
    }
    return ERR_OK;
}

static enum err section_begin(struct ann_writer *w, uint32_t kind, uint64_t length,
                              struct err_ctx *ctx)
{
    uint64_t align = length >= ANN_ALIGN_LARGE ? ANN_ALIGN_LARGE : ANN_ALIGN;
    RETURN_NOT_OK(put_zeros_to(w, round_up(io_stream_offset(w->stream), align), ctx));
    ASSERT(w->nsections < ANN_SECTIONS_MAX);
    w->sections[w->nsections] =
        (struct ann_section){.kind = kind, .offset = io_stream_offset(w->stream), .length = length};
    XXH3_64bits_reset(w->sum);
    return ERR_OK;
}

static enum err section_put(struct ann_writer *w, const void *data, size_t n, struct err_ctx *ctx)
{
    XXH3_64bits_update(w->sum, data, n);
    return io_stream_put(w->stream, data, n, ctx);
}

static void section_end(struct ann_writer *w)
{
    struct ann_section *s = &w->sections[w->nsections++];
    ASSERT(io_stream_offset(w->stream) == s->offset + s->length);
    s->sum = XXH3_64bits_digest(w->sum);
}

static enum err section_whole(struct ann_writer *w, uint32_t kind, const void *data,
                              uint64_t length, struct err_ctx *ctx)
{
    RETURN_NOT_OK(section_begin(w, kind, length, ctx));
    if (length > 0)
        RETURN_NOT_OK(section_put(w, data, length, ctx));
    section_end(w);
    return ERR_OK;
}

static enum err on_begin(void *arg, uint32_t nodes, uint32_t m, const uint8_t *layers,
                         struct err_ctx *ctx)
{
    struct ann_writer *w = arg;
    if (nodes != w->shape.nodes || m != w->shape.m)
        return err_set(ctx, ERR_INTERNAL,
                       "the builder made a graph of %u nodes with m %u; %u nodes with m %u were "
                       "asked for",
                       nodes, m, w->shape.nodes, w->shape.m);
    w->layers = layers;
    return section_begin(w, ANN_LINKS, (uint64_t)nodes * 2 * m * sizeof(uint32_t), ctx);
}

static enum err on_node(void *arg, uint32_t node, const uint32_t *links, struct err_ctx *ctx)
{
    struct ann_writer *w = arg;
    size_t m = w->shape.m;
    uint32_t lists = w->layers[node] - 1u;
    buf_put(&w->upper, links + 2 * m, lists * m * sizeof(uint32_t));
    w->upper_lists += lists;
    return section_put(w, links, 2 * m * sizeof(uint32_t), ctx);
}

static enum err put_upper_at(struct ann_writer *w, struct err_ctx *ctx)
{
    RETURN_NOT_OK(section_begin(w, ANN_UPPER_AT, w->shape.nodes * sizeof(uint32_t), ctx));
    uint32_t at = 0;
    for (uint32_t i = 0; i < w->shape.nodes; i++) {
        uint32_t lists = w->layers[i] - 1u;
        uint32_t value = lists > 0 ? at : ANN_NONE;
        RETURN_NOT_OK(section_put(w, &value, sizeof(value), ctx));
        at += lists;
    }
    section_end(w);
    return ERR_OK;
}

static enum err put_code_nodes(struct ann_writer *w, float *vector, uint8_t *code,
                               struct err_ctx *ctx)
{
    const struct ann_codes *c = w->codes;
    size_t stride = code_stride(w->shape.dim);
    RETURN_NOT_OK(section_begin(w, ANN_CODES, w->shape.nodes * stride, ctx));
    for (uint32_t i = 0; i < w->shape.nodes; i++) {
        graph_vector(c->segment, w->rows->rows ? w->rows->rows[i] : i, vector);
        code_encode(&c->scale, vector, code);
        RETURN_NOT_OK(section_put(w, code, stride, ctx));
    }
    section_end(w);
    return ERR_OK;
}

static enum err put_scale(struct ann_writer *w, struct err_ctx *ctx)
{
    const struct ann_codes *c = w->codes;
    uint32_t dim = w->shape.dim, recall;
    struct buf b = {0};
    memcpy(&recall, &c->recall, sizeof(recall));
    buf_put_u32(&b, ANN_SCALE_VERSION);
    buf_put_u32(&b, c->scale.scheme);
    buf_put_u32(&b, (uint32_t)code_stride(dim));
    buf_put_u32(&b, c->scale.rerank_permille);
    buf_put_u32(&b, c->sample);
    buf_put_u32(&b, recall);
    buf_put_zeros(&b, ANN_SCALE_HEAD - b.len);
    buf_put(&b, c->scale.lo, dim * sizeof(float));
    buf_put(&b, c->scale.step, dim * sizeof(float));
    enum err e = b.failed ? err_no_memory(ctx, 2 * dim * sizeof(float))
                          : section_whole(w, ANN_SCALE, b.data, b.len, ctx);
    buf_deinit(&b);
    return e;
}

static enum err put_made(struct ann_writer *w, struct err_ctx *ctx)
{
    const struct ann_codes *c = w->codes;
    uint32_t recall;
    struct buf b = {0};
    memcpy(&recall, &c->recall, sizeof(recall));
    buf_put_u32(&b, ANN_MADE_VERSION);
    buf_put_u32(&b, w->shape.builder);
    buf_put_u32(&b, c->verdict);
    buf_put_u32(&b, c->scale.rerank_permille);
    buf_put_u32(&b, c->sample);
    buf_put_u32(&b, recall);
    buf_put_zeros(&b, ANN_MADE_BYTES - b.len);
    enum err e = b.failed ? err_no_memory(ctx, ANN_MADE_BYTES)
                          : section_whole(w, ANN_MADE, b.data, b.len, ctx);
    buf_deinit(&b);
    return e;
}

static enum err put_codes(struct ann_writer *w, struct err_ctx *ctx)
{
    size_t stride = code_stride(w->shape.dim);
    float *vector = malloc(stride * sizeof(float));
    uint8_t *code = malloc(stride);
    enum err e = vector && code ? put_code_nodes(w, vector, code, ctx)
                                : err_no_memory(ctx, stride * sizeof(float));
    free(vector);
    free(code);
    return e == ERR_OK ? put_scale(w, ctx) : e;
}

static enum err put_verdict(struct ann_writer *w, struct err_ctx *ctx)
{
    if (w->codes->verdict == CODES_TAKEN)
        RETURN_NOT_OK(put_codes(w, ctx));
    return put_made(w, ctx);
}

static enum err put_rows(struct ann_writer *w, struct err_ctx *ctx)
{
    const struct distinct *d = w->rows;
    uint64_t per_node = (uint64_t)w->shape.nodes * sizeof(uint32_t);
    if (d->rows)
        RETURN_NOT_OK(section_whole(w, ANN_ROWS, d->rows, per_node, ctx));
    if (w->norms)
        RETURN_NOT_OK(section_whole(w, ANN_NORMS, w->norms, per_node, ctx));
    if (w->shape.twins == 0)
        return ERR_OK;
    RETURN_NOT_OK(section_whole(w, ANN_TWINS_AT, d->twins_at, per_node + sizeof(uint32_t), ctx));
    return section_whole(w, ANN_TWINS, d->twins, w->shape.twins * sizeof(uint32_t), ctx);
}

static enum err on_end(void *arg, uint32_t entry, uint32_t layers, struct err_ctx *ctx)
{
    struct ann_writer *w = arg;
    section_end(w);
    w->entry = entry;
    w->layers_max = layers;
    if (w->upper.failed)
        return err_no_memory(ctx, w->upper.len);
    RETURN_NOT_OK(put_upper_at(w, ctx));
    RETURN_NOT_OK(section_whole(w, ANN_UPPER, w->upper.data, w->upper.len, ctx));
    RETURN_NOT_OK(put_rows(w, ctx));
    return put_verdict(w, ctx);
}

static void encode_header(const struct ann_writer *w, uint64_t file_bytes, struct buf *out)
{
    const struct ann_shape *s = &w->shape;
    buf_put(out, ANN_MAGIC, 8);
    buf_put_u32(out, ANN_FORMAT_VERSION);
    buf_put_u32(out, 0);
    buf_put_u32(out, s->kind == INDEX_IVF ? ANN_FLAG_IVF : 0);
    buf_put_u32(out, w->nsections);
    buf_put(out, s->collection_id, sizeof(s->collection_id));
    buf_put_u64(out, s->segment_id);
    buf_put_u64(out, file_bytes);
    buf_put_u32(out, s->rows);
    buf_put_u32(out, s->nodes);
    buf_put_u32(out, s->dim);
    buf_put_u32(out, (uint32_t)s->metric);
    buf_put_u32(out, s->m);
    buf_put_u32(out, s->ef_construction);
    buf_put_u32(out, w->entry);
    buf_put_u32(out, w->layers_max);
    buf_put_u32(out, s->kind == INDEX_IVF ? s->nlist : w->upper_lists);
    buf_put_u32(out, s->twins);
    for (uint32_t i = 0; i < w->nsections; i++) {
        buf_put_u32(out, w->sections[i].kind);
        buf_put_u32(out, 0);
        buf_put_u64(out, w->sections[i].offset);
        buf_put_u64(out, w->sections[i].length);
        buf_put_u64(out, w->sections[i].sum);
    }
    buf_put_u32(out, crc32c(0, out->data, out->len));
}

static enum err write_header(struct io *io, const char *path, const struct ann_writer *w,
                             uint64_t file_bytes, struct err_ctx *ctx)
{
    struct buf header = {0};
    struct io_file *f = NULL;
    encode_header(w, file_bytes, &header);
    enum err e = header.failed ? err_no_memory(ctx, ANN_HEADER_MAX)
                               : io_file_open(io, path, IO_WRITE, &f, ctx);
    if (e == ERR_OK)
        e = io_file_write_sync(f, header.data, header.len, 0, ctx);
    io_file_close(f);
    buf_deinit(&header);
    return e;
}

/* Opens the stream, lets `put` write the sections, and writes the header. */
static enum err write_file(struct io *io, const char *path, struct ann_writer *w, uint64_t hint,
                           enum err (*put)(struct ann_writer *w, void *from, struct err_ctx *ctx),
                           void *from, struct err_ctx *ctx)
{
    w->sum = XXH3_createState();
    if (!w->sum)
        return err_set(ctx, ERR_NO_MEMORY, "out of memory for a checksum state");
    enum err e = io_stream_open(io, path, hint, &w->stream, ctx);
    if (e == ERR_OK)
        e = put_zeros_to(w, ANN_ALIGN, ctx);
    if (e == ERR_OK)
        e = put(w, from, ctx);
    if (e == ERR_OK)
        e = io_stream_finish(w->stream, ctx);
    uint64_t file_bytes = w->stream ? io_stream_offset(w->stream) : 0;
    io_stream_close(w->stream);
    if (e == ERR_OK)
        e = write_header(io, path, w, file_bytes, ctx);
    XXH3_freeState(w->sum);
    return e;
}

static enum err put_graph(struct ann_writer *w, void *from, struct err_ctx *ctx)
{
    const struct graph_source *graph = from;
    const struct graph_sink sink = {w, on_begin, on_node, on_end};
    return graph->walk(graph->graph, &sink, ctx);
}

enum err ann_file_write(struct io *io, const char *path, const struct ann_shape *shape,
                        const struct graph_source *graph, const struct distinct *rows,
                        const float *norms, const struct ann_codes *codes, struct err_ctx *ctx)
{
    ASSERT(rows->nodes == shape->nodes && rows->ntwins == shape->twins);
    struct ann_writer w = {.shape = *shape, .rows = rows, .norms = norms, .codes = codes};
    uint64_t hint = (uint64_t)shape->nodes * shape->m * 2 * sizeof(uint32_t);
    hint += codes->verdict == CODES_TAKEN ? shape->nodes * code_stride(shape->dim) : 0;
    enum err e = write_file(io, path, &w, hint, put_graph, (void *)graph, ctx);
    buf_deinit(&w.upper);
    return e;
}

static enum err put_lists(struct ann_writer *w, void *from, struct err_ctx *ctx)
{
    const struct ann_lists *l = from;
    const struct ann_shape *s = &w->shape;
    uint64_t centroids = (uint64_t)s->nlist * s->dim * sizeof(float);
    RETURN_NOT_OK(section_whole(w, ANN_CENTROIDS, l->centroids, centroids, ctx));
    RETURN_NOT_OK(section_whole(w, ANN_LISTS_AT, l->at, (s->nlist + 1ull) * sizeof(uint32_t), ctx));
    RETURN_NOT_OK(section_whole(w, ANN_ROWS, l->rows, (uint64_t)s->nodes * sizeof(uint32_t), ctx));
    return put_verdict(w, ctx);
}

enum err ann_file_write_ivf(struct io *io, const char *path, const struct ann_shape *shape,
                            const struct ann_lists *lists, const struct ann_codes *codes,
                            struct err_ctx *ctx)
{
    struct distinct nodes = {.nodes = shape->nodes, .rows = (uint32_t *)lists->rows};
    struct ann_writer w = {.shape = *shape, .rows = &nodes, .codes = codes};
    size_t code = codes->verdict == CODES_TAKEN ? code_stride(shape->dim) : 0;
    uint64_t hint = shape->nodes * (sizeof(uint32_t) + code);
    return write_file(io, path, &w, hint, put_lists, (void *)lists, ctx);
}
