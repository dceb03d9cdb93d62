/* Codes: what an element loses, what lies outside, data that has no scale, queries far off; and the
 * gate, which keeps codes that lose neighbours out of a file. */
#include <float.h>
#include <math.h>

#include "index/build_codes.h"
#include "index/kernels.h"
#include "rig.h"

enum { DIM = 40, ROWS = 4000 };

struct fitted {
    struct code_scale scale;
    float room[2 * 256];
};

static void fit(struct fitted *f, enum code_scheme scheme, const float *v, size_t n, uint32_t dim)
{
    struct code_fit *fit;
    assert_true(dim <= 256);
    assert_int_equal(code_fit_new(scheme, dim, &fit, NULL), ERR_OK);
    for (size_t i = 0; i < n; i++)
        code_fit_add(fit, v + i * dim);
    code_fit_finish(fit, f->room, f->room + dim);
    code_fit_free(fit);
    f->scale =
        (struct code_scale){.scheme = scheme, .dim = dim, .lo = f->room, .step = f->room + dim};
}

static void an_element_within_the_range_loses_half_a_step(void **state)
{
    (void)state;
    float *v = rig_vectors(ROWS, DIM, 20, 1);
    uint8_t code[64];
    for (int scheme = CODE_UNIFORM; scheme <= CODE_SCALED; scheme++) {
        struct fitted f;
        size_t clipped = 0;
        fit(&f, (enum code_scheme)scheme, v, ROWS, DIM);
        assert_true(code_scale_usable(&f.scale));
        for (size_t i = 0; i < ROWS; i++) {
            code_encode(&f.scale, v + i * DIM, code);
            for (int j = 0; j < 64; j++)
                assert_true(code[j] <= (j < DIM ? CODE_TOP : 0));
            for (int j = 0; j < DIM; j++) {
                float lo = f.scale.lo[j], step = f.scale.step[j], x = v[i * DIM + j];
                if (x < lo || x > lo + CODE_TOP * step)
                    clipped++;
                else
                    assert_true(fabsf(lo + (float)code[j] * step - x) <= 0.501f * step);
            }
        }
        assert_true(scheme == CODE_SCALED ? clipped < 40 : clipped < ROWS * DIM / 5000);
    }
    free(v);
}

/* One element in a million far outside does not make the steps coarse. */
static void outliers_are_clipped(void **state)
{
    (void)state;
    float *v = rig_vectors(ROWS, DIM, 20, 1);
    struct fitted before, after;
    fit(&before, CODE_UNIFORM, v, ROWS, DIM);
    v[77] = 1e20f;
    v[9999] = -1e30f;
    fit(&after, CODE_UNIFORM, v, ROWS, DIM);
    assert_true(after.scale.step[0] < before.scale.step[0] * 1.2f);
    uint8_t code[64];
    code_encode(&after.scale, v + 77 / DIM * DIM, code);
    assert_int_equal(code[77 % DIM], CODE_TOP);
    code_encode(&after.scale, v + 9999 / DIM * DIM, code);
    assert_int_equal(code[9999 % DIM], 0);
    free(v);
}

static void the_longest_vectors_are_never_clipped_for_ip(void **state)
{
    (void)state;
    float *v = rig_vectors(ROWS, DIM, 20, 1);
    struct fitted f;
    v[77] = 1000;
    fit(&f, CODE_SCALED, v, ROWS, DIM);
    assert_true(f.scale.lo[37] + CODE_TOP * f.scale.step[37] >= 999.99f);
    assert_true(f.scale.step[36] < 1); /* the other dimensions do not suffer */
    free(v);
}

static void data_without_a_scale_has_none(void **state)
{
    (void)state;
    struct fitted f;
    float wide[4] = {-3e38f, 3e38f, 0, 1}, same[4] = {5, 5, 5, 5};
    for (int scheme = CODE_UNIFORM; scheme <= CODE_SCALED; scheme++) {
        enum code_scheme s = (enum code_scheme)scheme;
        uint8_t code[64], query[64];
        fit(&f, s, wide, 2, 2);
        assert_false(code_scale_usable(&f.scale));
        fit(&f, s, same, 2, 2);
        assert_true(code_scale_usable(&f.scale));
        code_encode(&f.scale, same, code);
        assert_int_equal(code[0], 0);
        assert_true(code_query_prepare(&f.scale, same, query));
        fit(&f, s, same, 0, 2);
        assert_true(code_scale_usable(&f.scale));
    }
}

static void a_dimension_that_never_changes_weighs_nothing_for_ip(void **state)
{
    (void)state;
    float v[6] = {100, 0, 1, 100, 1, 0}, q[3] = {50, 1, -0.5f};
    struct fitted f;
    int8_t w[64];
    fit(&f, CODE_SCALED, v, 2, 3);
    assert_true(code_query_prepare(&f.scale, q, (uint8_t *)w));
    assert_int_equal(w[0], 0);
    assert_int_equal(w[1], 127);
    assert_int_equal(w[2], -64);
    for (int i = 3; i < 64; i++)
        assert_int_equal(w[i], 0);
}

static void queries_far_outside_say_so(void **state)
{
    (void)state;
    float *v = rig_vectors(ROWS, DIM, 20, 1), q[DIM];
    struct fitted f;
    uint8_t query[64];
    fit(&f, CODE_UNIFORM, v, ROWS, DIM);
    memcpy(q, v, sizeof(q));
    assert_true(code_query_prepare(&f.scale, q, query));
    const float far[] = {1e3f, -1e3f, 1e30f, 3e38f, -3e38f};
    for (size_t i = 0; i < sizeof(far) / sizeof(far[0]); i++) {
        q[3] = far[i];
        assert_false(code_query_prepare(&f.scale, q, query));
    }
    fit(&f, CODE_SCALED, v, ROWS, DIM);
    assert_true(code_query_prepare(&f.scale, v, query));
    q[3] = 3e38f;
    f.room[DIM + 3] = 2; /* the step */
    assert_false(code_query_prepare(&f.scale, q, query));
    memset(q, 0, sizeof(q));
    assert_true(code_query_prepare(&f.scale, q, query));
    free(v);
}

/* ---- the gate ---- */

static bool gate(enum metric metric, float *v, struct ann_codes *codes)
{
    struct rig rig;
    struct distinct rows;
    float *room = NULL;
    rig_open(&rig, KEY_INT64, DIM, metric);
    struct segment *s = rig_file(&rig, 1, v, ROWS, 0, NULL);
    assert_int_equal(distinct_find(s, ROWS, &rows, NULL), ERR_OK);
    assert_int_equal(build_codes(s, &rows, &room, codes, NULL), ERR_OK);
    print_message("%s: recall %.4f of %u rows, %u permille more: %s\n", metric_name(metric),
                  codes->recall, codes->sample, codes->scale.rerank_permille,
                  codes->verdict == CODES_TAKEN ? "codes" : "no codes");
    free(room);
    distinct_deinit(&rows);
    segment_release(s);
    rig_close(&rig);
    return codes->verdict == CODES_TAKEN;
}

static void good_data_gets_codes(void **state)
{
    (void)state;
    struct ann_codes codes;
    float *v = rig_vectors(ROWS, DIM, 20, 1);
    for (int metric = DIST_COSINE; metric <= DIST_IP; metric++) {
        assert_true(gate((enum metric)metric, v, &codes));
        assert_int_equal(codes.scale.rerank_permille, 250);
        assert_int_equal(codes.sample, ROWS);
    }
    free(v);
}

/* One dimension holds values so large that the steps hide all others. */
static void a_rogue_dimension_gets_no_codes(void **state)
{
    (void)state;
    struct ann_codes codes;
    float *v = rig_vectors(ROWS, DIM, 20, 1);
    for (size_t i = 0; i < ROWS; i++)
        v[i * DIM + 5] = v[i * DIM + 5] < 0 ? -400 : 400;
    assert_false(gate(DIST_L2, v, &codes));
    assert_false(gate(DIST_COSINE, v, &codes));
    assert_false(gate(DIST_IP, v, &codes));
    free(v);
}

/* For ip each dimension has a scale of its own. */
static void a_dimension_of_another_size_gets_codes_for_ip(void **state)
{
    (void)state;
    struct ann_codes codes;
    float *v = rig_vectors(ROWS, DIM, 20, 1);
    for (size_t i = 0; i < ROWS; i++)
        v[i * DIM + 5] *= 20;
    assert_true(gate(DIST_IP, v, &codes));
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_element_within_the_range_loses_half_a_step),
        cmocka_unit_test(outliers_are_clipped),
        cmocka_unit_test(the_longest_vectors_are_never_clipped_for_ip),
        cmocka_unit_test(data_without_a_scale_has_none),
        cmocka_unit_test(a_dimension_that_never_changes_weighs_nothing_for_ip),
        cmocka_unit_test(queries_far_outside_say_so),
        cmocka_unit_test(good_data_gets_codes),
        cmocka_unit_test(a_rogue_dimension_gets_no_codes),
        cmocka_unit_test(a_dimension_of_another_size_gets_codes_for_ip),
    };
    if (kernels_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
