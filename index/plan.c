/* Decides what a segment gets, and how much memory there is for it.
 *
 * The estimate for a graph is the larger of the builders', per vector: for FAISS its floats, 2m
 * links of 4 bytes with the slack that its arrays have while they grow, upper layers and row lists;
 * for the native one, on codes or floats, 2m links and their distances. Measured peaks lie below
 * it.
 *
 * Limits of cgroups come from the kernel's files: version 2 names the process's group in
 * /proc/self/cgroup, and each group up to the root may have a memory.max; version 1 has one file.
 * What can't be read does not limit.
 *
 * Threads: pure functions; plan_memory_default reads files. Failure: none. */
#include "index/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "index/build_native.h"
#include "index/ivf.h"

enum { AUTO_BYTES = 8 << 20, NODE_BYTES = 48, ROWS_BYTES = 12, BUILD_BYTES = 32 << 20 };

uint64_t plan_hnsw_bytes(uint32_t vectors, uint32_t dim, uint32_t m)
{
    uint64_t floats = 4ull * dim, links = 8ull * m;
    uint64_t faiss = vectors * (floats + links + links / 2 + NODE_BYTES);
    bool padded = code_stride(dim) > floats;
    uint64_t native = native_bytes(vectors, dim, m, padded) + vectors * ROWS_BYTES;
    return (faiss > native ? faiss : native) + BUILD_BYTES;
}

struct index_plan plan_segment(const struct schema *schema, uint32_t vectors,
                               const struct plan_limits *limits)
{
    const struct index_settings *set = &schema->index;
    struct index_plan p = {.kind = INDEX_FLAT};
    if (vectors == 0 || vectors < limits->rows_min)
        return p;
    p.need_bytes = plan_hnsw_bytes(vectors, schema->dim, set->m);
    bool fits = p.need_bytes <= limits->memory_bytes && vectors <= INT32_MAX;
    p.kind = set->kind;
    if (set->kind == INDEX_AUTO && (uint64_t)vectors * schema->dim * sizeof(float) < AUTO_BYTES)
        p.kind = INDEX_FLAT;
    else if (set->kind == INDEX_AUTO)
        p.kind = fits ? INDEX_HNSW : INDEX_IVF;
    if (p.kind == INDEX_HNSW) {
        p.m = set->m;
        p.ef_construction = set->ef_construction;
        p.builder = set->builder;
        p.refused = !fits;
    } else if (p.kind == INDEX_IVF) {
        p.nlist = ivf_nlist(set->nlist, vectors);
    }
    return p;
}

bool plan_equal(const struct index_plan *a, const struct index_plan *b)
{
    return a->kind == b->kind && a->m == b->m && a->ef_construction == b->ef_construction &&
           a->nlist == b->nlist && a->builder == b->builder;
}

bool plan_matches(const struct index_plan *p, const struct ann_file *a)
{
    const struct ann_shape *s = &a->shape;
    enum index_builder builder = s->builder == BUILDER_AUTO ? BUILDER_FAISS : s->builder;
    bool either = p->builder == BUILDER_AUTO;
    const struct index_plan built = {.kind = s->kind,
                                     .m = s->m,
                                     .ef_construction = s->ef_construction,
                                     .nlist = s->nlist,
                                     .builder = either ? BUILDER_AUTO : builder};
    return plan_equal(p, &built);
}

bool plan_dated(const struct ann_file *a)
{
    return !a->codes && a->verdict == CODES_UNKNOWN;
}

void plan_refusal(const struct index_plan *p, const struct plan_limits *limits, char *out,
                  size_t cap)
{
    snprintf(out, cap,
             "the hnsw index needs about %llu MiB of memory to build, and the budget is %llu MiB: "
             "raise --memory, or use index kind ivf or auto; until then rows are scanned exactly",
             (unsigned long long)(p->need_bytes >> 20) + 1,
             (unsigned long long)(limits->memory_bytes >> 20));
}

/* ---- the memory there is ---- */

/* The number in a file; "max", or no file, is no limit. */
static uint64_t limit_in(const char *path)
{
    char text[32] = "";
    FILE *f = fopen(path, "re");
    if (!f)
        return UINT64_MAX;
    char *line = fgets(text, sizeof(text), f), *end = text;
    fclose(f);
    uint64_t limit = line ? strtoull(text, &end, 10) : 0;
    return end == text ? UINT64_MAX : limit;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Of the group `name` ("/a/b") and all above it. */
static uint64_t group_limit(char *name)
{
    uint64_t limit = UINT64_MAX;
    char path[4200];
    for (;;) {
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", name);
        limit = lower(limit, limit_in(path));
        char *slash = strrchr(name, '/');
        if (!slash)
            return limit;
        *slash = '\0';
    }
}

static uint64_t cgroup_limit(void)
{
    uint64_t limit = limit_in("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    char line[4100];
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "0::", 3) == 0)
            limit = lower(limit, group_limit(line + 3));
    }
    if (f)
        fclose(f);
    return limit;
}

uint64_t plan_memory_default(void)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return lower(machine, cgroup_limit()) / 2;
}
