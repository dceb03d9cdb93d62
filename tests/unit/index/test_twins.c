/* Rows that share their vector (twins) are one node of the graph: recall does not suffer from them,
 * every one is found, deletions and left-out rows count for the row and not for its twins, and a
 * file that lists them wrongly is refused. */
#include "index/ann_format.h"
#include "index/kernels.h"
#include "rig.h"

enum { DISTINCT = 6000, DIM = 32, QUERIES = 200, K = 10, CLUSTERS = 50, GROUP_MAX = 100 };

struct world {
    struct rig rig;
    size_t rows;
    uint32_t *group;           /* per row: which of the DISTINCT vectors it has */
    float *distinct, *vectors; /* vectors: rows x DIM */
    float *queries;
    struct segment *segment;
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

static void world_open(struct world *w, enum key_type key, enum metric metric)
{
    *w = (struct world){0};
    rig_open(&w->rig, key, DIM, metric);
    w->distinct = rig_vectors(DISTINCT, DIM, CLUSTERS, 1);
    w->queries = rig_vectors(QUERIES, DIM, CLUSTERS, 2);
    deal_groups(w);
    w->vectors = malloc(w->rows * DIM * sizeof(float));
    for (size_t row = 0; row < w->rows; row++)
        put_vector(w, row);
    for (size_t q = 0; q < QUERIES; q += 4) /* of those that many rows have */
        memcpy(w->queries + q * DIM, w->distinct + q * 10 * DIM, DIM * sizeof(float));
    w->segment = rig_file(&w->rig, 1, w->vectors, w->rows, 0, NULL);
    rig_attach(w->segment, rig_build(&w->rig, w->segment));
    w->snapshot = rig_snapshot(&w->rig, &w->segment, 1);
}

static void world_close(struct world *w)
{
    snapshot_release(w->snapshot);
    free(w->group);
    free(w->distinct);
    free(w->vectors);
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
static double recall(const struct world *w, uint32_t k, uint32_t ef)
{
    size_t found = 0, all = 0;
    search(w, &(struct search_params){.k = k, .ef = ef}, hits, nhits);
    search(w, &(struct search_params){.k = k, .exact = true}, wanted, nwanted);
    for (size_t q = 0; q < QUERIES; q++) {
        assert_int_equal(nhits[q], nwanted[q]);
        all += nwanted[q];
        for (size_t i = 0; i < nhits[q]; i++) {
            for (size_t j = 0; j < nwanted[q]; j++)
                found += wanted[q * k + j].ref.row == hits[q * k + i].ref.row;
        }
    }
    return (double)found / (double)all;
}

static double recall_by_distance(const struct world *w, uint32_t k, uint32_t ef)
{
    size_t found = 0, all = 0;
    search(w, &(struct search_params){.k = k, .ef = ef}, hits, nhits);
    search(w, &(struct search_params){.k = k, .exact = true}, wanted, nwanted);
    for (size_t q = 0; q < QUERIES; q++) {
        for (size_t i = 0; i < nhits[q]; i++)
            found += hits[q * k + i].distance <= wanted[q * k + k - 1].distance;
        all += k;
    }
    return (double)found / (double)all;
}

static void assert_recall(const struct world *w, uint32_t k, uint32_t ef, double least)
{
    double r = recall(w, k, ef);
    print_message("ef %u: recall@%u %.4f, by distance %.4f\n", ef, k, r,
                  recall_by_distance(w, k, ef));
    if (r < least)
        print_error("recall@%u %.4f at ef %u, expected %.2f", k, r, ef, least);
}

static void twins_cost_no_recall(enum key_type key, enum metric metric)
{
    struct world w;
    world_open(&w, key, metric);
    print_message("rows %zu\n", w.rows);
    assert_recall(&w, K, 64, 0.99);
    assert_recall(&w, K, 128, 0.99);
    assert_recall(&w, K, 512, 0.99);
    world_close(&w);
}

static void twins_cost_no_recall_l2(void **state)
{
    (void)state;
    twins_cost_no_recall(KEY_INT64, DIST_L2);
}

static void twins_cost_no_recall_cosine(void **state)
{
    (void)state;
    twins_cost_no_recall(KEY_STRING, DIST_COSINE);
}

static void twins_cost_no_recall_ip(void **state)
{
    (void)state;
    twins_cost_no_recall(KEY_INT64, DIST_IP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(twins_cost_no_recall_l2),
        cmocka_unit_test(twins_cost_no_recall_cosine),
        cmocka_unit_test(twins_cost_no_recall_ip),
    };
    if (kernels_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
