/* The native graph builder: graphs keep their invariants at the edges of every setting, reach all
 * nodes, are the same twice with one thread, and are searched as well as FAISS's. */
#include <math.h>

#include "index/build_codes.h"
#include "index/build_native.h"
#include "index/kernels.h"
#include "rig.h"

enum { DIM = 24, K = 10, QUERIES = 200, CLUSTERS = 50 };

/* ---- a graph as it comes out ---- */

struct taken {
    uint32_t nodes, m, entry, layers;
    uint8_t *layers_of;
    uint32_t *links; /* nodes x 2m */
    uint32_t *lists; /* upper ones, one node after the other */
    uint64_t *at;    /* per node: its first upper list */
    uint64_t nlists;
};

static enum err on_begin(void *arg, uint32_t nodes, uint32_t m, const uint8_t *layers,
                         struct err_ctx *ctx)
{
    struct taken *t = arg;
    (void)ctx;
    uint64_t lists = 0;
    *t = (struct taken){.nodes = nodes, .m = m};
    t->layers_of = malloc(nodes);
    t->at = malloc(nodes * sizeof(uint64_t));
    for (uint32_t i = 0; i < nodes; i++) {
        assert_in_range(layers[i], 1, ANN_LAYERS_MAX);
        t->layers_of[i] = layers[i];
        t->at[i] = lists;
        lists += layers[i] - 1u;
    }
    t->links = malloc((size_t)nodes * 2 * m * sizeof(uint32_t));
    t->lists = malloc((lists + 1) * m * sizeof(uint32_t));
    return ERR_OK;
}

static enum err on_node(void *arg, uint32_t node, const uint32_t *links, struct err_ctx *ctx)
{
    struct taken *t = arg;
    (void)ctx;
    size_t m = t->m, upper = (t->layers_of[node] - 1u) * m;
    memcpy(t->links + node * 2 * m, links, 2 * m * sizeof(uint32_t));
    memcpy(t->lists + t->at[node] * m, links + 2 * m, upper * sizeof(uint32_t));
    t->nlists += t->layers_of[node] - 1u;
    return ERR_OK;
}

static enum err on_end(void *arg, uint32_t entry, uint32_t layers, struct err_ctx *ctx)
{
    struct taken *t = arg;
    (void)ctx;
    t->entry = entry;
    t->layers = layers;
    return ERR_OK;
}

static void taken_deinit(struct taken *t)
{
    free(t->layers_of);
    free(t->links);
    free(t->lists);
    free(t->at);
}

static const uint32_t *list_at(const struct taken *t, uint32_t node, uint32_t layer,
                               uint32_t *width)
{
    *width = layer ? t->m : 2 * t->m;
    return layer ? t->lists + (t->at[node] + layer - 1) * t->m : t->links + (size_t)node * 2 * t->m;
}

static void assert_list(const struct taken *t, uint32_t node, uint32_t layer)
{
    uint32_t width, n = 0;
    const uint32_t *links = list_at(t, node, layer, &width);
    while (n < width && links[n] != ANN_NONE)
        n++;
    for (uint32_t i = n; i < width; i++)
        assert_int_equal(links[i], ANN_NONE); /* nothing behind the end */
    for (uint32_t i = 0; i < n; i++) {
        assert_true(links[i] < t->nodes && links[i] != node);
        assert_true(t->layers_of[links[i]] > layer); /* it is on that layer itself */
        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(links[i], links[j]);
    }
}

/* Nodes that links lead to from the entry, layer by layer down. */
static uint32_t reachable(const struct taken *t)
{
    uint8_t *seen = calloc(1, t->nodes);
    uint32_t *found = malloc(t->nodes * sizeof(uint32_t)), n = 1, width;
    found[0] = t->entry;
    seen[t->entry] = 1;
    for (uint32_t layer = t->layers; layer-- > 0;) {
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t *links = list_at(t, found[i], layer, &width);
            for (uint32_t j = 0; j < width && links[j] != ANN_NONE; j++) {
                if (!seen[links[j]])
                    found[n++] = links[j];
                seen[links[j]] = 1;
            }
        }
    }
    free(seen);
    free(found);
    return n;
}

static void assert_graph(const struct taken *t)
{
    uint32_t highest = 0;
    for (uint32_t i = 0; i < t->nodes; i++) {
        highest = t->layers_of[i] > highest ? t->layers_of[i] : highest;
        for (uint32_t layer = 0; layer < t->layers_of[i]; layer++)
            assert_list(t, i, layer);
    }
    assert_int_equal(t->layers, highest);
    assert_int_equal(t->layers_of[t->entry], highest);
}

/* ---- building by itself ---- */

/* Points of n vectors; codes when asked for. */
static void make_points(const float *v, uint32_t n, uint32_t dim, enum points_kind kind,
                        struct points *out)
{
    float lo[1024], step[1024];
    struct rig r;
    struct code_fit *f;
    struct distinct rows = {.nodes = n};
    assert_true(dim <= 1024);
    rig_open(&r, KEY_INT64, dim, kind == POINTS_DOT ? DIST_IP : DIST_L2);
    struct segment *s = rig_file(&r, 1, v, n, 0, NULL);
    assert_int_equal(code_fit_new(CODE_UNIFORM, dim, &f, NULL), ERR_OK);
    for (uint32_t i = 0; i < n; i++)
        code_fit_add(f, v + (size_t)i * dim);
    code_fit_finish(f, lo, step);
    code_fit_free(f);
    struct code_scale scale = {.scheme = CODE_UNIFORM, .dim = dim, .lo = lo, .step = step};
    assert_int_equal(points_init(out, s, &rows, kind == POINTS_CODES ? &scale : NULL, NULL, NULL),
                     ERR_OK);
    assert_int_equal(out->kind, kind);
    segment_release(s);
    rig_close(&r);
}

static void make_graph(const struct points *p, uint32_t m, uint32_t ef, unsigned threads,
                       uint64_t seed, struct taken *out)
{
    const struct native_options o = {
        .m = m, .ef_construction = ef, .threads = threads, .seed = seed};
    const struct graph_sink sink = {out, on_begin, on_node, on_end};
    struct native_graph *g;
    assert_int_equal(native_build(&o, p, &g, NULL), ERR_OK);
    assert_int_equal(native_walk(g, &sink, NULL), ERR_OK);
    native_free(g);
    assert_graph(out);
}

static const enum points_kind kinds[] = {POINTS_CODES, POINTS_L2, POINTS_DOT};

static void graphs_of_every_setting_keep_their_invariants(void **state)
{
    (void)state;
    const struct {
        uint32_t nodes, m, ef;
    } cases[] = {{1, 16, 40},  {2, 16, 40},  {3, 2, 1},      {4, 2, 1},       {5, 512, 200},
                 {300, 2, 40}, {300, 16, 1}, {300, 512, 10}, {1500, 2, 1},    {1100, 512, 300},
                 {600, 3, 7},  {600, 4, 64}, {600, 5, 2000}, {300, 16, 10000}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        float *v = rig_vectors(cases[i].nodes, DIM, CLUSTERS, 1);
        for (size_t k = 0; k < 3; k++) {
            struct points p;
            struct taken t;
            make_points(v, cases[i].nodes, DIM, kinds[k], &p);
            for (unsigned threads = 1; threads <= 4; threads += 3) {
                make_graph(&p, cases[i].m, cases[i].ef, threads, 7, &t);
                taken_deinit(&t);
            }
            points_deinit(&p);
        }
        free(v);
    }
}

static void nearly_every_node_is_reached(void **state)
{
    (void)state;
    enum { N = 6000 };
    float *v = rig_vectors(N, DIM, CLUSTERS, 1);
    for (unsigned threads = 1; threads <= 3; threads += 2) {
        struct points p;
        struct taken t;
        make_points(v, N, DIM, POINTS_CODES, &p);
        make_graph(&p, 16, 40, threads, 1, &t);
        uint32_t reached = reachable(&t);
        print_message("%u threads: %u of %u nodes reached\n", threads, reached, N);
        assert_true(reached >= N * 0.999);
        taken_deinit(&t);
        points_deinit(&p);
    }
    free(v);
}

static bool same_graph(const struct taken *a, const struct taken *b)
{
    return a->entry == b->entry && a->layers == b->layers && a->nlists == b->nlists &&
           memcmp(a->layers_of, b->layers_of, a->nodes) == 0 &&
           memcmp(a->links, b->links, (size_t)a->nodes * 2 * a->m * sizeof(uint32_t)) == 0 &&
           memcmp(a->lists, b->lists, a->nlists * a->m * sizeof(uint32_t)) == 0;
}

static void one_thread_and_one_seed_make_one_graph(void **state)
{
    (void)state;
    enum { N = 3000 };
    float *v = rig_vectors(N, DIM, CLUSTERS, 1);
    struct points p;
    struct taken a, b, c;
    make_points(v, N, DIM, POINTS_CODES, &p);
    make_graph(&p, 8, 40, 1, 5, &a);
    make_graph(&p, 8, 40, 1, 5, &b);
    make_graph(&p, 8, 40, 1, 6, &c);
    assert_true(same_graph(&a, &b));
    assert_false(same_graph(&a, &c));
    taken_deinit(&a);
    taken_deinit(&b);
    taken_deinit(&c);
    points_deinit(&p);
    free(v);
}

/* A layer more with probability 1 / m: 4 standard deviations around it. */
static void layers_thin_out_as_they_should(void **state)
{
    (void)state;
    enum { N = 20000, M = 8 };
    float *v = rig_vectors(N, 2, CLUSTERS, 1);
    struct points p;
    struct taken t;
    uint32_t tall = 0, taller = 0;
    make_points(v, N, 2, POINTS_L2, &p);
    make_graph(&p, M, 4, 1, 9, &t);
    for (uint32_t i = 0; i < N; i++) {
        tall += t.layers_of[i] > 1;
        taller += t.layers_of[i] > 2;
    }
    assert_true(fabs(tall - N / (double)M) < 4 * sqrt(N / (double)M));
    assert_true(fabs(taller - N / (double)(M * M)) < 4 * sqrt(N / (double)(M * M)));
    taken_deinit(&t);
    points_deinit(&p);
    free(v);
}

/* Numbers that overflow float, all alike, and denormal: any graph will do, but a sound one. */
static void vectors_of_any_size_are_built(void **state)
{
    (void)state;
    enum { N = 600 };
    const float sizes[] = {1e38f, 1e-40f, 0};
    for (size_t i = 0; i < 3; i++) {
        float *v = rig_vectors(N, DIM, CLUSTERS, 1);
        for (size_t j = 0; j < N * DIM; j++)
            v[j] *= sizes[i] * 0.3f;
        for (size_t k = 1; k < 3; k++) {
            struct points p;
            struct taken t;
            make_points(v, N, DIM, kinds[k], &p);
            make_graph(&p, 8, 40, 2, 1, &t);
            taken_deinit(&t);
            points_deinit(&p);
        }
        free(v);
    }
}

static double last_progress;
static void on_progress(double done)
{
    assert_true(done > last_progress && done < 1);
    last_progress = done;
}

static double linear(double i)
{
    return i;
}

static void progress_rises_to_the_end(void **state)
{
    (void)state;
    enum { N = 3000 };
    float *v = rig_vectors(N, DIM, CLUSTERS, 1);
    struct points p;
    struct native_graph *g;
    const struct native_options o = {
        .m = 8, .ef_construction = 20, .threads = 1, .progress = on_progress, .work_of = linear};
    make_points(v, N, DIM, POINTS_CODES, &p);
    last_progress = 0;
    assert_int_equal(native_build(&o, &p, &g, NULL), ERR_OK);
    assert_true(last_progress > 0.99);
    native_free(g);
    points_deinit(&p);
    free(v);
}

/* ---- against FAISS, in whole files ---- */

static const char *build_with(struct rig *r, const struct segment *s, const char *builder,
                              const char *threads)
{
    char name[64], error[512];
    snprintf(name, sizeof(name), "%s-%s.ann", builder, threads);
    const char *out = temp_path(&r->dir, name);
    char *argv[] = {"build-index", "--segment",     s->path,     "--out",        (char *)out,
                    "--builder",   (char *)builder, "--threads", (char *)threads};
    int status = rig_build_with(9, argv, error, sizeof(error));
    if (status != 0)
        fail_msg("build-index: status %d, %s", status, error);
    return out;
}

static struct hit exact[QUERIES * K], found[QUERIES * K];
static uint32_t nexact[QUERIES], nfound[QUERIES];

static double recall(const struct snapshot *s, const float *queries, uint32_t ef)
{
    struct search_params p = {.k = K, .ef = ef};
    size_t hits = 0;
    assert_int_equal(
        search_run(s, queries, QUERIES, &p, search_scratch_local(), found, nfound, NULL), ERR_OK);
    for (size_t q = 0; q < QUERIES; q++) {
        for (uint32_t i = 0; i < nfound[q]; i++)
            hits += found[q * K + i].distance <=
                    exact[q * K + K - 1].distance + fabs(exact[q * K + K - 1].distance) * 1e-6;
    }
    return (double)hits / (QUERIES * K);
}

/* Recall at rising effort of what the file at `path` holds; sums over the efforts. */
static double attach_and_measure(struct snapshot *s, const char *path, enum index_builder builder,
                                 const float *queries)
{
    double sum = 0;
    struct segment *g = s->views[0].segment;
    rig_attach(g, path);
    assert_int_equal(((const struct ann_file *)segment_ann(g))->shape.builder, builder);
    for (uint32_t ef = 16; ef <= 128; ef *= 2) {
        double r = recall(s, queries, ef);
        print_message(" %.4f", r);
        sum += r;
    }
    print_message("\n");
    return sum / 4;
}

/* Within .003 at the same effort, over the four efforts together: 8000 neighbours. */
static void compare(enum metric metric, uint32_t dim, uint32_t n, float rogue)
{
    struct rig r;
    rig_open(&r, KEY_INT64, dim, metric);
    float *v = rig_vectors(n, dim, CLUSTERS, 1), *q = rig_vectors(QUERIES, dim, CLUSTERS, 2);
    for (size_t i = 0; i < n; i++)
        v[i * dim] *= rogue;
    for (size_t i = 0; i < QUERIES; i++)
        q[i * dim] *= rogue;
    struct segment *g = rig_file(&r, 1, v, n, 0, NULL);
    struct snapshot *s = rig_snapshot(&r, &g, 1);
    struct search_params p = {.k = K, .exact = true};
    assert_int_equal(search_run(s, q, QUERIES, &p, search_scratch_local(), exact, nexact, NULL),
                     ERR_OK);
    print_message("%s %u, rogue %.0f\n", metric_name(metric), dim, (double)rogue);
    double faiss = attach_and_measure(s, build_with(&r, g, "faiss", "1"), BUILDER_FAISS, q);
    double one = attach_and_measure(s, build_with(&r, g, "native", "1"), BUILDER_NATIVE, q);
    double two = attach_and_measure(s, build_with(&r, g, "native", "2"), BUILDER_NATIVE, q);
    assert_true(one >= faiss - 0.003);
    assert_true(two >= faiss - 0.003);
    snapshot_release(s);
    free(v);
    free(q);
    rig_close(&r);
}

static void recall_is_faiss_s(void **state)
{
    (void)state;
    compare(DIST_L2, 32, 5000, 1);
    compare(DIST_COSINE, 32, 5000, 1);
    compare(DIST_IP, 32, 5000, 1);
    compare(DIST_L2, 3, 5000, 1);
    compare(DIST_L2, 64, 3000, 6);
    compare(DIST_L2, 64, 3000, 1000); /* codes are refused: on the vectors */
}

/* auto: what the gate says decides. */
static void automatic(enum metric metric, float rogue, enum index_builder expected,
                      enum codes_verdict verdict)
{
    enum { N = 3000 };
    struct rig r;
    struct ann_file *a;
    rig_open(&r, KEY_INT64, DIM, metric);
    float *v = rig_vectors(N, DIM, CLUSTERS, 1);
    for (size_t i = 0; i < N; i++)
        v[i * DIM] *= rogue;
    struct segment *g = rig_file(&r, 1, v, N, 0, NULL);
    const char *path = build_with(&r, g, "auto", "1");
    assert_int_equal(ann_file_open(path, &a, NULL), ERR_OK);
    assert_int_equal(ann_file_verify(a, path, NULL), ERR_OK);
    assert_int_equal(a->shape.builder, expected);
    assert_int_equal(a->verdict, verdict);
    assert_int_equal(a->codes != NULL, verdict == CODES_TAKEN);
    ann_file_close(a);
    segment_release(g);
    free(v);
    rig_close(&r);
}

static void auto_takes_the_native_builder_where_codes_serve(void **state)
{
    (void)state;
    automatic(DIST_L2, 1, BUILDER_NATIVE, CODES_TAKEN);
    automatic(DIST_COSINE, 1, BUILDER_NATIVE, CODES_TAKEN);
    automatic(DIST_IP, 1, BUILDER_FAISS, CODES_TAKEN);
    automatic(DIST_L2, 1000, BUILDER_FAISS, CODES_REFUSED);
    automatic(DIST_L2, 1e36f, BUILDER_FAISS, CODES_IMPOSSIBLE);
}

static void an_unknown_builder_is_refused(void **state)
{
    (void)state;
    char error[512];
    char *argv[] = {"build-index", "--segment", "x", "--out", "y", "--builder", "mine"};
    assert_int_equal(rig_build_with(7, argv, error, sizeof(error)), 1);
    assert_non_null(strstr(error, "auto, faiss or native"));
}

int main(void)
{
    assert_int_equal(kernels_init(NULL), ERR_OK);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_of_every_setting_keep_their_invariants),
        cmocka_unit_test(nearly_every_node_is_reached),
        cmocka_unit_test(one_thread_and_one_seed_make_one_graph),
        cmocka_unit_test(layers_thin_out_as_they_should),
        cmocka_unit_test(vectors_of_any_size_are_built),
        cmocka_unit_test(progress_rises_to_the_end),
        cmocka_unit_test(recall_is_faiss_s),
        cmocka_unit_test(auto_takes_the_native_builder_where_codes_serve),
        cmocka_unit_test(an_unknown_builder_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
