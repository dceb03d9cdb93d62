/* Writes FAISS's files (faiss/impl/index_write.cpp of release 1.7; later ones read them).
 *
 *   index header   i32 d, i64 ntotal, 2 x i64, u8 trained, i32 metric (0 inner product, 1 l2)
 *   flat           "IxF2" or "IxFI", header, u64 floats, the floats
 *
 *   hnsw   "IxM2", header ─ "IHNf", header ─ level probabilities, links by level ─ layers of each
 *          node ─ where its links start ─ links ─ entry, layers - 1, efConstruction, efSearch, beam
 *          ─ flat index of the vectors ─ ids
 *   ivf    "IwFl", header, u64 lists, u64 nprobe ─ flat index of the centroids ─ no direct map ─
 *          "ilar", u64 lists, u64 bytes of a vector, "full", sizes ─ list by list: vectors, ids
 *
 * A file is a row of steps, a step a row of items; each item is appended by itself, so a piece ends
 * at any of them and nothing of the file is held. The length follows from the shape.
 *
 * Inverted lists for cosine: ours are chosen by the Euclidean distance of vectors of length 1, so
 * the centroids are an L2 index; for ip by the product with them.
 *
 * Threads: one at a time. Failure: ERR_CONFLICT, ERR_CORRUPT before the first byte; no memory. */
#include "index/faiss_export.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/epoch.h"
#include "index/ann_format.h"
#include "index/indexer_internal.h"
#include "index/ivf.h"
#include "index/search_internal.h"
#include "store/segment_span.h"

enum {
    HEADER_BYTES = 4 + 4 + 8 + 8 + 8 + 1 + 4, /* with its four letters */
    EF_SEARCH = 128,
    LEVELS_MAX = 63,
    REVISION = 1
};

/* `items` of a step, and what appends one of them. */
struct step {
    uint64_t (*items)(const struct faiss_export *e);
    void (*put)(struct faiss_export *e, uint64_t item, struct buf *out);
};

struct faiss_export {
    struct snapshot *snapshot;
    const struct segment *segment;
    struct ann_file *a;
    struct hash128 hash;
    uint64_t bytes, at, from, to; /* the next byte that is made; the part that is asked for */
    const struct step *steps;
    uint64_t item;
    uint32_t tall;   /* the next node with upper layers, from the one of the item on */
    uint64_t offset; /* of the links of the item's node */
    uint32_t list;   /* that holds the item */
    uint32_t levels; /* widths and probabilities in the file */
    float *vector;
};

/* ---- parts that both kinds have ---- */

static bool inner_product(const struct faiss_export *e)
{
    return e->a->shape.metric != DIST_L2;
}

static void put_header(const struct faiss_export *e, const char *letters, uint64_t n, bool ip,
                       struct buf *out)
{
    buf_put(out, letters, 4);
    buf_put_u32(out, e->a->shape.dim);
    buf_put_u64(out, n);
    buf_put_u64(out, 1 << 20); /* FAISS writes these two, and skips them */
    buf_put_u64(out, 1 << 20);
    buf_put_u8(out, 1);
    buf_put_u32(out, ip ? 0 : 1);
}

static void put_flat(const struct faiss_export *e, uint64_t n, bool ip, struct buf *out)
{
    put_header(e, ip ? "IxFI" : "IxF2", n, ip, out);
    buf_put_u64(out, n * e->a->shape.dim);
}

static void put_vector(struct faiss_export *e, uint64_t node, struct buf *out)
{
    graph_vector(e->segment, ann_row(e->a, (uint32_t)node), e->vector);
    buf_put(out, e->vector, e->a->shape.dim * sizeof(float));
}

static void put_id(struct faiss_export *e, uint64_t node, struct buf *out)
{
    uint32_t row = ann_row(e->a, (uint32_t)node);
    bool keys = e->segment->schema->key == KEY_INT64;
    buf_put_u64(out, keys ? (uint64_t)segment_key_int(e->segment, row) : row);
}

static uint64_t one(const struct faiss_export *e)
{
    (void)e;
    return 1;
}

static uint64_t nodes(const struct faiss_export *e)
{
    return e->a->shape.nodes;
}

/* ---- hnsw ---- */

static uint64_t links_total(const struct faiss_export *e)
{
    return ((uint64_t)e->a->shape.nodes * 2 + e->a->upper_lists) * e->a->shape.m;
}

/* How probable FAISS takes a node of level `l` to be (HNSW::set_default_probas). */
static double probability(uint32_t m, uint32_t l)
{
    double mult = 1 / log(m);
    return exp(-(double)l / mult) * (1 - exp(-1 / mult));
}

static uint32_t count_levels(const struct ann_file *a)
{
    uint32_t n = 0;
    while (n < LEVELS_MAX && probability(a->shape.m, n) >= 1e-9)
        n++;
    return n < a->layers ? a->layers : n;
}

static void put_graph_head(struct faiss_export *e, uint64_t item, struct buf *out)
{
    uint32_t m = e->a->shape.m;
    (void)item;
    put_header(e, "IxM2", e->a->shape.nodes, inner_product(e), out);
    put_header(e, "IHNf", e->a->shape.nodes, inner_product(e), out);
    buf_put_u64(out, e->levels);
    for (uint32_t l = 0; l < e->levels; l++) {
        double p = probability(m, l);
        buf_put(out, &p, sizeof(p));
    }
    buf_put_u64(out, e->levels + 1ull);
    for (uint32_t l = 0; l <= e->levels; l++)
        buf_put_u32(out, l == 0 ? 0 : (l + 1) * m);
    buf_put_u64(out, e->a->shape.nodes);
}

/* Upper lists of a node; called for each in order from node 0 on. */
static uint32_t upper_lists(struct faiss_export *e, uint32_t node)
{
    const struct ann_file *a = e->a;
    if (node == 0 || e->tall <= node)
        e->tall = node + 1;
    if (a->upper_at[node] == ANN_NONE)
        return 0;
    while (e->tall < a->shape.nodes && a->upper_at[e->tall] == ANN_NONE)
        e->tall++;
    uint32_t end = e->tall < a->shape.nodes ? a->upper_at[e->tall] : a->upper_lists;
    return end - a->upper_at[node];
}

static void put_layers(struct faiss_export *e, uint64_t node, struct buf *out)
{
    buf_put_u32(out, upper_lists(e, (uint32_t)node) + 1);
}

static uint64_t nodes_and_one(const struct faiss_export *e)
{
    return e->a->shape.nodes + 1ull;
}

static void put_offset(struct faiss_export *e, uint64_t node, struct buf *out)
{
    if (node == 0) {
        buf_put_u64(out, nodes_and_one(e));
        e->offset = 0;
    }
    buf_put_u64(out, e->offset);
    if (node < e->a->shape.nodes)
        e->offset += (2ull + upper_lists(e, (uint32_t)node)) * e->a->shape.m;
}

static void put_links(struct faiss_export *e, uint64_t node, struct buf *out)
{
    const struct ann_file *a = e->a;
    uint32_t m = a->shape.m, lists = upper_lists(e, (uint32_t)node);
    if (node == 0)
        buf_put_u64(out, links_total(e));
    buf_put(out, a->links + node * 2 * m, 2 * m * sizeof(uint32_t));
    if (lists > 0)
        buf_put(out, a->upper + (size_t)a->upper_at[node] * m, lists * m * sizeof(uint32_t));
}

static void put_entry(struct faiss_export *e, uint64_t item, struct buf *out)
{
    (void)item;
    buf_put_u32(out, e->a->entry);
    buf_put_u32(out, e->a->layers - 1);
    buf_put_u32(out, e->a->shape.ef_construction);
    buf_put_u32(out, EF_SEARCH);
    buf_put_u32(out, 1);
    put_flat(e, e->a->shape.nodes, inner_product(e), out);
}

static void put_map(struct faiss_export *e, uint64_t node, struct buf *out)
{
    if (node == 0)
        buf_put_u64(out, e->a->shape.nodes);
    put_id(e, node, out);
}

static const struct step graph_steps[] = {
    {one, put_graph_head}, {nodes, put_layers}, {nodes_and_one, put_offset},
    {nodes, put_links},    {one, put_entry},    {nodes, put_vector},
    {nodes, put_map},      {NULL, NULL}};

static uint64_t graph_bytes(const struct faiss_export *e)
{
    uint64_t n = e->a->shape.nodes, levels = e->levels;
    uint64_t head = 2 * HEADER_BYTES + 8 + levels * 8 + 8 + (levels + 1) * 4 + 8;
    uint64_t graph = n * 4 + 8 + (n + 1) * 8 + 8 + links_total(e) * 4 + 5 * 4;
    return head + graph + HEADER_BYTES + 8 + n * e->a->shape.dim * sizeof(float) + 8 + n * 8;
}

/* What the steps above rely on beyond what an open file is: the upper lists of one tall node follow
 * those of the one before, as many as it has layers. */
static bool graph_sound(const struct ann_file *a)
{
    uint32_t at = 0, least = 0; /* of the next tall node */
    for (uint32_t i = 0; i < a->shape.nodes; i++) {
        uint32_t here = a->upper_at[i];
        if (here == ANN_NONE)
            continue;
        if (here < least || here >= a->upper_lists || here - at >= a->layers)
            return false;
        at = here;
        least = here + 1;
    }
    return a->upper_lists - at < a->layers;
}

/* ---- ivf ---- */

static bool centroids_by_product(const struct faiss_export *e)
{
    return e->a->shape.metric == DIST_IP;
}

static void put_lists_head(struct faiss_export *e, uint64_t item, struct buf *out)
{
    (void)item;
    put_header(e, "IwFl", e->a->shape.nodes, inner_product(e), out);
    buf_put_u64(out, e->a->shape.nlist);
    buf_put_u64(out, ivf_nprobe_default(e->a->shape.nlist));
    put_flat(e, e->a->shape.nlist, centroids_by_product(e), out);
}

static uint64_t lists(const struct faiss_export *e)
{
    return e->a->shape.nlist;
}

static void put_centroid(struct faiss_export *e, uint64_t list, struct buf *out)
{
    size_t dim = e->a->shape.dim;
    buf_put(out, e->a->centroids + list * dim, dim * sizeof(float));
}

static void put_size(struct faiss_export *e, uint64_t list, struct buf *out)
{
    const struct ann_file *a = e->a;
    if (list == 0) {
        buf_put_u8(out, 0); /* no direct map */
        buf_put_u64(out, 0);
        buf_put(out, "ilar", 4);
        buf_put_u64(out, a->shape.nlist);
        buf_put_u64(out, a->shape.dim * sizeof(float));
        buf_put(out, "full", 4);
        buf_put_u64(out, a->shape.nlist);
    }
    buf_put_u64(out, a->lists_at[list + 1] - a->lists_at[list]);
}

static uint64_t twice_nodes(const struct faiss_export *e)
{
    return 2ull * e->a->shape.nodes;
}

/* The vectors of a list, then its ids: items [2 at, at + next) and [at + next, 2 next). */
static void put_entry_of_list(struct faiss_export *e, uint64_t item, struct buf *out)
{
    const uint32_t *at = e->a->lists_at;
    if (item == 0)
        e->list = 0;
    while (item >= 2ull * at[e->list + 1])
        e->list++;
    uint64_t first = at[e->list], next = at[e->list + 1];
    if (item < first + next)
        put_vector(e, item - first, out);
    else
        put_id(e, item - next, out);
}

static const struct step lists_steps[] = {{one, put_lists_head},
                                          {lists, put_centroid},
                                          {lists, put_size},
                                          {twice_nodes, put_entry_of_list},
                                          {NULL, NULL}};

static uint64_t lists_bytes(const struct faiss_export *e)
{
    uint64_t vector = e->a->shape.dim * sizeof(float), nlist = e->a->shape.nlist;
    uint64_t head = 2 * HEADER_BYTES + 8 + 8 + 8 + nlist * vector;
    return head + 1 + 8 + 4 + 8 + 8 + 4 + 8 + nlist * 8 + e->a->shape.nodes * (vector + 8);
}

/* ---- what is exported ---- */

static enum err not_one(const struct collection *c, const char *why, struct err_ctx *ctx)
{
    const char *name = collection_name(c);
    return err_set(ctx, ERR_CONFLICT,
                   "the index of %s is no single structure over its rows: %s. POST "
                   "/v1/collections/%s/compact makes one segment of them; once GET "
                   "/v1/collections/%s/index says \"ready\", ask again",
                   name, why, name, name);
}

enum err faiss_export_view(const struct collection *c, const struct snapshot *s, uint32_t *view,
                           struct err_ctx *ctx)
{
    char why[128];
    uint32_t with_rows = 0, tails = 0;
    uint64_t dead = 0;
    if (s->schema->dim == 0)
        return err_set(ctx, ERR_UNPROCESSABLE, "the collection has no vectors, and so no index");
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        if (v->live == 0)
            continue;
        with_rows++;
        tails += v->segment->tail != NULL;
        dead += v->segment->rows > v->live && !v->segment->tail ? v->segment->rows - v->live : 0;
        *view = i;
    }
    if (with_rows == 0)
        return err_set(ctx, ERR_CONFLICT, "the collection is empty: there is no index of it");
    if (with_rows == 1 && tails == 0 && dead == 0)
        return ERR_OK;
    snprintf(why, sizeof(why), "it has %u segments, %u of them in memory, and %llu deleted rows",
             with_rows, tails, (unsigned long long)dead);
    return not_one(c, why, ctx);
}

static enum err open_structure(struct collection *c, struct faiss_export *e, struct err_ctx *ctx)
{
    char *path = ann_path(c, e->segment->id);
    if (!path)
        return err_no_memory(ctx, 64);
    enum err err = ann_file_open(path, &e->a, ctx);
    if (err == ERR_NOT_FOUND)
        err = err_set(ctx, ERR_CONFLICT,
                      "the rows of %s have no hnsw or ivf index (yet): GET "
                      "/v1/collections/%s/index says whether one is being built; set its kind "
                      "with POST there, wait for \"ready\", ask again",
                      collection_name(c), collection_name(c));
    if (err == ERR_OK)
        err = ann_file_check(e->a, collection_id(c), e->segment, ctx);
    if (err == ERR_OK)
        err = ann_file_verify(e->a, path, ctx);
    if (err == ERR_OK && e->a->shape.kind == INDEX_HNSW && !graph_sound(e->a))
        err = err_set(ctx, ERR_CORRUPT, "%s: its upper layers do not add up", path);
    free(path);
    return err;
}

/* The header of the file holds the checksums of all its sections. */
static enum err find_hash(const struct collection *c, struct faiss_export *e, struct err_ctx *ctx)
{
    struct buf b = {0};
    buf_put_u8(&b, REVISION);
    buf_put(&b, collection_id(c), 16);
    buf_put_u64(&b, e->snapshot->digest.lo);
    buf_put_u64(&b, e->snapshot->digest.hi);
    buf_put(&b, e->a->map, ANN_HEADER_MAX);
    enum err err = b.failed ? err_no_memory(ctx, b.len) : ERR_OK;
    if (err == ERR_OK)
        e->hash = hash128(b.data, b.len);
    buf_deinit(&b);
    return err;
}

static enum err prepare(struct collection *c, struct faiss_export *e, struct err_ctx *ctx)
{
    uint32_t view = 0;
    RETURN_NOT_OK(faiss_export_view(c, e->snapshot, &view, ctx));
    e->segment = e->snapshot->views[view].segment;
    RETURN_NOT_OK(open_structure(c, e, ctx));
    RETURN_NOT_OK(segment_verify_span(e->segment, 0, e->segment->rows - 1, SPAN_VECTORS, ctx));
    e->vector = malloc(e->a->shape.dim * sizeof(float));
    if (!e->vector)
        return err_no_memory(ctx, e->a->shape.dim * sizeof(float));
    bool graph = e->a->shape.kind == INDEX_HNSW;
    e->levels = graph ? count_levels(e->a) : 0;
    e->steps = graph ? graph_steps : lists_steps;
    e->bytes = graph ? graph_bytes(e) : lists_bytes(e);
    e->to = e->bytes;
    return find_hash(c, e, ctx);
}

enum err faiss_export_new(struct collection *c, struct faiss_export **out, struct err_ctx *ctx)
{
    struct faiss_export *e = calloc(1, sizeof(*e));
    if (!e)
        return err_no_memory(ctx, sizeof(*e));
    epoch_enter();
    e->snapshot = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    enum err err = prepare(c, e, ctx);
    if (err != ERR_OK) {
        faiss_export_free(e);
        return err;
    }
    *out = e;
    return ERR_OK;
}

void faiss_export_free(void *arg)
{
    struct faiss_export *e = arg;
    if (!e)
        return;
    ann_file_close(e->a);
    snapshot_release(e->snapshot);
    free(e->vector);
    free(e);
}

uint64_t faiss_export_version(const struct faiss_export *e)
{
    return e->snapshot->version;
}

uint64_t faiss_export_bytes(const struct faiss_export *e)
{
    return e->bytes;
}

uint32_t faiss_export_left_out(const struct faiss_export *e)
{
    return e->a->shape.twins;
}

struct hash128 faiss_export_hash(const struct faiss_export *e)
{
    return e->hash;
}

void faiss_export_part(struct faiss_export *e, uint64_t from, uint64_t to)
{
    e->from = from;
    e->to = to;
}

/* ---- pieces ---- */

/* The last n bytes of out are the next of the file: those outside the part go. */
static void keep_part(struct faiss_export *e, struct buf *out, size_t start)
{
    uint64_t n = out->len - start, before = e->at < e->from ? e->from - e->at : 0;
    before = before < n ? before : n;
    e->at += n;
    memmove(out->data + start, out->data + start + before, n - before);
    out->len -= before;
    uint64_t after = e->at > e->to ? e->at - e->to : 0, kept = out->len - start;
    out->len -= after < kept ? after : kept;
}

enum err faiss_export_fill(struct faiss_export *e, size_t bytes, struct buf *out, bool *end,
                           struct err_ctx *ctx)
{
    size_t start = out->len;
    while (e->steps->put && out->len - start < bytes && !out->failed) {
        if (e->item == e->steps->items(e)) {
            e->steps++;
            e->item = 0;
        } else {
            e->steps->put(e, e->item++, out);
        }
    }
    if (out->failed)
        return err_no_memory(ctx, bytes);
    keep_part(e, out, start);
    *end = !e->steps->put || e->at >= e->to;
    ASSERT(e->steps->put || e->at == e->bytes);
    return ERR_OK;
}
