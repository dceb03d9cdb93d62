/* HNSW search through FAISS, for bench/faiss_kernels.sh: linked once with our distance kernels in
 * place of FAISS's and once without, run on the same index file.
 *
 *   faiss_kernels build DATA QUERIES PREFIX    PREFIX.faiss (HNSW16,Flat), PREFIX.truth
 *   faiss_kernels search QUERIES PREFIX EF...  a line "ef recall@10 queries/s" for each EF
 *
 * DATA and QUERIES are u8bin files (i32 rows, i32 dim, then bytes) or "clustered:ROWS:DIM:SEED".
 * One query at a time, one thread. Failure: a sentence on standard error and exit status 1. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

#include "index/kernels.h"

enum { K = 10, CLUSTERS = 1000, SPREAD_PERCENT = 60 };

struct matrix {
    float *data;
    size_t rows;
    int dim;
};

_Noreturn static void die(const char *what, const char *why)
{
    fprintf(stderr, "faiss_kernels: %s: %s\n", what, why);
    exit(1);
}

static void check(int failed, const char *what)
{
    if (failed)
        die(what, faiss_get_last_error());
}

static void *allocate(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        die("allocating", "out of memory");
    return p;
}

static float normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*state >> 40) / (float)(1 << 24);
    }
    return sum - 6;
}

/* The centres depend on the dimension only, so that data and queries share them. */
static struct matrix clustered(size_t rows, int dim, uint64_t seed)
{
    struct matrix m = {allocate(rows * (size_t)dim, sizeof(float)), rows, dim};
    float *centres = allocate(CLUSTERS * (size_t)dim, sizeof(float));
    uint64_t state = 99;
    for (size_t i = 0; i < CLUSTERS * (size_t)dim; i++)
        centres[i] = normal(&state);
    state = seed;
    for (size_t i = 0; i < rows; i++) {
        normal(&state);
        const float *c = centres + (state >> 33) % CLUSTERS * (size_t)dim;
        for (int j = 0; j < dim; j++)
            m.data[i * (size_t)dim + j] = c[j] + SPREAD_PERCENT * 0.01f * normal(&state);
    }
    free(centres);
    return m;
}

static struct matrix read_u8bin(const char *path)
{
    int32_t head[2];
    FILE *f = fopen(path, "rb");
    if (!f || fread(head, sizeof(head), 1, f) != 1 || head[0] < 1 || head[1] < 1)
        die(path, "not a u8bin file");
    size_t n = (size_t)head[0] * (size_t)head[1];
    uint8_t *bytes = allocate(n, 1);
    if (fread(bytes, 1, n, f) != n)
        die(path, "shorter than its header says");
    fclose(f);
    struct matrix m = {allocate(n, sizeof(float)), (size_t)head[0], head[1]};
    for (size_t i = 0; i < n; i++)
        m.data[i] = bytes[i];
    free(bytes);
    return m;
}

static struct matrix load(const char *what)
{
    unsigned long rows, dim, seed;
    if (sscanf(what, "clustered:%lu:%lu:%lu", &rows, &dim, &seed) == 3)
        return clustered(rows, (int)dim, seed);
    return read_u8bin(what);
}

static const char *name(const char *prefix, const char *suffix)
{
    static char path[4096];
    snprintf(path, sizeof(path), "%s.%s", prefix, suffix);
    return path;
}

static void set(FaissIndex *index, const char *parameter, double value)
{
    FaissParameterSpace *space;
    check(faiss_ParameterSpace_new(&space), "parameter space");
    check(faiss_ParameterSpace_set_index_parameter(space, index, parameter, value), parameter);
    faiss_ParameterSpace_free(space);
}

static void build(const char *data, const char *queries, const char *prefix)
{
    struct matrix base = load(data), q = load(queries);
    FaissIndex *hnsw, *flat;
    check(faiss_index_factory(&hnsw, base.dim, "HNSW16,Flat", METRIC_L2), "making the index");
    set(hnsw, "efConstruction", 200);
    check(faiss_Index_add(hnsw, (idx_t)base.rows, base.data), "building the index");
    check(faiss_write_index_fname(hnsw, name(prefix, "faiss")), "writing the index");
    check(faiss_index_factory(&flat, base.dim, "Flat", METRIC_L2), "making the flat index");
    check(faiss_Index_add(flat, (idx_t)base.rows, base.data), "filling the flat index");
    float *distances = allocate(q.rows * K, sizeof(float));
    idx_t *labels = allocate(q.rows * K, sizeof(idx_t));
    check(faiss_Index_search(flat, (idx_t)q.rows, q.data, K, distances, labels), "exact search");
    FILE *f = fopen(name(prefix, "truth"), "wb");
    if (!f || fwrite(labels, sizeof(idx_t) * K, q.rows, f) != q.rows || fclose(f) != 0)
        die(name(prefix, "truth"), "cannot be written");
    free(distances);
    free(labels);
    faiss_Index_free(hnsw);
    faiss_Index_free(flat);
    free(base.data);
    free(q.data);
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static size_t common(const idx_t *a, const idx_t *b)
{
    size_t n = 0;
    for (int i = 0; i < K; i++) {
        for (int j = 0; j < K; j++)
            n += a[i] == b[j];
    }
    return n;
}

static void search_at(FaissIndex *index, const struct matrix *q, const idx_t *truth, double ef)
{
    float distances[K];
    idx_t labels[K];
    size_t found = 0;
    set(index, "efSearch", ef);
    double start_s = cpu_s();
    for (size_t i = 0; i < q->rows; i++) {
        check(faiss_Index_search(index, 1, q->data + i * (size_t)q->dim, K, distances, labels),
              "searching");
        found += common(labels, truth + i * K);
    }
    double took_s = cpu_s() - start_s;
    printf("%g %.4f %.0f\n", ef, (double)found / (double)(q->rows * K), (double)q->rows / took_s);
}

static void search(const char *queries, const char *prefix, char **efs, int n)
{
    struct matrix q = load(queries);
    FaissIndex *index;
    idx_t *truth = allocate(q.rows * K, sizeof(idx_t));
    FILE *f = fopen(name(prefix, "truth"), "rb");
    if (!f || fread(truth, sizeof(idx_t) * K, q.rows, f) != q.rows)
        die(name(prefix, "truth"), "cannot be read");
    fclose(f);
    check(faiss_read_index_fname(name(prefix, "faiss"), 0, &index), "reading the index");
    for (int i = 0; i < n; i++)
        search_at(index, &q, truth, strtod(efs[i], NULL));
    faiss_Index_free(index);
    free(truth);
    free(q.data);
}

int main(int argc, char **argv)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    if (kernels_init(&ctx) != ERR_OK)
        die("kernels", ctx.detail);
    if (argc == 5 && strcmp(argv[1], "build") == 0)
        build(argv[2], argv[3], argv[4]);
    else if (argc >= 5 && strcmp(argv[1], "search") == 0)
        search(argv[2], argv[3], argv + 4, argc - 4);
    else
        die("usage", "build DATA QUERIES PREFIX | search QUERIES PREFIX EF...");
    return 0;
}
