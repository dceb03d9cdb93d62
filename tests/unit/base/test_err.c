/* Errors: codes, sentences, the row and field they speak of. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/err.h"

static void test_null_context_keeps_the_code(void **state)
{
    (void)state;
    err_clear(NULL);
    assert_int_equal(err_set(NULL, ERR_BUSY, "x"), ERR_BUSY);
    assert_int_equal(err_set_at(NULL, ERR_INVALID, 3, "f", "x"), ERR_INVALID);
    assert_int_equal(err_system(NULL, ENOSPC, "x"), ERR_NO_SPACE);
    assert_int_equal(err_no_memory(NULL, 1), ERR_NO_MEMORY);
}

static void test_row_and_field_stay_when_the_sentence_changes(void **state)
{
    (void)state;
    struct err_ctx ctx;
    err_clear(&ctx);
    assert_int_equal(ctx.row, -1);
    assert_int_equal(err_set_at(&ctx, ERR_UNPROCESSABLE, 7, "price", "not a number"),
                     ERR_UNPROCESSABLE);
    assert_int_equal(err_set(&ctx, ERR_INVALID, "row %d", 7), ERR_INVALID);
    assert_int_equal(ctx.code, ERR_INVALID);
    assert_int_equal(ctx.row, 7);
    assert_string_equal(ctx.field, "price");
    assert_string_equal(ctx.detail, "row 7");
    err_set_at(&ctx, ERR_INVALID, -1, NULL, "none");
    assert_int_equal(ctx.row, -1);
    assert_string_equal(ctx.field, "");
}

static void test_a_sentence_may_wrap_itself(void **state)
{
    (void)state;
    struct err_ctx ctx;
    err_clear(&ctx);
    err_set(&ctx, ERR_IO, "disk gone");
    err_set(&ctx, ctx.code, "part 3: %s", ctx.detail);
    assert_string_equal(ctx.detail, "part 3: disk gone");
}

static void test_system_errors_map_to_codes(void **state)
{
    (void)state;
    static const struct {
        int errnum;
        enum err code;
    } CASES[] = {{ENOSPC, ERR_NO_SPACE},
                 {EDQUOT, ERR_NO_SPACE},
                 {ENOMEM, ERR_NO_MEMORY},
                 {EIO, ERR_IO},
                 {EACCES, ERR_IO}};
    struct err_ctx ctx;
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
        assert_int_equal(err_system(&ctx, CASES[i].errnum, "w"), CASES[i].code);
    err_clear(&ctx);
    (void)err_system(&ctx, ENOSPC, "cannot write %s", "a.seg");
    assert_string_equal(ctx.detail, "cannot write a.seg: No space left on device");
}

static void test_long_texts_are_cut_not_overrun(void **state)
{
    (void)state;
    struct err_ctx ctx;
    char text[4000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    err_clear(&ctx);
    err_set_at(&ctx, ERR_INVALID, 0, text, "%s", text);
    assert_int_equal(strlen(ctx.detail), sizeof(ctx.detail) - 1);
    assert_int_equal(strlen(ctx.field), sizeof(ctx.field) - 1);
    (void)err_system(&ctx, EIO, "%s", text);
    assert_int_equal(strlen(ctx.detail), sizeof(ctx.detail) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_context_keeps_the_code),
        cmocka_unit_test(test_row_and_field_stay_when_the_sentence_changes),
        cmocka_unit_test(test_a_sentence_may_wrap_itself),
        cmocka_unit_test(test_system_errors_map_to_codes),
        cmocka_unit_test(test_long_texts_are_cut_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
