/* Streams: bytes and checksums of every awkward size, on both backends. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "io_fixture.h"

enum { KIB = 1024, MIB = 1024 * 1024, DATA_BYTES = 40 * MIB + 1 };

static uint8_t *data; /* DATA_BYTES of noise */

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

static struct io_stream *open_stream(const char *name, uint64_t size_hint)
{
    struct io_stream *s = NULL;
    OK(io_stream_open(io, path_of(name), size_hint, &s, &ctx));
    return s;
}

static void expect_content(const char *name, const uint8_t *want, size_t n)
{
    uint64_t size = 0;
    struct io_file *f = NULL;
    uint8_t *got = test_malloc(n + 1);
    OK(io_file_open(io, path_of(name), IO_READ, &f, &ctx));
    OK(io_file_size(f, &size, &ctx));
    assert_int_equal(size, n);
    OK(io_file_read(f, got, n, 0, &ctx));
    assert_memory_equal(got, want, n);
    io_file_close(f);
    test_free(got);
}

static void expect_sums(const struct io_stream *s, const uint8_t *want, size_t n)
{
    size_t nsums;
    const uint64_t *sums = io_stream_sums(s, &nsums);
    assert_int_equal(nsums, n / IO_SUM_BLOCK);
    for (size_t i = 0; i < nsums; i++)
        assert_true(sums[i] == XXH3_64bits(want + i * IO_SUM_BLOCK, IO_SUM_BLOCK));
}

/* Puts `n` bytes of the data in pieces and checks everything about the file. */
static void write_and_check(size_t n, size_t piece, uint64_t size_hint)
{
    struct io_stream *s = open_stream("s", size_hint);
    for (size_t at = 0; at < n; at += piece) {
        OK(io_stream_put(s, data + at, piece < n - at ? piece : n - at, &ctx));
        assert_int_equal(io_stream_offset(s), at + piece < n ? at + piece : n);
    }
    OK(io_stream_finish(s, &ctx));
    expect_sums(s, data, n);
    io_stream_close(s);
    expect_content("s", data, n);
    struct stat st;
    assert_int_equal(stat(path_of("s"), &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 <=
                n + 64 * KIB); /* what was allocated ahead is back */
    OK(io_unlink(io, path_of("s"), &ctx));
}

static const size_t SIZES[] = {
    0,       1,   4095,    4096,     4097,         64 * KIB - 1, 64 * KIB,  64 * KIB + 1,
    MIB - 1, MIB, MIB + 1, 17 * MIB, 18 * MIB + 5, 40 * MIB,     DATA_BYTES};

static void test_every_size_arrives_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(SIZES) / sizeof(SIZES[0]); i++) {
        write_and_check(SIZES[i], DATA_BYTES, 0);        /* size not known */
        write_and_check(SIZES[i], DATA_BYTES, SIZES[i]); /* known */
    }
}

static void test_every_piece_size_arrives_whole(void **state)
{
    (void)state;
    static const size_t PIECES[] = {512, 4099, 64 * KIB, 100003, MIB, 3 * MIB + 7};
    for (size_t i = 0; i < sizeof(PIECES) / sizeof(PIECES[0]); i++)
        write_and_check(5 * MIB + 123, PIECES[i], 0);
    write_and_check(70000, 1, 0);
}

static void test_a_wrong_hint_does_no_harm(void **state)
{
    (void)state;
    write_and_check(3 * MIB + 1, 10000, 1);
    write_and_check(3 * MIB + 1, 10000, MIB + 5);
    write_and_check(3 * MIB + 1, 10000, 100 * MIB);
    write_and_check(0, 1, 10 * MIB);
}

static void test_filling_in_place(void **state)
{
    (void)state;
    size_t n = 20 * MIB + 77, at = 0, step = 1;
    struct io_stream *s = open_stream("s", 0);
    while (at < n) {
        uint8_t *space;
        size_t room = 0;
        OK(io_stream_space(s, &space, &room, &ctx));
        assert_true(room > 0 && room <= MIB);
        size_t take = step < room ? step : room;
        take = take < n - at ? take : n - at;
        memcpy(space, data + at, take);
        OK(io_stream_advance(s, take, &ctx));
        at += take;
        step = step * 3 % 999983; /* from one byte to most of a buffer */
    }
    OK(io_stream_advance(s, 0, &ctx));
    OK(io_stream_finish(s, &ctx));
    expect_sums(s, data, n);
    io_stream_close(s);
    expect_content("s", data, n);
}

static void test_align_fills_with_zeros_once(void **state)
{
    (void)state;
    size_t n = 0;
    uint8_t *want = test_calloc(1, 4 * 64 * KIB);
    struct io_stream *s = open_stream("s", 0);
    OK(io_stream_align(s, &ctx));
    assert_int_equal(io_stream_offset(s), 0);
    OK(io_stream_put(s, data, 100, &ctx));
    OK(io_stream_align(s, &ctx));
    OK(io_stream_align(s, &ctx));
    assert_int_equal(io_stream_offset(s), 64 * KIB);
    io_stream_sums(s, &n);
    assert_int_equal(n, 1);
    OK(io_stream_put(s, data, 128 * KIB - 1, &ctx));
    OK(io_stream_align(s, &ctx));
    assert_int_equal(io_stream_offset(s), 192 * KIB);
    OK(io_stream_put(s, data, 9, &ctx));
    OK(io_stream_finish(s, &ctx));
    memcpy(want, data, 100);
    memcpy(want + 64 * KIB, data, 128 * KIB - 1);
    memcpy(want + 192 * KIB, data, 9);
    expect_sums(s, want, 192 * KIB + 9); /* the last block is not whole */
    io_stream_close(s);
    expect_content("s", want, 192 * KIB + 9);
    test_free(want);
}

static void test_a_stream_makes_a_new_file_only(void **state)
{
    (void)state;
    struct io_stream *s;
    OK(io_write_atomic(io, path_of("s"), "old", 3, &ctx));
    assert_int_equal(io_stream_open(io, path_of("s"), 0, &s, &ctx), ERR_CONFLICT);
    assert_non_null(strstr(ctx.detail, "it exists already"));
    expect_content("s", (const uint8_t *)"old", 3);
    assert_int_equal(io_stream_open(io, path_of("no/s"), 0, &s, &ctx), ERR_IO);
    io_stream_close(NULL);
}

static void test_a_hint_beyond_the_disk_fails_at_open_and_leaves_nothing(void **state)
{
    (void)state;
    struct io_stream *s;
    enum err e = io_stream_open(io, path_of("s"), UINT64_MAX, &s, &ctx);
    assert_true(e == ERR_NO_SPACE || e == ERR_IO); /* or larger than a file may be */
    assert_non_null(strstr(ctx.detail, "cannot reserve disk space for"));
    assert_int_equal(access(path_of("s"), F_OK), -1);
}

static void test_closing_early_waits_for_writes(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct io_stream *s = open_stream("s", 0);
        OK(io_stream_put(s, data, 20 * MIB + 3, &ctx));
        io_stream_close(s);
        OK(io_unlink(io, path_of("s"), &ctx));
    }
}

/* More streams at once than lanes are kept, each written from threads in turn. */
enum { STREAMS = 7, STREAM_BYTES = 6 * MIB + 321 };

struct turn {
    struct io_stream *stream;
    size_t from, n;
    enum err result;
};

static void *put_turn(void *arg)
{
    struct turn *t = arg;
    t->result = io_stream_put(t->stream, data + t->from, t->n, NULL);
    return NULL;
}

static void test_streams_move_between_threads(void **state)
{
    (void)state;
    struct turn turns[STREAMS];
    char name[16];
    for (int i = 0; i < STREAMS; i++) {
        snprintf(name, sizeof(name), "s%d", i);
        turns[i] = (struct turn){open_stream(name, 0), (size_t)i * 1000, STREAM_BYTES / 3, ERR_OK};
    }
    for (int round = 0; round < 3; round++) {
        pthread_t threads[STREAMS];
        for (int i = 0; i < STREAMS; i++)
            pthread_create(&threads[i], NULL, put_turn, &turns[i]);
        for (int i = 0; i < STREAMS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(turns[i].result, ERR_OK);
            turns[i].from += STREAM_BYTES / 3;
        }
    }
    for (int i = 0; i < STREAMS; i++) {
        OK(io_stream_finish(turns[i].stream, &ctx));
        expect_sums(turns[i].stream, data + (size_t)i * 1000, STREAM_BYTES);
        io_stream_close(turns[i].stream);
        snprintf(name, sizeof(name), "s%d", i);
        expect_content(name, data + (size_t)i * 1000, STREAM_BYTES);
    }
}

/* Gives up the right to lock as much memory as one likes, for good. */
static bool lock_little_memory(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
    struct rlimit little = {1 << 20, 1 << 20}; /* enough for a ring, not for buffers */
    if (setrlimit(RLIMIT_MEMLOCK, &little) != 0 || syscall(SYS_capget, &header, caps) != 0)
        return false;
    caps[0].effective &= ~(1u << CAP_IPC_LOCK);
    caps[0].permitted &= ~(1u << CAP_IPC_LOCK);
    return syscall(SYS_capset, &header, caps) == 0;
}

static int write_with_little_locked_memory(void)
{
    struct io *own;
    struct io_stream *s;
    int log = open(path_of("log"), O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (!lock_little_memory() || dup2(log, STDERR_FILENO) < 0)
        return 1;
    if (io_new(IO_AUTO, &own, NULL) != ERR_OK ||
        io_stream_open(own, path_of("s"), 0, &s, NULL) != ERR_OK ||
        io_stream_put(s, data, 30 * MIB + 3, NULL) != ERR_OK || io_stream_finish(s, NULL) != ERR_OK)
        return 2;
    io_stream_close(s);
    io_free(own);
    return 0;
}

/* Little locked memory, or no io_uring at all: the bytes arrive whole, and the log says what is
 * done instead. */
static void test_streams_work_without_registered_buffers(void **state)
{
    (void)state;
    int status;
    char line[512] = "";
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(write_with_little_locked_memory());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    expect_content("s", data, 30 * MIB + 3);

    FILE *log = fopen(path_of("log"), "r");
    assert_non_null(log);
    assert_non_null(fgets(line, sizeof(line), log));
    fclose(log);
    bool ring = strcmp(io_backend_name(io), "io_uring") == 0;
    assert_non_null(strstr(line, ring ? "write buffers are not registered with io_uring"
                                      : "writing with posix calls instead"));
}

#define ON_BOTH(test)                                                                              \
    {#test " (io_uring)", test, with_uring, tear_down, NULL},                                      \
    {                                                                                              \
#test " (posix)", test, with_posix, tear_down, NULL                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_every_size_arrives_whole),
        ON_BOTH(test_every_piece_size_arrives_whole),
        ON_BOTH(test_a_wrong_hint_does_no_harm),
        ON_BOTH(test_filling_in_place),
        ON_BOTH(test_align_fills_with_zeros_once),
        ON_BOTH(test_a_stream_makes_a_new_file_only),
        ON_BOTH(test_a_hint_beyond_the_disk_fails_at_open_and_leaves_nothing),
        ON_BOTH(test_closing_early_waits_for_writes),
        ON_BOTH(test_streams_move_between_threads),
        cmocka_unit_test_setup_teardown(test_streams_work_without_registered_buffers, with_uring,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, make_data, free_data);
}
