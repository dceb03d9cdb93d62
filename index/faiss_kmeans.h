/* k-means in FAISS, through its C API: centroids of a sample, and which one a vector is nearest to
 * (Euclidean distance).
 *
 * One thread at a time; FAISS and OpenBLAS run threads of their own inside. Errors of FAISS become
 * sentences that begin with "FAISS". */
#ifndef LOADSTONE_INDEX_FAISS_KMEANS_H
#define LOADSTONE_INDEX_FAISS_KMEANS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct faiss_kmeans;

/* `threads` for OpenBLAS. */
WARN_UNUSED enum err faiss_kmeans_new(uint32_t dim, uint32_t k, unsigned threads,
                                      struct faiss_kmeans **out, struct err_ctx *ctx);
void faiss_kmeans_free(struct faiss_kmeans *m); /* NULL is allowed */

/* One iteration over n x dim vectors, n >= k; the first call takes random ones of them as the
 * centroids to start from, the later ones must be given the same vectors. */
WARN_UNUSED enum err faiss_kmeans_iterate(struct faiss_kmeans *m, const float *vectors, size_t n,
                                          struct err_ctx *ctx);

/* k x dim; borrowed until the next iteration. */
const float *faiss_kmeans_centroids(struct faiss_kmeans *m);

/* Writes the nearest centroid of each of n x dim vectors to lists; one whose distances overflow
 * gets 0. */
WARN_UNUSED enum err faiss_kmeans_assign(struct faiss_kmeans *m, const float *vectors, size_t n,
                                         uint32_t *lists, struct err_ctx *ctx);

#endif
