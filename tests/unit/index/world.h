/* A catalog with an indexer, as main.c wires them, for tests of the two together. Every helper
 * asserts. */
#ifndef TESTS_INDEX_WORLD_H
#define TESTS_INDEX_WORLD_H

#include "rig.h"

#include "base/clock.h"
#include "base/epoch.h"
#include "store/catalog.h"
#include "store/load.h"

enum { ROWS = 12000, DIM = 16, WAIT_S = 60 };

static char self[4096]; /* this program, which is its own build child */

struct world {
    struct temp_dir dir;
    struct io *io;
    struct indexer *indexer;
    struct catalog *catalog;
    float *vectors;
    uint64_t memory_bytes; /* what builds may take; 0 = default */
};

static inline void world_start(struct world *w, const char *exe)
{
    struct indexer_options o = {.self = exe, .threads = 1, .memory_bytes = w->memory_bytes};
    struct err_ctx ctx;
    err_clear(&ctx);
    assert_int_equal(indexer_new(&o, &w->indexer, NULL), ERR_OK);
    struct store_hooks hooks = {.arg = w->indexer,
                                .segment_added = indexer_segment_added,
                                .segment_opened = indexer_segment_opened,
                                .segment_build = indexer_segment_build,
                                .segment_removed = indexer_segment_removed};
    char data[600];
    snprintf(data, sizeof(data), "%s/data", w->dir.path);
    if (catalog_open(data, w->io, &hooks, &w->catalog, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    while (!catalog_ready(w->catalog))
        usleep(1000);
}

static inline void world_stop(struct world *w)
{
    indexer_free(w->indexer);
    catalog_close(w->catalog);
    epoch_drain();
}

static inline void world_open(struct world *w, const char *exe)
{
    assert_int_equal(temp_dir_new(&w->dir), 0);
    assert_int_equal(io_new(IO_POSIX, &w->io, NULL), ERR_OK);
    w->vectors = rig_vectors(ROWS, DIM, 20, 1);
    for (size_t row = ROWS / 2; row < ROWS * 3 / 4; row++) /* twins */
        memcpy(w->vectors + row * DIM, w->vectors + (row - ROWS / 2) * DIM, DIM * sizeof(float));
    world_start(w, exe);
}

static inline void world_close(struct world *w)
{
    world_stop(w);
    io_free(w->io);
    free(w->vectors);
    temp_dir_remove(&w->dir);
}

static inline void create(struct world *w, const char *name, enum index_kind kind)
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

static inline struct collection *find(struct world *w, const char *name)
{
    struct collection *c;
    epoch_enter();
    assert_int_equal(catalog_find(w->catalog, name, &c, NULL), ERR_OK);
    collection_acquire(c);
    epoch_leave();
    return c;
}

/* Large enough a load to go into a segment file by itself, repeated keys aside. */
static inline void load_rows(struct world *w, struct collection *c)
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

static inline struct index_state state_of(struct world *w, struct collection *c)
{
    struct index_state st;
    epoch_enter();
    index_state_get(w->indexer, c, collection_snapshot(c), &st);
    epoch_leave();
    return st;
}

static inline struct index_state wait_ready(struct world *w, struct collection *c)
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

/* main() of such a program: runs the tests, or builds; TEST_BUILD_SLEEPS makes a build take long.
 */
static inline int world_main(int argc, char **argv, int (*all_tests)(void))
{
    if (argc > 1 && strcmp(argv[1], "build-index") == 0) {
        if (getenv("TEST_BUILD_SLEEPS"))
            sleep(WAIT_S);
        return build_index_main(argc - 1, argv + 1);
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    return n < 0 ? 1 : all_tests();
}

#endif
