/* Reads files of FAISS (faiss/impl/index_read.cpp; the layout is in faiss_export.c).
 *
 * Every count is held against the bytes that are left and against the counts before it, so a file
 * that passes can be walked without looking back: links of a node start where those of the one
 * before end, the lists end within the file. Not checked are the links themselves, the ids and the
 * numbers of vectors, which mean nothing before they are compared with rows.
 *
 * Memory: the sizes of the lists. Threads: any. Failure: a sentence with the offset. */
#include "index/faiss_file.h"

#include <stdio.h>

#include "base/bytes.h"

enum { WIDTH_MAX = 64 * 1024 };

struct reader {
    struct cursor c;
    const uint8_t *data;
    struct faiss_file *out;
};

struct header {
    char type[5];
    uint32_t dim;
    uint64_t n;
    bool inner_product;
};

static enum err broken(const struct reader *r, const char *what, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_INVALID, "the FAISS file cannot be read: %s, at byte %zu", what,
                   (size_t)(r->c.p - r->data));
}

static enum err ended(const struct reader *r, struct err_ctx *ctx)
{
    return broken(r, "it ends too early", ctx);
}

/* `n` elements of `size` bytes; NULL when fewer are left. */
static const uint8_t *take(struct reader *r, uint64_t n, size_t size)
{
    uint64_t left = (uint64_t)(r->c.end - r->c.p);
    if (r->c.failed || n > left / size) {
        r->c.failed = true;
        return NULL;
    }
    return cursor_take(&r->c, n * size);
}

static enum err read_type(struct reader *r, struct header *h, struct err_ctx *ctx)
{
    const void *type = take(r, 4, 1);
    if (!type)
        return ended(r, ctx);
    memcpy(h->type, type, 4);
    for (int i = 0; i < 4; i++) {
        if (h->type[i] < 32 || h->type[i] > 126)
            return broken(r, "it does not begin as an index of FAISS", ctx);
    }
    return ERR_OK;
}

static enum err read_header(struct reader *r, struct header *h, struct err_ctx *ctx)
{
    h->dim = cursor_u32(&r->c);
    h->n = cursor_u64(&r->c);
    take(r, 2, 8);
    uint8_t trained = cursor_u8(&r->c);
    uint32_t metric = cursor_u32(&r->c);
    if (r->c.failed)
        return ended(r, ctx);
    if (h->dim < 1 || h->dim > DIM_MAX || h->n > INT32_MAX || trained > 1)
        return broken(r, "impossible dimension or number of vectors", ctx);
    if (metric > 1)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the FAISS file's metric has number %u: 0 (inner product) and 1 (l2) are "
                       "taken",
                       metric);
    h->inner_product = metric == 0;
    return ERR_OK;
}

/* A flat index of n vectors; *out its floats. */
static enum err read_flat(struct reader *r, uint64_t n, const uint8_t **out, struct err_ctx *ctx)
{
    struct header h = {0};
    RETURN_NOT_OK(read_type(r, &h, ctx));
    bool flat = memcmp(h.type, "IxF", 3) == 0 && strchr("2Il", h.type[3]);
    if (!flat)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "within the FAISS file stands an index of type %s where vectors as they "
                       "are (IxF2, IxFI) are taken",
                       h.type);
    RETURN_NOT_OK(read_header(r, &h, ctx));
    uint64_t floats = cursor_u64(&r->c);
    if (r->c.failed)
        return ended(r, ctx);
    if (h.n != n || h.dim != r->out->dim || floats != n * h.dim)
        return broken(r, "its vectors do not match their number", ctx);
    *out = take(r, floats, sizeof(float));
    return *out ? ERR_OK : ended(r, ctx);
}

/* ---- hnsw ---- */

static enum err read_widths(struct reader *r, struct err_ctx *ctx)
{
    uint64_t n = cursor_u64(&r->c);
    if (r->c.failed || n > FAISS_LEVELS_MAX)
        return broken(r, "too many layers", ctx);
    take(r, n, sizeof(double));
    n = cursor_u64(&r->c);
    if (r->c.failed || n < 2 || n > FAISS_LEVELS_MAX + 1)
        return broken(r, "too many layers", ctx);
    uint32_t *widths = r->out->widths;
    for (uint64_t i = 0; i < n; i++)
        widths[i] = cursor_u32(&r->c);
    uint32_t m = r->out->m = widths[1] / 2;
    bool regular = !r->c.failed && widths[0] == 0 && m >= 1 && widths[1] == 2 * m;
    for (uint64_t i = 2; i < n; i++)
        regular = regular && widths[i] == widths[i - 1] + m && widths[i] <= WIDTH_MAX;
    r->out->layers = (uint32_t)n - 1; /* the most; what is used comes at the end */
    return regular && widths[1] <= WIDTH_MAX ? ERR_OK
                                             : broken(r, "irregular numbers of links", ctx);
}

/* Where the links of each node start must be where those of the one before end. */
static enum err read_nodes(struct reader *r, struct err_ctx *ctx)
{
    struct faiss_file *f = r->out;
    uint64_t n = cursor_u64(&r->c), sum = 0;
    f->node_layers = n == f->n ? take(r, n, sizeof(int32_t)) : NULL;
    if (!f->node_layers)
        return broken(r, "the layers do not match the number of nodes", ctx);
    n = cursor_u64(&r->c);
    const uint8_t *offsets = n == f->n + 1ull ? take(r, n, sizeof(uint64_t)) : NULL;
    if (!offsets)
        return broken(r, "the offsets do not match the number of nodes", ctx);
    for (uint32_t i = 0; i < f->n; i++) {
        int32_t layers = faiss_i32(f->node_layers, i);
        if (layers < 1 || (uint32_t)layers > f->layers || faiss_i64(offsets, i) != (int64_t)sum)
            return broken(r, "a node has impossible layers or links", ctx);
        sum += f->widths[layers];
    }
    n = cursor_u64(&r->c);
    f->links = n == sum ? take(r, n, sizeof(int32_t)) : NULL;
    return f->links ? ERR_OK : broken(r, "the links do not match the layers", ctx);
}

static enum err read_entry(struct reader *r, struct err_ctx *ctx)
{
    struct faiss_file *f = r->out;
    uint32_t entry = cursor_u32(&r->c), top = cursor_u32(&r->c);
    f->ef_construction = cursor_u32(&r->c);
    take(r, 2, sizeof(int32_t));
    if (r->c.failed)
        return ended(r, ctx);
    if (entry >= f->n || top >= f->layers || faiss_i32(f->node_layers, entry) != (int32_t)top + 1)
        return broken(r, "impossible entry point", ctx);
    f->entry = entry;
    f->layers = top + 1;
    for (uint32_t i = 0; i < f->n; i++) {
        if (faiss_i32(f->node_layers, i) > (int32_t)f->layers)
            return broken(r, "a node is taller than the entry point", ctx);
    }
    return ERR_OK;
}

static enum err read_graph(struct reader *r, struct err_ctx *ctx)
{
    r->out->kind = INDEX_HNSW;
    RETURN_NOT_OK(read_widths(r, ctx));
    RETURN_NOT_OK(read_nodes(r, ctx));
    RETURN_NOT_OK(read_entry(r, ctx));
    return read_flat(r, r->out->n, &r->out->vectors, ctx);
}

/* ---- ivf ---- */

/* A direct map is of no use here: an array, or a table of pairs. */
static enum err skip_direct_map(struct reader *r, struct err_ctx *ctx)
{
    uint8_t type = cursor_u8(&r->c);
    take(r, cursor_u64(&r->c), sizeof(int64_t));
    if (type == 2)
        take(r, cursor_u64(&r->c), 2 * sizeof(int64_t));
    return r->c.failed || type > 2 ? broken(r, "a direct map that is none", ctx) : ERR_OK;
}

static enum err set_size(struct reader *r, uint64_t list, uint64_t size, uint64_t *sum,
                         struct err_ctx *ctx)
{
    struct faiss_file *f = r->out;
    if (r->c.failed || list >= f->nlist || size > f->n - *sum || f->sizes[list])
        return broken(r, "the sizes of the lists do not add up", ctx);
    f->sizes[list] = (uint32_t)size;
    *sum += size;
    return ERR_OK;
}

static enum err read_sizes(struct reader *r, struct err_ctx *ctx)
{
    struct faiss_file *f = r->out;
    const uint8_t *type = take(r, 4, 1);
    uint64_t n = cursor_u64(&r->c), sum = 0;
    if (r->c.failed)
        return ended(r, ctx);
    bool full = memcmp(type, "full", 4) == 0, sparse = memcmp(type, "sprs", 4) == 0;
    if (full ? n != f->nlist : !sparse || n % 2 || n / 2 > f->nlist)
        return broken(r, "the sizes of the lists do not match their number", ctx);
    f->sizes = calloc(f->nlist, sizeof(uint32_t));
    if (!f->sizes)
        return err_no_memory(ctx, f->nlist * sizeof(uint32_t));
    for (uint64_t i = 0; i < (full ? n : n / 2); i++) {
        uint64_t list = full ? i : cursor_u64(&r->c);
        RETURN_NOT_OK(set_size(r, list, cursor_u64(&r->c), &sum, ctx));
    }
    return sum == f->n ? ERR_OK : broken(r, "the lists do not hold all vectors", ctx);
}

static enum err read_lists(struct reader *r, struct err_ctx *ctx)
{
    struct faiss_file *f = r->out;
    f->kind = INDEX_IVF;
    uint64_t nlist = cursor_u64(&r->c);
    cursor_u64(&r->c);
    if (r->c.failed || nlist < 1 || nlist > NLIST_MAX)
        return broken(r, "impossible number of lists", ctx);
    f->nlist = (uint32_t)nlist;
    RETURN_NOT_OK(read_flat(r, nlist, &f->centroids, ctx));
    RETURN_NOT_OK(skip_direct_map(r, ctx));
    const uint8_t *type = take(r, 4, 1);
    if (!type)
        return ended(r, ctx);
    if (memcmp(type, "ilar", 4) != 0)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the lists of the FAISS file are of type %.4s: those in the file itself "
                       "(ilar) are taken",
                       (const char *)type);
    uint64_t lists = cursor_u64(&r->c), bytes = cursor_u64(&r->c);
    if (r->c.failed || lists != nlist || bytes != f->dim * sizeof(float))
        return broken(r, "the lists do not match their number or dimension", ctx);
    RETURN_NOT_OK(read_sizes(r, ctx));
    f->lists = take(r, f->n, bytes + sizeof(int64_t));
    return f->lists ? ERR_OK : ended(r, ctx);
}

/* ---- the whole ---- */

static enum err unknown_type(const struct header *h, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_UNPROCESSABLE,
                   "the FAISS file holds an index of type %s: IndexHNSWFlat (IHNf) and "
                   "IndexIVFFlat (IwFl) are taken, alone or in IndexIDMap or IndexIDMap2",
                   h->type);
}

static enum err read_inner(struct reader *r, const struct header *h, struct err_ctx *ctx)
{
    struct faiss_file *f = r->out;
    if (h->n < 1)
        return err_set(ctx, ERR_UNPROCESSABLE, "the FAISS file holds no vectors");
    f->dim = h->dim;
    f->n = (uint32_t)h->n;
    f->inner_product = h->inner_product;
    return strcmp(h->type, "IHNf") == 0 ? read_graph(r, ctx) : read_lists(r, ctx);
}

static enum err read_ids(struct reader *r, struct err_ctx *ctx)
{
    struct faiss_file *f = r->out;
    uint64_t n = cursor_u64(&r->c);
    f->ids = n == f->n ? take(r, n, sizeof(int64_t)) : NULL;
    return f->ids ? ERR_OK : broken(r, "the ids do not match the number of vectors", ctx);
}

static bool is_taken(const char *type)
{
    return strcmp(type, "IHNf") == 0 || strcmp(type, "IwFl") == 0;
}

enum err faiss_file_read(const void *data, size_t len, struct faiss_file *out, struct err_ctx *ctx)
{
    *out = (struct faiss_file){0};
    if (len == 0)
        return err_set(ctx, ERR_INVALID, "the FAISS file cannot be read: it is empty");
    struct reader r = {.c = cursor_over(data, len), .data = data, .out = out};
    struct header outer = {0}, h = {0};
    RETURN_NOT_OK(read_type(&r, &outer, ctx));
    bool mapped = strcmp(outer.type, "IxMp") == 0 || strcmp(outer.type, "IxM2") == 0;
    if (mapped) {
        RETURN_NOT_OK(read_header(&r, &outer, ctx));
        RETURN_NOT_OK(read_type(&r, &h, ctx));
    } else {
        h = outer;
    }
    if (!is_taken(h.type))
        return unknown_type(&h, ctx);
    RETURN_NOT_OK(read_header(&r, &h, ctx));
    if (mapped && (outer.dim != h.dim || outer.n != h.n))
        return broken(&r, "its ids are for another number of vectors", ctx);
    RETURN_NOT_OK(read_inner(&r, &h, ctx));
    return mapped ? read_ids(&r, ctx) : ERR_OK;
}

void faiss_file_deinit(struct faiss_file *f)
{
    free(f->sizes);
    f->sizes = NULL;
}
