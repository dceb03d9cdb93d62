/* The JSON reader: takes what RFC 8259 takes, refuses the rest, and names the byte. */
#include "unit/api/cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/json_reader.h"

static enum err read_all(const char *text, size_t n, uint64_t base, struct err_ctx *err)
{
    struct json_reader r;
    err_clear(err);
    json_init(&r, text, n, base);
    enum err e = json_skip(&r, err);
    if (e == ERR_OK)
        e = json_end(&r, err);
    json_deinit(&r);
    return e;
}

static const char *const valid[] = {
    "null",
    " true ",
    "false",
    "0",
    "-0",
    "12",
    "-1.5",
    "1e5",
    "1E+5",
    "0.0e-0",
    "123456789012345678901234567890",
    "\"\"",
    "\"a\"",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\u0000\\u00e9\\u20ac\"",
    "\"\\ud83d\\ude00\"",
    "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
    "[]",
    "[ ]",
    "{}",
    "{ }",
    "[1,2,3]",
    "\t\r\n [ 1 , [ ] , { } ] ",
    "{\"a\":1,\"b\":{\"c\":[null]}}",
    "{\"\":0}",
    "{\"a\":1,\"a\":2}",
};

static void test_takes_valid_json(void **state)
{
    (void)state;
    struct err_ctx err;
    for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++)
        if (read_all(valid[i], strlen(valid[i]), 0, &err) != ERR_OK)
            fail_msg("%s: %s", valid[i], err.detail);
}

static const struct {
    const char *text;
    int at; /* the byte that the sentence names */
} invalid[] = {
    {"", 0},
    {"  ", 2},
    {"nul", 0},
    {"nulL", 0},
    {"nullx", 4},
    {"True", 0},
    {"01", 1},
    {"-", 1},
    {"+1", 0},
    {".5", 0},
    {"1.", 2},
    {"1.e5", 2},
    {"1e", 2},
    {"1e+", 3},
    {"0x10", 1},
    {"NaN", 0},
    {"Infinity", 0},
    {"-Infinity", 1},
    {"'a'", 0},
    {"\"", 1},
    {"\"abc", 4},
    {"\"a\nb\"", 2},
    {"\"\\x\"", 1},
    {"\"\\", 1},
    {"\"\\u12\"", 1},
    {"\"\\u12g4\"", 1},
    {"\"\\ud800\"", 1},
    {"\"\\ud800\\u0041\"", 1},
    {"\"\\udc00\"", 1},
    {"\"\xff\"", 1},
    {"\"\xc0\x80\"", 1},
    {"\"\xed\xa0\x80\"", 1},
    {"[", 1},
    {"[1", 2},
    {"[1,", 3},
    {"[1,]", 3},
    {"[,1]", 1},
    {"[1 2]", 3},
    {"[1}", 2},
    {"]", 0},
    {"{", 1},
    {"{\"a\"", 4},
    {"{\"a\" 1}", 5},
    {"{\"a\":}", 5},
    {"{\"a\":1", 6},
    {"{\"a\":1,", 7},
    {"{\"a\":1,}", 7},
    {"{a:1}", 1},
    {"{1:2}", 1},
    {"{\"a\":1]", 6},
    {"{,}", 1},
    {"1 2", 2},
    {"[]]", 2},
    {"// c\n1", 0},
    {"[1/*c*/]", 2},
};

static void test_refuses_invalid_json_at_the_byte(void **state)
{
    (void)state;
    struct err_ctx err;
    char place[32];
    for (size_t i = 0; i < sizeof invalid / sizeof invalid[0]; i++) {
        if (read_all(invalid[i].text, strlen(invalid[i].text), 1000, &err) != ERR_INVALID)
            fail_msg("%s was taken", invalid[i].text);
        snprintf(place, sizeof place, "byte %d", 1000 + invalid[i].at);
        if (!strstr(err.detail, place))
            fail_msg("%s: '%s' does not name %s", invalid[i].text, err.detail, place);
    }
}

/* Every prefix of a valid text is an error, never a read past its end (the copy is exact, so that a
 * sanitizer sees one). */
static void test_every_prefix_is_refused(void **state)
{
    static const char text[] = "{\"a\":[1.5e3,\"\\ud83d\\ude00\\n\",true,null],\"b\":{\"c\":-0}}";
    (void)state;
    struct err_ctx err;
    for (size_t n = 0; n + 1 < sizeof text; n++) {
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, text, n);
        assert_int_equal(read_all(copy, n, 0, &err), ERR_INVALID);
        free(copy);
    }
    assert_int_equal(read_all(text, sizeof text - 1, 0, &err), ERR_OK);
}

static void test_a_nul_byte_is_not_the_end(void **state)
{
    (void)state;
    struct err_ctx err;
    assert_int_equal(read_all("1\0", 2, 0, &err), ERR_INVALID);
    assert_int_equal(read_all("\"\0\"", 3, 0, &err), ERR_INVALID);
}

static void test_depth_is_bounded(void **state)
{
    (void)state;
    struct err_ctx err;
    char text[(size_t)4 * JSON_DEPTH_MAX];
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_int_equal(read_all(text, (size_t)2 * JSON_DEPTH_MAX, 0, &err), ERR_OK);
    memset(text, '[', sizeof text);
    assert_int_equal(read_all(text, sizeof text, 0, &err), ERR_INVALID);
    assert_non_null(strstr(err.detail, "64 levels"));
}

static void test_strings_are_decoded(void **state)
{
    static const char text[] = "[\"plain\",\"a\\u00e9\\ud83d\\ude00\\u0000b\"]";
    static const char wanted[] = "a\xc3\xa9\xf0\x9f\x98\x80\0b";
    (void)state;
    struct json_reader r;
    struct json_slice s;
    bool more;
    json_init(&r, text, sizeof text - 1, 0);
    assert_int_equal(json_array(&r, NULL), ERR_OK);
    assert_int_equal(json_next_item(&r, &more, NULL), ERR_OK);
    assert_int_equal(json_string(&r, &s, NULL), ERR_OK);
    assert_true(json_slice_is(s, "plain"));
    assert_ptr_equal(s.data, text + 2); /* lent, not copied */
    assert_int_equal(json_next_item(&r, &more, NULL), ERR_OK);
    assert_int_equal(json_string(&r, &s, NULL), ERR_OK);
    assert_int_equal(s.len, sizeof wanted - 1);
    assert_memory_equal(s.data, wanted, s.len);
    assert_int_equal(json_next_item(&r, &more, NULL), ERR_OK);
    assert_false(more);
    assert_int_equal(json_end(&r, NULL), ERR_OK);
    json_deinit(&r);
}

static void test_a_name_outlives_its_value(void **state)
{
    static const char text[] = "{\"n\\u0061me\":\"v\\u0061lue\"}";
    (void)state;
    struct json_reader r;
    struct json_slice name, value;
    bool more;
    json_init(&r, text, sizeof text - 1, 0);
    assert_int_equal(json_object(&r, NULL), ERR_OK);
    assert_int_equal(json_next_field(&r, &name, &more, NULL), ERR_OK);
    assert_int_equal(json_string(&r, &value, NULL), ERR_OK);
    assert_true(json_slice_is(name, "name"));
    assert_true(json_slice_is(value, "value"));
    json_deinit(&r);
}

static enum err read_int(const char *text, int64_t *v)
{
    struct json_reader r;
    json_init(&r, text, strlen(text), 0);
    enum err e = json_int64(&r, v, NULL);
    json_deinit(&r);
    return e;
}

static void test_whole_numbers(void **state)
{
    (void)state;
    int64_t v;
    assert_int_equal(read_int("9223372036854775807", &v), ERR_OK);
    assert_true(v == INT64_MAX);
    assert_int_equal(read_int("-9223372036854775808", &v), ERR_OK);
    assert_true(v == INT64_MIN);
    assert_int_equal(read_int("9007199254740993", &v), ERR_OK);
    assert_true(v == 9007199254740993);
    assert_int_equal(read_int("1e3", &v), ERR_OK);
    assert_true(v == 1000);
    assert_int_equal(read_int("-5.0", &v), ERR_OK);
    assert_true(v == -5);
    assert_int_equal(read_int("9223372036854775808", &v), ERR_UNPROCESSABLE);
    assert_int_equal(read_int("1e19", &v), ERR_UNPROCESSABLE);
    assert_int_equal(read_int("0.5", &v), ERR_UNPROCESSABLE);
    assert_int_equal(read_int("1e-1", &v), ERR_UNPROCESSABLE);
    assert_int_equal(read_int("\"1\"", &v), ERR_UNPROCESSABLE);
    assert_int_equal(read_int("null", &v), ERR_UNPROCESSABLE);
}

static void test_float_arrays(void **state)
{
    static const char text[] = "[1, -2.5 ,3e38,1e-46]";
    (void)state;
    struct json_reader r;
    float v[4] = {0};
    size_t n;
    json_init(&r, text, sizeof text - 1, 0);
    assert_int_equal(json_floats(&r, v, 2, &n, NULL), ERR_OK);
    assert_int_equal(n, 4); /* all are counted, two are written */
    assert_true(v[0] == 1 && v[1] == -2.5f && v[2] == 0);
    json_reinit(&r, text, sizeof text - 1, 0);
    assert_int_equal(json_floats(&r, v, 4, &n, NULL), ERR_OK);
    assert_true(v[2] == 3e38f && v[3] == 0);
    json_reinit(&r, "[1e39]", 6, 0);
    assert_int_equal(json_floats(&r, v, 4, &n, NULL), ERR_UNPROCESSABLE);
    json_reinit(&r, "[1,null]", 8, 0);
    assert_int_equal(json_floats(&r, v, 4, &n, NULL), ERR_UNPROCESSABLE);
    json_reinit(&r, "[1,\"2\"]", 7, 0);
    assert_int_equal(json_floats(&r, v, 4, &n, NULL), ERR_UNPROCESSABLE);
    json_reinit(&r, "[]", 2, 0);
    assert_int_equal(json_floats(&r, v, 4, &n, NULL), ERR_OK);
    assert_int_equal(n, 0);
    json_deinit(&r);
}

static void test_raw_text_of_a_value(void **state)
{
    static const char text[] = " {\"a\": [1, {\"b\":2}] , \"c\":3}";
    (void)state;
    struct json_reader r;
    struct json_slice name, raw;
    bool more;
    json_init(&r, text, sizeof text - 1, 0);
    assert_int_equal(json_object(&r, NULL), ERR_OK);
    assert_int_equal(json_next_field(&r, &name, &more, NULL), ERR_OK);
    assert_int_equal(json_raw(&r, &raw, NULL), ERR_OK);
    assert_true(json_slice_is(raw, "[1, {\"b\":2}]"));
    json_deinit(&r);
}

/* Strings are passed over in blocks: what ends them, or is wrong in them, at every place. */
static void test_strings_end_at_the_right_byte_whatever_their_length(void **state)
{
    (void)state;
    static const struct {
        const char *middle, *becomes; /* NULL: refused */
    } cases[] = {
        {"", ""},
        {"\\\"", "\""},
        {"\\\\", "\\"},
        {"\xc3\xa9", "\xc3\xa9"},
        {"\x7f[{", "\x7f[{"},
        {"\x1f", NULL},
        {"\n", NULL},
        {"\xc3", NULL},
        {"\xff", NULL},
        {"\\x", NULL},
    };
    for (size_t before = 0; before < 40; before++) {
        for (size_t after = 0; after < 40; after += 3) {
            for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                char text[128], wanted[128];
                snprintf(text, sizeof text, "\"%0*d%s%0*d\",\xff\"", (int)before + 1, 0,
                         cases[i].middle, (int)after + 1, 0);
                snprintf(wanted, sizeof wanted, "%0*d%s%0*d", (int)before + 1, 0,
                         cases[i].becomes ? cases[i].becomes : "", (int)after + 1, 0);
                struct json_reader r;
                struct json_slice s;
                struct err_ctx err;
                err_clear(&err);
                json_init(&r, text, strlen(text), 0);
                enum err e = json_string(&r, &s, &err);
                assert_int_equal(e, cases[i].becomes ? ERR_OK : ERR_INVALID);
                if (e == ERR_OK) {
                    assert_true(json_slice_is(s, wanted));
                    assert_int_equal(*r.p, ',');
                }
                json_deinit(&r);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_valid_json),
        cmocka_unit_test(test_refuses_invalid_json_at_the_byte),
        cmocka_unit_test(test_every_prefix_is_refused),
        cmocka_unit_test(test_a_nul_byte_is_not_the_end),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_strings_are_decoded),
        cmocka_unit_test(test_a_name_outlives_its_value),
        cmocka_unit_test(test_whole_numbers),
        cmocka_unit_test(test_float_arrays),
        cmocka_unit_test(test_raw_text_of_a_value),
        cmocka_unit_test(test_strings_end_at_the_right_byte_whatever_their_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
