/* What a version holds, as one number: every live row with its seq, in order, and what its keys
 * lead to. Equal numbers mean equal to the bit. */
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
    OK(seq_walk_new(s, NULL, &w, &f->ctx));
    for (; seq_walk_next(w, &ref, &seq); n++) {
        row_from_segment(&rb, s->views[ref.view].segment, ref.row);
        assert_true(row_is_found(s, &rb.row, ref));
        if (!but || !but(&rb.row)) {
            buf_put(&bytes, &seq, sizeof seq);
            row_encode(&rb.row, &bytes);
        }
        digest_add(&sum, row_digest(&rb.row));
        vectors += rb.row.vector != NULL;
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

#endif
