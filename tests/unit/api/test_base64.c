/* Base64: the vectors of RFC 4648, every length, and nothing else is taken. */
#include "unit/api/cmocka_all.h"

#include "api/base64.h"

static void test_the_vectors_of_the_rfc(void **state)
{
    static const char *const pairs[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct buf text = {0}, bytes = {0};
        base64_encode(&text, pairs[i][0], strlen(pairs[i][0]));
        assert_int_equal(text.len, strlen(pairs[i][1]));
        assert_memory_equal(text.data ? (char *)text.data : "", pairs[i][1], text.len);
        assert_true(base64_decode(&bytes, pairs[i][1], strlen(pairs[i][1])));
        assert_int_equal(bytes.len, strlen(pairs[i][0]));
        assert_memory_equal(bytes.data ? (char *)bytes.data : "", pairs[i][0], bytes.len);
        buf_deinit(&text);
        buf_deinit(&bytes);
    }
}

static void test_every_byte_comes_back(void **state)
{
    (void)state;
    uint8_t data[300];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        struct buf text = {0}, bytes = {0};
        base64_encode(&text, data, n);
        assert_true(base64_decode(&bytes, (char *)text.data, text.len));
        assert_int_equal(bytes.len, n);
        if (n)
            assert_memory_equal(bytes.data, data, n);
        buf_deinit(&text);
        buf_deinit(&bytes);
    }
}

static void test_what_is_not_base64_is_refused(void **state)
{
    static const char *const bad[] = {"Z",    "Zg=",   "Zh==",     "Zm9=",      "Zm9v=",
                                      "=",    "====",  "Zg==Zg==", "Z g=",      "Zm9*",
                                      "Zm-_", "Zm9vY", "Zg===",    "\xc3\xa9zz"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf bytes = {0};
        if (base64_decode(&bytes, bad[i], strlen(bad[i])))
            fail_msg("'%s' was taken", bad[i]);
        buf_deinit(&bytes);
    }
}

static void test_padding_may_be_left_out(void **state)
{
    (void)state;
    struct buf bytes = {0};
    assert_true(base64_decode(&bytes, "Zm9vYg", 6));
    assert_int_equal(bytes.len, 4);
    assert_memory_equal(bytes.data, "foob", 4);
    buf_deinit(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_vectors_of_the_rfc),
        cmocka_unit_test(test_every_byte_comes_back),
        cmocka_unit_test(test_what_is_not_base64_is_refused),
        cmocka_unit_test(test_padding_may_be_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
