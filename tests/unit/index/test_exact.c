/* Exact search against sums in double over every live row: all metrics, both key types, ties, dead
 * rows, rows without vectors, files and a tail together; and the same hits to the bit for every
 * instruction set and every way to cut the rows into segments. */
#include <math.h>

#include "index/kernels.h"
#include "rig.h"

enum { ROWS = 3000, QUERIES = 70, K_MAX = 400 };

static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512vnni"};

struct data {
    uint32_t dim;
    float *vectors; /* ROWS x dim; each tenth row repeats one from the other end */
    float *queries;
    uint8_t *missing;
};

static void data_open(struct data *d, uint32_t dim)
{
    d->dim = dim;
    d->vectors = rig_vectors(ROWS, dim, 20, 1);
    d->queries = rig_vectors(QUERIES, dim, 20, 2);
    d->missing = calloc(1, ROWS);
    for (size_t i = 9; i < ROWS; i += 10)
        memcpy(d->vectors + i * dim, d->vectors + (ROWS - 1 - i) * dim, dim * sizeof(float));
    for (size_t i = 5; i < ROWS; i += 17)
        d->missing[i] = 1;
    memcpy(d->queries, d->vectors + 100 * dim, dim * sizeof(float)); /* distance 0 */
}

static void data_close(struct data *d)
{
    free(d->vectors);
    free(d->queries);
    free(d->missing);
}

static bool row_dead(size_t i)
{
    return i % 13 == 4 || (i > 1500 && i < 1700);
}

/* Rows [cuts[i], cuts[i + 1]) are view n - 1 - i, so that the order of views is not that of keys;
 * the first rows are in a tail when there is more than one view. */
static struct snapshot *make_snapshot(struct rig *r, const struct data *d, const size_t *cuts,
                                      uint32_t n)
{
    struct segment *segments[8];
    for (uint32_t i = 0; i < n; i++) {
        size_t from = cuts[i], rows = cuts[i + 1] - from;
        struct segment *(*make)(struct rig *, uint64_t, const float *, size_t, int64_t,
                                const uint8_t *) = i == 0 && n > 1 ? rig_tail : rig_file;
        segments[n - 1 - i] =
            make(r, i + 1, d->vectors + from * d->dim, rows, (int64_t)from, d->missing + from);
    }
    struct snapshot *s = rig_snapshot(r, segments, n);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t row = cuts[i]; row < cuts[i + 1]; row++) {
            if (row_dead(row))
                rig_kill(s, n - 1 - i, (uint32_t)(row - cuts[i]));
        }
    }
    return s;
}

struct naive {
    double distance;
    size_t row;
    char key[24];
};

static enum key_type naive_keys;

static int naive_compare(const void *a, const void *b)
{
    const struct naive *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    if (naive_keys == KEY_INT64)
        return (x->row > y->row) - (x->row < y->row);
    return strcmp(x->key, y->key);
}

static double naive_distance(enum metric m, const float *q, const float *v, uint32_t dim)
{
    long double l2 = 0, dot = 0, nq = 0, nv = 0;
    for (uint32_t i = 0; i < dim; i++) {
        long double a = q[i], b = v[i];
        l2 += (a - b) * (a - b);
        dot += a * b;
        nq += a * a;
        nv += b * b;
    }
    if (m == DIST_L2)
        return (double)sqrtl(l2);
    /* duplicates must tie exactly here too, and they do: same operations, same values */
    return m == DIST_IP ? (double)-dot : (double)(1 - dot / sqrtl(nq * nv));
}

static size_t naive_search(const struct data *d, enum metric m, const float *q, size_t left_out,
                           struct naive *out)
{
    size_t n = 0;
    for (size_t i = 0; i < ROWS; i++) {
        if (row_dead(i) || d->missing[i] || i == left_out)
            continue;
        out[n] = (struct naive){.distance = naive_distance(m, q, d->vectors + i * d->dim, d->dim),
                                .row = i};
        snprintf(out[n].key, sizeof(out[n].key), "k%zu", i);
        n++;
    }
    qsort(out, n, sizeof(*out), naive_compare);
    return n;
}

static struct hit hits[QUERIES * (size_t)ROWS];
static uint32_t nhits[QUERIES];

static void search(const struct snapshot *s, const struct data *d, uint32_t k,
                   const struct row_ref *exclude)
{
    struct search_params p = {.k = k, .exact = true, .exclude = exclude};
    struct err_ctx ctx;
    err_clear(&ctx);
    if (search_run(s, d->queries, QUERIES, &p, search_scratch_local(), hits, nhits, &ctx) != 0)
        fail_msg("%s", ctx.detail);
}

static void assert_hits_are_naive(const struct snapshot *s, const struct data *d, uint32_t k,
                                  size_t left_out)
{
    static struct naive want[ROWS];
    for (size_t q = 0; q < QUERIES; q++) {
        size_t n = naive_search(d, s->schema->metric, d->queries + q * d->dim, left_out, want);
        assert_int_equal(nhits[q], n < k ? n : k);
        for (uint32_t i = 0; i < nhits[q]; i++) {
            const struct hit *h = &hits[q * k + i];
            if (rig_key(s, h->ref) != (int64_t)want[i].row)
                fail_msg("query %zu, hit %u: key %lld at %.17g, expected %zu at %.17g", q, i,
                         (long long)rig_key(s, h->ref), h->distance, want[i].row, want[i].distance);
            double slack = 1e-12 * (1 + fabs(want[i].distance));
            assert_true(fabs(h->distance - want[i].distance) <= slack);
            assert_true(i == 0 || h[-1].distance <= h->distance);
        }
    }
}

static const size_t one_cut[] = {0, ROWS}, four_cuts[] = {0, 100, 1001, 2200, ROWS};

static void check_metric(enum metric m, enum key_type key, uint32_t dim)
{
    struct rig r;
    struct data d;
    rig_open(&r, key, dim, m);
    data_open(&d, dim);
    naive_keys = key;
    struct snapshot *s = make_snapshot(&r, &d, four_cuts, 4);
    static const uint32_t ks[] = {1, 10, K_MAX, ROWS};
    for (size_t i = 0; i < 4; i++) {
        search(s, &d, ks[i], NULL);
        assert_hits_are_naive(s, &d, ks[i], SIZE_MAX);
    }
    snapshot_release(s);
    data_close(&d);
    rig_close(&r);
}

static void exact_is_exact_for_l2(void **state)
{
    (void)state;
    check_metric(DIST_L2, KEY_INT64, 33);
    check_metric(DIST_L2, KEY_STRING, 3);
}

static void exact_is_exact_for_ip(void **state)
{
    (void)state;
    check_metric(DIST_IP, KEY_INT64, 64);
    check_metric(DIST_IP, KEY_STRING, 1);
}

static void exact_is_exact_for_cosine(void **state)
{
    (void)state;
    check_metric(DIST_COSINE, KEY_INT64, 40);
    check_metric(DIST_COSINE, KEY_STRING, 7);
}

static void a_row_can_be_left_out_of_its_own_result(void **state)
{
    (void)state;
    struct rig r;
    struct data d;
    struct row_ref exclude[QUERIES];
    rig_open(&r, KEY_INT64, 16, DIST_L2);
    data_open(&d, 16);
    naive_keys = KEY_INT64;
    struct snapshot *s = make_snapshot(&r, &d, four_cuts, 4);
    for (size_t i = 0; i < QUERIES; i++)
        assert_true(snapshot_find_int(s, 100, &exclude[i]));
    search(s, &d, 10, exclude);
    assert_hits_are_naive(s, &d, 10, 100);
    snapshot_release(s);
    data_close(&d);
    rig_close(&r);
}

/* Hits of the first layout with the first instruction set: keys and distances. */
struct seen {
    int64_t key;
    double distance;
};

static void layout_and_instructions_do_not_show(void **state)
{
    (void)state;
    static struct seen first[QUERIES * 50];
    struct rig r;
    struct data d;
    rig_open(&r, KEY_INT64, 50, DIST_COSINE);
    data_open(&d, 50);
    for (size_t layout = 0; layout < 2; layout++) {
        struct snapshot *s = make_snapshot(&r, &d, layout ? four_cuts : one_cut, layout ? 4 : 1);
        for (size_t i = 0; i < 4; i++) {
            if (!kernels_find(isas[i]))
                continue;
            setenv("LOADSTONE_ISA", isas[i], 1);
            assert_int_equal(kernels_init(NULL), ERR_OK);
            search(s, &d, 50, NULL);
            for (size_t h = 0; h < QUERIES * 50; h++) {
                struct seen now = {rig_key(s, hits[h].ref), hits[h].distance};
                if (layout == 0 && i == 0)
                    first[h] = now;
                assert_true(now.key == first[h].key && now.distance == first[h].distance);
            }
        }
        snapshot_release(s);
        if (layout == 0)
            unlink(temp_path(&r.dir, "1.seg"));
    }
    unsetenv("LOADSTONE_ISA");
    assert_int_equal(kernels_init(NULL), ERR_OK);
    data_close(&d);
    rig_close(&r);
}

/* Rows whose elements are the same large numbers in another order, and a tiny one: the true order
 * is that of the tiny ones, while sums in float differ by rounding a hundred times as much. More
 * rows are within that than fit beside the k. */
static void what_float_cannot_order_double_does(void **state)
{
    (void)state;
    enum { N = 2000, DIM = 24 };
    struct rig r;
    uint64_t seed = 7;
    float v[N * DIM], q[DIM], large[DIM];
    rig_open(&r, KEY_INT64, DIM, DIST_IP);
    for (int j = 0; j < DIM; j++) {
        q[j] = 1;
        large[j] = 1000 * rig_normal(&seed);
    }
    large[0] = 0;
    for (size_t i = 0; i < N; i++) {
        for (size_t j = DIM - 1; j > 1; j--) { /* a random order of elements 1 .. DIM - 1 */
            size_t other = 1 + rig_random(&seed) % j;
            float t = large[j];
            large[j] = large[other];
            large[other] = t;
        }
        memcpy(v + i * DIM, large, sizeof(large));
        v[i * DIM] = (float)i / (1 << 20);
    }
    struct segment *seg = rig_file(&r, 1, v, N, 0, NULL);
    struct snapshot *s = rig_snapshot(&r, &seg, 1);
    struct search_params p = {.k = 20, .exact = true};
    uint32_t n;
    assert_int_equal(search_run(s, q, 1, &p, search_scratch_local(), hits, &n, NULL), ERR_OK);
    assert_int_equal(n, 20);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(hits[i].ref.row, N - 1 - i);
    snapshot_release(s);
    rig_close(&r);
}

/* Squares that overflow or vanish in float are measured in double. */
static void extreme_magnitudes_are_ordered(void **state)
{
    (void)state;
    static const float scales[] = {1e30f, 1e-30f, 1e-22f, 3e19f};
    for (enum metric m = DIST_COSINE; m <= DIST_IP; m++) {
        for (size_t k = 0; k < 4; k++) {
            struct rig r;
            enum { N = 500, DIM = 12 };
            float *v = rig_vectors(N, DIM, 5, 3), *q = rig_vectors(1, DIM, 5, 4);
            rig_open(&r, KEY_INT64, DIM, m);
            for (size_t i = 0; i < (size_t)N * DIM; i++)
                v[i] *= scales[k];
            for (size_t i = 0; i < DIM; i++)
                q[i] *= scales[k];
            struct segment *seg = rig_file(&r, 1, v, N, 0, NULL);
            struct snapshot *s = rig_snapshot(&r, &seg, 1);
            struct search_params p = {.k = 10, .exact = true};
            uint32_t n;
            assert_int_equal(search_run(s, q, 1, &p, search_scratch_local(), hits, &n, NULL), 0);
            assert_int_equal(n, 10);
            for (uint32_t i = 0; i < n; i++) {
                size_t nearer = 0;
                assert_true(isfinite(hits[i].distance));
                for (size_t j = 0; j < N; j++)
                    nearer += naive_distance(m, q, v + j * DIM, DIM) <
                              hits[i].distance - fabs(hits[i].distance) * 1e-12;
                assert_true(nearer <= i);
            }
            snapshot_release(s);
            free(v);
            free(q);
            rig_close(&r);
        }
    }
}

static void bad_queries_are_named(void **state)
{
    (void)state;
    struct rig r;
    struct err_ctx ctx;
    float q[4] = {1, NAN, 0, 0}, zero[4] = {0};
    rig_open(&r, KEY_INT64, 4, DIST_COSINE);
    err_clear(&ctx);
    assert_int_equal(search_check_query(r.schema, q, 3, &ctx), ERR_UNPROCESSABLE);
    assert_non_null(strstr(ctx.detail, "query 3: element 1 is NaN"));
    q[1] = -INFINITY;
    assert_int_equal(search_check_query(r.schema, q, 0, &ctx), ERR_UNPROCESSABLE);
    assert_non_null(strstr(ctx.detail, "infinite"));
    assert_int_equal(search_check_query(r.schema, zero, 0, &ctx), ERR_UNPROCESSABLE);
    assert_non_null(strstr(ctx.detail, "zero vector"));
    struct snapshot *s = rig_snapshot(&r, NULL, 0);
    struct search_params p = {.k = 0};
    uint32_t n = 99;
    assert_int_equal(search_run(s, q, 1, &p, search_scratch_local(), hits, &n, &ctx), ERR_INVALID);
    p.k = 10;
    assert_int_equal(search_run(s, q, 1, &p, search_scratch_local(), hits, &n, &ctx), ERR_OK);
    assert_int_equal(n, 0);
    snapshot_release(s);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_is_exact_for_l2),
        cmocka_unit_test(exact_is_exact_for_ip),
        cmocka_unit_test(exact_is_exact_for_cosine),
        cmocka_unit_test(a_row_can_be_left_out_of_its_own_result),
        cmocka_unit_test(layout_and_instructions_do_not_show),
        cmocka_unit_test(what_float_cannot_order_double_does),
        cmocka_unit_test(extreme_magnitudes_are_ordered),
        cmocka_unit_test(bad_queries_are_named),
    };
    if (kernels_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
