/* What structure a segment gets: the rule, and the memory it goes by.
 *
 *   kind of the schema   a segment gets
 *   flat                 none
 *   hnsw                 a graph; none, with an error, when its build needs more than the budget
 *   ivf                  inverted lists
 *   auto                 none while its vectors take less than 8 MiB; inverted lists when a graph
 *                        needs more than the budget; else a graph
 *
 * and none in any case while it has fewer vectors than rows_min (1000). A segment that gets none is
 * scanned exactly.
 *
 * The need of a graph is that of its build, which holds a copy of the vectors beside the links:
 * whoever can build it can also keep it in memory to serve it. */
#ifndef LOADSTONE_INDEX_PLAN_H
#define LOADSTONE_INDEX_PLAN_H

#include "index/ann_file.h"

struct index_plan {
    enum index_kind kind; /* INDEX_FLAT, INDEX_HNSW or INDEX_IVF */
    uint32_t m, ef_construction, nlist;
    enum index_builder builder; /* BUILDER_AUTO: the build decides */
    uint64_t need_bytes;        /* of an HNSW build */
    bool refused;               /* HNSW asked for, but it needs more than the budget */
};

struct plan_limits {
    uint32_t rows_min;
    uint64_t memory_bytes;
};

/* `vectors` is the number of rows with a vector. */
struct index_plan plan_segment(const struct schema *schema, uint32_t vectors,
                               const struct plan_limits *limits);
bool plan_equal(const struct index_plan *a, const struct index_plan *b);
/* Whether the structure is what the plan would build. A graph that does not say who built it was
 * FAISS's; auto takes the graphs of either. */
bool plan_matches(const struct index_plan *p, const struct ann_file *a);
/* Whether a structure was made by a release that knew no codes: it serves, but a build makes it
 * better. */
bool plan_dated(const struct ann_file *a);
/* The sentence for a refused plan. */
void plan_refusal(const struct index_plan *p, const struct plan_limits *limits, char *out,
                  size_t cap);

/* Peak memory of an HNSW build, in bytes. */
uint64_t plan_hnsw_bytes(uint32_t vectors, uint32_t dim, uint32_t m);

/* Half of what this process may use: of the machine's memory, or of the limit of its cgroup or one
 * above it where that is lower. */
uint64_t plan_memory_default(void);

#endif
