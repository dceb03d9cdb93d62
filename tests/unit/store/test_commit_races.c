/* Commits that meet others: rows outdated between staging and commit, refusals and second tries,
 * and many threads at the same keys. */
#include "modes_world.h"

/* Thousands of rows leave cells absent that another commit changes: after they were staged, or in
 * the middle of their own commit. */
static void outdate_many(bool in_the_middle)
{
    static struct world w;
    static struct model_load l, other;
    for (int events = 0; events < 2; events++) {
        struct fixture *f = &w.fixture;
        struct commit_result is, want;
        setup(&w, KEY_INT64, events, 31);
        memset(&other, 0, offsetof(struct model_load, row));
        other.n = 6000;
        for (size_t i = 0; i < other.n; i++) {
            other.row[i] = random_row(events, KEYS);
            other.row[i].key = (int64_t)i;
        }
        l = other;
        run(&w, &other, false);
        for (size_t i = 0; i < l.n; i++) {
            l.row[i].cell[M_PRICE] = l.row[i].cell[M_VECTOR] = (struct model_cell){CELL_ABSENT, 0};
            l.row[i].cell[M_TS].value += (int64_t)random_below(3) - 1;
        }
        struct schema *s = newest_schema(w.c);
        struct load_part part = {.name = "p"};
        struct load_options o = {.expected_version = -1, .wait = LOAD_WAIT_INDEXED};
        OK(stage_part(&w, s, &l, 0, l.n, &part));
        for (size_t i = 0; i < other.n; i++)
            other.row[i].cell[M_PRICE] = (struct model_cell){CELL_VALUE, (int64_t)i};
        if (in_the_middle)
            w.middle = &other;
        else
            run(&w, &other, false);
        w.in_the_middle = in_the_middle;
        OK(load_commit_parts(w.c, &o, &part, 1, &is, &f->ctx));
        assert_false(w.in_the_middle);
        staged_list_free(w.c, part.staged, part.nstaged, true);
        schema_release(s);
        assert_int_equal(model_apply(w.model, &l, &want), ERR_OK);
        expect_counts(&is, &want);
        compare_newest(&w);
        teardown(&w);
    }
}

static void many_outdated_rows_are_completed_not_refused(void **state)
{
    (void)state;
    outdate_many(false);
}

static void a_large_commit_in_the_middle_is_followed(void **state)
{
    (void)state;
    outdate_many(true);
}

/* A load that is refused at its commit can be committed again, from where its files stood. */
static void refused_parts_can_be_committed_again(void **state)
{
    static struct world w;
    static struct model_load l;
    struct fixture *f = &w.fixture;
    struct commit_result r;
    struct load_part part = {.name = "p"};
    (void)state;
    setup(&w, KEY_INT64, false, 41);
    for (size_t i = 0; i < 100; i++) {
        l.row[i] = random_row(false, KEYS);
        l.row[i].key = (int64_t)i;
    }
    l.n = 100;
    struct schema *s = newest_schema(w.c);
    OK(stage_part(&w, s, &l, 0, l.n, &part));
    char *path = strdup(part.staged[0].path);
    struct load_options o = {.expected_version = 7};
    assert_int_equal(load_commit_parts(w.c, &o, &part, 1, &r, &f->ctx), ERR_PRECONDITION);
    assert_int_equal(access(path, F_OK), 0);
    o.expected_version = 0;
    OK(load_commit_parts(w.c, &o, &part, 1, &r, &f->ctx));
    assert_int_equal(r.inserted, 100);
    assert_true(part.staged[0].taken);
    assert_int_not_equal(access(path, F_OK), 0);
    staged_list_free(w.c, part.staged, part.nstaged, true);
    OK(stage_part(&w, s, &l, 0, l.n, &part));
    o = (struct load_options){.mode = LOAD_APPEND, .expected_version = -1};
    assert_int_equal(load_commit_parts(w.c, &o, &part, 1, &r, &f->ctx), ERR_UNPROCESSABLE);
    assert_non_null(strstr(f->ctx.detail, "exists already"));
    assert_int_equal(access(part.staged[0].path, F_OK), 0);
    staged_list_free(w.c, part.staged, part.nstaged, true);
    schema_release(s);
    free(path);
    teardown(&w);
}

/* ---- many at once ---- */

enum { SHARED_KEYS = 3000, WRITERS = 3, ROUNDS = 12 };

struct writer {
    pthread_t thread;
    struct world *w;
    int number;
    atomic_bool *stop;
    int64_t count[SHARED_KEYS]; /* as last written, by its own keys */
};

/* Gives the column `at` of `n` keys, and nothing else. */
static enum err give_cells(struct world *w, struct schema *s, int at, const int64_t *keys, size_t n,
                           int64_t value, bool parts, struct err_ctx *ctx)
{
    struct batch *b;
    struct commit_result r;
    struct load_part part = {.name = "p", .rows = n};
    struct load_options o = {.expected_version = -1};
    struct stage *stage = NULL;
    struct load *load = NULL;
    float price = (float)value / 2;
    enum err e = batch_new(s, &b, ctx);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        e = batch_row_int(b, keys[i], ctx);
        if (e == ERR_OK)
            e = at == M_PRICE ? batch_set(b, M_PRICE, &price, sizeof price, ctx)
                              : batch_set(b, M_COUNT, &value, sizeof value, ctx);
    }
    if (e == ERR_OK && !parts) {
        e = load_new(w->c, &o, &load, ctx);
        if (e == ERR_OK)
            e = load_add(load, b, ctx);
        if (e == ERR_OK)
            e = load_commit(load, &r, ctx);
        load_free(load);
    } else if (e == ERR_OK) {
        e = stage_new(w->c, s, &(struct stage_options){0}, &stage, ctx);
        if (e == ERR_OK)
            e = stage_add(stage, b, ctx);
        if (e == ERR_OK)
            e = stage_finish(stage, &part.staged, &part.nstaged, ctx);
        stage_free(stage);
        if (e == ERR_OK)
            e = load_commit_parts(w->c, &o, &part, 1, &r, ctx);
        staged_list_free(w->c, part.staged, part.nstaged, true);
    }
    batch_free(b);
    return e;
}

static void *write_counts(void *arg)
{
    struct writer *me = arg;
    struct err_ctx ctx;
    struct schema *s = newest_schema(me->w->c);
    err_clear(&ctx);
    for (int64_t value = 1; !atomic_load(me->stop); value++) {
        int64_t keys[20];
        for (int i = 0; i < 20; i++)
            keys[i] = (value * 37 + i * 11) % (SHARED_KEYS / WRITERS) * WRITERS + me->number;
        enum err e = give_cells(me->w, s, M_COUNT, keys, 20, value, false, &ctx);
        if (e != ERR_OK)
            print_error("%s\n", ctx.detail);
        ASSERT(e == ERR_OK);
        for (int i = 0; i < 20; i++)
            me->count[keys[i]] = value;
    }
    schema_release(s);
    return NULL;
}

static void check_shared(struct world *w, const struct writer *writers)
{
    for (int64_t key = 0; key < SHARED_KEYS; key++) {
        struct row_ref ref;
        epoch_enter();
        const struct snapshot *s = collection_snapshot(w->c);
        assert_true(snapshot_find_int(s, key, &ref));
        struct model_cell price = read_cell(s->views[ref.view].segment, ref.row, M_PRICE);
        struct model_cell count = read_cell(s->views[ref.view].segment, ref.row, M_COUNT);
        epoch_leave();
        assert_int_equal(price.value, ROUNDS);
        assert_int_equal(count.state == CELL_VALUE ? count.value : 0,
                         writers[key % WRITERS].count[key]);
    }
}

/* Large loads of one column beside small commits of another, same keys: none undoes another's. */
static void concurrent_loads_of_different_cells_lose_nothing(void **state)
{
    static struct world w;
    static struct writer writers[WRITERS];
    static int64_t keys[SHARED_KEYS];
    struct fixture *f = &w.fixture;
    struct digest digest;
    atomic_bool stop = false;
    (void)state;
    setup(&w, KEY_INT64, false, 51);
    for (int64_t i = 0; i < SHARED_KEYS; i++)
        keys[i] = i * 7 % SHARED_KEYS;
    struct schema *s = newest_schema(w.c);
    OK(give_cells(&w, s, M_PRICE, keys, SHARED_KEYS, 0, false, &f->ctx));
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.w = &w, .number = i, .stop = &stop};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_counts, &writers[i]), 0);
    }
    for (int64_t round = 1; round <= ROUNDS; round++) {
        struct compact_result r;
        OK(give_cells(&w, s, M_PRICE, keys, SHARED_KEYS, round, true, &f->ctx));
        if (round % 4 == 0) {
            OK(collection_seal(w.c, &f->ctx));
            OK(collection_compact(w.c, &r, &f->ctx));
        }
    }
    atomic_store(&stop, true);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    check_shared(&w, writers);
    epoch_enter();
    const struct snapshot *newest = collection_snapshot(w.c);
    static struct model_row rows[MODEL_ROWS];
    assert_int_equal(read_rows(newest, false, rows, &digest), SHARED_KEYS);
    assert_int_equal(digest.lo, newest->digest.lo);
    assert_int_equal(digest.hi, newest->digest.hi);
    epoch_leave();
    schema_release(s);
    teardown(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_outdated_rows_are_completed_not_refused),
        cmocka_unit_test(a_large_commit_in_the_middle_is_followed),
        cmocka_unit_test(refused_parts_can_be_committed_again),
        cmocka_unit_test(concurrent_loads_of_different_cells_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
