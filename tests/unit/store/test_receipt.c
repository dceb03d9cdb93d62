/* Receipts: a key answers for the last request that came with it, a load for itself, whatever
 * becomes of the key it was opened with. */
#include "store_fixture.h"

#include "base/clock.h"
#include "store/collection_internal.h"
#include "store/receipt.h"

enum { KEYS_STANDARD = 1000 };

/* Of load `id` (0: of none), under `key` (NULL: without); version 0: not committed. */
static void add(struct collection *c, uint8_t id, const char *key, uint64_t version)
{
    struct receipt r = {.keyed = key != NULL,
                        .of_load = id != 0,
                        .load_id = {id},
                        .time_us = clock_wall_us(),
                        .committed = version != 0,
                        .result = {.version = version}};
    if (key)
        receipt_hash_key(key, strlen(key), r.key);
    receipt_add(c, &r);
}

static void expect_load(struct fixture *f, struct collection *c, uint8_t id, uint64_t version)
{
    uint8_t load[LOAD_ID_BYTES] = {id};
    struct receipt r;
    bool found;
    OK(receipt_find_load(c, load, &found, &r, &f->ctx));
    assert_true(found);
    assert_int_equal(r.committed, version != 0);
    assert_int_equal(r.result.version, version);
}

/* The version that the key answers with; 0: none. */
static uint64_t version_of_key(struct fixture *f, struct collection *c, const char *key)
{
    struct receipt_claim *claim;
    struct receipt r;
    bool found;
    OK(receipt_claim(c, key, strlen(key), KEYS_STANDARD, &claim, &found, &r, &f->ctx));
    receipt_release(c, claim);
    return found ? r.result.version : 0;
}

static void a_key_that_comes_again_takes_no_load_its_answer(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    assert_int_equal(version_of_key(f, c, "k"), 0); /* from here on the index is there */
    add(c, 1, "k", 0); /* load 1 is opened, and committed, with the key */
    add(c, 1, "k", 1);
    add(c, 2, "k", 2);
    assert_int_equal(version_of_key(f, c, "k"), 2);
    expect_load(f, c, 1, 1);
    expect_load(f, c, 2, 2);
    add(c, 0, "k", 3);
    add(c, 0, "k", 4);
    assert_int_equal(version_of_key(f, c, "k"), 4);
    expect_load(f, c, 1, 1);
    expect_load(f, c, 2, 2);
    fixture_free(f);
}

/* A load that is still open when its key comes again is committed after the other request. */
static void a_load_does_not_take_its_key_back(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    assert_int_equal(version_of_key(f, c, "k"), 0);
    add(c, 1, "k", 0);
    add(c, 2, "k", 5);
    add(c, 1, "k", 6);
    assert_int_equal(version_of_key(f, c, "k"), 5);
    expect_load(f, c, 1, 6);
    expect_load(f, c, 2, 5);
    fixture_free(f);
}

/* A commit's own key comes to what its load left. */
static void a_commit_adds_its_key(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    assert_int_equal(version_of_key(f, c, "k"), 0);
    add(c, 1, NULL, 7);
    add(c, 1, "k", 7);
    assert_int_equal(version_of_key(f, c, "k"), 7);
    expect_load(f, c, 1, 7);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_that_comes_again_takes_no_load_its_answer),
        cmocka_unit_test(a_load_does_not_take_its_key_back),
        cmocka_unit_test(a_commit_adds_its_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
