/* Records and checkpoints: what is written is read back, and what the first releases wrote, which
 * had fewer fields, still is. */
#include "history_rig.h"

#include <roaring/roaring.h>

static const uint8_t ID[16] = "collection 0001";

static void put_mask(struct buf *list, uint64_t segment, struct buf *hold, uint32_t row)
{
    roaring_bitmap_t *r = roaring_bitmap_of(1, row);
    struct dead_ref d = {.segment = segment, .mask_len = roaring_bitmap_portable_size_in_bytes(r)};
    assert_true(hold->cap || buf_reserve(hold, 4096)); /* what is in it does not move */
    assert_true(hold->cap - hold->len >= d.mask_len);
    d.mask = hold->data + hold->len;
    roaring_bitmap_portable_serialize(r, buf_extend(hold, d.mask_len));
    roaring_bitmap_free(r);
    buf_put(list, &d, sizeof d);
}

static void fill(struct commit_record *r, struct buf *hold)
{
    struct segment_ref ref = {.id = 5, .base_version = 9, .rows = 100, .base_ordinal = 7};
    struct inline_run run = {0, 3};
    *r = (struct commit_record){.meta = {.version = 9,
                                         .time_us = -4,
                                         .mode = LOAD_RESTORE,
                                         .rows = 1,
                                         .inserted = 2,
                                         .updated = 3,
                                         .deleted = 4,
                                         .stale = 5,
                                         .live_rows = 6,
                                         .live_vectors = 7,
                                         .digest = {8, 9},
                                         .message = "hello",
                                         .message_len = 5,
                                         .metadata = "{\"a\":1}",
                                         .metadata_len = 7,
                                         .load_id = ID,
                                         .load_id_len = 16,
                                         .idem_key = "key",
                                         .idem_key_len = 3,
                                         .idem_hash = {1, 2, 3}},
                                .tail_id = 4,
                                .ninline = 2,
                                .inline_rows = (const uint8_t *)"rows",
                                .inline_len = 4,
                                .inline_payload = 11,
                                .restores = true};
    buf_put(&r->runs, &run, sizeof run);
    buf_put(&r->segments, &ref, sizeof ref);
    put_mask(&r->dead, 5, hold, 10);
    put_mask(&r->gone, 5, hold, 11);
    ref.id = 6;
    buf_put(&r->target.segments, &ref, sizeof ref);
    put_mask(&r->target.dead, 6, hold, 12);
    put_mask(&r->target.gone, 6, hold, 13);
}

static void expect_blob(const void *a, size_t n, const void *b, size_t m)
{
    assert_int_equal(n, m);
    if (n)
        assert_memory_equal(a, b, n);
}

static void expect_refs(const struct buf *a, const struct buf *b)
{
    const struct segment_ref *x = (const struct segment_ref *)a->data;
    const struct segment_ref *y = (const struct segment_ref *)b->data;
    assert_int_equal(a->len, b->len);
    for (size_t i = 0; i < a->len / sizeof *x; i++)
        assert_true(x[i].id == y[i].id && x[i].base_version == y[i].base_version &&
                    x[i].rows == y[i].rows && x[i].base_ordinal == y[i].base_ordinal);
}

static void expect_masks(const struct buf *a, const struct buf *b)
{
    const struct dead_ref *x = (const struct dead_ref *)a->data;
    const struct dead_ref *y = (const struct dead_ref *)b->data;
    assert_int_equal(a->len, b->len);
    for (size_t i = 0; i < a->len / sizeof *x; i++) {
        assert_int_equal(x[i].segment, y[i].segment);
        expect_blob(x[i].mask, x[i].mask_len, y[i].mask, y[i].mask_len);
    }
}

static void a_commit_record_is_read_back_whole(void **state)
{
    (void)state;
    struct commit_record a, b;
    struct buf hold = {0}, out = {0};
    fill(&a, &hold);
    commit_record_encode(&a, &out);
    assert_int_equal(commit_record_decode(out.data, out.len, &b, NULL), ERR_OK);
    const struct commit_meta *x = &a.meta, *y = &b.meta;
    assert_true(x->version == y->version && x->time_us == y->time_us && x->mode == y->mode);
    assert_true(x->rows == y->rows && x->inserted == y->inserted && x->updated == y->updated);
    assert_true(x->deleted == y->deleted && x->stale == y->stale && x->live_rows == y->live_rows);
    assert_int_equal(x->live_vectors, y->live_vectors);
    assert_memory_equal(&x->digest, &y->digest, sizeof x->digest);
    expect_blob(x->message, x->message_len, y->message, y->message_len);
    expect_blob(x->metadata, x->metadata_len, y->metadata, y->metadata_len);
    expect_blob(x->load_id, x->load_id_len, y->load_id, y->load_id_len);
    expect_blob(x->idem_key, x->idem_key_len, y->idem_key, y->idem_key_len);
    assert_memory_equal(x->idem_hash, y->idem_hash, 16);
    assert_true(b.restores && !b.replace_all && b.ninline == 2 && b.inline_payload == 11);
    expect_refs(&a.segments, &b.segments);
    expect_masks(&a.dead, &b.dead);
    expect_masks(&a.gone, &b.gone);
    expect_refs(&a.target.segments, &b.target.segments);
    expect_masks(&a.target.dead, &b.target.dead);
    expect_masks(&a.target.gone, &b.target.gone);
    for (size_t n = 0; n < out.len; n++) { /* each shorter one is damaged, but for the first part */
        struct commit_record cut;
        if (commit_record_decode(out.data, n, &cut, NULL) == ERR_OK) {
            assert_int_equal(cut.gone.len + cut.target.segments.len, 0);
            commit_record_deinit(&cut);
        }
    }
    commit_record_deinit(&a);
    commit_record_deinit(&b);
    buf_deinit(&hold);
    buf_deinit(&out);
}

/* Bytes of what a commit record of `r` has behind its first part. */
static size_t later_bytes(const struct commit_record *r)
{
    return 1 + 8 + 3 * 4 + 16 + r->segments.len / sizeof(struct segment_ref) * 8 + 4;
}

static void a_commit_record_of_the_first_release_is_read(void **state)
{
    (void)state;
    struct commit_record a, b;
    struct buf hold = {0}, out = {0};
    fill(&a, &hold);
    a.restores = false;
    a.meta.metadata_len = a.meta.load_id_len = a.meta.idem_key_len = 0;
    a.gone.len = 0;
    commit_record_encode(&a, &out);
    assert_int_equal(commit_record_decode(out.data, out.len - later_bytes(&a), &b, NULL), ERR_OK);
    assert_int_equal(b.meta.version, 9);
    expect_blob(b.meta.message, b.meta.message_len, "hello", 5);
    expect_masks(&a.dead, &b.dead);
    assert_int_equal(b.meta.stale, 0);
    assert_int_equal(((struct segment_ref *)b.segments.data)->base_ordinal, 0);
    commit_record_deinit(&a);
    commit_record_deinit(&b);
    buf_deinit(&hold);
    buf_deinit(&out);
}

static void compactions_tags_and_vacuums_are_read_back(void **state)
{
    (void)state;
    struct buf out = {0}, hold = {0};
    uint64_t ids[] = {3, 4};
    struct compact_record a = {0}, b;
    struct segment_ref ref = {.id = 5, .rows = 8};
    buf_put(&a.removed, ids, sizeof ids);
    buf_put(&a.added.segments, &ref, sizeof ref);
    put_mask(&a.added.dead, 5, &hold, 3);
    compact_record_encode(&a, &out);
    assert_int_equal(compact_record_decode(out.data, out.len, &b, NULL), ERR_OK);
    expect_blob(a.removed.data, a.removed.len, b.removed.data, b.removed.len);
    expect_refs(&a.added.segments, &b.added.segments);
    expect_masks(&a.added.dead, &b.added.dead);
    assert_int_equal(
        compact_record_decode(out.data, out.len - 1, &(struct compact_record){0}, NULL),
        ERR_CORRUPT);
    compact_record_deinit(&a);
    compact_record_deinit(&b);

    struct tag_record t = {"v1", 2, true, 77}, u;
    buf_reset(&out);
    tag_record_encode(&t, &out);
    assert_int_equal(tag_record_decode(out.data, out.len, &u, NULL), ERR_OK);
    expect_blob(t.tag, t.tag_len, u.tag, u.tag_len);
    assert_true(u.set && u.version == 77);

    struct vacuum_record v = {.horizon = 12}, w;
    buf_reset(&out);
    buf_put(&v.kept, ids, sizeof ids);
    buf_put(&v.removed, ids, sizeof ids[0]);
    vacuum_record_encode(&v, &out);
    assert_int_equal(vacuum_record_decode(out.data, out.len, &w, NULL), ERR_OK);
    assert_int_equal(w.horizon, 12);
    expect_blob(v.kept.data, v.kept.len, w.kept.data, w.kept.len);
    expect_blob(v.removed.data, v.removed.len, w.removed.data, w.removed.len);
    vacuum_record_deinit(&v);
    vacuum_record_deinit(&w);
    buf_deinit(&out);
    buf_deinit(&hold);
}

/* ---- a directory of the first release ---- */

/* Writes the checkpoint anew as the first releases did: without history, without files of it. */
static void put_first_checkpoint(struct rig *r)
{
    struct fixture *f = &r->f;
    char dir[PATH_CAP], path[PATH_CAP], command[PATH_CAP + 20];
    struct buf data = {0}, body = {0}, file = {0};
    struct checkpoint cp;
    struct io_file *in;
    uint64_t size;
    snprintf(dir, sizeof dir, "%s/c/log", f->dir);
    wal_path(dir, 2, "ckpt", path, sizeof path);
    OK(io_file_open(f->io, path, IO_READ, &in, &f->ctx));
    OK(io_file_size(in, &size, &f->ctx));
    OK(io_file_read(in, buf_extend(&data, size), size, 0, &f->ctx));
    io_file_close(in);
    OK(checkpoint_decode(data.data, data.len, NULL, &cp, &f->ctx));
    const struct commit_meta *m = &cp.meta;
    schema_encode(cp.schema, &body);
    uint64_t numbers[] = {m->version, (uint64_t)m->time_us};
    buf_put(&body, numbers, sizeof numbers);
    buf_put_u32(&body, 0);
    uint64_t counts[] = {0, 0, 0, 0, m->live_rows, m->live_vectors, m->digest.lo, m->digest.hi};
    buf_put(&body, counts, sizeof counts);
    buf_put_u32(&body, 0);
    buf_put_u64(&body, cp.next_segment_id);
    buf_put_u64(&body, cp.first_group);
    const struct segment_ref *refs = (const struct segment_ref *)cp.manifest.segments.data;
    size_t n = cp.manifest.segments.len / sizeof *refs;
    buf_put_u32(&body, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        buf_put_u64(&body, refs[i].id);
        buf_put_u64(&body, refs[i].base_version);
        buf_put_u32(&body, refs[i].rows);
    }
    const struct dead_ref *dead = (const struct dead_ref *)cp.manifest.dead.data;
    buf_put_u32(&body, (uint32_t)(cp.manifest.dead.len / sizeof *dead));
    for (size_t i = 0; i < cp.manifest.dead.len / sizeof *dead; i++) {
        buf_put_u64(&body, dead[i].segment);
        buf_put_blob(&body, dead[i].mask, dead[i].mask_len);
    }
    envelope_encode("LSTNCKP\x1a", 1, data.data + 12, &body, &file);
    OK(io_write_atomic(f->io, path, file.data, file.len, &f->ctx));
    snprintf(command, sizeof command, "rm %s/*.hist", dir);
    assert_int_equal(system(command), 0);
    checkpoint_deinit(&cp);
    buf_deinit(&data);
    buf_deinit(&body);
    buf_deinit(&file);
}

static bool count_version(void *arg, const struct version_info *info)
{
    (void)info;
    ++*(int *)arg;
    return true;
}

static void a_directory_of_the_first_release_keeps_its_newest_version(void **state)
{
    (void)state;
    struct rig rg, *r = &rg;
    struct snapshot *s;
    struct version_info info;
    struct buf hold = {0};
    int listed = 0;
    rig_new(r, IO_POSIX, KEY_STRING);
    struct fixture *f = &r->f;
    rig_upsert(r, 0, 30);
    rig_delete(r, 3, 9);
    rig_upsert(r, 20, 50);
    OK(collection_seal(r->c, &f->ctx));
    catalog_close(f->cat);
    put_first_checkpoint(r);
    fixture_open(f);
    r->c = fixture_find(f, "c");
    for (int turn = 0; turn < 2; turn++) {
        rig_expect(r, 3);
        assert_int_equal(collection_open_version(r->c, 2, true, &s, &f->ctx), ERR_GONE);
        rig_upsert(r, 10, 12);
        OK(collection_checkpoint(r->c, &f->ctx));
        rig_reopen(r);
        OK(history_verify(r->c, &f->ctx));
    }
    rig_expect(r, 3);
    rig_expect(r, 4);
    rig_expect(r, 5);
    OK(collection_version_info(r->c, 3, &hold, &info, &f->ctx));
    assert_int_equal(info.live_rows, 44);
    OK(collection_versions(r->c, 0, 10, count_version, &listed, &f->ctx));
    assert_int_equal(listed, 3);
    buf_deinit(&hold);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_record_is_read_back_whole),
        cmocka_unit_test(a_commit_record_of_the_first_release_is_read),
        cmocka_unit_test(compactions_tags_and_vacuums_are_read_back),
        cmocka_unit_test(a_directory_of_the_first_release_keeps_its_newest_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
