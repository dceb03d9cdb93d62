/* Rows that share their vector (twins) are one node of the graph: recall does not suffer from them,
 * among them the smallest keys win, deletions and left-out rows count for the row and not for its
 * twins, and one vector in all rows is as good a graph as any. */
#include "index/kernels.h"
#include "index/key_order.h"
#include "index/search_internal.h"
#include "rig.h"

enum { DISTINCT = 6000, DIM = 32, QUERIES = 200, CLUSTERS = 50, GROUP_MAX = 100 };

struct world {
    struct rig rig;
    size_t rows;
    uint32_t *group;           /* per row: which of the DISTINCT vectors it has */
    float *distinct, *vectors; /* vectors: rows x DIM */
    float *queries;
    uint8_t *missing;
    struct segment *segment;
    const struct ann_file *graph;
    struct snapshot *snapshot;
};

static struct hit hits[QUERIES * GROUP_MAX], wanted[QUERIES * GROUP_MAX];
static uint32_t nhits[QUERIES], nwanted[QUERIES];

/* Every tenth vector is that of 2 to GROUP_MAX rows, scattered among the others. */
static void deal_groups(struct world *w)
{
    uint64_t state = 9;
    w->group = malloc(DISTINCT * GROUP_MAX * sizeof(uint32_t));
    for (uint32_t i = 0; i < DISTINCT; i++) {
        uint64_t n = i % 10 ? 1 : 2 + rig_random(&state) % (GROUP_MAX - 1);
        while (n-- > 0)
            w->group[w->rows++] = i;
    }
    for (size_t i = w->rows - 1; i > 0; i--) {
        size_t j = rig_random(&state) % (i + 1);
        uint32_t t = w->group[i];
        w->group[i] = w->group[j];
        w->group[j] = t;
    }
}

/* The vector of a row; for cosine, twins differ in their length. */
static void put_vector(struct world *w, size_t row)
{
    float scale = w->rig.schema->metric == DIST_COSINE ? 1.0f / (float)(1 << row % 5) : 1;
    for (size_t j = 0; j < DIM; j++)
        w->vectors[row * DIM + j] = w->distinct[w->group[row] * DIM + j] * scale;
}

static void world_open(struct world *w, enum key_type key, enum metric metric, bool with_missing)
{
    *w = (struct world){0};
    rig_open(&w->rig, key, DIM, metric);
    w->distinct = rig_vectors(DISTINCT, DIM, CLUSTERS, 1);
    w->queries = rig_vectors(QUERIES, DIM, CLUSTERS, 2);
    deal_groups(w);
    w->vectors = malloc(w->rows * DIM * sizeof(float));
    w->missing = calloc(w->rows, 1);
    for (size_t row = 0; row < w->rows; row++) {
        put_vector(w, row);
        w->missing[row] = with_missing && row % 7 == 3;
    }
    for (size_t q = 0; q < QUERIES; q += 4) /* of those that many rows have */
        memcpy(w->queries + q * DIM, w->distinct + q * 10 * DIM, DIM * sizeof(float));
    w->segment = rig_file(&w->rig, 1, w->vectors, w->rows, 0, w->missing);
    rig_attach(w->segment, rig_build(&w->rig, w->segment));
    w->graph = segment_ann(w->segment);
    w->snapshot = rig_snapshot(&w->rig, &w->segment, 1);
    assert_true(graph_pays(&w->snapshot->views[0], w->graph, 128));
}

static void world_close(struct world *w)
{
    snapshot_release(w->snapshot);
    free(w->group);
    free(w->distinct);
    free(w->vectors);
    free(w->missing);
    free(w->queries);
    rig_close(&w->rig);
}

static void search(const struct world *w, const struct search_params *p, struct hit *out,
                   uint32_t *n)
{
    struct err_ctx ctx;
    err_clear(&ctx);
    if (search_run(w->snapshot, w->queries, QUERIES, p, search_scratch_local(), out, n, &ctx))
        fail_msg("%s", ctx.detail);
}

/* Share of the exact hits that the graph gives, the very rows: among equals the smallest keys. */
static double recall(const struct world *w, uint32_t k, uint32_t ef, const struct row_ref *exclude)
{
    size_t found = 0, all = 0;
    search(w, &(struct search_params){.k = k, .ef = ef, .exclude = exclude}, hits, nhits);
    search(w, &(struct search_params){.k = k, .exact = true, .exclude = exclude}, wanted, nwanted);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(nhits[q], k);
        assert_int_equal(nwanted[q], k);
        all += k;
        for (size_t i = 0; i < k; i++) {
            assert_true(view_live(&w->snapshot->views[0], hits[q * k + i].ref.row));
            for (size_t j = 0; j < k; j++)
                found += wanted[q * k + j].ref.row == hits[q * k + i].ref.row;
        }
    }
    return (double)found / (double)all;
}

static void assert_recall(const struct world *w, uint32_t k, uint32_t ef, double least)
{
    double r = recall(w, k, ef, NULL);
    print_message("ef %u: recall@%u %.4f\n", ef, k, r);
    if (r < least)
        fail_msg("recall@%u %.4f at ef %u, expected %.2f", k, r, ef, least);
}

/* ---- recall ---- */

static void recall_with_twins(enum key_type key, enum metric metric, bool with_missing)
{
    struct world w;
    world_open(&w, key, metric, with_missing);
    assert_recall(&w, 10, 128, 0.99);
    assert_recall(&w, GROUP_MAX, 128, 0.99);
    world_close(&w);
}

static void twins_cost_no_recall_l2(void **state)
{
    (void)state;
    recall_with_twins(KEY_INT64, DIST_L2, true);
}

static void twins_cost_no_recall_cosine(void **state)
{
    (void)state;
    recall_with_twins(KEY_STRING, DIST_COSINE, false);
}

static void twins_cost_no_recall_ip(void **state)
{
    (void)state;
    recall_with_twins(KEY_STRING, DIST_IP, true);
}

/* ---- what the graph says ---- */

static void each_vector_is_one_node(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, KEY_STRING, DIST_COSINE, false);
    assert_int_equal(w.graph->shape.nodes, DISTINCT);
    assert_int_equal(w.graph->shape.twins, w.rows - DISTINCT);
    assert_int_equal(ann_file_check(w.graph, (uint8_t[16]){0}, w.segment, NULL), ERR_OK);
    for (uint32_t node = 0; node < DISTINCT; node++) {
        uint32_t n, row = ann_row(w.graph, node);
        const uint32_t *twins = ann_twins(w.graph, node, &n);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(w.group[twins[i]], w.group[row]);
            assert_true(twins[i] > row);
            assert_true(i == 0 || key_order(w.segment, twins[i - 1], w.segment, twins[i]) < 0);
        }
    }
    world_close(&w);
}

/* ---- deletions ---- */

/* Which rows of a group die: the one that stands for the node, in every group; the others, or all,
 * in every second one, so that enough live for the view to be walked. */
enum which { THE_FIRST, THE_OTHERS, ALL };

static void kill_rows(struct world *w, enum which which)
{
    for (uint32_t node = 0; node < w->graph->shape.nodes; node++) {
        uint32_t n;
        const uint32_t *twins = ann_twins(w->graph, node, &n);
        if (n == 0 || (which != THE_FIRST && node % 2))
            continue;
        if (which != THE_OTHERS)
            rig_kill(w->snapshot, 0, ann_row(w->graph, node));
        for (uint32_t i = 0; which != THE_FIRST && i < n; i++)
            rig_kill(w->snapshot, 0, twins[i]);
    }
}

static void a_deletion_takes_the_row_and_not_its_twins(void **state)
{
    (void)state;
    static const enum which deaths[] = {THE_FIRST, THE_OTHERS, ALL};
    for (size_t i = 0; i < 3; i++) {
        struct world w;
        world_open(&w, KEY_INT64, DIST_L2, false);
        kill_rows(&w, deaths[i]);
        assert_true(graph_pays(&w.snapshot->views[0], w.graph, 128));
        assert_recall(&w, 10, 128, 0.99);
        assert_recall(&w, 50, 128, 0.99);
        world_close(&w);
    }
}

static void one_live_twin_is_found(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, KEY_INT64, DIST_L2, false);
    uint32_t last[QUERIES];
    for (uint32_t node = 0, q = 0; node < DISTINCT && q < QUERIES; node++) {
        uint32_t n, row = ann_row(w.graph, node);
        const uint32_t *twins = ann_twins(w.graph, node, &n);
        if (n == 0)
            continue;
        memcpy(w.queries + (size_t)q * DIM, w.vectors + (size_t)row * DIM, DIM * sizeof(float));
        last[q++] = twins[n - 1];
        rig_kill(w.snapshot, 0, row);
        for (uint32_t i = 0; i + 1 < n; i++)
            rig_kill(w.snapshot, 0, twins[i]);
    }
    search(&w, &(struct search_params){.k = 10}, hits, nhits);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(hits[q * 10].ref.row, last[q]);
        assert_true(hits[q * 10].distance == 0 && hits[q * 10 + 1].distance > 0);
    }
    world_close(&w);
}

/* ---- search by key ---- */

static void a_row_left_out_leaves_its_twins(void **state)
{
    (void)state;
    struct world w;
    struct row_ref self[QUERIES];
    world_open(&w, KEY_INT64, DIST_L2, false);
    for (uint32_t q = 0; q < QUERIES; q++) { /* the first row of a group, and one of its twins */
        uint32_t n = 0, node = q * 20;
        const uint32_t *twins = NULL;
        while ((twins = ann_twins(w.graph, node, &n), n == 0))
            node++;
        self[q] = (struct row_ref){0, q % 2 ? twins[n / 2] : ann_row(w.graph, node)};
        memcpy(w.queries + (size_t)q * DIM, w.vectors + (size_t)self[q].row * DIM,
               DIM * sizeof(float));
    }
    assert_true(recall(&w, 10, 128, self) >= 0.99);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_true(hits[q * 10].distance == 0);
        for (size_t i = 0; i < 10; i++)
            assert_int_not_equal(hits[q * 10 + i].ref.row, self[q].row);
    }
    world_close(&w);
}

/* ---- few distinct vectors ---- */

/* `rows` rows of `distinct` vectors in turn; hits are those of an exact search, also without the
 * rows that stand for the nodes. */
static void few_distinct(size_t rows, size_t distinct, uint32_t k, uint32_t ef)
{
    struct rig rig;
    rig_open(&rig, KEY_STRING, DIM, DIST_COSINE);
    float *v = rig_vectors(distinct, DIM, CLUSTERS, 3), *all = malloc(rows * DIM * sizeof(float));
    for (size_t row = 0; row < rows; row++)
        memcpy(all + row * DIM, v + row % distinct * DIM, DIM * sizeof(float));
    struct segment *s = rig_file(&rig, 5, all, rows, 0, NULL);
    rig_attach(s, rig_build(&rig, s));
    const struct ann_file *a = segment_ann(s);
    assert_int_equal(a->shape.nodes, distinct);
    struct snapshot *snap = rig_snapshot(&rig, &s, 1);
    assert_true(graph_pays(&snap->views[0], a, ef) == (ef < rows / 4));
    struct search_params p = {.k = k, .ef = ef}, exact = {.k = k, .exact = true};
    for (int dead = 0; dead < 2; dead++) {
        for (uint32_t row = 0; dead && row < distinct; row++)
            rig_kill(snap, 0, row);
        assert_int_equal(search_run(snap, v, 1, &p, search_scratch_local(), hits, nhits, NULL), 0);
        assert_int_equal(
            search_run(snap, v, 1, &exact, search_scratch_local(), wanted, nwanted, NULL), 0);
        size_t live = rows - (dead ? distinct : 0);
        assert_int_equal(nhits[0], live < k ? live : k);
        assert_int_equal(nwanted[0], nhits[0]);
        for (uint32_t i = 0; i < nhits[0]; i++)
            assert_int_equal(hits[i].ref.row, wanted[i].ref.row);
    }
    snapshot_release(snap);
    free(v);
    free(all);
    rig_close(&rig);
}

static void one_vector_in_all_rows_is_a_graph(void **state)
{
    (void)state;
    few_distinct(5000, 1, 10, 128);
    few_distinct(5000, 1, 1000, 1000);
}

static void few_vectors_in_all_rows_are_a_graph(void **state)
{
    (void)state;
    few_distinct(5000, 2, 10, 128);
    few_distinct(5000, 100, 60, 128);
    few_distinct(5000, 200, 10, 128);
}

static void tiny_graphs_are_built_and_searched(void **state)
{
    (void)state;
    few_distinct(1, 1, 10, 128);
    few_distinct(2, 1, 10, 128);
    few_distinct(3, 2, 10, 128);
    few_distinct(7, 7, 10, 128);
    few_distinct(9, 4, 2, 2); /* walked */
}

/* 0 and -0 are equal: rows that differ in nothing else are twins. */
static void the_sign_of_zero_makes_no_vector(void **state)
{
    (void)state;
    struct rig rig;
    float v[3][DIM] = {{1, 0}, {1, -0.0f}, {0, 1}};
    rig_open(&rig, KEY_INT64, DIM, DIST_L2);
    struct segment *s = rig_file(&rig, 6, v[0], 3, 0, NULL);
    rig_attach(s, rig_build(&rig, s));
    const struct ann_file *a = segment_ann(s);
    assert_int_equal(a->shape.nodes, 2);
    assert_int_equal(a->shape.twins, 1);
    segment_release(s);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twins_cost_no_recall_l2),
        cmocka_unit_test(twins_cost_no_recall_cosine),
        cmocka_unit_test(twins_cost_no_recall_ip),
        cmocka_unit_test(each_vector_is_one_node),
        cmocka_unit_test(a_deletion_takes_the_row_and_not_its_twins),
        cmocka_unit_test(one_live_twin_is_found),
        cmocka_unit_test(a_row_left_out_leaves_its_twins),
        cmocka_unit_test(one_vector_in_all_rows_is_a_graph),
        cmocka_unit_test(few_vectors_in_all_rows_are_a_graph),
        cmocka_unit_test(tiny_graphs_are_built_and_searched),
        cmocka_unit_test(the_sign_of_zero_makes_no_vector),
    };
    if (kernels_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
