/* What filters cost, in process: evaluating one, and searching with one.
 *
 *   filter_rows DIR [ROWS]
 *
 * Writes a segment of ROWS (200,000) rows with eight features and 64 dimensions into DIR, and
 * builds its graph there unless an earlier run has. First table: nanoseconds a row for several
 * filters, 64 rows at a time (filter_word), one at a time (filter_match), and by a loop written for
 * that one filter over segment_cell. Second table: microseconds of a search for k = 10 at the
 * default effort without a filter and with ones that match ever fewer rows, the way taken, and
 * recall@10 against exact search.
 *
 * Rounds of all lines take turns, and the best round of each is printed, so that other load on the
 * machine bears on all alike. Threads: one. Failure: a sentence on standard error, status 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "bench/load_gen.h"
#include "index/ann_file.h"
#include "index/index.h"
#include "index/kernels.h"
#include "index/search.h"
#include "store/segment_writer.h"

enum { DIM = 64, CLUSTERS = 200, QUERIES = 200, K = 10, ROUNDS = 7 };
enum { CATEGORY, PRICE, SCORE, ACTIVE, NAME, AT, ANY, STOCK, FEATURES };

static struct schema *schema;
static struct segment *segment;
static struct snapshot *snapshot;
static float *queries;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "filter_rows: %s\n", what);
    exit(1);
}

static void check(enum err e, const struct err_ctx *ctx)
{
    if (e != ERR_OK)
        die(ctx->detail);
}

static float unit(uint64_t *rng)
{
    return (float)(draw(rng) >> 40) * 0x1p-24f;
}

/* ---- rows ---- */

static void make_schema(void)
{
    static const enum feature_type types[FEATURES] = {
        FEATURE_INT32,  FEATURE_FLOAT32, FEATURE_FLOAT64, FEATURE_BOOL,
        FEATURE_STRING, FEATURE_INT64,   FEATURE_INT32,   FEATURE_INT32};
    static const char *const names[FEATURES] = {"category", "price", "score", "active",
                                                "name",     "at",    "any",   "stock"};
    struct err_ctx ctx;
    check(schema_new(KEY_INT64, DIM, DIST_L2, &schema, &ctx), &ctx);
    for (int i = 0; i < FEATURES; i++)
        check(schema_add_feature(schema, names[i], types[i], &ctx), &ctx);
    schema->index.kind = INDEX_HNSW;
    schema->index.m = 16;
    schema->index.ef_construction = 100;
    check(schema_seal(schema, &ctx), &ctx);
}

/* Around one of CLUSTERS centres. */
static void make_vector(uint64_t *rng, float *v)
{
    uint64_t centre = 1 + draw(rng) % CLUSTERS;
    for (int i = 0; i < DIM; i++)
        v[i] = unit(&centre) + 0.3f * (unit(rng) + unit(rng) - 1);
}

static void put(uint8_t *strip, int feature, const void *value)
{
    memcpy(strip + schema->features[feature].strip_offset, value, schema->features[feature].width);
}

static void append_rows(struct segment_writer *w, uint32_t rows)
{
    uint8_t *strip = calloc(1, schema->strip_bytes);
    float v[DIM];
    char name[24];
    uint64_t rng = 1;
    struct err_ctx ctx;
    for (uint32_t row = 0; strip && row < rows; row++) {
        int32_t category = (int32_t)(draw(&rng) % 1000), stock = (int32_t)(draw(&rng) % 100);
        int32_t any = (int32_t)(draw(&rng) % 1000000);
        float price = 100 * unit(&rng);
        double score = unit(&rng);
        int64_t at = row;
        uint8_t active = draw(&rng) & 1;
        put(strip, CATEGORY, &category);
        put(strip, PRICE, &price);
        put(strip, SCORE, &score);
        put(strip, ACTIVE, &active);
        put(strip, AT, &at);
        put(strip, ANY, &any);
        put(strip, STOCK, &stock);
        make_vector(&rng, v);
        struct cell cell = {name, (size_t)sprintf(name, "item-%u", (unsigned)(draw(&rng) % 10000))};
        struct row r = {
            .schema = schema, .int_key = row, .vector = v, .strip = strip, .var = &cell};
        check(segment_writer_append(w, &r, &ctx), &ctx);
    }
    free(strip);
}

static void write_segment(const char *dir, uint32_t rows)
{
    static const uint8_t collection[16];
    struct seq_run run = {.version = 1};
    struct segment_writer *w;
    struct io *io;
    struct err_ctx ctx;
    char path[500];
    err_clear(&ctx);
    snprintf(path, sizeof path, "%s/1.seg", dir);
    unlink(path);
    check(io_new(IO_POSIX, &io, &ctx), &ctx);
    check(segment_writer_new(io, path, collection, 1, schema, 0, &w, &ctx), &ctx);
    append_rows(w, rows);
    check(segment_writer_finish(w, &run, 1, &ctx), &ctx);
    segment_writer_free(w);
    check(segment_open(path, NULL, &segment, &ctx), &ctx);
    io_free(io);
}

static void build_graph(char *path)
{
    int status;
    char *argv[] = {"build-index", "--segment", segment->path, "--out", path,
                    "--kind",      "hnsw",      "--threads",   "2"};
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stdout))
            _exit(1);
        _exit(build_index_main(9, argv));
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        die("the build failed");
}

/* Rows are the same every time, so a graph that an earlier run left serves again. */
static void attach_graph(const char *dir)
{
    char path[500];
    struct ann_file *a;
    struct err_ctx ctx;
    snprintf(path, sizeof path, "%s/filter-%u.ann", dir, segment->rows);
    if (access(path, R_OK) != 0)
        build_graph(path);
    err_clear(&ctx);
    check(ann_file_open(path, &a, &ctx), &ctx);
    segment_set_ann(segment, a, ann_file_close);
}

static void make_snapshot(void)
{
    snapshot = calloc(1, sizeof *snapshot + sizeof(struct view));
    queries = malloc(QUERIES * DIM * sizeof(float));
    if (!snapshot || !queries)
        die("no memory");
    snapshot->schema = schema;
    snapshot->rows = snapshot->vectors = segment->rows;
    snapshot->nviews = 1;
    snapshot->views[0] =
        (struct view){.segment = segment, .rows = segment->rows, .live = segment->rows};
    uint64_t rng = 99;
    for (int i = 0; i < QUERIES; i++)
        make_vector(&rng, queries + i * DIM);
}

static struct filter *parse(const char *text)
{
    struct filter *f;
    struct err_ctx ctx;
    err_clear(&ctx);
    check(filter_parse(schema, text, strlen(text), &f, &ctx), &ctx);
    return f;
}

/* ---- evaluating ---- */

/* What one would write for one filter: cells by segment_cell, one row after the other. */

static const void *cell(uint32_t row, uint32_t feature, size_t *n)
{
    return segment_cell(segment, row, feature, n);
}

static bool loop_category(uint32_t row)
{
    size_t n;
    const int32_t *v = cell(row, CATEGORY, &n);
    return v && *v < 500;
}

static bool loop_three(uint32_t row)
{
    size_t n;
    const int32_t *category = cell(row, CATEGORY, &n);
    const float *price = cell(row, PRICE, &n);
    const uint8_t *active = cell(row, ACTIVE, &n);
    return category && *category < 500 && price && *price >= 10 && *price <= 50 && active &&
           *active;
}

static bool loop_in(uint32_t row)
{
    static const int32_t list[] = {1, 5, 9, 100, 200, 300, 400, 500, 600, 700};
    size_t n;
    const int32_t *v = cell(row, CATEGORY, &n);
    for (size_t i = 0; v && i < sizeof list / sizeof list[0]; i++) {
        if (*v == list[i])
            return true;
    }
    return false;
}

static bool loop_name(uint32_t row)
{
    size_t n;
    const char *v = cell(row, NAME, &n);
    return v && n == 9 && memcmp(v, "item-1234", 9) == 0;
}

static bool loop_like(uint32_t row)
{
    size_t n;
    const char *v = cell(row, NAME, &n);
    return v && n >= 6 && memcmp(v, "item-7", 6) == 0;
}

static const struct {
    const char *text;
    bool (*loop)(uint32_t row);
} lines[] = {
    {"category < 500", loop_category},
    {"category < 500 and price between 10 and 50 and active", loop_three},
    {"category in (1, 5, 9, 100, 200, 300, 400, 500, 600, 700)", loop_in},
    {"name = 'item-1234'", loop_name},
    {"name like 'item-7%'", loop_like},
};
enum { LINES = sizeof lines / sizeof lines[0] };

static uint64_t by_words(const struct filter *f)
{
    uint64_t n = 0;
    for (uint32_t w = 0; w < segment->rows / 64; w++)
        n += (unsigned)__builtin_popcountll(filter_word(f, segment, w, UINT64_MAX));
    return n;
}

static uint64_t by_rows(const struct filter *f)
{
    uint64_t n = 0;
    for (uint32_t row = 0; row < segment->rows / 64 * 64; row++)
        n += filter_match(f, segment, row);
    return n;
}

static uint64_t by_loop(int line)
{
    uint64_t n = 0;
    for (uint32_t row = 0; row < segment->rows / 64 * 64; row++)
        n += lines[line].loop(row);
    return n;
}

static void note_best(double *best, uint64_t start_us)
{
    double ns = (double)(clock_mono_us() - start_us) * 1000 / segment->rows;
    if (*best == 0 || ns < *best)
        *best = ns;
}

static void measure_evaluation(void)
{
    double best[LINES][3] = {{0}};
    uint64_t found[3];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < LINES; i++) {
            struct filter *f = parse(lines[i].text);
            uint64_t start = clock_mono_us();
            found[0] = by_words(f);
            note_best(&best[i][0], start);
            start = clock_mono_us();
            found[1] = by_rows(f);
            note_best(&best[i][1], start);
            start = clock_mono_us();
            found[2] = by_loop(i);
            note_best(&best[i][2], start);
            filter_free(f);
            if (found[0] != found[1] || found[0] != found[2])
                die("the ways disagree");
        }
    }
    printf("ns a row:   64 at a time   one at a time   own loop\n");
    for (int i = 0; i < LINES; i++)
        printf("            %12.1f %15.1f %10.1f   %s\n", best[i][0], best[i][1], best[i][2],
               lines[i].text);
}

/* ---- searching ---- */

static const char *const filters[] = {
    NULL,          "any >= 0",    "any < 990000", "any < 500000", "any < 200000", "any < 100000",
    "any < 50000", "any < 20000", "any < 10000",  "any < 1000",   "any < 100",
};
enum { FILTERS = sizeof filters / sizeof filters[0] };

static double search_all(const struct search_params *p, size_t nq, struct hit *hits,
                         uint32_t *nhits)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    uint64_t start = clock_mono_us();
    for (size_t q = 0; q < QUERIES; q += nq)
        check(search_run(snapshot, queries + q * DIM, nq, p, search_scratch_local(), hits + q * K,
                         nhits + q, &ctx),
              &ctx);
    return (double)(clock_mono_us() - start) / QUERIES;
}

static double recall(const struct hit *hits, const uint32_t *n, const struct hit *wanted,
                     const uint32_t *nwanted)
{
    uint32_t found = 0, all = 0;
    for (int q = 0; q < QUERIES; q++) {
        all += nwanted[q];
        for (uint32_t i = 0; i < nwanted[q]; i++)
            for (uint32_t j = 0; j < n[q]; j++)
                found += wanted[q * K + i].ref.row == hits[q * K + j].ref.row;
    }
    return all ? (double)found / all : 1;
}

static void print_search(const char *text, const struct search_params *p, const double best[2],
                         double none, double recall)
{
    static const char *const ways[] = {"scan", "graph", "lists", "codes"};
    struct search_step step;
    search_explain(snapshot, 1, p, 0, &step);
    printf("            %8.0f %12.2f %14.0f   %.3f   %-5s   %s\n", best[0], best[0] / none, best[1],
           recall, ways[step.way], text ? text : "no filter");
}

static void measure_searches(void)
{
    static struct hit hits[QUERIES * K], wanted[QUERIES * K];
    static uint32_t nhits[QUERIES], nwanted[QUERIES];
    double best[FILTERS][2] = {{0}}, found[FILTERS];
    struct filter *parsed[FILTERS];
    for (int i = 0; i < FILTERS; i++)
        parsed[i] = filters[i] ? parse(filters[i]) : NULL;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < FILTERS; i++) {
            struct search_params p = {.k = K, .filter = parsed[i]};
            for (int batch = 0; batch < 2; batch++) {
                double us = search_all(&p, batch ? QUERIES : 1, hits, nhits);
                if (best[i][batch] == 0 || us < best[i][batch])
                    best[i][batch] = us;
                if (round == 0 && !batch) {
                    p.exact = true;
                    (void)search_all(&p, QUERIES, wanted, nwanted);
                    p.exact = false;
                    found[i] = recall(hits, nhits, wanted, nwanted);
                }
            }
        }
    }
    printf("us a query: alone   to no filter   %d at once   recall\n", QUERIES);
    for (int i = 0; i < FILTERS; i++) {
        struct search_params p = {.k = K, .filter = parsed[i]};
        print_search(filters[i], &p, best[i], best[0][0], found[i]);
        filter_free(parsed[i]);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs("usage: filter_rows DIR [ROWS]\n", stderr);
        return 2;
    }
    uint32_t rows = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 200000;
    struct err_ctx ctx;
    err_clear(&ctx);
    check(kernels_init(&ctx), &ctx);
    make_schema();
    write_segment(argv[1], rows);
    attach_graph(argv[1]);
    make_snapshot();
    measure_evaluation();
    measure_searches();
    return 0;
}
