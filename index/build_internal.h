/* What the parts of the build child share: build_index.c (arguments, the process, the file's name),
 * build_graph.c and build_ivf.c (what goes into the file), build_curve.c (how well it finds). */
#ifndef LOADSTONE_INDEX_BUILD_INTERNAL_H
#define LOADSTONE_INDEX_BUILD_INTERNAL_H

#include "index/ann_file.h"

struct build_args {
    const char *segment, *out, *metric;
    const char *import; /* a file of FAISS; NULL: the structure is built */
    enum index_kind kind;
    enum index_builder builder;
    uint8_t collection_id[16];
    uint64_t m, ef_construction, nlist, threads, memory_bytes, parent;
    bool awaited; /* a load waits for it */
};

struct build {
    const struct build_args *args;
    struct io *io;
    struct segment *segment;
    uint32_t vectors; /* rows of the segment that have one; at least 1 */
};

/* Each writes the whole file `path`, which does not exist; after an error it is worthless. */
WARN_UNUSED enum err build_graph(const struct build *b, const char *path, struct err_ctx *ctx);
WARN_UNUSED enum err build_ivf(const struct build *b, const char *path, struct err_ctx *ctx);

/* Measures the file that was just written and appends what came out. */
WARN_UNUSED enum err build_curve(const struct build *b, const char *path, struct err_ctx *ctx);

/* The same from a file of FAISS: ERR_INVALID when it can't be read, ERR_UNPROCESSABLE when it is
 * not one over the segment's rows. */
WARN_UNUSED enum err build_import(const struct build *b, const char *path, struct err_ctx *ctx);
/* The same from lists: nlist x dim centroids, and the list of each row with a vector, in order. */
WARN_UNUSED enum err build_ivf_given(const struct build *b, const char *path, uint32_t nlist,
                                     const float *centroids, const uint32_t *assigned,
                                     struct err_ctx *ctx);

/* Threads that a build may use. */
unsigned build_threads(const struct build *b);

/* Tells the parent what share of the structure, then of its curve, is done. */
void build_progress(double done);
void build_progress_curve(double done);

/* The part of a shape that every kind has. */
struct ann_shape build_shape(const struct build *b);

/* *(void **)out = n x size bytes. */
WARN_UNUSED enum err build_allocate(void *out, size_t n, size_t size, struct err_ctx *ctx);

#endif
