/* Masks: edits never reach the mask they were made from, pages are shared, the stored form reads
 * back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "store/mask.h"

static void edits_leave_the_original_alone(void **state)
{
    (void)state;
    enum { ROWS = 200001 };
    uint8_t *model = calloc(1, ROWS);
    struct mask *m = mask_edit(NULL, ROWS);
    unsigned seed = 3;
    bool was;
    for (int i = 0; i < 500; i++)
        assert_true(mask_set(m, (uint32_t)rand_r(&seed) % 60000, &was));
    for (uint32_t r = 0; r < ROWS; r++)
        model[r] = mask_get(m, r);
    struct mask *n = mask_edit(m, ROWS);
    assert_ptr_equal(n->pages[0], m->pages[0]);
    assert_true(mask_set(n, 200000, &was));
    assert_false(was);
    assert_ptr_equal(n->pages[0], m->pages[0]); /* untouched pages stay shared */
    for (uint32_t r = 0; r < 70000; r++)
        assert_true(mask_set(n, r, &was) && was == model[r]);
    for (uint32_t r = 0; r < ROWS; r++) {
        assert_int_equal(mask_get(m, r), model[r]);
        assert_int_equal(mask_get(n, r), r < 70000 || r == 200000);
    }
    assert_int_equal(n->count, 70001);
    mask_release(m);
    assert_true(mask_get(n, 69999));
    mask_release(n);
    free(model);
}

static void the_stored_form_reads_back(void **state)
{
    (void)state;
    struct mask *m = mask_edit(NULL, 150000), *n;
    struct err_ctx ctx;
    struct buf b = {0};
    bool was;
    for (uint32_t r = 0; r < 150000; r += 1 + r % 97)
        assert_true(mask_set(m, r, &was));
    assert_true(mask_encode(m, &b));
    assert_int_equal(mask_decode(b.data, b.len, 150000, &n, &ctx), ERR_OK);
    assert_int_equal(n->count, m->count);
    for (uint32_t r = 0; r < 150000; r++)
        assert_int_equal(mask_get(n, r), mask_get(m, r));
    mask_release(n);
    assert_int_equal(mask_decode(b.data, b.len, 1000, &n, &ctx), ERR_CORRUPT);
    assert_int_equal(mask_decode(b.data, b.len / 2, 150000, &n, &ctx), ERR_CORRUPT);
    mask_release(m);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits_leave_the_original_alone),
        cmocka_unit_test(the_stored_form_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
