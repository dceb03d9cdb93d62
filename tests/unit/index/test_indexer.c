/* The indexer on a real collection: a bulk load is indexed by a child process, found again after a
 * restart without a rebuild, built anew when the file is damaged or the settings changed; failures
 * are sentences; a dropped collection's build is given up. This program is its own build child. */
#include "world.h"

#include "index/ann_format.h"
#include "index/indexer_internal.h"

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
    struct world w = {0};
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
    struct world w = {0};
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

/* Makes the file one of a release that knew neither codes nor builders: the kinds of these sections
 * become ones that no release knows. */
static void make_dated(const char *path)
{
    enum { COUNT = 20, TABLE = 96, ENTRY = 32 };
    uint8_t header[4096];
    uint32_t n, kind;
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fread(header, 1, sizeof(header), f), sizeof(header));
    memcpy(&n, header + COUNT, 4);
    assert_in_range(n, 1, ANN_SECTIONS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&kind, header + TABLE + i * ENTRY, 4);
        kind += kind == ANN_CODES || kind == ANN_SCALE || kind == ANN_MADE ? 100 : 0;
        memcpy(header + TABLE + i * ENTRY, &kind, 4);
    }
    uint32_t crc = crc32c(0, header, TABLE + n * ENTRY);
    memcpy(header + TABLE + n * ENTRY, &crc, 4);
    rewind(f);
    assert_int_equal(fwrite(header, 1, sizeof(header), f), sizeof(header));
    assert_int_equal(fclose(f), 0);
}

static struct index_segment segment_of(struct collection *c)
{
    struct index_segment g;
    epoch_enter();
    assert_true(index_segment_get(&collection_snapshot(c)->views[0], &g));
    epoch_leave();
    return g;
}

/* It serves, and is built anew when there is nothing else to do. */
static void a_file_without_codes_is_bettered(void **state)
{
    (void)state;
    struct world w = {0};
    char path[700];
    world_open(&w, self);
    create(&w, "words", INDEX_HNSW);
    struct collection *c = find(&w, "words");
    load_rows(&w, c);
    wait_ready(&w, c);
    assert_string_equal(segment_of(c).builder, "native");
    assert_string_equal(segment_of(c).codes, "uniform");
    assert_null(segment_of(c).why);
    ann_stat(c, path);
    collection_release(c);

    world_stop(&w);
    make_dated(path);
    setenv("TEST_BUILD_SLEEPS", "1", 1);
    world_start(&w, self);
    c = find(&w, "words");
    struct index_state st = state_of(&w, c);
    assert_true(st.building);
    assert_int_equal(st.indexed_rows, ROWS); /* meanwhile */
    assert_string_equal(segment_of(c).builder, "faiss");
    assert_string_equal(segment_of(c).codes, "none");
    assert_non_null(strstr(segment_of(c).why, "without codes"));
    collection_release(c);

    world_stop(&w);
    unsetenv("TEST_BUILD_SLEEPS");
    world_start(&w, self);
    c = find(&w, "words");
    st = wait_ready(&w, c);
    assert_indexed(&st);
    assert_string_equal(segment_of(c).codes, "uniform");
    assert_string_equal(segment_of(c).builder, "native");
    collection_release(c);
    world_close(&w);
}

/* A build that is wanted goes before one that betters. */
static void what_serves_already_waits(void **state)
{
    (void)state;
    struct world w = {0};
    char path[700];
    world_open(&w, self);
    create(&w, "old", INDEX_HNSW);
    create(&w, "other", INDEX_HNSW);
    create(&w, "wanted", INDEX_HNSW);
    struct collection *old = find(&w, "old"), *other = find(&w, "other"), *wanted;
    load_rows(&w, old);
    load_rows(&w, other);
    wait_ready(&w, old);
    wait_ready(&w, other);
    ann_stat(old, path);
    make_dated(path);
    ann_stat(other, path);
    collection_release(old);
    collection_release(other);
    world_stop(&w);
    make_dated(path);
    setenv("TEST_BUILD_SLEEPS", "1", 1);
    world_start(&w, self);
    wanted = find(&w, "wanted");
    old = find(&w, "old");
    other = find(&w, "other");
    load_rows(&w, wanted); /* one of the old ones runs, the other is behind this */
    pthread_mutex_lock(&w.indexer->lock);
    const struct job *j = w.indexer->queue;
    while (j && j->warm)
        j = j->next;
    assert_non_null(j);
    assert_ptr_equal(j->collection, wanted);
    assert_false(j->idle);
    assert_non_null(j->next);
    assert_true(j->next->idle);
    pthread_mutex_unlock(&w.indexer->lock);
    collection_release(old);
    collection_release(other);
    collection_release(wanted);
    unsetenv("TEST_BUILD_SLEEPS");
    world_close(&w);
}

static void flat_and_small_collections_get_no_graph(void **state)
{
    (void)state;
    struct world w = {0};
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
        struct world w = {0};
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
    struct world w = {0};
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
    struct world w = {0};
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
    struct world w = {0};
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

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_is_indexed_and_found_again),
        cmocka_unit_test(a_damaged_file_is_built_anew),
        cmocka_unit_test(a_file_without_codes_is_bettered),
        cmocka_unit_test(what_serves_already_waits),
        cmocka_unit_test(flat_and_small_collections_get_no_graph),
        cmocka_unit_test(a_failed_build_is_a_sentence),
        cmocka_unit_test(a_running_build_does_not_outlive_its_reason),
        cmocka_unit_test(replaced_rows_are_not_built),
        cmocka_unit_test(settings_of_a_dropped_collection_leave_its_namesakes_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return world_main(argc, argv, all_tests);
}
