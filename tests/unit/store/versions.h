/* What a version holds, as one number: every row, live or history, with its seq, in order, and what
 * the keys lead to. Equal numbers mean equal to the bit. */
#ifndef LOADSTONE_TESTS_VERSIONS_H
#define LOADSTONE_TESTS_VERSIONS_H

#include "base/hash.h"
#include "store/row.h"
#include "store/seq_walk.h"
#include "store/version.h"

static inline bool row_is_found(const struct snapshot *s, const struct row *row,
                                struct row_ref want)
{
    struct row_ref got;
    bool found = s->schema->key == KEY_INT64 ? snapshot_find_int(s, row->int_key, &got)
                                             : snapshot_find_str(s, row->key, row->key_len, &got);
    return found && got.view == want.view && got.row == want.row;
}

typedef bool (*row_pick)(const struct row *row);

/* `but` (may be NULL) picks rows that are left out of the hash. */
static inline struct hash128 snapshot_print_but(struct fixture *f, const struct snapshot *s,
                                                row_pick but)
{
    struct seq_walk *w;
    struct row_ref ref;
    struct seq seq;
    struct row_builder rb;
    struct buf bytes = {0};
    struct digest sum = {0};
    uint64_t n = 0, vectors = 0;
    OK(row_builder_init(&rb, s->schema, &f->ctx));
    OK(seq_walk_open(s, &(struct seq_walk_options){.history = true}, NULL, &w, &f->ctx));
    while (seq_walk_next(w, &ref, &seq)) {
        bool live = view_live(&s->views[ref.view], ref.row);
        row_from_segment(&rb, s->views[ref.view].segment, ref.row);
        assert_true(!live || row_is_found(s, &rb.row, ref));
        if (!but || !but(&rb.row)) {
            buf_put(&bytes, &seq, sizeof seq);
            buf_put_u8(&bytes, live);
            row_encode(&rb.row, &bytes);
        }
        digest_add(&sum, row_digest(&rb.row));
        n += live;
        vectors += live && rb.row.vector;
    }
    seq_walk_free(w);
    row_builder_deinit(&rb);
    assert_int_equal(n, s->rows);
    assert_int_equal(vectors, s->vectors);
    assert_true(sum.lo == s->digest.lo && sum.hi == s->digest.hi);
    assert_false(bytes.failed);
    struct hash128 hash = hash128(bytes.data, bytes.len);
    buf_deinit(&bytes);
    return hash;
}

static inline struct hash128 snapshot_print(struct fixture *f, const struct snapshot *s)
{
    return snapshot_print_but(f, s, NULL);
}

static inline struct hash128 version_print_but(struct fixture *f, struct collection *c, uint64_t v,
                                               row_pick but)
{
    struct snapshot *s;
    OK(collection_open_version(c, v, true, &s, &f->ctx));
    assert_int_equal(s->version, v);
    struct hash128 hash = snapshot_print_but(f, s, but);
    snapshot_release(s);
    return hash;
}

static inline struct hash128 version_print(struct fixture *f, struct collection *c, uint64_t v)
{
    return version_print_but(f, c, v, NULL);
}

enum { PRINTS_MAX = 200 };
struct prints {
    uint64_t newest;
    struct hash128 of[PRINTS_MAX];
};

static inline void take_prints_but(struct fixture *f, struct collection *c, struct prints *p,
                                   row_pick but)
{
    epoch_enter();
    p->newest = collection_snapshot(c)->version;
    epoch_leave();
    assert_true(p->newest < PRINTS_MAX);
    for (uint64_t v = 1; v <= p->newest; v++)
        p->of[v] = version_print_but(f, c, v, but);
}

static inline void take_prints(struct fixture *f, struct collection *c, struct prints *p)
{
    take_prints_but(f, c, p, NULL);
}

static inline void expect_prints(struct fixture *f, struct collection *c, const struct prints *p,
                                 uint64_t from)
{
    for (uint64_t v = from; v <= p->newest; v++) {
        struct hash128 now = version_print(f, c, v);
        if (memcmp(&now, &p->of[v], sizeof now) != 0)
            fail_msg("version %llu has changed", (unsigned long long)v);
    }
}

/* ---- a collection with event times ---- */

static inline struct collection *create_events(struct fixture *f, enum key_type key)
{
    struct schema *s;
    struct collection *c;
    bool created;
    OK(schema_new(key, TEST_DIM, DIST_L2, &s, &f->ctx));
    OK(schema_add_feature(s, "ts", FEATURE_TIMESTAMP, &f->ctx));
    OK(schema_add_feature(s, "name", FEATURE_STRING, &f->ctx));
    s->event_time = 0;
    s->index.kind = INDEX_FLAT;
    OK(schema_seal(s, &f->ctx));
    OK(catalog_create(f->cat, "c", s, &created, &f->ctx));
    schema_release(s);
    OK(catalog_find(f->cat, "c", &c, &f->ctx));
    return c;
}

/* An event of each key in [from, to) at `ts`, named "e<x + key>". */
static inline void load_events(struct fixture *f, struct collection *c, int64_t from, int64_t to,
                               int64_t ts, int64_t x)
{
    struct commit_result r;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (int64_t key = from; key < to; key++) {
        float v[TEST_DIM] = {(float)key, (float)ts, 2, 3};
        char text[64];
        put_key(f, b, key);
        OK(batch_set_vector(b, v, &f->ctx));
        OK(batch_set(b, 0, &ts, sizeof ts, &f->ctx));
        snprintf(text, sizeof text, "e%lld", (long long)(x + key));
        OK(batch_set(b, 1, text, strlen(text), &f->ctx));
    }
    OK(load_add(l, b, &f->ctx));
    OK(load_commit(l, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

static inline void delete_range(struct fixture *f, struct collection *c, int64_t from, int64_t to)
{
    struct load_options o = {.mode = LOAD_DELETE, .expected_version = -1};
    struct commit_result r;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (int64_t key = from; key < to; key++)
        put_key(f, b, key);
    OK(collection_delete_keys(c, b, &o, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

/* Later, late and replaced events, deletions and what comes after them, in files and tail. */
static inline void fill_events(struct fixture *f, struct collection *c)
{
    load_events(f, c, 0, 100, 100, 1000);
    OK(collection_seal(c, &f->ctx));
    load_events(f, c, 0, 60, 200, 2000);
    load_events(f, c, 10, 30, 150, 3000); /* late */
    OK(collection_seal(c, &f->ctx));
    delete_range(f, c, 5, 15);
    load_events(f, c, 40, 45, 200, 4000); /* the same time: replaces */
    load_events(f, c, 7, 9, 50, 5000);
    OK(collection_seal(c, &f->ctx));
    load_events(f, c, 20, 25, 300, 6000);
    load_events(f, c, 90, 110, 10, 7000); /* late, and keys of their own */
}

#endif
