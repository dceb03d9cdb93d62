/* Adding features and changing settings: what was there before reads as null in what came later,
 * in tail and file, loads that are open go on, and restarts bring back the last schema. */
#include "store_fixture.h"

#include <pthread.h>

struct param {
    enum io_backend backend;
    enum key_type key;
};

static struct param params[] = {
    {IO_POSIX, KEY_STRING}, {IO_POSIX, KEY_INT64}, {IO_AUTO, KEY_STRING}, {IO_AUTO, KEY_INT64}};

enum { RANK = TAGS + 1, NOTE = TAGS + 2 };

static void grow(struct fixture *f, struct collection *c)
{
    OK(try_alter(c, "rank", FEATURE_INT64, &f->ctx));
}

static struct schema *copy_schema(struct fixture *f, struct collection *c)
{
    struct schema *next;
    epoch_enter();
    OK(schema_copy(collection_snapshot(c)->schema, &next, &f->ctx));
    epoch_leave();
    return next;
}

static struct snapshot *hold(struct collection *c)
{
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    return s;
}

/* The rank of a row, or -1 when it is null. */
static int64_t rank_of(struct collection *c, int64_t key)
{
    struct row_ref ref;
    size_t len;
    int64_t rank = -1;
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    assert_true(s->schema->nfeatures > RANK);
    assert_true(find_ref(s, key, &ref));
    const void *cell = segment_cell(s->views[ref.view].segment, ref.row, RANK, &len);
    if (cell)
        memcpy(&rank, cell, sizeof rank);
    epoch_leave();
    return rank;
}

/* Upserts nothing but ranks. */
static void put_ranks(struct fixture *f, struct collection *c, int64_t from, int64_t to,
                      int64_t rank)
{
    struct commit_result r;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (int64_t key = from; key < to; key++) {
        put_key(f, b, key);
        OK(batch_set(b, RANK, &rank, sizeof rank, &f->ctx));
    }
    OK(load_add(l, b, &f->ctx));
    OK(load_commit(l, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

static void older_rows_read_as_null(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 20000, 0); /* a file */
    load_range(f, c, LOAD_UPSERT, 20000, 20100, 0);
    struct snapshot *before = hold(c);
    grow(f, c);
    struct snapshot *after = hold(c);
    assert_int_equal(before->schema->nfeatures, 4);
    assert_int_equal(after->schema->nfeatures, 5);
    assert_int_equal(after->version, before->version);
    assert_int_equal(after->serial, before->serial + 1);
    assert_memory_equal(&after->digest, &before->digest, sizeof before->digest);
    put_ranks(f, c, 10, 20, 3);
    put_ranks(f, c, 20010, 20020, 4);
    for (int round = 0; round < 4; round++) {
        for (int64_t key = 0; key < 20100; key += 5) {
            int64_t rank = key >= 20010 && key < 20020 ? 4 : key >= 10 && key < 20 ? 3 : -1;
            expect_row(c, key, key);
            assert_int_equal(rank_of(c, key), rank);
        }
        if (round == 1)
            OK(collection_seal(c, &f->ctx));
        fixture_reopen(f);
        c = fixture_find(f, "c");
    }
    snapshot_release(before);
    snapshot_release(after);
    fixture_free(f);
}

static void settings_change_without_a_new_tail(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 10, 0);
    struct schema *next = copy_schema(f, c);
    next->index.m = 48;
    next->retention.hours = 5;
    OK(schema_seal(next, &f->ctx));
    OK(collection_alter(c, next, &f->ctx));
    schema_release(next);
    load_range(f, c, LOAD_UPSERT, 10, 20, 0);
    for (int round = 0; round < 3; round++) {
        struct snapshot *s = hold(c);
        assert_int_equal(s->schema->index.m, 48);
        assert_int_equal(s->schema->retention.hours, 5);
        assert_int_equal(s->nviews, 1);
        assert_int_equal(s->rows, 20);
        snapshot_release(s);
        if (round == 1)
            OK(collection_seal(c, &f->ctx));
        fixture_reopen(f);
        c = fixture_find(f, "c");
    }
    fixture_free(f);
}

static void no_change_is_no_error_and_no_record(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    struct snapshot *before = hold(c);
    struct schema *next = copy_schema(f, c);
    OK(schema_seal(next, &f->ctx));
    OK(collection_alter(c, next, &f->ctx));
    struct snapshot *after = hold(c);
    assert_ptr_equal(before, after);
    snapshot_release(before);
    snapshot_release(after);
    schema_release(next);
    fixture_free(f);
}

static void the_second_of_two_changes_of_one_schema_conflicts(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    struct schema *first = copy_schema(f, c), *second = copy_schema(f, c);
    first->index.m = 8;
    second->retention.versions = 3;
    OK(schema_seal(first, &f->ctx));
    OK(schema_seal(second, &f->ctx));
    OK(collection_alter(c, first, &f->ctx));
    assert_int_equal(collection_alter(c, second, &f->ctx), ERR_CONFLICT);
    schema_release(second);
    second = copy_schema(f, c);
    second->retention.versions = 3;
    OK(schema_seal(second, &f->ctx));
    OK(collection_alter(c, second, &f->ctx));
    struct snapshot *s = hold(c);
    assert_int_equal(s->schema->index.m, 8);
    assert_int_equal(s->schema->retention.versions, 3);
    snapshot_release(s);
    schema_release(first);
    schema_release(second);
    fixture_free(f);
}

static void other_features_first_are_refused(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    struct schema *next;
    OK(schema_new(p->key, TEST_DIM, DIST_L2, &next, &f->ctx));
    OK(schema_add_feature(next, "count", FEATURE_INT64, &f->ctx));
    OK(schema_seal(next, &f->ctx));
    next->revision = 1;
    assert_int_equal(collection_alter(c, next, &f->ctx), ERR_CONFLICT);
    schema_release(next);
    fixture_free(f);
}

/* A load of rows [0, n) begun before the feature came; meanwhile keys 0 .. 9 got a rank. */
static void finish_load_after_growth(struct fixture *f, struct collection *c, int64_t n, bool whole)
{
    struct commit_result r;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (int64_t key = 0; key < n; key++) {
        int64_t x = key + 1;
        if (whole || key % 2) {
            put_row(f, b, key, x);
            if (whole)
                OK(batch_set_null(b, TAGS, &f->ctx));
        } else {
            put_key(f, b, key);
            OK(batch_set(b, COUNT, &x, sizeof x, &f->ctx));
        }
        if (key == n / 2) {
            OK(load_add(l, b, &f->ctx));
            batch_reset(b);
            grow(f, c);
            put_ranks(f, c, 0, 10, 7);
        }
    }
    OK(load_add(l, b, &f->ctx));
    OK(load_commit(l, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

static int64_t count_of(struct collection *c, int64_t key)
{
    struct row_ref ref;
    size_t len;
    int64_t count;
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    assert_true(find_ref(s, key, &ref));
    const struct segment *seg = s->views[ref.view].segment;
    memcpy(&count, segment_cell(seg, ref.row, COUNT, &len), sizeof count);
    assert_non_null(segment_vector(seg, ref.row));
    epoch_leave();
    return count;
}

static void an_open_load_goes_on(void **state)
{
    struct param *p = *state;
    static const int64_t sizes[] = {100, 40000}; /* in the record; in files */
    for (int i = 0; i < 4; i++) {
        struct fixture fx, *f = &fx;
        int64_t n = sizes[i / 2];
        bool whole = i % 2;
        fixture_new(f, p->backend);
        struct collection *c = fixture_create(f, "c", p->key);
        load_range(f, c, LOAD_UPSERT, 0, n, 0);
        finish_load_after_growth(f, c, n, whole);
        for (int round = 0; round < 2; round++) {
            for (int64_t key = 0; key < n; key += key < 20 ? 1 : 7) {
                assert_int_equal(rank_of(c, key), key < 10 ? 7 : -1);
                assert_int_equal(count_of(c, key), key + 1);
                if (whole || key % 2)
                    expect_row(c, key, key + 1);
            }
            fixture_reopen(f);
            c = fixture_find(f, "c");
        }
        fixture_free(f);
    }
}

static void the_digest_is_that_of_the_rows(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *a = fixture_create(f, "a", p->key), *b = fixture_create(f, "b", p->key);
    load_range(f, a, LOAD_UPSERT, 0, 40000, 0);
    finish_load_after_growth(f, a, 40000, true);
    grow(f, b);
    load_range(f, b, LOAD_UPSERT, 0, 40000, 1);
    put_ranks(f, b, 0, 10, 7);
    struct snapshot *x = hold(a), *y = hold(b);
    assert_memory_equal(&x->digest, &y->digest, sizeof x->digest);
    snapshot_release(x);
    snapshot_release(y);
    fixture_free(f);
}

/* Tails closed by alterations become files without anybody's asking. */
static void a_closed_tail_becomes_a_file(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 10, 0);
    grow(f, c);
    for (bool tail = true; tail;) {
        struct snapshot *s = hold(c);
        assert_int_equal(s->nviews, 1);
        tail = s->views[0].segment->tail != NULL;
        snapshot_release(s);
        usleep(1000);
    }
    expect_row(c, 9, 9);
    assert_int_equal(rank_of(c, 9), -1);
    fixture_free(f);
}

struct race {
    struct fixture *f;
    struct collection *c;
    int64_t first;
};

enum { RACE_ROWS = 40, RACE_LOADS = 30, RACE_FEATURES = 20 };

static void *load_many(void *arg)
{
    struct race *r = arg;
    for (int64_t i = 0; i < RACE_LOADS; i++) {
        int64_t from = r->first + i * RACE_ROWS;
        load_range(r->f, r->c, LOAD_UPSERT, from, from + RACE_ROWS, 0);
    }
    return NULL;
}

static void *grow_many(void *arg)
{
    struct race *r = arg;
    for (int64_t i = 0; i < RACE_FEATURES; i++) {
        char name[40];
        struct err_ctx ctx;
        enum err e;
        err_clear(&ctx);
        snprintf(name, sizeof name, "r%lld_%lld", (long long)r->first, (long long)i);
        collection_alter_begin(r->c);
        e = try_alter(r->c, name, (enum feature_type)(i % FEATURE_TYPE_COUNT), &ctx);
        collection_alter_end(r->c);
        assert_int_equal(e, ERR_OK);
    }
    return NULL;
}

static void loads_and_changes_at_once_lose_nothing(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    pthread_t threads[4];
    struct race races[4];
    for (int i = 0; i < 4; i++) {
        races[i] = (struct race){f, c, i * 1000000};
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < 2 ? load_many : grow_many, &races[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    struct snapshot *before = hold(c);
    for (int round = 0; round < 2; round++) {
        struct snapshot *s = hold(c);
        assert_int_equal(s->schema->nfeatures, 4 + 2 * RACE_FEATURES);
        assert_int_equal(s->rows, 2 * RACE_LOADS * RACE_ROWS);
        assert_memory_equal(&s->digest, &before->digest, sizeof s->digest);
        snapshot_release(s);
        for (int64_t key = 0; key < RACE_LOADS * RACE_ROWS; key++) {
            expect_row(c, key, key);
            expect_row(c, 1000000 + key, 1000000 + key);
        }
        fixture_reopen(f);
        c = fixture_find(f, "c");
    }
    snapshot_release(before);
    fixture_free(f);
}

int main(void)
{
    static void (*const tests[])(void **) = {
        older_rows_read_as_null,
        settings_change_without_a_new_tail,
        no_change_is_no_error_and_no_record,
        the_second_of_two_changes_of_one_schema_conflicts,
        other_features_first_are_refused,
        an_open_load_goes_on,
        the_digest_is_that_of_the_rows,
        a_closed_tail_becomes_a_file,
        loads_and_changes_at_once_lose_nothing,
    };
    static const char *const names[] = {
        "older_rows_read_as_null",
        "settings_change_without_a_new_tail",
        "no_change_is_no_error_and_no_record",
        "the_second_of_two_changes_of_one_schema_conflicts",
        "other_features_first_are_refused",
        "an_open_load_goes_on",
        "the_digest_is_that_of_the_rows",
        "a_closed_tail_becomes_a_file",
        "loads_and_changes_at_once_lose_nothing",
    };
    enum { N = sizeof tests / sizeof *tests, P = sizeof params / sizeof *params };
    struct CMUnitTest all[N * P];
    for (size_t i = 0; i < N * P; i++)
        all[i] = (struct CMUnitTest){
            .name = names[i / P], .test_func = tests[i / P], .initial_state = &params[i % P]};
    return cmocka_run_group_tests(all, NULL, NULL);
}
