/* Search with a filter: whatever share of the rows matches, and wherever those lie, hits match, are
 * as many as k or as there are, and near enough; exact search gives the very nearest.
 *
 * Rows are sorted by their first element, keys count them. So a range of keys is a slab of space,
 * and queries lie at its far end: the filter `key >= n` keeps what is near a query, `key < n` what
 * is far from it, and a list of scattered keys neither. */
#include "rig.h"

#include <math.h>
#include <stdio.h>

#include "index/search_internal.h"

enum { ROWS = 20000, INDEXED = 18500, DIM = 24, QUERIES = 40, K = 10 };

enum place { SCATTERED, NEAR, FAR, PLACES };

struct world {
    struct rig rig;
    float *vectors, *queries;
    struct segment *segments[3];
    struct snapshot *snapshot;
    struct filter *filter;
    bool matches[ROWS];
    uint32_t nmatches;
};

static struct hit hits[QUERIES * K], wanted[QUERIES * K];
static uint32_t nhits[QUERIES], nwanted[QUERIES];

static int by_first(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void build(struct world *w, const char *kind)
{
    char error[512], path[600];
    snprintf(path, sizeof(path), "%s", temp_path(&w->rig.dir, "1.ann"));
    char *argv[] = {"build-index", "--segment",  w->segments[0]->path, "--out", path,
                    "--kind",      (char *)kind, "--threads",          "1"};
    if (rig_build_with(9, argv, error, sizeof(error)) != 0)
        fail_msg("%s", error);
    rig_attach(w->segments[0], path);
}

/* An indexed file, a small file and a tail; kind NULL: no index. Some rows are dead. */
static void world_open(struct world *w, const char *kind, enum metric metric)
{
    const uint32_t small = INDEXED + 500;
    memset(w, 0, sizeof(*w));
    rig_open(&w->rig, KEY_INT64, DIM, metric);
    w->vectors = rig_vectors(ROWS, DIM, 40, 1);
    w->queries = rig_vectors(10 * QUERIES, DIM, 40, 2);
    qsort(w->vectors, ROWS, DIM * sizeof(float), by_first);
    qsort(w->queries, 10 * QUERIES, DIM * sizeof(float), by_first);
    memmove(w->queries, w->queries + 9 * QUERIES * DIM, QUERIES * DIM * sizeof(float));
    const float *v = w->vectors;
    w->segments[0] = rig_file(&w->rig, 1, v, INDEXED, 0, NULL);
    w->segments[1] = rig_file(&w->rig, 2, v + INDEXED * DIM, 500, INDEXED, NULL);
    w->segments[2] = rig_tail(&w->rig, 3, v + small * DIM, ROWS - small, small, NULL);
    if (kind)
        build(w, kind);
    w->snapshot = rig_snapshot(&w->rig, w->segments, 3);
    for (uint32_t row = 5; row < INDEXED; row += 11)
        rig_kill(w->snapshot, 0, row);
}

static void set_filter(struct world *w, const char *text)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    filter_free(w->filter);
    w->filter = NULL;
    if (filter_parse(w->rig.schema, text, strlen(text), &w->filter, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    w->nmatches = 0;
    for (uint32_t i = 0, key = 0; i < 3; i++) {
        const struct view *v = &w->snapshot->views[i];
        for (uint32_t row = 0; row < v->rows; row++, key++) {
            w->matches[key] = view_live(v, row) && filter_match(w->filter, v->segment, row);
            w->nmatches += w->matches[key];
        }
    }
}

static void set_share(struct world *w, enum place place, double share)
{
    struct buf text = {0};
    uint32_t n = (uint32_t)(share * ROWS);
    if (place == NEAR) {
        buf_printf(&text, "key >= %u", ROWS - n);
    } else if (place == FAR) {
        buf_printf(&text, "key < %u", n);
    } else {
        uint64_t seed = 3;
        buf_printf(&text, "key in (-1");
        for (uint32_t key = 0; key < ROWS; key++) {
            if ((double)(rig_random(&seed) >> 11) < share * 0x1p53)
                buf_printf(&text, ",%u", key);
        }
        buf_printf(&text, ")");
    }
    buf_put_u8(&text, 0);
    set_filter(w, (char *)text.data);
    buf_deinit(&text);
}

static void world_close(struct world *w)
{
    filter_free(w->filter);
    snapshot_release(w->snapshot);
    free(w->vectors);
    free(w->queries);
    rig_close(&w->rig);
}

static void run(const struct world *w, const struct search_params *p, size_t nq, struct hit *out,
                uint32_t *n)
{
    for (size_t q = 0; q < QUERIES; q += nq)
        assert_int_equal(search_run(w->snapshot, w->queries + q * DIM, nq, p,
                                    search_scratch_local(), out + q * p->k, n + q, NULL),
                         ERR_OK);
}

static void expect_complete(const struct world *w, uint32_t k, const char *what)
{
    uint32_t most = w->nmatches < k ? w->nmatches : k;
    for (uint32_t q = 0; q < QUERIES; q++) {
        if (nhits[q] != most)
            fail_msg("%s: query %u has %u hits of %u (%u rows match)", what, q, nhits[q], most,
                     w->nmatches);
        for (uint32_t i = 0; i < nhits[q]; i++) {
            assert_true(w->matches[rig_key(w->snapshot, hits[q * k + i].ref)]);
            for (uint32_t j = 0; j < i; j++)
                assert_memory_not_equal(&hits[q * k + i].ref, &hits[q * k + j].ref,
                                        sizeof(struct row_ref));
        }
    }
}

/* Share of the exact hits that were found. */
static double recall(uint32_t k)
{
    uint32_t found = 0, all = 0;
    for (uint32_t q = 0; q < QUERIES; q++) {
        all += nwanted[q];
        for (uint32_t i = 0; i < nwanted[q]; i++)
            for (uint32_t j = 0; j < nhits[q]; j++)
                found += memcmp(&wanted[q * k + i].ref, &hits[q * k + j].ref,
                                sizeof(struct row_ref)) == 0;
    }
    return all ? (double)found / all : 1;
}

/* The k-th nearest matching row by looking at each. */
static void expect_exact(const struct world *w, uint32_t k)
{
    for (uint32_t q = 0; q < QUERIES; q++) {
        const float *query = w->queries + q * DIM;
        double worst = nwanted[q] ? wanted[q * k + nwanted[q] - 1].distance : 0;
        uint32_t nearer = 0;
        for (uint32_t key = 0; key < ROWS; key++) {
            double sum = 0;
            for (int i = 0; i < DIM; i++) {
                double d = (double)query[i] - w->vectors[key * DIM + i];
                sum += d * d;
            }
            nearer += w->matches[key] && sqrt(sum) < worst * (1 - 1e-12);
        }
        assert_true(nearer < k);
        assert_int_equal(nwanted[q], w->nmatches < k ? w->nmatches : k);
    }
}

static const double shares[] = {0, 0.0001, 0.0005, 0.01, 0.1, 0.5, 0.99, 1};
static const char *const places[] = {"scattered", "near", "far"};

/* Least recall, and that nothing is missing, for every share and place. */
static void try_all(struct world *w, struct search_params p, double least)
{
    char what[80];
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        for (int place = 0; place < PLACES; place++) {
            set_share(w, (enum place)place, shares[i]);
            struct search_params exact = {.k = K, .exact = true, .filter = w->filter};
            p.filter = w->filter;
            run(w, &exact, QUERIES, wanted, nwanted);
            if (w->rig.schema->metric == DIST_L2 && p.ef != 10)
                expect_exact(w, K);
            for (size_t nq = 1; nq <= QUERIES; nq *= QUERIES) {
                snprintf(what, sizeof(what), "%g %s, %zu at a time", shares[i], places[place], nq);
                run(w, &p, nq, hits, nhits);
                expect_complete(w, K, what);
                double r = recall(K);
                if (r < least)
                    fail_msg("metric %d, %s: recall %.3f", w->rig.schema->metric, what, r);
            }
        }
    }
}

static void a_graph_finds_what_matches(void **state)
{
    struct world w;
    (void)state;
    for (int m = 0; m < 3; m++) {
        world_open(&w, "hnsw", (enum metric)m);
        try_all(&w, (struct search_params){.k = K, .ef = 128}, 0.95);
        world_close(&w);
    }
}

static void a_graph_asked_for_recall_finds_that(void **state)
{
    struct world w;
    (void)state;
    for (int m = DIST_COSINE; m <= DIST_L2; m++) { /* by inner product it is out of reach */
        world_open(&w, "hnsw", (enum metric)m);
        try_all(&w, (struct search_params){.k = K, .recall = 0.95}, 0.93);
        world_close(&w);
    }
}

static void lists_find_what_matches(void **state)
{
    struct world w;
    (void)state;
    for (int m = 0; m < 3; m++) {
        world_open(&w, "ivf", (enum metric)m);
        uint32_t nprobe = m == DIST_IP ? 32 : 16; /* .99 of all rows without a filter */
        try_all(&w, (struct search_params){.k = K, .nprobe = nprobe}, 0.95);
        world_close(&w);
    }
}

static void a_scan_finds_exactly_what_matches(void **state)
{
    struct world w;
    (void)state;
    world_open(&w, NULL, DIST_L2);
    try_all(&w, (struct search_params){.k = K}, 1);
    world_close(&w);
}

/* However low the effort, no hit is missing: the walk is widened, or a scan takes over. */
static void low_effort_leaves_no_hit_out(void **state)
{
    struct world w;
    (void)state;
    world_open(&w, "hnsw", DIST_L2);
    try_all(&w, (struct search_params){.k = K, .ef = 10}, 0);
    world_close(&w);
    world_open(&w, "ivf", DIST_L2);
    try_all(&w, (struct search_params){.k = K, .nprobe = 1}, 0);
    world_close(&w);
}

static void radius_and_left_out_rows_combine_with_a_filter(void **state)
{
    struct world w;
    (void)state;
    world_open(&w, "hnsw", DIST_L2);
    set_share(&w, SCATTERED, 0.5);
    struct search_params p = {.k = K, .exact = true, .filter = w.filter};
    run(&w, &p, QUERIES, wanted, nwanted);
    p.exact = false;
    p.bounded = true;
    p.radius = wanted[4].distance;
    run(&w, &p, 1, hits, nhits);
    assert_int_equal(nhits[0], 5);
    struct row_ref exclude[QUERIES];
    for (uint32_t q = 0; q < QUERIES; q++)
        exclude[q] = wanted[q * K].ref;
    p.bounded = false;
    p.exclude = exclude;
    run(&w, &p, QUERIES, hits, nhits);
    for (uint32_t q = 0; q < QUERIES; q++) {
        assert_int_equal(nhits[q], K);
        assert_memory_not_equal(&hits[q * K].ref, &exclude[q], sizeof(exclude[q]));
    }
    world_close(&w);
}

static void few_matches_are_scanned_and_many_walked(void **state)
{
    struct world w;
    struct search_step step;
    (void)state;
    world_open(&w, "hnsw", DIST_L2);
    struct search_params p = {.k = K, .ef = 40};
    search_explain(w.snapshot, 1, &p, 0, &step);
    assert_int_equal(step.way, SEARCH_GRAPH);
    assert_true(step.share == 1);
    set_share(&w, FAR, 0.9);
    p.filter = w.filter;
    search_explain(w.snapshot, 1, &p, 0, &step);
    assert_int_equal(step.way, SEARCH_GRAPH);
    assert_true(fabs(step.share - 0.9 * ROWS / INDEXED) < 0.05);
    assert_false(step.cached);
    set_share(&w, FAR, 0.1); /* 2,000 rows: too many to measure by their vectors */
    p.filter = w.filter;
    search_explain(w.snapshot, 1, &p, 0, &step);
    assert_int_equal(step.way, SEARCH_CODES);
    p.exact = true;
    search_explain(w.snapshot, 1, &p, 0, &step);
    assert_int_equal(step.way, SEARCH_SCAN);
    p.exact = false;
    set_share(&w, FAR, 0.002);
    p.filter = w.filter;
    for (int use = 0; use < 2; use++)
        run(&w, &p, 1, hits, nhits);
    search_explain(w.snapshot, 1, &p, 0, &step);
    assert_int_equal(step.way, SEARCH_SCAN);
    assert_true(step.cached);
    assert_true(fabs(step.share - 0.002 * ROWS / INDEXED) < 2e-4);
    search_explain(w.snapshot, 1, &p, 2, &step);
    assert_int_equal(step.way, SEARCH_SCAN);
    assert_int_equal(step.rows, 1000);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scan_finds_exactly_what_matches),
        cmocka_unit_test(a_graph_finds_what_matches),
        cmocka_unit_test(a_graph_asked_for_recall_finds_that),
        cmocka_unit_test(lists_find_what_matches),
        cmocka_unit_test(low_effort_leaves_no_hit_out),
        cmocka_unit_test(radius_and_left_out_rows_combine_with_a_filter),
        cmocka_unit_test(few_matches_are_scanned_and_many_walked),
    };
    if (getenv("ONLY"))
        cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
