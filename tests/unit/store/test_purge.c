/* Purge: no version and no file has a row of the keys, and everything else is equal to the bit, the
 * digest of each version being that of what is left; again after a restart, and after a purge that
 * broke off anywhere. */
#include "store_fixture.h"

#include <pthread.h>
#include <unistd.h>

#include "store/collection_internal.h"
#include "store/upkeep_internal.h"
#include "sweep.h"
#include "versions.h"

enum { MARK = 880000000 }; /* x of marked rows: "n880000777" is in no other row */

static int64_t key_number(const struct row *row)
{
    char text[32] = {0};
    if (row->schema->key == KEY_INT64)
        return row->int_key;
    memcpy(text, row->key, row->key_len < 31 ? row->key_len : 31);
    return strtoll(text + 1, NULL, 10);
}

/* The keys that the tests purge: 7, 77, 777, 7777 and a few that lie apart. */
static const int64_t purged[] = {7, 77, 777, 7777, 12000, 12001, 12002, 50000};
enum { NPURGED = sizeof purged / sizeof *purged };

static bool is_purged(const struct row *row)
{
    for (size_t i = 0; i < NPURGED; i++) {
        if (purged[i] == key_number(row))
            return true;
    }
    return false;
}

static bool is_event_purged(const struct row *row)
{
    int64_t k = key_number(row);
    return k == 7 || k == 12 || k == 21 || k == 41 || k == 55 || k == 95 || k == 105;
}

static struct batch *keys_of(struct fixture *f, struct collection *c, const int64_t *keys, size_t n)
{
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (size_t i = 0; i < n; i++)
        put_key(f, b, keys[i]);
    load_free(l);
    return b;
}

/* Of the first n keys. */
static enum err try_purge_some(struct fixture *f, struct collection *c, size_t n,
                               struct purge_result *r)
{
    struct batch *b = keys_of(f, c, purged, n);
    err_clear(&f->ctx);
    enum err e = collection_purge(c, b, r, &f->ctx);
    batch_free(b);
    return e;
}

static enum err try_purge(struct fixture *f, struct collection *c, struct purge_result *r)
{
    return try_purge_some(f, c, NPURGED, r);
}

/* Versions in which the keys come, change, go, and come again; sealed, in the tail, compacted. */
static void fill(struct fixture *f, struct collection *c, int64_t rows)
{
    struct load_options o = {.mode = LOAD_DELETE, .expected_version = -1};
    struct compact_result cr;
    struct commit_result r;
    bool created;
    load_range(f, c, LOAD_UPSERT, 0, 100, 0);
    load_range(f, c, LOAD_UPSERT, 7, 8, MARK);
    load_range(f, c, LOAD_UPSERT, 77, 78, MARK);
    OK(collection_seal(c, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 0, rows, 3);
    OK(collection_tag_set(c, "old", 4, &created, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 777, 778, MARK);
    struct batch *b = keys_of(f, c, (int64_t[]){7, 9, 12000}, 3);
    OK(collection_delete_keys(c, b, &o, &r, &f->ctx));
    batch_free(b);
    load_range(f, c, LOAD_UPSERT, 50000, 50001, MARK); /* alone in its tail */
    OK(collection_seal(c, &f->ctx));
    OK(try_alter(c, "late", FEATURE_INT64, &f->ctx));
    OK(collection_compact(c, &cr, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 7770, 7780, MARK);
    load_range(f, c, LOAD_UPSERT, 70, 80, 5);
    OK(collection_seal(c, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 7, 10, MARK + 1);
}

/* Commits without rows, whose long messages fill a history file; a checkpoint writes it. */
static void fill_history_file(struct fixture *f, struct collection *c)
{
    enum { LONG = 400 << 10 };
    char *text = malloc(LONG);
    memset(text, 'm', LONG);
    text[LONG - 1] = 0;
    for (int i = 0; i < 3; i++) {
        struct load_options o = {.mode = LOAD_UPSERT, .expected_version = -1, .message = text};
        struct commit_result r;
        struct load *l;
        OK(load_new(c, &o, &l, &f->ctx));
        OK(load_commit(l, &r, &f->ctx));
        load_free(l);
    }
    free(text);
    OK(collection_checkpoint(c, &f->ctx));
}

/* The same rows over several history files: segments with the keys that outlive a file, and
 * compactions, alterations and deletions that are the first to happen in the next one. */
static void fill_files(struct fixture *f, struct collection *c)
{
    struct load_options o = {.mode = LOAD_DELETE, .expected_version = -1};
    struct compact_result cr;
    struct commit_result r;
    load_range(f, c, LOAD_UPSERT, 0, 60, 0);
    OK(collection_seal(c, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 7, 8, MARK);
    load_range(f, c, LOAD_UPSERT, 60, 100, 2);
    fill_history_file(f, c);
    OK(collection_compact(c, &cr, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 770, 790, MARK);
    fill_history_file(f, c);
    OK(try_alter(c, "late", FEATURE_INT64, &f->ctx));
    OK(collection_compact(c, &cr, &f->ctx));
    fill_history_file(f, c);
    struct batch *b = keys_of(f, c, (int64_t[]){7, 9, 12000}, 3);
    OK(collection_delete_keys(c, b, &o, &r, &f->ctx));
    batch_free(b);
    load_range(f, c, LOAD_UPSERT, 7770, 7780, MARK);
    load_range(f, c, LOAD_UPSERT, 7, 8, MARK + 1);
    fill_history_file(f, c);
    load_range(f, c, LOAD_UPSERT, 70, 80, 5);
}

/* Bytes of the marked row of a key in any file of the collection. */
static bool on_disk(const struct fixture *f, int64_t x)
{
    char command[1100];
    snprintf(command, sizeof command, "grep -rqaF n%lld %s/c/log %s/c/segments %s/c/staging",
             (long long)x, f->dir, f->dir, f->dir);
    int status = system(command);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
    return WEXITSTATUS(status) == 0;
}

static void expect_purged(struct fixture *f, struct collection *c, const struct prints *before)
{
    expect_prints(f, c, before, 1);
    for (size_t i = 0; i < NPURGED; i++) {
        assert_false(has_key(c, purged[i]));
        if (on_disk(f, MARK + purged[i]))
            fail_msg("key %lld is still on disk", (long long)purged[i]);
    }
    assert_false(on_disk(f, MARK + 8)); /* 7 with x = MARK + 1 + 7 */
    assert_true(on_disk(f, MARK + 7771));
}

static void no_version_and_no_file_has_them(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    struct prints before;
    struct purge_result r;
    fixture_new(f, key == KEY_INT64 ? IO_POSIX : IO_AUTO);
    struct collection *c = fixture_create(f, "c", key);
    fill(f, c, 20000);
    take_prints_but(f, c, &before, is_purged);
    assert_true(on_disk(f, MARK + 777));
    if (try_purge(f, c, &r) != ERR_OK)
        fail_msg("%s", f->ctx.detail);
    assert_int_equal(r.purged, NPURGED);
    assert_int_equal(r.version, before.newest + 1);
    expect_purged(f, c, &before);
    fixture_reopen(f);
    c = fixture_find(f, "c");
    expect_purged(f, c, &before);
    if (try_purge(f, c, &r) != ERR_OK) /* once more finds nothing */
        fail_msg("%s", f->ctx.detail);
    assert_int_equal(r.purged, 0);
    assert_int_equal(r.version, before.newest + 2);
    load_range(f, c, LOAD_UPSERT, 777, 778, 1); /* the key may come again */
    expect_row(c, 777, 778);
    OK(collection_seal(c, &f->ctx));
    expect_prints(f, c, &before, 1);
    fixture_free(f);
}

/* Current and historical rows alike. */
static void history_goes_too(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    struct prints before;
    struct purge_result r;
    static const int64_t gone[] = {7, 12, 21, 41, 55, 95, 105};
    fixture_new(f, IO_AUTO);
    struct collection *c = create_events(f, key);
    fill_events(f, c);
    take_prints_but(f, c, &before, is_event_purged);
    struct batch *b = keys_of(f, c, gone, sizeof gone / sizeof *gone);
    OK(collection_purge(c, b, &r, &f->ctx));
    batch_free(b);
    assert_int_equal(r.purged, sizeof gone / sizeof *gone);
    expect_prints(f, c, &before, 1);
    fixture_reopen(f);
    expect_prints(f, fixture_find(f, "c"), &before, 1);
    fixture_free(f);
}

static void versions_list_what_is_left(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct purge_result r;
    struct buf hold = {0};
    struct version_info info;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_STRING);
    fill(f, c, 20000);
    assert_int_equal(try_purge(f, c, &r), ERR_OK);
    for (uint64_t v = 1; v <= r.version; v++) {
        struct snapshot *s;
        OK(collection_version_info(c, v, &hold, &info, &f->ctx));
        OK(collection_open_version(c, v, true, &s, &f->ctx));
        assert_int_equal(info.live_rows, s->rows);
        assert_int_equal(info.live_vectors, s->vectors);
        assert_true(info.digest.lo == s->digest.lo && info.digest.hi == s->digest.hi);
        snapshot_release(s);
    }
    buf_deinit(&hold);
    fixture_free(f);
}

/* A version that vacuum left for its tag's sake is there until vacuum comes again. */
static void a_purge_lets_no_version_go(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct vacuum_options newest = {.versions = 1};
    struct vacuum_result gone;
    struct purge_result r;
    struct snapshot *s;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_STRING);
    fill(f, c, 800);
    OK(collection_vacuum(c, &newest, &gone, &f->ctx));
    assert_true(gone.versions > 0);
    OK(collection_tag_delete(c, "old", &f->ctx));
    assert_int_equal(try_purge(f, c, &r), ERR_OK);
    OK(collection_open_version(c, 4, true, &s, &f->ctx));
    snapshot_release(s);
    OK(collection_vacuum(c, &newest, &gone, &f->ctx));
    assert_int_equal(collection_open_version(c, 4, true, &s, &f->ctx), ERR_GONE);
    fixture_free(f);
}

static bool tried; /* a restore, while a file is being replaced */

static enum err try_restore(void *arg, struct collection *c, struct segment *s,
                            struct build_watch *w, struct err_ctx *ctx)
{
    (void)arg, (void)s, (void)w, (void)ctx;
    struct load_options o = {.mode = LOAD_RESTORE, .expected_version = -1};
    struct commit_result r;
    struct err_ctx why;
    err_clear(&why);
    if (!tried)
        assert_int_equal(collection_restore(c, 5, &o, &r, &why), ERR_BUSY);
    tried = true;
    return ERR_OK;
}

static void no_restore_brings_keys_back_meanwhile(void **state)
{
    (void)state;
    static const struct store_hooks hooks = {.segment_build = try_restore};
    struct load_options o = {.mode = LOAD_RESTORE, .expected_version = -1};
    struct fixture fx, *f = &fx;
    struct purge_result r;
    struct commit_result back;
    fixture_new(f, IO_AUTO);
    catalog_close(f->cat);
    OK(catalog_open(f->dir, f->io, &hooks, &f->cat, &f->ctx));
    while (!catalog_ready(f->cat))
        usleep(1000);
    tried = true;
    struct collection *c = fixture_create(f, "c", KEY_STRING);
    fill(f, c, 20000);
    tried = false;
    if (try_purge(f, c, &r) != ERR_OK)
        fail_msg("%s", f->ctx.detail);
    assert_true(tried);
    OK(collection_restore(c, 5, &o, &back, &f->ctx));
    for (size_t i = 0; i < NPURGED; i++)
        assert_false(has_key(c, purged[i]));
    fixture_free(f);
}

/* What may come between: nothing, a vacuum, a purge of other keys. */
static void do_between(unsigned n, struct fixture *f, struct collection *c)
{
    struct vacuum_options keep_all = {.keep_versions = true};
    struct vacuum_result gone;
    struct purge_result r;
    if (n % 4 >= 2)
        OK(collection_vacuum(c, &keep_all, &gone, &f->ctx));
    if (n % 8 >= 4 && try_purge_some(f, c, 2, &r) != ERR_OK)
        fail_msg("call %u, other keys: %s", n, f->ctx.detail);
    OK(history_verify(c, &f->ctx));
}

/* One purge whose n-th file operation fails, once or from there on; true when it came that far. */
static bool break_off_at(unsigned n, bool files, struct fixture *f)
{
    struct prints before;
    struct purge_result r;
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    if (files)
        fill_files(f, c);
    else
        fill(f, c, 800);
    take_prints_but(f, c, &before, is_purged);
    sweep.for_good = n % 2;
    sweep.at = n;
    atomic_store(&sweep.calls, 0);
    sweep.armed = true;
    enum err e = try_purge(f, c, &r);
    sweep.armed = false;
    bool struck = atomic_load(&sweep.calls) >= n;
    assert_true(struck || e == ERR_OK);
    fixture_reopen(f);
    c = fixture_find(f, "c");
    OK(history_verify(c, &f->ctx));
    do_between(n, f, c);
    for (uint64_t v = 1; v <= before.newest; v++) {
        struct hash128 now = version_print_but(f, c, v, is_purged);
        if (memcmp(&now, &before.of[v], sizeof now) != 0)
            fail_msg("call %u: version %llu has changed", n, (unsigned long long)v);
    }
    if (try_purge(f, c, &r) != ERR_OK)
        fail_msg("call %u: %s", n, f->ctx.detail);
    expect_purged(f, c, &before);
    OK(history_verify(c, &f->ctx));
    return struck;
}

/* After a restart everything reads with the keys or without, and the same purge goes through; with
 * one history file, and with several, of which some are purged and some are not. FAULT_STRIDE=1
 * lets every call fail, not every few. */
static void a_purge_that_broke_off_is_done_again(void **state)
{
    bool files = *(bool *)*state;
    const char *every = getenv("FAULT_STRIDE");
    unsigned n = 1, stride = every ? (unsigned)atoi(every) : files ? 13 : 3;
    for (bool struck = true; struck; n += stride) {
        struct fixture fx, *f = &fx;
        fixture_new(f, IO_POSIX);
        catalog_close(f->cat);
        f->io = sweep_new(f->io);
        sweep.error = EIO;
        fixture_open(f);
        struck = break_off_at(n, files, f);
        fixture_free(f);
    }
    assert_true(n > 20); /* the seam was really gone through */
    print_message("%u calls failed\n", n - 1);
}

/* Readers that open every version anew, all the time. */
struct readers {
    struct collection *c;
    uint64_t newest;
    atomic_bool stop;
    atomic_int opened;
    struct err_ctx refused; /* the first refusal; code ERR_OK = none */
};

static bool any(const struct snapshot *s, const void *unused)
{
    (void)s;
    (void)unused;
    return true;
}

static void *open_versions(void *arg)
{
    struct readers *r = arg;
    while (!atomic_load(&r->stop)) {
        for (uint64_t v = 1; v <= r->newest; v++) {
            struct snapshot *s;
            struct err_ctx ctx;
            err_clear(&ctx);
            history_forget(r->c, any, NULL);
            enum err e = collection_open_version(r->c, v, true, &s, &ctx);
            if (e != ERR_OK) {
                ctx.code = e;
                r->refused = ctx;
                return NULL;
            }
            atomic_fetch_add(&r->opened, 1);
            snapshot_release(s);
        }
    }
    return NULL;
}

static void a_purge_and_readers_of_old_versions_pass_each_other(void **state)
{
    (void)state;
    for (int round = 0; round < 10; round++) {
        struct fixture fx, *f = &fx;
        struct purge_result result;
        pthread_t thread;
        fixture_new(f, IO_POSIX);
        struct collection *c = fixture_create(f, "c", KEY_INT64);
        for (int i = 0; i < 7; i++) {
            load_range(f, c, LOAD_UPSERT, 10 * i, i ? 10 * i + 10 : 1000, i);
            OK(collection_seal(c, &f->ctx));
        }
        struct readers r = {.c = c, .newest = 7};
        err_clear(&r.refused);
        assert_int_equal(pthread_create(&thread, NULL, open_versions, &r), 0);
        while (!atomic_load(&r.opened))
            usleep(100);
        OK(try_purge(f, c, &result));
        atomic_store(&r.stop, true);
        pthread_join(thread, NULL);
        assert_string_equal(r.refused.detail, "");
        for (uint64_t v = 1; v <= 7; v++) { /* out of the cache, where there are some */
            struct snapshot *s;
            struct row_ref ref;
            OK(collection_open_version(c, v, true, &s, &f->ctx));
            assert_false(snapshot_find_int(s, 7, &ref));
            snapshot_release(s);
        }
        fixture_free(f);
    }
}

int main(void)
{
    static enum key_type keys[] = {KEY_STRING, KEY_INT64};
    static bool files[] = {false, true};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(no_version_and_no_file_has_them, &keys[0]),
        cmocka_unit_test_prestate(no_version_and_no_file_has_them, &keys[1]),
        cmocka_unit_test_prestate(history_goes_too, &keys[0]),
        cmocka_unit_test_prestate(history_goes_too, &keys[1]),
        cmocka_unit_test(versions_list_what_is_left),
        cmocka_unit_test(a_purge_lets_no_version_go),
        cmocka_unit_test(no_restore_brings_keys_back_meanwhile),
        cmocka_unit_test_prestate(a_purge_that_broke_off_is_done_again, &files[0]),
        cmocka_unit_test_prestate(a_purge_that_broke_off_is_done_again, &files[1]),
        cmocka_unit_test(a_purge_and_readers_of_old_versions_pass_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
