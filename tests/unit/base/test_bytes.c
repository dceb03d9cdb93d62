/* Bytes: what the puts write the gets read; nothing reads or writes past an end. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/bytes.h"

static void test_gets_read_what_puts_wrote(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_put_u8(&b, 0xab);
    buf_put_u16(&b, 0x1234);
    buf_put_u32(&b, 0xdeadbeef);
    buf_put_u64(&b, 0x0123456789abcdef);
    buf_put_blob(&b, "blob", 4);
    buf_put_blob(&b, NULL, 0);
    buf_put_str(&b, "text");
    buf_put(&b, "raw", 3);
    assert_false(b.failed);

    static const uint8_t HEAD[] = {0xab, 0x34, 0x12, 0xef, 0xbe, 0xad, 0xde};
    assert_memory_equal(b.data, HEAD, sizeof(HEAD));

    struct cursor c = cursor_over(b.data, b.len);
    size_t n;
    char text[8];
    assert_int_equal(cursor_u8(&c), 0xab);
    assert_int_equal(cursor_u16(&c), 0x1234);
    assert_int_equal(cursor_u32(&c), 0xdeadbeef);
    assert_true(cursor_u64(&c) == 0x0123456789abcdef);
    assert_memory_equal(cursor_blob(&c, &n), "blob", 4);
    assert_int_equal(n, 4);
    assert_non_null(cursor_blob(&c, &n));
    assert_int_equal(n, 0);
    assert_true(cursor_str(&c, text, sizeof(text)));
    assert_string_equal(text, "text");
    assert_memory_equal(cursor_take(&c, 3), "raw", 3);
    assert_int_equal(cursor_left(&c), 0);
    assert_false(c.failed);
    buf_deinit(&b);
    assert_null(b.data);
}

static void test_varints_round_trip_at_every_width(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit <= 64; bit++) {
        uint64_t power = bit < 64 ? (uint64_t)1 << bit : 0;
        uint64_t values[] = {power, power - 1, power + 1};
        for (size_t i = 0; i < 3; i++) {
            struct buf b = {0};
            buf_put_varint(&b, values[i]);
            struct cursor c = cursor_over(b.data, b.len);
            assert_true(cursor_varint(&c) == values[i]);
            assert_false(c.failed);
            assert_int_equal(cursor_left(&c), 0);
            buf_deinit(&b);
        }
    }
}

static void test_bad_varints_fail(void **state)
{
    (void)state;
    static const uint8_t TOO_BIG[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    static const uint8_t TOO_LONG[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                       0x80, 0x80, 0x80, 0x80, 0x00};
    static const uint8_t CUT[] = {0x80, 0x80};
    struct cursor c = cursor_over(TOO_BIG, sizeof(TOO_BIG));
    assert_true(cursor_varint(&c) == 0 && c.failed);
    c = cursor_over(TOO_LONG, sizeof(TOO_LONG));
    assert_true(cursor_varint(&c) == 0 && c.failed);
    c = cursor_over(CUT, sizeof(CUT));
    assert_true(cursor_varint(&c) == 0 && c.failed);
}

static void test_a_cursor_past_its_end_fails_and_stays_failed(void **state)
{
    (void)state;
    static const uint8_t THREE[] = {1, 2, 3};
    struct cursor c = cursor_over(THREE, sizeof(THREE));
    assert_int_equal(cursor_u32(&c), 0);
    assert_true(c.failed);
    assert_int_equal(cursor_u8(&c), 0);
    assert_null(cursor_take(&c, 1));
    assert_null(cursor_take(&c, 0));
    c = cursor_over(THREE, sizeof(THREE));
    assert_null(cursor_take(&c, SIZE_MAX));
    assert_true(c.failed);

    static const uint8_t LYING[] = {0xff, 0xff, 0xff, 0x7f, 'a'};
    size_t n = 1;
    c = cursor_over(LYING, sizeof(LYING));
    assert_null(cursor_blob(&c, &n));
    assert_int_equal(n, 0);
    assert_true(c.failed);
}

static void test_strings_that_do_not_fit_or_hold_nul_fail(void **state)
{
    (void)state;
    struct buf b = {0};
    char out[4] = "zzz";
    buf_put_str(&b, "four");
    struct cursor c = cursor_over(b.data, b.len);
    assert_false(cursor_str(&c, out, sizeof(out)));
    assert_true(c.failed);
    assert_string_equal(out, "");

    buf_reset(&b);
    buf_put_blob(&b, "a\0b", 3);
    c = cursor_over(b.data, b.len);
    assert_false(cursor_str(&c, out, sizeof(out)));

    buf_reset(&b);
    buf_put_str(&b, "abc");
    c = cursor_over(b.data, b.len);
    assert_true(cursor_str(&c, out, sizeof(out)));
    assert_string_equal(out, "abc");
    buf_deinit(&b);
}

/* Under a sanitizer an allocation that is too large is to fail, as it does without. */
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void test_a_full_buffer_remembers_and_keeps_what_it_holds(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_put(&b, "kept", 4);
    assert_false(buf_reserve(&b, SIZE_MAX)); /* overflows the length */
    assert_true(b.failed);
    buf_put_u32(&b, 1);
    buf_printf(&b, "%d", 1);
    assert_null(buf_extend(&b, 1));
    assert_int_equal(b.len, 4);
    assert_memory_equal(b.data, "kept", 4);
    buf_reset(&b);
    assert_false(b.failed);
    assert_false(buf_reserve(&b, SIZE_MAX / 4)); /* no machine has it */
    assert_true(b.failed);
    buf_reset(&b);
    buf_put_blob(&b, "", (size_t)UINT32_MAX + 1); /* does not fit the length field */
    assert_true(b.failed);
    assert_int_equal(b.len, 0);
    buf_deinit(&b);
}

static void test_growth_is_geometric(void **state)
{
    (void)state;
    struct buf b = {0};
    size_t growths = 0, cap = 0;
    for (int i = 0; i < 1000000; i++) {
        buf_put_u8(&b, (uint8_t)i);
        growths += b.cap != cap;
        cap = b.cap;
    }
    assert_int_equal(b.len, 1000000);
    assert_true(growths < 30);
    for (int i = 0; i < 1000000; i++)
        assert_int_equal(b.data[i], (uint8_t)i);
    buf_deinit(&b);
}

static void test_printf_zeros_and_alignment(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_printf(&b, "%s-%d", "row", 42);
    assert_int_equal(b.len, 6);
    assert_memory_equal(b.data, "row-42", 6);
    buf_printf(&b, "%0500d", 7); /* longer than what is left */
    assert_int_equal(b.len, 506);
    buf_align(&b, 64);
    assert_int_equal(b.len, 512);
    for (size_t i = 506; i < 512; i++)
        assert_int_equal(b.data[i], 0);
    buf_align(&b, 64);
    assert_int_equal(b.len, 512);
    buf_put_zeros(&b, 3);
    assert_int_equal(b.len, 515);
    buf_deinit(&b);
}

static void test_checked_arithmetic(void **state)
{
    (void)state;
    size_t out;
    assert_true(checked_mul(1 << 20, 1 << 20, &out));
    assert_true(out == (size_t)1 << 40);
    assert_false(checked_mul(SIZE_MAX, 2, &out));
    assert_true(checked_add(SIZE_MAX - 1, 1, &out));
    assert_false(checked_add(SIZE_MAX, 1, &out));
    assert_int_equal(round_up(0, 64), 0);
    assert_int_equal(round_up(1, 64), 64);
    assert_int_equal(round_up(64, 64), 64);
}

struct utf8_case {
    const char *bytes;
    size_t n;
    bool valid;
};
#define VALID(s)                                                                                   \
    {                                                                                              \
        s, sizeof(s) - 1, true                                                                     \
    }
#define INVALID(s)                                                                                 \
    {                                                                                              \
        s, sizeof(s) - 1, false                                                                    \
    }

/* First and last code point of each length, both sides of the surrogates, and what lies outside;
 * after the table 3-7 of the Unicode standard. */
static const struct utf8_case UTF8[] = {
    VALID(""),
    VALID("plain ascii, longer than a word"),
    VALID("\x00 a NUL is a character"),
    VALID("\x7f"),
    VALID("\xc2\x80"),
    VALID("\xdf\xbf"),
    VALID("\xe0\xa0\x80"),
    VALID("\xed\x9f\xbf"),
    VALID("\xee\x80\x80"),
    VALID("\xef\xbf\xbf"),
    VALID("\xf0\x90\x80\x80"),
    VALID("\xf4\x8f\xbf\xbf"),
    VALID("na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\xa7\xb2 mixed"),
    INVALID("\x80"),
    INVALID("\xbf"),
    INVALID("\xc0\x80"),
    INVALID("\xc1\xbf"),
    INVALID("\xc2"),
    INVALID("\xc2\x7f"),
    INVALID("\xc2\xc0"),
    INVALID("\xe0\x9f\xbf"),
    INVALID("\xe0\xa0"),
    INVALID("\xe1\x80\x7f"),
    INVALID("\xed\xa0\x80"),
    INVALID("\xed\xbf\xbf"),
    INVALID("\xf0\x8f\xbf\xbf"),
    INVALID("\xf0\x90\x80"),
    INVALID("\xf1\x80\x80\xc0"),
    INVALID("\xf4\x90\x80\x80"),
    INVALID("\xf5\x80\x80\x80"),
    INVALID("\xff"),
    INVALID("eight ok\xff"),
};

/* Each case alone, and at every offset to a word, with text on both sides. */
static void test_utf8_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(UTF8) / sizeof(UTF8[0]); i++) {
        const struct utf8_case *u = &UTF8[i];
        assert_int_equal(utf8_valid(u->bytes, u->n), u->valid);
        for (size_t before = 0; before < 17; before++) {
            char text[128];
            memset(text, 'a', sizeof(text));
            memcpy(text + before, u->bytes, u->n);
            assert_int_equal(utf8_valid(text, before + u->n + 9), u->valid);
        }
    }
}

/* Every code point encodes to something valid, and every prefix of it is invalid. */
static void test_utf8_accepts_exactly_the_code_points(void **state)
{
    (void)state;
    for (uint32_t cp = 0x80; cp <= 0x11ffff; cp++) {
        uint8_t s[4];
        size_t n;
        if (cp < 0x800) {
            n = 2;
            s[0] = (uint8_t)(0xc0 | cp >> 6);
        } else if (cp < 0x10000) {
            n = 3;
            s[0] = (uint8_t)(0xe0 | cp >> 12);
        } else {
            n = 4;
            s[0] = (uint8_t)(0xf0 | cp >> 18);
        }
        for (size_t i = 1; i < n; i++)
            s[i] = (uint8_t)(0x80 | (cp >> (6 * (n - 1 - i)) & 0x3f));
        bool scalar = cp <= 0x10ffff && !(cp >= 0xd800 && cp <= 0xdfff);
        if (utf8_valid(s, n) != scalar || utf8_valid(s, n - 1))
            fail_msg("code point %x", cp);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gets_read_what_puts_wrote),
        cmocka_unit_test(test_varints_round_trip_at_every_width),
        cmocka_unit_test(test_bad_varints_fail),
        cmocka_unit_test(test_a_cursor_past_its_end_fails_and_stays_failed),
        cmocka_unit_test(test_strings_that_do_not_fit_or_hold_nul_fail),
        cmocka_unit_test(test_a_full_buffer_remembers_and_keeps_what_it_holds),
        cmocka_unit_test(test_growth_is_geometric),
        cmocka_unit_test(test_printf_zeros_and_alignment),
        cmocka_unit_test(test_checked_arithmetic),
        cmocka_unit_test(test_utf8_table),
        cmocka_unit_test(test_utf8_accepts_exactly_the_code_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
