/* The same searches as over HTTP, in process: what the engine alone takes.
 *
 *   search_direct DATA COLLECTION BODIES K EF SECONDS
 *
 * Opens the data directory (which no daemon may hold), waits until the index is attached, and runs
 * search_run on one thread with the float32 queries in BODIES (each behind its u32 length), drawn
 * as load_gen draws them. Prints "p50_us p99_us searches".
 *
 * Threads: one searches; those of the store and the indexer idle. Failure: a sentence on standard
 * error, status 1. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "bench/load_gen.h"
#include "index/index.h"
#include "index/search.h"
#include "store/catalog.h"

enum { TIMES_MAX = 1 << 20, POLL_US = 10000, WARM_SEARCHES = 2000 };

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "search_direct: %s\n", what);
    exit(1);
}

static void check(enum err e, const struct err_ctx *ctx)
{
    if (e != ERR_OK)
        die(ctx->detail);
}

static struct body *read_bodies(const char *path, uint32_t *n)
{
    FILE *f = fopen(path, "rb");
    struct body *all = NULL;
    uint32_t len;
    if (!f)
        die(path);
    for (*n = 0; fread(&len, sizeof len, 1, f) == 1; (*n)++) {
        uint8_t *data = malloc(len);
        all = realloc(all, (*n + 1) * sizeof *all);
        if (!data || !all || fread(data, 1, len, f) != len)
            die(path);
        all[*n] = (struct body){data, len};
    }
    fclose(f);
    return all;
}

static void free_bodies(struct body *all, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        free((void *)all[i].data);
    free(all);
}

static struct snapshot *wait_indexed(struct catalog *cat, struct indexer *ix, const char *name,
                                     struct err_ctx *ctx)
{
    struct index_state state;
    struct collection *c;
    while (!catalog_ready(cat))
        usleep(POLL_US);
    for (;;) {
        epoch_enter();
        check(catalog_find(cat, name, &c, ctx), ctx);
        struct snapshot *s = snapshot_acquire(collection_snapshot(c));
        index_state_get(ix, c, s, &state);
        epoch_leave();
        if (!state.building)
            return s;
        snapshot_release(s);
        usleep(POLL_US);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void measure(const struct snapshot *s, const struct body *bodies, uint32_t nbodies,
                    const struct search_params *p, double seconds, struct err_ctx *ctx)
{
    static double times[TIMES_MAX];
    static struct hit hits[SEARCH_K_MAX];
    uint64_t rng = 1, until = now_ns() + (uint64_t)(seconds * 1e9);
    uint32_t n = 0, found;
    for (uint32_t i = 0; n < TIMES_MAX && now_ns() < until; i++) {
        const struct body *b = &bodies[draw_below(&rng, nbodies)];
        uint64_t from = now_ns();
        check(
            search_run(s, (const float *)b->data, 1, p, search_scratch_local(), hits, &found, ctx),
            ctx);
        if (i >= WARM_SEARCHES)
            times[n++] = (double)(now_ns() - from) / 1e3;
    }
    if (n == 0)
        die("too short");
    qsort(times, n, sizeof *times, by_value);
    printf("%.2f %.2f %u\n", times[n / 2], times[n - 1 - n / 100], n);
}

int main(int argc, char **argv)
{
    struct err_ctx ctx;
    struct io *io;
    struct indexer *ix;
    struct catalog *cat;
    uint32_t nbodies;
    if (argc != 7) {
        fputs("usage: search_direct DATA COLLECTION BODIES K EF SECONDS\n", stderr);
        return 2;
    }
    struct search_params p = {.k = (uint32_t)strtoul(argv[4], NULL, 10),
                              .ef = (uint32_t)strtoul(argv[5], NULL, 10)};
    if (p.k == 0 || p.k > SEARCH_K_MAX)
        die("K is out of range");
    struct body *bodies = read_bodies(argv[3], &nbodies);
    err_clear(&ctx);
    struct indexer_options options = {.self = "/bin/false"}; /* nothing is to be built */
    check(io_new(IO_AUTO, &io, &ctx), &ctx);
    check(indexer_new(&options, &ix, &ctx), &ctx);
    struct store_hooks hooks = {.arg = ix, .segment_added = indexer_segment_added};
    check(catalog_open(argv[1], io, &hooks, &cat, &ctx), &ctx);
    struct snapshot *s = wait_indexed(cat, ix, argv[2], &ctx);
    measure(s, bodies, nbodies, &p, strtod(argv[6], NULL), &ctx);
    free_bodies(bodies, nbodies);
    snapshot_release(s);
    indexer_free(ix);
    catalog_close(cat);
    epoch_drain();
    io_free(io);
    return 0;
}
