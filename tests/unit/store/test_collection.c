/* Commits, duplicates, partial rows, deletes, sealing and restarts of one collection, on both io
 * backends and both key types. */
#include "store_fixture.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>

#include "store/collection_internal.h"
#include "store/wal.h"

struct param {
    enum io_backend backend;
    enum key_type key;
};

static struct param params[] = {
    {IO_POSIX, KEY_STRING}, {IO_POSIX, KEY_INT64}, {IO_AUTO, KEY_STRING}, {IO_AUTO, KEY_INT64}};

static struct digest digest_of(struct collection *c)
{
    epoch_enter();
    struct digest d = collection_snapshot(c)->digest;
    epoch_leave();
    return d;
}

static uint64_t rows_of(struct collection *c)
{
    epoch_enter();
    uint64_t n = collection_snapshot(c)->rows;
    epoch_leave();
    return n;
}

static void small_and_large_loads_survive_reopening(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    struct commit_result r = load_range(f, c, LOAD_UPSERT, 0, 100, 0);
    assert_int_equal(r.version, 1);
    assert_int_equal(r.inserted, 100);
    r = load_range(f, c, LOAD_UPSERT, 50, 40050, 7); /* spills into a segment file */
    assert_int_equal(r.version, 2);
    assert_int_equal(r.inserted, 39950);
    assert_int_equal(r.updated, 50);
    r = load_range(f, c, LOAD_UPSERT, 40000, 40100, 9);
    assert_int_equal(r.updated, 50);
    struct digest before = digest_of(c);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(rows_of(c), 40100);
        expect_row(c, 0, 0);
        expect_row(c, 50, 57);
        expect_row(c, 39999, 40006);
        expect_row(c, 40000, 40009);
        expect_row(c, 40099, 40108);
        assert_false(has_key(c, 40100));
        struct digest now = digest_of(c);
        assert_true(now.lo == before.lo && now.hi == before.hi);
        fixture_reopen(f);
        c = fixture_find(f, "c");
    }
    fixture_free(f);
}

static void sealing_renumbers_nothing(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 500, 0);
    load_range(f, c, LOAD_UPSERT, 100, 200, 1);
    epoch_enter();
    struct snapshot *old = snapshot_acquire(collection_snapshot(c));
    struct row_ref a, b;
    assert_true(find_ref(old, 150, &a));
    epoch_leave();
    OK(collection_seal(c, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 400, 600, 2);
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    assert_true(find_ref(s, 150, &b));
    assert_null(s->views[b.view].segment->tail);
    assert_int_equal(s->views[b.view].segment->id, old->views[a.view].segment->id);
    assert_int_equal(a.row, b.row);
    uint64_t version, ordinal;
    segment_seq(s->views[b.view].segment, b.row, &version, &ordinal);
    assert_int_equal(version, 2);
    assert_int_equal(ordinal, 50);
    epoch_leave();
    snapshot_release(old);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(rows_of(c), 600);
        expect_row(c, 99, 99);
        expect_row(c, 150, 151);
        expect_row(c, 400, 402);
        expect_row(c, 599, 601);
        fixture_reopen(f);
        c = fixture_find(f, "c");
        OK(collection_seal(c, &f->ctx));
    }
    fixture_free(f);
}

enum { MANY = 700 };

/* Two files, the newer one a run where the keys are int64, and a tail; the odd keys of 0 to 299 are
 * in two of them, 649 in the oldest only, and every key from 650 on is in none. */
static struct collection *three_segments(struct fixture *f, const struct param *p)
{
    struct collection *c = fixture_create(f, "c", p->key);
    for (int64_t key = 1; key < 300; key += 2)
        load_range(f, c, LOAD_UPSERT, key, key + 1, 0);
    load_range(f, c, LOAD_UPSERT, 649, 650, 0);
    OK(collection_seal(c, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 0, 500, 1);
    OK(collection_seal(c, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 480, 649, 2);
    return c;
}

static void many_keys_are_found_like_single_ones(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = three_segments(f, p);
    static char names[MANY][24];
    static struct key_probe probes[MANY];
    static char numbers[MANY * 8 + 1]; /* unaligned */
    for (int64_t i = 0; i < MANY; i++) {
        int64_t key = i * 37 % MANY; /* in no order; 37 and MANY have no common divisor */
        memcpy(numbers + 1 + i * 8, &key, 8);
        snprintf(names[i], sizeof names[i], "k%lld", (long long)key);
        probes[i] = p->key == KEY_INT64
                        ? (struct key_probe){.key = numbers + 1 + i * 8, .len = 8}
                        : (struct key_probe){.key = names[i], .len = strlen(names[i])};
    }
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    assert_int_equal(s->nviews, 3);
    snapshot_find_many(s, probes, MANY);
    for (int64_t i = 0; i < MANY; i++) {
        struct row_ref one;
        bool found = find_ref(s, i * 37 % MANY, &one);
        assert_int_equal(found, i * 37 % MANY < 650);
        assert_int_equal(probes[i].found, found);
        if (found)
            assert_memory_equal(&probes[i].ref, &one, sizeof one);
    }
    epoch_leave();
    fixture_free(f);
}

static void absent_keeps_and_null_clears(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 10, 0);
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    struct commit_result r;
    int64_t count = 77;
    for (int64_t key = 4; key <= 12; key += 4) { /* 4 and 8 exist, 12 does not */
        put_key(f, b, key);
        OK(batch_set(b, COUNT, &count, sizeof count, &f->ctx));
        OK(batch_set_null(b, PRICE, &f->ctx));
    }
    OK(load_add(l, b, &f->ctx));
    OK(load_commit(l, &r, &f->ctx));
    assert_int_equal(r.updated, 2);
    assert_int_equal(r.inserted, 1);
    batch_free(b);
    load_free(l);
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    struct row_ref ref;
    size_t len;
    assert_true(find_ref(s, 8, &ref));
    const struct segment *seg = s->views[ref.view].segment;
    assert_null(segment_cell(seg, ref.row, PRICE, &len));
    assert_int_equal(*(const int64_t *)segment_cell(seg, ref.row, COUNT, &len), 77);
    assert_memory_equal(segment_cell(seg, ref.row, NAME, &len), "n8", 2);
    assert_true(segment_vector(seg, ref.row)[0] == 8);
    assert_true(find_ref(s, 12, &ref));
    seg = s->views[ref.view].segment;
    assert_null(segment_vector(seg, ref.row));
    assert_null(segment_cell(seg, ref.row, NAME, &len));
    assert_int_equal(s->vectors, 10);
    assert_int_equal(s->rows, 11);
    epoch_leave();
    fixture_free(f);
}

/* A large partial upsert is prepared; meanwhile another commit changes rows that it completes. The
 * load must keep the newer cells. */
static void a_partial_load_sees_commits_that_land_meanwhile(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    enum { N = 20000 };
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, N, 0);
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    struct commit_result r;
    float price = 0.25f;
    for (int64_t key = 0; key < N; key++) {
        put_key(f, b, key);
        OK(batch_set(b, PRICE, &price, sizeof price, &f->ctx));
    }
    OK(load_add(l, b, &f->ctx)); /* more than a load holds in memory: completed now */
    load_range(f, c, LOAD_UPSERT, 100, 110, 1000000);
    OK(load_commit(l, &r, &f->ctx));
    assert_int_equal(r.updated, N);
    batch_free(b);
    load_free(l);
    struct digest before = digest_of(c);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(rows_of(c), N);
        expect_row(c, 99, 99);
        expect_row(c, 105, 1000105);
        expect_row(c, N - 1, N - 1);
        epoch_enter();
        struct row_ref ref;
        size_t len;
        const struct snapshot *s = collection_snapshot(c);
        for (int64_t key = 95; key < 115; key++) {
            assert_true(find_ref(s, key, &ref));
            const float *cell = segment_cell(s->views[ref.view].segment, ref.row, PRICE, &len);
            assert_non_null(cell);
            assert_true(*cell == price);
        }
        assert_int_equal(s->vectors, N);
        assert_true(s->digest.lo == before.lo && s->digest.hi == before.hi);
        epoch_leave();
        fixture_reopen(f);
        c = fixture_find(f, "c");
    }
    fixture_free(f);
}

/* The digest of a content does not depend on the way it came about. */
static void the_digest_tells_content_not_history(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *a = fixture_create(f, "a", p->key), *b = fixture_create(f, "b", p->key);
    load_range(f, a, LOAD_UPSERT, 0, 30000, 5);
    for (int64_t from = 0; from < 30000; from += 10000)
        load_range(f, b, LOAD_UPSERT, from, from + 10000, from == 10000 ? 4 : 5);
    struct digest x = digest_of(a), y = digest_of(b);
    assert_false(x.lo == y.lo && x.hi == y.hi);
    load_range(f, b, LOAD_UPSERT, 10000, 20000, 5);
    y = digest_of(b);
    assert_true(x.lo == y.lo && x.hi == y.hi);
    fixture_free(f);
}

static void append_refuses_keys_that_exist(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_APPEND, 0, 30000, 0);
    for (int large = 0; large < 2; large++) {
        struct load *l = begin(f, c, LOAD_APPEND);
        struct batch *b = new_batch(f, l);
        struct commit_result r;
        int64_t n = large ? 40000 : 3;
        for (int64_t key = 30000; key < 30000 + n; key++)
            put_row(f, b, key == 30002 ? 17 : key, key);
        OK(load_add(l, b, &f->ctx));
        assert_int_equal(load_commit(l, &r, &f->ctx), ERR_UNPROCESSABLE);
        assert_int_equal(f->ctx.row, 2);
        assert_string_equal(f->ctx.field, "key");
        batch_free(b);
        load_free(l);
        assert_int_equal(rows_of(c), 30000);
        assert_false(has_key(c, 30000));
    }
    load_range(f, c, LOAD_APPEND, 30000, 30010, 0);
    assert_int_equal(rows_of(c), 30010);
    fixture_free(f);
}

static void duplicates_are_named_or_the_last_wins(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    for (int large = 0; large < 2; large++) {
        for (int last = 0; last < 2; last++) {
            struct load_options o = {
                .mode = LOAD_UPSERT, .expected_version = -1, .duplicates_last = last};
            struct load *l;
            struct commit_result r;
            OK(load_new(c, &o, &l, &f->ctx));
            struct batch *b = new_batch(f, l);
            int64_t n = large ? 30000 : 10;
            for (int64_t key = 0; key < n; key++)
                put_row(f, b, key, key);
            put_row(f, b, 3, 1000);
            put_row(f, b, 3, 2000);
            OK(load_add(l, b, &f->ctx));
            enum err e = load_commit(l, &r, &f->ctx);
            if (last) {
                assert_int_equal(e, ERR_OK);
                assert_int_equal(r.rows, n + 2);
                assert_int_equal(r.inserted + r.updated, n);
                assert_int_equal(rows_of(c), n);
                expect_row(c, 3, 2000);
                expect_row(c, 4, 4);
            } else {
                char both[64];
                snprintf(both, sizeof both, "rows 3 and %lld", (long long)n);
                assert_int_equal(e, ERR_UNPROCESSABLE);
                assert_non_null(strstr(f->ctx.detail, both));
                assert_int_equal(f->ctx.row, n);
            }
            batch_free(b);
            load_free(l);
        }
    }
    fixture_reopen(f);
    c = fixture_find(f, "c");
    expect_row(c, 3, 2000);
    assert_int_equal(rows_of(c), 30000);
    fixture_free(f);
}

static void deletes_count_once_and_stay_deleted(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 30000, 0);     /* a file */
    load_range(f, c, LOAD_UPSERT, 30000, 30010, 0); /* the tail */
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    int64_t keys[] = {5, 30005, 5, 99999999};
    for (int i = 0; i < 4; i++)
        put_row(f, b, keys[i], 0);
    struct commit_result r;
    struct load_options o = {.expected_version = -1};
    OK(collection_delete_keys(c, b, &o, &r, &f->ctx));
    assert_int_equal(r.deleted, 2);
    batch_free(b);
    load_free(l);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(rows_of(c), 30008);
        assert_false(has_key(c, 5));
        assert_false(has_key(c, 30005));
        expect_row(c, 6, 6);
        if (round == 1)
            OK(collection_seal(c, &f->ctx));
        fixture_reopen(f);
        c = fixture_find(f, "c");
    }
    load_range(f, c, LOAD_APPEND, 5, 6, 0); /* a deleted key is new again */
    expect_row(c, 5, 5);
    fixture_free(f);
}

static void expected_version_guards(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 3, 0);
    struct load_options o = {.mode = LOAD_UPSERT, .expected_version = 0};
    struct load *l;
    struct commit_result r;
    assert_int_equal(load_new(c, &o, &l, &f->ctx), ERR_PRECONDITION);
    o.expected_version = 1;
    OK(load_new(c, &o, &l, &f->ctx));
    load_range(f, c, LOAD_UPSERT, 3, 3, 0);
    assert_int_equal(load_commit(l, &r, &f->ctx), ERR_PRECONDITION);
    load_free(l);
    o.expected_version = 2;
    OK(load_new(c, &o, &l, &f->ctx));
    OK(load_commit(l, &r, &f->ctx)); /* no rows: a version all the same */
    assert_int_equal(r.version, 3);
    load_free(l);
    fixture_free(f);
}

static void a_recreated_collection_goes_on_numbering(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 3, 0);
    load_range(f, c, LOAD_UPSERT, 0, 3, 1);
    OK(catalog_drop(f->cat, "c", &f->ctx));
    assert_int_equal(catalog_find(f->cat, "c", &c, &f->ctx), ERR_NOT_FOUND);
    c = fixture_create(f, "c", p->key);
    assert_int_equal(rows_of(c), 0);
    assert_int_equal(load_range(f, c, LOAD_UPSERT, 0, 3, 0).version, 3);
    fixture_reopen(f);
    c = fixture_find(f, "c");
    assert_int_equal(load_range(f, c, LOAD_UPSERT, 0, 3, 0).version, 4);
    fixture_free(f);
}

static bool staged_file(struct fixture *f, const char *folder, uint64_t id)
{
    char path[2000];
    snprintf(path, sizeof path, "%s/c/%s/%016llx.seg", f->dir, folder, (unsigned long long)id);
    return access(path, F_OK) == 0;
}

enum { SPILLS = 20000, FIRST_ID = 2 }; /* segment 1 is the tail */

static struct load *begin_large(struct fixture *f, struct collection *c, struct batch **b)
{
    struct load *l = begin(f, c, LOAD_UPSERT);
    *b = new_batch(f, l);
    for (int64_t key = 0; key < SPILLS; key++)
        put_row(f, *b, key, key);
    OK(load_add(l, *b, &f->ctx));
    assert_true(staged_file(f, "staging", FIRST_ID));
    return l;
}

/* The successor has the path of the dropped collection, and the same segment numbers. */
static void a_load_of_a_dropped_collection_leaves_its_namesake_alone(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    for (int ending = 0; ending < 3; ending++) { /* given up, committed, goes on and is committed */
        struct batch *b1, *b2;
        struct commit_result r;
        struct load *old = begin_large(f, fixture_create(f, "c", p->key), &b1);
        OK(catalog_drop(f->cat, "c", &f->ctx));
        struct collection *c = fixture_create(f, "c", p->key);
        struct load *now = begin_large(f, c, &b2);
        if (ending == 2) {
            assert_int_equal(load_add(old, b1, &f->ctx), ERR_NOT_FOUND);
            assert_non_null(strstr(f->ctx.detail, "dropped meanwhile"));
        }
        if (ending >= 1) {
            err_clear(&f->ctx);
            assert_int_equal(load_commit(old, &r, &f->ctx), ERR_NOT_FOUND);
            assert_non_null(strstr(f->ctx.detail, "dropped meanwhile"));
        }
        load_free(old);
        err_clear(&f->ctx);
        assert_true(staged_file(f, "staging", FIRST_ID));
        assert_false(staged_file(f, "segments", FIRST_ID));
        OK(load_commit(now, &r, &f->ctx));
        load_free(now);
        assert_true(staged_file(f, "segments", FIRST_ID));
        batch_free(b1);
        batch_free(b2);
        fixture_reopen(f);
        assert_int_equal(rows_of(fixture_find(f, "c")), SPILLS);
        OK(catalog_drop(f->cat, "c", &f->ctx));
    }
    fixture_free(f);
}

static void sealing_a_dropped_collection_is_no_error(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = collection_acquire(fixture_create(f, "c", p->key));
    load_range(f, c, LOAD_UPSERT, 0, 10, 0);
    OK(catalog_drop(f->cat, "c", &f->ctx));
    load_range(f, fixture_create(f, "c", p->key), LOAD_UPSERT, 0, 20, 0);
    OK(collection_seal(c, &f->ctx));
    assert_int_equal(collection_enter_dir(c, &f->ctx), ERR_NOT_FOUND);
    err_clear(&f->ctx);
    collection_release(c);
    fixture_reopen(f);
    assert_int_equal(rows_of(fixture_find(f, "c")), 20);
    fixture_free(f);
}

static void half_written_files_go_at_open(void **state)
{
    static const char *const suffixes[] = {"log", "ckpt", "hist"};
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    char tmp[3][2000], kept[2000];
    fixture_new(f, p->backend);
    load_range(f, fixture_create(f, "c", p->key), LOAD_UPSERT, 0, 10, 0);
    catalog_close(f->cat);
    for (int i = 0; i < 3; i++) {
        snprintf(tmp[i], sizeof tmp[i], "%s/c/log/0000000000000007.%s.tmp", f->dir, suffixes[i]);
        assert_int_equal(close(open(tmp[i], O_CREAT | O_WRONLY, 0600)), 0);
    }
    snprintf(kept, sizeof kept, "%s/c/log/notes.ckpt.tmp", f->dir);
    assert_int_equal(close(open(kept, O_CREAT | O_WRONLY, 0600)), 0);
    fixture_open(f);
    assert_int_equal(rows_of(fixture_find(f, "c")), 10);
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(access(tmp[i], F_OK), 0);
    assert_int_equal(access(kept, F_OK), 0);
    fixture_free(f);
}

static void put_file(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
}

/* Its number is given again, and it would be taken for the index of another segment. */
static void an_index_without_its_segment_goes_at_open(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    char orphan[2000], known[2000];
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 10, 0);
    OK(collection_seal(c, &f->ctx));
    epoch_enter();
    uint64_t id = collection_snapshot(c)->views[0].segment->id;
    epoch_leave();
    catalog_close(f->cat);
    snprintf(known, sizeof known, "%s/c/index/%016" PRIx64 ".ann", f->dir, id);
    snprintf(orphan, sizeof orphan, "%s/c/index/%016" PRIx64 ".ann", f->dir, id + 40);
    put_file(known);
    put_file(orphan);
    fixture_open(f);
    assert_int_equal(rows_of(fixture_find(f, "c")), 10);
    assert_int_equal(access(known, F_OK), 0);
    assert_int_not_equal(access(orphan, F_OK), 0);
    fixture_free(f);
}

static void a_gap_in_the_log_files_is_damage(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    char command[4200];
    struct collection *c;
    fixture_new(f, p->backend);
    load_range(f, fixture_create(f, "c", p->key), LOAD_UPSERT, 0, 10, 0);
    catalog_close(f->cat);
    snprintf(command, sizeof command, "cd %s/c/log && cp 0000000000000001.log 0000000000000003.log",
             f->dir);
    assert_int_equal(system(command), 0);
    fixture_open(f);
    err_clear(&f->ctx);
    epoch_enter();
    enum err e = catalog_find(f->cat, "c", &c, &f->ctx);
    epoch_leave();
    assert_int_not_equal(e, ERR_OK);
    assert_non_null(strstr(f->ctx.detail, "0000000000000002 is missing"));
    fixture_free(f);
}

/* Rows whose tail can't be written are bounded, and so are the log files. */
static void sealing_that_fails_closes_no_further_tail(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    char staging[2000], away[2000];
    uint64_t rows, bytes;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    snprintf(staging, sizeof staging, "%s/c/staging", f->dir);
    snprintf(away, sizeof away, "%s/c/away", f->dir);
    assert_int_equal(rename(staging, away), 0);
    for (int i = 0; i < 5; i++) {
        load_range(f, c, LOAD_UPSERT, i * 100, i * 100 + 100, 0);
        err_clear(&f->ctx);
        assert_int_not_equal(collection_seal(c, &f->ctx), ERR_OK);
    }
    registry_closed_tails_size(c, c->tail, &rows, &bytes);
    assert_int_equal(rows, 100);
    assert_int_equal(wal_number(c->wal), 2);
    assert_int_equal(rename(away, staging), 0);
    err_clear(&f->ctx);
    OK(collection_checkpoint(c, &f->ctx)); /* of all there is, not of the rotation that failed */
    assert_int_equal(wal_number(c->wal), 3);
    assert_int_equal(tail_rows(c->tail), 0);
    registry_closed_tails_size(c, c->tail, &rows, &bytes);
    assert_int_equal(rows, 0);
    fixture_reopen(f);
    assert_int_equal(rows_of(fixture_find(f, "c")), 500);
    fixture_free(f);
}

static void a_directory_that_lost_its_format_is_refused(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    char path[2000], aside[2000];
    fixture_new(f, p->backend);
    load_range(f, fixture_create(f, "c", p->key), LOAD_UPSERT, 0, 10, 0);
    catalog_close(f->cat);
    snprintf(path, sizeof path, "%s/FORMAT", f->dir);
    snprintf(aside, sizeof aside, "%s/FORMAT.aside", f->dir);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(catalog_open(f->dir, f->io, NULL, &f->cat, &f->ctx), ERR_CORRUPT);
    assert_non_null(strstr(f->ctx.detail, "holds collections but no FORMAT file"));
    assert_int_not_equal(access(path, F_OK), 0);
    err_clear(&f->ctx);
    assert_int_equal(rename(aside, path), 0);
    fixture_open(f);
    assert_int_equal(rows_of(fixture_find(f, "c")), 10);
    fixture_free(f);
}

/* One byte of the vectors changes on disk while the daemon is down. */
static void a_damaged_block_is_found_by_the_scrub(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key), *other = fixture_create(f, "o", p->key);
    load_range(f, c, LOAD_UPSERT, 0, 30000, 0);
    load_range(f, other, LOAD_UPSERT, 0, 30000, 0);
    epoch_enter();
    char path[2000];
    snprintf(path, sizeof path, "%s", collection_snapshot(c)->views[0].segment->path);
    epoch_leave();
    catalog_close(f->cat);
    int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, 70000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 70000), 1);
    close(fd);
    fixture_open(f);
    enum err e = ERR_OK;
    for (int i = 0; i < 5000 && e == ERR_OK; i++) {
        usleep(1000);
        epoch_enter();
        e = catalog_find(f->cat, "c", &c, &f->ctx);
        epoch_leave();
    }
    assert_int_equal(e, ERR_UNAVAILABLE);
    assert_non_null(strstr(f->ctx.detail, "offset 65536"));
    expect_row(fixture_find(f, "o"), 29999, 29999);
    OK(catalog_drop(f->cat, "c", &f->ctx));
    fixture_free(f);
}

struct writer_arg {
    struct fixture *f;
    struct collection *c;
    int64_t first;
};

static void *write_many(void *arg)
{
    struct writer_arg *w = arg;
    struct fixture own = *w->f;
    for (int64_t i = 0; i < 200; i++)
        load_range(&own, w->c, LOAD_UPSERT, w->first + i, w->first + i + 1, 3);
    return NULL;
}

static void writers_share_syncs_and_readers_see_whole_versions(void **state)
{
    struct param *p = *state;
    struct fixture fx, *f = &fx;
    enum { WRITERS = 8 };
    fixture_new(f, p->backend);
    struct collection *c = fixture_create(f, "c", p->key);
    pthread_t threads[WRITERS];
    struct writer_arg args[WRITERS];
    for (int i = 0; i < WRITERS; i++) {
        args[i] = (struct writer_arg){f, c, i * 1000};
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, &args[i]), 0);
    }
    uint64_t last = 0;
    while (last < WRITERS * 200) {
        epoch_enter();
        const struct snapshot *s = collection_snapshot(c);
        assert_true(s->version >= last);
        assert_int_equal(s->rows, s->version); /* each commit inserts one row */
        last = s->version;
        epoch_leave();
        if (last == 700)
            OK(collection_seal(c, &f->ctx));
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    fixture_reopen(f);
    c = fixture_find(f, "c");
    assert_int_equal(rows_of(c), WRITERS * 200);
    for (int i = 0; i < WRITERS; i++)
        expect_row(c, i * 1000 + 199, i * 1000 + 202);
    fixture_free(f);
}

int main(void)
{
    static void (*const tests[])(void **) = {
        small_and_large_loads_survive_reopening,
        sealing_renumbers_nothing,
        many_keys_are_found_like_single_ones,
        absent_keeps_and_null_clears,
        a_partial_load_sees_commits_that_land_meanwhile,
        the_digest_tells_content_not_history,
        append_refuses_keys_that_exist,
        duplicates_are_named_or_the_last_wins,
        deletes_count_once_and_stay_deleted,
        expected_version_guards,
        a_recreated_collection_goes_on_numbering,
        a_damaged_block_is_found_by_the_scrub,
        a_load_of_a_dropped_collection_leaves_its_namesake_alone,
        sealing_a_dropped_collection_is_no_error,
        half_written_files_go_at_open,
        an_index_without_its_segment_goes_at_open,
        a_gap_in_the_log_files_is_damage,
        sealing_that_fails_closes_no_further_tail,
        a_directory_that_lost_its_format_is_refused,
        writers_share_syncs_and_readers_see_whole_versions,
    };
    static const char *const names[] = {
        "small_and_large_loads_survive_reopening",
        "sealing_renumbers_nothing",
        "many_keys_are_found_like_single_ones",
        "absent_keeps_and_null_clears",
        "a_partial_load_sees_commits_that_land_meanwhile",
        "the_digest_tells_content_not_history",
        "append_refuses_keys_that_exist",
        "duplicates_are_named_or_the_last_wins",
        "deletes_count_once_and_stay_deleted",
        "expected_version_guards",
        "a_recreated_collection_goes_on_numbering",
        "a_damaged_block_is_found_by_the_scrub",
        "a_load_of_a_dropped_collection_leaves_its_namesake_alone",
        "sealing_a_dropped_collection_is_no_error",
        "half_written_files_go_at_open",
        "an_index_without_its_segment_goes_at_open",
        "a_gap_in_the_log_files_is_damage",
        "sealing_that_fails_closes_no_further_tail",
        "a_directory_that_lost_its_format_is_refused",
        "writers_share_syncs_and_readers_see_whole_versions",
    };
    enum { NT = sizeof tests / sizeof *tests, NP = sizeof params / sizeof *params };
    struct CMUnitTest all[NT * NP];
    for (size_t t = 0; t < NT; t++) {
        for (size_t i = 0; i < NP; i++)
            all[t * NP + i] = (struct CMUnitTest){
                .name = names[t], .test_func = tests[t], .initial_state = &params[i]};
    }
    return cmocka_run_group_tests(all, NULL, NULL);
}
