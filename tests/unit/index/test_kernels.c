/* The distance kernels: against sums in double, at every dimension up to 1030 and every alignment
 * of a float, for each instruction set that this machine has; and that no load passes the end. */
#include <math.h>
#include <sys/mman.h>

#include "index/kernels.h"
#include "rig.h"

enum { DIM_LAST = 1030, SHIFTS = 16 };

static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512vnni"};
enum { ISAS = sizeof(isas) / sizeof(isas[0]) };

/* 5 rows (query and four) that end right before a page that cannot be read. */
struct rows {
    float *row[5];
    uint8_t *pages[5];
};

static size_t pages_bytes(void)
{
    return round_up((DIM_LAST + SHIFTS) * sizeof(float), 4096);
}

static void rows_open(struct rows *r)
{
    for (int i = 0; i < 5; i++) {
        r->pages[i] = mmap(NULL, pages_bytes() + 4096, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(r->pages[i], MAP_FAILED);
        mprotect(r->pages[i] + pages_bytes(), 4096, PROT_NONE);
    }
}

static void rows_close(struct rows *r)
{
    for (int i = 0; i < 5; i++)
        munmap(r->pages[i], pages_bytes() + 4096);
}

/* Row i, `shift` floats before the end of its pages; the same values for any shift. */
static void rows_fill(struct rows *r, size_t d, size_t shift)
{
    uint64_t seed = d;
    for (int i = 0; i < 5; i++) {
        r->row[i] = (float *)(r->pages[i] + pages_bytes()) - d - shift;
        for (size_t j = 0; j < d; j++)
            r->row[i][j] = rig_normal(&seed);
    }
}

struct reference {
    double l2, dot, norm, dot_terms;
};

static struct reference reference_of(const float *x, const float *y, size_t d)
{
    struct reference r = {0};
    for (size_t i = 0; i < d; i++) {
        double a = x[i], b = y[i];
        r.l2 += (a - b) * (a - b);
        r.dot += a * b;
        r.dot_terms += fabs(a * b);
        r.norm += b * b;
    }
    return r;
}

static void assert_near(double got, double want, double slack)
{
    if (!(fabs(got - want) <= slack))
        fail_msg("%.9g is not %.9g within %.3g", got, want, slack);
}

struct results {
    float l2, dot, dot_norm, norm, l2_4[4], dot_4[4], dot_norm_4[4], norm_4[4];
};

static struct results results_of(const struct kernels *k, const struct rows *r, size_t d)
{
    const float *four[4] = {r->row[1], r->row[2], r->row[3], r->row[4]};
    struct results o;
    memset(&o, 0, sizeof(o));
    o.l2 = k->l2sqr(r->row[0], r->row[1], d);
    o.dot = k->dot(r->row[0], r->row[1], d);
    o.dot_norm = k->dot_norm(r->row[0], r->row[1], d, &o.norm);
    k->l2sqr_4(r->row[0], four, d, o.l2_4);
    k->dot_4(r->row[0], four, d, o.dot_4);
    k->dot_norm_4(r->row[0], four, d, o.dot_norm_4, o.norm_4);
    return o;
}

static void check_results(const struct results *o, const struct rows *r, size_t d)
{
    double e = kernels_error(d);
    for (int i = 0; i < 4; i++) {
        struct reference w = reference_of(r->row[0], r->row[i + 1], d);
        assert_near(o->l2_4[i], w.l2, e * w.l2);
        assert_near(o->dot_4[i], w.dot, e * w.dot_terms);
        assert_near(o->dot_norm_4[i], w.dot, e * w.dot_terms);
        assert_near(o->norm_4[i], w.norm, e * w.norm);
        if (i > 0)
            continue;
        assert_near(o->l2, w.l2, e * w.l2);
        assert_near(o->dot, w.dot, e * w.dot_terms);
        assert_near(o->dot_norm, w.dot, e * w.dot_terms);
        assert_near(o->norm, w.norm, e * w.norm);
    }
}

static void kernels_match_double_at_every_dimension(void **state)
{
    (void)state;
    struct rows r;
    rows_open(&r);
    for (size_t i = 0; i < ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        if (!k) {
            print_message("no %s on this machine\n", isas[i]);
            continue;
        }
        for (size_t d = 1; d <= DIM_LAST; d++) {
            rows_fill(&r, d, 0);
            struct results first = results_of(k, &r, d);
            check_results(&first, &r, d);
            for (size_t shift = 1; shift < SHIFTS; shift += d % 5 + 1) {
                rows_fill(&r, d, shift);
                struct results again = results_of(k, &r, d);
                assert_memory_equal(&first, &again, sizeof(first));
            }
        }
    }
    rows_close(&r);
}

static void a_row_measures_alike_in_every_place_of_four(void **state)
{
    (void)state;
    struct rows r;
    rows_open(&r);
    for (size_t i = 0; i < ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        for (size_t d = 1; k && d < 100; d++) {
            rows_fill(&r, d, 0);
            const float *same[4] = {r.row[1], r.row[1], r.row[1], r.row[1]};
            float out[4], norm[4];
            k->dot_norm_4(r.row[0], same, d, out, norm);
            for (int j = 1; j < 4; j++)
                assert_true(out[j] == out[0] && norm[j] == norm[0]);
            k->l2sqr_4(r.row[0], same, d, out);
            for (int j = 1; j < 4; j++)
                assert_true(out[j] == out[0]);
        }
    }
    rows_close(&r);
}

/* ---- double ---- */

/* Eight sums, folded pairwise: the bits are part of what a search promises. */
static double sum_in_order(const float *x, const float *y, size_t d, bool squares)
{
    double l[8] = {0};
    for (size_t i = 0; i < d; i++) {
        volatile double t = squares ? (double)x[i] - y[i] : (double)x[i];
        volatile double u = t * (squares ? t : (double)y[i]);
        l[i % 8] += u;
    }
    return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

static void sums_in_double_have_the_same_bits_everywhere(void **state)
{
    (void)state;
    static const float scales[] = {1, 1e-38f, 1e-42f, 1e37f};
    struct rows r;
    rows_open(&r);
    for (size_t i = 0; i < ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        for (size_t d = 1; k && d <= DIM_LAST; d++) {
            rows_fill(&r, d, d % 3);
            for (size_t j = 0; j < d; j++)
                r.row[1][j] *= scales[(j + d) % 4];
            assert_true(k->dot_double(r.row[0], r.row[1], d) ==
                        sum_in_order(r.row[0], r.row[1], d, false));
            assert_true(k->squares_double(r.row[0], r.row[1], d) ==
                        sum_in_order(r.row[0], r.row[1], d, true));
        }
    }
    rows_close(&r);
}

/* ---- codes ---- */

enum { EXTREMES = 4 };

/* Query and four rows of `stride` bytes that end right before a page that cannot be read; zeros
 * from d on. With `extreme` below EXTREMES: all at the ends of what a code or a weight may be. */
static void codes_fill(struct rows *r, size_t d, size_t stride, size_t shift, int extreme,
                       bool weights, uint8_t *at[5])
{
    static const int queries[EXTREMES] = {127, 0, 127, 127}, rows[EXTREMES] = {0, 127, 127, 64};
    uint64_t seed = d + 1;
    for (int i = 0; i < 5; i++) {
        at[i] = r->pages[i] + pages_bytes() - stride - shift;
        memset(at[i], 0, stride);
        for (size_t j = 0; j < d; j++) {
            uint64_t v = rig_random(&seed);
            at[i][j] = (uint8_t)(v & 127);
            if (i == 0 && weights)
                at[i][j] = (uint8_t)(int8_t)((int)(v % 255) - 127);
            if (extreme < EXTREMES)
                at[i][j] = (uint8_t)(i > 0 ? rows[extreme] : queries[extreme]);
            if (extreme == 0 && i == 0 && weights)
                at[i][j] = (uint8_t)(int8_t)-127;
        }
    }
}

static void check_codes(const struct kernels *k, uint8_t *const at[5], size_t d, size_t stride,
                        bool weights)
{
    const uint8_t *const four[4] = {at[1], at[2], at[3], at[4]};
    int32_t out[4];
    if (weights)
        k->code_dot_4((const int8_t *)at[0], four, stride, out);
    else
        k->code_l2_4(at[0], four, stride, out);
    for (int i = 0; i < 4; i++) {
        int64_t want = 0;
        for (size_t j = 0; j < d; j++) {
            int c = four[i][j], q = weights ? (int8_t)at[0][j] : at[0][j];
            want += weights ? q * c : (q - c) * (q - c);
        }
        if (out[i] != want)
            fail_msg("%s, %zu dimensions, row %d: %d is not %lld", k->name, d, i, out[i],
                     (long long)want);
    }
}

static void codes_are_measured_exactly_at_every_dimension(void **state)
{
    (void)state;
    struct rows r;
    uint8_t *at[5];
    rows_open(&r);
    for (size_t i = 0; i < ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        for (size_t d = 1; k && d <= DIM_LAST; d++) {
            size_t stride = round_up(d, 64);
            for (int run = 0; run < 2 * (EXTREMES + 1); run++) {
                codes_fill(&r, d, stride, 0, run / 2, run % 2, at);
                check_codes(k, at, d, stride, run % 2);
            }
            size_t shift = d % 64;
            codes_fill(&r, d, stride, shift, EXTREMES, d % 2, at);
            check_codes(k, at, d, stride, d % 2);
        }
    }
    rows_close(&r);
}

/* The largest dimension there is does not overflow, and hostile bytes do no harm. */
static void codes_of_the_largest_dimension_are_measured_exactly(void **state)
{
    (void)state;
    uint8_t *at[5];
    for (int i = 0; i < 5; i++)
        assert_non_null(at[i] = malloc(DIM_MAX));
    for (size_t i = 0; i < ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        for (int run = 0; k && run < 2; run++) {
            for (int j = 0; j < 5; j++)
                memset(at[j], j == 0 && run == 0 ? 0 : 127, DIM_MAX);
            check_codes(k, at, DIM_MAX, DIM_MAX, run);
            const uint8_t *const four[4] = {at[1], at[2], at[3], at[4]};
            int32_t out[4];
            for (int j = 1; j < 5; j++)
                memset(at[j], 128 + 40 * (j - 1), DIM_MAX);
            k->code_l2_4(at[0], four, DIM_MAX, out);
            k->code_dot_4((const int8_t *)at[0], four, DIM_MAX, out);
        }
    }
    for (int i = 0; i < 5; i++)
        free(at[i]);
}

/* 8-bit codes: random bytes and the ends of what they may be, up to the largest dimension. */
static void check_codes8(const struct kernels *k, uint8_t *const at[5], size_t stride)
{
    const uint8_t *const four[4] = {at[1], at[2], at[3], at[4]};
    int32_t out[4];
    k->code8_l2_4(at[0], four, stride, out);
    for (int i = 0; i < 4; i++) {
        int64_t want = 0;
        for (size_t j = 0; j < stride; j++)
            want += (at[0][j] - four[i][j]) * (at[0][j] - four[i][j]);
        if (out[i] != want)
            fail_msg("%s, stride %zu, row %d: %d is not %lld", k->name, stride, i, out[i],
                     (long long)want);
    }
}

static void codes_of_8_bits_are_measured_exactly(void **state)
{
    (void)state;
    struct rows r;
    uint8_t *at[5];
    uint64_t seed = 3;
    rows_open(&r);
    for (size_t i = 0; i < ISAS; i++) {
        const struct kernels *k = kernels_find(isas[i]);
        for (size_t stride = 64; k && stride <= 1024; stride += 64) {
            for (int run = 0; run < 4; run++) {
                for (int j = 0; j < 5; j++) {
                    at[j] = r.pages[j] + pages_bytes() - stride;
                    for (size_t b = 0; b < stride; b++)
                        at[j][b] = run < 2                 ? (uint8_t)rig_random(&seed)
                                   : (j > 0) == (run == 2) ? 255
                                                           : 0;
                }
                check_codes8(k, at, stride);
            }
        }
    }
    rows_close(&r);
    size_t most = CODE8_DIM_MAX / 64 * 64;
    for (int j = 0; j < 5; j++) {
        assert_non_null(at[j] = malloc(most));
        memset(at[j], j > 0 ? 255 : 0, most);
    }
    for (size_t i = 0; i < ISAS; i++) {
        if (kernels_find(isas[i]))
            check_codes8(kernels_find(isas[i]), at, most);
    }
    for (int j = 0; j < 5; j++)
        free(at[j]);
}

static void an_instruction_set_can_be_forced(void **state)
{
    (void)state;
    struct err_ctx ctx;
    err_clear(&ctx);
    setenv("LOADSTONE_ISA", "scalar", 1);
    assert_int_equal(kernels_init(&ctx), ERR_OK);
    assert_string_equal(index_isa(), "scalar");
    setenv("LOADSTONE_ISA", "mmx", 1);
    assert_int_equal(kernels_init(&ctx), ERR_INVALID);
    assert_non_null(strstr(
        ctx.detail, "LOADSTONE_ISA is \"mmx\": use auto, avx512vnni, avx512, avx2 or scalar"));
    unsetenv("LOADSTONE_ISA");
    assert_int_equal(kernels_init(&ctx), ERR_OK);
    const char *best = index_isa();
    setenv("LOADSTONE_ISA", "auto", 1);
    assert_int_equal(kernels_init(&ctx), ERR_OK);
    assert_string_equal(index_isa(), best);
    unsetenv("LOADSTONE_ISA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_match_double_at_every_dimension),
        cmocka_unit_test(a_row_measures_alike_in_every_place_of_four),
        cmocka_unit_test(sums_in_double_have_the_same_bits_everywhere),
        cmocka_unit_test(codes_are_measured_exactly_at_every_dimension),
        cmocka_unit_test(codes_of_the_largest_dimension_are_measured_exactly),
        cmocka_unit_test(codes_of_8_bits_are_measured_exactly),
        cmocka_unit_test(an_instruction_set_can_be_forced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
