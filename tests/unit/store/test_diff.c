/* Diffs of versions, held against comparing all rows of both: tails and files, rows that moved into
 * a file meanwhile, deletions, whole refreshes, both directions. */
#include "store_fixture.h"

#include "store/diff.h"
#include "store/seq_walk.h"

enum { KEYS = 400, VERSIONS_MAX = 64 };

/* Per key: the seq of its row; version 0 = none. */
struct model {
    struct seq seq[KEYS];
};

static struct snapshot *take(struct collection *c)
{
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    return s;
}

static int64_t key_of(const struct snapshot *s, struct row_ref row)
{
    const struct segment *g = s->views[row.view].segment;
    if (s->schema->key == KEY_INT64)
        return segment_key_int(g, row.row);
    size_t len;
    const char *text = segment_key_str(g, row.row, &len);
    char digits[32];
    assert_true(len < sizeof digits);
    memcpy(digits, text, len);
    digits[len] = 0;
    return strtoll(digits + strcspn(digits, "-0123456789"), NULL, 10);
}

static void model_of(const struct snapshot *s, struct model *m)
{
    *m = (struct model){0};
    for (uint32_t v = 0; v < s->nviews; v++) {
        for (uint32_t row = 0; row < s->views[v].rows; row++) {
            if (!view_live(&s->views[v], row))
                continue;
            struct seq *seq = &m->seq[key_of(s, (struct row_ref){v, row})];
            assert_int_equal(seq->version, 0);
            segment_seq(s->views[v].segment, row, &seq->version, &seq->ordinal);
        }
    }
}

static enum diff_op wanted_op(struct seq from, struct seq to)
{
    if (from.version == to.version && from.ordinal == to.ordinal)
        return 0;
    if (!from.version)
        return DIFF_ADDED;
    return to.version ? DIFF_UPDATED : DIFF_REMOVED;
}

/* Every row of the diff is of that op, in the order of seq, and none is missing. */
static void expect_ops(struct fixture *f, const struct snapshot *from, const struct snapshot *to,
                       const struct model *a, const struct model *b, unsigned ops)
{
    const struct snapshot *side = ops == DIFF_REMOVED ? from : to;
    struct diff *d;
    struct seq last = {0, 0};
    size_t got = 0, wanted = 0;
    OK(diff_new(from, to, ops, &d, &f->ctx));
    for (;;) {
        enum diff_op op;
        struct row_ref row;
        struct seq seq;
        enum diff_step step = diff_next(d, &op, &row);
        if (step == DIFF_END)
            break;
        if (step == DIFF_PAUSE)
            continue;
        int64_t key = key_of(side, row);
        assert_int_equal(op, wanted_op(a->seq[key], b->seq[key]));
        assert_true(op & ops);
        segment_seq(side->views[row.view].segment, row.row, &seq.version, &seq.ordinal);
        assert_true(seq_less(last, seq));
        last = seq;
        got++;
    }
    diff_free(d);
    for (int key = 0; key < KEYS; key++)
        wanted += (wanted_op(a->seq[key], b->seq[key]) & ops) != 0;
    assert_int_equal(got, wanted);
}

static void expect_all_pairs(struct fixture *f, struct snapshot *const *s, size_t n)
{
    static struct model models[VERSIONS_MAX];
    for (size_t i = 0; i < n; i++)
        model_of(s[i], &models[i]);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            expect_ops(f, s[i], s[j], &models[i], &models[j], DIFF_ADDED);
            expect_ops(f, s[i], s[j], &models[i], &models[j], DIFF_UPDATED);
            expect_ops(f, s[i], s[j], &models[i], &models[j], DIFF_ADDED | DIFF_UPDATED);
            expect_ops(f, s[i], s[j], &models[i], &models[j], DIFF_REMOVED);
        }
    }
}

static void delete_range(struct fixture *f, struct collection *c, int64_t from, int64_t to)
{
    struct load_options o = {.expected_version = -1};
    struct commit_result r;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (int64_t key = from; key < to; key++)
        put_key(f, b, key);
    OK(collection_delete_keys(c, b, &o, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

static void a_diff_is_what_comparing_all_rows_finds(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", key);
    struct snapshot *s[VERSIONS_MAX];
    size_t n = 0;
    srand(7);
    s[n++] = take(c);
    for (int i = 0; i < 20; i++) {
        int64_t from = rand() % KEYS, to = from + 1 + rand() % (KEYS - from);
        if (i % 5 == 4)
            delete_range(f, c, from, to);
        else
            load_range(f, c, i % 7 == 6 ? LOAD_FULL_REFRESH : LOAD_UPSERT, from, to, i);
        s[n++] = take(c);
        if (i % 6 == 5) {
            OK(collection_seal(c, &f->ctx));
            s[n++] = take(c); /* the same rows, in a file */
        }
    }
    expect_all_pairs(f, s, n);
    for (size_t i = 0; i < n; i++)
        snapshot_release(s[i]);
    fixture_free(f);
}

int main(void)
{
    static enum key_type keys[] = {KEY_STRING, KEY_INT64};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(a_diff_is_what_comparing_all_rows_finds, &keys[0]),
        cmocka_unit_test_prestate(a_diff_is_what_comparing_all_rows_finds, &keys[1]),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
