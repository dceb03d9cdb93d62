/* Inverted lists: the file that the child writes holds every row once and is refused when anything
 * in it is off; a search over all lists is a scan, over a few it finds most, by codes as many as by
 * vectors, and it never returns fewer rows than there are. */
#include "rig.h"

#include <math.h>
#include <stdio.h>

#include "index/ann_format.h"
#include "index/ivf.h"
#include "index/plan.h"
#include "index/search_internal.h"

enum { ROWS = 3000, DIM = 24, NLIST = 40, QUERIES = 30, K_MAX = 200 };

struct world {
    struct rig rig;
    float *vectors, *queries;
    uint8_t *missing;
    struct segment *segment;
    struct snapshot *snapshot;
    char ann[512];
};

static struct hit hits[QUERIES * K_MAX], wanted[QUERIES * K_MAX];
static uint32_t nhits[QUERIES], nwanted[QUERIES];

static void build(struct world *w, const char *nlist)
{
    char error[512];
    snprintf(w->ann, sizeof(w->ann), "%s", temp_path(&w->rig.dir, "1.ann"));
    char *argv[] = {"build-index", "--segment", w->segment->path, "--out", w->ann,
                    "--kind",      "ivf",       "--threads",      "1",     "--nlist",
                    (char *)nlist};
    if (rig_build_with(11, argv, error, sizeof(error)) != 0)
        fail_msg("%s", error);
}

/* Every seventh row has no vector, every fifth one that an earlier row has too. */
static void world_open(struct world *w, enum metric metric, float scale)
{
    rig_open(&w->rig, KEY_STRING, DIM, metric);
    w->vectors = rig_vectors(ROWS, DIM, 30, 5);
    w->queries = rig_vectors(QUERIES, DIM, 30, 6);
    w->missing = calloc(ROWS, 1);
    assert_non_null(w->missing);
    for (size_t row = 10; row < ROWS; row++) {
        if (row % 5 == 0)
            memcpy(w->vectors + row * DIM, w->vectors + row / 2 * DIM, DIM * sizeof(float));
        w->missing[row] = row % 7 == 3;
    }
    for (size_t i = 0; i < ROWS * DIM; i++)
        w->vectors[i] *= scale;
    w->segment = rig_file(&w->rig, 1, w->vectors, ROWS, 0, w->missing);
    build(w, "40");
    rig_attach(w->segment, w->ann);
    w->snapshot = rig_snapshot(&w->rig, &w->segment, 1);
}

static void world_close(struct world *w)
{
    snapshot_release(w->snapshot);
    free(w->vectors);
    free(w->queries);
    free(w->missing);
    rig_close(&w->rig);
}

static const struct ann_file *lists_of(const struct world *w)
{
    return segment_ann(w->segment);
}

static void run(const struct world *w, const struct search_params *p, struct hit *out, uint32_t *n)
{
    assert_int_equal(
        search_run(w->snapshot, w->queries, QUERIES, p, search_scratch_local(), out, n, NULL),
        ERR_OK);
}

/* The same rows and distances, to the bit. */
static void assert_same(uint32_t k)
{
    for (uint32_t q = 0; q < QUERIES; q++) {
        assert_int_equal(nhits[q], nwanted[q]);
        for (uint32_t i = 0; i < nhits[q]; i++) {
            const struct hit *a = &hits[q * k + i], *b = &wanted[q * k + i];
            assert_int_equal(a->ref.row, b->ref.row);
            assert_memory_equal(&a->distance, &b->distance, sizeof(double));
        }
    }
}

static void kill_most(struct world *w, uint32_t every)
{
    for (uint32_t row = 0; row < ROWS; row++) {
        if (row % every != 0)
            rig_kill(w->snapshot, 0, row);
    }
}

/* ---- the search ---- */

/* Straight through the lists: search_run would scan when that costs no more. */
static void search_lists(struct world *w, uint32_t nprobe, uint32_t k, struct row_ref left_out)
{
    static float bounds[K_MAX];
    static struct candidate found[K_MAX + COLLECT_SPARE];
    bool cosine = w->rig.schema->metric == DIST_COSINE;
    for (uint32_t q = 0; q < QUERIES; q++) {
        const float *query = w->queries + q * DIM;
        float scaled[DIM];
        double norm2 = 0;
        for (int i = 0; i < DIM; i++)
            norm2 += (double)query[i] * query[i];
        for (int i = 0; i < DIM; i++)
            scaled[i] = (float)(query[i] / sqrt(norm2));
        struct collect c = {.snapshot = w->snapshot,
                            .query = query,
                            .scaled = cosine ? scaled : query,
                            .norm2 = norm2,
                            .exclude = left_out,
                            .k = k,
                            .candidates_max = k + COLLECT_SPARE,
                            .bound = INFINITY,
                            .bounds = bounds,
                            .candidates = found};
        const struct view_plan plan = {
            .a = lists_of(w), .allowed.view = &w->snapshot->views[0], .share = 1};
        assert_int_equal(ivf_search(w->snapshot, &plan, nprobe, &c, search_scratch_local(), NULL),
                         ERR_OK);
        nhits[q] = collect_finish(&c, hits + q * k);
    }
}

static void all_lists_are_a_scan(void **state)
{
    (void)state;
    static const enum metric metrics[] = {DIST_L2, DIST_IP, DIST_COSINE};
    const struct search_params exact = {.k = 20, .exact = true}, all = {.k = 20, .nprobe = NLIST};
    for (size_t m = 0; m < 3; m++) {
        struct world w;
        world_open(&w, metrics[m], 1);
        for (int dead = 0; dead < 2; dead++) {
            run(&w, &exact, wanted, nwanted);
            search_lists(&w, NLIST, 20, (struct row_ref){UINT32_MAX, 0});
            for (uint32_t q = 0; q < QUERIES; q++) {
                assert_int_equal(nhits[q], nwanted[q]);
                for (uint32_t i = 0; i < nhits[q]; i++)
                    assert_int_equal(hits[q * 20 + i].ref.row, wanted[q * 20 + i].ref.row);
            }
            run(&w, &all, hits, nhits);
            assert_same(20);
            kill_most(&w, 3);
        }
        world_close(&w);
    }
}

static void few_lists_find_most(void **state)
{
    (void)state;
    static const enum metric metrics[] = {DIST_L2, DIST_IP, DIST_COSINE};
    for (size_t m = 0; m < 3; m++) {
        struct world w;
        uint32_t common = 0;
        world_open(&w, metrics[m], 1);
        const struct search_params exact = {.k = 10, .exact = true}, few = {.k = 10, .nprobe = 8};
        assert_true(ivf_pays(&w.snapshot->views[0], lists_of(&w), 8));
        run(&w, &exact, wanted, nwanted);
        run(&w, &few, hits, nhits);
        for (uint32_t i = 0; i < QUERIES * 10; i++) {
            for (uint32_t j = i / 10 * 10; j < i / 10 * 10 + 10; j++)
                common += hits[i].ref.row == wanted[j].ref.row;
        }
        assert_true(common >= QUERIES * 10 * 95 / 100);
        world_close(&w);
    }
}

/* Hits of `all` that are among the k wanted, or as near as the last of them. */
static uint32_t count_found(uint32_t k)
{
    uint32_t found = 0;
    for (uint32_t q = 0; q < QUERIES; q++) {
        for (uint32_t i = 0; i < nhits[q]; i++)
            found += hits[q * k + i].distance <= wanted[q * k + nwanted[q] - 1].distance;
    }
    return found;
}

static struct ann_file *open_lists(struct world *w)
{
    return (struct ann_file *)lists_of(w);
}

static void codes_find_what_vectors_find(void **state)
{
    (void)state;
    static const enum metric metrics[] = {DIST_L2, DIST_IP, DIST_COSINE};
    static const uint32_t ks[] = {1, 10, 100}, nprobes[] = {1, 4, 12, NLIST - 1};
    for (size_t m = 0; m < 3; m++) {
        struct world w;
        world_open(&w, metrics[m], 1);
        struct ann_file *a = open_lists(&w);
        const uint8_t *codes = a->codes;
        assert_non_null(codes);
        for (size_t i = 0; i < 24; i++) {
            uint32_t k = ks[i % 3], nprobe = nprobes[i / 3 % 4];
            struct row_ref left_out = {i < 12 ? UINT32_MAX : 0, 1};
            const struct search_params exact = {.k = k, .exact = true};
            run(&w, &exact, wanted, nwanted);
            search_lists(&w, nprobe, k, left_out);
            uint32_t by_code = count_found(k);
            a->codes = NULL;
            search_lists(&w, nprobe, k, left_out);
            a->codes = codes;
            assert_in_range(by_code + QUERIES * k * 2 / 1000, count_found(k), QUERIES * k * 2);
            if (i == 11)
                kill_most(&w, 3);
        }
        world_close(&w);
    }
}

/* With codes that say nothing, few lists find little, and all lists find everything. */
static void all_lists_are_read_as_vectors(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2, 1);
    struct ann_file *a = open_lists(&w);
    size_t bytes = a->shape.nodes * code_stride(DIM);
    uint8_t *zeros = aligned_alloc(CODE_ALIGN, bytes);
    const uint8_t *codes = a->codes;
    assert_non_null(zeros);
    memset(zeros, 0, bytes);
    a->codes = zeros;
    const struct search_params exact = {.k = 20, .exact = true};
    run(&w, &exact, wanted, nwanted);
    search_lists(&w, NLIST - 1, 20, (struct row_ref){UINT32_MAX, 0});
    assert_true(count_found(20) < QUERIES * 20 / 2);
    search_lists(&w, NLIST, 20, (struct row_ref){UINT32_MAX, 0});
    assert_same(20);
    const struct search_params all = {.k = 20, .nprobe = NLIST};
    run(&w, &all, hits, nhits);
    assert_same(20);
    a->codes = codes;
    free(zeros);
    world_close(&w);
}

/* Lists of codes and vectors from their files, many reads at once, give what the maps give. */
static void lists_read_from_disk_find_the_same(void **state)
{
    (void)state;
    static const enum metric metrics[] = {DIST_L2, DIST_IP, DIST_COSINE};
    static const uint32_t ks[] = {1, 20, 150};
    for (size_t m = 0; m < 6; m++) {
        struct world w;
        struct io *io;
        world_open(&w, metrics[m % 3], 1);
        assert_int_equal(io_new(m < 3 ? IO_POSIX : IO_AUTO, &io, NULL), ERR_OK);
        struct ann_file *a = open_lists(&w);
        for (int i = 0; i < 6; i++) {
            uint32_t k = ks[i % 3], nprobe = 3 + 12 * (uint32_t)(i % 3);
            search_lists(&w, nprobe, k, (struct row_ref){0, 2});
            memcpy(wanted, hits, sizeof(hits));
            memcpy(nwanted, nhits, sizeof(nhits));
            assert_int_equal(ann_file_read_from(a, io, w.ann, w.segment, NULL), ERR_OK);
            search_lists(&w, nprobe, k, (struct row_ref){0, 2});
            assert_same(k);
            ann_file_read_mapped(a);
            if (i == 2)
                kill_most(&w, 3);
        }
        world_close(&w);
        io_free(io);
    }
}

/* The codes of one list are gone from the file, though a map still has them. */
static void list_that_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    struct world w;
    struct err_ctx ctx;
    struct io *io;
    static struct hit some[QUERIES * 10];
    static uint32_t found[QUERIES];
    const struct search_params few = {.k = 10, .nprobe = 8};
    world_open(&w, DIST_L2, 1);
    const char *cut = temp_path(&w.rig.dir, "cut.ann");
    FILE *f = fopen(cut, "wb");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(io_new(IO_AUTO, &io, NULL), ERR_OK);
    assert_int_equal(ann_file_read_from(open_lists(&w), io, cut, w.segment, NULL), ERR_OK);
    err_clear(&ctx);
    assert_int_equal(
        search_run(w.snapshot, w.queries, QUERIES, &few, search_scratch_local(), some, found, &ctx),
        ERR_CORRUPT);
    assert_non_null(strstr(ctx.detail, "cut.ann"));
    world_close(&w);
    io_free(io);
}

static void lists_are_widened_until_k_are_found(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2, 1);
    kill_most(&w, 30); /* the lists hold a row or two each */
    uint32_t live = view_vectors(&w.snapshot->views[0]);
    assert_in_range(live, 40, K_MAX - 1);
    const uint32_t ks[] = {1, 25, live, K_MAX};
    for (size_t i = 0; i < 4; i++) {
        search_lists(&w, 1, ks[i], (struct row_ref){UINT32_MAX, 0});
        for (uint32_t q = 0; q < QUERIES; q++)
            assert_int_equal(nhits[q], ks[i] < live ? ks[i] : live);
    }
    search_lists(&w, 1, K_MAX, (struct row_ref){0, 0}); /* row 0 is alive */
    for (uint32_t q = 0; q < QUERIES; q++)
        assert_int_equal(nhits[q], live - 1);
    world_close(&w);
}

static void radius_cuts_inclusively(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_IP, 1);
    const struct search_params exact = {.k = 50, .exact = true};
    run(&w, &exact, wanted, nwanted);
    for (uint32_t at = 0; at < 50; at += 7) {
        double radius = (float)wanted[at].distance; /* as an answer gives it */
        struct search_params p = {.k = 50, .exact = true, .bounded = true, .radius = radius};
        run(&w, &p, hits, nhits);
        for (uint32_t q = 0; q < QUERIES; q++) {
            uint32_t inside = 0;
            while (inside < 50 && (float)wanted[q * 50 + inside].distance <= (float)radius)
                inside++;
            assert_int_equal(nhits[q], inside);
        }
        assert_true(nhits[0] > at);
    }
    world_close(&w);
}

static void huge_values_do_not_break_the_lists(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2, 1e30f); /* squares overflow */
    for (size_t i = 0; i < QUERIES * DIM; i++)
        w.queries[i] *= 1e30f;
    const struct search_params exact = {.k = 10, .exact = true}, all = {.k = 10, .nprobe = NLIST};
    const struct ann_file *a = lists_of(&w);
    uint32_t largest = 0;
    for (uint32_t l = 0; l < NLIST; l++) {
        uint32_t n;
        ann_list(a, l, &n);
        largest = n > largest ? n : largest;
    }
    assert_true(largest < ROWS / 4);
    run(&w, &exact, wanted, nwanted);
    run(&w, &all, hits, nhits);
    assert_same(10);
    world_close(&w);
}

static void one_value_everywhere_makes_lists_all_the_same(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2, 0); /* every vector is zero */
    search_lists(&w, 3, 100, (struct row_ref){UINT32_MAX, 0});
    for (uint32_t q = 0; q < QUERIES; q++)
        assert_int_equal(nhits[q], 100);
    world_close(&w);
}

/* ---- the file ---- */

static void file_holds_every_vector_once(void **state)
{
    (void)state;
    struct world w;
    struct err_ctx ctx;
    static const uint8_t collection[16];
    world_open(&w, DIST_COSINE, 1);
    const struct ann_file *a = lists_of(&w);
    assert_int_equal(a->shape.kind, INDEX_IVF);
    assert_int_equal(a->shape.nlist, NLIST);
    assert_int_equal(a->shape.nodes, view_vectors(&w.snapshot->views[0]));
    err_clear(&ctx);
    if (ann_file_check(a, collection, w.segment, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    world_close(&w);
}

static uint8_t *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*n);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *n, f), *n);
    fclose(f);
    return data;
}

/* Opens the bytes as a file; true when they are believed to the end, checksums included. */
static bool believed(const char *path, const struct segment *s, const uint8_t *data, size_t n)
{
    static const uint8_t collection[16];
    struct ann_file *a;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
    if (ann_file_open(path, &a, NULL) != ERR_OK)
        return false;
    bool ok = ann_file_check(a, collection, s, NULL) == ERR_OK &&
              ann_file_verify(a, path, NULL) == ERR_OK;
    ann_file_close(a);
    return ok;
}

static void damage_is_found(void **state)
{
    (void)state;
    struct world w;
    size_t n;
    uint64_t random = 9;
    world_open(&w, DIST_L2, 1);
    const char *path = temp_path(&w.rig.dir, "hurt.ann");
    char at[512];
    snprintf(at, sizeof(at), "%s", path);
    uint8_t *data = read_all(w.ann, &n);
    assert_true(believed(at, w.segment, data, n));
    for (size_t cut = 0; cut < n; cut += 1 + n / 50)
        assert_false(believed(at, w.segment, data, cut));
    for (int i = 0; i < 100; i++) { /* zeros between the sections are nobody's */
        static const size_t used[] = {160, NLIST * DIM * 4, (NLIST + 1) * 4, 2000 * 4, 2000 * 64};
        size_t section = rig_random(&random) % 5;
        size_t byte = section * ANN_ALIGN + rig_random(&random) % used[section];
        uint8_t was = data[byte];
        data[byte] ^= (uint8_t)(1 << rig_random(&random) % 8);
        assert_false(believed(at, w.segment, data, n));
        data[byte] = was;
    }
    free(data);
    world_close(&w);
}

/* ---- what is chosen ---- */

static void lists_follow_the_number_of_vectors(void **state)
{
    (void)state;
    assert_int_equal(ivf_nlist(0, 1), 1);
    assert_int_equal(ivf_nlist(0, 800), 100);
    assert_int_equal(ivf_nlist(0, 60000), 980);
    assert_int_equal(ivf_nlist(0, 1000000), 4000);
    assert_int_equal(ivf_nlist(0, UINT32_MAX), NLIST_MAX);
    assert_int_equal(ivf_nlist(500, 1000), 500);
    assert_int_equal(ivf_nlist(5000, 1000), 1000);
}

static enum index_kind chosen(struct rig *r, enum index_kind kind, uint32_t vectors,
                              uint64_t memory, bool *refused)
{
    const struct plan_limits limits = {.rows_min = 1000, .memory_bytes = memory};
    r->schema->index.kind = kind;
    struct index_plan p = plan_segment(r->schema, vectors, &limits);
    *refused = p.refused;
    return p.kind;
}

static void budget_decides_between_graph_and_lists(void **state)
{
    (void)state;
    struct rig r;
    bool refused;
    rig_open(&r, KEY_INT64, 128, DIST_L2);
    uint64_t need = plan_hnsw_bytes(100000, 128, r.schema->index.m);
    assert_int_equal(chosen(&r, INDEX_AUTO, 16383, need, &refused), INDEX_FLAT); /* under 8 MiB */
    assert_int_equal(chosen(&r, INDEX_AUTO, 16384, need, &refused), INDEX_HNSW);
    assert_int_equal(chosen(&r, INDEX_AUTO, 100000, need, &refused), INDEX_HNSW);
    assert_int_equal(chosen(&r, INDEX_AUTO, 100000, need - 1, &refused), INDEX_IVF);
    assert_false(refused);
    assert_int_equal(chosen(&r, INDEX_HNSW, 100000, need - 1, &refused), INDEX_HNSW);
    assert_true(refused);
    assert_int_equal(chosen(&r, INDEX_HNSW, 100000, need, &refused), INDEX_HNSW);
    assert_false(refused);
    assert_int_equal(chosen(&r, INDEX_IVF, 999, need, &refused), INDEX_FLAT);
    assert_int_equal(chosen(&r, INDEX_IVF, 1000, need, &refused), INDEX_IVF);
    assert_int_equal(chosen(&r, INDEX_FLAT, 100000, need, &refused), INDEX_FLAT);
    rig_close(&r);
}

static void default_budget_is_within_the_machine(void **state)
{
    (void)state;
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    assert_in_range(plan_memory_default(), 1, machine / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_lists_are_a_scan),
        cmocka_unit_test(few_lists_find_most),
        cmocka_unit_test(codes_find_what_vectors_find),
        cmocka_unit_test(all_lists_are_read_as_vectors),
        cmocka_unit_test(lists_read_from_disk_find_the_same),
        cmocka_unit_test(list_that_cannot_be_read_is_an_error),
        cmocka_unit_test(lists_are_widened_until_k_are_found),
        cmocka_unit_test(radius_cuts_inclusively),
        cmocka_unit_test(huge_values_do_not_break_the_lists),
        cmocka_unit_test(one_value_everywhere_makes_lists_all_the_same),
        cmocka_unit_test(file_holds_every_vector_once),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(lists_follow_the_number_of_vectors),
        cmocka_unit_test(budget_decides_between_graph_and_lists),
        cmocka_unit_test(default_budget_is_within_the_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
