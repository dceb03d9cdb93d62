/* Builds that somebody waits for, of segments that no version has yet: before the queue, watched,
 * ended; and what becomes of structures of segments that only older versions need. This program is
 * its own build child. */
#include "world.h"

#include <pthread.h>

/* A finished segment of the collection in staging/, as a load or a compaction makes it. */
static struct segment *stage(struct world *w, struct collection *c, uint64_t id)
{
    struct segment_writer *writer;
    struct segment *s;
    struct seq_run run = {.version = 1};
    char path[700];
    snprintf(path, sizeof(path), "%s/staging/%016llx.seg", collection_dir(c),
             (unsigned long long)id);
    epoch_enter();
    struct schema *schema = schema_acquire(collection_snapshot(c)->schema);
    epoch_leave();
    assert_int_equal(
        segment_writer_new(w->io, path, collection_id(c), id, schema, 0, &writer, NULL), 0);
    assert_int_equal(segment_writer_append_run(writer, w->vectors, ROWS, 0, NULL), ERR_OK);
    assert_int_equal(segment_writer_finish(writer, &run, 1, NULL), ERR_OK);
    segment_writer_free(writer);
    schema_release(schema);
    assert_int_equal(segment_open(path, collection_id(c), &s, NULL), ERR_OK);
    return s;
}

static bool ann_there(struct collection *c, uint64_t id, const char *suffix)
{
    char path[700];
    snprintf(path, sizeof(path), "%s/index/%016llx.ann%s", collection_dir(c),
             (unsigned long long)id, suffix);
    return access(path, F_OK) == 0;
}

static void a_staged_segment_is_built_and_attached(void **state)
{
    (void)state;
    struct world w = {0};
    struct err_ctx ctx;
    struct build_watch watch = {0};
    err_clear(&ctx);
    world_open(&w, self);
    create(&w, "words", INDEX_HNSW);
    struct collection *c = find(&w, "words");
    struct segment *s = stage(&w, c, 77);
    if (indexer_segment_build(w.indexer, c, s, &watch, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    assert_non_null(segment_ann(s));
    assert_true(watch.progress == 1 && watch.eta_s == 0);
    assert_int_equal(state_of(&w, c).indexed_rows, 0); /* no version has it */
    assert_false(state_of(&w, c).building);

    struct segment *again = NULL; /* as an older version would open it */
    assert_int_equal(segment_open(s->path, collection_id(c), &again, NULL), ERR_OK);
    setenv("TEST_BUILD_SLEEPS", "1", 1); /* whatever is built from here on is missed */
    indexer_segment_opened(w.indexer, c, again);
    assert_non_null(segment_ann(again));
    indexer_segment_removed(w.indexer, c, 77);
    assert_false(ann_there(c, 77, ""));
    segment_release(again);
    assert_int_equal(segment_open(s->path, collection_id(c), &again, NULL), ERR_OK);
    indexer_segment_opened(w.indexer, c, again);
    assert_null(segment_ann(again));
    assert_false(state_of(&w, c).building);
    unsetenv("TEST_BUILD_SLEEPS");
    segment_release(again);
    segment_release(s);
    collection_release(c);
    world_close(&w);
}

static void what_is_not_to_be_built_is_no_error(void **state)
{
    (void)state;
    struct world w = {0};
    struct build_watch watch = {0};
    world_open(&w, "/no/such/loadstoned");
    create(&w, "words", INDEX_FLAT);
    struct collection *c = find(&w, "words");
    struct segment *s = stage(&w, c, 77);
    assert_int_equal(indexer_segment_build(w.indexer, c, s, &watch, NULL), ERR_OK);
    assert_int_equal(indexer_segment_build(w.indexer, c, s, NULL, NULL), ERR_OK);
    assert_null(segment_ann(s));
    assert_true(watch.progress == 1 && watch.eta_s == 0);
    indexer_segment_removed(w.indexer, c, 77);
    segment_release(s);
    collection_release(c);
    world_close(&w);
}

static void what_cannot_be_built_is_a_sentence(void **state)
{
    (void)state;
    struct world w = {.memory_bytes = 16 << 20};
    struct err_ctx ctx;
    err_clear(&ctx);
    world_open(&w, self);
    create(&w, "words", INDEX_HNSW);
    struct collection *c = find(&w, "words");
    struct segment *s = stage(&w, c, 77);
    assert_int_equal(indexer_segment_build(w.indexer, c, s, NULL, &ctx), ERR_UNPROCESSABLE);
    assert_non_null(strstr(ctx.detail, "raise --memory"));
    world_stop(&w);
    w.memory_bytes = 0;
    segment_release(s);
    collection_release(c);

    world_start(&w, "/bin/false");
    c = find(&w, "words");
    s = stage(&w, c, 78);
    assert_int_equal(indexer_segment_build(w.indexer, c, s, NULL, &ctx), ERR_INTERNAL);
    assert_non_null(strstr(ctx.detail, "ended with status 1"));
    assert_null(segment_ann(s));
    segment_release(s);
    collection_release(c);
    world_close(&w);
}

/* ---- turns ---- */

struct waiter {
    struct world *w;
    struct collection *c;
    struct segment *s;
    struct build_watch watch;
    struct err_ctx ctx;
    enum err e;
    pthread_t thread;
};

static void *build_and_wait(void *arg)
{
    struct waiter *b = arg;
    err_clear(&b->ctx);
    b->e = indexer_segment_build(b->w->indexer, b->c, b->s, &b->watch, &b->ctx);
    return NULL;
}

static void waiter_start(struct waiter *b, struct world *w, struct collection *c, uint64_t id)
{
    *b = (struct waiter){.w = w, .c = c, .s = stage(w, c, id)};
    assert_int_equal(pthread_create(&b->thread, NULL, build_and_wait, b), 0);
}

static enum err waiter_join(struct waiter *b)
{
    pthread_join(b->thread, NULL);
    segment_release(b->s);
    return b->e;
}

/* A collection whose loaded segment is being built, by a child that takes a minute. */
static struct collection *busy(struct world *w, const char *name)
{
    setenv("TEST_BUILD_SLEEPS", "1", 1);
    create(w, name, INDEX_HNSW);
    struct collection *c = find(w, name);
    load_rows(w, c);
    usleep(300000); /* the child is there and has read its environment */
    assert_true(state_of(w, c).building);
    unsetenv("TEST_BUILD_SLEEPS");
    return c;
}

static void urgent_builds_do_not_wait_for_the_queue(void **state)
{
    (void)state;
    struct world w = {0};
    world_open(&w, self);
    struct collection *c = busy(&w, "words");
    struct waiter first, second;
    waiter_start(&first, &w, c, 77);
    waiter_start(&second, &w, c, 78);
    assert_int_equal(waiter_join(&first), ERR_OK);
    assert_int_equal(waiter_join(&second), ERR_OK);
    assert_true(state_of(&w, c).building); /* the one in the queue */
    assert_int_equal(state_of(&w, c).error[0], 0);
    collection_release(c);
    world_close(&w);
}

static void two_builds_that_pass_the_budget_run_one_after_another(void **state)
{
    (void)state;
    struct world w = {.memory_bytes = 50 << 20}; /* one takes 35 MiB */
    world_open(&w, self);
    struct collection *c = busy(&w, "words");
    struct waiter b;
    waiter_start(&b, &w, c, 77);
    usleep(300000);
    assert_true(b.watch.progress == 0 && b.watch.eta_s < 0);
    load_rows(&w, c); /* the same keys: the running build is given up */
    assert_int_equal(waiter_join(&b), ERR_OK);
    assert_int_equal(wait_ready(&w, c).indexed_rows, ROWS);
    collection_release(c);
    world_close(&w);
}

static void whoever_waits_is_let_go(void **state)
{
    (void)state;
    static const struct {
        enum err e;
        const char *said;
    } want[] = {
        {ERR_CONFLICT, "was ended"}, {ERR_NOT_FOUND, "dropped"}, {ERR_UNAVAILABLE, "stopped"}};
    for (int i = 0; i < 3; i++) {
        struct world w = {0};
        struct waiter running, waiting;
        world_open(&w, self);
        create(&w, "words", INDEX_HNSW);
        struct collection *c = find(&w, "words");
        setenv("TEST_BUILD_SLEEPS", "1", 1);
        waiter_start(&running, &w, c, 77);
        waiter_start(&waiting, &w, c, 78);
        usleep(300000);
        assert_true(state_of(&w, c).building);
        if (i == 0) {
            atomic_store(&running.watch.cancel, true);
            atomic_store(&waiting.watch.cancel, true);
        } else if (i == 1) {
            assert_int_equal(catalog_drop(w.catalog, "words", NULL), ERR_OK);
        } else {
            indexer_stop(w.indexer);
        }
        assert_int_equal(waiter_join(&running), want[i].e);
        assert_int_equal(waiter_join(&waiting), want[i].e);
        assert_non_null(strstr(running.ctx.detail, want[i].said));
        assert_false(ann_there(c, 77, ".tmp"));
        assert_false(state_of(&w, c).building);
        unsetenv("TEST_BUILD_SLEEPS");
        collection_release(c);
        world_close(&w);
    }
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_staged_segment_is_built_and_attached),
        cmocka_unit_test(what_is_not_to_be_built_is_no_error),
        cmocka_unit_test(what_cannot_be_built_is_a_sentence),
        cmocka_unit_test(urgent_builds_do_not_wait_for_the_queue),
        cmocka_unit_test(two_builds_that_pass_the_budget_run_one_after_another),
        cmocka_unit_test(whoever_waits_is_let_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return world_main(argc, argv, all_tests);
}
