/* `loadstoned build-index`: one segment in, one .ann file out, in a process of its own, so that
 * neither a crash nor an OOM in a library takes the daemon along.
 *
 *   segment (mapped) ─ build_graph.c or build_ivf.c, by --kind ─> OUT.tmp ─ build_curve.c measures
 *   its recall ─ rename ─> OUT
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

#include "index/build_internal.h"
#include "index/faiss_error.h"
#include "index/kernels.h"

/* OpenMP's own calls; FAISS brings the library, and omp.h belongs to one compiler only. */
void omp_set_num_threads(int n);
int omp_get_num_procs(void);

#define STRUCTURE_SHARE 0.92 /* of the time that a build takes; the rest measures recall */

enum {
    AWAITED_NICE = 10,
    IOPRIO_IDLE = 3 << 13,
    THREAD_BYTES = 12 << 20,
    BLAS_THREAD_BYTES = 192 << 20
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

static enum err parse_kind(const char *text, enum index_kind *out, struct err_ctx *ctx)
{
    if (index_kind_parse(text, out) && (*out == INDEX_HNSW || *out == INDEX_IVF))
        return ERR_OK;
    return err_set(ctx, ERR_INVALID, "--kind is \"%s\": hnsw and ivf are built", text);
}

static enum err parse_builder(const char *text, enum index_builder *out, struct err_ctx *ctx)
{
    if (index_builder_parse(text, out))
        return ERR_OK;
    return err_set(ctx, ERR_INVALID, "--builder is \"%s\": take auto, faiss or native", text);
}

static const struct option build_options[] = {{"segment", required_argument, NULL, 's'},
                                              {"out", required_argument, NULL, 'o'},
                                              {"kind", required_argument, NULL, 'k'},
                                              {"builder", required_argument, NULL, 'r'},
                                              {"m", required_argument, NULL, 'm'},
                                              {"ef-construction", required_argument, NULL, 'e'},
                                              {"nlist", required_argument, NULL, 'n'},
                                              {"metric", required_argument, NULL, 'd'},
                                              {"threads", required_argument, NULL, 't'},
                                              {"memory-bytes", required_argument, NULL, 'b'},
                                              {"collection", required_argument, NULL, 'c'},
                                              {"parent", required_argument, NULL, 'p'},
                                              {"awaited", no_argument, NULL, 'w'},
                                              {"import", required_argument, NULL, 'i'},
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
        return parse_kind(optarg, &a->kind, ctx);
    case 'r':
        return parse_builder(optarg, &a->builder, ctx);
    case 'n':
        return parse_number("nlist", optarg, NLIST_MAX, &a->nlist, ctx);
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
    case 'i':
        a->import = optarg;
        return ERR_OK;
    case 'w':
        a->awaited = true;
        return ERR_OK;
    case 'c':
        return parse_id(optarg, a->collection_id, ctx);
    default:
        return err_set(ctx, ERR_INVALID,
                       "usage: build-index --segment FILE --out FILE [--kind hnsw|ivf] "
                       "[--builder auto|faiss|native] [--m M] [--ef-construction E] [--nlist L] "
                       "[--metric l2|ip|cosine] [--threads T] "
                       "[--memory-bytes N] [--collection ID] [--parent PID] [--awaited] "
                       "[--import FAISS-FILE]");
    }
}

static enum err parse_args(int argc, char **argv, struct build_args *a, struct err_ctx *ctx)
{
    *a = (struct build_args){.kind = INDEX_HNSW};
    opterr = 0;
    optind = 1;
    for (int opt; (opt = getopt_long(argc, argv, "", build_options, NULL)) != -1;)
        RETURN_NOT_OK(parse_option(opt, a, ctx));
    if (!a->segment || !a->out || optind != argc)
        return parse_option('?', a, ctx);
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

/* The tables of a sanitizer count as memory of the process, terabytes of them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool may_limit_memory = false;
#else
static const bool may_limit_memory = true;
#endif

/* Address space that the process has taken so far and the limit counts. */
static uint64_t data_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%*u %*u %*u %*u %*u %llu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* RLIMIT_DATA counts address space. The stacks of the threads and OpenBLAS's buffers are mapped
 * whole and hardly used, so they come on top of what the build may take; OpenBLAS, which only
 * inverted lists use, would wait for ever for a buffer that it can't map. */
static enum err limit_memory(const struct build_args *a, unsigned threads, struct err_ctx *ctx)
{
    uint64_t each = a->kind == INDEX_IVF ? BLAS_THREAD_BYTES : THREAD_BYTES;
    uint64_t most = data_bytes() + a->memory_bytes + (threads + 1) * each;
    struct rlimit limit = {most, most};
    if (setrlimit(RLIMIT_DATA, &limit) != 0)
        return err_system(ctx, errno, "cannot limit the memory of the build");
    return ERR_OK;
}

static const char out_of_memory[] =
    "\nerror the build ran out of memory: raise --memory, or use index kind ivf or auto\n";

/* Any thread, in the midst of FAISS: says it without allocating, and ends. */
static void memory_is_out(void)
{
    ssize_t written = write(STDOUT_FILENO, out_of_memory, sizeof(out_of_memory) - 1);
    _exit(written < 0 ? EXIT_FAILURE + 1 : EXIT_FAILURE);
}

/* Gives way to everything else on the machine: build time matters less than anyone's latency. A
 * build that a load waits for gives way too, but can't be starved; and it is not preempted at every
 * request, which cost the idle class a fifth of its time in system calls. */
static void yield_to_others(const struct build_args *a)
{
    struct sched_param none = {0};
    if (a->awaited) {
        setpriority(PRIO_PROCESS, 0, AWAITED_NICE);
        return;
    }
    sched_setscheduler(0, SCHED_IDLE, &none);
    syscall(SYS_ioprio_set, 1, 0, IOPRIO_IDLE);
}

static enum err be_humble(const struct build_args *a, struct err_ctx *ctx)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (a->parent && getppid() != (pid_t)a->parent)
        return err_set(ctx, ERR_UNAVAILABLE, "the daemon that asked for this index is gone");
    prefer_as_oom_victim();
    yield_to_others(a);
    int threads = a->threads ? (int)a->threads : omp_get_num_procs();
    omp_set_num_threads(threads);
    faiss_on_no_memory(memory_is_out);
    bool limit = a->memory_bytes && may_limit_memory;
    return limit ? limit_memory(a, (unsigned)threads, ctx) : ERR_OK;
}

unsigned build_threads(const struct build *b)
{
    return b->args->threads ? (unsigned)b->args->threads : (unsigned)omp_get_num_procs();
}

static void say_progress(double done)
{
    printf("progress %.4f\n", done);
    fflush(stdout);
}

void build_progress(double done)
{
    say_progress(done * STRUCTURE_SHARE);
}

void build_progress_curve(double done)
{
    say_progress(STRUCTURE_SHARE + done * (1 - STRUCTURE_SHARE));
}

/* What is wrong with a file that is imported is its sender's business. */
static const char *error_word(const struct build_args *a, const struct err_ctx *ctx)
{
    if (a->import && ctx->code == ERR_UNPROCESSABLE)
        return "refused";
    return a->import && ctx->code == ERR_INVALID ? "unreadable" : "error";
}

static int say_error(const struct build_args *a, const struct err_ctx *ctx)
{
    if (ctx->code == ERR_NO_MEMORY)
        fputs(out_of_memory, stdout);
    else
        printf("\n%s %s\n", error_word(a, ctx), ctx->detail);
    fflush(stdout);
    return EXIT_FAILURE;
}

/* ---- the segment ---- */

static uint32_t count_vectors(const struct segment *s)
{
    uint64_t missing = 0;
    if (s->vector_nulls) {
        for (uint32_t w = 0; w < (s->rows + 63) / 64; w++)
            missing += (uint64_t)__builtin_popcountll(segment_vector_nulls(s, w));
    }
    return missing < s->rows ? s->rows - (uint32_t)missing : 0;
}

static enum err check_segment(struct build *b, struct err_ctx *ctx)
{
    const struct segment *s = b->segment;
    if (!s->vectors || s->schema->dim == 0)
        return err_set(ctx, ERR_INVALID, "%s holds no vectors", b->args->segment);
    const char *metric = metric_name(s->schema->metric);
    if (b->args->metric && strcmp(b->args->metric, metric) != 0)
        return err_set(ctx, ERR_INVALID, "--metric is %s, but %s was written for %s",
                       b->args->metric, b->args->segment, metric);
    b->vectors = count_vectors(s);
    if (b->vectors == 0)
        return err_set(ctx, ERR_INVALID, "every row of %s is without a vector", b->args->segment);
    return ERR_OK;
}

struct ann_shape build_shape(const struct build *b)
{
    const struct segment *s = b->segment;
    struct ann_shape shape = {.kind = b->args->kind,
                              .segment_id = s->id,
                              .rows = s->rows,
                              .dim = s->schema->dim,
                              .metric = s->schema->metric};
    memcpy(shape.collection_id, b->args->collection_id, sizeof(shape.collection_id));
    return shape;
}

enum err build_allocate(void *out, size_t n, size_t size, struct err_ctx *ctx)
{
    size_t bytes;
    void *p = checked_mul(n, size, &bytes) ? malloc(bytes) : NULL;
    memcpy(out, &p, sizeof(p));
    return p ? ERR_OK : err_no_memory(ctx, n * size);
}

/* ---- the file ---- */

static enum err tmp_name(const struct build *b, char **out, struct err_ctx *ctx)
{
    if (asprintf(out, "%s.tmp", b->args->out) < 0) {
        *out = NULL;
        return err_no_memory(ctx, strlen(b->args->out) + 5);
    }
    if (access(*out, F_OK) == 0) /* of a build that was killed */
        return io_unlink(b->io, *out, ctx);
    return ERR_OK;
}

/* Name of the directory of --out; the caller frees it. */
static enum err directory_name(const struct build *b, char **out, struct err_ctx *ctx)
{
    const char *slash = strrchr(b->args->out, '/');
    size_t n = slash && slash > b->args->out ? (size_t)(slash - b->args->out) : 1;
    *out = strndup(slash ? b->args->out : ".", n);
    return *out ? ERR_OK : err_no_memory(ctx, n + 1);
}

static enum err make_file(const struct build *b, const char *dir, const char *tmp,
                          struct err_ctx *ctx)
{
    enum err e;
    if (b->args->import)
        e = build_import(b, tmp, ctx);
    else
        e = b->args->kind == INDEX_IVF ? build_ivf(b, tmp, ctx) : build_graph(b, tmp, ctx);
    if (e == ERR_OK)
        e = build_curve(b, tmp, ctx);
    if (e == ERR_OK)
        e = io_rename(b->io, tmp, b->args->out, ctx);
    if (e != ERR_OK)
        unlink(tmp);
    return e == ERR_OK ? io_sync_dir(b->io, dir, ctx) : e;
}

static enum err write_file(const struct build *b, struct err_ctx *ctx)
{
    char *dir = NULL, *tmp = NULL;
    enum err e = directory_name(b, &dir, ctx);
    if (e == ERR_OK)
        e = io_mkdir(b->io, dir, ctx);
    if (e == ERR_OK)
        e = tmp_name(b, &tmp, ctx);
    if (e == ERR_OK)
        e = make_file(b, dir, tmp, ctx);
    free(tmp);
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
    RETURN_NOT_OK(check_segment(b, ctx));
    return write_file(b, ctx);
}

int build_index_main(int argc, char **argv)
{
    struct err_ctx ctx;
    struct build_args args;
    struct build b = {0};
    err_clear(&ctx);
    if (parse_args(argc, argv, &args, &ctx) != ERR_OK)
        return say_error(&args, &ctx);
    enum err e = run(&args, &b, &ctx);
    segment_release(b.segment);
    io_free(b.io);
    return e == ERR_OK ? EXIT_SUCCESS : say_error(&args, &ctx);
}
