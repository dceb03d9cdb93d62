/* Makes the structure of a segment from a file of FAISS that was built elsewhere.
 *
 *   file (mapped) ─ faiss_file_read ─ dim, metric, count, m or lists: as the segment's?
 *        └─ each vector ─ its id ─> row: is it that row's vector?
 *             ├─ graph: nodes in the order of their rows, links renumbered ─┐
 *             └─ lists: the list of each row ─ build_ivf.c ─────────────────┴─> file, codes and all
 *
 * Ids are keys where those are int64, else places of rows in the collection's exports; a graph that
 * has none counts the rows with a vector. It may hold every row with a vector, or each distinct
 * vector once, as exports do (faiss_export.h).
 *
 * Vectors must be equal; for cosine, equal at length 1 within what float loses on the way.
 *
 * In memory: 21 bytes a row. Threads: one. Failure: ERR_INVALID for a file that does not read,
 * ERR_UNPROCESSABLE where file and rows differ, both sides named. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index/build_codes.h"
#include "index/build_internal.h"
#include "index/faiss_file.h"

#define COSINE_ERROR 1e-4f /* of an element at length 1 */

struct import {
    const struct build *build;
    const struct segment *segment;
    const uint8_t *map;
    size_t map_len;
    struct faiss_file file;
    struct distinct rows;  /* of the nodes that the structure gets */
    uint32_t *row_of;      /* of a vector of the file */
    uint32_t *node_of_row; /* ANN_NONE: not a node's */
    uint32_t *old;         /* vector of the file of a node; ANN_NONE: not met yet */
    uint64_t *starts;      /* of the links of a vector's node */
    uint8_t *layers;       /* per node */
    uint32_t *links;       /* of a node, renumbered */
    float *norms, *code_room;
};

static enum err open_file(struct import *m, struct err_ctx *ctx)
{
    const char *path = m->build->args->import;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        enum err e = err_system(ctx, errno, "cannot open %s", path);
        if (fd >= 0)
            close(fd);
        return e;
    }
    m->map_len = (size_t)st.st_size;
    void *map = m->map_len ? mmap(NULL, m->map_len, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int failed = map == MAP_FAILED ? errno : 0;
    close(fd);
    if (failed)
        return err_system(ctx, failed, "cannot map %s", path);
    m->map = map;
    return faiss_file_read(m->map, m->map_len, &m->file, ctx);
}

/* ---- file and collection ---- */

static const char *kind_in_faiss(enum index_kind kind)
{
    return kind == INDEX_IVF ? "IndexIVFFlat" : "IndexHNSWFlat";
}

static enum err check_shape(const struct import *m, struct err_ctx *ctx)
{
    const struct faiss_file *f = &m->file;
    const struct build_args *args = m->build->args;
    const struct schema *s = m->segment->schema;
    if (f->kind != args->kind)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the file holds an %s, and the collection's index is of kind %s",
                       kind_in_faiss(f->kind), index_kind_name(args->kind));
    if (f->dim != s->dim)
        return err_set(ctx, ERR_UNPROCESSABLE, "the file has dim %u, the collection dim %u", f->dim,
                       s->dim);
    bool fits = s->metric == DIST_COSINE || f->inner_product == (s->metric == DIST_IP);
    if (!fits)
        return err_set(ctx, ERR_UNPROCESSABLE, "the file's metric is %s, the collection's %s",
                       f->inner_product ? "inner product" : "l2", metric_name(s->metric));
    if (f->kind == INDEX_HNSW && f->m != args->m)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the file's graph has m %u (M of IndexHNSWFlat), the collection's index "
                       "settings m %llu",
                       f->m, (unsigned long long)args->m);
    if (f->kind == INDEX_IVF && f->nlist != args->nlist)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the file has %u lists, the collection's index settings %llu", f->nlist,
                       (unsigned long long)args->nlist);
    return ERR_OK;
}

/* ---- nodes ---- */

static bool has_vector(const struct segment *s, uint32_t row)
{
    return !(segment_vector_nulls(s, row / 64) >> (row % 64) & 1);
}

static enum err every_row(struct import *m, struct err_ctx *ctx)
{
    const struct segment *s = m->segment;
    uint32_t n = 0, vectors = m->build->vectors;
    m->rows.nodes = vectors;
    if (vectors == s->rows)
        return ERR_OK;
    RETURN_NOT_OK(build_allocate(&m->rows.rows, vectors, sizeof(uint32_t), ctx));
    for (uint32_t row = 0; row < s->rows; row++) {
        if (has_vector(s, row))
            m->rows.rows[n++] = row;
    }
    ASSERT(n == vectors);
    return ERR_OK;
}

static enum err find_nodes(struct import *m, struct err_ctx *ctx)
{
    const struct faiss_file *f = &m->file;
    uint32_t vectors = m->build->vectors;
    if (f->n == vectors)
        return every_row(m, ctx);
    if (f->kind == INDEX_HNSW) {
        RETURN_NOT_OK(distinct_find(m->segment, vectors, &m->rows, ctx));
        if (f->n == m->rows.nodes)
            return ERR_OK;
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the file holds %u vectors; the collection has %u rows with a vector (%u "
                       "distinct)",
                       f->n, vectors, m->rows.nodes);
    }
    return err_set(ctx, ERR_UNPROCESSABLE,
                   "the file holds %u vectors; the collection has %u rows with a vector", f->n,
                   vectors);
}

static uint32_t row_at(const struct import *m, uint32_t node)
{
    return m->rows.rows ? m->rows.rows[node] : node;
}

static enum err number_rows(struct import *m, struct err_ctx *ctx)
{
    uint32_t rows = m->segment->rows, nodes = m->rows.nodes;
    RETURN_NOT_OK(build_allocate(&m->node_of_row, rows, sizeof(uint32_t), ctx));
    RETURN_NOT_OK(build_allocate(&m->row_of, nodes, sizeof(uint32_t), ctx));
    RETURN_NOT_OK(build_allocate(&m->old, nodes, sizeof(uint32_t), ctx));
    memset(m->node_of_row, 0xff, rows * sizeof(uint32_t));
    memset(m->old, 0xff, nodes * sizeof(uint32_t));
    for (uint32_t node = 0; node < nodes; node++)
        m->node_of_row[row_at(m, node)] = node;
    return ERR_OK;
}

/* ---- vectors ---- */

/* The row that an id names. */
static enum err find_row(const struct import *m, int64_t id, uint32_t *row, struct err_ctx *ctx)
{
    const struct segment *s = m->segment;
    bool keys = s->schema->key == KEY_INT64;
    uint64_t found = keys ? segment_find_int(s, id) : (uint64_t)id + 1;
    if (found == 0 || found > s->rows)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       keys
                           ? "the file has a vector with id %lld, which is no key of the collection"
                           : "the file has a vector with id %lld, and the collection no row at "
                             "that place of its exports",
                       (long long)id);
    *row = (uint32_t)found - 1;
    return ERR_OK;
}

static enum err differs(int64_t id, uint32_t element, double file, double row, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_UNPROCESSABLE,
                   "the vector with id %lld is not its row's: element %u is %.9g in the file and "
                   "%.9g in the row",
                   (long long)id, element, file, row);
}

/* At length 1 both. */
static enum err compare_directions(const struct import *m, int64_t id, const uint8_t *vector,
                                   const float *own, struct err_ctx *ctx)
{
    uint32_t dim = m->file.dim;
    double a = 0, b = 0;
    for (uint32_t j = 0; j < dim; j++) {
        float v;
        memcpy(&v, vector + j * sizeof(v), sizeof(v));
        a += (double)v * v;
        b += (double)own[j] * own[j];
    }
    if (!m->file.inner_product && !(fabs(a - 1) < 1e-3))
        return err_set(
            ctx, ERR_UNPROCESSABLE,
            "the file's metric is l2 and the collection's cosine: its vectors must be of "
            "length 1, and that with id %lld is of length %.6g",
            (long long)id, sqrt(a));
    for (uint32_t j = 0; j < dim; j++) {
        float v;
        memcpy(&v, vector + j * sizeof(v), sizeof(v));
        double x = v / sqrt(a), y = own[j] / sqrt(b);
        if (!(fabs(x - y) <= COSINE_ERROR))
            return differs(id, j, x, y, ctx);
    }
    return ERR_OK;
}

static enum err compare(const struct import *m, int64_t id, uint32_t row, const uint8_t *vector,
                        struct err_ctx *ctx)
{
    uint32_t dim = m->file.dim;
    const float *own = m->segment->vectors + (size_t)row * dim;
    if (m->segment->schema->metric == DIST_COSINE)
        return compare_directions(m, id, vector, own, ctx);
    for (uint32_t j = 0; j < dim; j++) {
        float v;
        memcpy(&v, vector + j * sizeof(v), sizeof(v));
        if (!(v == own[j]))
            return differs(id, j, v, own[j], ctx);
    }
    return ERR_OK;
}

/* Vector i of the file, called `id`, belongs to `row`. */
static enum err take_vector(struct import *m, uint32_t i, int64_t id, uint32_t row,
                            const uint8_t *vector, struct err_ctx *ctx)
{
    uint32_t node = m->node_of_row[row];
    if (node == ANN_NONE)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       has_vector(m->segment, row)
                           ? "the row with id %lld has the vector of an earlier one, which the "
                             "file must name instead"
                           : "the file has a vector with id %lld, and the row of that id has none",
                       (long long)id);
    if (m->old[node] != ANN_NONE)
        return err_set(ctx, ERR_UNPROCESSABLE, "the file has two vectors with id %lld",
                       (long long)id);
    m->old[node] = i;
    m->row_of[i] = row;
    if (i % 4096 == 4095)
        build_progress(0.5 * i / m->file.n);
    return compare(m, id, row, vector, ctx);
}

/* ---- a graph ---- */

static enum err take_nodes(struct import *m, struct err_ctx *ctx)
{
    const struct faiss_file *f = &m->file;
    uint32_t next = 0; /* of the rows with a vector, where there are no ids */
    for (uint32_t i = 0; i < f->n; i++) {
        int64_t id = f->ids ? faiss_i64(f->ids, i) : i;
        uint32_t row;
        if (f->ids)
            RETURN_NOT_OK(find_row(m, id, &row, ctx));
        else
            row = row_at(m, next++);
        RETURN_NOT_OK(
            take_vector(m, i, id, row, f->vectors + (size_t)i * f->dim * sizeof(float), ctx));
    }
    return ERR_OK;
}

static enum err place_links(struct import *m, struct err_ctx *ctx)
{
    const struct faiss_file *f = &m->file;
    uint64_t at = 0;
    RETURN_NOT_OK(build_allocate(&m->starts, f->n, sizeof(uint64_t), ctx));
    RETURN_NOT_OK(build_allocate(&m->layers, f->n, 1, ctx));
    RETURN_NOT_OK(build_allocate(&m->links, f->widths[f->layers], sizeof(uint32_t), ctx));
    for (uint32_t i = 0; i < f->n; i++) {
        m->starts[i] = at;
        at += f->widths[faiss_i32(f->node_layers, i)];
    }
    for (uint32_t node = 0; node < f->n; node++)
        m->layers[node] = (uint8_t)faiss_i32(f->node_layers, m->old[node]);
    return ERR_OK;
}

static enum err put_node(struct import *m, const struct graph_sink *sink, uint32_t node,
                         struct err_ctx *ctx)
{
    const struct faiss_file *f = &m->file;
    uint32_t width = f->widths[m->layers[node]];
    for (uint32_t j = 0; j < width; j++) {
        int32_t link = faiss_i32(f->links, m->starts[m->old[node]] + j);
        if (link < -1 || (link >= 0 && (uint32_t)link >= f->n))
            return err_set(ctx, ERR_INVALID,
                           "the FAISS file cannot be read: a link leads to node %d of %u", link,
                           f->n);
        m->links[j] = link < 0 ? ANN_NONE : m->node_of_row[m->row_of[link]];
    }
    return sink->node(sink->arg, node, m->links, ctx);
}

static enum err walk(void *arg, const struct graph_sink *sink, struct err_ctx *ctx)
{
    struct import *m = arg;
    const struct faiss_file *f = &m->file;
    RETURN_NOT_OK(sink->begin(sink->arg, f->n, f->m, m->layers, ctx));
    for (uint32_t node = 0; node < f->n; node++)
        RETURN_NOT_OK(put_node(m, sink, node, ctx));
    return sink->end(sink->arg, m->node_of_row[m->row_of[f->entry]], f->layers, ctx);
}

static enum err find_norms(struct import *m, struct err_ctx *ctx)
{
    if (m->segment->schema->metric != DIST_COSINE)
        return ERR_OK;
    float *vector = malloc(m->file.dim * sizeof(float));
    enum err e = vector ? build_allocate(&m->norms, m->file.n, sizeof(float), ctx)
                        : err_no_memory(ctx, m->file.dim * sizeof(float));
    for (uint32_t node = 0; e == ERR_OK && node < m->file.n; node++)
        m->norms[node] = (float)graph_vector(m->segment, row_at(m, node), vector);
    free(vector);
    return e;
}

static enum err write_graph(struct import *m, const char *path, struct err_ctx *ctx)
{
    struct ann_shape shape = build_shape(m->build);
    struct graph_source source = {m, walk};
    struct ann_codes codes;
    shape.nodes = m->rows.nodes;
    shape.twins = m->rows.ntwins;
    shape.m = m->file.m;
    /* What the settings ask for and a file does not tell: else it would be built anew at the next
     * start. */
    shape.ef_construction = (uint32_t)m->build->args->ef_construction;
    shape.builder = m->build->args->builder == BUILDER_NATIVE ? BUILDER_NATIVE : BUILDER_FAISS;
    RETURN_NOT_OK(take_nodes(m, ctx));
    RETURN_NOT_OK(place_links(m, ctx));
    RETURN_NOT_OK(find_norms(m, ctx));
    RETURN_NOT_OK(build_codes(m->segment, &m->rows, &m->code_room, &codes, ctx));
    return ann_file_write(m->build->io, path, &shape, &source, &m->rows, m->norms, &codes, ctx);
}

/* ---- lists ---- */

/* The id of a list's entry, by the map of an IndexIDMap around it. */
static enum err outer_id(const struct faiss_file *f, int64_t *id, struct err_ctx *ctx)
{
    if (!f->ids)
        return ERR_OK;
    if (*id < 0 || *id >= (int64_t)f->n)
        return err_set(ctx, ERR_INVALID,
                       "the FAISS file cannot be read: a list holds vector %lld of %u",
                       (long long)*id, f->n);
    *id = faiss_i64(f->ids, (uint64_t)*id);
    return ERR_OK;
}

static enum err take_list(struct import *m, uint32_t list, const uint8_t **at, uint32_t *i,
                          uint32_t *assigned, struct err_ctx *ctx)
{
    const struct faiss_file *f = &m->file;
    uint32_t size = f->sizes[list];
    size_t vector = f->dim * sizeof(float);
    const uint8_t *ids = *at + size * vector;
    for (uint32_t j = 0; j < size; j++) {
        int64_t id = faiss_i64(ids, j);
        uint32_t row;
        RETURN_NOT_OK(outer_id(f, &id, ctx));
        RETURN_NOT_OK(find_row(m, id, &row, ctx));
        RETURN_NOT_OK(take_vector(m, (*i)++, id, row, *at + j * vector, ctx));
        assigned[m->node_of_row[row]] = list;
    }
    *at = ids + size * sizeof(int64_t);
    return ERR_OK;
}

static enum err check_centroids(const float *centroids, size_t n, struct err_ctx *ctx)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(centroids[i]))
            return err_set(ctx, ERR_UNPROCESSABLE,
                           "the file's centroids hold a number that is not finite");
    }
    return ERR_OK;
}

static enum err take_lists(struct import *m, float *centroids, uint32_t *assigned, const char *path,
                           struct err_ctx *ctx)
{
    const struct faiss_file *f = &m->file;
    const uint8_t *at = f->lists;
    size_t floats = (size_t)f->nlist * f->dim;
    uint32_t i = 0;
    memcpy(centroids, f->centroids, floats * sizeof(float));
    RETURN_NOT_OK(check_centroids(centroids, floats, ctx));
    for (uint32_t list = 0; list < f->nlist; list++)
        RETURN_NOT_OK(take_list(m, list, &at, &i, assigned, ctx));
    return build_ivf_given(m->build, path, f->nlist, centroids, assigned, ctx);
}

static enum err write_lists(struct import *m, const char *path, struct err_ctx *ctx)
{
    const struct faiss_file *f = &m->file;
    float *centroids = NULL;
    uint32_t *assigned = NULL;
    enum err e = build_allocate(&centroids, f->nlist, f->dim * sizeof(float), ctx);
    if (e == ERR_OK)
        e = build_allocate(&assigned, f->n, sizeof(uint32_t), ctx);
    if (e == ERR_OK)
        e = take_lists(m, centroids, assigned, path, ctx);
    free(centroids);
    free(assigned);
    return e;
}

/* ---- the whole ---- */

static enum err run(struct import *m, const char *path, struct err_ctx *ctx)
{
    RETURN_NOT_OK(open_file(m, ctx));
    RETURN_NOT_OK(check_shape(m, ctx));
    RETURN_NOT_OK(find_nodes(m, ctx));
    RETURN_NOT_OK(number_rows(m, ctx));
    return m->file.kind == INDEX_IVF ? write_lists(m, path, ctx) : write_graph(m, path, ctx);
}

enum err build_import(const struct build *b, const char *path, struct err_ctx *ctx)
{
    struct import m = {.build = b, .segment = b->segment};
    enum err e = run(&m, path, ctx);
    if (m.map)
        munmap((void *)m.map, m.map_len);
    faiss_file_deinit(&m.file);
    distinct_deinit(&m.rows);
    free(m.row_of);
    free(m.node_of_row);
    free(m.old);
    free(m.starts);
    free(m.layers);
    free(m.links);
    free(m.norms);
    free(m.code_room);
    return e;
}
