/* The limits: defaults that fit each other, contradictions told by name, all of them listed. */
#include "cmocka_all.h"

#include "api/limits.h"

static void test_the_defaults_fit_each_other(void **state)
{
    (void)state;
    struct limits l;
    limits_init(&l);
    assert_int_equal(l.json_body_bytes_max, 64 << 20);
    assert_int_equal(limits_check(&l, NULL), ERR_OK);
}

static void test_a_body_that_never_fits_the_buffers_is_told(void **state)
{
    (void)state;
    struct limits l;
    struct err_ctx err;
    limits_init(&l);
    l.buffer_bytes_max = 80 << 20;
    l.json_body_bytes_max = 60 << 20;
    assert_int_equal(limits_check(&l, &err), ERR_OK);
    l.json_body_bytes_max++;
    assert_int_equal(limits_check(&l, &err), ERR_INVALID);
    assert_non_null(strstr(err.detail, "raise buffer_bytes_max or lower json_body_bytes_max"));
    limits_init(&l);
    l.buffer_bytes_max = 8 << 20;
    l.json_body_bytes_max = 1 << 20;
    assert_int_equal(limits_check(&l, &err), ERR_INVALID);
    assert_non_null(strstr(err.detail, "lower row_bytes_max"));
}

static void test_every_row_is_listed(void **state)
{
    (void)state;
    struct limits l;
    struct buf out = {0};
    limits_init(&l);
    struct config_group g = limits_group(&l);
    limits_write(&l, &out);
    buf_put_u8(&out, 0);
    assert_int_equal(g.nrows * sizeof(uint64_t), sizeof l);
    for (unsigned i = 0; i < g.nrows; i++)
        assert_non_null(strstr((const char *)out.data, g.rows[i].name));
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_defaults_fit_each_other),
        cmocka_unit_test(test_a_body_that_never_fits_the_buffers_is_told),
        cmocka_unit_test(test_every_row_is_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
