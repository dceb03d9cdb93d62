/* The index of a collection as a file of FAISS, made piece by piece.
 *
 *   hnsw   IndexIDMap2(IndexHNSWFlat)   nodes in the order of the segment's rows
 *   ivf    IndexIVFFlat                 lists with their ids
 *
 * Ids are the keys where those are int64, else the places of the rows in the collection's exports,
 * from 0. For cosine the vectors are of length 1 and the metric is the inner product, FAISS's way
 * to that order; queries of inverted lists must be of length 1 then too. */
#ifndef LOADSTONE_INDEX_FAISS_EXPORT_H
#define LOADSTONE_INDEX_FAISS_EXPORT_H

#include "base/bytes.h"
#include "base/hash.h"
#include "store/collection.h"

struct faiss_export;

/* The view that holds all live rows, in one file and without dead ones; ERR_CONFLICT says what to
 * do where there is none. */
WARN_UNUSED enum err faiss_export_view(const struct collection *c, const struct snapshot *s,
                                       uint32_t *view, struct err_ctx *ctx);

/* For the newest version of the collection, whose file is checked against its checksums first.
 * ERR_CONFLICT says what to do where the index is not one structure over all rows; ERR_CORRUPT
 * names a damaged file. Holds the snapshot. */
WARN_UNUSED enum err faiss_export_new(struct collection *c, struct faiss_export **out,
                                      struct err_ctx *ctx);
void faiss_export_free(void *e); /* NULL is allowed */

uint64_t faiss_export_version(const struct faiss_export *e);
uint64_t faiss_export_bytes(const struct faiss_export *e); /* of the whole file */
/* Rows that are not in the file: each has the vector of one that is (hnsw). */
uint32_t faiss_export_left_out(const struct faiss_export *e);
/* The same for files of the same bytes. */
struct hash128 faiss_export_hash(const struct faiss_export *e);
/* Only bytes [from, to). */
void faiss_export_part(struct faiss_export *e, uint64_t from, uint64_t to);
/* Appends about `bytes` that come next; *end with the last. One thread at a time. */
WARN_UNUSED enum err faiss_export_fill(struct faiss_export *e, size_t bytes, struct buf *out,
                                       bool *end, struct err_ctx *ctx);

#endif
