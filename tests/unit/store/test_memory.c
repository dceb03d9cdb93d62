/* Memory that runs out: the Nth allocation of the thread at work fails, for N = 1, 2, 3 ... until a
 * run needs fewer, once and for good. Every call then returns an error with a sentence, nothing
 * crashes, and with memory again all that was acknowledged is there. */
#include "fault/scarce.h"
#include "store_fixture.h"

#include "base/log.h"

enum { SMALL = 40, LARGE = 3000, GONE = 10, STRIDE_FROM = 60, STRIDE = 11 };

/* ---- the work ---- */

struct outcome {
    bool small, large, deleted;
};

/* A refusal says why. */
static bool done(struct fixture *f, enum err e)
{
    if (e != ERR_OK)
        assert_true(f->ctx.detail[0]);
    return e == ERR_OK;
}

static enum err fill(struct fixture *f, struct batch *b, int64_t from, int64_t n)
{
    for (int64_t key = from; key < from + n; key++) {
        float v[TEST_DIM] = {(float)key, 1, 2, 3}, price = (float)key / 2;
        char text[32];
        snprintf(text, sizeof text, "k%lld", (long long)key);
        RETURN_NOT_OK(batch_row_str(b, text, strlen(text), &f->ctx));
        RETURN_NOT_OK(batch_set_vector(b, v, &f->ctx));
        RETURN_NOT_OK(batch_set(b, PRICE, &price, sizeof price, &f->ctx));
        RETURN_NOT_OK(batch_set(b, COUNT, &key, sizeof key, &f->ctx));
        text[0] = 'n';
        RETURN_NOT_OK(batch_set(b, NAME, text, strlen(text), &f->ctx));
    }
    return ERR_OK;
}

static enum err load(struct fixture *f, struct collection *c, int64_t from, int64_t n,
                     uint64_t size_hint)
{
    struct load_options o = {.mode = LOAD_UPSERT, .expected_version = -1, .size_hint = size_hint};
    struct commit_result r;
    struct load *l;
    struct batch *b = NULL;
    RETURN_NOT_OK(load_new(c, &o, &l, &f->ctx));
    enum err e = batch_new(load_schema(l), &b, &f->ctx);
    if (e == ERR_OK)
        e = fill(f, b, from, n);
    if (e == ERR_OK)
        e = load_add(l, b, &f->ctx);
    if (e == ERR_OK)
        e = load_commit(l, &r, &f->ctx);
    batch_free(b);
    load_free(l);
    return e;
}

static enum err delete (struct fixture *f, struct collection *c) {
    struct load_options o = {.expected_version = -1}; struct commit_result r; struct batch * b;
    epoch_enter(); struct schema *s = schema_acquire(collection_snapshot(c)->schema); epoch_leave();
    enum err e = batch_new(s, &b, &f->ctx); schema_release(s); RETURN_NOT_OK(e);
    for (int64_t key = 0; key < GONE && e == ERR_OK;
         key++){char text[32]; snprintf(text, sizeof text, "k%lld", (long long)key);
                e = batch_row_str(b, text, strlen(text), &f->ctx);}
if (e == ERR_OK) e = collection_delete_keys(c, b, &o, &r, &f->ctx);
batch_free(b);
return e;
}

static void work(struct fixture *f, struct collection *c, struct outcome *o)
{
    *o = (struct outcome){0};
    o->small = done(f, load(f, c, 0, SMALL, 0));
    o->large = done(f, load(f, c, 1000, LARGE, 1ull << 30));
    done(f, collection_seal(c, &f->ctx));
    o->deleted = done(f, delete (f, c));
}

static void check(struct collection *c, const struct outcome *o, unsigned at)
{
    for (int64_t key = GONE; key < SMALL; key++) {
        assert_int_equal(has_key(c, key), has_key(c, SMALL - 1));
        if (has_key(c, key))
            expect_row(c, key, key);
    }
    if (o->small && !has_key(c, GONE))
        fail_msg("allocation %u: the small load is lost", at);
    for (int64_t key = 1000; key < 1000 + LARGE; key += 37) {
        if (o->large)
            expect_row(c, key, key);
        else
            assert_false(has_key(c, key));
    }
    for (int64_t key = 0; key < GONE; key++)
        assert_int_equal(has_key(c, key), o->small && !o->deleted);
}

/* One run: the collection is made and opened anew with memory at hand. */
static unsigned run(struct fixture *f, unsigned at, bool for_good)
{
    struct outcome o;
    struct collection *c = fixture_create(f, "c", KEY_STRING);
    memory.at = at;
    memory.for_good = for_good;
    memory.calls = 0;
    memory.armed = true;
    work(f, c, &o);
    memory.armed = false;
    check(c, &o, at);
    load_range(f, c, LOAD_UPSERT, 9000, 9010, 0); /* and it takes writes again */
    if (at % 5 == 0) {
        fixture_reopen(f);
        check(fixture_find(f, "c"), &o, at);
    }
    OK(catalog_drop(f->cat, "c", &f->ctx));
    return memory.calls;
}

static void sweep(bool for_good)
{
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    log_set_level(LOG_ERROR + 1);
    unsigned calls = run(f, 0, false), runs = 0;
    assert_true(calls > 100);
    for (unsigned at = 1; at <= calls; at += at < STRIDE_FROM ? 1 : STRIDE, runs++)
        run(f, at, for_good);
    print_message("%u of %u allocations failed\n", runs, calls);
    log_set_level(LOG_INFO);
    fixture_free(f);
}

static void each_failing_allocation_is_an_error_and_loses_nothing(void **state)
{
    (void)state;
    sweep(false);
}

static void no_more_memory_is_an_error_and_loses_nothing(void **state)
{
    (void)state;
    sweep(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_failing_allocation_is_an_error_and_loses_nothing),
        cmocka_unit_test(no_more_memory_is_an_error_and_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
