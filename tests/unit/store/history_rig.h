/* A collection driven beside a model that keeps every version whole, and the commits that no public
 * call makes in these tests: replacing everything, restoring, compacting, vacuuming. */
#ifndef LOADSTONE_TESTS_STORE_HISTORY_RIG_H
#define LOADSTONE_TESTS_STORE_HISTORY_RIG_H

#include "store_fixture.h"

#include "store/collection_internal.h"
#include "store/merge.h"
#include "store/row.h"
#include "store/seq_walk.h"

#define OK_RIG(expr)                                                                               \
    do {                                                                                           \
        struct fixture *f = &r->f;                                                                 \
        OK(expr);                                                                                  \
    } while (0)

enum { KEYS = 120, VERSIONS_MAX = 4000, ABSENT = -1 };

struct modelled {
    int64_t x[KEYS]; /* what put_row was given; ABSENT */
    uint32_t nfeatures;
    struct digest digest;
    uint64_t seq_sum; /* of the walk, once seen; 0 = not yet */
};

struct rig {
    struct fixture f;
    struct collection *c;
    uint64_t newest;
    struct modelled *versions; /* [newest + 1] */
    int64_t next_x;
};

static inline void rig_new(struct rig *r, enum io_backend backend, enum key_type key)
{
    memset(r, 0, sizeof *r);
    fixture_new(&r->f, backend);
    r->c = fixture_create(&r->f, "c", key);
    r->versions = calloc(VERSIONS_MAX, sizeof *r->versions);
    for (int i = 0; i < KEYS; i++)
        r->versions[0].x[i] = ABSENT;
    r->versions[0].nfeatures = TAGS + 1;
    r->next_x = 1;
}

static inline void rig_free(struct rig *r)
{
    fixture_free(&r->f);
    free(r->versions);
}

static inline void rig_reopen(struct rig *r)
{
    fixture_reopen(&r->f);
    r->c = fixture_find(&r->f, "c");
}

/* The model's next version, a copy of the newest; its digest is noted by rig_done. */
static inline struct modelled *rig_next(struct rig *r)
{
    ASSERT(r->newest + 1 < VERSIONS_MAX);
    r->newest++;
    r->versions[r->newest] = r->versions[r->newest - 1];
    r->versions[r->newest].seq_sum = 0;
    return &r->versions[r->newest];
}

static inline void rig_done(struct rig *r)
{
    struct modelled *m = &r->versions[r->newest];
    epoch_enter();
    const struct snapshot *s = collection_snapshot(r->c);
    assert_int_equal(s->version, r->newest);
    m->digest = s->digest;
    m->nfeatures = s->schema->nfeatures;
    epoch_leave();
}

static inline void rig_upsert(struct rig *r, int64_t from, int64_t to)
{
    struct modelled *m = rig_next(r);
    load_range(&r->f, r->c, LOAD_UPSERT, from, to, r->next_x);
    for (int64_t k = from; k < to; k++)
        m->x[k] = k + r->next_x;
    r->next_x += KEYS;
    rig_done(r);
}

static inline void rig_delete(struct rig *r, int64_t from, int64_t to)
{
    struct fixture *f = &r->f;
    struct load *l = begin(f, r->c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    struct load_options o = {.mode = LOAD_DELETE, .expected_version = -1};
    struct commit_result result;
    struct modelled *m = rig_next(r);
    for (int64_t k = from; k < to; k++) {
        put_key(f, b, k);
        m->x[k] = ABSENT;
    }
    OK(collection_delete_keys(r->c, b, &o, &result, &f->ctx));
    batch_free(b);
    load_free(l);
    rig_done(r);
}

static inline void rig_alter(struct rig *r)
{
    struct fixture *f = &r->f;
    char name[32];
    snprintf(name, sizeof name, "extra%u", (unsigned)rand());
    OK(try_alter(r->c, name, FEATURE_INT64, &f->ctx));
}

/* ---- records by hand ---- */

/* Logs and applies a commit record, as commit.c does. */
static inline void rig_commit(struct rig *r, struct commit_record *rec)
{
    struct fixture *f = &r->f;
    struct collection *c = r->c;
    struct buf bytes = {0};
    struct plan plan;
    uint64_t ticket;
    pthread_mutex_lock(&c->commit_lock);
    rec->meta.version = c->head->version + 1;
    rec->meta.time_us = c->head->time_us + 1;
    rec->tail_id = c->tail->id;
    commit_record_encode(rec, &bytes);
    OK(plan_commit(c, bytes.data, bytes.len, NULL, &plan, &f->ctx));
    OK(collection_log(c, bytes.data, bytes.len, &ticket, &f->ctx));
    plan_apply(c, &plan);
    struct snapshot *next = snapshot_acquire(plan.next);
    plan_deinit(&plan);
    pthread_mutex_unlock(&c->commit_lock);
    OK(wal_wait(c->wal, ticket, &f->ctx));
    pthread_mutex_lock(&c->commit_lock);
    collection_publish(c, next);
    pthread_mutex_unlock(&c->commit_lock);
    snapshot_release(next);
    buf_deinit(&bytes);
}

/* Everything is replaced by rows [from, to), in the record itself. */
static inline void rig_replace_all(struct rig *r, int64_t from, int64_t to)
{
    struct fixture *f = &r->f;
    struct commit_record rec = {.meta.mode = LOAD_FULL_REFRESH, .replace_all = true};
    struct load *l = begin(f, r->c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    struct buf rows = {0};
    struct row_builder rb;
    struct modelled *m = rig_next(r);
    for (int k = 0; k < KEYS; k++)
        m->x[k] = ABSENT;
    OK(row_builder_init(&rb, load_schema(l), &f->ctx));
    for (int64_t k = from; k < to; k++) {
        put_row(f, b, k, m->x[k] = k + r->next_x);
        bool partial;
        row_from_batch(&rb, b, (size_t)(k - from), NULL, 0, &partial);
        row_encode(&rb.row, &rows);
        rec.inline_payload += load_schema(l)->key == KEY_STRING ? rb.row.key_len : 0;
        for (uint32_t v = 0; v < load_schema(l)->nvar; v++)
            rec.inline_payload += rb.row.var[v].len;
        digest_add(&rec.meta.digest, row_digest(&rb.row));
        rec.ninline++;
    }
    struct inline_run run = {0};
    if (rec.ninline)
        buf_put(&rec.runs, &run, sizeof run);
    rec.meta.live_rows = rec.meta.live_vectors = rec.ninline;
    rec.inline_rows = rows.data;
    rec.inline_len = rows.len;
    r->next_x += KEYS;
    rig_commit(r, &rec);
    commit_record_deinit(&rec);
    buf_deinit(&rows);
    row_builder_deinit(&rb);
    batch_free(b);
    load_free(l);
    rig_done(r);
}

static inline void rig_restore(struct rig *r, uint64_t version)
{
    struct fixture *f = &r->f;
    struct commit_record rec = {.meta.mode = LOAD_RESTORE, .restores = true};
    struct buf blobs = {0};
    struct snapshot *s;
    struct modelled *m = rig_next(r);
    memcpy(m->x, r->versions[version].x, sizeof m->x);
    m->seq_sum = r->versions[version].seq_sum;
    OK(collection_open_version(r->c, version, true, &s, &f->ctx));
    OK(manifest_of(s, &rec.target, &blobs, &f->ctx));
    rec.meta.digest = s->digest;
    rec.meta.live_rows = s->rows;
    rec.meta.live_vectors = s->vectors;
    rig_commit(r, &rec);
    snapshot_release(s);
    commit_record_deinit(&rec);
    buf_deinit(&blobs);
    rig_done(r);
}

/* Merges the files of the newest version into one. */
static inline void rig_compact(struct rig *r)
{
    struct fixture *f = &r->f;
    struct collection *c = r->c;
    struct compact_record rec = {0};
    struct merge_input in[64];
    struct merge_output out;
    struct buf bytes = {0};
    struct plan plan;
    uint64_t ticket;
    size_t n = 0;
    struct snapshot *s = c->head; /* one thread: nobody changes it */
    for (uint32_t i = 0; i < s->nviews && n < 64; i++) {
        const struct view *v = &s->views[i];
        if (v->segment->tail)
            continue;
        in[n++] = (struct merge_input){v->segment, v->rows, v->dead, v->segment->base_version,
                                       v->segment->base_ordinal};
        buf_put(&rec.removed, &v->segment->id, sizeof v->segment->id);
    }
    if (n == 0)
        return;
    OK(merge_segments(c, in, n, s->schema, NULL, &out, &f->ctx));
    OK(merge_place(c, &out, &f->ctx));
    struct segment_ref ref = {.id = out.id, .rows = out.segment->rows};
    buf_put(&rec.added.segments, &ref, sizeof ref);
    compact_record_encode(&rec, &bytes);
    pthread_mutex_lock(&c->commit_lock);
    OK(plan_compact(c, bytes.data, bytes.len, &out.segment, &plan, &f->ctx));
    OK(collection_log(c, bytes.data, bytes.len, &ticket, &f->ctx));
    plan_apply(c, &plan);
    pthread_mutex_unlock(&c->commit_lock);
    OK(wal_wait(c->wal, ticket, &f->ctx));
    pthread_mutex_lock(&c->commit_lock);
    collection_publish(c, plan.next);
    pthread_mutex_unlock(&c->commit_lock);
    plan_deinit(&plan);
    compact_record_deinit(&rec);
    merge_output_deinit(&out);
    buf_deinit(&bytes);
}

/* Lets go of the versions before `horizon` but those that tags and pins hold; `removed` (u64) are
 * the segments that nobody needs then. */
static inline void rig_log_vacuum(struct rig *r, uint64_t horizon, struct buf *removed)
{
    struct fixture *f = &r->f;
    struct collection *c = r->c;
    struct vacuum_record rec = {.horizon = horizon};
    struct buf held = {0}, needed = {0}, all = {0}, bytes = {0};
    uint64_t ticket;
    collection_held_versions(c, &held);
    for (size_t i = 0; i < held.len / 8; i++) {
        uint64_t v = ((const uint64_t *)held.data)[i];
        if (v < horizon)
            buf_put(&rec.kept, &v, sizeof v);
    }
    OK(history_needed(c, horizon, (const uint64_t *)rec.kept.data, rec.kept.len / 8, &needed,
                      &f->ctx));
    registry_list(c, &all);
    for (size_t i = 0; i < all.len / sizeof(struct segment_ref); i++) {
        uint64_t id = ((const struct segment_ref *)all.data)[i].id;
        bool found = id == c->tail->id;
        for (size_t k = 0; !found && k < needed.len / 8; k++)
            found = ((const uint64_t *)needed.data)[k] == id;
        if (!found)
            buf_put(&rec.removed, &id, sizeof id);
    }
    vacuum_record_encode(&rec, &bytes);
    pthread_mutex_lock(&c->commit_lock);
    OK(collection_log(c, bytes.data, bytes.len, &ticket, &f->ctx));
    OK(vacuum_apply(c, &rec, &f->ctx));
    pthread_mutex_unlock(&c->commit_lock);
    OK(wal_wait(c->wal, ticket, &f->ctx));
    buf_put(removed, rec.removed.data, rec.removed.len);
    vacuum_record_deinit(&rec);
    buf_deinit(&held);
    buf_deinit(&needed);
    buf_deinit(&all);
    buf_deinit(&bytes);
}

/* The same, and their files go; how many. */
static inline size_t rig_vacuum(struct rig *r, uint64_t horizon)
{
    struct buf removed = {0};
    rig_log_vacuum(r, horizon, &removed);
    OK_RIG(collection_checkpoint(r->c, &r->f.ctx));
    size_t n = removed.len / 8;
    for (size_t i = 0; i < n; i++) {
        char path[PATH_CAP];
        segment_file_path(r->c, "segments", ((const uint64_t *)removed.data)[i], path, sizeof path);
        OK_RIG(io_unlink(r->c->io, path, &r->f.ctx));
    }
    buf_deinit(&removed);
    return n;
}

/* ---- comparing ---- */

static inline int64_t value_of(const struct snapshot *s, int64_t key)
{
    struct row_ref ref;
    size_t len;
    if (!find_ref(s, key, &ref))
        return ABSENT;
    const int64_t *x = segment_cell(s->views[ref.view].segment, ref.row, COUNT, &len);
    assert_non_null(x);
    return *x;
}

/* What an export would read: every row and its seq, in order, as one number, and the digest. */
static inline uint64_t walk_sum(struct fixture *f, const struct snapshot *s, uint64_t *rows,
                                struct digest *digest)
{
    struct seq_walk *w;
    struct row_builder rb;
    struct row_ref ref;
    struct seq seq, before = {0, 0};
    uint64_t sum = 1469598103934665603u;
    *rows = 0;
    *digest = (struct digest){0};
    OK(seq_walk_new(s, NULL, &w, &f->ctx));
    OK(row_builder_init(&rb, s->schema, &f->ctx));
    while (seq_walk_next(w, &ref, &seq)) {
        assert_true(seq.version > before.version ||
                    (seq.version == before.version && seq.ordinal >= before.ordinal));
        row_from_segment(&rb, s->views[ref.view].segment, ref.row);
        struct digest d = row_digest(&rb.row);
        digest_add(digest, d);
        sum = (sum ^ seq.version ^ seq.ordinal << 32 ^ d.lo) * 1099511628211u;
        before = seq;
        ++*rows;
    }
    row_builder_deinit(&rb);
    seq_walk_free(w);
    return sum;
}

/* The version is what it was when it was committed. */
static inline void rig_expect(struct rig *r, uint64_t version)
{
    struct fixture *f = &r->f;
    struct modelled *m = &r->versions[version];
    struct snapshot *s;
    struct digest digest;
    uint64_t rows, live = 0;
    OK(collection_open_version(r->c, version, true, &s, &f->ctx));
    assert_int_equal(s->version, version);
    for (int64_t k = 0; k < KEYS; k++) {
        int64_t x = value_of(s, k);
        if (x != m->x[k])
            fail_msg("version %llu: key %lld is %lld, not %lld", (unsigned long long)version,
                     (long long)k, (long long)x, (long long)m->x[k]);
        live += x != ABSENT;
    }
    uint64_t sum = walk_sum(f, s, &rows, &digest);
    if (!m->seq_sum)
        m->seq_sum = sum;
    assert_int_equal(sum, m->seq_sum);
    assert_int_equal(rows, live);
    assert_int_equal(s->rows, live);
    assert_int_equal(s->vectors, live);
    assert_memory_equal(&s->digest, &digest, sizeof digest);
    if (version)
        assert_memory_equal(&m->digest, &digest, sizeof digest);
    assert_int_equal(s->schema->nfeatures, m->nfeatures);
    snapshot_release(s);
}

static inline bool forget_any(const struct snapshot *s, const void *arg)
{
    (void)s;
    (void)arg;
    return true;
}

static inline void rig_expect_all(struct rig *r)
{
    history_forget(r->c, forget_any, NULL);
    for (uint64_t v = 0; v <= r->newest; v++)
        rig_expect(r, v);
    OK_RIG(history_verify(r->c, &r->f.ctx));
}

#endif
