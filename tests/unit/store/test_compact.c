/* Compaction: fewer segments, and every version equal to the bit, with commits meanwhile, across
 * restarts, and after restores. */
#include "store_fixture.h"

#include <pthread.h>
#include <unistd.h>

#include "store/collection_internal.h"
#include "store/compact.h"
#include "store/upkeep_internal.h"
#include "versions.h"

static void load_and_seal(struct fixture *f, struct collection *c, int64_t from, int64_t to,
                          int64_t shift)
{
    load_range(f, c, LOAD_UPSERT, from, to, shift);
    OK(collection_seal(c, &f->ctx));
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

static uint32_t file_segments(struct collection *c)
{
    uint32_t n = 0;
    struct snapshot *s = collection_newest(c);
    for (uint32_t i = 0; i < s->nviews; i++)
        n += !s->views[i].segment->tail;
    snapshot_release(s);
    return n;
}

static uint32_t dead_rows(struct collection *c)
{
    uint32_t n = 0;
    struct snapshot *s = collection_newest(c);
    for (uint32_t i = 0; i < s->nviews; i++)
        n += s->views[i].rows - s->views[i].live;
    snapshot_release(s);
    return n;
}

/* Loads of all sizes, overlapping keys, deletions, a schema that grows. */
static void fill(struct fixture *f, struct collection *c)
{
    load_and_seal(f, c, 0, 200, 0);
    load_and_seal(f, c, 200, 300, 0);
    load_range(f, c, LOAD_UPSERT, 100, 20100, 7);
    delete_some(f, c, 0, 20000, 3);
    load_and_seal(f, c, 20050, 20150, 2);
    OK(try_alter(c, "late", FEATURE_INT64, &f->ctx));
    load_and_seal(f, c, 50, 1000, 1);
    load_and_seal(f, c, 5000, 5001, 1);
    delete_some(f, c, 700, 900, 1);
    load_range(f, c, LOAD_UPSERT, 40000, 40010, 0);
}

static void no_version_changes(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    struct prints before;
    struct compact_result r;
    fixture_new(f, key == KEY_INT64 ? IO_POSIX : IO_AUTO);
    struct collection *c = fixture_create(f, "c", key);
    fill(f, c);
    OK(collection_seal(c, &f->ctx));
    take_prints(f, c, &before);
    uint32_t segments = file_segments(c);
    assert_true(segments > 4);
    OK(collection_compact(c, &r, &f->ctx));
    assert_int_equal(r.segments_before, segments);
    assert_int_equal(r.segments_after, 1);
    assert_true(r.bytes_after < r.bytes_before);
    assert_int_equal(file_segments(c), 1);
    assert_int_equal(dead_rows(c), 0);
    expect_prints(f, c, &before, 1);
    fixture_reopen(f); /* the log is replayed */
    c = fixture_find(f, "c");
    assert_int_equal(file_segments(c), 1);
    expect_prints(f, c, &before, 1);
    load_and_seal(f, c, 0, 50, 9); /* and a checkpoint comes */
    fixture_reopen(f);
    c = fixture_find(f, "c");
    expect_prints(f, c, &before, 1);
    OK(collection_compact(c, &r, &f->ctx));
    expect_prints(f, c, &before, 1);
    OK(collection_compact(c, &r, &f->ctx)); /* nothing to gain */
    assert_int_equal(r.bytes_before, r.bytes_after);
    fixture_free(f);
}

/* History goes along: dead in the merged segment, and there. */
static void history_is_kept(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    struct prints before;
    struct compact_result r;
    fixture_new(f, IO_AUTO);
    struct collection *c = create_events(f, key);
    fill_events(f, c);
    take_prints(f, c, &before);
    OK(collection_seal(c, &f->ctx));
    OK(collection_compact(c, &r, &f->ctx));
    assert_int_equal(r.segments_after, 1);
    assert_true(dead_rows(c) > 50);
    expect_prints(f, c, &before, 1);
    load_events(f, c, 15, 50, 250, 8000); /* meets history in the merged segment */
    delete_range(f, c, 16, 18);
    take_prints(f, c, &before);
    OK(collection_seal(c, &f->ctx));
    OK(collection_compact(c, &r, &f->ctx));
    expect_prints(f, c, &before, 1);
    fixture_reopen(f);
    expect_prints(f, fixture_find(f, "c"), &before, 1);
    fixture_free(f);
}

static size_t merge_all(struct fixture *f, struct collection *c, struct compaction *job)
{
    memset(job, 0, sizeof *job);
    job->base = collection_newest(c);
    job->n = compact_pick(job->base, COMPACT_ALL, COMPACT_BYTES_MAX, UINT64_MAX, job->views);
    for (size_t i = 0; i < job->n; i++) {
        const struct view *v = &job->base->views[job->views[i]];
        job->inputs[i] = (struct merge_input){.segment = v->segment,
                                              .rows = v->rows,
                                              .drop = view_dropped(job->base, v),
                                              .base_version = v->segment->base_version,
                                              .base_ordinal = v->segment->base_ordinal};
    }
    OK(merge_segments(c, job->inputs, job->n, job->base->schema, NULL, &job->out, &f->ctx));
    OK(merge_place(c, &job->out, &f->ctx));
    return job->n;
}

static void drop_job(struct compaction *job)
{
    merge_output_deinit(&job->out);
    snapshot_release(job->base);
}

/* Between merge and swap rows die one by one and by the thousand, in inputs old and new. */
static void deletions_meanwhile_are_carried_over(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    struct prints before;
    struct compaction job;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", key);
    fill(f, c);
    OK(collection_seal(c, &f->ctx));
    assert_true(merge_all(f, c, &job) > 4);
    delete_some(f, c, 150, 160, 1);
    load_range(f, c, LOAD_UPSERT, 60, 70, 11);
    delete_some(f, c, 10000, 20120, 2);
    load_range(f, c, LOAD_UPSERT, 1001, 19001, 12);
    OK(collection_seal(c, &f->ctx));
    take_prints(f, c, &before);
    OK(compact_swap(c, &job, &f->ctx));
    drop_job(&job);
    assert_true(dead_rows(c) > 0);
    expect_prints(f, c, &before, 1);
    fixture_reopen(f);
    expect_prints(f, fixture_find(f, "c"), &before, 1);
    fixture_free(f);
}

static void history_that_changes_meanwhile_is_carried_over(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx;
    struct prints before;
    struct compaction job;
    fixture_new(f, IO_AUTO);
    struct collection *c = create_events(f, key);
    fill_events(f, c);
    OK(collection_seal(c, &f->ctx));
    merge_all(f, c, &job);
    delete_range(f, c, 42, 44);
    load_events(f, c, 50, 60, 220, 9000);
    load_events(f, c, 60, 70, 20, 9000);
    load_events(f, c, 20, 22, 150, 9000); /* takes the place of history */
    take_prints(f, c, &before);
    OK(compact_swap(c, &job, &f->ctx));
    drop_job(&job);
    expect_prints(f, c, &before, 1);
    fixture_reopen(f);
    expect_prints(f, fixture_find(f, "c"), &before, 1);
    fixture_free(f);
}

/* A refresh that replaces everything leaves nothing to swap for. */
static void a_merge_whose_rows_all_died_is_given_up(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct compaction job;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    fill(f, c);
    OK(collection_seal(c, &f->ctx));
    merge_all(f, c, &job);
    delete_some(f, c, 0, 50000, 1);
    assert_int_equal(compact_swap(c, &job, &f->ctx), ERR_CONFLICT);
    merge_discard(c, &job.out);
    drop_job(&job);
    load_range(f, c, LOAD_UPSERT, 0, 10, 0);
    expect_row(c, 5, 5);
    fixture_free(f);
}

/* ---- beside commits ---- */

static atomic_bool stop;

/* Rows that give nothing but key and count. */
static void load_counts(struct fixture *f, struct collection *c, int64_t from, int64_t to,
                        int64_t count)
{
    struct commit_result r;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    for (int64_t key = from; key < to; key++) {
        put_key(f, b, key);
        OK(batch_set(b, COUNT, &count, sizeof count, &f->ctx));
    }
    OK(load_add(l, b, &f->ctx));
    OK(load_commit(l, &r, &f->ctx));
    assert_int_equal(r.updated + r.inserted, to - from);
    batch_free(b);
    load_free(l);
}

static void *commit_on(void *arg)
{
    struct fixture *f = ((void **)arg)[0];
    struct collection *c = ((void **)arg)[1];
    for (int64_t i = 1; !atomic_load(&stop) && i < 120; i++) {
        load_range(f, c, LOAD_UPSERT, i * 37 % 20000, i * 37 % 20000 + 5, i);
        if (i % 40 == 0) { /* a load through staged files, some cells of which come from old rows */
            load_range(f, c, LOAD_UPSERT, i * 10, i * 10 + 17000, i);
            load_counts(f, c, 1000, 18000, i);
        }
        if (i % 7 == 0)
            delete_some(f, c, i * 91 % 20000, i * 91 % 20000 + 9, 2);
        if (i % 10 == 0)
            OK(collection_seal(c, &f->ctx));
        usleep(2000);
    }
    atomic_store(&stop, true);
    return NULL;
}

static void commits_go_on_beside_it(void **state)
{
    enum key_type key = *(enum key_type *)*state;
    struct fixture fx, *f = &fx, other;
    struct prints before;
    struct compact_result r;
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", key);
    load_range(f, c, LOAD_UPSERT, 0, 20000, 0);
    pthread_t writer;
    other = fx;
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&writer, NULL, commit_on, (void *[]){&other, c}), 0);
    int rounds = 0;
    for (; !atomic_load(&stop); rounds++) {
        OK(collection_compact(c, &r, &f->ctx));
        struct snapshot *s = collection_newest(c);
        snapshot_print(f, s); /* is in itself right */
        snapshot_release(s);
    }
    pthread_join(writer, NULL);
    assert_true(rounds > 2);
    take_prints(f, c, &before);
    OK(collection_seal(c, &f->ctx));
    OK(collection_compact(c, &r, &f->ctx));
    expect_prints(f, c, &before, 1);
    fixture_reopen(f);
    expect_prints(f, fixture_find(f, "c"), &before, 1);
    fixture_free(f);
}

/* ---- the tiers ---- */

static void segments_stay_few(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct upkeep_options on = {.compaction = true};
    fixture_new(f, IO_AUTO);
    OK(catalog_start_upkeep(f->cat, &on, &f->ctx));
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    for (int64_t i = 0; i < 40; i++)
        load_and_seal(f, c, i * 10, i * 10 + 10, 0);
    for (int tries = 0; file_segments(c) >= COMPACT_FANOUT && tries < 200; tries++)
        usleep(50000);
    assert_true(file_segments(c) < COMPACT_FANOUT);
    for (int64_t i = 0; i < 400; i++)
        expect_row(c, i, i);
    fixture_free(f);
}

static void a_segment_of_dead_rows_is_rewritten(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    uint32_t views[COMPACT_INPUTS_MAX];
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    load_and_seal(f, c, 0, 1000, 0);
    delete_some(f, c, 0, 200, 1);
    struct snapshot *s = collection_newest(c);
    assert_int_equal(compact_pick(s, COMPACT_DUE, COMPACT_BYTES_MAX, UINT64_MAX, views), 0);
    assert_int_equal(compact_pick(s, COMPACT_ALL, COMPACT_BYTES_MAX, UINT64_MAX, views), 1);
    snapshot_release(s);
    delete_some(f, c, 200, 260, 1);
    s = collection_newest(c);
    assert_int_equal(compact_pick(s, COMPACT_DUE, COMPACT_BYTES_MAX, UINT64_MAX, views), 1);
    assert_int_equal(compact_pick(s, COMPACT_DUE, COMPACT_BYTES_MAX, 1, views), 0);
    snapshot_release(s);
    fixture_free(f);
}

/* ---- the index ---- */

struct builds {
    unsigned built, removed, added;
    enum err answer;
};

static enum err build(void *arg, struct collection *c, struct segment *s, struct build_watch *watch,
                      struct err_ctx *ctx)
{
    struct builds *b = arg;
    (void)c;
    (void)watch;
    assert_int_equal(access(s->path, R_OK), 0);
    b->built++;
    return b->answer == ERR_OK ? ERR_OK : err_set(ctx, b->answer, "no memory for that");
}

static void removed(void *arg, struct collection *c, uint64_t id)
{
    (void)c;
    (void)id;
    ((struct builds *)arg)->removed++;
}

static void what_the_index_refuses_is_not_merged(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct compact_result r;
    struct builds b = {.answer = ERR_UNPROCESSABLE};
    struct store_hooks hooks = {.arg = &b, .segment_build = build, .segment_removed = removed};
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    fill(f, c);
    OK(collection_seal(c, &f->ctx));
    c->hooks = &hooks;
    uint32_t segments = file_segments(c);
    uint64_t bytes = c->compact_bytes_max;
    OK(collection_compact(c, &r, &f->ctx));
    assert_int_equal(file_segments(c), segments);
    assert_true(b.built > 0 && b.removed == b.built);
    assert_true(c->compact_bytes_max < bytes);
    b.answer = ERR_OK;
    c->compact_bytes_max = bytes;
    b.built = b.removed = 0;
    OK(collection_compact(c, &r, &f->ctx));
    assert_int_equal(file_segments(c), 1);
    assert_int_equal(b.built, 1);
    assert_int_equal(b.removed, 0);
    c->hooks = NULL;
    fixture_free(f);
}

static void *begin_and_end(void *arg)
{
    struct collection *c = arg;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (upkeep_begin(c, &ctx) == ERR_OK)
        upkeep_end(c);
    return NULL;
}

/* Requests for it hold threads that loads need. */
static void only_a_few_wait_for_upkeep(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    pthread_t threads[4];
    fixture_new(f, IO_AUTO);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    OK(upkeep_begin(c, &f->ctx));
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, begin_and_end, c), 0);
    while (atomic_load(&c->upkeep_waiting) < 4)
        usleep(1000);
    assert_int_equal(upkeep_begin(c, &f->ctx), ERR_BUSY);
    upkeep_end(c);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    OK(upkeep_begin(c, &f->ctx));
    upkeep_end(c);
    fixture_free(f);
}

int main(void)
{
    static enum key_type keys[] = {KEY_STRING, KEY_INT64};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(no_version_changes, &keys[0]),
        cmocka_unit_test_prestate(no_version_changes, &keys[1]),
        cmocka_unit_test_prestate(deletions_meanwhile_are_carried_over, &keys[0]),
        cmocka_unit_test_prestate(deletions_meanwhile_are_carried_over, &keys[1]),
        cmocka_unit_test_prestate(history_is_kept, &keys[0]),
        cmocka_unit_test_prestate(history_is_kept, &keys[1]),
        cmocka_unit_test_prestate(history_that_changes_meanwhile_is_carried_over, &keys[0]),
        cmocka_unit_test_prestate(history_that_changes_meanwhile_is_carried_over, &keys[1]),
        cmocka_unit_test(a_merge_whose_rows_all_died_is_given_up),
        cmocka_unit_test_prestate(commits_go_on_beside_it, &keys[0]),
        cmocka_unit_test_prestate(commits_go_on_beside_it, &keys[1]),
        cmocka_unit_test(segments_stay_few),
        cmocka_unit_test(only_a_few_wait_for_upkeep),
        cmocka_unit_test(a_segment_of_dead_rows_is_rewritten),
        cmocka_unit_test(what_the_index_refuses_is_not_merged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
