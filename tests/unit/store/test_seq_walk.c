/* Walking rows in the order of seq, held against sorting all of them: tails, files, files of the
 * same commit as tail rows, dead rows, and a writer meanwhile. */
#include "store_fixture.h"

#include <pthread.h>

#include "store/seq_walk.h"

struct entry {
    struct seq seq;
    struct row_ref row;
};

static int compare_entries(const void *a, const void *b)
{
    const struct seq *x = &((const struct entry *)a)->seq, *y = &((const struct entry *)b)->seq;
    if (x->version != y->version)
        return x->version < y->version ? -1 : 1;
    return x->ordinal < y->ordinal ? -1 : x->ordinal > y->ordinal;
}

static struct entry *all_rows(const struct snapshot *s, size_t *n)
{
    struct entry *list = malloc((s->rows + 1) * sizeof *list);
    assert_non_null(list);
    *n = 0;
    for (uint32_t v = 0; v < s->nviews; v++) {
        for (uint32_t row = 0; row < s->views[v].rows; row++) {
            if (!view_live(&s->views[v], row))
                continue;
            struct entry *e = &list[(*n)++];
            e->row = (struct row_ref){v, row};
            segment_seq(s->views[v].segment, row, &e->seq.version, &e->seq.ordinal);
        }
    }
    assert_int_equal(*n, s->rows);
    qsort(list, *n, sizeof *list, compare_entries);
    return list;
}

/* Up to `most` rows behind `after` are those of list[from ..]. */
static void expect_walk(struct fixture *f, const struct snapshot *s, const struct seq *after,
                        const struct entry *list, size_t from, size_t n, size_t most)
{
    struct seq_walk *w;
    struct entry got;
    OK(seq_walk_new(s, after, &w, &f->ctx));
    for (size_t i = from; i < n && i < from + most; i++) {
        assert_true(seq_walk_next(w, &got.row, &got.seq));
        if (memcmp(&got, &list[i], sizeof got) != 0)
            fail_msg("row %zu: %llu.%llu, wanted %llu.%llu", i, (unsigned long long)got.seq.version,
                     (unsigned long long)got.seq.ordinal, (unsigned long long)list[i].seq.version,
                     (unsigned long long)list[i].seq.ordinal);
    }
    if (n - from <= most) {
        assert_false(seq_walk_next(w, &got.row, &got.seq));
        assert_false(seq_walk_next(w, &got.row, &got.seq));
    }
    seq_walk_free(w);
}

static void expect_order(struct fixture *f, struct collection *c)
{
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    size_t n, at = 0;
    struct entry *list = all_rows(s, &n);
    expect_walk(f, s, NULL, list, 0, n, n);
    for (uint64_t version = 0; version <= s->version + 1; version++) {
        for (uint64_t ordinal = 0; ordinal < 41000; ordinal += ordinal < 300 ? 1 : 997) {
            struct seq after = {version, ordinal};
            while (at < n && compare_entries(&list[at], &(struct entry){.seq = after}) <= 0)
                at++;
            expect_walk(f, s, &after, list, at, n, 3);
        }
    }
    expect_walk(f, s, &(struct seq){UINT64_MAX, UINT64_MAX}, list, n, n, 1);
    free(list);
    snapshot_release(s);
}

/* A load whose absent cells come from rows that another commit changes meanwhile: its file and the
 * tail then share a version. */
static void load_interleaved(struct fixture *f, struct collection *c)
{
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    struct commit_result r;
    for (int64_t key = 0; key < 40000; key++) {
        put_key(f, b, key);
        OK(batch_set(b, COUNT, &key, sizeof key, &f->ctx));
        if (batch_bytes(b) > (1 << 20) || key == 39999) {
            OK(load_add(l, b, &f->ctx));
            batch_reset(b);
        }
    }
    for (int64_t key = 50; key < 300; key += 10)
        load_range(f, c, LOAD_UPSERT, key, key + 3, 1);
    OK(load_commit(l, &r, &f->ctx));
    batch_free(b);
    load_free(l);
    unsigned views = 0;
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    for (uint32_t v = 0; v < s->nviews; v++) {
        uint64_t version, ordinal;
        segment_seq(s->views[v].segment, s->views[v].rows - 1, &version, &ordinal);
        views += version == r.version;
    }
    epoch_leave();
    assert_int_equal(views, 2);
}

static void delete_some(struct fixture *f, struct collection *c, int64_t from, int64_t to,
                        int64_t step)
{
    struct load_options o = {.expected_version = -1};
    struct commit_result r;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (int64_t key = from; key < to; key += step)
        put_key(f, b, key);
    OK(collection_delete_keys(c, b, &o, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

static void rows_come_in_order_once(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", key);
    expect_order(f, c); /* no rows, no views */
    load_range(f, c, LOAD_UPSERT, 0, 200, 0);
    load_range(f, c, LOAD_UPSERT, 100, 40100, 0);
    load_range(f, c, LOAD_UPSERT, 40050, 40150, 0);
    expect_order(f, c);
    load_interleaved(f, c);
    expect_order(f, c);
    OK(collection_seal(c, &f->ctx));
    delete_some(f, c, 0, 40000, 2);
    delete_some(f, c, 1000, 30000, 1); /* whole words of dead rows, and more */
    load_range(f, c, LOAD_UPSERT, 40140, 40160, 5);
    expect_order(f, c);
    delete_some(f, c, 0, 50000, 1);
    expect_order(f, c); /* views, but no rows */
    load_range(f, c, LOAD_UPSERT, 7, 8, 0);
    expect_order(f, c);
    fixture_reopen(f);
    expect_order(f, fixture_find(f, "c"));
    fixture_free(f);
}

static atomic_bool stop;

static void *commit_on(void *arg)
{
    struct fixture *f = ((void **)arg)[0];
    struct collection *c = ((void **)arg)[1];
    for (int64_t i = 0; !atomic_load(&stop); i++)
        load_range(f, c, LOAD_UPSERT, 1000 + i % 5000, 1002 + i % 5000, i);
    return NULL;
}

/* The tail's lists grow and are replaced under the walk. */
static void a_writer_does_not_disturb(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", key);
    load_range(f, c, LOAD_UPSERT, 0, 100, 0);
    pthread_t writer;
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&writer, NULL, commit_on, (void *[]){f, c}), 0);
    for (int i = 0; i < 300; i++) {
        epoch_enter();
        struct snapshot *s = snapshot_acquire(collection_snapshot(c));
        epoch_leave();
        struct seq_walk *w;
        struct row_ref row;
        assert_true(find_ref(s, 1000, &row) || s->version < 2);
        struct seq seq, last = {0, 0};
        uint64_t n = 0;
        struct err_ctx ctx;
        assert_int_equal(seq_walk_new(s, NULL, &w, &ctx), ERR_OK);
        for (; seq_walk_next(w, &row, &seq); n++, last = seq) {
            assert_true(seq.version > last.version ||
                        (seq.version == last.version && seq.ordinal > last.ordinal));
            assert_true(view_live(&s->views[row.view], row.row));
        }
        assert_int_equal(n, s->rows);
        seq_walk_free(w);
        snapshot_release(s);
    }
    atomic_store(&stop, true);
    pthread_join(writer, NULL);
    fixture_free(f);
}

int main(void)
{
    static enum key_type keys[] = {KEY_STRING, KEY_INT64};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(rows_come_in_order_once, &keys[0]),
        cmocka_unit_test_prestate(rows_come_in_order_once, &keys[1]),
        cmocka_unit_test_prestate(a_writer_does_not_disturb, &keys[0]),
        cmocka_unit_test_prestate(a_writer_does_not_disturb, &keys[1]),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
