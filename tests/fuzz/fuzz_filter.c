/* Filters: any text either is refused with a sentence, or is a filter whose normal text is the same
 * filter, whose rows come out alike one at a time and 64 at a time, and whose opposite matches no
 * row that it matches.
 *
 *   byte 0: key type; then the text */
#include "fuzz.h"

#include <math.h>
#include <stdlib.h>

#include "store/filter.h"
#include "store/tail.h"

enum { ROWS = 80 };

static const int64_t wholes[] = {0,         1,         -1,         2,          INT64_MIN,
                                 INT64_MAX, 1ll << 53, 1714521600, -2147483648};
static const double floats[] = {0, -0.0, 0.1, 1.5, NAN, INFINITY, -INFINITY, 9007199254740992.0};
static const char *const texts[] = {"", "a", "ab", "a_b", "%", "\xc3\xa4", "it's", "aaaaaaab"};

#define PICK(list, i) ((list)[(unsigned)(i) % (sizeof(list) / sizeof((list)[0]))])

static struct cell list_cell(struct buf *b, enum feature_type type, int i)
{
    for (int n = 0; n < i % 4; n++) {
        float f = (float)PICK(floats, i + n);
        const char *text = PICK(texts, i + n);
        if (type == FEATURE_FLOAT32_LIST)
            buf_put(b, &f, sizeof f);
        else if (type == FEATURE_INT64_LIST)
            buf_put_u64(b, (uint64_t)PICK(wholes, i + n));
        else
            buf_put_blob(b, text, strlen(text));
    }
    return (struct cell){b->data ? (void *)b->data : "", b->len};
}

static void put_value(struct row_builder *rb, const struct feature *f, int i, struct buf *list)
{
    uint8_t *at = rb->strip + f->strip_offset;
    const char *text = PICK(texts, i);
    int32_t i32 = (int32_t)PICK(wholes, i);
    float f32 = (float)PICK(floats, i);
    if (f->type == FEATURE_BOOL)
        *at = i % 2;
    else if (f->type == FEATURE_INT32)
        memcpy(at, &i32, sizeof i32);
    else if (f->type == FEATURE_FLOAT32)
        memcpy(at, &f32, sizeof f32);
    else if (f->type == FEATURE_FLOAT64)
        memcpy(at, &PICK(floats, i), sizeof(double));
    else if (f->width)
        memcpy(at, &PICK(wholes, i), sizeof(int64_t));
    else if (f->type == FEATURE_STRING || f->type == FEATURE_BYTES)
        rb->var[f->var_index] = (struct cell){text, strlen(text)};
    else
        rb->var[f->var_index] = list_cell(list, f->type, i);
}

static void add_row(struct segment *s, struct row_builder *rb, int row)
{
    static const float vector[FUZZ_DIM] = {1, 2, 3, 4};
    const struct schema *schema = s->schema;
    struct buf lists[FEATURE_TYPE_COUNT] = {{0}};
    memset(rb->strip, 0, schema->strip_bytes);
    for (uint32_t f = 0; f < schema->nfeatures; f++) {
        bool null = (row * 7 + (int)f * 3) % 5 == 0;
        rb->strip[f / 8] |= (uint8_t)(null << f % 8);
        if (!schema->features[f].width)
            rb->var[schema->features[f].var_index] = (struct cell){"", 0};
        if (!null)
            put_value(rb, &schema->features[f], row + (int)f, &lists[f]);
    }
    rb->row.int_key = PICK(wholes, row) / 2 + row;
    rb->row.key = PICK(texts, row / 8 + 1);
    rb->row.key_len = strlen(rb->row.key);
    rb->row.vector = row % 6 ? vector : NULL;
    tail_append(s, &rb->row, 1, (uint64_t)row);
    for (int i = 0; i < FEATURE_TYPE_COUNT; i++)
        buf_deinit(&lists[i]);
}

static struct segment *rows_of(enum key_type key)
{
    static struct segment *made[2];
    struct row_builder rb;
    if (made[key])
        return made[key];
    struct schema *schema = fuzz_schema(key);
    ASSERT(tail_new(1, schema, &made[key], NULL) == ERR_OK);
    ASSERT(tail_reserve(made[key], ROWS, 1, 1 << 16, NULL) == ERR_OK);
    ASSERT(row_builder_init(&rb, schema, NULL) == ERR_OK);
    for (int row = 0; row < ROWS; row++)
        add_row(made[key], &rb, row);
    row_builder_deinit(&rb);
    schema_release(schema);
    return made[key];
}

/* Matching rows; the second word has the rest of them. */
struct rows {
    uint64_t w[2];
};

static struct rows matches(const struct filter *f, const struct segment *s)
{
    const uint64_t rest = (1ull << (ROWS - 64)) - 1;
    struct rows r = {{filter_word(f, s, 0, UINT64_MAX), filter_word(f, s, 1, rest)}};
    for (uint32_t row = 0; row < ROWS; row++)
        ASSERT(filter_match(f, s, row) == (r.w[row / 64] >> row % 64 & 1));
    ASSERT((r.w[1] & ~rest) == 0);
    return r;
}

/* before, the text, behind: false when it is no filter. */
static bool run(const struct segment *s, const char *before, const struct buf *text,
                const char *behind, struct rows *out, struct buf *normal)
{
    struct buf all = {0};
    struct filter *f;
    buf_put(&all, before, strlen(before));
    buf_put(&all, text->data, text->len);
    buf_put(&all, behind, strlen(behind));
    bool ok = filter_parse(s->schema, (const char *)all.data, all.len, &f, NULL) == ERR_OK;
    buf_deinit(&all);
    if (!ok)
        return false;
    *out = matches(f, s);
    if (normal)
        filter_normal(f, normal);
    filter_free(f);
    return true;
}

static void expect_consistent(const struct segment *s, const struct filter *f)
{
    struct rows here = matches(f, s), again, turned, once;
    struct buf normal = {0}, second = {0};
    filter_normal(f, &normal);
    ASSERT(run(s, "", &normal, "", &again, &second));
    ASSERT(memcmp(&here, &again, sizeof here) == 0);
    ASSERT(normal.len == second.len && memcmp(normal.data, second.data, normal.len) == 0);
    if (run(s, "not (", &normal, ")", &turned, NULL)) /* unless that nests too deep */
        ASSERT(!(turned.w[0] & here.w[0]) && !(turned.w[1] & here.w[1]));
    if (run(s, "not (not (", &normal, "))", &once, NULL))
        ASSERT(memcmp(&here, &once, sizeof here) == 0);
    buf_deinit(&normal);
    buf_deinit(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err_ctx ctx;
    struct filter *f;
    if (n < 1)
        return 0;
    const struct segment *s = rows_of(data[0] & 1 ? KEY_INT64 : KEY_STRING);
    char *text = malloc(n); /* of its own, so that reading past it is seen */
    ASSERT(text);
    memcpy(text, data + 1, n - 1);
    err_clear(&ctx);
    enum err e = filter_parse(s->schema, text, n - 1, &f, &ctx);
    free(text);
    if (e != ERR_OK) {
        ASSERT((e == ERR_INVALID || e == ERR_UNPROCESSABLE) && ctx.detail[0]);
        return 0;
    }
    ASSERT(filter_row_ns(f) >= 0);
    expect_consistent(s, f);
    filter_free(f);
    return 0;
}
