/* Loadstone's engine in process, behind the line protocol of bench/peers (worker.py explains it).
 *
 *   engine DATA COLLECTION QUERIES DIM K
 *
 * "build" opens the data directory, which a daemon has written and none may hold, and waits until
 * the index is attached. A query runs through search_run, its frame included.
 *
 * Threads: one searches; those of the store and the indexer idle. Failure: a sentence on standard
 * error, status 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "index/index.h"
#include "index/search.h"
#include "store/catalog.h"

enum { TIMES_MAX = 1 << 22, BATCH_MAX = 1024, POLL_US = 10000, LINE_BYTES = 4096 };

struct bench {
    const char *data, *collection;
    float *queries;
    size_t nqueries;
    uint32_t dim, k;
    struct io *io;
    struct indexer *ix;
    struct catalog *cat;
    struct snapshot *snapshot; /* NULL until "build" */
    struct hit *hits;          /* BATCH_MAX x k */
    uint32_t found[BATCH_MAX];
    double *times_us; /* TIMES_MAX */
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "engine: %s\n", what);
    exit(1);
}

static void check(enum err e, const struct err_ctx *ctx)
{
    if (e != ERR_OK)
        die(ctx->detail);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void read_queries(struct bench *b, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0)
        die(path);
    size_t row = b->dim * sizeof(float), bytes = (size_t)ftell(f);
    rewind(f);
    b->nqueries = bytes / row;
    b->queries = malloc(bytes + row);
    if (!b->queries || b->nqueries == 0 || fread(b->queries, row, b->nqueries, f) != b->nqueries)
        die(path);
    fclose(f);
}

static struct snapshot *wait_indexed(struct bench *b, struct err_ctx *ctx)
{
    struct index_state state;
    struct collection *c;
    while (!catalog_ready(b->cat))
        usleep(POLL_US);
    for (;;) {
        epoch_enter();
        check(catalog_find(b->cat, b->collection, &c, ctx), ctx);
        struct snapshot *s = snapshot_acquire(collection_snapshot(c));
        index_state_get(b->ix, c, s, &state);
        epoch_leave();
        if (!state.building)
            return s;
        snapshot_release(s);
        usleep(POLL_US);
    }
}

static void open_data(struct bench *b)
{
    struct err_ctx ctx;
    double from = now_us();
    struct indexer_options options = {.self = "/bin/false"}; /* nothing is to be built */
    err_clear(&ctx);
    check(io_new(IO_AUTO, &b->io, &ctx), &ctx);
    check(indexer_new(&options, &b->ix, &ctx), &ctx);
    struct store_hooks hooks = {.arg = b->ix, .segment_added = indexer_segment_added};
    check(catalog_open(b->data, b->io, &hooks, &b->cat, &ctx), &ctx);
    b->snapshot = wait_indexed(b, &ctx);
    if (b->snapshot->schema->dim != b->dim)
        die("the collection's vectors are of another dimension than the queries");
    printf("%.3f 0\n", (now_us() - from) / 1e6);
}

static void search(struct bench *b, size_t first, size_t n, uint32_t ef)
{
    struct err_ctx ctx;
    struct search_params p = {.k = b->k, .ef = ef};
    err_clear(&ctx);
    check(search_run(b->snapshot, b->queries + first * b->dim, n, &p, search_scratch_local(),
                     b->hits, b->found, &ctx),
          &ctx);
}

static int64_t key_of(const struct bench *b, const struct hit *h)
{
    struct key_probe probe;
    int64_t room = 0;
    key_probe_row(&probe, b->snapshot->views[h->ref.view].segment, h->ref.row, &room);
    return room;
}

static void find(struct bench *b, uint32_t ef, const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        die(path);
    for (size_t q = 0; q < b->nqueries; q++) {
        search(b, q, 1, ef);
        for (uint32_t i = 0; i < b->k; i++) {
            int64_t key = i < b->found[0] ? key_of(b, &b->hits[i]) : -1;
            fwrite(&key, sizeof key, 1, f);
        }
    }
    if (fclose(f) != 0)
        die(path);
    puts("ok");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct bench *b, uint32_t ef, size_t batch, double seconds)
{
    double start = now_us(), now = start, then;
    size_t n = 0, at = 0;
    if (batch == 0 || batch > BATCH_MAX || batch > b->nqueries)
        die("the batch is out of range");
    for (; n < TIMES_MAX && now - start < seconds * 1e6; now = then) {
        if (at + batch > b->nqueries)
            at = 0;
        search(b, at, batch, ef);
        at += batch;
        then = now_us();
        b->times_us[n++] = then - now;
    }
    if (n == 0)
        die("too short");
    qsort(b->times_us, n, sizeof *b->times_us, by_value);
    printf("%.1f %.2f %.2f\n", (double)(n * batch) / (now - start) * 1e6, b->times_us[n / 2],
           b->times_us[n - 1 - n / 100]);
}

static void obey(struct bench *b, const char *line)
{
    char path[LINE_BYTES];
    size_t batch;
    uint32_t ef;
    double seconds;
    if (strcmp(line, "hello\n") == 0)
        puts("ok");
    else if (strcmp(line, "build\n") == 0 && !b->snapshot)
        open_data(b);
    else if (b->snapshot && sscanf(line, "find %u %4095s", &ef, path) == 2)
        find(b, ef, path);
    else if (b->snapshot && sscanf(line, "measure %u %zu %lf", &ef, &batch, &seconds) == 3)
        measure(b, ef, batch, seconds);
    else
        die(line);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct bench b;
    char line[LINE_BYTES];
    if (argc != 6) {
        fputs("usage: engine DATA COLLECTION QUERIES DIM K\n", stderr);
        return 2;
    }
    b.data = argv[1];
    b.collection = argv[2];
    b.dim = (uint32_t)strtoul(argv[4], NULL, 10);
    b.k = (uint32_t)strtoul(argv[5], NULL, 10);
    if (b.dim == 0 || b.k == 0 || b.k > SEARCH_K_MAX)
        die("DIM or K is out of range");
    read_queries(&b, argv[3]);
    b.hits = malloc(sizeof *b.hits * b.k * BATCH_MAX);
    b.times_us = malloc(sizeof *b.times_us * TIMES_MAX);
    if (!b.hits || !b.times_us)
        die("no memory");
    while (fgets(line, sizeof line, stdin))
        obey(&b, line);
    snapshot_release(b.snapshot);
    if (b.cat) {
        indexer_free(b.ix);
        catalog_close(b.cat);
        epoch_drain();
        io_free(b.io);
    }
    free(b.times_us);
    free(b.hits);
    free(b.queries);
    return 0;
}
