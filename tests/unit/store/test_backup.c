/* Backups under faults: the Nth call at the io seam fails, for N = 1, 2, 3 ...; whatever happens,
 * what stands under the backup's name is whole, and the data that was copied is as it was. */
#include "store_fixture.h"
#include "sweep.h"

#include <sys/stat.h>

#include "base/log.h"
#include "store/backup.h"

enum { LARGE = 20000, SMALL = 50 };

struct seen {
    unsigned lines, faults;
    struct backup_line kept; /* of "c" */
};

static void see(void *arg, const struct backup_line *line)
{
    struct seen *seen = arg;
    seen->lines++;
    seen->faults += line->fault != NULL;
    if (strcmp(line->collection, "c") == 0)
        seen->kept = *line;
}

/* A segment of a bulk load, a tail that was sealed, a tail, deletions, a tombstone. */
static void fill(struct fixture *f)
{
    fixture_create(f, "gone", KEY_INT64);
    OK(catalog_drop(f->cat, "gone", &f->ctx));
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    load_range(f, c, LOAD_UPSERT, 0, LARGE, 1);
    load_range(f, c, LOAD_UPSERT, 0, SMALL, 2);
    OK(collection_seal(c, &f->ctx));
    load_range(f, c, LOAD_UPSERT, LARGE, LARGE + SMALL, 3);
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static void remove_all(const char *path)
{
    char command[400];
    snprintf(command, sizeof command, "rm -rf %s %s.partial", path, path);
    assert_int_equal(system(command), 0);
}

static void expect_copy(const char *dest, bool has_c)
{
    struct fixture copy = {.io = sweep.inner}, *f = &copy;
    err_clear(&copy.ctx);
    snprintf(copy.dir, sizeof copy.dir, "%s", dest);
    fixture_open(f);
    epoch_enter();
    struct collection *c = NULL;
    enum err e = catalog_find(copy.cat, "c", &c, &copy.ctx);
    if (c)
        collection_acquire(c);
    epoch_leave();
    assert_int_equal(e, has_c ? ERR_OK : ERR_NOT_FOUND);
    if (c) {
        assert_int_equal(collection_snapshot(c)->version, 3);
        assert_int_equal(collection_snapshot(c)->rows, LARGE + SMALL);
        expect_row(c, 0, 2);
        expect_row(c, SMALL, SMALL + 1);
        expect_row(c, LARGE, LARGE + 3);
        collection_release(c);
    }
    catalog_close(copy.cat);
}

/* One backup with faults; how many calls it made. */
static unsigned back_up(struct fixture *f, struct io *io, const char *dest)
{
    struct seen seen = {0};
    struct err_ctx ctx;
    err_clear(&ctx);
    atomic_store(&sweep.calls, 0);
    sweep.armed = true;
    enum err e = backup_run(io, f->dir, dest, see, &seen, &ctx);
    sweep.armed = false;
    unsigned calls = atomic_load(&sweep.calls);
    if (e == ERR_OK) {
        assert_int_equal(seen.lines, 1);
        assert_int_equal(seen.faults, 0);
        assert_int_equal(seen.kept.version, 3);
        assert_int_equal(seen.kept.rows, LARGE + SMALL);
        assert_true(exists(dest));
    } else {
        assert_true(ctx.detail[0]);
    }
    if (exists(dest))
        expect_copy(dest, seen.faults == 0);
    remove_all(dest);
    return calls;
}

struct param {
    enum io_backend backend;
    bool for_good;
    int error;
    unsigned step; /* of N; the steps have no common factor, so that together they miss little */
};

static void test_a_failing_call_never_leaves_half_a_backup_under_its_name(void **state)
{
    const struct param *p = *state;
    struct fixture fixture, *f = &fixture;
    struct io *inner;
    char dest[sizeof f->dir - 8];
    log_set_level(LOG_ERROR + 1);
    fixture_new(f, p->backend);
    fill(f);
    snprintf(dest, sizeof dest, "%.200s-copy", f->dir);
    OK(io_new(p->backend, &inner, &f->ctx));
    struct io *io = sweep_new(inner);
    sweep.for_good = p->for_good;
    sweep.error = p->error;
    sweep.at = 0;
    unsigned calls = back_up(f, io, dest);
    assert_true(calls > 40); /* the seam was really gone through */
    for (sweep.at = 1; sweep.at <= calls; sweep.at += p->step)
        back_up(f, io, dest);
    sweep.at = 0;
    io_free(io);
    fixture_free(f);
}

int main(void)
{
    static struct param params[] = {{IO_POSIX, false, EIO, 2},
                                    {IO_POSIX, true, EIO, 7},
                                    {IO_POSIX, false, ENOSPC, 5},
                                    {IO_AUTO, false, EIO, 9}};
#define SWEEP(i)                                                                                   \
    {                                                                                              \
        "test_a_failing_call_never_leaves_half_a_backup_under_its_name_" #i,                       \
            test_a_failing_call_never_leaves_half_a_backup_under_its_name, NULL, NULL, &params[i]  \
    }
    const struct CMUnitTest tests[] = {SWEEP(0), SWEEP(1), SWEEP(2), SWEEP(3)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
