/* Runs of numbers: the same float32, the same stop and the same error as one number at a time. */
#include "unit/api/cmocka_all.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/float_run.h"
#include "api/json_reader.h"
#include "api/number.h"

enum { CAP = 64, TEXT_MAX = 4096 };

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static unsigned below(uint64_t *state, unsigned n)
{
    return (unsigned)(next_random(state) >> 33) % n;
}

/* ---- texts ---- */

static size_t put_digits(uint64_t *seed, char *out, unsigned n)
{
    bool zeros = below(seed, 8) == 0; /* before the rest */
    unsigned nzeros = zeros ? below(seed, n + 1) : 0;
    for (unsigned i = 0; i < n; i++)
        out[i] = i < nzeros ? '0' : (char)('0' + below(seed, 10));
    return n;
}

/* Any text the grammar allows, of sizes on both sides of what a run takes. */
static size_t put_grammar(uint64_t *seed, char *out)
{
    size_t n = 0;
    if (below(seed, 2))
        out[n++] = '-';
    out[n++] = (char)('0' + below(seed, 10));
    if (out[n - 1] != '0' && below(seed, 3) == 0)
        n += put_digits(seed, out + n, below(seed, 24));
    if (below(seed, 4)) {
        out[n++] = '.';
        n += put_digits(seed, out + n, 1 + below(seed, 26));
    }
    if (below(seed, 3) == 0) {
        out[n++] = below(seed, 2) ? 'e' : 'E';
        if (below(seed, 3))
            out[n++] = below(seed, 2) ? '+' : '-';
        n += put_digits(seed, out + n, 1 + below(seed, 2));
    }
    return n;
}

/* Around a halfway point between two neighbouring float32, from just below to just above. */
static size_t put_near_halfway(uint64_t *seed, char *out)
{
    uint32_t bits = (uint32_t)next_random(seed) & 0x7fffffff;
    float low, high;
    memcpy(&low, &bits, sizeof low);
    bits++;
    memcpy(&high, &bits, sizeof high);
    if (!isfinite(low) || !isfinite(high))
        return put_grammar(seed, out);
    double middle = ((double)low + (double)high) / 2;
    switch (below(seed, 4)) {
    case 0:
        middle = nextafter(middle, 0);
        break;
    case 1:
        middle = nextafter(middle, INFINITY);
        break;
    }
    return (size_t)snprintf(out, NUMBER_TEXT_MAX, "%.*e", 6 + (int)below(seed, 18), middle);
}

static size_t put_value(uint64_t *seed, char *out, bool wide)
{
    double v = (double)(int64_t)next_random(seed) / 0x1p63 * pow(10, -(int)below(seed, 12));
    return wide ? number_print_double(v, out) : number_print_float((float)v, out);
}

static size_t put_number(uint64_t *seed, char *out)
{
    switch (below(seed, 4)) {
    case 0:
        return put_value(seed, out, false);
    case 1:
        return put_value(seed, out, true);
    case 2:
        return put_near_halfway(seed, out);
    }
    return put_grammar(seed, out);
}

/* ---- numbers ---- */

typedef size_t (*reader)(const char *p, const char *end, float *out, size_t cap, const char **stop);

static size_t read_one(reader read, const char *text, size_t n)
{
    const char *stop;
    float got, wanted;
    if (!read(text, text + n, &got, 1, &stop)) {
        assert_ptr_equal(stop, text);
        return 0;
    }
    if (number_parse_float(text, n, &wanted) != NUMBER_OK || stop != text + n ||
        memcmp(&got, &wanted, sizeof got) != 0)
        fail_msg("%.*s is read as %.9g up to byte %td", (int)n, text, got, stop - text);
    return 1;
}

static void test_a_number_reads_as_the_careful_parser_reads_it(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u;
    size_t taken = 0, taken_in_words = 0, tries = 400000;
    for (size_t i = 0; i < tries; i++) {
        char text[128];
        size_t n = put_number(&seed, text);
        taken += read_one(float_run_read, text, n);
        taken_in_words += read_one(float_run_read_words, text, n);
    }
    assert_in_range(taken, tries / 2, tries);
    assert_in_range(taken_in_words, tries / 2, tries);
}

static void test_numbers_as_clients_print_them_are_taken(void **state)
{
    (void)state;
    uint64_t seed = 7;
    size_t left = 0, tries = 100000;
    for (size_t i = 0; i < tries; i++) {
        char text[128];
        const char *stop;
        float v;
        size_t n = put_value(&seed, text, i % 2);
        left += float_run_read(text, text + n, &v, 1, &stop) == 0;
    }
    assert_in_range(left, 0, tries / 1000);
}

static void expect_reading(const char *text, float wanted)
{
    struct json_reader r;
    struct err_ctx err;
    char array[256];
    float v;
    size_t n;
    err_clear(&err);
    snprintf(array, sizeof array, "[%s]", text);
    json_init(&r, array, strlen(array), 0);
    if (json_floats(&r, &v, 1, &n, &err) != ERR_OK)
        fail_msg("%s: %s", text, err.detail);
    assert_int_equal(n, 1);
    if (memcmp(&v, &wanted, sizeof v) != 0)
        fail_msg("%s is read as %.9g, not %.9g", text, v, wanted);
    json_deinit(&r);
}

static void test_a_halfway_point_goes_to_the_even_neighbour(void **state)
{
    (void)state;
    expect_reading("16777217", 16777216.0f);
    expect_reading("16777217.000000001", 16777218.0f);
    expect_reading("16777216.999999999", 16777216.0f);
    expect_reading("16777219", 16777220.0f);
    expect_reading("1.00000005960464477539062", 1.0f);
    expect_reading("1.000000059604644775390625", 1.0f);
    expect_reading("1.000000059604644775390626", 0x1.000002p0f);
    expect_reading("-1.00000017881393432617187500", -0x1.000004p0f);
    /* rounded to float64 first, this would be a halfway point */
    expect_reading("1.0000000596046447755", 0x1.000002p0f);
    expect_reading("1.0000000596046447753", 1.0f);
}

static void test_both_ends_of_the_scale(void **state)
{
    (void)state;
    expect_reading("3.4028235e38", 0x1.fffffep127f);
    expect_reading("3.4028235e+38", 0x1.fffffep127f);
    expect_reading("1.1754944e-38", 0x1p-126f);
    expect_reading("1.1754942e-38", 0x1.fffffcp-127f);
    expect_reading("1e-45", 0x1p-149f);
    expect_reading("7e-46", 0.0f);
    expect_reading("-1e-400", -0.0f);
    expect_reading("340282350000000000000000000000000000000", 0x1.fffffep127f);
}

static void test_zeros_and_long_texts(void **state)
{
    (void)state;
    expect_reading("0", 0.0f);
    expect_reading("-0", -0.0f);
    expect_reading("-0.0e7", -0.0f);
    expect_reading("0.00000000000000000000000000000000", 0.0f);
    expect_reading("0.000000000000000000000000000001", 1e-30f);
    expect_reading("100000000000000000000000", 1e23f);
    expect_reading("0.3333333333333333333333333333333333333333333333333333333333333333", 1 / 3.0f);
    expect_reading("18446744073709551615", 0x1p64f);
    expect_reading("18446744073709551616", 0x1p64f);
    expect_reading("99999999999999999999", 1e20f);
    expect_reading("1.5e00", 1.5f);
    expect_reading("25E-01", 2.5f);
    expect_reading("1e007", 1e7f);
}

/* ---- arrays ---- */

struct outcome {
    enum err e;
    size_t n, stop;
    float values[CAP];
    struct err_ctx err;
};

static enum err one_by_one(struct json_reader *r, struct outcome *o)
{
    bool more;
    float beyond;
    RETURN_NOT_OK(json_array(r, &o->err));
    for (;;) {
        RETURN_NOT_OK(json_next_item(r, &more, &o->err));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(json_float(r, o->n < CAP ? o->values + o->n : &beyond, &o->err));
        o->n++;
    }
}

static void read_array(const char *text, size_t len, bool in_runs, struct outcome *o)
{
    struct json_reader r;
    *o = (struct outcome){0};
    err_clear(&o->err);
    json_init(&r, text, len, 1000);
    o->e = in_runs ? json_floats(&r, o->values, CAP, &o->n, &o->err) : one_by_one(&r, o);
    o->stop = (size_t)(r.p - text);
    json_deinit(&r);
}

/* Values that are only skipped meet the same syntax. */
static void expect_skip(const char *text, size_t len, const struct outcome *wanted)
{
    struct json_reader r;
    struct err_ctx err;
    err_clear(&err);
    json_init(&r, text, len, 1000);
    assert_int_equal(json_skip(&r, &err), wanted->e);
    assert_string_equal(err.detail, wanted->err.detail);
    assert_int_equal(r.p - text, wanted->stop);
    json_deinit(&r);
}

static void expect_same(const char *text, size_t len)
{
    static struct outcome a, b;
    char *copy = malloc(len); /* exact, so that a sanitizer sees a read past the end */
    assert_non_null(copy);
    memcpy(copy, text, len);
    read_array(copy, len, true, &a);
    read_array(copy, len, false, &b);
    if (b.e == ERR_OK || b.e == ERR_INVALID)
        expect_skip(copy, len, &b);
    free(copy);
    if (a.e != b.e || strcmp(a.err.detail, b.err.detail) != 0)
        fail_msg("%.*s: \"%s\", one by one \"%s\"", (int)len, text, a.err.detail, b.err.detail);
    assert_int_equal(a.n, b.n);
    assert_int_equal(a.stop, b.stop);
    assert_memory_equal(a.values, b.values, sizeof a.values);
}

static size_t put_space(uint64_t *seed, char *out)
{
    static const char spaces[] = " \n\t\r";
    unsigned n = below(seed, 6) == 0 ? below(seed, 4) : 0;
    for (unsigned i = 0; i < n; i++)
        out[i] = spaces[below(seed, 4)];
    return n;
}

static size_t put_array(uint64_t *seed, char *out)
{
    size_t n = 0;
    unsigned count = below(seed, CAP + 6);
    out[n++] = '[';
    for (unsigned i = 0; i < count; i++) {
        if (i)
            out[n++] = ',';
        n += put_space(seed, out + n);
        n += put_number(seed, out + n);
        n += put_space(seed, out + n);
    }
    out[n++] = ']';
    return n;
}

static void test_arrays_read_as_one_number_after_the_other(void **state)
{
    (void)state;
    static char text[TEXT_MAX * 2];
    uint64_t seed = 99;
    for (int i = 0; i < 5000; i++)
        expect_same(text, put_array(&seed, text));
}

static void test_damaged_arrays_fail_as_one_number_after_the_other(void **state)
{
    (void)state;
    static const char bytes[] = "0123456789+-.eE,][ \n\"{}NaI\x00\x80\xff/:";
    static char text[TEXT_MAX * 2];
    uint64_t seed = 4711;
    for (int i = 0; i < 10000; i++) {
        size_t n = put_array(&seed, text);
        for (unsigned k = below(&seed, 3); k > 0; k--)
            text[below(&seed, (unsigned)n)] = bytes[below(&seed, sizeof bytes - 1)];
        if (below(&seed, 4) == 0)
            n = 1 + below(&seed, (unsigned)n);
        expect_same(text, n);
    }
}

/* Each at every distance from the start and from the end of the text. */
static void test_every_mistake_is_told_where_it_stands(void **state)
{
    (void)state;
    static const char *const mistakes[] = {
        "",
        "01",
        "-",
        "+1",
        ".5",
        "1.",
        "1.e5",
        "1e",
        "1e+",
        "-01",
        "1 2",
        "NaN",
        "0x10",
        "1,,2",
        "null",
        "\"1\"",
        "[1]",
        "1e39",
        "Infinity",
        "-a",
        "1_0",
        "--1",
        "1.2.3",
        "1e5e",
        "1e400",
        "-1e39",
        "1]",
        "{}",
        "1:",
        "1e999999999",
        "-0.000000000000000000000000000000000000000e-01",
        "-0.00000000000000000000000000000000000000000000000000000001",
        "-1234567890123456789.5e-12"};
    for (size_t m = 0; m < sizeof mistakes / sizeof mistakes[0]; m++) {
        for (int before = 0; before < 4; before++) {
            for (int after = 0; after < 12; after++) {
                char text[512] = "[";
                for (int i = 0; i < before; i++)
                    strcat(text, "-0.12345678,");
                strcat(text, mistakes[m]);
                for (int i = 0; i < after; i++)
                    strcat(text, ",0.25e-3");
                strcat(text, "]");
                expect_same(text, strlen(text));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_number_reads_as_the_careful_parser_reads_it),
        cmocka_unit_test(test_numbers_as_clients_print_them_are_taken),
        cmocka_unit_test(test_a_halfway_point_goes_to_the_even_neighbour),
        cmocka_unit_test(test_both_ends_of_the_scale),
        cmocka_unit_test(test_zeros_and_long_texts),
        cmocka_unit_test(test_arrays_read_as_one_number_after_the_other),
        cmocka_unit_test(test_damaged_arrays_fail_as_one_number_after_the_other),
        cmocka_unit_test(test_every_mistake_is_told_where_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
