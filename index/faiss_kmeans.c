/* k-means with FAISS.
 *
 * A Clustering object of one iteration keeps its centroids between two calls of train and goes on
 * from there: that is how progress is known between iterations. A flat index over the centroids
 * finds the nearest ones, by matrix products (BLAS).
 *
 * Builds run OpenBLAS on one thread by the environment, since FAISS's graphs call it from threads
 * of their own; k-means calls it from one, so it is given all of them here.
 *
 * Threads: one caller. Failure: the sentence of faiss_failed. */
#include "index/faiss_kmeans.h"

#include <stdlib.h>

#include <faiss/c_api/Clustering_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_factory_c.h>

#include "index/faiss_error.h"

enum { ASSIGN_BATCH = 4096 };

/* OpenBLAS's own; another BLAS is left as it is. */
void openblas_set_num_threads(int n) __attribute__((weak));

struct faiss_kmeans {
    FaissClustering *clustering;
    FaissIndex *centroids; /* searched */
    uint32_t k;
    float distances[ASSIGN_BATCH];
    idx_t labels[ASSIGN_BATCH];
};

static enum err new_clustering(uint32_t dim, uint32_t k, FaissClustering **out, struct err_ctx *ctx)
{
    FaissClusteringParameters p;
    faiss_ClusteringParameters_init(&p);
    p.niter = 1;
    p.verbose = 0;
    p.min_points_per_centroid = 1;
    p.max_points_per_centroid = INT32_MAX; /* the caller has sampled */
    if (faiss_Clustering_new_with_params(out, (int)dim, (int)k, &p))
        return faiss_failed("preparing k-means", ctx);
    return ERR_OK;
}

enum err faiss_kmeans_new(uint32_t dim, uint32_t k, unsigned threads, struct faiss_kmeans **out,
                          struct err_ctx *ctx)
{
    struct faiss_kmeans *m = calloc(1, sizeof(*m));
    if (!m)
        return err_no_memory(ctx, sizeof(*m));
    if (openblas_set_num_threads)
        openblas_set_num_threads((int)threads);
    m->k = k;
    enum err e = new_clustering(dim, k, &m->clustering, ctx);
    if (e == ERR_OK && faiss_index_factory(&m->centroids, (int)dim, "Flat", METRIC_L2))
        e = faiss_failed("preparing k-means", ctx);
    if (e != ERR_OK) {
        faiss_kmeans_free(m);
        return e;
    }
    *out = m;
    return ERR_OK;
}

void faiss_kmeans_free(struct faiss_kmeans *m)
{
    if (!m)
        return;
    if (m->clustering)
        faiss_Clustering_free(m->clustering);
    if (m->centroids)
        faiss_Index_free(m->centroids);
    free(m);
}

enum err faiss_kmeans_iterate(struct faiss_kmeans *m, const float *vectors, size_t n,
                              struct err_ctx *ctx)
{
    if (faiss_Clustering_train(m->clustering, (idx_t)n, vectors, m->centroids))
        return faiss_failed("clustering", ctx);
    return ERR_OK;
}

const float *faiss_kmeans_centroids(struct faiss_kmeans *m)
{
    float *centroids;
    size_t size;
    faiss_Clustering_centroids(m->clustering, &centroids, &size);
    return centroids;
}

enum err faiss_kmeans_assign(struct faiss_kmeans *m, const float *vectors, size_t n,
                             uint32_t *lists, struct err_ctx *ctx)
{
    size_t dim = (size_t)faiss_Index_d(m->centroids);
    for (size_t first = 0, batch; first < n; first += batch) {
        batch = n - first < ASSIGN_BATCH ? n - first : ASSIGN_BATCH;
        if (faiss_Index_search(m->centroids, (idx_t)batch, vectors + first * dim, 1, m->distances,
                               m->labels))
            return faiss_failed("assigning vectors to lists", ctx);
        for (size_t i = 0; i < batch; i++) {
            idx_t l = m->labels[i];
            lists[first + i] = l >= 0 && l < (idx_t)m->k ? (uint32_t)l : 0;
        }
    }
    return ERR_OK;
}
