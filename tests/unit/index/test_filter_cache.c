/* The cache of matching rows: from the second use on, the same for every version and spelling,
 * never more than it may hold, and safe to read while others change it. */
#include "rig.h"

#include <pthread.h>
#include <stdio.h>

#include "base/epoch.h"
#include "index/filter_cache.h"
#include "index/search_internal.h"

enum { ROWS = 20000, DIM = 8, READERS = 3, ROUNDS = 400 };

struct world {
    struct rig rig;
    float *vectors;
    uint8_t missing[ROWS];
    struct segment *segment;
    struct snapshot *snapshot;
};

static void world_open(struct world *w)
{
    rig_open(&w->rig, KEY_INT64, DIM, DIST_L2);
    w->vectors = rig_vectors(ROWS, DIM, 10, 1);
    memset(w->missing, 0, sizeof(w->missing));
    for (uint32_t row = 3; row < ROWS; row += 100)
        w->missing[row] = 1;
    w->segment = rig_file(&w->rig, 1, w->vectors, ROWS, 0, w->missing);
    w->snapshot = rig_snapshot(&w->rig, &w->segment, 1);
    filter_cache_limit(1 << 20);
    filter_cache_clear();
    epoch_enter();
}

static void world_close(struct world *w)
{
    epoch_leave();
    filter_cache_clear();
    epoch_drain();
    snapshot_release(w->snapshot);
    free(w->vectors);
    rig_close(&w->rig);
}

static struct filter *parse(const struct world *w, const char *text)
{
    struct filter *f;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (filter_parse(w->rig.schema, text, strlen(text), &f, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    return f;
}

static struct filter *below(const struct world *w, unsigned key)
{
    char text[40];
    snprintf(text, sizeof(text), "key < %u", key);
    return parse(w, text);
}

static const struct filter_bits *use(const struct world *w, const struct filter *f)
{
    return filter_cache_use(w->segment, f, 0, NULL);
}

/* Used twice, so that its bits are there. */
static const struct filter_bits *bits_of(const struct world *w, unsigned key)
{
    struct filter *f = below(w, key);
    const struct filter_bits *b = use(w, f);
    b = b ? b : use(w, f);
    filter_free(f);
    return b;
}

static void the_second_use_finds_bits(void **state)
{
    struct world w;
    (void)state;
    world_open(&w);
    struct filter *f = below(&w, 1000);
    assert_true(filter_cache_due_us(w.segment, f) == 0);
    assert_null(filter_cache_peek(w.segment, f));
    assert_null(use(&w, f));
    assert_null(filter_cache_peek(w.segment, f));
    assert_true(filter_cache_due_us(w.segment, f) > 0);
    const struct filter_bits *b = use(&w, f);
    assert_non_null(b);
    assert_ptr_equal(filter_cache_peek(w.segment, f), b);
    assert_true(filter_cache_due_us(w.segment, f) == 0);
    assert_int_equal(b->matching, 990); /* ten have no vector */
    for (uint32_t row = 0; row < ROWS; row++)
        assert_int_equal(b->words[row / 64] >> row % 64 & 1, row < 1000 && !w.missing[row]);
    filter_free(f);
    world_close(&w);
}

static void a_filter_is_found_in_any_spelling_and_no_other_is(void **state)
{
    struct world w;
    (void)state;
    world_open(&w);
    const struct filter_bits *b = bits_of(&w, 1000);
    struct filter *same = parse(&w, "( key<1000 )"), *other = parse(&w, "key <= 1000");
    assert_ptr_equal(filter_cache_peek(w.segment, same), b);
    assert_null(filter_cache_peek(w.segment, other));
    filter_free(same);
    filter_free(other);
    world_close(&w);
}

/* A number of a segment comes back in another collection; what is kept for the one that is gone
 * says nothing of it. */
static void a_segment_with_the_same_number_has_its_own(void **state)
{
    struct world w;
    (void)state;
    world_open(&w);
    struct filter *f = below(&w, 1000);
    assert_non_null(bits_of(&w, 1000));
    struct segment *again;
    assert_int_equal(segment_open(w.segment->path, NULL, &again, NULL), ERR_OK);
    assert_null(filter_cache_peek(again, f));
    segment_release(again);
    filter_free(f);
    world_close(&w);
}

static void what_takes_too_long_or_is_cut_off_is_not_kept(void **state)
{
    struct world w;
    atomic_bool stop = true;
    (void)state;
    world_open(&w);
    struct filter *f = below(&w, 1000);
    assert_null(use(&w, f));
    assert_null(filter_cache_use(w.segment, f, 1e-3, NULL));
    assert_null(filter_cache_use(w.segment, f, 0, &stop));
    assert_int_equal(filter_cache_bytes(), 0);
    assert_non_null(filter_cache_use(w.segment, f, 1e6, NULL));
    filter_free(f);
    world_close(&w);
}

static void no_more_is_kept_than_allowed_and_what_is_used_stays(void **state)
{
    struct world w;
    const uint64_t limit = 8 * (sizeof(struct filter_bits) + (ROWS + 63) / 64 * 8);
    (void)state;
    world_open(&w);
    filter_cache_limit(limit);
    for (unsigned round = 1; round < 200; round++) {
        (void)bits_of(&w, 5);
        (void)bits_of(&w, 100 + round);
        assert_in_range(filter_cache_bytes(), 1, limit);
    }
    struct filter *kept = below(&w, 5), *gone = below(&w, 101);
    assert_non_null(filter_cache_peek(w.segment, kept));
    assert_null(filter_cache_peek(w.segment, gone));
    filter_cache_limit(0);
    while (filter_cache_bytes() > 0) /* those used since the last look stay for another */
        filter_cache_limit(0);
    assert_null(filter_cache_peek(w.segment, kept));
    assert_null(bits_of(&w, 5));
    filter_free(kept);
    filter_free(gone);
    world_close(&w);
}

/* Tails grow, so that their bits would not stay true. */
static void tails_and_small_segments_have_none(void **state)
{
    struct world w;
    (void)state;
    world_open(&w);
    struct segment *none[2] = {
        rig_file(&w.rig, 2, w.vectors, FILTER_CACHE_ROWS_MIN - 1, 0, NULL),
        rig_tail(&w.rig, 3, w.vectors, 5000, 0, NULL),
    };
    struct filter *f = below(&w, 1000);
    for (int i = 0; i < 2; i++) {
        assert_null(filter_cache_use(none[i], f, 0, NULL));
        assert_null(filter_cache_use(none[i], f, 0, NULL));
        assert_true(filter_cache_due_us(none[i], f) == 0);
        segment_release(none[i]);
    }
    filter_free(f);
    world_close(&w);
}

/* What is allowed by cached bits and by the filter itself, row by row and word by word. */
static void expect_allowed(const struct world *w, const struct filter *f, const struct view *v)
{
    struct view_plan cached = {.allowed = {.view = v, .filter = f}, .share = NAN};
    struct allowed asked = {.view = v, .filter = f};
    uint32_t words = v->rows / 64 + (v->rows % 64 != 0), matching = 0;
    allowed_peek_cache(&cached);
    assert_non_null(cached.allowed.matching);
    for (uint32_t row = 0; row < v->rows; row++) {
        if (w->missing[row])
            continue;
        assert_int_equal(allowed_row(&cached.allowed, row), allowed_row(&asked, row));
        matching += allowed_row(&asked, row);
    }
    assert_false(allowed_row(&cached.allowed, v->rows));
    for (uint32_t i = 0; i < words; i++)
        assert_int_equal(allowed_word(&cached.allowed, i), allowed_word(&asked, i));
    for (uint32_t i = 0, next; i < words; i = next + 1) {
        next = allowed_next(&cached.allowed, i, words);
        for (; i < next; i++)
            assert_int_equal(allowed_word(&asked, i), 0);
    }
    assert_true(fabs(cached.share - (double)matching / v->live) < 0.01);
}

static void every_version_shares_the_bits(void **state)
{
    struct world w;
    (void)state;
    world_open(&w);
    assert_non_null(bits_of(&w, 7000));
    struct filter *f = below(&w, 7000);
    struct view *v = &w.snapshot->views[0];
    expect_allowed(&w, f, v);
    struct view older = *v;
    older.rows = 6543;
    older.live = 6543;
    expect_allowed(&w, f, &older);
    for (uint32_t row = 0; row < 7000; row += 1 + row % 3)
        rig_kill(w.snapshot, 0, row);
    expect_allowed(&w, f, v);
    for (uint32_t row = 0; row < 7000; row++) {
        if (view_live(v, row))
            rig_kill(w.snapshot, 0, row);
    }
    expect_allowed(&w, f, v);
    filter_free(f);
    world_close(&w);
}

struct stress {
    struct world *world;
    atomic_int wrong;
};

static void *read_all(void *arg)
{
    struct stress *s = arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned key = 64 * (1 + i % 12);
        epoch_enter();
        const struct filter_bits *b = bits_of(s->world, key);
        for (unsigned word = 0; b && word < (ROWS + 63) / 64; word++) {
            uint64_t allowed = word < key / 64 ? ~0ull : 0;
            s->wrong += (b->words[word] & ~allowed) != 0;
        }
        epoch_leave();
    }
    return NULL;
}

/* Room for a third of what is asked for. */
static void bits_stay_readable_while_others_take_their_place(void **state)
{
    struct world w;
    struct stress s = {.world = &w};
    pthread_t threads[READERS];
    (void)state;
    world_open(&w);
    filter_cache_limit(4 * (sizeof(struct filter_bits) + (ROWS + 63) / 64 * 8));
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, &s), 0);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(s.wrong, 0);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_second_use_finds_bits),
        cmocka_unit_test(a_filter_is_found_in_any_spelling_and_no_other_is),
        cmocka_unit_test(a_segment_with_the_same_number_has_its_own),
        cmocka_unit_test(what_takes_too_long_or_is_cut_off_is_not_kept),
        cmocka_unit_test(no_more_is_kept_than_allowed_and_what_is_used_stays),
        cmocka_unit_test(tails_and_small_segments_have_none),
        cmocka_unit_test(every_version_shares_the_bits),
        cmocka_unit_test(bits_stay_readable_while_others_take_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
