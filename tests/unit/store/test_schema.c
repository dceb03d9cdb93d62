/* Schemas: what is accepted, how a strip is laid out, and that the stored form reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "store/schema.h"

static struct err_ctx ctx;

static struct schema *fresh(void)
{
    struct schema *s;
    assert_int_equal(schema_new(KEY_STRING, 8, DIST_IP, &s, &ctx), ERR_OK);
    return s;
}

static void names_are_checked(void **state)
{
    (void)state;
    char longest[NAME_MAX_BYTES + 2];
    memset(longest, 'a', sizeof longest);
    longest[NAME_MAX_BYTES] = 0;
    assert_true(name_valid(longest));
    static const char *const good[] = {"a", "_", "A-9_z"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(name_valid(good[i]));
    longest[NAME_MAX_BYTES] = 'a';
    longest[NAME_MAX_BYTES + 1] = 0;
    static const char *const bad[] = {"", "9a", "-a", "a.b", "a/b", "..", "\xc3\xa4", "a b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(name_valid(bad[i]));
    assert_false(name_valid(longest));
}

static void reserved_and_repeated_features_are_refused(void **state)
{
    (void)state;
    struct schema *s = fresh();
    assert_int_equal(schema_add_feature(s, "price", FEATURE_FLOAT32, &ctx), ERR_OK);
    static const char *const bad[] = {"key", "vector", "distance", "price", "1x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(schema_add_feature(s, bad[i], FEATURE_BOOL, &ctx), ERR_UNPROCESSABLE);
        assert_string_equal(ctx.field, bad[i]);
    }
    schema_release(s);
    assert_int_equal(schema_new(KEY_INT64, DIM_MAX + 1, DIST_L2, &s, &ctx), ERR_UNPROCESSABLE);
}

/* Every fixed cell has its own aligned bytes, behind the null bits. */
static void a_strip_has_room_for_every_feature(void **state)
{
    (void)state;
    struct schema *s = fresh();
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", i);
        enum feature_type t = (enum feature_type)(i * 7 % FEATURE_TYPE_COUNT);
        assert_int_equal(schema_add_feature(s, name, t, &ctx), ERR_OK);
    }
    assert_int_equal(schema_seal(s, &ctx), ERR_OK);
    uint8_t *used = calloc(1, s->strip_bytes);
    memset(used, 1, s->null_bytes);
    assert_int_equal(s->null_bytes, 13);
    assert_int_equal(s->strip_bytes % 8, 0);
    uint32_t nvar = 0;
    for (uint32_t i = 0; i < s->nfeatures; i++) {
        const struct feature *f = &s->features[i];
        assert_int_equal(schema_find(s, f->name, strlen(f->name)), i);
        if (!f->width) {
            assert_int_equal(f->var_index, nvar++);
            continue;
        }
        assert_int_equal(f->strip_offset % f->width, 0);
        for (uint32_t b = 0; b < f->width; b++) {
            assert_true(f->strip_offset + b < s->strip_bytes);
            assert_int_equal(used[f->strip_offset + b]++, 0);
        }
    }
    assert_int_equal(nvar, s->nvar);
    assert_int_equal(schema_find(s, "f", 1), -1);
    free(used);
    schema_release(s);
}

static void the_stored_form_reads_back_and_no_prefix_of_it_does(void **state)
{
    (void)state;
    struct schema *s = fresh(), *t;
    assert_int_equal(schema_add_feature(s, "tags", FEATURE_STRING_LIST, &ctx), ERR_OK);
    assert_int_equal(schema_add_feature(s, "n", FEATURE_INT32, &ctx), ERR_OK);
    s->index.m = 17;
    assert_int_equal(schema_seal(s, &ctx), ERR_OK);
    struct buf b = {0};
    schema_encode(s, &b);
    for (size_t n = 0; n <= b.len; n++) {
        struct cursor c = cursor_over(b.data, n);
        enum err e = schema_decode(&c, &t, &ctx);
        assert_int_equal(e, n == b.len ? ERR_OK : ERR_CORRUPT);
    }
    assert_true(schema_equal(s, t));
    t->index.m = 18;
    assert_false(schema_equal(s, t));
    schema_release(s);
    schema_release(t);
    buf_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(reserved_and_repeated_features_are_refused),
        cmocka_unit_test(a_strip_has_room_for_every_feature),
        cmocka_unit_test(the_stored_form_reads_back_and_no_prefix_of_it_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
