/* The indexer on a real collection: a bulk load is indexed by a child process, found again after a
 * restart without a rebuild, built anew when the file is damaged or the settings changed; failures
 * are sentences; a dropped collection's build is given up. This program is its own build child. */
#include "rig.h"

#include "base/clock.h"
#include "base/epoch.h"
#include "store/catalog.h"
#include "store/load.h"

enum { ROWS = 12000, DIM = 16, WAIT_S = 60 };

static char self[4096];

struct world {
    struct temp_dir dir;
    struct io *io;
    struct indexer *indexer;
    struct catalog *catalog;
    float *vectors;
};

static void world_start(struct world *w, const char *exe)
{
    struct indexer_options o = {.self = exe, .threads = 1};
    struct err_ctx ctx;
    err_clear(&ctx);
    assert_int_equal(indexer_new(&o, &w->indexer, NULL), ERR_OK);
    struct store_hooks hooks = {.arg = w->indexer, .segment_added = indexer_segment_added};
    char data[600];
    snprintf(data, sizeof(data), "%s/data", w->dir.path);
    if (catalog_open(data, w->io, &hooks, &w->catalog, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    while (!catalog_ready(w->catalog))
        usleep(1000);
}

static void world_stop(struct world *w)
{
    indexer_free(w->indexer);
    catalog_close(w->catalog);
    epoch_drain();
}

static void world_open(struct world *w, const char *exe)
{
    assert_int_equal(temp_dir_new(&w->dir), 0);
    assert_int_equal(io_new(IO_POSIX, &w->io, NULL), ERR_OK);
    w->vectors = rig_vectors(ROWS, DIM, 20, 1);
    for (size_t row = ROWS / 2; row < ROWS * 3 / 4; row++) /* twins */
        memcpy(w->vectors + row * DIM, w->vectors + (row - ROWS / 2) * DIM, DIM * sizeof(float));
    world_start(w, exe);
}

static void world_close(struct world *w)
{
    world_stop(w);
    io_free(w->io);
    free(w->vectors);
    temp_dir_remove(&w->dir);
}

static void create(struct world *w, const char *name, enum index_kind kind)
{
    struct schema *s;
    struct err_ctx ctx;
    bool created;
    err_clear(&ctx);
    assert_int_equal(schema_new(KEY_INT64, DIM, DIST_COSINE, &s, NULL), ERR_OK);
    s->index = (struct index_settings){.kind = kind, .m = 8, .ef_construction = 40};
    assert_int_equal(schema_seal(s, NULL), ERR_OK);
    if (catalog_create(w->catalog, name, s, &created, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    schema_release(s);
}

static struct collection *find(struct world *w, const char *name)
{
    struct collection *c;
    epoch_enter();
    assert_int_equal(catalog_find(w->catalog, name, &c, NULL), ERR_OK);
    collection_acquire(c);
    epoch_leave();
    return c;
}

/* Large enough a load to go into a segment file by itself, repeated keys aside. */
static void load_rows(struct world *w, struct collection *c)
{
    struct load_options o = {.mode = LOAD_UPSERT, .expected_version = -1};
    struct commit_result r;
    struct err_ctx ctx;
    struct load *l;
    struct batch *b;
    err_clear(&ctx);
    assert_int_equal(load_new(c, &o, &l, NULL), ERR_OK);
    assert_int_equal(batch_new(load_schema(l), &b, NULL), ERR_OK);
    assert_int_equal(batch_borrow_vectors(b, w->vectors, ROWS, 0, NULL), ERR_OK);
    if (load_add(l, b, &ctx) != ERR_OK || load_commit(l, &r, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    batch_free(b);
    load_free(l);
    if (collection_seal(c, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
}

static struct index_state state_of(struct world *w, struct collection *c)
{
    struct index_state st;
    epoch_enter();
    index_state_get(w->indexer, c, collection_snapshot(c), &st);
    epoch_leave();
    return st;
}

static struct index_state wait_ready(struct world *w, struct collection *c)
{
    uint64_t end_us = clock_mono_us() + WAIT_S * 1000000ull;
    for (;;) {
        struct index_state st = state_of(w, c);
        if (!st.building)
            return st;
        assert_true(st.progress >= 0 && st.progress <= 1);
        assert_int_equal(st.kind, INDEX_HNSW);
        if (clock_mono_us() > end_us)
            fail_msg("the index is not ready after %d s", WAIT_S);
        usleep(5000);
    }
}

static void assert_indexed(const struct index_state *st)
{
    if (st->error[0])
        fail_msg("%s", st->error);
    assert_int_equal(st->rows, ROWS);
    assert_int_equal(st->indexed_rows, ROWS);
    assert_true(st->progress == 1 && st->eta_s == 0 && st->bytes > 0);
    assert_int_equal(st->kind, INDEX_HNSW);
}

/* Path of the collection's only .ann file, and when it was written. */
static struct stat ann_stat(struct collection *c, char path[700])
{
    struct stat st;
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    assert_int_equal(s->nviews >= 1, 1);
    snprintf(path, 700, "%s/index/%016llx.ann", collection_dir(c),
             (unsigned long long)s->views[0].segment->id);
    epoch_leave();
    assert_int_equal(stat(path, &st), 0);
    return st;
}

static void a_load_is_indexed_and_found_again(void **state)
{
    (void)state;
    struct world w;
    char path[700];
    world_open(&w, self);
    create(&w, "words", INDEX_HNSW);
    struct collection *c = find(&w, "words");
    load_rows(&w, c);
    struct index_state st = wait_ready(&w, c);
    assert_indexed(&st);
    struct stat first = ann_stat(c, path);
    collection_release(c);

    world_stop(&w);
    world_start(&w, "/no/such/loadstoned"); /* nothing is built: nothing is missed */
    c = find(&w, "words");
    st = wait_ready(&w, c);
    assert_indexed(&st);
    struct stat second = ann_stat(c, path);
    assert_int_equal(first.st_ino, second.st_ino);
    collection_release(c);
    world_close(&w);
}

static void a_damaged_file_is_built_anew(void **state)
{
    (void)state;
    struct world w;
    char path[700], orphan[800];
    world_open(&w, self);
    create(&w, "words", INDEX_HNSW);
    struct collection *c = find(&w, "words");
    load_rows(&w, c);
    wait_ready(&w, c);
    ann_stat(c, path);
    collection_release(c);
    world_stop(&w);
    assert_int_equal(truncate(path, 70000), 0);
    snprintf(orphan, sizeof(orphan), "%.*s00000000000000aa.ann.tmp",
             (int)(strrchr(path, '/') + 1 - path), path);
    FILE *f = fopen(orphan, "w");
    assert_non_null(f);
    fclose(f);
    world_start(&w, self);
    c = find(&w, "words");
    struct index_state st = wait_ready(&w, c);
    assert_indexed(&st);
    assert_int_equal(access(orphan, F_OK), -1);
    collection_release(c);
    world_close(&w);
}

static void flat_and_small_collections_get_no_graph(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, self);
    create(&w, "flat", INDEX_FLAT);
    create(&w, "small", INDEX_AUTO); /* 12000 x 16 floats are scanned in no time */
    struct collection *flat = find(&w, "flat"), *small = find(&w, "small");
    load_rows(&w, flat);
    load_rows(&w, small);
    struct collection *both[] = {flat, small};
    for (int i = 0; i < 2; i++) {
        struct index_state st = state_of(&w, both[i]);
        assert_false(st.building);
        assert_int_equal(st.kind, INDEX_FLAT);
        assert_int_equal(st.rows, ROWS);
        assert_int_equal(st.indexed_rows, 0);
        assert_true(st.progress == 1 && st.eta_s == 0 && !st.error[0]);
        collection_release(both[i]);
    }
    world_close(&w);
}

static void a_failed_build_is_a_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *exe, *said;
    } cases[] = {{"/no/such/loadstoned", "cannot start /no/such/loadstoned"},
                 {"/bin/false", "ended with status 1"}};
    for (int i = 0; i < 2; i++) {
        struct world w;
        world_open(&w, cases[i].exe);
        create(&w, "words", INDEX_HNSW);
        struct collection *c = find(&w, "words");
        load_rows(&w, c);
        struct index_state st = wait_ready(&w, c);
        assert_int_equal(st.indexed_rows, 0);
        assert_int_equal(st.rows, ROWS);
        if (!strstr(st.error, cases[i].said))
            fail_msg("\"%s\" does not say \"%s\"", st.error, cases[i].said);
        collection_release(c);
        world_close(&w);
    }
}

static void a_running_build_does_not_outlive_its_reason(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, self);
    setenv("TEST_BUILD_SLEEPS", "1", 1);
    create(&w, "words", INDEX_HNSW);
    struct collection *c = find(&w, "words");
    load_rows(&w, c);
    assert_true(state_of(&w, c).building);
    uint64_t start_us = clock_mono_us();
    assert_int_equal(catalog_drop(w.catalog, "words", NULL), ERR_OK);
    while (state_of(&w, c).building)
        usleep(2000);
    assert_true(clock_mono_us() - start_us < 5000000);
    assert_string_equal(state_of(&w, c).error, "");
    collection_release(c);
    create(&w, "words", INDEX_HNSW);
    c = find(&w, "words");
    load_rows(&w, c);
    collection_release(c);
    start_us = clock_mono_us();
    world_close(&w); /* with a build running */
    assert_true(clock_mono_us() - start_us < 5000000);
    unsetenv("TEST_BUILD_SLEEPS");
}

static uint32_t graphs_attached(struct collection *c)
{
    uint32_t n = 0;
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    for (uint32_t i = 0; i < s->nviews; i++)
        n += segment_ann(s->views[i].segment) != NULL;
    epoch_leave();
    return n;
}

static void replaced_rows_are_not_built(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, self);
    setenv("TEST_BUILD_SLEEPS", "1", 1);
    create(&w, "words", INDEX_HNSW);
    struct collection *c = find(&w, "words");
    load_rows(&w, c);
    assert_true(state_of(&w, c).building);
    unsetenv("TEST_BUILD_SLEEPS");
    load_rows(&w, c); /* the same keys: the first segment's rows are all dead */
    struct index_state st = wait_ready(&w, c);
    assert_indexed(&st);
    assert_int_equal(graphs_attached(c), 1);
    collection_release(c);
    world_close(&w);
}

/* The dropped one asks for no index, and its segment has the number of its namesake's. */
static void settings_of_a_dropped_collection_leave_its_namesakes_file(void **state)
{
    (void)state;
    struct world w;
    char path[700];
    world_open(&w, self);
    create(&w, "words", INDEX_FLAT);
    struct collection *gone = find(&w, "words");
    load_rows(&w, gone);
    assert_int_equal(catalog_drop(w.catalog, "words", NULL), ERR_OK);
    create(&w, "words", INDEX_HNSW);
    struct collection *c = find(&w, "words");
    load_rows(&w, c);
    struct index_state st = wait_ready(&w, c);
    assert_indexed(&st);
    struct stat before = ann_stat(c, path);
    indexer_settings_changed(w.indexer, gone);
    assert_int_equal(ann_stat(c, path).st_ino, before.st_ino);
    collection_release(gone);
    collection_release(c);
    world_close(&w);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "build-index") == 0) {
        if (getenv("TEST_BUILD_SLEEPS"))
            sleep(WAIT_S);
        return build_index_main(argc - 1, argv + 1);
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_is_indexed_and_found_again),
        cmocka_unit_test(a_damaged_file_is_built_anew),
        cmocka_unit_test(flat_and_small_collections_get_no_graph),
        cmocka_unit_test(a_failed_build_is_a_sentence),
        cmocka_unit_test(a_running_build_does_not_outlive_its_reason),
        cmocka_unit_test(replaced_rows_are_not_built),
        cmocka_unit_test(settings_of_a_dropped_collection_leave_its_namesakes_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
