/* Fault sweep: the Nth call at the io seam fails, for N = 1, 2, 3 ... until a run needs fewer
 * calls; once, and from then on for good; with an I/O error after half a write, and with a full
 * disk. After each run the directory is opened again without faults: every acknowledged commit is
 * there whole, every other one whole or not at all, the same goes for features that were added, and
 * nothing is quarantined. */
#include "store_fixture.h"
#include "sweep.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/log.h"

enum { STEP = 1000000, SMALL = 100, LARGE = 20000, GONE = 50, LOADS = 4 };

/* ---- what is done, and what was acknowledged ---- */

struct outcome {
    bool created, loaded[LOADS], deleted;
    bool grown[2]; /* by feature "grown0", "grown1" */
};

/* The first feature comes while a large load is open, the other between two loads. */
static enum err grow(struct fixture *f, struct collection *c, int which)
{
    return try_alter(c, which ? "grown1" : "grown0", which ? FEATURE_STRING : FEATURE_INT64,
                     &f->ctx);
}

static enum err try_load(struct fixture *f, struct collection *c, int64_t from, int64_t n,
                         bool *grown)
{
    struct load_options o = {.mode = LOAD_UPSERT, .expected_version = -1};
    struct load *l;
    struct batch *b = NULL;
    struct commit_result r;
    RETURN_NOT_OK(load_new(c, &o, &l, &f->ctx));
    enum err e = batch_new(load_schema(l), &b, &f->ctx);
    for (int64_t key = from; e == ERR_OK && key < from + n; key++)
        put_row(f, b, key, key);
    if (e == ERR_OK)
        e = load_add(l, b, &f->ctx);
    if (grown)
        *grown = grow(f, c, 0) == ERR_OK;
    if (e == ERR_OK)
        e = load_commit(l, &r, &f->ctx);
    batch_free(b);
    load_free(l);
    return e;
}

static enum err try_delete(struct fixture *f, struct collection *c, int64_t from, int64_t n)
{
    struct load_options o = {.expected_version = -1};
    struct commit_result r;
    struct batch *b;
    epoch_enter();
    struct schema *s = schema_acquire(collection_snapshot(c)->schema);
    epoch_leave();
    OK(batch_new(s, &b, &f->ctx));
    for (int64_t key = from; key < from + n; key++)
        put_key(f, b, key);
    enum err e = collection_delete_keys(c, b, &o, &r, &f->ctx);
    batch_free(b);
    schema_release(s);
    return e;
}

static struct schema *make_schema(struct fixture *f, enum key_type key)
{
    struct schema *s;
    OK(schema_new(key, TEST_DIM, DIST_L2, &s, &f->ctx));
    OK(schema_add_feature(s, "price", FEATURE_FLOAT32, &f->ctx));
    OK(schema_add_feature(s, "count", FEATURE_INT64, &f->ctx));
    OK(schema_add_feature(s, "name", FEATURE_STRING, &f->ctx));
    OK(schema_add_feature(s, "tags", FEATURE_STRING_LIST, &f->ctx));
    s->index.kind = INDEX_FLAT;
    OK(schema_seal(s, &f->ctx));
    return s;
}

static void run_loads(struct fixture *f, struct collection *c, struct outcome *o)
{
    static const int64_t sizes[LOADS] = {SMALL, LARGE, SMALL, SMALL};
    for (int i = 0; i < LOADS; i++) {
        o->loaded[i] =
            try_load(f, c, (int64_t)i * STEP, sizes[i], i == 1 ? &o->grown[0] : NULL) == ERR_OK;
        if (i == 1 || i == 2)
            (void)!collection_seal(c, &f->ctx);
        if (i == 2) {
            o->deleted = try_delete(f, c, 0, GONE) == ERR_OK;
            o->grown[1] = grow(f, c, 1) == ERR_OK;
        }
    }
}

static void run(struct fixture *f, struct outcome *o)
{
    struct collection *c;
    bool created;
    memset(o, 0, sizeof *o);
    atomic_store(&sweep.calls, 0);
    sweep.armed = true;
    struct schema *s = make_schema(f, KEY_STRING);
    if (catalog_open(f->dir, f->io, NULL, &f->cat, &f->ctx) == ERR_OK) {
        o->created = catalog_create(f->cat, "c", s, &created, &f->ctx) == ERR_OK;
        if (catalog_find(f->cat, "c", &c, &f->ctx) == ERR_OK)
            run_loads(f, c, o);
        catalog_close(f->cat);
    }
    schema_release(s);
    sweep.armed = false;
}

/* ---- what is there afterwards ---- */

static int64_t count_keys(struct collection *c, int64_t from, int64_t n)
{
    int64_t found = 0;
    for (int64_t key = from; key < from + n; key++) {
        if (!has_key(c, key))
            continue;
        expect_row(c, key, key);
        found++;
    }
    return found;
}

static void check_features(struct collection *c, const struct outcome *o, unsigned at)
{
    epoch_enter();
    const struct schema *s = collection_snapshot(c)->schema;
    bool there[2] = {schema_find(s, "grown0", 6) >= 0, schema_find(s, "grown1", 6) >= 0};
    uint32_t n = s->nfeatures;
    epoch_leave();
    if ((o->grown[0] && !there[0]) || (o->grown[1] && !there[1]))
        fail_msg("call %u: a feature that was added is gone", at);
    assert_int_equal(n, 4 + there[0] + there[1]);
}

static void check(struct fixture *f, const struct outcome *o, unsigned at)
{
    static const int64_t sizes[LOADS] = {SMALL, LARGE, SMALL, SMALL};
    struct collection *c;
    fixture_open(f);
    enum err e = catalog_find(f->cat, "c", &c, &f->ctx);
    if (e != ERR_OK && (o->created || e != ERR_NOT_FOUND))
        fail_msg("call %u: the collection is lost: %s", at, f->ctx.detail);
    for (int i = 0; e == ERR_OK && i < LOADS; i++) {
        int64_t skip = i == 0 ? GONE : 0;
        int64_t n = count_keys(c, (int64_t)i * STEP + skip, sizes[i] - skip);
        if (n != sizes[i] - skip && (o->loaded[i] || n != 0))
            fail_msg("call %u: load %d (acknowledged: %d) has %lld rows", at, i, o->loaded[i],
                     (long long)n);
    }
    if (e == ERR_OK) {
        int64_t n = count_keys(c, 0, GONE);
        if (o->deleted ? n != 0 : n != 0 && n != GONE)
            fail_msg("call %u: %lld of the deleted rows are there", at, (long long)n);
        check_features(c, o, at);
        OK(try_load(f, c, 9 * STEP, SMALL, NULL)); /* and it takes writes again */
    }
    catalog_close(f->cat);
}

struct sweep_param {
    enum io_backend backend;
    bool for_good;
    int error;
};

static void every_failing_call_loses_nothing(void **state)
{
    const struct sweep_param *p = *state;
    struct fixture fx, *f = &fx;
    struct outcome o;
    fixture_new(f, p->backend);
    catalog_close(f->cat);
    f->io = sweep_new(f->io);
    log_set_level(LOG_ERROR + 1);
    sweep.for_good = p->for_good;
    sweep.error = p->error;
    unsigned calls = UINT32_MAX;
    for (sweep.at = 1; sweep.at <= calls; sweep.at++) {
        char command[2000];
        snprintf(command, sizeof command, "rm -rf %s", f->dir);
        assert_int_equal(system(command), 0);
        run(f, &o);
        check(f, &o, sweep.at);
        if (!sweep.for_good)
            calls = atomic_load(&sweep.calls);
        else if (o.loaded[LOADS - 1])
            break;
    }
    assert_true(sweep.at > 50); /* the seam was really gone through */
    print_message("%u calls failed\n", sweep.at - 1);
    sweep.at = 0;
    log_set_level(LOG_INFO);
    assert_int_equal(mkdir(f->dir, 0700) == 0 || errno == EEXIST, 1);
    fixture_open(f);
    fixture_free(f);
}

int main(void)
{
    static struct sweep_param params[] = {{IO_POSIX, false, EIO},
                                          {IO_POSIX, true, EIO},
                                          {IO_POSIX, false, ENOSPC},
                                          {IO_AUTO, false, EIO},
                                          {IO_AUTO, true, ENOSPC}};
    enum { N = sizeof params / sizeof *params };
    struct CMUnitTest tests[N];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){.name = "every_failing_call_loses_nothing",
                                       .test_func = every_failing_call_loses_nothing,
                                       .initial_state = &params[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
