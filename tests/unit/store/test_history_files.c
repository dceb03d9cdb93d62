/* History on disk: what ten thousand versions cost, and that no crash around a checkpoint loses or
 * doubles an item. */
#include "history_rig.h"

#include <dirent.h>
#include <sys/stat.h>

#include "base/clock.h"

enum { MANY = 10000, GROUP = 100 };

/* One-row upserts whose syncs are shared, as those of many clients are. */
static void upsert_many(struct rig *r, uint64_t versions)
{
    struct fixture *f = &r->f;
    struct collection *c = r->c;
    for (uint64_t done = 0; done < versions;) {
        uint64_t ticket = 0;
        struct snapshot *next = NULL;
        pthread_mutex_lock(&c->commit_lock);
        for (int i = 0; i < GROUP; i++, done++) {
            struct commit_record rec = {.meta.mode = LOAD_UPSERT};
            struct buf bytes = {0}, row = {0};
            struct inline_run run = {0};
            struct row_builder rb;
            struct plan plan;
            int64_t key = (int64_t)(c->head->version);
            OK(row_builder_init(&rb, c->head->schema, &f->ctx));
            memset(rb.strip, 0, c->head->schema->strip_bytes);
            rb.strip[0] = 0xff;
            rb.row.int_key = key;
            row_encode(&rb.row, &row);
            rec.meta.version = c->head->version + 1;
            rec.meta.time_us = c->head->time_us + 1;
            rec.meta.rows = rec.meta.inserted = 1;
            rec.meta.live_rows = c->head->rows + 1;
            rec.meta.digest = c->head->digest;
            digest_add(&rec.meta.digest, row_digest(&rb.row));
            rec.tail_id = c->tail->id;
            rec.ninline = 1;
            rec.inline_rows = row.data;
            rec.inline_len = row.len;
            buf_put(&rec.runs, &run, sizeof run);
            commit_record_encode(&rec, &bytes);
            OK(plan_commit(c, bytes.data, bytes.len, NULL, &plan, &f->ctx));
            OK(collection_log(c, bytes.data, bytes.len, &ticket, &f->ctx));
            plan_apply(c, &plan);
            snapshot_release(next);
            next = snapshot_acquire(plan.next);
            plan_deinit(&plan);
            commit_record_deinit(&rec);
            row_builder_deinit(&rb);
            buf_deinit(&bytes);
            buf_deinit(&row);
        }
        pthread_mutex_unlock(&c->commit_lock);
        OK(wal_wait(c->wal, ticket, &f->ctx));
        pthread_mutex_lock(&c->commit_lock);
        collection_publish(c, next);
        pthread_mutex_unlock(&c->commit_lock);
        snapshot_release(next);
        if (collection_wants_seal(c))
            OK(collection_seal(c, &f->ctx));
    }
}

static uint64_t bytes_of(const struct rig *r, const char *folder, const char *suffix)
{
    char dir[PATH_CAP], path[PATH_CAP + 300];
    struct stat st;
    uint64_t sum = 0;
    snprintf(dir, sizeof dir, "%s/%s", r->c->dir, folder);
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        const char *dot = strrchr(e->d_name, '.');
        if (dot && strcmp(dot, suffix) == 0 && stat(path, &st) == 0)
            sum += (uint64_t)st.st_size;
    }
    closedir(d);
    return sum;
}

static void expect_version(struct rig *r, uint64_t version)
{
    struct fixture *f = &r->f;
    struct snapshot *s;
    struct row_ref ref;
    OK(collection_open_version(r->c, version, true, &s, &f->ctx));
    assert_int_equal(s->rows, version);
    for (int64_t key = 0; key < MANY; key += 37)
        assert_int_equal(snapshot_find_int(s, key, &ref), key < (int64_t)version);
    snapshot_release(s);
}

static void ten_thousand_versions_cost_little(void **state)
{
    (void)state;
    struct rig rg, *r = &rg;
    rig_new(r, IO_AUTO, KEY_INT64);
    upsert_many(r, MANY);
    pthread_mutex_lock(&r->c->history.lock);
    assert_true(r->c->history.commits <= 4096 + GROUP); /* what a start replays */
    pthread_mutex_unlock(&r->c->history.lock);
    OK_RIG(collection_seal(r->c, &r->f.ctx));
    uint64_t bytes = bytes_of(r, "log", ".hist") + bytes_of(r, "log", ".ckpt");
    printf("%llu bytes a version\n", (unsigned long long)bytes / MANY);
    assert_true(bytes / MANY < 1024);
    uint64_t t0 = clock_mono_us();
    rig_reopen(r);
    uint64_t t1 = clock_mono_us();
    assert_int_equal(r->c->history.nrecent, 0);
    expect_version(r, 5000);
    uint64_t t2 = clock_mono_us();
    printf("opened in %llu us, version 5000 read in %llu us\n", (unsigned long long)(t1 - t0),
           (unsigned long long)(t2 - t1));
    for (uint64_t v = 1; v <= MANY; v += 701)
        expect_version(r, v);
    expect_version(r, MANY);
    OK_RIG(history_verify(r->c, &r->f.ctx));
    rig_free(r);
}

/* Versions of each are found; those that nobody needs go after a week. */
static void files_follow_each_other(void **state)
{
    (void)state;
    struct rig rg, *r = &rg;
    rig_new(r, IO_POSIX, KEY_INT64);
    char *text = malloc(400 << 10);
    memset(text, 'm', 400 << 10);
    for (int i = 0; i < 12; i++) { /* a few long messages fill a file */
        struct fixture *f = &r->f;
        struct load_options o = {.mode = LOAD_UPSERT, .expected_version = -1, .message = text};
        struct commit_result result;
        struct load *l;
        text[(400 << 10) - 1] = 0;
        (void)rig_next(r);
        OK(load_new(r->c, &o, &l, &f->ctx));
        OK(load_commit(l, &result, &f->ctx));
        load_free(l);
        rig_done(r);
        rig_upsert(r, i, i + 5);
        OK(collection_checkpoint(r->c, &f->ctx));
    }
    assert_true(r->c->history.files.len / sizeof(uint64_t) >= 3);
    rig_expect_all(r);
    rig_reopen(r);
    rig_expect_all(r);
    size_t before = r->c->history.files.len;
    history_prune(r->c, INT64_MAX);
    assert_int_equal(r->c->history.files.len, before); /* every version is kept */
    rig_vacuum(r, r->newest - 1);
    assert_true(r->c->history.files.len >= before); /* for a week */
    pthread_mutex_lock(&r->c->seal_lock);
    history_prune(r->c, INT64_MAX);
    pthread_mutex_unlock(&r->c->seal_lock);
    assert_true(r->c->history.files.len < before);
    for (int turn = 0; turn < 2; turn++) {
        rig_expect(r, r->newest - 1);
        rig_expect(r, r->newest);
        OK_RIG(history_verify(r->c, &r->f.ctx));
        rig_reopen(r);
    }
    free(text);
    rig_free(r);
}

/* ---- crashes ---- */

static void run(const char *command)
{
    assert_int_equal(system(command), 0);
}

/* A kill in the middle of a sealing, made of two states: the log as it was before, beside what the
 * sealing wrote; with its checkpoint (older files were about to go) or without (it was about to
 * come). */
static void seal_and_crash(struct rig *r, bool before_checkpoint)
{
    struct fixture *f = &r->f;
    char command[3 * PATH_CAP];
    snprintf(command, sizeof command, "rm -rf %s.kept && cp -r %s/c/log %s.kept", f->dir, f->dir,
             f->dir);
    run(command);
    OK(collection_seal(r->c, &f->ctx));
    catalog_close(f->cat);
    if (before_checkpoint) {
        snprintf(command, sizeof command, "rm $(ls %s/c/log/*.ckpt | tail -1)", f->dir);
        run(command);
    }
    snprintf(command, sizeof command,
             "cp -n %s.kept/*.log %s.kept/*.ckpt %s/c/log/ 2>/dev/null;"
             " rm -rf %s.kept",
             f->dir, f->dir, f->dir, f->dir);
    run(command);
    fixture_open(f);
    r->c = fixture_find(f, "c");
}

static void a_crash_around_a_checkpoint_changes_nothing(void **state)
{
    (void)state;
    for (int before = 0; before < 2; before++) {
        struct rig rg, *r = &rg;
        bool created;
        rig_new(r, IO_POSIX, KEY_STRING);
        for (int round = 0; round < 4; round++) {
            uint64_t tagged;
            rig_upsert(r, 3 * round, 3 * round + 30);
            rig_delete(r, round, round + 4);
            OK_RIG(collection_tag_set(r->c, "t", r->newest, &created, &r->f.ctx));
            uint64_t expected = r->newest;
            if (round == 2)
                rig_alter(r);
            rig_restore(r, r->newest - 1);
            seal_and_crash(r, before);
            rig_expect_all(r);
            OK_RIG(collection_tag_get(r->c, "t", &tagged, &r->f.ctx));
            assert_int_equal(tagged, expected);
        }
        rig_free(r);
    }
}

/* Until a checkpoint stands behind a vacuum, the log leads to the files that it let go of. */
static void a_vacuum_in_the_log_keeps_the_files_that_the_log_opens(void **state)
{
    (void)state;
    struct rig rg, *r = &rg;
    struct buf removed = {0};
    char path[PATH_CAP];
    rig_new(r, IO_POSIX, KEY_STRING);
    rig_upsert(r, 0, 30);
    OK_RIG(collection_seal(r->c, &r->f.ctx));
    rig_compact(r); /* its file is named by a record of the log */
    rig_upsert(r, 20, 40);
    rig_replace_all(r, 5, 15);
    rig_log_vacuum(r, 3, &removed);
    assert_int_equal(removed.len / 8, 2);
    rig_reopen(r);
    for (size_t i = 0; i < 2; i++) {
        segment_file_path(r->c, "segments", ((const uint64_t *)removed.data)[i], path, sizeof path);
        assert_int_equal(access(path, F_OK), 0);
    }
    rig_expect(r, 3);
    OK_RIG(collection_checkpoint(r->c, &r->f.ctx));
    rig_reopen(r);
    rig_expect(r, 3);
    for (size_t i = 0; i < 2; i++) {
        segment_file_path(r->c, "segments", ((const uint64_t *)removed.data)[i], path, sizeof path);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    buf_deinit(&removed);
    rig_free(r);
}

static void an_idle_collection_is_checkpointed(void **state)
{
    (void)state;
    struct rig rg, *r = &rg;
    size_t left = 1;
    rig_new(r, IO_AUTO, KEY_INT64);
    upsert_many(r, 300);
    for (int i = 0; left && i < 600; i++) {
        usleep(50 * 1000);
        pthread_mutex_lock(&r->c->history.lock);
        left = r->c->history.nrecent;
        pthread_mutex_unlock(&r->c->history.lock);
    }
    assert_int_equal(left, 0);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_versions_cost_little),
        cmocka_unit_test(files_follow_each_other),
        cmocka_unit_test(a_vacuum_in_the_log_keeps_the_files_that_the_log_opens),
        cmocka_unit_test(an_idle_collection_is_checkpointed),
        cmocka_unit_test(a_crash_around_a_checkpoint_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
