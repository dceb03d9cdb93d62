/* Builds the inverted lists of a segment. (J. Sivic, A. Zisserman, "Video Google: A Text Retrieval
 * Approach to Object Matching in Videos", 2003: vectors are listed by their nearest centroid.)
 *
 *   segment (mapped) ─ sample, at most SAMPLE_PER_LIST vectors a list ─> k-means ─> centroids
 *        └─ all vectors, chunk by chunk ─> nearest centroid ─> counting sort ─> lists of rows
 *             └─ in the order of the lists ─> codes, where a sample says that they are good enough
 *
 * The sample takes one random row of each of as many equal stretches, so that a load sorted by
 * anything is sampled evenly. Vectors are of length 1 for cosine, as they are for l2 and ip; for
 * both of these they are scaled by a power of two meanwhile, so that no square overflows. Inner
 * product has no lists of its own: near vectors share a list, and a search goes by the inner
 * product with the centroids.
 *
 * In memory: the sample (half of --memory-bytes at most), the centroids, a chunk, and 8 bytes a
 * row. Progress counts distances: those of k-means are most of them.
 *
 * Threads: one, and those of FAISS and OpenBLAS. Failure: a sentence; everything is freed. */
#include "index/build_codes.h"
#include "index/build_internal.h"

#include <math.h>
#include <string.h>

#include "index/faiss_kmeans.h"
#include "index/ivf.h"

enum { SAMPLE_PER_LIST = 64, ITERATIONS = 10, CHUNK_BYTES = 16 << 20, CHUNK_ROWS = 16384 };

int omp_get_max_threads(void);

struct ivf_build {
    const struct build *build;
    struct ann_shape shape;
    struct faiss_kmeans *kmeans;
    uint32_t *with_vector; /* rows that have one, ascending; NULL: every row has */
    float *sample;
    uint32_t nsample;
    int exponent; /* vectors are multiplied by 2^-exponent */
    float *chunk;
    uint32_t chunk_rows;
    uint32_t *assigned; /* list per vector */
    float *centroids;
    uint32_t *lists_at, *rows;
    float *code_room;  /* lo and step */
    double work, done; /* in distances */
};

/* ---- rows ---- */

static enum err list_rows(struct ivf_build *v, struct err_ctx *ctx)
{
    const struct segment *s = v->build->segment;
    uint32_t n = 0;
    if (v->build->vectors == s->rows)
        return ERR_OK;
    RETURN_NOT_OK(build_allocate(&v->with_vector, v->build->vectors, sizeof(uint32_t), ctx));
    for (uint32_t row = 0; row < s->rows; row++) {
        if (!(segment_vector_nulls(s, row / 64) >> (row % 64) & 1))
            v->with_vector[n++] = row;
    }
    ASSERT(n == v->build->vectors);
    return ERR_OK;
}

static uint32_t row_at(const struct ivf_build *v, uint32_t i)
{
    return v->with_vector ? v->with_vector[i] : i;
}

static void scale(const struct ivf_build *v, float *vectors, size_t n)
{
    for (size_t i = 0; v->exponent && i < n * v->shape.dim; i++)
        vectors[i] = ldexpf(vectors[i], -v->exponent);
}

static void advance(struct ivf_build *v, double distances)
{
    v->done += distances;
    build_progress(v->done / v->work);
}

/* ---- k-means ---- */

static uint32_t sample_size(const struct ivf_build *v)
{
    uint64_t n = (uint64_t)v->shape.nlist * SAMPLE_PER_LIST, memory = v->build->args->memory_bytes;
    uint64_t fits = memory / 2 / (v->shape.dim * sizeof(float));
    if (memory && n > fits)
        n = fits > v->shape.nlist ? fits : v->shape.nlist;
    return n < v->build->vectors ? (uint32_t)n : v->build->vectors;
}

/* splitmix64's step: which row of a stretch stands for it. */
static uint64_t scramble(uint64_t i)
{
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void set_exponent(struct ivf_build *v)
{
    float largest = 0;
    for (size_t i = 0; i < (size_t)v->nsample * v->shape.dim; i++)
        largest = fmaxf(largest, fabsf(v->sample[i]));
    frexpf(largest, &v->exponent);
}

static enum err take_sample(struct ivf_build *v, struct err_ctx *ctx)
{
    uint64_t vectors = v->build->vectors;
    v->nsample = sample_size(v);
    RETURN_NOT_OK(build_allocate(&v->sample, v->nsample, v->shape.dim * sizeof(float), ctx));
    for (uint64_t i = 0; i < v->nsample; i++) {
        uint64_t from = i * vectors / v->nsample, to = (i + 1) * vectors / v->nsample;
        ASSERT(to > from); /* a sample has at most all vectors */
        uint32_t at = (uint32_t)(from + scramble(i) % (to - from));
        graph_vector(v->build->segment, row_at(v, at), v->sample + i * v->shape.dim);
    }
    set_exponent(v);
    scale(v, v->sample, v->nsample);
    return ERR_OK;
}

static enum err find_centroids(struct ivf_build *v, struct err_ctx *ctx)
{
    double distances = (double)v->nsample * v->shape.nlist;
    v->work = distances * ITERATIONS + (double)v->build->vectors * v->shape.nlist;
    RETURN_NOT_OK(faiss_kmeans_new(v->shape.dim, v->shape.nlist, (unsigned)omp_get_max_threads(),
                                   &v->kmeans, ctx));
    build_progress(0);
    for (int i = 0; i < ITERATIONS; i++) {
        RETURN_NOT_OK(faiss_kmeans_iterate(v->kmeans, v->sample, v->nsample, ctx));
        advance(v, distances);
    }
    free(v->sample);
    v->sample = NULL;
    return ERR_OK;
}

/* ---- lists ---- */

static enum err assign(struct ivf_build *v, struct err_ctx *ctx)
{
    uint32_t vectors = v->build->vectors, dim = v->shape.dim;
    v->chunk_rows = CHUNK_BYTES / (dim * (uint32_t)sizeof(float));
    v->chunk_rows = v->chunk_rows > CHUNK_ROWS ? CHUNK_ROWS : v->chunk_rows;
    RETURN_NOT_OK(build_allocate(&v->chunk, v->chunk_rows, dim * sizeof(float), ctx));
    RETURN_NOT_OK(build_allocate(&v->assigned, vectors, sizeof(uint32_t), ctx));
    for (uint32_t first = 0, n; first < vectors; first += n) {
        n = vectors - first < v->chunk_rows ? vectors - first : v->chunk_rows;
        for (uint32_t i = 0; i < n; i++)
            graph_vector(v->build->segment, row_at(v, first + i), v->chunk + (size_t)i * dim);
        scale(v, v->chunk, n);
        RETURN_NOT_OK(faiss_kmeans_assign(v->kmeans, v->chunk, n, v->assigned + first, ctx));
        advance(v, (double)n * v->shape.nlist);
    }
    return ERR_OK;
}

static enum err take_centroids(struct ivf_build *v, struct err_ctx *ctx)
{
    size_t n = (size_t)v->shape.nlist * v->shape.dim;
    const float *scaled = faiss_kmeans_centroids(v->kmeans);
    RETURN_NOT_OK(build_allocate(&v->centroids, n, sizeof(float), ctx));
    for (size_t i = 0; i < n; i++)
        v->centroids[i] = ldexpf(scaled[i], v->exponent);
    return ERR_OK;
}

/* Counting sort: stable, so the rows of a list ascend. */
static enum err sort_rows(struct ivf_build *v, const uint32_t *assigned, struct err_ctx *ctx)
{
    uint32_t vectors = v->build->vectors, nlist = v->shape.nlist;
    RETURN_NOT_OK(build_allocate(&v->lists_at, nlist + 2ull, sizeof(uint32_t), ctx));
    RETURN_NOT_OK(build_allocate(&v->rows, vectors, sizeof(uint32_t), ctx));
    memset(v->lists_at, 0, (nlist + 2ull) * sizeof(uint32_t));
    uint32_t *next = v->lists_at + 1; /* becomes the start of each list, then its end */
    for (uint32_t i = 0; i < vectors; i++)
        next[assigned[i] + 1]++;
    for (uint32_t l = 0; l < nlist; l++)
        next[l + 1] += next[l];
    for (uint32_t i = 0; i < vectors; i++)
        v->rows[next[assigned[i]]++] = row_at(v, i);
    return ERR_OK;
}

static enum err write_lists(struct ivf_build *v, const float *centroids, const char *path,
                            struct err_ctx *ctx)
{
    const struct ann_lists lists = {centroids, v->lists_at, v->rows};
    const struct distinct nodes = {.nodes = v->shape.nodes, .rows = v->rows};
    struct ann_codes codes;
    RETURN_NOT_OK(build_codes(v->build->segment, &nodes, &v->code_room, &codes, ctx));
    return ann_file_write_ivf(v->build->io, path, &v->shape, &lists, &codes, ctx);
}

static enum err make_and_write(struct ivf_build *v, const char *path, struct err_ctx *ctx)
{
    const struct build *b = v->build;
    uint32_t asked = b->args->nlist ? (uint32_t)b->args->nlist : b->segment->schema->index.nlist;
    v->shape = build_shape(b);
    v->shape.builder = BUILDER_FAISS;
    v->shape.nodes = b->vectors;
    v->shape.nlist = ivf_nlist(asked, b->vectors);
    RETURN_NOT_OK(list_rows(v, ctx));
    RETURN_NOT_OK(take_sample(v, ctx));
    RETURN_NOT_OK(find_centroids(v, ctx));
    RETURN_NOT_OK(assign(v, ctx));
    RETURN_NOT_OK(take_centroids(v, ctx));
    RETURN_NOT_OK(sort_rows(v, v->assigned, ctx));
    return write_lists(v, v->centroids, path, ctx);
}

static enum err sort_and_write(struct ivf_build *v, const float *centroids,
                               const uint32_t *assigned, const char *path, struct err_ctx *ctx)
{
    RETURN_NOT_OK(list_rows(v, ctx));
    RETURN_NOT_OK(sort_rows(v, assigned, ctx));
    return write_lists(v, centroids, path, ctx);
}

static void deinit(struct ivf_build *v)
{
    faiss_kmeans_free(v->kmeans);
    free(v->with_vector);
    free(v->sample);
    free(v->chunk);
    free(v->assigned);
    free(v->centroids);
    free(v->code_room);
    free(v->lists_at);
    free(v->rows);
}

enum err build_ivf(const struct build *b, const char *path, struct err_ctx *ctx)
{
    struct ivf_build v = {.build = b};
    enum err e = make_and_write(&v, path, ctx);
    deinit(&v);
    return e;
}

enum err build_ivf_given(const struct build *b, const char *path, uint32_t nlist,
                         const float *centroids, const uint32_t *assigned, struct err_ctx *ctx)
{
    struct ivf_build v = {.build = b, .shape = build_shape(b)};
    v.shape.builder = BUILDER_FAISS;
    v.shape.nodes = b->vectors;
    v.shape.nlist = nlist;
    enum err e = sort_and_write(&v, centroids, assigned, path, ctx);
    deinit(&v);
    return e;
}
