/* Random conditions over random rows with nulls and NaN, held against an evaluator that takes one
 * row and one node at a time. The rows lie in a file, in one that is older than a feature, and in a
 * tail; each view is asked 64 rows at a time with random candidates. */
#include "store_fixture.h"

#include <math.h>

#include "store/filter.h"

enum { ROWS = 1500, CONDITIONS = 4000, NODES = 64, TEXT = 8192, LATE = 4 };

/* ---- rows ---- */

struct model {
    bool no_price, no_count, no_name, no_tags, no_late;
    float price;
    int64_t count;
    char name[8];
    char tags[3][2];
    int ntags;
    int32_t late;
};

static struct model rows[ROWS];
static uint64_t seed;

static uint32_t pick(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

static const float prices[] = {-1, 0, 0.1f, 0.5f, 1, 2, 3.5f, NAN, INFINITY, -INFINITY};
static const int64_t counts[] = {INT64_MIN, -2, -1, 0, 1, 2, 3, (1ll << 53) + 1, INT64_MAX};

static void random_name(char out[8])
{
    uint32_t n = pick(4);
    for (uint32_t i = 0; i < n; i++)
        out[i] = "aab%_"[pick(5)];
    out[n] = '\0';
}

static void random_row(struct model *m, bool knows_late)
{
    m->no_price = pick(4) == 0;
    m->no_count = pick(4) == 0;
    m->no_name = pick(4) == 0;
    m->no_tags = pick(4) == 0;
    m->no_late = !knows_late || pick(4) == 0;
    m->price = prices[pick(10)];
    m->count = counts[pick(9)];
    random_name(m->name);
    m->ntags = (int)pick(4);
    for (int i = 0; i < m->ntags; i++)
        snprintf(m->tags[i], sizeof(m->tags[i]), "%c", 'a' + (int)pick(3));
    m->late = (int32_t)pick(4) - 1;
}

static void put_model(struct fixture *f, struct batch *b, int64_t key)
{
    const struct model *m = &rows[key];
    uint8_t list[32];
    size_t n = 0;
    put_key(f, b, key);
    for (int i = 0; i < m->ntags; i++, n += 5) {
        memcpy(list + n, &(uint32_t){1}, 4);
        list[n + 4] = (uint8_t)m->tags[i][0];
    }
    if (!m->no_price)
        OK(batch_set(b, PRICE, &m->price, sizeof(m->price), &f->ctx));
    if (!m->no_count)
        OK(batch_set(b, COUNT, &m->count, sizeof(m->count), &f->ctx));
    if (!m->no_name)
        OK(batch_set(b, NAME, m->name, strlen(m->name), &f->ctx));
    if (!m->no_tags)
        OK(batch_set(b, TAGS, list, n, &f->ctx));
    if (!m->no_late)
        OK(batch_set(b, LATE, &m->late, sizeof(m->late), &f->ctx));
}

static void load_models(struct fixture *f, struct collection *c, int64_t from, int64_t to,
                        bool knows_late)
{
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    struct commit_result r;
    for (int64_t key = from; key < to; key++) {
        random_row(&rows[key], knows_late);
        put_model(f, b, key);
    }
    OK(load_add(l, b, &f->ctx));
    OK(load_commit(l, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

/* ---- conditions ---- */

enum kind { AND, OR, NOT, PRICE_OP, COUNT_OP, NAME_OP, LATE_OP, KEY_OP, IS_NULL, IN, LIKE, HAS };
enum op { EQ, NE, LT, LE, GT, GE };
static const char *const signs[] = {"=", "!=", "<", "<=", ">", ">="};

struct node {
    enum kind kind;
    enum op op;
    int left, right;
    double number;
    int64_t whole;
    bool is_whole;
    char text[8];
    int feature;
};

static struct node nodes[NODES];
static int nnodes;

static int make(int depth)
{
    int i = nnodes++;
    struct node *n = &nodes[i];
    memset(n, 0, sizeof(*n));
    n->kind = depth > 0 && pick(3) ? pick(3) : PRICE_OP + pick(9);
    n->op = pick(6);
    n->feature = (int)pick(5);
    n->number = prices[pick(7)] + (pick(4) == 0 ? 0.25 : 0);
    n->is_whole = pick(2);
    n->whole = counts[1 + pick(8)];
    random_name(n->text);
    if (n->kind <= NOT)
        n->left = make(depth - 1);
    if (n->kind <= OR)
        nodes[i].right = make(depth - 1);
    return i;
}

static const char *const names[] = {"price", "count", "name", "tags", "late"};

static size_t write_node(int i, char *out)
{
    const struct node *n = &nodes[i];
    char number[40];
    size_t at = 0;
    if (n->is_whole)
        snprintf(number, sizeof(number), "%lld", (long long)n->whole);
    else
        snprintf(number, sizeof(number), "%.17g", n->number);
    switch (n->kind) {
    case AND:
    case OR:
        at += (size_t)sprintf(out, "(");
        at += write_node(n->left, out + at);
        at += (size_t)sprintf(out + at, n->kind == AND ? " and " : " or ");
        at += write_node(n->right, out + at);
        return at + (size_t)sprintf(out + at, ")");
    case NOT:
        at += (size_t)sprintf(out, "not (");
        at += write_node(n->left, out + at);
        return at + (size_t)sprintf(out + at, ")");
    case NAME_OP:
        return (size_t)sprintf(out, "name %s '%s'", signs[n->op], n->text);
    case KEY_OP:
        return (size_t)sprintf(out, "key %s %u", signs[n->op], (unsigned)(n->whole & 1023));
    case PRICE_OP:
    case COUNT_OP:
    case LATE_OP:
        return (size_t)sprintf(out, "%s %s %s",
                               names[n->kind == PRICE_OP   ? PRICE
                                     : n->kind == COUNT_OP ? COUNT
                                                           : LATE],
                               signs[n->op], number);
    case IS_NULL:
        return (size_t)sprintf(out, "%s is null", names[n->feature]);
    case IN:
        return (size_t)sprintf(out, "count in (1, %s%s)", number, n->op == EQ ? ", null" : "");
    case LIKE:
        return (size_t)sprintf(out, "name like '%s'", n->text);
    case HAS:
        return (size_t)sprintf(out, "contains(tags, '%c')", 'a' + n->feature);
    }
    return 0;
}

/* ---- the reference ---- */

enum truth { FALSE, UNKNOWN, TRUE };

static enum truth from(bool null, bool yes)
{
    return null ? UNKNOWN : yes ? TRUE : FALSE;
}

/* -1, 0, 1, or 2 for NaN. long double holds every int64 and double exactly. */
static int order(long double a, long double b)
{
    return a < b ? -1 : a > b ? 1 : a == b ? 0 : 2;
}

static bool holds(enum op op, int order)
{
    switch (op) {
    case EQ:
        return order == 0;
    case NE:
        return order != 0;
    case LT:
        return order == -1;
    case LE:
        return order == -1 || order == 0;
    case GT:
        return order == 1;
    case GE:
        return order == 1 || order == 0;
    }
    return false;
}

static long double number_of(const struct node *n)
{
    return n->is_whole ? (long double)n->whole : (long double)n->number;
}

/* By trying every split at a '%'. */
static bool like(const char *p, const char *s)
{
    if (!*p)
        return !*s;
    if (*p == '%')
        return like(p + 1, s) || (*s && like(p, s + 1));
    return *s && (*p == '_' || *p == *s) && like(p + 1, s + 1);
}

static bool has_tag(const struct model *m, char tag)
{
    for (int i = 0; i < m->ntags; i++) {
        if (m->tags[i][0] == tag)
            return true;
    }
    return false;
}

static enum truth in_list(const struct model *m, const struct node *n)
{
    if (m->no_count)
        return UNKNOWN;
    if (m->count == 1 || (long double)m->count == number_of(n))
        return TRUE;
    return n->op == EQ ? UNKNOWN : FALSE;
}

static enum truth judge(int i, int64_t key)
{
    const struct node *n = &nodes[i];
    const struct model *m = &rows[key];
    enum truth a, b;
    switch (n->kind) {
    case AND:
        a = judge(n->left, key);
        b = judge(n->right, key);
        return a < b ? a : b;
    case OR:
        a = judge(n->left, key);
        b = judge(n->right, key);
        return a > b ? a : b;
    case NOT:
        return TRUE - judge(n->left, key);
    case PRICE_OP:
        return from(m->no_price, holds(n->op, order(m->price, (float)number_of(n))));
    case COUNT_OP:
        return from(m->no_count, holds(n->op, order(m->count, number_of(n))));
    case LATE_OP:
        return from(m->no_late, holds(n->op, order(m->late, number_of(n))));
    case KEY_OP:
        return from(false, holds(n->op, order(key, n->whole & 1023)));
    case NAME_OP: {
        int sign = strcmp(m->name, n->text);
        return from(m->no_name, holds(n->op, (sign > 0) - (sign < 0)));
    }
    case IS_NULL: {
        const bool null[] = {m->no_price, m->no_count, m->no_name, m->no_tags, m->no_late};
        return null[n->feature] ? TRUE : FALSE;
    }
    case IN:
        return in_list(m, n);
    case LIKE:
        return from(m->no_name, like(n->text, m->name));
    case HAS:
        return from(m->no_tags, has_tag(m, (char)('a' + n->feature)));
    }
    return UNKNOWN;
}

/* ---- the comparison ---- */

static uint64_t expected_word(const struct segment *s, uint32_t w, uint64_t candidates)
{
    uint64_t word = 0;
    for (uint64_t left = candidates; left; left &= left - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(left);
        word |= (uint64_t)(judge(0, segment_key_int(s, w * 64 + bit)) == TRUE) << bit;
    }
    return word;
}

static void compare(const struct snapshot *s, const struct filter *f, const char *text)
{
    uint64_t live = 0, counted;
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        for (uint32_t w = 0; w * 64 < v->rows; w++) {
            uint32_t left = v->rows - w * 64;
            uint64_t all = left < 64 ? (1ull << left) - 1 : UINT64_MAX;
            uint64_t some = all & ((uint64_t)pick(1u << 31) << 33 ^ pick(1u << 31));
            if (filter_word(f, v->segment, w, all) != expected_word(v->segment, w, all) ||
                filter_word(f, v->segment, w, some) != expected_word(v->segment, w, some))
                fail_msg("view %u, word %u: %s", i, w, text);
        }
        for (uint32_t row = 0; row < v->rows; row++)
            live += view_live(v, row) && filter_match(f, v->segment, row);
    }
    assert_int_equal(filter_count(f, s, NULL, &counted, NULL), ERR_OK);
    assert_int_equal(counted, live);
}

static void compare_many(struct fixture *f, const struct snapshot *s)
{
    static char text[TEXT], again[TEXT];
    uint64_t matching = 0;
    for (int i = 0; i < CONDITIONS; i++) {
        struct filter *filter;
        struct buf normal = {0};
        nnodes = 0;
        (void)make(4);
        size_t n = write_node(0, text);
        OK(filter_parse(s->schema, text, n, &filter, &f->ctx));
        compare(s, filter, text);
        matching += filter_word(filter, s->views[0].segment, 0, 1);
        filter_normal(filter, &normal);
        filter_free(filter);
        snprintf(again, sizeof(again), "%.*s", (int)normal.len, (char *)normal.data);
        OK(filter_parse(s->schema, again, normal.len, &filter, &f->ctx));
        compare(s, filter, again);
        filter_free(filter);
        buf_deinit(&normal);
    }
    assert_true(matching > CONDITIONS / 10 && matching < CONDITIONS);
}

static void random_conditions_match_as_the_reference_says(void **state)
{
    struct fixture fixture, *f = &fixture;
    (void)state;
    seed = 20;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    load_models(f, c, 0, 500, false);
    OK(collection_seal(c, &f->ctx));
    OK(try_alter(c, "late", FEATURE_INT32, &f->ctx));
    load_models(f, c, 500, 1000, true);
    OK(collection_seal(c, &f->ctx));
    load_models(f, c, 1000, ROWS, true);
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    assert_int_equal(s->rows, ROWS);
    assert_true(s->nviews >= 3);
    compare_many(f, s);
    snapshot_release(s);
    fixture_free(f);
}

/* The share that a sample says, beside the true one. */
static void a_sample_tells_the_share(void **state)
{
    struct fixture fixture, *f = &fixture;
    struct filter *filter;
    (void)state;
    seed = 21;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    load_models(f, c, 0, ROWS, false);
    OK(collection_seal(c, &f->ctx));
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    OK(filter_parse(s->schema, "price >= 0", 10, &filter, &f->ctx));
    double exact = filter_share(filter, &s->views[0], ROWS);
    double sampled = filter_share(filter, &s->views[0], 512);
    filter_free(filter);
    assert_true(exact > 0.2 && exact < 0.8);
    assert_true(fabs(exact - sampled) < 0.1);
    OK(filter_parse(s->schema, "key = 1030", 10, &filter, &f->ctx));
    assert_true(filter_share(filter, &s->views[0], ROWS) == 1.0 / ROWS);
    sampled = filter_share(filter, &s->views[0], 128);
    assert_true(sampled > 0 && sampled < 0.01);
    filter_free(filter);
    snapshot_release(s);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_conditions_match_as_the_reference_says),
        cmocka_unit_test(a_sample_tells_the_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
