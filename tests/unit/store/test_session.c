/* Load sessions on disk: parts in the order of their names, the same again after a restart, a
 * commit that was cut off, ends, and the fault sweep: whatever call fails, what was acknowledged is
 * there and the rest can be done again. */
#include "store_fixture.h"
#include "sweep.h"

#include <dirent.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/session.h"

enum { ROWS = 50, HOUR_S = 3600 };

static struct session_options options(enum load_mode mode)
{
    return (struct session_options){.mode = mode,
                                    .text = "{}",
                                    .text_len = 2,
                                    .expiry_us = HOUR_S * 1000000ll,
                                    .loads_max = 10};
}

static struct session_info open_load(struct fixture *f, struct collection *c, enum load_mode mode)
{
    struct session_options o = options(mode);
    struct session_info info;
    OK(session_open(c, &o, &info, &f->ctx));
    return info;
}

/* Rows [from, from + n) with x = key, as part `name`. */
static enum err try_put(struct fixture *f, struct collection *c, const uint8_t *id,
                        const char *name, int64_t from, int64_t n, bool *created)
{
    struct session *s;
    struct session_put *p = NULL;
    struct session_part part;
    struct batch *b = NULL;
    RETURN_NOT_OK(session_find_open(c, id, &s, &f->ctx));
    enum err e = session_put_begin(s, false, name, strlen(name), 100, 0, &p, &f->ctx);
    if (e == ERR_OK && !session_put_known(p)) {
        e = batch_new(session_put_schema(p), &b, &f->ctx);
        for (int64_t key = from; e == ERR_OK && key < from + n; key++)
            put_row(f, b, key, key);
        if (e == ERR_OK)
            e = session_put_add(p, b, &f->ctx);
    }
    struct hash128 digest = {(uint64_t)from, (uint64_t)n};
    if (e == ERR_OK)
        e = session_put_end(p, digest, 100, created, &part, &f->ctx);
    if (e == ERR_OK)
        assert_int_equal(part.rows, n);
    batch_free(b);
    session_put_free(p);
    session_release(s);
    return e;
}

static enum err try_commit(struct fixture *f, struct collection *c, const uint8_t *id,
                           const struct session_name *names, size_t n, struct commit_result *out)
{
    struct session *s;
    struct session_info info;
    enum session_commit what;
    struct load_options o = {.expected_version = -1, .wait = LOAD_WAIT_DURABLE};
    RETURN_NOT_OK(session_find(c, id, &s, &info, &f->ctx));
    *out = info.result;
    if (!s)
        return info.state == SESSION_COMMITTED ? ERR_OK : session_ended(&info, &f->ctx);
    o.mode = info.mode;
    enum err e = session_commit_begin(s, names, n, &what, &f->ctx);
    if (e == ERR_OK) {
        assert_int_equal(what, SESSION_RUN);
        e = session_commit_run(s, &o, out, &f->ctx);
    }
    session_release(s);
    return e;
}

static enum err try_abort(struct fixture *f, struct collection *c, const uint8_t *id)
{
    struct session *s;
    RETURN_NOT_OK(session_find_open(c, id, &s, &f->ctx));
    enum err e = session_abort(s, &f->ctx);
    session_release(s);
    return e;
}

static void put(struct fixture *f, struct collection *c, const uint8_t *id, const char *name,
                int64_t from, int64_t n)
{
    bool created;
    OK(try_put(f, c, id, name, from, n, &created));
    assert_true(created);
}

static int64_t count(struct collection *c, int64_t from, int64_t n)
{
    int64_t found = 0;
    for (int64_t key = from; key < from + n; key++) {
        if (has_key(c, key)) {
            expect_row(c, key, key);
            found++;
        }
    }
    return found;
}

static size_t files_under(const struct fixture *f, const char *path)
{
    char command[600], line[32] = "";
    snprintf(command, sizeof command, "find %s/c/%s -type f | wc -l", f->dir, path);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    assert_non_null(fgets(line, sizeof line, p));
    pclose(p);
    return strtoul(line, NULL, 10);
}

/* ---- the rules ---- */

static void a_load_goes_on_after_a_restart(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct commit_result r, again;
    bool created;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_STRING);
    struct session_info load = open_load(f, c, LOAD_APPEND);
    put(f, c, load.id, "b", 0, ROWS);
    put(f, c, load.id, "a", 1000, ROWS);
    fixture_reopen(f);
    c = fixture_find(f, "c");
    put(f, c, load.id, "c", 2000, ROWS);
    OK(try_put(f, c, load.id, "a", 1000, ROWS, &created));
    assert_false(created);
    assert_int_equal(try_put(f, c, load.id, "a", 1001, ROWS, &created), ERR_CONFLICT);
    assert_int_equal(count(c, 0, 3000), 0);
    OK(try_commit(f, c, load.id, NULL, 0, &r));
    assert_int_equal(r.rows, 3 * ROWS);
    assert_int_equal(count(c, 0, 3000), 3 * ROWS);
    fixture_reopen(f);
    c = fixture_find(f, "c");
    OK(try_commit(f, c, load.id, NULL, 0, &again));
    assert_memory_equal(&again, &r, sizeof r);
    assert_int_equal(try_put(f, c, load.id, "d", 0, 1, &created), ERR_CONFLICT);
    assert_int_equal(files_under(f, "staging"), 0);
    fixture_free(f);
}

/* Segments were moved, and then the power went: no record names them. */
static void a_commit_that_was_cut_off_is_done_again(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct commit_result r;
    char command[4000], id[33];
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    struct session_info load = open_load(f, c, LOAD_UPSERT);
    put(f, c, load.id, "p", 0, ROWS);
    put(f, c, load.id, "q", 1000, ROWS);
    session_id_text(load.id, id);
    catalog_close(f->cat);
    snprintf(command, sizeof command, "mv $(ls %s/c/staging/%s/*.seg | head -1) %s/c/segments/",
             f->dir, id, f->dir);
    assert_int_equal(system(command), 0);
    fixture_open(f);
    c = fixture_find(f, "c");
    assert_int_equal(files_under(f, "segments"), 0);
    OK(try_commit(f, c, load.id, NULL, 0, &r));
    assert_int_equal(count(c, 0, 2000), 2 * ROWS);
    fixture_free(f);
}

/* The record was written, and then the power went: the files are still there. */
static void a_commit_that_was_not_tidied_up_is_found(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct commit_result r, again;
    char command[4000], id[33];
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    struct session_info load = open_load(f, c, LOAD_UPSERT);
    put(f, c, load.id, "p", 0, ROWS);
    session_id_text(load.id, id);
    snprintf(command, sizeof command, "cp -r %s/c/staging/%s %s/kept", f->dir, id, f->dir);
    assert_int_equal(system(command), 0);
    OK(try_commit(f, c, load.id, NULL, 0, &r));
    catalog_close(f->cat);
    snprintf(command, sizeof command, "mv %s/kept %s/c/staging/%s", f->dir, f->dir, id);
    assert_int_equal(system(command), 0);
    fixture_open(f);
    c = fixture_find(f, "c");
    OK(try_commit(f, c, load.id, NULL, 0, &again));
    assert_memory_equal(&again, &r, sizeof r);
    assert_int_equal(count(c, 0, ROWS), ROWS);
    assert_int_equal(files_under(f, "staging"), 0);
    fixture_free(f);
}

static void only_the_parts_named_are_committed(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct commit_result r;
    const struct session_name missing[] = {{"p", 1}, {"x", 1}}, named[] = {{"q", 1}, {"q", 1}};
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    struct session_info load = open_load(f, c, LOAD_UPSERT);
    put(f, c, load.id, "p", 0, ROWS);
    put(f, c, load.id, "q", 1000, ROWS);
    assert_int_equal(try_commit(f, c, load.id, missing, 2, &r), ERR_UNPROCESSABLE);
    assert_non_null(strstr(f->ctx.detail, "'x'"));
    OK(try_commit(f, c, load.id, named, 2, &r));
    assert_int_equal(r.rows, ROWS);
    assert_int_equal(count(c, 0, 2000), ROWS);
    assert_int_equal(files_under(f, "staging"), 0);
    fixture_free(f);
}

static void an_aborted_load_is_gone_for_good(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    bool created;
    struct commit_result r;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    struct session_info load = open_load(f, c, LOAD_UPSERT);
    put(f, c, load.id, "p", 0, ROWS);
    OK(try_abort(f, c, load.id));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(try_put(f, c, load.id, "q", 0, 1, &created), ERR_GONE);
        assert_int_equal(try_commit(f, c, load.id, NULL, 0, &r), ERR_GONE);
        assert_int_equal(files_under(f, "staging"), 1); /* of the ends */
        fixture_reopen(f);
        c = fixture_find(f, "c");
    }
    fixture_free(f);
}

static void a_load_without_activity_expires(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct session *s;
    struct session_info info;
    struct session_options o = options(LOAD_UPSERT);
    bool created;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    o.expiry_us = 300000;
    OK(session_open(c, &o, &info, &f->ctx));
    OK(session_find_open(c, info.id, &s, &f->ctx));
    struct session_put *p;
    OK(session_put_begin(s, false, "p", 1, 10, 0, &p, &f->ctx));
    usleep(600000);
    sessions_sweep(c); /* a part is on its way */
    session_describe(s, &info);
    assert_int_equal(info.state, SESSION_OPEN);
    session_put_free(p);
    sessions_sweep(c);
    session_describe(s, &info);
    assert_int_equal(info.state, SESSION_EXPIRED);
    session_release(s);
    assert_int_equal(try_put(f, c, info.id, "q", 0, 1, &created), ERR_GONE);
    fixture_reopen(f);
    c = fixture_find(f, "c");
    assert_int_equal(try_put(f, c, info.id, "q", 0, 1, &created), ERR_GONE);
    fixture_free(f);
}

static void a_damaged_part_is_not_dropped_in_silence(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct commit_result r;
    char command[4000], id[33];
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    struct session_info load = open_load(f, c, LOAD_UPSERT);
    put(f, c, load.id, "p", 0, ROWS);
    session_id_text(load.id, id);
    catalog_close(f->cat);
    snprintf(command, sizeof command,
             "printf x | dd of=$(ls %s/c/staging/%s/*.part) bs=1 seek=60 conv=notrunc 2>/dev/null",
             f->dir, id);
    assert_int_equal(system(command), 0);
    log_set_level(LOG_ERROR + 1);
    fixture_open(f);
    log_set_level(LOG_INFO);
    c = fixture_find(f, "c");
    assert_int_equal(try_commit(f, c, load.id, NULL, 0, &r), ERR_CORRUPT);
    struct session *s;
    OK(session_find_open(c, load.id, &s, &f->ctx));
    OK(session_abort(s, &f->ctx));
    session_release(s);
    assert_int_equal(files_under(f, "staging"), 1);
    fixture_free(f);
}

/* ---- the sweep ---- */

struct outcome {
    bool created, opened, put[2], committed, opened_other, aborted;
    uint8_t id[LOAD_ID_BYTES], other[LOAD_ID_BYTES];
    struct commit_result result;
};

static void run(struct fixture *f, struct outcome *o)
{
    struct collection *c;
    struct session_info info;
    struct session_options opts = options(LOAD_UPSERT);
    bool created;
    memset(o, 0, sizeof *o);
    atomic_store(&sweep.calls, 0);
    sweep.armed = true;
    if (catalog_open(f->dir, f->io, NULL, &f->cat, &f->ctx) != ERR_OK) {
        sweep.armed = false;
        return;
    }
    while (!catalog_ready(f->cat))
        usleep(200);
    struct schema *s;
    OK(schema_new(KEY_INT64, TEST_DIM, DIST_L2, &s, &f->ctx));
    OK(schema_add_feature(s, "price", FEATURE_FLOAT32, &f->ctx));
    OK(schema_add_feature(s, "count", FEATURE_INT64, &f->ctx));
    OK(schema_add_feature(s, "name", FEATURE_STRING, &f->ctx));
    OK(schema_add_feature(s, "tags", FEATURE_STRING_LIST, &f->ctx));
    s->index.kind = INDEX_FLAT;
    OK(schema_seal(s, &f->ctx));
    o->created = catalog_create(f->cat, "c", s, &created, &f->ctx) == ERR_OK;
    schema_release(s);
    if (o->created && catalog_find(f->cat, "c", &c, &f->ctx) == ERR_OK) {
        o->opened = session_open(c, &opts, &info, &f->ctx) == ERR_OK;
        memcpy(o->id, info.id, sizeof o->id);
        for (int i = 0; o->opened && i < 2; i++)
            o->put[i] = try_put(f, c, o->id, i ? "q" : "p", i * 1000, ROWS, &created) == ERR_OK;
        if (o->put[0] && o->put[1])
            o->committed = try_commit(f, c, o->id, NULL, 0, &o->result) == ERR_OK;
        o->opened_other = session_open(c, &opts, &info, &f->ctx) == ERR_OK;
        memcpy(o->other, info.id, sizeof o->other);
        if (o->opened_other)
            o->aborted = try_abort(f, c, o->other) == ERR_OK;
    }
    catalog_close(f->cat);
    sweep.armed = false;
}

static void check(struct fixture *f, const struct outcome *o)
{
    struct collection *c;
    struct commit_result r;
    bool created;
    fixture_open(f);
    if (!o->created) {
        catalog_close(f->cat);
        return;
    }
    OK(catalog_find(f->cat, "c", &c, &f->ctx));
    if (o->opened) {
        for (int i = 0; i < 2; i++) {
            enum err e = try_put(f, c, o->id, i ? "q" : "p", i * 1000, ROWS, &created);
            if (e == ERR_CONFLICT) /* committed, acknowledged or not */
                break;
            OK(e);
            if (created && o->put[i])
                fail_msg("call %u: part %d was acknowledged and is lost", sweep.at, i);
            if (o->committed)
                fail_msg("call %u: the commit was acknowledged and is lost", sweep.at);
        }
        OK(try_commit(f, c, o->id, NULL, 0, &r));
        if (o->committed)
            assert_memory_equal(&r, &o->result, sizeof r);
        assert_int_equal(count(c, 0, 2000), 2 * ROWS);
    }
    if (o->opened_other) {
        enum err e = try_put(f, c, o->other, "p", 5000, 1, &created);
        if (o->aborted ? e != ERR_GONE : e != ERR_OK && e != ERR_GONE)
            fail_msg("call %u: aborted %d, a put gives %d: %s", sweep.at, o->aborted, e,
                     f->ctx.detail);
    }
    catalog_close(f->cat);
}

struct sweep_param {
    enum io_backend backend;
    bool for_good;
    int error;
};

static void every_failing_call_loses_nothing_acknowledged(void **state)
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
        check(f, &o);
        if (!sweep.for_good)
            calls = atomic_load(&sweep.calls);
        else if (o.aborted)
            break;
    }
    assert_true(sweep.at > 50);
    print_message("%u calls failed\n", sweep.at - 1);
    sweep.at = 0;
    log_set_level(LOG_INFO);
    assert_true(mkdir(f->dir, 0700) == 0 || errno == EEXIST);
    fixture_open(f);
    fixture_free(f);
}

int main(void)
{
    static struct sweep_param params[] = {{IO_POSIX, false, EIO},
                                          {IO_POSIX, true, ENOSPC},
                                          {IO_AUTO, false, ENOSPC},
                                          {IO_AUTO, true, EIO}};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_goes_on_after_a_restart),
        cmocka_unit_test(a_commit_that_was_cut_off_is_done_again),
        cmocka_unit_test(a_commit_that_was_not_tidied_up_is_found),
        cmocka_unit_test(only_the_parts_named_are_committed),
        cmocka_unit_test(an_aborted_load_is_gone_for_good),
        cmocka_unit_test(a_load_without_activity_expires),
        cmocka_unit_test(a_damaged_part_is_not_dropped_in_silence),
        cmocka_unit_test_prestate(every_failing_call_loses_nothing_acknowledged, &params[0]),
        cmocka_unit_test_prestate(every_failing_call_loses_nothing_acknowledged, &params[1]),
        cmocka_unit_test_prestate(every_failing_call_loses_nothing_acknowledged, &params[2]),
        cmocka_unit_test_prestate(every_failing_call_loses_nothing_acknowledged, &params[3]),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
