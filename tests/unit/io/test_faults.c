/* What a failing system does to files and streams: a backend in front of the real one that makes a
 * chosen call fail or fall short. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "io/io_internal.h"
#include "temp_dir.h"

enum { MIB = 1024 * 1024, DATA_BYTES = 30 * MIB + 5 };

/* The `at`th call (from 1) of an operation returns `result` instead of being made; a write that
 * falls short is made, with `shorten` bytes less. `repeat` says how often. */
struct fault {
    unsigned at, repeat, calls;
    int result;
    size_t shorten;
};

struct faulty {
    struct io base;
    struct io *inner;
    struct fault open, write, write_sync, sync, allocate, truncate, rename, sync_dir, direct;
    struct fault lane_acquire, lane_submit, lane_wait;
};

static struct io_ops faulty_ops;
static struct faulty f;
static struct temp_dir dir;
static struct err_ctx ctx;
static uint8_t *data;

static bool strikes(struct fault *x)
{
    x->calls++;
    return x->at && x->calls >= x->at && x->calls < x->at + x->repeat;
}

/* As much of n bytes as a write that falls short makes: one byte at least. */
static size_t shortened(const struct fault *x, size_t n)
{
    return x->shorten < n ? n - x->shorten : 1;
}

/* ---- the backend ---- */

static int faulty_open(struct io *io, const char *path, int flags)
{
    (void)io;
    return strikes(&f.open) ? f.open.result : f.inner->ops->open(f.inner, path, flags);
}

static ssize_t faulty_write(struct io *io, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)io;
    if (!strikes(&f.write))
        return f.inner->ops->write(f.inner, fd, p, n, offset);
    return f.write.shorten ? f.inner->ops->write(f.inner, fd, p, shortened(&f.write, n), offset)
                           : f.write.result;
}

static ssize_t faulty_write_sync(struct io *io, int fd, const void *p, size_t n, uint64_t offset)
{
    (void)io;
    if (!strikes(&f.write_sync))
        return f.inner->ops->write_sync(f.inner, fd, p, n, offset);
    return f.write_sync.shorten
               ? f.inner->ops->write(f.inner, fd, p, shortened(&f.write_sync, n), offset)
               : f.write_sync.result;
}

static int faulty_sync(struct io *io, int fd)
{
    (void)io;
    return strikes(&f.sync) ? f.sync.result : f.inner->ops->sync(f.inner, fd);
}

static int faulty_allocate(struct io *io, int fd, uint64_t offset, uint64_t n)
{
    (void)io;
    return strikes(&f.allocate) ? f.allocate.result
                                : f.inner->ops->allocate(f.inner, fd, offset, n);
}

static int faulty_truncate(struct io *io, int fd, uint64_t size)
{
    (void)io;
    return strikes(&f.truncate) ? f.truncate.result : f.inner->ops->truncate(f.inner, fd, size);
}

static int faulty_rename(struct io *io, const char *from, const char *to)
{
    (void)io;
    return strikes(&f.rename) ? f.rename.result : f.inner->ops->rename(f.inner, from, to);
}

static int faulty_sync_dir(struct io *io, const char *path)
{
    (void)io;
    return strikes(&f.sync_dir) ? f.sync_dir.result : f.inner->ops->sync_dir(f.inner, path);
}

static int faulty_direct(struct io *io, int fd)
{
    (void)io;
    return strikes(&f.direct) ? f.direct.result : f.inner->ops->set_direct(f.inner, fd);
}

static int faulty_lane_acquire(struct io *io, struct io_lane **out)
{
    (void)io;
    return strikes(&f.lane_acquire) ? f.lane_acquire.result
                                    : f.inner->ops->lane_acquire(f.inner, out);
}

static void faulty_lane_release(struct io *io, struct io_lane *lane, bool idle)
{
    (void)io;
    f.inner->ops->lane_release(f.inner, lane, idle);
}

static int faulty_lane_submit(struct io *io, struct io_lane *lane, int fd, unsigned buffer,
                              size_t from, size_t n, uint64_t offset)
{
    (void)io;
    if (strikes(&f.lane_submit)) {
        if (!f.lane_submit.shorten)
            return f.lane_submit.result;
        if (f.lane_submit.shorten < n)
            n -= f.lane_submit.shorten;
    }
    return f.inner->ops->lane_submit(f.inner, lane, fd, buffer, from, n, offset);
}

static int faulty_lane_wait(struct io *io, struct io_lane *lane, unsigned *buffer, ssize_t *result)
{
    (void)io;
    int r = f.inner->ops->lane_wait(f.inner, lane, buffer, result);
    if (strikes(&f.lane_wait))
        *result = f.lane_wait.result;
    return r;
}

static int set_up(enum io_backend which)
{
    err_clear(&ctx);
    memset(&f, 0, sizeof(f));
    if (temp_dir_new(&dir) != 0 || io_new(which, &f.inner, &ctx) != ERR_OK)
        return -1;
    faulty_ops = *f.inner->ops;
    faulty_ops.open = faulty_open;
    faulty_ops.write = faulty_write;
    faulty_ops.write_sync = faulty_write_sync;
    faulty_ops.sync = faulty_sync;
    faulty_ops.allocate = faulty_allocate;
    faulty_ops.truncate = faulty_truncate;
    faulty_ops.rename = faulty_rename;
    faulty_ops.sync_dir = faulty_sync_dir;
    faulty_ops.set_direct = faulty_direct;
    faulty_ops.lane_acquire = faulty_lane_acquire;
    faulty_ops.lane_release = faulty_lane_release;
    faulty_ops.lane_submit = faulty_lane_submit;
    faulty_ops.lane_wait = faulty_lane_wait;
    io_init(&f.base, &faulty_ops);
    return 0;
}

/* Where io_uring is not allowed this is posix again, and the log says so. */
static int with_uring(void **state)
{
    (void)state;
    return set_up(IO_AUTO);
}

static int with_posix(void **state)
{
    (void)state;
    return set_up(IO_POSIX);
}

static int tear_down(void **state)
{
    (void)state;
    io_free(f.inner);
    temp_dir_remove(&dir);
    return 0;
}

static int make_data(void **state)
{
    (void)state;
    data = malloc(DATA_BYTES);
    if (data)
        random_bytes(data, DATA_BYTES);
    return data ? 0 : -1;
}

static int free_data(void **state)
{
    (void)state;
    free(data);
    return 0;
}

/* ---- what is checked ---- */

static const char *path_of(const char *name)
{
    return temp_path(&dir, name);
}

static enum err write_stream(size_t n, uint64_t size_hint)
{
    struct io_stream *s;
    RETURN_NOT_OK(io_stream_open(&f.base, path_of("s"), size_hint, &s, &ctx));
    enum err e = io_stream_put(s, data, n, &ctx);
    if (e == ERR_OK)
        e = io_stream_finish(s, &ctx);
    if (e != ERR_OK) { /* it sticks, with the same sentence */
        struct err_ctx again;
        err_clear(&again);
        assert_int_equal(io_stream_finish(s, &again), e);
        assert_string_equal(again.detail, ctx.detail);
        assert_int_equal(io_stream_put(s, data, 1, &again), e);
        assert_int_equal(io_stream_align(s, &again), e);
    }
    io_stream_close(s);
    return e;
}

static void expect_file(const char *name, size_t n)
{
    uint64_t size = 0;
    struct io_file *file;
    uint8_t *got = test_malloc(n + 1);
    assert_int_equal(io_file_open(f.inner, path_of(name), IO_READ, &file, &ctx), ERR_OK);
    assert_int_equal(io_file_size(file, &size, &ctx), ERR_OK);
    assert_int_equal(size, n);
    assert_int_equal(io_file_read(file, got, n, 0, &ctx), ERR_OK);
    assert_memory_equal(got, data, n);
    io_file_close(file);
    test_free(got);
}

static void expect_sentence(const char *part)
{
    if (!strstr(ctx.detail, part))
        fail_msg("\"%s\" does not say \"%s\"", ctx.detail, part);
}

static void test_short_stream_writes_are_carried_on(void **state)
{
    (void)state;
    static const size_t SHORT_BY[] = {4096, 8192, 1, 4097, MIB - 4096, MIB - 5000};
    for (size_t i = 0; i < sizeof(SHORT_BY) / sizeof(SHORT_BY[0]); i++) {
        /* a write of a length that O_DIRECT refuses needs the page cache */
        bool odd = SHORT_BY[i] % IO_DIRECT_ALIGN != 0;
        f.direct = (struct fault){.at = odd, .repeat = odd, .result = -EINVAL};
        f.lane_submit = (struct fault){.at = 3, .repeat = 5, .shorten = SHORT_BY[i]};
        assert_int_equal(write_stream(DATA_BYTES, 0), ERR_OK);
        assert_true(f.lane_submit.calls > 31);
        expect_file("s", DATA_BYTES);
        assert_int_equal(io_unlink(f.inner, path_of("s"), &ctx), ERR_OK);
    }
}

static void test_a_stream_write_that_moves_nothing_fails(void **state)
{
    (void)state;
    f.lane_wait = (struct fault){.at = 4, .repeat = 1, .result = 0};
    assert_int_equal(write_stream(DATA_BYTES, 0), ERR_IO);
    expect_sentence("the system took 0 of 1048576 bytes at offset");
}

static void test_a_direct_write_below_the_alignment_fails(void **state)
{
    (void)state;
    f.lane_wait = (struct fault){.at = 4, .repeat = 1, .result = 512};
    assert_int_equal(write_stream(DATA_BYTES, 0), ERR_IO);
    expect_sentence("the system took 512 of 1048576 bytes");
}

static void test_stream_writes_put_off_are_made_again(void **state)
{
    (void)state;
    static const int PUT_OFF[] = {-EINTR, -EAGAIN, -ECANCELED};
    for (size_t i = 0; i < 3; i++) {
        f.lane_wait = (struct fault){.at = 2, .repeat = 6, .result = PUT_OFF[i]};
        assert_int_equal(write_stream(DATA_BYTES, DATA_BYTES), ERR_OK);
        expect_file("s", DATA_BYTES);
        assert_int_equal(io_unlink(f.inner, path_of("s"), &ctx), ERR_OK);
    }
    f.lane_wait = (struct fault){.at = 2, .repeat = 100000, .result = -EAGAIN};
    assert_int_equal(write_stream(DATA_BYTES, 0), ERR_IO);
}

static void test_a_failed_write_sticks_wherever_it_strikes(void **state)
{
    (void)state;
    for (unsigned at = 1; at <= 31; at++) {
        f.lane_wait = (struct fault){.at = at, .repeat = 1, .result = at % 2 ? -EIO : -ENOSPC};
        assert_int_equal(write_stream(DATA_BYTES, 0), at % 2 ? ERR_IO : ERR_NO_SPACE);
        expect_sentence(at % 2 ? "s: Input/output error" : "s: No space left on device");
        assert_int_equal(io_unlink(f.inner, path_of("s"), &ctx), ERR_OK);
    }
    f.lane_wait = (struct fault){0};
    f.lane_submit = (struct fault){.at = 5, .repeat = 1, .result = -EAGAIN};
    assert_int_equal(write_stream(DATA_BYTES, 0), ERR_IO);
    assert_int_equal(io_unlink(f.inner, path_of("s"), &ctx), ERR_OK);
    f.lane_submit = (struct fault){0};
    assert_int_equal(write_stream(DATA_BYTES, 0), ERR_OK); /* the backend came through it */
    expect_file("s", DATA_BYTES);
}

static void test_a_full_disk_shows_at_open_or_put(void **state)
{
    (void)state;
    f.allocate = (struct fault){.at = 1, .repeat = 100, .result = -ENOSPC};
    assert_int_equal(write_stream(MIB, MIB), ERR_NO_SPACE);
    expect_sentence("cannot reserve disk space for");
    assert_int_equal(access(path_of("s"), F_OK), -1);
    f.allocate.calls = 0;
    assert_int_equal(write_stream(2 * MIB, 0), ERR_NO_SPACE);
    assert_int_equal(io_unlink(f.inner, path_of("s"), &ctx), ERR_OK);
    f.allocate = (struct fault){.at = 1, .repeat = 1, .result = -ENOSPC};
    assert_int_equal(write_stream(2 * MIB, 0), ERR_OK); /* what it needs is there, no more */
    expect_file("s", 2 * MIB);
}

static void test_file_systems_without_allocation_or_direct_writes(void **state)
{
    (void)state;
    f.allocate = (struct fault){.at = 1, .repeat = 100, .result = -EOPNOTSUPP};
    f.direct = (struct fault){.at = 1, .repeat = 1, .result = -EINVAL};
    assert_int_equal(write_stream(DATA_BYTES, DATA_BYTES), ERR_OK);
    assert_int_equal(f.allocate.calls, 1);
    assert_true(atomic_load(&f.base.direct_refused));
    expect_file("s", DATA_BYTES);
}

static void test_failures_to_finish(void **state)
{
    (void)state;
    f.truncate = (struct fault){.at = 1, .repeat = 1, .result = -EIO};
    assert_int_equal(write_stream(5000, 0), ERR_IO);
    expect_sentence("cannot set the size of");
    assert_int_equal(io_unlink(f.inner, path_of("s"), &ctx), ERR_OK);
    f.sync = (struct fault){.at = 1, .repeat = 1, .result = -EIO};
    assert_int_equal(write_stream(5000, 0), ERR_IO);
    expect_sentence("cannot sync");
    assert_int_equal(f.sync.calls, 1); /* a failed sync is never tried again */
    f.lane_acquire = (struct fault){.at = 1, .repeat = 1, .result = -ENOMEM};
    assert_int_equal(write_stream(1, 0), ERR_NO_MEMORY);
}

static void test_short_file_writes_are_carried_on(void **state)
{
    (void)state;
    struct io_file *file;
    assert_int_equal(io_file_open(&f.base, path_of("f"), IO_CREATE_EXCL, &file, &ctx), ERR_OK);
    f.write = (struct fault){.at = 1, .repeat = 3, .shorten = 100};
    assert_int_equal(io_file_write(file, data, 1000, 0, &ctx), ERR_OK);
    assert_int_equal(f.write.calls, 4); /* 900, 1, 1, 98 */
    f.write_sync = (struct fault){.at = 1, .repeat = 2, .shorten = 7};
    assert_int_equal(io_file_write_sync(file, data + 1000, 3000, 1000, &ctx), ERR_OK);
    assert_int_equal(f.write_sync.calls, 3); /* the last one wrote the rest, and synced */
    f.write = (struct fault){.at = 1, .repeat = 1, .result = 0};
    assert_int_equal(io_file_write(file, data, 10, 0, &ctx), ERR_IO);
    expect_sentence("took no byte at offset 0");
    f.write_sync = (struct fault){.at = 1, .repeat = 1, .result = -EIO};
    assert_int_equal(io_file_write_sync(file, data, 10, 0, &ctx), ERR_IO);
    assert_int_equal(f.write_sync.calls, 1);
    io_file_close(file);
    expect_file("f", 4000);
}

/* Each step of an atomic write fails in turn: the old content stays, nothing is left behind. */
static void test_an_atomic_write_is_all_or_nothing(void **state)
{
    (void)state;
    struct fault *const steps[] = {&f.open, &f.write_sync, &f.rename};
    assert_int_equal(io_write_atomic(&f.base, path_of("c"), data, 100, &ctx), ERR_OK);
    for (size_t i = 0; i < 3; i++) {
        *steps[i] = (struct fault){.at = 1, .repeat = 1, .result = -EIO};
        assert_int_equal(io_write_atomic(&f.base, path_of("c"), data, 200, &ctx), ERR_IO);
        expect_file("c", 100);
        assert_int_equal(access(path_of("c.tmp"), F_OK), -1);
    }
    f.sync_dir = (struct fault){.at = 1, .repeat = 1, .result = -EIO};
    assert_int_equal(io_write_atomic(&f.base, path_of("c"), data, 200, &ctx), ERR_IO);
    expect_sentence("cannot sync directory");
}

#define ON_BOTH(test)                                                                              \
    {#test " (io_uring)", test, with_uring, tear_down, NULL},                                      \
    {                                                                                              \
#test " (posix)", test, with_posix, tear_down, NULL                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_short_stream_writes_are_carried_on),
        ON_BOTH(test_a_stream_write_that_moves_nothing_fails),
        ON_BOTH(test_a_direct_write_below_the_alignment_fails),
        ON_BOTH(test_stream_writes_put_off_are_made_again),
        ON_BOTH(test_a_failed_write_sticks_wherever_it_strikes),
        ON_BOTH(test_a_full_disk_shows_at_open_or_put),
        ON_BOTH(test_file_systems_without_allocation_or_direct_writes),
        ON_BOTH(test_failures_to_finish),
        ON_BOTH(test_short_file_writes_are_carried_on),
        ON_BOTH(test_an_atomic_write_is_all_or_nothing),
    };
    return cmocka_run_group_tests(tests, make_data, free_data);
}
