/* Graph search: recall against FAISS's own flat index on clustered vectors, for every metric, with
 * deletions spread and in clumps, rows without vectors, several views; and that a search finds all
 * it must when the walk alone would not. */
#include <math.h>

#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_factory_c.h>

#include "index/kernels.h"
#include "rig.h"

enum { ROWS = 20000, QUERIES = 100, DIM = 32, K = 10, CLUSTERS = 50 };

struct world {
    struct rig rig;
    float *vectors, *queries;
    uint8_t *missing;
    struct segment *segments[3];
    struct snapshot *snapshot;
};

static struct hit hits[QUERIES * 1000];
static uint32_t nhits[QUERIES];

/* Rows 0 .. ROWS-3001 with a graph, then a file without one, then a tail. */
static void world_open(struct world *w, enum metric metric, bool with_missing)
{
    enum { GRAPH = ROWS - 3000, PLAIN = 2000, TAIL = 1000 };
    rig_open(&w->rig, KEY_INT64, DIM, metric);
    w->vectors = rig_vectors(ROWS, DIM, CLUSTERS, 1);
    w->queries = rig_vectors(QUERIES, DIM, CLUSTERS, 2);
    w->missing = calloc(1, ROWS);
    for (size_t i = 3; with_missing && i < ROWS; i += 7)
        w->missing[i] = 1;
    const float *v = w->vectors;
    w->segments[0] = rig_file(&w->rig, 1, v, GRAPH, 0, w->missing);
    w->segments[1] = rig_file(&w->rig, 2, v + GRAPH * DIM, PLAIN, GRAPH, w->missing + GRAPH);
    w->segments[2] = rig_tail(&w->rig, 3, v + (GRAPH + PLAIN) * DIM, TAIL, GRAPH + PLAIN,
                              w->missing + GRAPH + PLAIN);
    rig_attach(w->segments[0], rig_build(&w->rig, w->segments[0]));
    w->snapshot = rig_snapshot(&w->rig, w->segments, 3);
}

static void world_close(struct world *w)
{
    snapshot_release(w->snapshot);
    free(w->vectors);
    free(w->queries);
    free(w->missing);
    rig_close(&w->rig);
}

/* The row with key `key` is dead in the snapshot. */
static bool key_live(const struct world *w, int64_t key)
{
    struct row_ref ref;
    return snapshot_find_int(w->snapshot, key, &ref) && !w->missing[key];
}

static void normalise(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int j = 0; j < DIM; j++)
            sum += (double)v[i * DIM + j] * v[i * DIM + j];
        for (int j = 0; j < DIM; j++)
            v[i * DIM + j] = (float)(v[i * DIM + j] / sqrt(sum));
    }
}

/* FAISS's answer: keys of the K nearest live rows of each query. */
static void oracle(const struct world *w, int64_t *keys)
{
    enum metric metric = w->rig.schema->metric;
    float *live = malloc((size_t)ROWS * DIM * sizeof(float)), distances[QUERIES * K];
    float *queries = malloc((size_t)QUERIES * DIM * sizeof(float));
    int64_t *of = malloc(ROWS * sizeof(int64_t));
    idx_t labels[QUERIES * K];
    FaissIndex *flat = NULL;
    size_t n = 0;
    for (int64_t key = 0; key < ROWS; key++) {
        if (!key_live(w, key))
            continue;
        memcpy(live + n * DIM, w->vectors + key * DIM, DIM * sizeof(float));
        of[n++] = key;
    }
    memcpy(queries, w->queries, (size_t)QUERIES * DIM * sizeof(float));
    if (metric == DIST_COSINE) {
        normalise(live, n);
        normalise(queries, QUERIES);
    }
    assert_int_equal(faiss_index_factory(&flat, DIM, "Flat",
                                         metric == DIST_IP ? METRIC_INNER_PRODUCT : METRIC_L2),
                     0);
    assert_int_equal(faiss_Index_add(flat, (idx_t)n, live), 0);
    assert_int_equal(faiss_Index_search(flat, QUERIES, queries, K, distances, labels), 0);
    for (size_t i = 0; i < QUERIES * K; i++)
        keys[i] = labels[i] < 0 ? -1 : of[labels[i]];
    faiss_Index_free(flat);
    free(live);
    free(queries);
    free(of);
}

static void search(const struct world *w, uint32_t k, uint32_t ef, bool exact)
{
    struct search_params p = {.k = k, .ef = ef, .exact = exact};
    struct err_ctx ctx;
    err_clear(&ctx);
    if (search_run(w->snapshot, w->queries, QUERIES, &p, search_scratch_local(), hits, nhits,
                   &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
}

static double recall(const struct world *w, uint32_t ef)
{
    static int64_t want[QUERIES * K];
    size_t found = 0, all = 0;
    oracle(w, want);
    search(w, K, ef, false);
    for (size_t q = 0; q < QUERIES; q++) {
        for (size_t i = 0; i < nhits[q]; i++) {
            int64_t key = rig_key(w->snapshot, hits[q * K + i].ref);
            assert_true(key_live(w, key));
            for (size_t j = 0; j < K; j++)
                found += want[q * K + j] == key;
        }
        for (size_t j = 0; j < K; j++)
            all += want[q * K + j] >= 0;
        assert_int_equal(nhits[q], K);
    }
    return (double)found / (double)all;
}

static void assert_recall(const struct world *w, uint32_t ef, double least)
{
    double r = recall(w, ef);
    print_message("ef %u: recall@10 %.4f\n", ef, r);
    if (r < least)
        fail_msg("recall@10 %.4f at ef %u, expected %.2f", r, ef, least);
}

static void graph_recall(enum metric metric, bool with_missing)
{
    struct world w;
    world_open(&w, metric, with_missing);
    assert_recall(&w, 64, 0.95);
    assert_recall(&w, 256, 0.99);
    for (uint32_t row = 0; row < ROWS - 3000; row += 3)
        rig_kill(w.snapshot, 0, row);
    for (uint32_t row = 0; row < 1000; row += 4)
        rig_kill(w.snapshot, 2, row);
    assert_recall(&w, 256, 0.99);
    world_close(&w);
}

static void recall_l2(void **state)
{
    (void)state;
    graph_recall(DIST_L2, false);
}

static void recall_l2_with_rows_without_vectors(void **state)
{
    (void)state;
    graph_recall(DIST_L2, true);
}

static void recall_cosine(void **state)
{
    (void)state;
    graph_recall(DIST_COSINE, true);
}

static void recall_ip(void **state)
{
    (void)state;
    graph_recall(DIST_IP, false);
}

/* Everything near the queries is deleted: the hits are the nearest of what is left. */
static void a_query_amid_deleted_rows_finds_the_live_ones(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2, false);
    search(&w, 400, 1000, true);
    for (size_t q = 0; q < 8; q++) {
        for (size_t i = 0; i < nhits[q]; i++)
            rig_kill(w.snapshot, hits[q * 400 + i].ref.view, hits[q * 400 + i].ref.row);
    }
    assert_recall(&w, 128, 0.98);
    world_close(&w);
}

static void mostly_dead_views_are_scanned(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2, false);
    for (uint32_t row = 0; row < ROWS - 3000; row++) {
        if (row % 1000)
            rig_kill(w.snapshot, 0, row);
    }
    assert_recall(&w, 16, 1.0);
    world_close(&w);
}

/* Large k: the walk cannot give what is asked for, the result is complete all the same. */
static void the_result_is_never_short(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_COSINE, true);
    for (uint32_t row = 0; row < ROWS - 3000; row += 2)
        rig_kill(w.snapshot, 0, row);
    search(&w, 1000, 0, false);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(nhits[q], 1000);
        for (size_t i = 1; i < 1000; i++)
            assert_true(hits[q * 1000 + i - 1].distance <= hits[q * 1000 + i].distance);
    }
    world_close(&w);
}

static void a_row_of_the_graph_can_be_left_out(void **state)
{
    (void)state;
    struct world w;
    struct row_ref self[QUERIES];
    world_open(&w, DIST_L2, false);
    for (size_t q = 0; q < QUERIES; q++) {
        self[q] = (struct row_ref){0, (uint32_t)q * 100};
        memcpy(w.queries + q * DIM, w.vectors + q * 100 * DIM, DIM * sizeof(float));
    }
    struct search_params p = {.k = K, .exclude = self};
    assert_int_equal(
        search_run(w.snapshot, w.queries, QUERIES, &p, search_scratch_local(), hits, nhits, NULL),
        ERR_OK);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(nhits[q], K);
        for (size_t i = 0; i < K; i++)
            assert_true(hits[q * K + i].ref.view != 0 || hits[q * K + i].ref.row != q * 100);
    }
    p.exclude = NULL;
    assert_int_equal(
        search_run(w.snapshot, w.queries, QUERIES, &p, search_scratch_local(), hits, nhits, NULL),
        ERR_OK);
    for (size_t q = 0; q < QUERIES; q++)
        assert_true(hits[q * K].distance == 0 && hits[q * K].ref.row == q * 100);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_l2),
        cmocka_unit_test(recall_l2_with_rows_without_vectors),
        cmocka_unit_test(recall_cosine),
        cmocka_unit_test(recall_ip),
        cmocka_unit_test(a_query_amid_deleted_rows_finds_the_live_ones),
        cmocka_unit_test(mostly_dead_views_are_scanned),
        cmocka_unit_test(the_result_is_never_short),
        cmocka_unit_test(a_row_of_the_graph_can_be_left_out),
    };
    if (kernels_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
