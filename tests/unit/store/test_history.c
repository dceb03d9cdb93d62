/* Every old version is what it was: against a model that keeps each of them whole, through reopens,
 * sealings, alterations, replacements, restores, compactions and vacuums. */
#include "history_rig.h"

struct param {
    enum io_backend backend;
    enum key_type key;
};

static struct param params[] = {{IO_POSIX, KEY_STRING}, {IO_AUTO, KEY_INT64}};

static void random_step(struct rig *r)
{
    int64_t a = rand() % KEYS, b = a + 1 + rand() % 20;
    int64_t to = b > KEYS ? KEYS : b;
    switch (rand() % 12) {
    case 0:
        rig_delete(r, a, to);
        break;
    case 1:
        rig_replace_all(r, a, to);
        break;
    case 2:
        rig_restore(r, (uint64_t)rand() % (r->newest + 1));
        break;
    case 3:
        OK_RIG(collection_seal(r->c, &r->f.ctx));
        break;
    case 4:
        rig_compact(r);
        break;
    case 5:
        if (rand() % 4 == 0)
            rig_alter(r);
        break;
    case 6:
        if (rand() % 3 == 0)
            rig_reopen(r);
        break;
    default:
        rig_upsert(r, a, to);
    }
}

static void every_version_equals_the_model(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    const char *given = getenv("TEST_SEED");
    unsigned seed = given ? (unsigned)atoi(given) : (unsigned)getpid();
    printf("seed %u\n", seed);
    srand(seed);
    rig_new(r, p->backend, p->key);
    for (int i = 0; i < 300; i++) {
        random_step(r);
        rig_expect(r, (uint64_t)rand() % (r->newest + 1));
        if (i % 60 == 59)
            rig_expect_all(r);
    }
    rig_reopen(r);
    rig_expect_all(r);
    rig_free(r);
}

static void a_replaced_collection_keeps_what_it_was(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    rig_new(r, p->backend, p->key);
    rig_upsert(r, 0, 50);
    OK_RIG(collection_seal(r->c, &r->f.ctx));
    rig_upsert(r, 40, 60);
    rig_replace_all(r, 55, 70);
    rig_replace_all(r, 0, 0);
    rig_upsert(r, 3, 4);
    rig_expect_all(r);
    epoch_enter();
    assert_int_equal(collection_snapshot(r->c)->nviews, 1);
    epoch_leave();
    OK_RIG(collection_seal(r->c, &r->f.ctx));
    rig_expect_all(r);
    rig_reopen(r);
    rig_expect_all(r);
    rig_free(r);
}

static void a_restore_brings_back_rows_of_the_tail(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    rig_new(r, p->backend, p->key);
    rig_upsert(r, 0, 10);
    rig_upsert(r, 5, 20);
    rig_delete(r, 0, 3);
    rig_restore(r, 1); /* a part of the active tail */
    rig_upsert(r, 30, 40);
    rig_expect_all(r);
    OK_RIG(collection_seal(r->c, &r->f.ctx));
    rig_restore(r, 2); /* rows of a file that has more by now */
    rig_restore(r, 0);
    rig_restore(r, 5);
    rig_upsert(r, 0, 5);
    rig_expect_all(r);
    rig_reopen(r);
    rig_expect_all(r);
    rig_free(r);
}

static void the_schema_is_that_of_the_commit(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    struct snapshot *s;
    rig_new(r, p->backend, p->key);
    rig_upsert(r, 0, 5);
    rig_alter(r);
    epoch_enter();
    assert_int_equal(collection_snapshot(r->c)->schema->nfeatures, TAGS + 2);
    epoch_leave();
    rig_expect_all(r); /* version 1, though the newest, under its own schema */
    OK_RIG(collection_seal(r->c, &r->f.ctx));
    rig_compact(r);
    rig_expect_all(r);
    rig_reopen(r);
    OK_RIG(collection_open_version(r->c, 1, true, &s, &r->f.ctx));
    assert_int_equal(s->schema->nfeatures, TAGS + 1);
    snapshot_release(s);
    rig_upsert(r, 3, 8);
    rig_expect_all(r);
    rig_free(r);
}

static void versions_that_are_not_there_are_told_apart(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    struct snapshot *s;
    uint64_t v;
    bool created;
    rig_new(r, p->backend, p->key);
    for (int i = 0; i < 6; i++)
        rig_upsert(r, i, i + 2);
    assert_int_equal(collection_open_version(r->c, 7, true, &s, &r->f.ctx), ERR_NOT_FOUND);
    OK_RIG(collection_tag_set(r->c, "v2", 2, &created, &r->f.ctx));
    assert_true(created);
    OK_RIG(collection_seal(r->c, &r->f.ctx));
    OK_RIG(collection_pin(r->c, 4, &r->f.ctx));
    rig_vacuum(r, 5);
    collection_unpin(r->c, 4);
    for (int turn = 0; turn < 2; turn++) {
        for (uint64_t at = 1; at <= 6; at++) {
            bool there = at == 2 || at >= 4;
            struct selector sel = {.kind = SELECT_VERSION, .version = at};
            assert_int_equal(collection_resolve(r->c, &sel, true, &v, &r->f.ctx),
                             there ? ERR_OK : ERR_GONE);
            if (there)
                rig_expect(r, at);
            else
                assert_int_equal(collection_open_version(r->c, at, true, &s, &r->f.ctx), ERR_GONE);
        }
        rig_expect(r, 0);
        assert_int_equal(collection_tag_set(r->c, "gone", 1, &created, &r->f.ctx), ERR_GONE);
        rig_reopen(r);
    }
    rig_free(r);
}

static void only_what_versions_need_survives_a_vacuum(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    struct buf left = {0};
    bool created;
    rig_new(r, p->backend, p->key);
    for (int i = 0; i < 8; i++) {
        rig_replace_all(r, i * 3, i * 3 + 10);
        OK_RIG(collection_seal(r->c, &r->f.ctx));
    }
    OK_RIG(collection_tag_set(r->c, "third", 3, &created, &r->f.ctx));
    assert_int_equal(rig_vacuum(r, 7), 5);
    registry_list(r->c, &left);
    assert_int_equal(left.len / sizeof(struct segment_ref), 3);
    for (int turn = 0; turn < 2; turn++) {
        rig_expect(r, 3);
        rig_expect(r, 7);
        rig_expect(r, 8);
        rig_reopen(r);
    }
    OK_RIG(collection_tag_delete(r->c, "third", &r->f.ctx));
    assert_int_equal(rig_vacuum(r, 8), 2);
    rig_reopen(r);
    rig_expect(r, 8);
    buf_deinit(&left);
    rig_free(r);
}

static void what_is_not_at_hand_is_left_to_a_worker(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    struct snapshot *s, *again;
    rig_new(r, p->backend, p->key);
    rig_upsert(r, 0, 5);
    rig_upsert(r, 3, 9);
    OK_RIG(collection_open_version(r->c, 2, false, &s, &r->f.ctx));
    snapshot_release(s);
    assert_int_equal(collection_open_version(r->c, 1, false, &s, &r->f.ctx), ERR_AGAIN);
    OK_RIG(collection_open_version(r->c, 1, true, &s, &r->f.ctx));
    OK_RIG(collection_open_version(r->c, 1, false, &again, &r->f.ctx));
    assert_ptr_equal(s, again);
    snapshot_release(s);
    snapshot_release(again);
    rig_free(r);
}

/* ---- lists ---- */

struct listed {
    uint64_t versions[64];
    size_t n;
};

static bool take_version(void *arg, const struct version_info *info)
{
    struct listed *l = arg;
    l->versions[l->n++] = info->version;
    return true;
}

static void expect_list(struct rig *r, uint64_t before, uint64_t limit, uint64_t from, uint64_t to)
{
    struct listed l = {.n = 0};
    OK_RIG(collection_versions(r->c, before, limit, take_version, &l, &r->f.ctx));
    assert_int_equal(l.n, from >= to ? from - to + 1 : 0);
    for (size_t i = 0; i < l.n; i++)
        assert_int_equal(l.versions[i], from - i);
}

static void versions_are_listed_from_the_newest(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    struct version_info info;
    struct buf hold = {0};
    rig_new(r, p->backend, p->key);
    for (int i = 0; i < 20; i++) {
        rig_upsert(r, i, i + 3);
        if (i % 7 == 6)
            OK_RIG(collection_seal(r->c, &r->f.ctx));
    }
    for (int turn = 0; turn < 3; turn++) {
        expect_list(r, 0, 50, 20, 1);
        expect_list(r, 0, 4, 20, 17);
        expect_list(r, 11, 6, 10, 5);
        expect_list(r, 2, 6, 1, 1);
        expect_list(r, 1, 6, 0, 1);
        for (uint64_t v = 1; v <= 20; v++) {
            OK_RIG(collection_version_info(r->c, v, &hold, &info, &r->f.ctx));
            assert_int_equal(info.version, v);
            assert_int_equal(info.rows, 3);
            assert_int_equal(info.inserted, v == 1 ? 3 : 1);
            assert_int_equal(info.live_rows, v + 2);
            assert_memory_equal(&info.digest, &r->versions[v].digest, sizeof info.digest);
        }
        assert_int_equal(collection_version_info(r->c, 0, &hold, &info, &r->f.ctx), ERR_NOT_FOUND);
        if (turn == 0)
            rig_reopen(r);
        else if (turn == 1)
            rig_vacuum(r, 1);
    }
    rig_vacuum(r, 9);
    expect_list(r, 0, 50, 20, 9);
    expect_list(r, 9, 50, 8, 9);
    buf_deinit(&hold);
    rig_free(r);
}

static bool take_commit(void *arg, const struct commit_meta *m)
{
    struct listed *l = arg;
    l->versions[l->n++] = m->version;
    return true;
}

static void commits_come_oldest_first_and_times_lead_to_versions(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    int64_t times[31] = {0};
    uint64_t v;
    rig_new(r, p->backend, p->key);
    for (int i = 1; i <= 30; i++) {
        rig_upsert(r, i, i + 3);
        epoch_enter();
        times[i] = collection_snapshot(r->c)->time_us;
        epoch_leave();
        if (i % 8 == 0)
            OK_RIG(collection_seal(r->c, &r->f.ctx));
    }
    for (int turn = 0; turn < 2; turn++) {
        for (uint64_t at = 1; at <= 30; at++) {
            struct listed l = {.n = 0};
            OK_RIG(collection_history_each(r->c, times[at - 1], take_commit, &l, &r->f.ctx));
            assert_int_equal(l.n, 31 - at);
            for (size_t i = 0; i < l.n; i++)
                assert_int_equal(l.versions[i], at + i);
            struct selector sel = {.kind = SELECT_TIME, .time_us = times[at]};
            OK_RIG(collection_resolve(r->c, &sel, true, &v, &r->f.ctx));
            assert_int_equal(v, at);
            sel.time_us--;
            enum err e = collection_resolve(r->c, &sel, true, &v, &r->f.ctx);
            assert_int_equal(e, at == 1 ? ERR_NOT_FOUND : ERR_OK);
            if (at > 1)
                assert_int_equal(v, at - 1);
        }
        rig_reopen(r);
    }
    rig_free(r);
}

/* ---- tags ---- */

struct seen_tags {
    char text[400];
};

static void see_tag(void *arg, const char *tag, uint64_t version)
{
    struct seen_tags *t = arg;
    size_t n = strlen(t->text);
    snprintf(t->text + n, sizeof t->text - n, "%s=%llu ", tag, (unsigned long long)version);
}

static void expect_tags(struct rig *r, const char *text)
{
    struct seen_tags t = {""};
    collection_tags_each(r->c, see_tag, &t);
    assert_string_equal(t.text, text);
}

static void tags_survive_and_move(void **state)
{
    struct param *p = *state;
    struct rig rg, *r = &rg;
    bool created;
    uint64_t v;
    rig_new(r, p->backend, p->key);
    for (int i = 0; i < 3; i++)
        rig_upsert(r, i, i + 1);
    OK_RIG(collection_tag_set(r->c, "prod", 1, &created, &r->f.ctx));
    OK_RIG(collection_tag_set(r->c, "2024-01-01", 2, &created, &r->f.ctx));
    OK_RIG(collection_tag_set(r->c, "v1.0", 2, &created, &r->f.ctx));
    OK_RIG(collection_tag_set(r->c, "prod", 3, &created, &r->f.ctx));
    assert_false(created);
    OK_RIG(collection_tag_delete(r->c, "v1.0", &r->f.ctx));
    for (int turn = 0; turn < 3; turn++) {
        expect_tags(r, "2024-01-01=2 prod=3 ");
        OK_RIG(collection_tag_get(r->c, "prod", &v, &r->f.ctx));
        assert_int_equal(v, 3);
        assert_int_equal(collection_tag_get(r->c, "v1.0", &v, &r->f.ctx), ERR_NOT_FOUND);
        assert_int_equal(collection_tag_delete(r->c, "v1.0", &r->f.ctx), ERR_NOT_FOUND);
        if (turn == 1)
            OK_RIG(collection_checkpoint(r->c, &r->f.ctx));
        rig_reopen(r);
    }
    assert_int_equal(collection_tag_set(r->c, "x", 4, &created, &r->f.ctx), ERR_NOT_FOUND);
    assert_int_equal(collection_tag_set(r->c, "a b", 1, &created, &r->f.ctx), ERR_INVALID);
    assert_int_equal(collection_tag_set(r->c, "", 1, &created, &r->f.ctx), ERR_INVALID);
    assert_int_equal(collection_tag_set(r->c, "-x", 1, &created, &r->f.ctx), ERR_INVALID);
    OK_RIG(collection_tag_set(r->c, "empty", 0, &created, &r->f.ctx));
    rig_free(r);
}

#define EACH(test)                                                                                 \
    {#test, test, NULL, NULL, &params[0]},                                                         \
    {                                                                                              \
#test, test, NULL, NULL, &params[1]                                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(every_version_equals_the_model),
        EACH(a_replaced_collection_keeps_what_it_was),
        EACH(a_restore_brings_back_rows_of_the_tail),
        EACH(the_schema_is_that_of_the_commit),
        EACH(versions_that_are_not_there_are_told_apart),
        EACH(only_what_versions_need_survives_a_vacuum),
        EACH(what_is_not_at_hand_is_left_to_a_worker),
        EACH(versions_are_listed_from_the_newest),
        EACH(commits_come_oldest_first_and_times_lead_to_versions),
        EACH(tags_survive_and_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
