/* The log: what was acknowledged comes back, a torn end is cut off, damage in the middle is not. */
#include "store_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "store/wal.h"
#include "sweep.h"

static const uint8_t id[16] = "collection-id-01";

struct seen {
    int n;
    char last[64];
    size_t bytes;
};

static enum err note(void *arg, const void *record, size_t n, struct err_ctx *ctx)
{
    (void)ctx;
    struct seen *s = arg;
    s->n++;
    s->bytes += n;
    snprintf(s->last, sizeof s->last, "%.*s", (int)(n < 60 ? n : 60), (const char *)record);
    return ERR_OK;
}

static void put(struct fixture *f, struct wal *w, const char *text)
{
    uint64_t ticket;
    OK(wal_append(w, text, strlen(text), &ticket, &f->ctx));
    OK(wal_wait(w, ticket, &f->ctx));
}

static enum err reopen(struct fixture *f, uint64_t from, struct wal **w, struct seen *s)
{
    memset(s, 0, sizeof *s);
    err_clear(&f->ctx);
    return wal_open(f->io, f->dir, id, from, note, s, w, &f->ctx);
}

static int log_fd(struct fixture *f, uint64_t number)
{
    char path[2000];
    wal_path(f->dir, number, "log", path, sizeof path);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    return fd;
}

static void records_come_back_in_order_over_files(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct wal *w;
    struct seen s;
    uint64_t number;
    fixture_new(f, IO_AUTO);
    OK(wal_create(f->io, f->dir, id, 1, 1, &w, &f->ctx));
    put(f, w, "one");
    put(f, w, "two");
    OK(wal_rotate(w, &number, &f->ctx));
    assert_int_equal(number, 2);
    char *big = malloc(3 << 20);
    memset(big, 'x', (3 << 20) - 1);
    big[(3 << 20) - 1] = 0;
    put(f, w, big);
    put(f, w, "four");
    wal_close(w);
    OK(reopen(f, 1, &w, &s));
    assert_int_equal(s.n, 4);
    assert_string_equal(s.last, "four");
    assert_int_equal(s.bytes, 3 + 3 + (3 << 20) - 1 + 4);
    put(f, w, "five");
    wal_close(w);
    OK(reopen(f, 2, &w, &s));
    assert_int_equal(s.n, 3);
    assert_string_equal(s.last, "five");
    wal_close(w);
    free(big);
    fixture_free(f);
}

static void put_much(struct fixture *f, struct wal *w)
{
    char text[64 << 10];
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (int i = 0; i < 8; i++)
        put(f, w, text);
}

static void a_busy_log_goes_on_in_a_file_made_ahead(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct wal *w;
    struct seen s;
    struct stat st;
    uint64_t number;
    char temp[2000];
    fixture_new(f, IO_AUTO);
    wal_path(f->dir, 2, "log.tmp", temp, sizeof temp);
    OK(wal_create(f->io, f->dir, id, 1, 1, &w, &f->ctx));
    put(f, w, "little");
    wal_prepare(w);
    assert_int_equal(stat(temp, &st), -1); /* not worth it */
    put_much(f, w);
    wal_prepare(w);
    assert_int_equal(stat(temp, &st), 0);
    uint64_t size = (uint64_t)st.st_size;
    assert_true(size > wal_bytes(w));
    put(f, w, "meanwhile");
    OK(wal_rotate(w, &number, &f->ctx));
    assert_int_equal(stat(temp, &st), -1);
    put_much(f, w);
    int fd = log_fd(f, 2);
    assert_int_equal(fstat(fd, &st), 0);
    close(fd);
    assert_int_equal(st.st_size, size); /* nothing was filled since */
    wal_path(f->dir, 3, "log.tmp", temp, sizeof temp);
    wal_prepare(w);
    assert_int_equal(stat(temp, &st), 0);
    wal_unprepare(w);
    assert_int_equal(stat(temp, &st), -1);
    wal_unprepare(w);
    wal_close(w);
    OK(reopen(f, 1, &w, &s));
    assert_int_equal(s.n, 1 + 8 + 1 + 8);
    wal_close(w);
    fixture_free(f);
}

/* Prepares, rotates and writes one more with call number `at` failing; returns whether it did. */
static bool rotate_with_fault(unsigned at, bool for_good)
{
    struct fixture fx, *f = &fx;
    struct wal *w;
    struct seen s;
    uint64_t number, ticket;
    fixture_new(f, IO_POSIX);
    struct io *inner = f->io;
    struct io *io = sweep_new(inner);
    OK(wal_create(io, f->dir, id, 1, 1, &w, &f->ctx));
    put_much(f, w);
    sweep.calls = 0;
    sweep.at = at;
    sweep.for_good = for_good;
    sweep.error = EIO;
    sweep.armed = true;
    wal_prepare(w);
    (void)!wal_rotate(w, &number, &f->ctx);
    bool kept = wal_append(w, "last", 4, &ticket, &f->ctx) == ERR_OK &&
                wal_wait(w, ticket, &f->ctx) == ERR_OK;
    sweep.armed = false;
    bool struck = sweep.calls >= at;
    wal_close(w);
    OK(reopen(f, 1, &w, &s));
    assert_true(s.n == 8 + kept || (!kept && s.n == 9)); /* refused, it may be there or not */
    put(f, w, "after");
    wal_close(w);
    OK(reopen(f, 1, &w, &s));
    assert_string_equal(s.last, "after");
    wal_close(w);
    fixture_free(f);
    return struck;
}

static void a_rotation_that_fails_loses_nothing(void **state)
{
    (void)state;
    for (int for_good = 0; for_good < 2; for_good++) {
        unsigned at = 1;
        while (rotate_with_fault(at, for_good))
            at++;
        assert_true(at > 8); /* all of its calls had their turn */
    }
}

/* Byte by byte through the last group: whatever is changed there, the records before it come back
 * and the log goes on. */
static void a_torn_last_group_is_cut_off(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct wal *w;
    struct seen s;
    fixture_new(f, IO_POSIX);
    OK(wal_create(f->io, f->dir, id, 1, 1, &w, &f->ctx));
    put(f, w, "kept");
    uint64_t start = wal_bytes(w);
    put(f, w, "torn");
    wal_close(w);
    uint8_t whole[64 + 64];
    int fd = log_fd(f, 1);
    assert_int_equal(pread(fd, whole, sizeof whole, (off_t)start), sizeof whole);
    for (size_t at = 0; at < 48 + 8; at++) {
        uint8_t flipped = whole[at] ^ 0x41;
        assert_int_equal(pwrite(fd, whole, sizeof whole, (off_t)start), sizeof whole);
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)(start + at)), 1);
        OK(reopen(f, 1, &w, &s));
        assert_int_equal(s.n, 1);
        put(f, w, "next");
        wal_close(w);
        OK(reopen(f, 1, &w, &s));
        assert_int_equal(s.n, 2);
        assert_string_equal(s.last, "next");
        wal_close(w);
    }
    close(fd);
    fixture_free(f);
}

static void damage_before_a_valid_group_is_never_cut_off(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct wal *w;
    struct seen s;
    fixture_new(f, IO_POSIX);
    OK(wal_create(f->io, f->dir, id, 1, 1, &w, &f->ctx));
    uint64_t start = wal_bytes(w);
    put(f, w, "first");
    put(f, w, "second");
    wal_close(w);
    int fd = log_fd(f, 1);
    char byte = 'X';
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)start + 50), 1);
    close(fd);
    assert_int_equal(reopen(f, 1, &w, &s), ERR_CORRUPT);
    assert_non_null(strstr(f->ctx.detail, "a valid one follows"));
    fixture_free(f);
}

static void a_clean_end_tells_damage_from_a_torn_write(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct wal *w;
    struct seen s;
    fixture_new(f, IO_AUTO);
    OK(wal_create(f->io, f->dir, id, 1, 1, &w, &f->ctx));
    uint64_t start = wal_bytes(w);
    put(f, w, "only");
    OK(wal_end(w, &f->ctx));
    uint64_t end = wal_bytes(w);
    OK(wal_end(w, &f->ctx));
    assert_int_equal(wal_bytes(w), end); /* once is enough */
    wal_close(w);
    OK(reopen(f, 1, &w, &s));
    assert_int_equal(s.n, 1);
    OK(wal_end(w, &f->ctx));
    assert_int_equal(wal_bytes(w), end);
    wal_close(w);
    int fd = log_fd(f, 1);
    char byte = 'X';
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)start + 50), 1);
    close(fd);
    assert_int_equal(reopen(f, 1, &w, &s), ERR_CORRUPT);
    fixture_free(f);
}

static void another_collections_log_is_refused(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct wal *w;
    struct seen s = {0};
    fixture_new(f, IO_POSIX);
    OK(wal_create(f->io, f->dir, id, 1, 1, &w, &f->ctx));
    wal_close(w);
    static const uint8_t other[16] = "collection-id-02";
    assert_int_equal(wal_open(f->io, f->dir, other, 1, note, &s, &w, &f->ctx), ERR_CORRUPT);
    fixture_free(f);
}

struct waiter {
    struct fixture *f;
    struct wal *w;
};

static void *write_records(void *arg)
{
    struct waiter *x = arg;
    struct fixture own = *x->f;
    for (int i = 0; i < 300; i++)
        put(&own, x->w, "a record");
    return NULL;
}

static void waiting_writers_share_one_sync(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct wal *w;
    struct seen s;
    enum { WRITERS = 8 };
    fixture_new(f, IO_AUTO);
    OK(wal_create(f->io, f->dir, id, 1, 1, &w, &f->ctx));
    struct waiter arg = {f, w};
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_records, &arg), 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    uint64_t groups, records;
    wal_stats(w, &groups, &records);
    assert_int_equal(records, WRITERS * 300);
    assert_true(groups < records); /* some shared, whatever the machine does */
    wal_close(w);
    OK(reopen(f, 1, &w, &s));
    assert_int_equal(s.n, WRITERS * 300);
    wal_close(w);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back_in_order_over_files),
        cmocka_unit_test(a_busy_log_goes_on_in_a_file_made_ahead),
        cmocka_unit_test(a_rotation_that_fails_loses_nothing),
        cmocka_unit_test(a_torn_last_group_is_cut_off),
        cmocka_unit_test(damage_before_a_valid_group_is_never_cut_off),
        cmocka_unit_test(a_clean_end_tells_damage_from_a_torn_write),
        cmocka_unit_test(another_collections_log_is_refused),
        cmocka_unit_test(waiting_writers_share_one_sync),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
