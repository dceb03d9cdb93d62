/* Failing calls at start, at drop and at creation anew. At start each one quarantines at most the
 * collection it hits, or keeps the daemon from starting with a sentence; the next start finds
 * everything. A drop or a creation that fails leaves the collection whole or gone. */
#include "store_fixture.h"

#include "base/log.h"
#include "store/check.h"
#include "sweep.h"

enum { ROWS = 300, MORE = 20 };

static const char *const names[] = {"a", "b"};

/* `command`, where $d is the data directory. */
static void shell(const char *command, const char *dir)
{
    char text[2000];
    snprintf(text, sizeof text, "d='%s'; %s", dir, command);
    assert_int_equal(system(text), 0);
}

/* Two collections, each with a segment, a checkpoint, and commits behind it; $d.kept is a copy. */
static void prepare(struct fixture *f)
{
    for (int i = 0; i < 2; i++) {
        struct collection *c = fixture_create(f, names[i], i ? KEY_INT64 : KEY_STRING);
        load_range(f, c, LOAD_UPSERT, 0, ROWS, 0);
        OK(collection_seal(c, &f->ctx));
        load_range(f, c, LOAD_UPSERT, ROWS, ROWS + MORE, 0);
    }
    catalog_close(f->cat);
    shell("cp -a $d $d.kept", f->dir);
}

static void expect_all_rows(struct collection *c)
{
    for (int64_t key = 0; key < ROWS + MORE; key++)
        expect_row(c, key, key);
}

static void tell(void *arg, enum check_kind kind, const char *collection, const char *text)
{
    (void)arg;
    if (kind == CHECK_DAMAGE)
        fail_msg("call %u: %s: %s", sweep.at, collection, text);
}

static void say_nothing(void *arg, const struct check_collection *c)
{
    (void)arg;
    (void)c;
}

static void close_and_check(struct fixture *f)
{
    struct check_hooks hooks = {.found = tell, .done = say_nothing};
    bool damaged;
    catalog_close(f->cat);
    OK(check_dir(f->dir, &hooks, &damaged, &f->ctx));
    assert_false(damaged);
}

/* How many of the two are open; the others say why. */
static int count_open(struct fixture *f)
{
    int open = 0;
    for (int i = 0; i < 2; i++) {
        struct collection *c;
        f->ctx.detail[0] = 0;
        if (catalog_find(f->cat, names[i], &c, &f->ctx) == ERR_OK) {
            expect_all_rows(c);
            open++;
        } else {
            assert_non_null(strstr(f->ctx.detail, "quarantined"));
        }
    }
    return open;
}

static void failing_start_loses_nothing(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    unsigned calls = 0;
    fixture_new(f, IO_POSIX);
    prepare(f);
    f->io = sweep_new(f->io);
    sweep.error = EIO;
    log_set_level(LOG_ERROR + 1);
    for (sweep.at = 0; sweep.at <= calls; sweep.at++) { /* 0: no fault, to count the calls */
        shell("rm -rf $d && cp -a $d.kept $d", f->dir);
        atomic_store(&sweep.calls, 0);
        sweep.armed = true;
        if (catalog_open(f->dir, f->io, NULL, &f->cat, &f->ctx) == ERR_OK) {
            while (!catalog_ready(f->cat))
                usleep(200);
            sweep.armed = false;
            assert_in_range(count_open(f), 1, 2);
            calls = atomic_load(&sweep.calls) > calls ? atomic_load(&sweep.calls) : calls;
            catalog_close(f->cat);
        } else {
            assert_true(f->ctx.detail[0]);
            calls++;
        }
        sweep.armed = false;
        fixture_open(f);
        assert_int_equal(count_open(f), 2);
        close_and_check(f);
    }
    assert_true(sweep.at > 10);
    sweep.at = 0;
    log_set_level(LOG_INFO);
    shell("rm -rf $d.kept", f->dir);
    fixture_open(f);
    fixture_free(f);
}

/* What may be there after the drop and the creation that followed it. */
static void check_after_drop(struct fixture *f, enum err dropped, enum err created)
{
    struct collection *c;
    enum err e = catalog_find(f->cat, "a", &c, &f->ctx);
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        fail_msg("call %u: %s", sweep.at, f->ctx.detail);
    if (dropped == ERR_OK && created == ERR_OK)
        assert_int_equal(e, ERR_OK);
    if (e != ERR_OK)
        return;
    epoch_enter();
    uint64_t version = collection_snapshot(c)->version, rows = collection_snapshot(c)->rows;
    epoch_leave();
    assert_true(version == 2);                     /* numbers go on after a drop */
    assert_true(rows == 0 || rows == ROWS + MORE); /* empty and new, or old and whole */
    assert_true(dropped != ERR_OK || rows == 0);
    load_range(f, c, LOAD_UPSERT, 0, 5, 0);
}

static void failing_drop_leaves_the_collection_whole_or_gone(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    unsigned calls = 0;
    fixture_new(f, IO_POSIX);
    prepare(f);
    f->io = sweep_new(f->io);
    sweep.error = EIO;
    log_set_level(LOG_ERROR + 1);
    for (sweep.at = 0; sweep.at <= calls; sweep.at++) { /* 0: no fault, to count the calls */
        bool fresh;
        struct schema *s;
        shell("rm -rf $d && cp -a $d.kept $d", f->dir);
        fixture_open(f);
        epoch_enter();
        s = schema_acquire(collection_snapshot(fixture_find(f, "a"))->schema);
        epoch_leave();
        atomic_store(&sweep.calls, 0);
        sweep.armed = true;
        enum err dropped = catalog_drop(f->cat, "a", &f->ctx);
        enum err created = catalog_create(f->cat, "a", s, &fresh, &f->ctx);
        sweep.armed = false;
        schema_release(s);
        if (atomic_load(&sweep.calls) > calls)
            calls = atomic_load(&sweep.calls);
        catalog_close(f->cat);
        fixture_open(f);
        check_after_drop(f, dropped, created);
        close_and_check(f);
    }
    assert_true(sweep.at > 10);
    sweep.at = 0;
    log_set_level(LOG_INFO);
    shell("rm -rf $d.kept", f->dir);
    fixture_open(f);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failing_start_loses_nothing),
        cmocka_unit_test(failing_drop_leaves_the_collection_whole_or_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
