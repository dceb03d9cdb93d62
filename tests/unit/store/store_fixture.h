/* What the store's tests share: a fresh data directory on a real file system, both io backends, and
 * short ways to write and read rows of one test schema:
 *   string or int64 key, vector of 4, price float32, count int64, name string, tags string[]. */
#ifndef LOADSTONE_TESTS_STORE_FIXTURE_H
#define LOADSTONE_TESTS_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/epoch.h"
#include "store/catalog.h"
#include "store/load.h"

enum { PRICE, COUNT, NAME, TAGS, TEST_DIM = 4 };

struct fixture {
    char dir[300];
    struct io *io;
    struct catalog *cat;
    struct err_ctx ctx;
};

#define OK(expr)                                                                                   \
    do {                                                                                           \
        enum err rc_ = (expr);                                                                     \
        if (rc_ != ERR_OK)                                                                         \
            fail_msg("%s: %d %s", #expr, rc_, f->ctx.detail);                                      \
    } while (0)

static inline void fixture_open(struct fixture *f)
{
    OK(catalog_open(f->dir, f->io, NULL, &f->cat, &f->ctx));
    while (!catalog_ready(f->cat))
        usleep(500);
}

static inline void fixture_new(struct fixture *f, enum io_backend backend)
{
    const char *base = getenv("TEST_TMPDIR");
    memset(f, 0, sizeof *f);
    err_clear(&f->ctx);
    if (!base) {
        base = "build/tmp";
        (void)!system("mkdir -p build/tmp");
    }
    snprintf(f->dir, sizeof f->dir, "%s/storeXXXXXX", base);
    assert_non_null(mkdtemp(f->dir));
    OK(io_new(backend, &f->io, &f->ctx));
    fixture_open(f);
}

static inline void fixture_free(struct fixture *f)
{
    char command[400];
    catalog_close(f->cat);
    io_free(f->io);
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
}

/* Closes and opens again, as a restart does. */
static inline void fixture_reopen(struct fixture *f)
{
    catalog_close(f->cat);
    fixture_open(f);
}

static inline struct collection *fixture_create(struct fixture *f, const char *name,
                                                enum key_type key)
{
    struct schema *s;
    struct collection *c;
    bool created;
    OK(schema_new(key, TEST_DIM, DIST_L2, &s, &f->ctx));
    OK(schema_add_feature(s, "price", FEATURE_FLOAT32, &f->ctx));
    OK(schema_add_feature(s, "count", FEATURE_INT64, &f->ctx));
    OK(schema_add_feature(s, "name", FEATURE_STRING, &f->ctx));
    OK(schema_add_feature(s, "tags", FEATURE_STRING_LIST, &f->ctx));
    s->index.kind = INDEX_FLAT;
    OK(schema_seal(s, &f->ctx));
    OK(catalog_create(f->cat, name, s, &created, &f->ctx));
    schema_release(s);
    OK(catalog_find(f->cat, name, &c, &f->ctx));
    return c;
}

static inline struct collection *fixture_find(struct fixture *f, const char *name)
{
    struct collection *c;
    OK(catalog_find(f->cat, name, &c, &f->ctx));
    return c;
}

static inline struct load *begin(struct fixture *f, struct collection *c, enum load_mode mode)
{
    struct load_options o = {.mode = mode, .expected_version = -1};
    struct load *l;
    OK(load_new(c, &o, &l, &f->ctx));
    return l;
}

static inline struct batch *new_batch(struct fixture *f, struct load *l)
{
    struct batch *b;
    OK(batch_new(load_schema(l), &b, &f->ctx));
    return b;
}

/* Starts a row with the key of the collection's type: the number, or "k<number>". */
static inline void put_key(struct fixture *f, struct batch *b, int64_t key)
{
    char text[64];
    if (b->schema->key == KEY_INT64) {
        OK(batch_row_int(b, key, &f->ctx));
        return;
    }
    snprintf(text, sizeof text, "k%lld", (long long)key);
    OK(batch_row_str(b, text, strlen(text), &f->ctx));
}

/* A whole row made of one number: vector (x, 1, 2, 3), price x/2, count x, name "n<x>". */
static inline void put_row(struct fixture *f, struct batch *b, int64_t key, int64_t x)
{
    float v[TEST_DIM] = {(float)x, 1, 2, 3}, price = (float)x / 2;
    char text[64];
    put_key(f, b, key);
    OK(batch_set_vector(b, v, &f->ctx));
    OK(batch_set(b, PRICE, &price, sizeof price, &f->ctx));
    OK(batch_set(b, COUNT, &x, sizeof x, &f->ctx));
    snprintf(text, sizeof text, "n%lld", (long long)x);
    OK(batch_set(b, NAME, text, strlen(text), &f->ctx));
}

/* Adds a feature to the schema that the newest version has. */
static inline enum err try_alter(struct collection *c, const char *name, enum feature_type type,
                                 struct err_ctx *ctx)
{
    struct schema *next;
    epoch_enter();
    enum err e = schema_copy(collection_snapshot(c)->schema, &next, ctx);
    epoch_leave();
    RETURN_NOT_OK(e);
    e = schema_add_feature(next, name, type, ctx);
    if (e == ERR_OK)
        e = schema_seal(next, ctx);
    if (e == ERR_OK)
        e = collection_alter(c, next, ctx);
    schema_release(next);
    return e;
}

static inline bool find_ref(const struct snapshot *s, int64_t key, struct row_ref *ref)
{
    char text[64];
    if (s->schema->key == KEY_INT64)
        return snapshot_find_int(s, key, ref);
    snprintf(text, sizeof text, "k%lld", (long long)key);
    return snapshot_find_str(s, text, strlen(text), ref);
}

/* The row put_row(key, x) wrote is there, whole. */
static inline void expect_row(struct collection *c, int64_t key, int64_t x)
{
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    struct row_ref ref;
    if (!find_ref(s, key, &ref))
        fail_msg("key %lld is missing", (long long)key);
    const struct segment *seg = s->views[ref.view].segment;
    size_t len;
    char text[64];
    const float *v = segment_vector(seg, ref.row);
    assert_non_null(v);
    assert_true(v[0] == (float)x && v[3] == 3);
    const int64_t *count = segment_cell(seg, ref.row, COUNT, &len);
    assert_non_null(count);
    assert_int_equal(*count, x);
    snprintf(text, sizeof text, "n%lld", (long long)x);
    const char *name = segment_cell(seg, ref.row, NAME, &len);
    assert_non_null(name);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(name, text, len);
    assert_null(segment_cell(seg, ref.row, TAGS, &len));
    epoch_leave();
}

static inline bool has_key(struct collection *c, int64_t key)
{
    struct row_ref ref;
    epoch_enter();
    bool found = find_ref(collection_snapshot(c), key, &ref);
    epoch_leave();
    return found;
}

/* Loads rows [from, to) with x = key + shift as one commit. */
static inline struct commit_result load_range(struct fixture *f, struct collection *c,
                                              enum load_mode mode, int64_t from, int64_t to,
                                              int64_t shift)
{
    struct commit_result r;
    struct load *l = begin(f, c, mode);
    struct batch *b = new_batch(f, l);
    for (int64_t key = from; key < to; key++) {
        put_row(f, b, key, key + shift);
        if (batch_bytes(b) > (1 << 20)) {
            OK(load_add(l, b, &f->ctx));
            batch_reset(b);
        }
    }
    OK(load_add(l, b, &f->ctx));
    OK(load_commit(l, &r, &f->ctx));
    batch_free(b);
    load_free(l);
    return r;
}

#endif
