/* Every mode, at random, against a model: rows, history, order, counts, sums and errors, for small
 * loads and for parts of a session, with another commit or a compaction in the middle of a load's
 * own commit, over restarts, and read again as old versions. */
#include "modes_world.h"

enum { STEPS = 120 };

static void check_old(struct world *w)
{
    struct fixture *f = &w->fixture;
    struct snapshot *s;
    if (!w->old->version)
        return;
    OK(collection_open_version(w->c, w->old->version, true, &s, &f->ctx));
    epoch_enter();
    compare(s, w->old);
    epoch_leave();
    snapshot_release(s);
}

static void restore_old(struct world *w)
{
    struct fixture *f = &w->fixture;
    struct load_options o = {.mode = LOAD_RESTORE, .expected_version = -1};
    struct commit_result r;
    uint64_t updated = 0, rows = 0, before = 0;
    if (!w->old->version)
        return;
    for (size_t i = 0; i < w->model->n; i++)
        before += w->model->row[i].current;
    for (size_t i = 0; i < w->old->n; i++) {
        rows += w->old->row[i].current;
        updated += w->old->row[i].current && model_current(w->model, w->old->row[i].key);
    }
    OK(collection_restore(w->c, w->old->version, &o, &r, &f->ctx));
    uint64_t version = w->model->version + 1;
    memcpy(w->model, w->old, sizeof *w->model);
    w->model->version = version;
    expect_counts(&r, &(struct commit_result){.version = version,
                                              .rows = rows,
                                              .inserted = rows - updated,
                                              .updated = updated,
                                              .deleted = before - updated});
}

static void now_and_then(struct world *w)
{
    struct fixture *f = &w->fixture;
    struct compact_result compacted;
    switch (random_below(12)) {
    case 0:
        OK(collection_seal(w->c, &f->ctx));
        break;
    case 1:
        OK(collection_compact(w->c, &compacted, &f->ctx));
        break;
    case 2:
        catalog_close(f->cat);
        open_world(w);
        w->c = fixture_find(f, "c");
        break;
    case 3:
        memcpy(w->old, w->model, sizeof *w->old);
        break;
    case 4:
        restore_old(w);
        break;
    default:
        break;
    }
}

static void random_steps(enum key_type key, bool events, uint64_t seed)
{
    static struct world w;
    static struct model_load l;
    const char *other = getenv("TEST_SEED");
    if (other)
        seed = strtoull(other, NULL, 10) + seed;
    print_message("seed %llu\n", (unsigned long long)seed);
    setup(&w, key, events, seed);
    for (int step = 0; step < STEPS; step++) {
        random_load(&l, events, 30);
        run(&w, &l, random_below(2));
        compare_newest(&w);
        now_and_then(&w);
        compare_newest(&w);
        check_old(&w);
    }
    teardown(&w);
}

static void modes_do_what_the_model_does(void **state)
{
    (void)state;
    random_steps(KEY_STRING, false, 11);
    random_steps(KEY_INT64, false, 12);
}

static void events_do_what_the_model_does(void **state)
{
    (void)state;
    random_steps(KEY_STRING, true, 21);
    random_steps(KEY_INT64, true, 22);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modes_do_what_the_model_does),
        cmocka_unit_test(events_do_what_the_model_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
