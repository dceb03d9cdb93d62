/* Filters: which rows match, what the types allow, what parses at all.
 *
 * Rows lie in a tail, made by hand. Every feature of row 0 is null. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/filter.h"
#include "store/tail.h"

enum { DIM = 2 };

/* A segment of 8 rows:
 *   row         0     1        2         3        4        5        6      7
 *   flag (bool) null  false    true      false    true     false    true   false
 *   i32         null  -1       0         1        2        3        4      5
 *   i64         null  min      -1        0        2^53+1   7        8      max
 *   f32         null  -1.5     0.1       NaN      inf      -inf     2      1e30
 *   f64         null  -1.5     0.1       NaN      inf      2^53     2      1e300
 *   ts          null  epoch    2024-05-01 ...+1us ...      year 1   2030   1999
 *   s           null  ''       'a'       'ab'     'a_b'    'a%b'    'äb'   'it''s'
 *   b           null  ''       00        00ff     ff       ff00     6162   61
 *   tags        null  []       [a]       [a,b]    ['']     [ab]     [b,a]  [c]
 *   nums        null  []       [1]       [1,2]    [-1]     [max]    [3]    [0]
 *   fl          null  []       [0.5]     [0.1]    [NaN]    [inf]    [3]    [0]
 *   a-b (int32) null  1 .. 7
 *   key         k0 .. k7 / 0 .. 7; rows 3 and 0 have no vector */
struct rig {
    struct schema *schema;
    struct segment *tail;
    struct err_ctx ctx;
    int wrong; /* lines of a file */
};

#define OK(expr)                                                                                   \
    do {                                                                                           \
        enum err rc_ = (expr);                                                                     \
        if (rc_ != ERR_OK)                                                                         \
            fail_msg("%s: %d %s", #expr, rc_, g->ctx.detail);                                      \
    } while (0)

static void add(struct rig *g, const char *name, enum feature_type type)
{
    OK(schema_add_feature(g->schema, name, type, &g->ctx));
}

static void make_schema(struct rig *g, enum key_type key)
{
    OK(schema_new(key, DIM, DIST_L2, &g->schema, &g->ctx));
    add(g, "flag", FEATURE_BOOL);
    add(g, "i32", FEATURE_INT32);
    add(g, "i64", FEATURE_INT64);
    add(g, "f32", FEATURE_FLOAT32);
    add(g, "f64", FEATURE_FLOAT64);
    add(g, "ts", FEATURE_TIMESTAMP);
    add(g, "s", FEATURE_STRING);
    add(g, "b", FEATURE_BYTES);
    add(g, "tags", FEATURE_STRING_LIST);
    add(g, "nums", FEATURE_INT64_LIST);
    add(g, "fl", FEATURE_FLOAT32_LIST);
    add(g, "a-b", FEATURE_INT32);
    OK(schema_seal(g->schema, &g->ctx));
}

static const int64_t i64s[8] = {0, INT64_MIN, -1, 0, (1ll << 53) + 1, 7, 8, INT64_MAX};
static const float f32s[8] = {0, -1.5f, 0.1f, NAN, INFINITY, -INFINITY, 2, 1e30f};
static const double f64s[8] = {0, -1.5, 0.1, NAN, INFINITY, 9007199254740992.0, 2, 1e300};
static const int64_t times[8] = {0,
                                 0,
                                 1714521600000000,
                                 1714521600000001,
                                 1714521600250000,
                                 -62135596800000000,
                                 1893456000000000,
                                 946684799000000};
static const char *const strings[8] = {"",
                                       "",
                                       "a",
                                       "ab",
                                       "a_b",
                                       "a%b",
                                       "\xc3\xa4"
                                       "b",
                                       "it's"};
static const char *const bytes[8] = {"", "", "\0", "\0\xff", "\xff", "\xff\0", "ab", "a"};
static const size_t byte_lengths[8] = {0, 0, 1, 2, 1, 2, 2, 1};
static const char *const tags[8][3] = {{0},  {0},    {"a"},      {"a", "b"},
                                       {""}, {"ab"}, {"b", "a"}, {"c"}};
static const int64_t nums[8][2] = {{0}, {0}, {1}, {1, 2}, {-1}, {INT64_MAX}, {3}, {0}};
static const size_t num_counts[8] = {0, 0, 1, 2, 1, 1, 1, 1};
static const float fls[8] = {0, 0, 0.5f, 0.1f, NAN, INFINITY, 3, 0};

static void put_cells(struct row_builder *rb, int row, struct buf *list)
{
    const struct feature *f = rb->row.schema->features;
    uint8_t *strip = rb->strip;
    int32_t i32 = row - 2, dash = row;
    strip[f[0].strip_offset] = row % 2 == 0;
    memcpy(strip + f[1].strip_offset, &i32, 4);
    memcpy(strip + f[2].strip_offset, &i64s[row], 8);
    memcpy(strip + f[3].strip_offset, &f32s[row], 4);
    memcpy(strip + f[4].strip_offset, &f64s[row], 8);
    memcpy(strip + f[5].strip_offset, &times[row], 8);
    memcpy(strip + f[11].strip_offset, &dash, 4);
    rb->var[0] = (struct cell){strings[row], strlen(strings[row])};
    rb->var[1] = (struct cell){bytes[row], byte_lengths[row]};
    for (int i = 0; tags[row][i]; i++)
        buf_put_blob(list, tags[row][i], strlen(tags[row][i]));
    rb->var[2] = (struct cell){list->data ? (void *)list->data : "", list->len};
    rb->var[3] = (struct cell){nums[row], num_counts[row] * 8};
    rb->var[4] = (struct cell){&fls[row], row > 1 ? 4 : 0};
}

static void add_row(struct rig *g, struct row_builder *rb, int row)
{
    static const float vector[DIM] = {1, 2};
    struct buf list = {0};
    char key[8];
    memset(rb->strip, 0, g->schema->strip_bytes);
    if (row > 0) {
        put_cells(rb, row, &list);
    } else {
        memset(rb->strip, 0xff, g->schema->null_bytes);
        for (uint32_t i = 0; i < g->schema->nvar; i++)
            rb->var[i] = (struct cell){"", 0};
    }
    rb->row.int_key = row;
    rb->row.key = key;
    rb->row.key_len = (size_t)snprintf(key, sizeof(key), "k%d", row);
    rb->row.vector = row == 3 || row == 0 ? NULL : vector;
    tail_append(g->tail, &rb->row, 1, (uint64_t)row);
    buf_deinit(&list);
}

static void rig_new(struct rig *g, enum key_type key)
{
    struct row_builder rb;
    memset(g, 0, sizeof(*g));
    err_clear(&g->ctx);
    make_schema(g, key);
    OK(tail_new(1, g->schema, &g->tail, &g->ctx));
    OK(tail_reserve(g->tail, 8, 8, 4096, &g->ctx));
    OK(row_builder_init(&rb, g->schema, &g->ctx));
    for (int row = 0; row < 8; row++)
        add_row(g, &rb, row);
    row_builder_deinit(&rb);
}

static void rig_free(struct rig *g)
{
    segment_release(g->tail);
    schema_release(g->schema);
}

static struct filter *parse(struct rig *g, const char *text)
{
    struct filter *f;
    enum err e = filter_parse(g->schema, text, strlen(text), &f, &g->ctx);
    if (e != ERR_OK)
        fail_msg("%s: %d %s", text, e, g->ctx.detail);
    return f;
}

/* The rows that match, as "2 5 7"; also row by row, and by the normal text. */
static void expect_rows(struct rig *g, const char *text, const char *want)
{
    struct filter *f = parse(g, text);
    struct buf normal = {0}, again = {0};
    char got[32] = "";
    size_t n = 0;
    uint64_t word = filter_word(f, g->tail, 0, 0xff);
    for (uint32_t row = 0; row < 8; row++) {
        assert_int_equal(filter_match(f, g->tail, row), word >> row & 1);
        if (word >> row & 1)
            n += (size_t)snprintf(got + n, sizeof(got) - n, n ? " %u" : "%u", row);
    }
    if (strcmp(got, want) != 0)
        fail_msg("%s: rows '%s', wanted '%s'", text, got, want);
    filter_normal(f, &normal);
    buf_put_u8(&normal, 0);
    filter_free(f);
    f = parse(g, (char *)normal.data);
    filter_normal(f, &again);
    buf_put_u8(&again, 0);
    assert_string_equal((char *)again.data, (char *)normal.data);
    if (filter_word(f, g->tail, 0, 0xff) != word)
        fail_msg("%s: its normal text %s matches other rows", text, (char *)normal.data);
    filter_free(f);
    buf_deinit(&normal);
    buf_deinit(&again);
}

static void numbers_compare_by_value(void **state)
{
    struct rig rig, *g = &rig;
    (void)state;
    rig_new(g, KEY_STRING);
    expect_rows(g, "i32 = 1", "3");
    expect_rows(g, "i32 == 1.0", "3");
    expect_rows(g, "i32 != 1", "1 2 4 5 6 7");
    expect_rows(g, "i32 <> 1", "1 2 4 5 6 7");
    expect_rows(g, "i32 < 1.5", "1 2 3");
    expect_rows(g, "i32 > -0.5", "2 3 4 5 6 7");
    expect_rows(g, "i32 = 1.5", "");
    expect_rows(g, "i32 != 1.5", "1 2 3 4 5 6 7");
    expect_rows(g, "i32 < 1e300", "1 2 3 4 5 6 7");
    expect_rows(g, "i32 > 1e300", "");
    expect_rows(g, "i32 > -99999999999999999999", "1 2 3 4 5 6 7");
    expect_rows(g, "2 < i32", "5 6 7");
    expect_rows(g, "2 >= i32", "1 2 3 4");
    expect_rows(g, "i64 = 9007199254740993", "4");
    expect_rows(g, "i64 = 9007199254740992", "");
    expect_rows(g, "i64 > 9007199254740992.0", "4 7");
    expect_rows(g, "i64 <= -9223372036854775808", "1");
    expect_rows(g, "i64 < -9223372036854775808", "");
    expect_rows(g, "i64 >= 9223372036854775807", "7");
    expect_rows(g, "i64 > 9223372036854775807", "");
    expect_rows(g, "i64 < 9223372036854775808", "1 2 3 4 5 6 7");
    expect_rows(g, "f32 = 0.1", "2");
    expect_rows(g, "f32 <= 0.1", "1 2 5");
    expect_rows(g, "f32 < 0.1", "1 5");
    expect_rows(g, "f32 > 1e38", "4");
    expect_rows(g, "f32 > 1e300", "4");
    expect_rows(g, "f32 < 1e300", "1 2 5 6 7");
    expect_rows(g, "f32 < -1e300", "5");
    expect_rows(g, "f64 = 9007199254740993", "");
    expect_rows(g, "f64 < 9007199254740993", "1 2 5 6");
    expect_rows(g, "f64 >= 9007199254740992", "4 5 7");
    expect_rows(g, "f64 > 1.7976931348623157e308", "4");
    expect_rows(g, "f64 between 0.1 and 2", "2 6");
    expect_rows(g, "f64 not between 0.1 and 2", "1 3 4 5 7");
    expect_rows(g, "i32 between 3 and 1", "");
    expect_rows(g, "\"a-b\" >= 6", "6 7");
    expect_rows(g, ".5 < i32 and i32 < +2.5e0", "3 4");
    rig_free(g);
}

static void nan_equals_nothing_and_is_in_no_range(void **state)
{
    struct rig rig, *g = &rig;
    (void)state;
    rig_new(g, KEY_STRING);
    expect_rows(g, "f64 != 2", "1 2 3 4 5 7");
    expect_rows(g, "not f64 = 2", "1 2 3 4 5 7");
    expect_rows(g, "f64 < 2 or f64 >= 2", "1 2 4 5 6 7");
    expect_rows(g, "f64 != f64", "3");
    expect_rows(g, "f64 = f64", "1 2 4 5 6 7");
    expect_rows(g, "f64 in (2, 0.1)", "2 6");
    expect_rows(g, "f64 not in (2, 0.1)", "1 3 4 5 7");
    expect_rows(g, "f32 != f32", "3");
    expect_rows(g, "contains(fl, 0.1)", "3");
    rig_free(g);
}

static void unknown_is_neither_true_nor_false(void **state)
{
    struct rig rig, *g = &rig;
    (void)state;
    rig_new(g, KEY_STRING);
    expect_rows(g, "i32 is null", "0");
    expect_rows(g, "i32 is not null", "1 2 3 4 5 6 7");
    expect_rows(g, "not i32 is null", "1 2 3 4 5 6 7");
    expect_rows(g, "key is null", "");
    expect_rows(g, "vector is null", "0 3");
    expect_rows(g, "vector is not null", "1 2 4 5 6 7");
    expect_rows(g, "i32 = null", "");
    expect_rows(g, "not i32 = null", "");
    expect_rows(g, "i32 != null", "");
    expect_rows(g, "i32 in (1, null)", "3");
    expect_rows(g, "i32 not in (1, null)", "");
    expect_rows(g, "i32 not in (1)", "1 2 4 5 6 7");
    expect_rows(g, "i32 between null and 1", "");
    expect_rows(g, "i32 not between null and 1", "4 5 6 7");
    expect_rows(g, "i32 = 1 or null", "3");
    expect_rows(g, "i32 = 1 and null", "");
    expect_rows(g, "not (i32 = 1 and null)", "1 2 4 5 6 7");
    expect_rows(g, "not (i32 = 1 or null)", "");
    expect_rows(g, "null", "");
    expect_rows(g, "not null", "");
    expect_rows(g, "true", "0 1 2 3 4 5 6 7");
    expect_rows(g, "not false", "0 1 2 3 4 5 6 7");
    expect_rows(g, "i32 > 3 or i32 <= 3", "1 2 3 4 5 6 7");
    expect_rows(g, "i32 = i64", "");
    expect_rows(g, "i32 < i64", "4 5 6 7");
    expect_rows(g, "s not like 'a%'", "1 6 7");
    expect_rows(g, "not contains(tags, 'a')", "1 4 5 7");
    rig_free(g);
}

static void strings_bytes_bools_and_times_compare(void **state)
{
    struct rig rig, *g = &rig;
    (void)state;
    rig_new(g, KEY_STRING);
    expect_rows(g, "s = ''", "1");
    expect_rows(g, "s = 'it''s'", "7");
    expect_rows(g, "s > 'a' and s < 'b'", "3 4 5");
    expect_rows(g, "s >= 'ä'", "6");
    expect_rows(g, "s in ('ab', 'it''s', 'zz')", "3 7");
    expect_rows(g, "s != 'a'", "1 3 4 5 6 7");
    expect_rows(g, "b = x'00ff'", "3");
    expect_rows(g, "b >= X'FF'", "4 5");
    expect_rows(g, "b in (x'', x'6162')", "1 6");
    expect_rows(g, "flag", "2 4 6");
    expect_rows(g, "not flag", "1 3 5 7");
    expect_rows(g, "flag = true", "2 4 6");
    expect_rows(g, "flag != true", "1 3 5 7");
    expect_rows(g, "flag in (false)", "1 3 5 7");
    expect_rows(g, "flag > false", "2 4 6");
    expect_rows(g, "ts = '2024-05-01T00:00:00Z'", "2");
    expect_rows(g, "ts > '2024-05-01'", "3 4 6");
    expect_rows(g, "ts <= '2024-05-01T02:00:00.25+02:00'", "1 2 3 4 5 7");
    expect_rows(g, "ts between '1970-01-01' and '2024-05-01'", "1 2 7");
    expect_rows(g, "ts in ('2030-01-01', '0001-01-01T00:00:00Z')", "5 6");
    expect_rows(g, "key = 'k3'", "3");
    expect_rows(g, "key in ('k1', 'k9', 'k7')", "1 7");
    expect_rows(g, "key like 'k%' and key > 'k5'", "6 7");
    expect_rows(g, "\"key\" = 'k1'", "1");
    expect_rows(g, "1 = 1.0", "0 1 2 3 4 5 6 7");
    expect_rows(g, "'a' < 'b' and 2 > 3", "");
    expect_rows(g, "contains(tags, 'a')", "2 3 6");
    expect_rows(g, "CONTAINS(tags, '')", "4");
    expect_rows(g, "contains(nums, 1)", "2 3");
    expect_rows(g, "contains(nums, 9223372036854775807)", "5");
    expect_rows(g, "contains(nums, 1.5)", "");
    expect_rows(g, "contains(fl, 3.0)", "6");
    rig_free(g);
}

static void like_takes_percent_underline_and_an_escape(void **state)
{
    struct rig rig, *g = &rig;
    (void)state;
    rig_new(g, KEY_STRING);
    expect_rows(g, "s like 'a%'", "2 3 4 5");
    expect_rows(g, "s like 'A%'", "");
    expect_rows(g, "s like '%b'", "3 4 5 6");
    expect_rows(g, "s like '_b'", "3 6");
    expect_rows(g, "s like 'a_b'", "4 5");
    expect_rows(g, "s like 'a\\_b' escape '\\'", "4");
    expect_rows(g, "s like 'a\\_b'", "");
    expect_rows(g, "s like 'a!%b' escape '!'", "5");
    expect_rows(g, "s like 'aä%b' escape 'ä'", "5");
    expect_rows(g, "s like '%'", "1 2 3 4 5 6 7");
    expect_rows(g, "s like ''", "1");
    expect_rows(g, "s like '_'", "2");
    expect_rows(g, "s like '__'", "3 6");
    expect_rows(g, "s like '%t_s%'", "7");
    expect_rows(g, "s like '%_b%'", "3 4 5 6");
    expect_rows(g, "s like '%%a%%b%%'", "3 4 5");
    expect_rows(g, "s like 'ab%ab'", "");
    expect_rows(g, "s like 'a%%b'", "3 4 5");
    rig_free(g);
}

static void logic_nests(void **state)
{
    struct rig rig, *g = &rig;
    (void)state;
    rig_new(g, KEY_INT64);
    expect_rows(g, "key = 1 or key = 2 and key = 3", "1");
    expect_rows(g, "(key = 1 or key = 2) and key = 2", "2");
    expect_rows(g, "not key = 1 and key < 4", "0 2 3");
    expect_rows(g, "not (key = 1 or (key > 3 and not key = 5))", "0 2 3 5");
    expect_rows(g, "not not key = 1", "1");
    expect_rows(g, "not not not key >= 1", "0");
    expect_rows(g, "(((key = 1)))", "1");
    rig_free(g);
}

/* ---- texts ---- */

/* What the lines of tests/unit/store/filter/ are about. */
static void text_schema(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    err_clear(&g->ctx);
    OK(schema_new(KEY_STRING, DIM, DIST_L2, &g->schema, &g->ctx));
    add(g, "price", FEATURE_FLOAT32);
    add(g, "PRICE_X", FEATURE_FLOAT64);
    add(g, "n", FEATURE_INT32);
    add(g, "flag", FEATURE_BOOL);
    add(g, "name", FEATURE_STRING);
    add(g, "ts", FEATURE_TIMESTAMP);
    add(g, "raw", FEATURE_BYTES);
    add(g, "tags", FEATURE_STRING_LIST);
    add(g, "nums", FEATURE_INT64_LIST);
    add(g, "a-b", FEATURE_INT32);
    add(g, "and", FEATURE_INT32);
    add(g, "IN", FEATURE_INT32);
    OK(schema_seal(g->schema, &g->ctx));
}

/* Calls `check` for every line but comments; returns how many there were. */
static int each_line(struct rig *g, const char *name, void (*check)(struct rig *g, char *line))
{
    char path[100], *line = NULL;
    size_t cap = 0;
    int lines = 0;
    snprintf(path, sizeof(path), "tests/unit/store/filter/%s", name);
    FILE *file = fopen(path, "re");
    if (!file)
        fail_msg("%s", path);
    while (getline(&line, &cap, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#')
            continue;
        check(g, line);
        lines++;
    }
    free(line);
    fclose(file);
    return lines;
}

static char *normal_of(struct rig *g, const char *text)
{
    struct buf normal = {0};
    struct filter *f = parse(g, text);
    filter_normal(f, &normal);
    buf_put_u8(&normal, 0);
    filter_free(f);
    return (char *)normal.data;
}

static void check_valid(struct rig *g, char *line)
{
    char *arrow = strstr(line, " => ");
    assert_non_null(arrow);
    *arrow = '\0';
    char *normal = normal_of(g, line), *again = normal_of(g, normal);
    if (strcmp(normal, arrow + 4) != 0 || strcmp(again, normal) != 0) {
        print_error("%s => %s => %s\n", line, normal, again);
        g->wrong++;
    }
    free(normal);
    free(again);
}

static void check_invalid(struct rig *g, char *line)
{
    char field[64], word[64];
    int status, at = 0;
    struct filter *f;
    assert_int_equal(sscanf(line, "%d %63s %63s%n", &status, field, word, &at), 3);
    const char *text = line + at + (line[at] == ' ');
    for (char *c = word; *c; c++)
        *c = *c == '_' ? ' ' : *c;
    err_clear(&g->ctx);
    enum err e = filter_parse(g->schema, text, strlen(text), &f, &g->ctx);
    if (e != (status == 400 ? ERR_INVALID : ERR_UNPROCESSABLE) || !strstr(g->ctx.detail, word) ||
        strcmp(g->ctx.field, field[0] == '-' ? "" : field) != 0) {
        print_error("%s: %d, field '%s', %s\n", text, e, g->ctx.field, g->ctx.detail);
        g->wrong++;
    }
}

static void normal_texts(void **state)
{
    struct rig rig;
    (void)state;
    text_schema(&rig);
    assert_true(each_line(&rig, "valid.txt", check_valid) > 40);
    assert_int_equal(rig.wrong, 0);
    schema_release(rig.schema);
}

static void what_is_no_filter_is_told_why(void **state)
{
    struct rig rig;
    (void)state;
    text_schema(&rig);
    assert_true(each_line(&rig, "invalid.txt", check_invalid) > 70);
    assert_int_equal(rig.wrong, 0);
    schema_release(rig.schema);
}

static enum err try_repeated(struct rig *g, const char *before, const char *each, int n,
                             const char *behind, const char *each_behind)
{
    struct buf text = {0};
    struct filter *f = NULL;
    buf_put(&text, before, strlen(before));
    for (int i = 0; i < n; i++)
        buf_put(&text, each, strlen(each));
    buf_put(&text, behind, strlen(behind));
    for (int i = 0; i < n; i++)
        buf_put(&text, each_behind, strlen(each_behind));
    err_clear(&g->ctx);
    enum err e = filter_parse(g->schema, (const char *)text.data, text.len, &f, &g->ctx);
    if (e == ERR_OK)
        (void)filter_word(f, g->tail, 0, 0xff);
    filter_free(f);
    buf_deinit(&text);
    return e;
}

static void length_and_depth_are_bounded(void **state)
{
    struct rig rig, *g = &rig;
    (void)state;
    rig_new(g, KEY_INT64);
    OK(try_repeated(g, "", "(", FILTER_DEPTH_MAX, "key = 1", ")"));
    assert_int_equal(try_repeated(g, "", "(", FILTER_DEPTH_MAX + 1, "key = 1", ")"), ERR_INVALID);
    OK(try_repeated(g, "", "not ", 100000, "key = 1", ""));
    OK(try_repeated(g, "key = 1", " or key = 2", FILTER_TERMS_MAX - 1, "", ""));
    assert_int_equal(try_repeated(g, "key = 1", " or key = 2", FILTER_TERMS_MAX, "", ""),
                     ERR_INVALID);
    OK(try_repeated(g, "key in (0", ", 1", 200000, ")", ""));
    OK(try_repeated(g, "s like '", "_", FILTER_LIKE_MAX, "'", ""));
    assert_int_equal(try_repeated(g, "s like '", "_", FILTER_LIKE_MAX + 1, "'", ""), ERR_INVALID);
    rig_free(g);
}

static void text_that_is_not_utf8_is_refused(void **state)
{
    struct rig rig, *g = &rig;
    struct filter *f;
    (void)state;
    text_schema(g);
    assert_int_equal(filter_parse(g->schema, "name = '\xff'", 10, &f, &g->ctx), ERR_INVALID);
    assert_int_equal(filter_parse(g->schema, "name = '\0'", 10, &f, &g->ctx), ERR_INVALID);
    schema_release(g->schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_compare_by_value),
        cmocka_unit_test(nan_equals_nothing_and_is_in_no_range),
        cmocka_unit_test(unknown_is_neither_true_nor_false),
        cmocka_unit_test(strings_bytes_bools_and_times_compare),
        cmocka_unit_test(like_takes_percent_underline_and_an_escape),
        cmocka_unit_test(logic_nests),
        cmocka_unit_test(normal_texts),
        cmocka_unit_test(what_is_no_filter_is_told_why),
        cmocka_unit_test(length_and_depth_are_bounded),
        cmocka_unit_test(text_that_is_not_utf8_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
