/* Walks on codes against walks on vectors over the same graph: as good at equal effort, for every
 * metric and many dimensions; the same hits on every instruction set; queries far from all data;
 * everything that a walk must get right whatever it runs on. */
#include "index/kernels.h"
#include "rig.h"

enum { QUERIES = 100, K = 10, K_MAX = 400 };

struct world {
    struct rig rig;
    uint32_t dim;
    size_t rows;
    float *vectors, *queries;
    struct snapshot *snapshot;
    struct ann_file *graph;
    const uint8_t *codes;
};

static struct hit hits[QUERIES * K_MAX], others[QUERIES * K_MAX];
static uint32_t nhits[QUERIES], nothers[QUERIES];

static void world_open(struct world *w, enum metric metric, uint32_t dim, size_t rows)
{
    rig_open(&w->rig, KEY_INT64, dim, metric);
    w->dim = dim;
    w->rows = rows;
    w->vectors = rig_vectors(rows, dim, 40, 1);
    w->queries = rig_vectors(QUERIES, dim, 40, 2);
    struct segment *s = rig_file(&w->rig, 1, w->vectors, rows, 0, NULL);
    rig_attach(s, rig_build(&w->rig, s));
    w->graph = (struct ann_file *)segment_ann(s);
    w->codes = w->graph->codes;
    assert_true(w->codes || dim < 64); /* few dimensions may want more than 7 bits */
    w->snapshot = rig_snapshot(&w->rig, &s, 1);
}

static void world_close(struct world *w)
{
    snapshot_release(w->snapshot);
    free(w->vectors);
    free(w->queries);
    rig_close(&w->rig);
}

static void search(const struct world *w, const struct search_params *p, struct hit *to,
                   uint32_t *n)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    if (search_run(w->snapshot, w->queries, QUERIES, p, search_scratch_local(), to, n, &ctx) !=
        ERR_OK)
        fail_msg("%s", ctx.detail);
}

/* Share of the nearest that `to` has; ties count by their distance. */
static double recall(const struct world *w, uint32_t k, uint32_t ef)
{
    struct search_params exact = {.k = k, .exact = true}, p = {.k = k, .ef = ef};
    size_t found = 0, all = 0;
    search(w, &exact, others, nothers);
    search(w, &p, hits, nhits);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(nhits[q], nothers[q]);
        double last = others[q * k + nothers[q] - 1].distance;
        all += nothers[q];
        for (uint32_t i = 0; i < nhits[q]; i++)
            found += hits[q * k + i].distance <= last;
    }
    return (double)found / (double)all;
}

static void compare(enum metric metric, uint32_t dim, size_t rows)
{
    static const uint32_t ks[] = {1, 10, 100};
    struct world w;
    world_open(&w, metric, dim, rows);
    for (size_t i = 0; i < 3; i++) {
        for (uint32_t ef = 32; ef <= 128; ef *= 2) {
            w.graph->codes = w.codes;
            double coded = recall(&w, ks[i], ef);
            w.graph->codes = NULL;
            double plain = recall(&w, ks[i], ef);
            if (coded < plain - 0.005)
                fail_msg("%s, %u dimensions, k %u, ef %u: recall %.4f by codes, %.4f by vectors",
                         metric_name(metric), dim, ks[i], ef, coded, plain);
        }
    }
    world_close(&w);
}

static void codes_find_what_vectors_find(void **state)
{
    (void)state;
    static const uint32_t dims[] = {1, 3, 64, 65, 300};
    for (int metric = DIST_COSINE; metric <= DIST_IP; metric++) {
        for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
            if (dims[i] > 1 || metric != DIST_COSINE) /* which knows two vectors of one dimension */
                compare((enum metric)metric, dims[i], dims[i] > 100 ? 3000 : 6000);
        }
    }
}

static void hits_are_the_same_on_every_instruction_set(void **state)
{
    (void)state;
    static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512vnni"};
    const struct kernels was = kernels;
    for (int metric = DIST_COSINE; metric <= DIST_IP; metric++) {
        struct world w;
        struct search_params p = {.k = K, .ef = 20};
        world_open(&w, (enum metric)metric, 65, 5000);
        kernels = kernels_scalar;
        search(&w, &p, others, nothers);
        for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
            const struct kernels *k = kernels_find(isas[i]);
            if (!k)
                continue;
            kernels = *k;
            search(&w, &p, hits, nhits);
            assert_memory_equal(nhits, nothers, sizeof(nhits));
            for (size_t h = 0; h < QUERIES * K; h++)
                assert_true(hits[h].distance == others[h].distance &&
                            hits[h].ref.row == others[h].ref.row);
        }
        kernels = was;
        world_close(&w);
    }
}

/* The order of codes says little of them: they walk on the vectors. */
static void queries_far_from_all_data_are_walked_on_vectors(void **state)
{
    (void)state;
    struct world w;
    struct search_params p = {.k = K, .ef = 20};
    world_open(&w, DIST_L2, 40, 5000);
    for (size_t i = 0; i < QUERIES * 40; i++)
        w.queries[i] += i % 2 ? 100 : -100;
    search(&w, &p, hits, nhits);
    w.graph->codes = NULL;
    search(&w, &p, others, nothers);
    for (size_t h = 0; h < QUERIES * K; h++)
        assert_true(hits[h].distance == others[h].distance && hits[h].ref.row == others[h].ref.row);
    world_close(&w);
}

/* Searches queries [from, from + n) of the world, in one call, into others. */
static void search_some(const struct world *w, const struct search_params *p, size_t from, size_t n)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    if (search_run(w->snapshot, w->queries + from * w->dim, n, p, search_scratch_local(),
                   others + from * p->k, nothers + from, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
}

static void compare_hits(const struct search_params *p, size_t n)
{
    for (size_t q = 0; q < n; q++) {
        assert_int_equal(nhits[q], nothers[q]);
        for (uint32_t i = 0; i < nhits[q]; i++) {
            const struct hit *a = &hits[q * p->k + i], *b = &others[q * p->k + i];
            assert_true(a->distance == b->distance && a->ref.row == b->ref.row);
        }
    }
}

/* Large enough for walks to take turns, on codes of one part and of two, and on vectors. */
static void queries_find_the_same_alone_and_in_company(void **state)
{
    (void)state;
    static const struct {
        enum metric metric;
        uint32_t dim;
        size_t rows;
    } worlds[] = {{DIST_L2, 2000, 4500}, {DIST_IP, 1500, 6000}};
    for (size_t i = 0; i < sizeof(worlds) / sizeof(worlds[0]); i++) {
        struct world w;
        world_open(&w, worlds[i].metric, worlds[i].dim, worlds[i].rows);
        for (uint32_t k = 0; k < w.dim; k++)
            w.queries[7 * w.dim + k] *= 1000; /* l2: walked on vectors between others on codes */
        for (int run = 0; run < 3; run++) {
            struct search_params p = {.k = K, .ef = 24};
            w.graph->codes = run == 2 ? NULL : w.codes;
            if (run == 1)
                rig_kill(w.snapshot, 0, 77);
            for (size_t q = 0; q < QUERIES; q++)
                search_some(&w, &p, q, 1);
            memcpy(hits, others, sizeof(hits));
            memcpy(nhits, nothers, sizeof(nhits));
            for (size_t n = 2; n <= QUERIES; n = n < 9 ? n + 1 : n < 64 ? 64 : n + 36) {
                memset(others, 0xff, sizeof(others));
                search_some(&w, &p, 0, n);
                compare_hits(&p, n);
            }
        }
        world_close(&w);
    }
}

static void check_live(const struct world *w, uint32_t k)
{
    for (size_t q = 0; q < QUERIES; q++) {
        for (uint32_t i = 0; i < nhits[q]; i++) {
            assert_true(view_live(&w->snapshot->views[0], hits[q * k + i].ref.row));
            assert_true(i == 0 || hits[q * k + i - 1].distance <= hits[q * k + i].distance);
        }
    }
}

/* Links that lead nowhere, to everything and to the node itself: hits are live rows, in order. */
static void hostile_links_do_no_harm(void **state)
{
    (void)state;
    static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512vnni"};
    const struct kernels was = kernels;
    struct world w;
    struct search_params p = {.k = K, .ef = 1};
    uint64_t seed = 6;
    world_open(&w, DIST_L2, 65, 2000);
    const uint32_t *links = w.graph->links, m = w.graph->shape.m;
    uint32_t *noise = malloc(2000u * 2 * ANN_M_MAX * sizeof(*noise));
    for (int run = 0; run < 12; run++) {
        const struct kernels *k = kernels_find(isas[run % 4]);
        w.graph->shape.m = run < 4 ? m : run < 8 ? 1 : ANN_M_MAX;
        for (size_t i = 0; i < 2000u * 2 * ANN_M_MAX; i++) {
            uint64_t r = rig_random(&seed);
            noise[i] = r % 64 == 0 ? (uint32_t)(r >> 32) : (uint32_t)(r >> 32) % 2000;
        }
        w.graph->links = noise;
        w.graph->upper_lists = 0; /* which have m links each */
        kernels = k ? *k : was;
        for (p.ef = 1; p.ef <= 300; p.ef += 299) {
            search(&w, &p, hits, nhits);
            for (size_t q = 0; q < QUERIES; q++)
                assert_int_equal(nhits[q], K);
            check_live(&w, K);
        }
    }
    kernels = was;
    w.graph->links = links;
    w.graph->shape.m = m;
    free(noise);
    world_close(&w);
}

/* The smallest effort, a k that no walk gives, and deletions down to one row. */
static void a_result_is_never_short(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2, 20, 3000);
    for (uint32_t gone = 0; gone < 3; gone++) {
        struct search_params least = {.k = K, .ef = 1}, many = {.k = K_MAX};
        search(&w, &least, hits, nhits);
        for (size_t q = 0; q < QUERIES; q++)
            assert_int_equal(nhits[q], K);
        check_live(&w, K);
        search(&w, &many, hits, nhits);
        for (size_t q = 0; q < QUERIES; q++)
            assert_int_equal(nhits[q], K_MAX);
        check_live(&w, K_MAX);
        for (uint32_t row = gone; row < 3000; row += 4)
            rig_kill(w.snapshot, 0, row);
        assert_true(recall(&w, K, 128) > 0.99);
    }
    for (uint32_t row = 0; row < 3000; row++) {
        if (row != 779)
            rig_kill(w.snapshot, 0, row);
    }
    struct search_params p = {.k = K};
    search(&w, &p, hits, nhits);
    for (size_t q = 0; q < QUERIES; q++)
        assert_true(nhits[q] == 1 && hits[q * K].ref.row == 779);
    world_close(&w);
}

/* Whatever the bytes of codes are, rows are rows, live and in order. */
static void hostile_codes_do_no_harm(void **state)
{
    (void)state;
    static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512vnni"};
    const struct kernels was = kernels;
    for (int metric = DIST_COSINE; metric <= DIST_IP; metric++) {
        struct world w;
        struct search_params p = {.k = K, .ef = 30};
        uint64_t seed = 5;
        world_open(&w, (enum metric)metric, 65, 2000);
        uint8_t *noise = malloc(2000 * 128);
        for (int run = 0; run < 8; run++) {
            const struct kernels *k = kernels_find(isas[run / 2]);
            for (size_t i = 0; i < 2000 * 128; i++)
                noise[i] = run % 2 ? 0xff : (uint8_t)rig_random(&seed);
            w.graph->codes = noise;
            kernels = k ? *k : was;
            search(&w, &p, hits, nhits);
            for (size_t q = 0; q < QUERIES; q++)
                assert_int_equal(nhits[q], K);
            check_live(&w, K);
        }
        kernels = was;
        free(noise);
        w.graph->codes = w.codes;
        world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_find_what_vectors_find),
        cmocka_unit_test(hits_are_the_same_on_every_instruction_set),
        cmocka_unit_test(queries_far_from_all_data_are_walked_on_vectors),
        cmocka_unit_test(queries_find_the_same_alone_and_in_company),
        cmocka_unit_test(hostile_links_do_no_harm),
        cmocka_unit_test(a_result_is_never_short),
        cmocka_unit_test(hostile_codes_do_no_harm),
    };
    if (kernels_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
