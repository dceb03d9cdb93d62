/* The distance kernels: against sums in double, at every dimension up to 1030 and every alignment
 * of a float, for each instruction set that this machine has; and that no load passes the end. */
#include <math.h>
#include <sys/mman.h>

#include "index/kernels.h"
#include "rig.h"

enum { DIM_LAST = 1030, SHIFTS = 16 };

static const char *const isas[] = {"scalar", "avx2", "avx512"};

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
    for (size_t i = 0; i < 3; i++) {
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
    for (size_t i = 0; i < 3; i++) {
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
    assert_non_null(
        strstr(ctx.detail, "LOADSTONE_ISA is \"mmx\": use auto, avx512, avx2 or scalar"));
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
        cmocka_unit_test(an_instruction_set_can_be_forced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
