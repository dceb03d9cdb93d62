/* Vacuum: what retention keeps reads as before, what it does not is 410, and files that nobody
 * needs are gone from the disk, not earlier and not later. */
#include "store_fixture.h"

#include "base/clock.h"
#include "store/collection_internal.h"
#include "store/upkeep_internal.h"
#include "sweep.h"
#include "versions.h"

static void load_and_seal(struct fixture *f, struct collection *c, int64_t from, int64_t to,
                          int64_t shift)
{
    load_range(f, c, LOAD_UPSERT, from, to, shift);
    OK(collection_seal(c, &f->ctx));
}

static unsigned files(const struct fixture *f)
{
    char command[400];
    unsigned n = 0;
    snprintf(command, sizeof command, "ls %s/c/segments | wc -l", f->dir);
    FILE *p = popen(command, "r");
    assert_int_equal(fscanf(p, "%u", &n), 1);
    pclose(p);
    return n;
}

static struct vacuum_result vacuum(struct fixture *f, struct collection *c, uint64_t versions,
                                   bool dry_run)
{
    struct vacuum_options o = {.versions = versions, .dry_run = dry_run};
    struct vacuum_result r;
    OK(collection_vacuum(c, &o, &r, &f->ctx));
    return r;
}

static enum err try_open(struct fixture *f, struct collection *c, uint64_t version)
{
    struct snapshot *s;
    err_clear(&f->ctx);
    enum err e = collection_open_version(c, version, true, &s, &f->ctx);
    if (e == ERR_OK)
        snapshot_release(s);
    return e;
}

/* 12 versions, each replacing all rows of the third before it, compacted at the end. */
static void fill(struct fixture *f, struct collection *c)
{
    struct compact_result r;
    for (int64_t v = 0; v < 12; v++)
        load_and_seal(f, c, v % 3 * 50, v % 3 * 50 + 100, v);
    OK(collection_compact(c, &r, &f->ctx));
    assert_int_equal(r.segments_after, 1);
}

static void what_is_kept_does_not_change(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    struct prints before;
    bool created;
    fixture_new(f, key == KEY_INT64 ? IO_POSIX : IO_AUTO);
    struct collection *c = fixture_create(f, "c", key);
    fill(f, c);
    take_prints(f, c, &before);
    assert_int_equal(files(f), 13);
    OK(collection_tag_set(c, "keep", 3, &created, &f->ctx));
    struct vacuum_result would = vacuum(f, c, 4, true);
    assert_int_equal(files(f), 13);
    struct vacuum_result did = vacuum(f, c, 4, false);
    assert_memory_equal(&would, &did, sizeof did);
    assert_int_equal(did.horizon, 9);
    assert_int_equal(did.versions, 7); /* 1, 2, 4 .. 8 */
    assert_true(did.segments > 0 && did.bytes > 0);
    assert_int_equal(files(f), 13 - did.segments);
    for (int round = 0; round < 2; round++) {
        for (uint64_t v = 1; v < 9; v++)
            assert_int_equal(try_open(f, c, v), v == 3 ? ERR_OK : ERR_GONE);
        struct hash128 tagged = version_print(f, c, 3);
        assert_memory_equal(&tagged, &before.of[3], sizeof tagged);
        expect_prints(f, c, &before, 9);
        fixture_reopen(f);
        c = fixture_find(f, "c");
    }
    did = vacuum(f, c, 4, false); /* nothing is left to do */
    assert_int_equal(did.versions + did.segments, 0);
    OK(collection_tag_delete(c, "keep", &f->ctx));
    did = vacuum(f, c, 1, false);
    assert_int_equal(did.versions, 4); /* 3, 9, 10, 11 */
    assert_int_equal(files(f), 1);
    expect_prints(f, c, &before, 12);
    fixture_reopen(f);
    expect_prints(f, fixture_find(f, "c"), &before, 12);
    assert_int_equal(files(f), 1);
    fixture_free(f);
}

static unsigned calls_of_a_pass(struct fixture *f, struct collection *c)
{
    atomic_store(&sweep.calls, 0);
    vacuum(f, c, 0, false);
    return atomic_load(&sweep.calls);
}

static void a_pass_over_what_was_seen_reads_nothing(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    bool created;
    fixture_new(f, IO_POSIX);
    catalog_close(f->cat);
    f->io = sweep_new(f->io);
    fixture_open(f);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    fill(f, c);
    OK(collection_checkpoint(c, &f->ctx));
    assert_true(calls_of_a_pass(f, c) > 0);
    assert_int_equal(calls_of_a_pass(f, c), 0);
    load_and_seal(f, c, 0, 10, 77);
    assert_true(calls_of_a_pass(f, c) > 0);
    assert_int_equal(calls_of_a_pass(f, c), 0);
    OK(collection_tag_set(c, "t", 2, &created, &f->ctx));
    OK(collection_checkpoint(c, &f->ctx));
    assert_int_equal(vacuum(f, c, 1, false).versions, 11); /* another horizon */
    fixture_free(f);
}

static void a_pinned_version_stays_while_it_is_read(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct prints before;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_STRING);
    fill(f, c);
    take_prints(f, c, &before);
    OK(collection_pin(c, 5, &f->ctx));
    vacuum(f, c, 1, false);
    struct hash128 now = version_print(f, c, 5);
    assert_memory_equal(&now, &before.of[5], sizeof now);
    assert_int_equal(try_open(f, c, 6), ERR_GONE);
    collection_unpin(c, 5);
    assert_int_equal(vacuum(f, c, 1, false).versions, 1);
    assert_int_equal(try_open(f, c, 5), ERR_GONE);
    fixture_free(f);
}

/* Either limit keeps: by default 100 versions and 168 hours. */
static void hours_keep_what_versions_do_not(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct vacuum_result r;
    struct vacuum_options both = {.versions = 2, .hours = 1}, neither = {0};
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    fill(f, c);
    OK(collection_vacuum(c, &both, &r, &f->ctx));
    assert_int_equal(r.versions + r.horizon, 0);
    OK(collection_vacuum(c, &neither, &r, &f->ctx));
    assert_int_equal(r.versions, 0);
    assert_int_equal(try_open(f, c, 1), ERR_OK);
    fixture_free(f);
}

static void readers_keep_what_they_opened(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct snapshot *s;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    fill(f, c);
    OK(collection_open_version(c, 2, true, &s, &f->ctx));
    struct hash128 before = snapshot_print(f, s);
    vacuum(f, c, 1, false);
    assert_int_equal(files(f), 1);
    struct hash128 after = snapshot_print(f, s);
    assert_memory_equal(&before, &after, sizeof after);
    snapshot_release(s);
    fixture_free(f);
}

/* The thread does it: a collection that keeps two versions, and nothing by time. */
static void retention_runs_by_itself(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct upkeep_options on = {.compaction = true};
    struct schema *next;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    epoch_enter();
    enum err e = schema_copy(collection_snapshot(c)->schema, &next, &f->ctx);
    epoch_leave();
    OK(e);
    next->retention = (struct retention){.versions = 2};
    OK(schema_seal(next, &f->ctx));
    OK(collection_alter(c, next, &f->ctx));
    schema_release(next);
    for (int64_t v = 0; v < 12; v++)
        load_and_seal(f, c, v % 3 * 50, v % 3 * 50 + 100, v);
    OK(catalog_start_upkeep(f->cat, &on, &f->ctx));
    for (int tries = 0; files(f) > 6 && tries < 200; tries++)
        usleep(50000);
    assert_true(files(f) <= 6);
    assert_int_equal(try_open(f, c, 10), ERR_GONE);
    assert_int_equal(try_open(f, c, 11), ERR_OK);
    fixture_free(f);
}

static uint64_t rows_of(struct collection *c)
{
    struct snapshot *s = collection_newest(c);
    uint64_t rows = s->rows;
    snapshot_release(s);
    return rows;
}

/* Opened after an alteration, so that it stays at hand; then its segments are merged and go. */
static void a_version_at_hand_is_restored_behind_a_compaction(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct snapshot *s;
    struct compact_result compacted;
    struct vacuum_result vacuumed;
    struct commit_result r;
    struct load_options o = {.mode = LOAD_RESTORE, .expected_version = -1};
    struct vacuum_options one = {.versions = 1};
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    for (int i = 0; i < 6; i++) {
        load_range(f, c, LOAD_UPSERT, i * 100, i * 100 + 100, 0);
        OK(collection_seal(c, &f->ctx));
    }
    OK(try_alter(c, "late", FEATURE_INT64, &f->ctx));
    OK(collection_open_version(c, 6, true, &s, &f->ctx));
    snapshot_release(s);
    OK(collection_compact(c, &compacted, &f->ctx));
    OK(collection_vacuum(c, &one, &vacuumed, &f->ctx));
    assert_true(vacuumed.segments > 0);
    load_range(f, c, LOAD_UPSERT, 5000, 5001, 0);
    OK(collection_restore(c, 6, &o, &r, &f->ctx));
    assert_int_equal(rows_of(c), 600);
    fixture_reopen(f);
    assert_int_equal(rows_of(fixture_find(f, "c")), 600);
    fixture_free(f);
}

int main(void)
{
    static enum key_type keys[] = {KEY_STRING, KEY_INT64};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(what_is_kept_does_not_change, &keys[0]),
        cmocka_unit_test_prestate(what_is_kept_does_not_change, &keys[1]),
        cmocka_unit_test(a_pass_over_what_was_seen_reads_nothing),
        cmocka_unit_test(a_pinned_version_stays_while_it_is_read),
        cmocka_unit_test(hours_keep_what_versions_do_not),
        cmocka_unit_test(readers_keep_what_they_opened),
        cmocka_unit_test(retention_runs_by_itself),
        cmocka_unit_test(a_version_at_hand_is_restored_behind_a_compaction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
