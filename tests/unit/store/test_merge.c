/* Merging segments, held against a walk over the snapshot they came from: every live row is there
 * once, whole, under its seq, in order; and the maps say where each one went. */
#include "store_fixture.h"

#include "store/collection_internal.h"
#include "store/merge.h"
#include "store/segment_check.h"
#include "store/seq_walk.h"

static struct snapshot *newest(struct collection *c)
{
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    return s;
}

static void inputs_of(const struct snapshot *s, struct merge_input *in)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        assert_null(v->segment->tail);
        in[i] = (struct merge_input){.segment = v->segment,
                                     .rows = v->rows,
                                     .drop = v->dead,
                                     .base_version = v->segment->base_version};
    }
}

static void expect_same_row(const struct schema *schema, const struct segment *a, uint32_t row_a,
                            const struct segment *b, uint32_t row_b)
{
    struct row_builder x, y;
    uint64_t va, vb, oa, ob;
    struct buf bytes_a = {0}, bytes_b = {0};
    assert_int_equal(row_builder_init(&x, schema, NULL), ERR_OK);
    assert_int_equal(row_builder_init(&y, schema, NULL), ERR_OK);
    row_from_segment(&x, a, row_a);
    row_from_segment(&y, b, row_b);
    row_encode(&x.row, &bytes_a);
    row_encode(&y.row, &bytes_b);
    assert_int_equal(bytes_a.len, bytes_b.len);
    assert_memory_equal(bytes_a.data, bytes_b.data, bytes_a.len);
    segment_seq(a, row_a, &va, &oa);
    segment_seq(b, row_b, &vb, &ob);
    assert_int_equal(va, vb);
    assert_int_equal(oa, ob);
    buf_deinit(&bytes_a);
    buf_deinit(&bytes_b);
    row_builder_deinit(&x);
    row_builder_deinit(&y);
}

static uint32_t mapped(const struct merge_map *m, uint32_t row)
{
    uint32_t to;
    if (!roaring_bitmap_contains(m->from, row))
        return UINT32_MAX;
    assert_true(roaring_bitmap_select(m->to, (uint32_t)roaring_bitmap_rank(m->from, row) - 1, &to));
    return to;
}

static void expect_maps(const struct snapshot *s, const struct merge_output *out)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct merge_map *m = &out->maps[i];
        assert_int_equal(roaring_bitmap_get_cardinality(m->from), s->views[i].live);
        for (unsigned step = 1; step < 5000; step *= 7) { /* many are walked, few looked up */
            roaring_bitmap_t *some = roaring_bitmap_create(), *want = roaring_bitmap_create();
            for (uint32_t row = step / 2; row < s->views[i].rows; row += step) {
                roaring_bitmap_add(some, row);
                if (mapped(m, row) != UINT32_MAX)
                    roaring_bitmap_add(want, mapped(m, row));
            }
            roaring_bitmap_t *got = merge_map_rows(m, some);
            assert_true(roaring_bitmap_equals(got, want));
            roaring_bitmap_free(got);
            roaring_bitmap_free(some);
            roaring_bitmap_free(want);
        }
    }
}

/* Merges all that the newest version sees and looks at every row of the result. */
static void expect_merge(struct fixture *f, struct collection *c)
{
    struct snapshot *s = newest(c);
    struct merge_input *in = calloc(s->nviews + 1, sizeof *in);
    struct merge_output out;
    struct seq_walk *w;
    struct row_ref ref;
    struct seq seq;
    uint32_t row = 0;
    inputs_of(s, in);
    assert_true(merge_fits(in, s->nviews));
    OK(merge_segments(c, in, s->nviews, s->schema, NULL, &out, &f->ctx));
    OK(segment_verify(out.segment, &f->ctx));
    OK(segment_check(out.segment, &f->ctx));
    assert_int_equal(out.segment->rows, s->rows);
    OK(seq_walk_new(s, NULL, &w, &f->ctx));
    for (; seq_walk_next(w, &ref, &seq); row++) {
        expect_same_row(s->schema, s->views[ref.view].segment, ref.row, out.segment, row);
        assert_int_equal(mapped(&out.maps[ref.view], ref.row), row);
    }
    seq_walk_free(w);
    assert_int_equal(row, s->rows);
    expect_maps(s, &out);
    OK(merge_place(c, &out, &f->ctx));
    assert_int_equal(access(out.segment->path, R_OK), 0);
    merge_discard(c, &out);
    assert_int_not_equal(access(out.segment->path, R_OK), 0);
    merge_output_deinit(&out);
    free(in);
    snapshot_release(s);
}

static void load_and_seal(struct fixture *f, struct collection *c, int64_t from, int64_t to)
{
    load_range(f, c, LOAD_UPSERT, from, to, 0);
    OK(collection_seal(c, &f->ctx));
}

/* A commit whose file shares its version with rows of the tail, between them in seq. */
static void load_interleaved(struct fixture *f, struct collection *c)
{
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    struct commit_result r;
    for (int64_t key = 0; key < 40000; key++) {
        put_key(f, b, key);
        if (key % 3)
            OK(batch_set(b, COUNT, &key, sizeof key, &f->ctx));
        if (key % 1000 == 7)
            OK(batch_set_vector_null(b, &f->ctx));
        if (batch_bytes(b) > (1 << 20) || key == 39999) {
            OK(load_add(l, b, &f->ctx));
            batch_reset(b);
        }
    }
    for (int64_t key = 50; key < 300; key += 10)
        load_range(f, c, LOAD_UPSERT, key, key + 3, 1);
    OK(load_commit(l, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

static void delete_some(struct fixture *f, struct collection *c, int64_t from, int64_t to,
                        int64_t step)
{
    struct load_options o = {.expected_version = -1};
    struct commit_result r;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (int64_t key = from; key < to; key += step)
        put_key(f, b, key);
    OK(collection_delete_keys(c, b, &o, &r, &f->ctx));
    batch_free(b);
    load_free(l);
}

static void every_live_row_is_there_once_in_order(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    fixture_new(f, key == KEY_INT64 ? IO_POSIX : IO_AUTO);
    struct collection *c = fixture_create(f, "c", key);
    expect_merge(f, c); /* nothing to merge is a segment without rows */
    load_and_seal(f, c, 0, 200);
    expect_merge(f, c);
    load_and_seal(f, c, 200, 300); /* keys that go on counting */
    expect_merge(f, c);
    load_range(f, c, LOAD_UPSERT, 100, 40100, 0);
    load_and_seal(f, c, 40050, 40150);
    expect_merge(f, c);
    load_interleaved(f, c);
    OK(collection_seal(c, &f->ctx));
    expect_merge(f, c);
    delete_some(f, c, 0, 40000, 2);
    delete_some(f, c, 1000, 30000, 1);
    load_and_seal(f, c, 40140, 40160);
    expect_merge(f, c);
    fixture_free(f);
}

/* Rows of files under an older schema are null in the features that came later. */
static void older_schemas_read_as_null(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", key);
    load_and_seal(f, c, 0, 5000);
    OK(try_alter(c, "late", FEATURE_INT64, &f->ctx));
    OK(try_alter(c, "later", FEATURE_STRING, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 4000, 6000, 0);
    OK(collection_seal(c, &f->ctx));
    expect_merge(f, c);
    fixture_free(f);
}

/* Parts of a load: their version is not known yet, each begins at an ordinal of its own. */
static void parts_of_one_commit_follow_their_ordinals(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    load_range(f, c, LOAD_UPSERT, 0, 20000, 0); /* large: the file's run has version 0 */
    load_range(f, c, LOAD_UPSERT, 20000, 40000, 0);
    struct snapshot *s = newest(c);
    assert_int_equal(s->nviews, 2);
    struct merge_input in[2];
    struct merge_output out;
    for (int i = 0; i < 2; i++)
        in[i] = (struct merge_input){.segment = s->views[i].segment,
                                     .rows = s->views[i].rows,
                                     .base_ordinal = i ? 0 : 20000};
    OK(merge_segments(c, in, 2, s->schema, NULL, &out, &f->ctx));
    assert_int_equal(out.segment->rows, 40000);
    assert_int_equal(out.segment->nruns, 1);
    assert_int_equal(out.segment->runs[0].version, 0);
    assert_int_equal(out.segment->runs[0].ordinal, 0);
    assert_int_equal(segment_key_int(out.segment, 0), 20000);
    assert_int_equal(segment_key_int(out.segment, 39999), 19999);
    merge_discard(c, &out);
    merge_output_deinit(&out);
    snapshot_release(s);
    fixture_free(f);
}

static bool staging_empty(const struct fixture *f)
{
    char command[400];
    snprintf(command, sizeof command, "test -z \"$(ls %s/c/staging)\"", f->dir);
    return system(command) == 0;
}

static void a_stopped_merge_leaves_nothing(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_STRING);
    load_and_seal(f, c, 0, 100);
    struct snapshot *s = newest(c);
    struct merge_input in[1];
    struct merge_output out;
    atomic_bool stop = true;
    inputs_of(s, in);
    assert_int_equal(merge_segments(c, in, 1, s->schema, &stop, &out, &f->ctx), ERR_UNAVAILABLE);
    assert_true(staging_empty(f));
    snapshot_release(s);
    fixture_free(f);
}

int main(void)
{
    static enum key_type keys[] = {KEY_STRING, KEY_INT64};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(every_live_row_is_there_once_in_order, &keys[0]),
        cmocka_unit_test_prestate(every_live_row_is_there_once_in_order, &keys[1]),
        cmocka_unit_test_prestate(older_schemas_read_as_null, &keys[0]),
        cmocka_unit_test_prestate(older_schemas_read_as_null, &keys[1]),
        cmocka_unit_test(parts_of_one_commit_follow_their_ordinals),
        cmocka_unit_test(a_stopped_merge_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
