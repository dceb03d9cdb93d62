/* The framer: the same rows however the bytes are cut; bounded memory; errors that name the place.
 */
#include "unit/api/cmocka_all.h"

#include <stdio.h>

#include "api/framer.h"

struct rows {
    struct buf text; /* rows joined by '|' */
    uint64_t last_offset;
    size_t refuse_at; /* the callback fails for this row; 0 = never */
    size_t n;
};

static enum err take_row(void *arg, const char *text, size_t n, uint64_t offset,
                         struct err_ctx *ctx)
{
    struct rows *rows = arg;
    if (++rows->n == rows->refuse_at)
        return err_set(ctx, ERR_UNPROCESSABLE, "refused");
    buf_put(&rows->text, text, n);
    buf_put_u8(&rows->text, '|');
    rows->last_offset = offset;
    return ERR_OK;
}

static enum err cut(enum framer_shape shape, const char *body, size_t piece, size_t row_max,
                    struct rows *rows, struct err_ctx *err)
{
    struct framer f;
    size_t n = strlen(body);
    enum err e = ERR_OK;
    err_clear(err);
    framer_init(&f, shape, row_max, take_row, rows);
    for (size_t at = 0; at < n && e == ERR_OK; at += piece) {
        size_t part = n - at < piece ? n - at : piece;
        char *copy = malloc(part); /* exact, so that a sanitizer sees a read past the end */
        assert_non_null(copy);
        memcpy(copy, body + at, part);
        e = framer_feed(&f, copy, part, err);
        free(copy);
    }
    if (e == ERR_OK)
        e = framer_finish(&f, err);
    framer_deinit(&f);
    return e;
}

static void expect_rows(enum framer_shape shape, const char *body, const char *wanted)
{
    struct err_ctx err;
    for (size_t piece = 1; piece <= strlen(body) + 1; piece++) {
        struct rows rows = {0};
        if (cut(shape, body, piece, 1000, &rows, &err) != ERR_OK)
            fail_msg("'%s' in pieces of %zu: %s", body, piece, err.detail);
        buf_put_u8(&rows.text, 0);
        assert_string_equal((char *)rows.text.data, wanted);
        buf_deinit(&rows.text);
    }
}

static void test_blanks_are_no_part_of_a_row_s_length(void **state)
{
    (void)state;
    const char body[] = "                    \n              \t\t\t\t\t\t {}\r\n                ";
    for (size_t piece = 1; piece <= sizeof body; piece++) {
        struct rows rows = {0};
        struct err_ctx err;
        assert_int_equal(cut(FRAMER_LINES, body, piece, 8, &rows, &err), ERR_OK);
        assert_int_equal(rows.n, 1);
        assert_int_equal(rows.last_offset, strcspn(body, "{"));
        buf_deinit(&rows.text);
    }
}

static void test_rows_do_not_depend_on_the_pieces(void **state)
{
    (void)state;
    expect_rows(FRAMER_JSON, "{\"rows\":[]}", "");
    expect_rows(FRAMER_JSON, " { \"rows\" : [ ] } \n", "");
    expect_rows(FRAMER_JSON, "{\"rows\":[{}]}", "{}|");
    expect_rows(FRAMER_JSON, "{\"rows\":[{\"a\":1} , {\"b\":[{},[]]}]}",
                "{\"a\":1}|{\"b\":[{},[]]}|");
    expect_rows(FRAMER_JSON, "{\"rows\":[{\"a\":\"}]\\\"}{\\\\\"},{\"c\":2}]}",
                "{\"a\":\"}]\\\"}{\\\\\"}|{\"c\":2}|");
    expect_rows(FRAMER_LINES, "{\"a\":1}\n{\"b\":2}\n", "{\"a\":1}|{\"b\":2}|");
    expect_rows(FRAMER_LINES, "{\"a\":1}\n{\"b\":2}", "{\"a\":1}|{\"b\":2}|");
    expect_rows(FRAMER_LINES, "\n \r\n{\"a\":1}\n\t\n\n{\"b\":2}\n  ", "{\"a\":1}|{\"b\":2}|");
    expect_rows(FRAMER_LINES, "x\r\ny", "x\r|y|");
}

static void test_offsets_are_those_of_the_body(void **state)
{
    (void)state;
    struct err_ctx err;
    for (size_t piece = 1; piece < 40; piece++) {
        struct rows rows = {0};
        assert_int_equal(
            cut(FRAMER_JSON, "{\"rows\":[{\"a\":1},  {\"b\":2}]}", piece, 100, &rows, &err),
            ERR_OK);
        assert_int_equal(rows.last_offset, 19);
        buf_deinit(&rows.text);
        rows = (struct rows){0};
        assert_int_equal(cut(FRAMER_LINES, "{\"a\":1}\n\n{\"b\":2}", piece, 100, &rows, &err),
                         ERR_OK);
        assert_int_equal(rows.last_offset, 9);
        buf_deinit(&rows.text);
    }
}

static const struct {
    const char *body, *says;
    enum framer_shape shape;
    enum err code;
} bad[] = {
    {"", "empty", FRAMER_JSON, ERR_INVALID},
    {"  \n", "empty", FRAMER_JSON, ERR_INVALID},
    {"", "empty", FRAMER_LINES, ERR_INVALID},
    {"\n\n \n", "empty", FRAMER_LINES, ERR_INVALID},
    {"[]", "byte 0", FRAMER_JSON, ERR_INVALID},
    {"{}", "no field \"rows\"", FRAMER_JSON, ERR_INVALID},
    {"{\"row\":[]}", "'row'", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\" []}", "byte 8", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":{}}", "byte 8", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[{},]}", "byte 12", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[{}{}]}", "byte 11", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[1]}", "row 0", FRAMER_JSON, ERR_UNPROCESSABLE},
    {"{\"rows\":[{},[]]}", "row 1", FRAMER_JSON, ERR_UNPROCESSABLE},
    {"{\"rows\":[{}", "byte 11", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[{},{\"a\"", "row 1", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[]", "byte 10", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[]}}", "byte 11", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[],\"rows\":[]}", "repeated", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[],\"x\":1}", "'x'", FRAMER_JSON, ERR_INVALID},
    {"{\"rows\":[],}", "byte 11", FRAMER_JSON, ERR_INVALID},
};

static void test_bad_bodies_are_refused(void **state)
{
    (void)state;
    struct err_ctx err;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        for (size_t piece = 1; piece < 20; piece += 3) {
            struct rows rows = {0};
            enum err e = cut(bad[i].shape, bad[i].body, piece, 100, &rows, &err);
            buf_deinit(&rows.text);
            if (e != bad[i].code || !strstr(err.detail, bad[i].says))
                fail_msg("'%s' in pieces of %zu: %d '%s'", bad[i].body, piece, e, err.detail);
        }
    }
}

static void test_a_row_over_the_limit_is_refused(void **state)
{
    static const char *const bodies[] = {"{\"rows\":[{},{\"a\":\"0123456789\"}]}",
                                         "{}\n{\"a\":\"0123456789\"}\n"};
    (void)state;
    struct err_ctx err;
    for (int shape = FRAMER_JSON; shape <= FRAMER_LINES; shape++) {
        for (size_t piece = 1; piece < 50; piece++) {
            struct rows rows = {0};
            assert_int_equal(cut(shape, bodies[shape], piece, 17, &rows, &err), ERR_TOO_LARGE);
            assert_int_equal(err.row, 1);
            buf_deinit(&rows.text);
            rows = (struct rows){0};
            assert_int_equal(cut(shape, bodies[shape], piece, 18, &rows, &err), ERR_OK);
            buf_deinit(&rows.text);
        }
    }
}

static void test_an_error_of_a_row_ends_it(void **state)
{
    (void)state;
    struct err_ctx err;
    struct rows rows = {.refuse_at = 2};
    assert_int_equal(cut(FRAMER_LINES, "a\nb\nc\n", 100, 100, &rows, &err), ERR_UNPROCESSABLE);
    assert_int_equal(rows.n, 2);
    buf_deinit(&rows.text);
}

/* Rows long enough to be passed over in blocks, with what matters at every place in a block. */
static void test_brackets_and_quotes_are_seen_wherever_they_stand(void **state)
{
    (void)state;
    static const char *const inner[] = {"[]", "{}", "\"]\"", "\"}\"", "\"\\\"]\"", "[[{}]]"};
    for (int before = 0; before < 40; before++) {
        for (size_t i = 0; i < sizeof inner / sizeof inner[0]; i++) {
            char row[160], body[400], wanted[400];
            snprintf(row, sizeof row, "{\"a\":[%.*s%s,1.25,0.5,-0.125,0.0625,\x7f\xc3\x1b]}",
                     before, "1.5,2.5,3.5,4.5,5.5,6.5,7.5,8.5,9.5,0.5,", inner[i]);
            snprintf(body, sizeof body, "{\"rows\":[%s,{},%s]}", row, row);
            snprintf(wanted, sizeof wanted, "%s|{}|%s|", row, row);
            expect_rows(FRAMER_JSON, body, wanted);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blanks_are_no_part_of_a_row_s_length),
        cmocka_unit_test(test_rows_do_not_depend_on_the_pieces),
        cmocka_unit_test(test_offsets_are_those_of_the_body),
        cmocka_unit_test(test_bad_bodies_are_refused),
        cmocka_unit_test(test_a_row_over_the_limit_is_refused),
        cmocka_unit_test(test_an_error_of_a_row_ends_it),
        cmocka_unit_test(test_brackets_and_quotes_are_seen_wherever_they_stand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
