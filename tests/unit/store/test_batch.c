/* Batches: three states per cell, lazily filled columns, and what validation refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "store/batch.h"

static struct err_ctx ctx;

static struct batch *fresh(enum key_type key, enum metric metric)
{
    struct schema *s;
    struct batch *b;
    assert_int_equal(schema_new(key, 3, metric, &s, &ctx), ERR_OK);
    assert_int_equal(schema_add_feature(s, "n", FEATURE_INT32, &ctx), ERR_OK);
    assert_int_equal(schema_add_feature(s, "text", FEATURE_STRING, &ctx), ERR_OK);
    assert_int_equal(schema_seal(s, &ctx), ERR_OK);
    assert_int_equal(batch_new(s, &b, &ctx), ERR_OK);
    schema_release(s);
    return b;
}

static void cells_are_absent_null_or_a_value(void **state)
{
    (void)state;
    struct batch *b = fresh(KEY_INT64, DIST_L2);
    for (int round = 0; round < 2; round++) {
        for (int32_t i = 0; i < 100; i++) {
            char text[16];
            snprintf(text, sizeof text, "t%d", i);
            assert_int_equal(batch_row_int(b, i * 10, &ctx), ERR_OK);
            if (i % 4 == 1)
                assert_int_equal(batch_set(b, 0, &i, 4, &ctx), ERR_OK);
            if (i % 4 == 2)
                assert_int_equal(batch_set_null(b, 0, &ctx), ERR_OK);
            if (i % 7 == 3)
                assert_int_equal(batch_set(b, 1, text, strlen(text), &ctx), ERR_OK);
        }
        for (int32_t i = 0; i < 100; i++) {
            static const enum cell_state expect[] = {CELL_ABSENT, CELL_VALUE, CELL_NULL,
                                                     CELL_ABSENT};
            assert_int_equal(column_state(&b->features[0], (size_t)i), expect[i % 4]);
            assert_int_equal(batch_int_key(b, (size_t)i), i * 10);
            if (i % 4 == 1)
                assert_int_equal(((const int32_t *)b->features[0].values.data)[i], i);
            if (i % 7 == 3) {
                char text[16];
                size_t len;
                snprintf(text, sizeof text, "t%d", i);
                const void *p = column_var(&b->features[1], (size_t)i, &len);
                assert_int_equal(len, strlen(text));
                assert_memory_equal(p, text, len);
            }
            assert_int_equal(column_state(&b->vector, (size_t)i), CELL_ABSENT);
        }
        assert_int_equal(b->first_row, round * 100);
        batch_reset(b);
    }
    batch_free(b);
}

static void a_cell_given_twice_is_refused(void **state)
{
    (void)state;
    struct batch *b = fresh(KEY_STRING, DIST_L2);
    float v[3] = {1, 2, 3};
    int32_t n = 1;
    b->first_row = 40;
    assert_int_equal(batch_row_str(b, "a", 1, &ctx), ERR_OK);
    assert_int_equal(batch_row_str(b, "b", 1, &ctx), ERR_OK);
    assert_int_equal(batch_set(b, 0, &n, 4, &ctx), ERR_OK);
    assert_int_equal(batch_set_null(b, 0, &ctx), ERR_UNPROCESSABLE);
    assert_int_equal(ctx.row, 41);
    assert_string_equal(ctx.field, "n");
    assert_int_equal(batch_set_vector(b, v, &ctx), ERR_OK);
    assert_int_equal(batch_set_vector_null(b, &ctx), ERR_UNPROCESSABLE);
    assert_string_equal(ctx.field, "vector");
    batch_free(b);
}

static enum err validate(enum metric metric, const float *v)
{
    struct batch *b = fresh(KEY_INT64, metric);
    float good[3] = {1, 1, 1};
    assert_int_equal(batch_row_int(b, 1, &ctx), ERR_OK);
    assert_int_equal(batch_set_vector(b, good, &ctx), ERR_OK);
    assert_int_equal(batch_row_int(b, 2, &ctx), ERR_OK);
    assert_int_equal(batch_set_vector(b, v, &ctx), ERR_OK);
    enum err e = batch_validate(b, &ctx);
    batch_free(b);
    struct batch *run = fresh(KEY_INT64, metric);
    float two[6] = {1, 1, 1, v[0], v[1], v[2]};
    assert_int_equal(batch_borrow_vectors(run, two, 2, 5, &ctx), ERR_OK);
    assert_int_equal(batch_validate(run, &ctx), e); /* the same, whichever way they came */
    batch_free(run);
    return e;
}

static void vectors_must_be_finite_and_not_zero_for_cosine(void **state)
{
    (void)state;
    assert_int_equal(validate(DIST_L2, (float[]){0, 0, 0}), ERR_OK);
    assert_int_equal(validate(DIST_IP, (float[]){0, -0.0f, 0}), ERR_OK);
    assert_int_equal(validate(DIST_COSINE, (float[]){0, 1e-38f, 0}), ERR_OK);
    assert_int_equal(validate(DIST_L2, (float[]){3e38f, -3e38f, 1e-45f}), ERR_OK);
    assert_int_equal(validate(DIST_COSINE, (float[]){0, -0.0f, 0}), ERR_UNPROCESSABLE);
    assert_int_equal(ctx.row, 1);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 9; i++) {
        float v[3] = {1, 2, 3};
        v[i % 3] = bad[i / 3];
        assert_int_equal(validate(DIST_L2, v), ERR_UNPROCESSABLE);
        assert_int_equal(ctx.row, 1);
        assert_string_equal(ctx.field, "vector");
    }
}

static void keys_have_limits(void **state)
{
    (void)state;
    struct batch *b = fresh(KEY_STRING, DIST_L2);
    char key[KEY_MAX_BYTES + 1];
    memset(key, 'k', sizeof key);
    assert_int_equal(batch_row_str(b, "", 0, &ctx), ERR_UNPROCESSABLE);
    assert_int_equal(batch_row_str(b, key, sizeof key, &ctx), ERR_UNPROCESSABLE);
    assert_int_equal(batch_row_str(b, key, KEY_MAX_BYTES, &ctx), ERR_OK);
    assert_int_equal(batch_validate(b, &ctx), ERR_OK);
    assert_int_equal(batch_row_str(b, "\xff", 1, &ctx), ERR_OK);
    assert_int_equal(batch_validate(b, &ctx), ERR_UNPROCESSABLE);
    assert_int_equal(ctx.row, 1);
    batch_free(b);
    b = fresh(KEY_INT64, DIST_L2);
    float v[6] = {0};
    assert_int_equal(batch_borrow_vectors(b, v, 2, INT64_MAX, &ctx), ERR_UNPROCESSABLE);
    assert_int_equal(batch_borrow_vectors(b, v, 2, INT64_MAX - 1, &ctx), ERR_OK);
    batch_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_are_absent_null_or_a_value),
        cmocka_unit_test(a_cell_given_twice_is_refused),
        cmocka_unit_test(vectors_must_be_finite_and_not_zero_for_cosine),
        cmocka_unit_test(keys_have_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
