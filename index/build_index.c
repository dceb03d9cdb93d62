/* `loadstoned build-index`: one segment in, one .ann file out, in a process of its own, so that
 * neither a crash nor an OOM in a library takes the daemon along.
 *
 *   segment (mapped) ─ distinct vectors, which rows have them
 *        └─ chunks of them, normalised for cosine ─> FAISS ─ graph, node by node ─> OUT.tmp
 *                                                                  sync, rename ─> OUT
 *
 * Cosine graphs are built with Euclidean distance over normalised vectors: the order of neighbours
 * is the same. The chunk is the node count halved until it is small: FAISS's arrays double as they
 * grow, and so end exactly full instead of twice too large.
 *
 * Standard output is the protocol with the parent: lines "progress <0..1>", and before a failure
 * "error <sentence>" with exit status 1. The process runs at idle priority and dies with its
 * parent. Failure: OUT.tmp is removed; OUT is only ever whole. */
#include "index/index.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "index/ann_file.h"
#include "index/kernels.h"

/* OpenMP's own calls; FAISS brings the library, and omp.h belongs to one compiler only. */
void omp_set_num_threads(int n);
int omp_get_num_procs(void);

enum { CHUNK_ROWS_MAX = 4000, CHUNK_BYTES_MAX = 32 << 20, IOPRIO_IDLE = 3 << 13 };

struct build_args {
    const char *segment, *out, *kind, *metric;
    uint8_t collection_id[16];
    uint64_t m, ef_construction, threads, memory_bytes, parent;
};

struct build {
    const struct build_args *args;
    struct io *io;
    struct segment *segment;
    struct faiss_graph *graph;
    struct ann_shape shape;
    struct distinct rows;
    float *norms; /* per node, 1 / |vector|; NULL unless cosine */
    float *chunk; /* copies for FAISS */
    size_t chunk_rows;
    char *tmp_path;
};

/* ---- arguments ---- */

static enum err parse_number(const char *name, const char *text, uint64_t max, uint64_t *out,
                             struct err_ctx *ctx)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end || *text == '-' || v > max)
        return err_set(ctx, ERR_INVALID, "--%s is \"%s\": give a number from 0 to %llu", name, text,
                       (unsigned long long)max);
    *out = v;
    return ERR_OK;
}

static enum err parse_id(const char *text, uint8_t out[16], struct err_ctx *ctx)
{
    bool ok = strlen(text) == 32;
    for (size_t i = 0; ok && i < 16; i++) {
        unsigned v = 0;
        ok = sscanf(text + 2 * i, "%2x", &v) == 1;
        out[i] = (uint8_t)v;
    }
    return ok ? ERR_OK
              : err_set(ctx, ERR_INVALID, "--collection is \"%s\": give 32 hex digits", text);
}

static const struct option build_options[] = {{"segment", required_argument, NULL, 's'},
                                              {"out", required_argument, NULL, 'o'},
                                              {"kind", required_argument, NULL, 'k'},
                                              {"m", required_argument, NULL, 'm'},
                                              {"ef-construction", required_argument, NULL, 'e'},
                                              {"metric", required_argument, NULL, 'd'},
                                              {"threads", required_argument, NULL, 't'},
                                              {"memory-bytes", required_argument, NULL, 'b'},
                                              {"collection", required_argument, NULL, 'c'},
                                              {"parent", required_argument, NULL, 'p'},
                                              {NULL, 0, NULL, 0}};

static enum err parse_option(int opt, struct build_args *a, struct err_ctx *ctx)
{
    switch (opt) {
    case 's':
        a->segment = optarg;
        return ERR_OK;
    case 'o':
        a->out = optarg;
        return ERR_OK;
    case 'k':
        a->kind = optarg;
        return ERR_OK;
    case 'd':
        a->metric = optarg;
        return ERR_OK;
    case 'm':
        return parse_number("m", optarg, ANN_M_MAX, &a->m, ctx);
    case 'e':
        return parse_number("ef-construction", optarg, 10000, &a->ef_construction, ctx);
    case 't':
        return parse_number("threads", optarg, 1024, &a->threads, ctx);
    case 'b':
        return parse_number("memory-bytes", optarg, INT64_MAX, &a->memory_bytes, ctx);
    case 'p':
        return parse_number("parent", optarg, INT32_MAX, &a->parent, ctx);
    case 'c':
        return parse_id(optarg, a->collection_id, ctx);
    default:
        return err_set(ctx, ERR_INVALID,
                       "usage: build-index --segment FILE --out FILE [--kind hnsw] [--m M] "
                       "[--ef-construction E] [--metric l2|ip|cosine] [--threads T] "
                       "[--memory-bytes N] [--collection ID] [--parent PID]");
    }
}

static enum err parse_args(int argc, char **argv, struct build_args *a, struct err_ctx *ctx)
{
    *a = (struct build_args){.kind = "hnsw"};
    opterr = 0;
    optind = 1;
    for (int opt; (opt = getopt_long(argc, argv, "", build_options, NULL)) != -1;)
        RETURN_NOT_OK(parse_option(opt, a, ctx));
    if (!a->segment || !a->out || optind != argc)
        return parse_option('?', a, ctx);
    if (strcmp(a->kind, "hnsw") != 0)
        return err_set(ctx, ERR_INVALID, "--kind is \"%s\": only hnsw is built", a->kind);
    return ERR_OK;
}

/* ---- the process ---- */

/* When memory runs out, the build goes and not the daemon. Refused in some containers: no harm. */
static void prefer_as_oom_victim(void)
{
    FILE *f = fopen("/proc/self/oom_score_adj", "w");
    if (!f)
        return;
    fputs("1000", f);
    fclose(f);
}

/* Gives way to everything else on the machine: build time matters less than anyone's latency. */
static enum err be_humble(const struct build_args *a, struct err_ctx *ctx)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (a->parent && getppid() != (pid_t)a->parent)
        return err_set(ctx, ERR_UNAVAILABLE, "the daemon that asked for this index is gone");
    prefer_as_oom_victim();
    struct sched_param none = {0};
    sched_setscheduler(0, SCHED_IDLE, &none);
    syscall(SYS_ioprio_set, 1, 0, IOPRIO_IDLE);
    if (a->memory_bytes) {
        struct rlimit limit = {a->memory_bytes, a->memory_bytes};
        if (setrlimit(RLIMIT_DATA, &limit) != 0)
            return err_system(ctx, errno, "cannot limit the memory of the build");
    }
    omp_set_num_threads(a->threads ? (int)a->threads : omp_get_num_procs());
    return ERR_OK;
}

static void say_progress(double done)
{
    printf("progress %.4f\n", done);
    fflush(stdout);
}

static int say_error(const struct err_ctx *ctx)
{
    printf("error %s\n", ctx->detail);
    fflush(stdout);
    return EXIT_FAILURE;
}

/* ---- vectors ---- */

static uint32_t count_vectors(const struct segment *s)
{
    uint64_t missing = 0;
    if (s->vector_nulls) {
        for (uint32_t w = 0; w < (s->rows + 63) / 64; w++)
            missing += (uint64_t)__builtin_popcountll(segment_vector_nulls(s, w));
    }
    return missing < s->rows ? s->rows - (uint32_t)missing : 0;
}

static enum err check_segment(const struct build *b, uint32_t vectors, struct err_ctx *ctx)
{
    const struct segment *s = b->segment;
    if (!s->vectors || s->schema->dim == 0)
        return err_set(ctx, ERR_INVALID, "%s holds no vectors", b->args->segment);
    const char *metric = metric_name(s->schema->metric);
    if (b->args->metric && strcmp(b->args->metric, metric) != 0)
        return err_set(ctx, ERR_INVALID, "--metric is %s, but %s was written for %s",
                       b->args->metric, b->args->segment, metric);
    if (vectors == 0)
        return err_set(ctx, ERR_INVALID, "every row of %s is without a vector", b->args->segment);
    if (vectors > INT32_MAX)
        return err_set(ctx, ERR_TOO_LARGE, "%s holds %u vectors; a graph takes %d at most",
                       b->args->segment, vectors, INT32_MAX);
    return ERR_OK;
}

static void fill_shape(struct build *b)
{
    const struct segment *s = b->segment;
    b->shape = (struct ann_shape){.segment_id = s->id,
                                  .rows = s->rows,
                                  .nodes = b->rows.nodes,
                                  .twins = b->rows.ntwins,
                                  .dim = s->schema->dim,
                                  .metric = s->schema->metric,
                                  .m = b->args->m ? (uint32_t)b->args->m : s->schema->index.m,
                                  .ef_construction = b->args->ef_construction
                                                         ? (uint32_t)b->args->ef_construction
                                                         : s->schema->index.ef_construction};
    memcpy(b->shape.collection_id, b->args->collection_id, sizeof(b->shape.collection_id));
}

static enum err find_distinct(struct build *b, struct err_ctx *ctx)
{
    uint32_t vectors = count_vectors(b->segment);
    RETURN_NOT_OK(check_segment(b, vectors, ctx));
    RETURN_NOT_OK(distinct_find(b->segment, vectors, &b->rows, ctx));
    fill_shape(b);
    return ERR_OK;
}

static enum err allocate(void *out, size_t n, size_t size, struct err_ctx *ctx)
{
    size_t bytes;
    void *p = checked_mul(n, size, &bytes) ? malloc(bytes) : NULL;
    memcpy(out, &p, sizeof(p));
    return p ? ERR_OK : err_no_memory(ctx, n * size);
}

static enum err prepare(struct build *b, struct err_ctx *ctx)
{
    const struct ann_shape *sh = &b->shape;
    size_t row_bytes = sh->dim * sizeof(float);
    b->chunk_rows = sh->nodes;
    while (b->chunk_rows > 1 &&
           (b->chunk_rows > CHUNK_ROWS_MAX || b->chunk_rows * row_bytes > CHUNK_BYTES_MAX))
        b->chunk_rows = (b->chunk_rows + 1) / 2;
    RETURN_NOT_OK(allocate(&b->chunk, b->chunk_rows, row_bytes, ctx));
    if (sh->metric == DIST_COSINE)
        RETURN_NOT_OK(allocate(&b->norms, sh->nodes, sizeof(float), ctx));
    return faiss_graph_new(sh->dim, sh->m, sh->ef_construction, sh->metric == DIST_IP, &b->graph,
                           ctx);
}

/* Fills the chunk with the vectors of nodes from `node` on; returns how many. */
static size_t fill_chunk(struct build *b, uint32_t node)
{
    uint32_t left = b->shape.nodes - node;
    size_t n = left < b->chunk_rows ? left : b->chunk_rows;
    for (size_t i = 0; i < n; i++) {
        uint32_t at = node + (uint32_t)i, row = b->rows.rows ? b->rows.rows[at] : at;
        double scale = graph_vector(b->segment, row, b->chunk + i * b->shape.dim);
        if (b->norms)
            b->norms[at] = (float)scale;
    }
    return n;
}

static enum err add_vectors(struct build *b, struct err_ctx *ctx)
{
    uint32_t node = 0;
    while (node < b->shape.nodes) {
        size_t n = fill_chunk(b, node);
        RETURN_NOT_OK(faiss_graph_add(b->graph, b->chunk, n, ctx));
        node += (uint32_t)n;
        say_progress((double)node / b->shape.nodes);
    }
    return ERR_OK;
}

/* ---- the file ---- */

static enum err tmp_name(struct build *b, struct err_ctx *ctx)
{
    if (asprintf(&b->tmp_path, "%s.tmp", b->args->out) < 0) {
        b->tmp_path = NULL;
        return err_no_memory(ctx, strlen(b->args->out) + 5);
    }
    if (access(b->tmp_path, F_OK) == 0) /* of a build that was killed */
        return io_unlink(b->io, b->tmp_path, ctx);
    return ERR_OK;
}

/* Name of the directory of --out; the caller frees it. */
static enum err directory_name(struct build *b, char **out, struct err_ctx *ctx)
{
    const char *slash = strrchr(b->args->out, '/');
    size_t n = slash && slash > b->args->out ? (size_t)(slash - b->args->out) : 1;
    *out = strndup(slash ? b->args->out : ".", n);
    return *out ? ERR_OK : err_no_memory(ctx, n + 1);
}

static enum err write_whole(struct build *b, const char *dir, struct err_ctx *ctx)
{
    RETURN_NOT_OK(io_mkdir(b->io, dir, ctx));
    RETURN_NOT_OK(tmp_name(b, ctx));
    enum err e = ann_file_write(b->io, b->tmp_path, &b->shape, b->graph, &b->rows, b->norms, ctx);
    if (e == ERR_OK)
        e = io_rename(b->io, b->tmp_path, b->args->out, ctx);
    if (e != ERR_OK)
        unlink(b->tmp_path);
    return e == ERR_OK ? io_sync_dir(b->io, dir, ctx) : e;
}

static enum err write_file(struct build *b, struct err_ctx *ctx)
{
    char *dir = NULL;
    RETURN_NOT_OK(directory_name(b, &dir, ctx));
    enum err e = write_whole(b, dir, ctx);
    free(dir);
    return e;
}

static enum err run(const struct build_args *a, struct build *b, struct err_ctx *ctx)
{
    b->args = a;
    RETURN_NOT_OK(be_humble(a, ctx));
    RETURN_NOT_OK(kernels_init(ctx));
    RETURN_NOT_OK(io_new(IO_AUTO, &b->io, ctx));
    RETURN_NOT_OK(segment_open(a->segment, NULL, &b->segment, ctx));
    RETURN_NOT_OK(find_distinct(b, ctx));
    RETURN_NOT_OK(prepare(b, ctx));
    RETURN_NOT_OK(add_vectors(b, ctx));
    return write_file(b, ctx);
}

static void build_deinit(struct build *b)
{
    faiss_graph_free(b->graph);
    segment_release(b->segment);
    io_free(b->io);
    distinct_deinit(&b->rows);
    free(b->norms);
    free(b->chunk);
    free(b->tmp_path);
}

int build_index_main(int argc, char **argv)
{
    struct err_ctx ctx;
    struct build_args args;
    struct build b = {0};
    err_clear(&ctx);
    if (parse_args(argc, argv, &args, &ctx) != ERR_OK)
        return say_error(&ctx);
    enum err e = run(&args, &b, &ctx);
    build_deinit(&b);
    return e == ERR_OK ? EXIT_SUCCESS : say_error(&ctx);
}
