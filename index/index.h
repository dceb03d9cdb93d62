/* The indexer: builds an ANN structure for each file segment in a child process, maps it, attaches
 * it. Which kind: plan.h. Knows the store's snapshots, nothing of HTTP. */
#ifndef LOADSTONE_INDEX_INDEX_H
#define LOADSTONE_INDEX_INDEX_H

#include "store/catalog.h"

struct indexer;

struct indexer_options {
    const char *self;  /* path of this executable, for the build child */
    unsigned threads;  /* OpenMP threads of a build child; 0 = all cores */
    uint32_t rows_min; /* segments with fewer vectors are scanned exactly; 0 = default 1000 */
    /* What a build may take; at least 16 MiB. 0 = half of the machine's or the cgroup's memory. A
     * 32nd of it is for the matching rows of filters (filter_cache.h). */
    uint64_t memory_bytes;
    struct io *io; /* for files that are sent in; NULL: none are taken */
};

/* Picks the kernels, starts the build thread. */
WARN_UNUSED enum err indexer_new(const struct indexer_options *o, struct indexer **out,
                                 struct err_ctx *ctx);
/* Kills running children, drops what is queued; whoever waits for a build, or asks for one later,
 * gets ERR_UNAVAILABLE. Call it before what waits is stopped. */
void indexer_stop(struct indexer *ix);
/* Stops. Nobody may be inside a call, or call again. */
void indexer_free(struct indexer *ix);

/* store_hooks.segment_added: maps index/<id>.ann when it is there and valid, else queues a build.
 */
void indexer_segment_added(void *ix, struct collection *c, struct segment *s);

/* The other store_hooks of catalog.h. An urgent build (segment_build) goes before the queue; a
 * build that runs then stands still meanwhile, or, when the two together pass the memory budget, is
 * waited for. Several urgent ones run one after another. Any thread. */
void indexer_segment_opened(void *ix, struct collection *c, struct segment *s);
WARN_UNUSED enum err indexer_segment_build(void *ix, struct collection *c, struct segment *s,
                                           struct build_watch *watch, struct err_ctx *ctx);
void indexer_segment_removed(void *ix, struct collection *c, uint64_t id);

/* The index settings of the collection's schema were changed: segments whose structure was made
 * with others are queued for a build, and serve as they are until it is done; those that are to be
 * flat lose theirs at once. Any thread; safe beside searches, loads and a drop. */
void indexer_settings_changed(struct indexer *ix, struct collection *c);
/* The same, and segments whose structure fits the settings are built again too, unless such a build
 * runs already. */
void indexer_rebuild(struct indexer *ix, struct collection *c);

/* A file of FAISS that becomes the structure of the collection's one segment (indexer_import.c),
 * which is searched as before until finish has returned ERR_OK. One thread at a time. Errors name
 * what differs: ERR_INVALID for a file that does not read, ERR_UNPROCESSABLE for one that does not
 * fit, ERR_CONFLICT where there is no one segment, or its settings ask for no index. */
struct index_import;
WARN_UNUSED enum err index_import_new(struct indexer *ix, struct collection *c,
                                      struct index_import **out, struct err_ctx *ctx);
WARN_UNUSED enum err index_import_put(struct index_import *m, const void *data, size_t n,
                                      struct err_ctx *ctx);
/* Takes as long as comparing all vectors does. */
WARN_UNUSED enum err index_import_finish(struct index_import *m, struct err_ctx *ctx);
void index_import_free(void *import); /* NULL is allowed */

struct index_state {
    bool building;         /* a build of this collection runs or is queued */
    enum index_kind kind;  /* in use, by most rows; never INDEX_AUTO */
    uint64_t rows;         /* live rows with a vector */
    uint64_t indexed_rows; /* of them in an ANN structure */
    double progress;       /* 0..1; 1 when ready */
    double eta_s;          /* 0 when ready, negative while unknown */
    uint64_t bytes;        /* of the .ann files in use */
    char error[256];       /* why the last build failed, or what is built anew why, or "" */
};
void index_state_get(struct indexer *ix, const struct collection *c, const struct snapshot *s,
                     struct index_state *out);

/* Live queries that wait to be searched again, for the curves of recall. */
unsigned index_recall_waiting(void);

/* What was built of one segment, and what the build found about codes of its vectors. */
struct index_segment {
    uint64_t id, rows; /* rows of the segment, dead ones too */
    enum index_kind kind;
    const char *builder; /* "native", "faiss" */
    const char *codes;   /* "uniform", "scaled" or "none" */
    const char *why;     /* there are none; NULL where there are */
    uint32_t rerank_permille;
    double recall; /* of codes, on a sample; negative: not measured */
};
/* False when the view's segment has no structure. Inside an epoch section. */
bool index_segment_get(const struct view *v, struct index_segment *out);

/* `loadstoned build-index ...`: the child's main; argv[0] is the word build-index. Writes one .ann
 * for one segment file; progress goes to standard output as lines "progress <0..1>", an error as
 * "error <sentence>". */
int build_index_main(int argc, char **argv);

/* Name of the kernels in use: "avx512vnni", "avx512", "avx2" or "scalar". LOADSTONE_ISA forces one.
 */
const char *index_isa(void);

#endif
