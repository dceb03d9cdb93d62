/* Plain files and names, the same on both backends. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "io_fixture.h"

static struct io_file *open_file(const char *name, enum io_open_mode mode)
{
    struct io_file *f = NULL;
    OK(io_file_open(io, path_of(name), mode, &f, &ctx));
    return f;
}

static void expect_content(const char *name, const void *data, size_t n)
{
    uint64_t size = 0;
    uint8_t *got = test_malloc(n + 1);
    struct io_file *f = open_file(name, IO_READ);
    OK(io_file_size(f, &size, &ctx));
    assert_int_equal(size, n);
    OK(io_file_read(f, got, n, 0, &ctx));
    assert_memory_equal(got, data, n);
    io_file_close(f);
    test_free(got);
}

static unsigned entries_in_dir(void)
{
    unsigned n = 0;
    DIR *d = opendir(dir.path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void test_what_is_written_is_read_back(void **state)
{
    (void)state;
    static const size_t SIZES[] = {1, 4095, 4096, 65536, (1 << 20) + 1, 5 << 20};
    for (size_t i = 0; i < sizeof(SIZES) / sizeof(SIZES[0]); i++) {
        size_t n = SIZES[i];
        uint8_t *data = test_malloc(n);
        random_bytes(data, n);
        struct io_file *f = open_file("file", IO_CREATE_EXCL);
        OK(io_file_write(f, data, n / 2, 0, &ctx));
        OK(io_file_write_sync(f, data + n / 2, n - n / 2, n / 2, &ctx));
        OK(io_file_sync(f, &ctx));
        io_file_close(f);
        expect_content("file", data, n);
        OK(io_unlink(io, path_of("file"), &ctx));
        test_free(data);
    }
}

static void test_writing_nothing_makes_an_empty_file(void **state)
{
    (void)state;
    struct io_file *f = open_file("empty", IO_CREATE_EXCL);
    OK(io_file_write(f, NULL, 0, 0, &ctx));
    OK(io_file_write_sync(f, NULL, 0, 0, &ctx));
    io_file_close(f);
    expect_content("empty", "", 0);
    io_file_close(NULL);
}

static void test_write_sync_lands_at_its_offset(void **state)
{
    (void)state;
    struct io_file *f = open_file("log", IO_CREATE_EXCL);
    OK(io_file_allocate(f, 0, 8192, &ctx));
    OK(io_file_write_sync(f, "abc", 3, 4094, &ctx));
    char want[8192] = {0};
    memcpy(want + 4094, "abc", 3);
    io_file_close(f);
    expect_content("log", want, sizeof(want));
}

static void test_allocate_grows_and_truncate_cuts(void **state)
{
    (void)state;
    uint64_t size;
    char zeros[100] = {0}, got[100];
    struct io_file *f = open_file("file", IO_CREATE_EXCL);
    OK(io_file_allocate(f, 0, 0, &ctx));
    OK(io_file_allocate(f, 10000, 5000, &ctx));
    OK(io_file_size(f, &size, &ctx));
    assert_int_equal(size, 15000);
    OK(io_file_read(f, got, sizeof(got), 14900, &ctx));
    assert_memory_equal(got, zeros, sizeof(got));
    OK(io_file_truncate(f, 77, &ctx));
    OK(io_file_size(f, &size, &ctx));
    assert_int_equal(size, 77);
    io_file_close(f);
}

static void test_reading_past_the_end_is_corrupt(void **state)
{
    (void)state;
    char got[100];
    struct io_file *f = open_file("short", IO_CREATE_EXCL);
    OK(io_file_write(f, "12345", 5, 0, &ctx));
    assert_int_equal(io_file_read(f, got, 6, 0, &ctx), ERR_CORRUPT);
    assert_non_null(strstr(ctx.detail, "short ends at byte 5, but 1 more are expected"));
    assert_int_equal(io_file_read(f, got, 1, 1000, &ctx), ERR_CORRUPT);
    assert_int_not_equal(io_file_read(f, got, sizeof(got), UINT64_MAX - 10, &ctx), ERR_OK);
    io_file_close(f);
}

/* The limit makes the write fall short, which breaks the link to the sync; the rest then fails. */
enum { MANY = 300, EACH = 5000, STEP = 331 };

static void test_many_reads_at_once_come_whole(void **state)
{
    (void)state;
    size_t bytes = MANY * STEP + EACH;
    uint8_t *data = test_malloc(bytes), *got = test_malloc((size_t)MANY * EACH);
    static struct io_read reads[MANY];
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    struct io_file *f = open_file("many", IO_CREATE_EXCL);
    OK(io_file_write(f, data, bytes, 0, &ctx));
    for (size_t i = 0; i < MANY; i++)
        reads[i] = (struct io_read){f, got + i * EACH, i % 5 ? EACH : 0, i * STEP};
    OK(io_read_many(io, reads, 0, &ctx));
    for (size_t n = 1; n <= MANY;
         n += 149) { /* one; more than a ring; more than are tried at once */
        memset(got, 0, (size_t)MANY * EACH);
        OK(io_read_many(io, reads, n, &ctx));
        for (size_t i = 0; i < n; i++)
            assert_memory_equal(reads[i].data, data + reads[i].offset, reads[i].n);
    }
    reads[MANY - 2].offset = bytes - EACH + 1; /* one byte beyond the end */
    assert_int_equal(io_read_many(io, reads, MANY, &ctx), ERR_CORRUPT);
    assert_non_null(strstr(ctx.detail, "many"));
    io_file_close(f);
    test_free(data);
    test_free(got);
}

static void test_a_write_sync_cut_short_is_an_error(void **state)
{
    (void)state;
    char data[10000];
    uint64_t size;
    struct rlimit before, little;
    memset(data, 'x', sizeof(data));
    struct io_file *f = open_file("f", IO_CREATE_EXCL);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    little = (struct rlimit){6000, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
    enum err e = io_file_write_sync(f, data, sizeof(data), 0, &ctx);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(e, ERR_IO);
    assert_non_null(strstr(ctx.detail, strerror(EFBIG)));
    OK(io_file_size(f, &size, &ctx));
    assert_int_equal(size, 6000);
    OK(io_file_write_sync(f, data, sizeof(data), 0, &ctx));
    io_file_close(f);
    expect_content("f", data, sizeof(data));
}

static void test_open_modes(void **state)
{
    (void)state;
    struct io_file *f;
    assert_int_equal(io_file_open(io, path_of("none"), IO_READ, &f, &ctx), ERR_IO);
    assert_non_null(strstr(ctx.detail, "none: there is no such file"));
    assert_int_equal(io_file_open(io, path_of("none"), IO_WRITE, &f, &ctx), ERR_IO);
    io_file_close(open_file("one", IO_CREATE_EXCL));
    assert_int_equal(io_file_open(io, path_of("one"), IO_CREATE_EXCL, &f, &ctx), ERR_CONFLICT);
    assert_non_null(strstr(ctx.detail, "one: it exists already"));
    f = open_file("one", IO_READ);
    assert_int_equal(io_file_write(f, "x", 1, 0, &ctx), ERR_IO);
    assert_non_null(strstr(ctx.detail, "cannot write "));
    assert_int_equal(io_file_write_sync(f, "x", 1, 0, &ctx), ERR_IO);
    assert_non_null(strstr(ctx.detail, strerror(EBADF)));
    io_file_close(f);
    f = open_file("one", IO_WRITE);
    OK(io_file_write_sync(f, "x", 1, 0, &ctx));
    io_file_close(f);
    expect_content("one", "x", 1);
}

static void test_rename_replaces_and_unlink_removes(void **state)
{
    (void)state;
    OK(io_write_atomic(io, path_of("a"), "new", 3, &ctx));
    OK(io_write_atomic(io, path_of("b"), "older", 5, &ctx));
    OK(io_rename(io, path_of("a"), path_of("b"), &ctx));
    OK(io_sync_dir(io, dir.path, &ctx));
    expect_content("b", "new", 3);
    assert_int_equal(entries_in_dir(), 1);
    OK(io_unlink(io, path_of("b"), &ctx));
    assert_int_equal(entries_in_dir(), 0);
    assert_int_equal(io_unlink(io, path_of("b"), &ctx), ERR_IO);
    assert_int_equal(io_rename(io, path_of("a"), path_of("b"), &ctx), ERR_IO);
    assert_int_equal(io_sync_dir(io, path_of("nowhere"), &ctx), ERR_IO);
}

static void test_mkdir_takes_an_existing_directory_but_not_a_file(void **state)
{
    (void)state;
    struct stat st;
    OK(io_mkdir(io, path_of("sub"), &ctx));
    OK(io_mkdir(io, path_of("sub"), &ctx));
    OK(io_mkdir(io, path_of("sub/"), &ctx));
    assert_int_equal(stat(path_of("sub"), &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    io_file_close(open_file("file", IO_CREATE_EXCL));
    assert_int_equal(io_mkdir(io, path_of("file"), &ctx), ERR_IO);
    assert_non_null(strstr(ctx.detail, "cannot create directory"));
    assert_int_equal(io_mkdir(io, path_of("no/where"), &ctx), ERR_IO);
}

static void test_write_atomic_replaces_whole_files(void **state)
{
    (void)state;
    char big[10000];
    memset(big, 'b', sizeof(big));
    OK(io_write_atomic(io, path_of("ctl"), big, sizeof(big), &ctx));
    expect_content("ctl", big, sizeof(big));
    OK(io_write_atomic(io, path_of("ctl"), "small", 5, &ctx));
    expect_content("ctl", "small", 5);
    OK(io_write_atomic(io, path_of("ctl"), "", 0, &ctx));
    expect_content("ctl", "", 0);
    assert_int_equal(entries_in_dir(), 1);
}

static void test_write_atomic_passes_over_what_a_crash_left(void **state)
{
    (void)state;
    struct io_file *f = open_file("ctl.tmp", IO_CREATE_EXCL);
    OK(io_file_write(f, "half of a longer file", 21, 0, &ctx));
    io_file_close(f);
    OK(io_write_atomic(io, path_of("ctl"), "whole", 5, &ctx));
    expect_content("ctl", "whole", 5);
    assert_int_equal(entries_in_dir(), 1);
}

static void test_write_atomic_that_fails_leaves_the_old_file(void **state)
{
    (void)state;
    OK(io_mkdir(io, path_of("ctl"), &ctx)); /* a file cannot be renamed over a directory */
    assert_int_equal(io_write_atomic(io, path_of("ctl"), "x", 1, &ctx), ERR_IO);
    assert_int_equal(entries_in_dir(), 1);
    assert_int_equal(io_write_atomic(io, path_of("no/ctl"), "x", 1, &ctx), ERR_IO);
}

/* ---- one io, many threads ---- */

enum { THREADS = 8, RECORDS = 20 };

static void *append_records(void *arg)
{
    char name[640], record[100];
    struct io_file *f;
    uintptr_t errors = 0;
    snprintf(name, sizeof(name), "%s/t%d", dir.path, (int)(intptr_t)arg);
    if (io_file_open(io, name, IO_CREATE_EXCL, &f, NULL) != ERR_OK)
        return (void *)1;
    memset(record, 'a' + (int)(intptr_t)arg, sizeof(record));
    for (unsigned i = 0; i < RECORDS; i++)
        errors += io_file_write_sync(f, record, sizeof(record), i * sizeof(record), NULL) != ERR_OK;
    io_file_close(f);
    return (void *)errors;
}

static void test_many_threads_sync_their_files_at_once(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, append_records, (void *)(intptr_t)i);
    for (int i = 0; i < THREADS; i++) {
        void *errors;
        char name[16], want[RECORDS * 100];
        pthread_join(threads[i], &errors);
        assert_null(errors);
        snprintf(name, sizeof(name), "t%d", i);
        memset(want, 'a' + i, sizeof(want));
        expect_content(name, want, sizeof(want));
    }
}

/* ---- choosing a backend ---- */

/* What containers do by default: io_uring_setup answers EPERM. For good, so only in a child. */
static bool forbid_uring(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(rules) / sizeof(rules[0]), rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int choose_without_uring(void)
{
    struct io *chosen;
    int log = open(path_of("log"), O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (!forbid_uring() || dup2(log, STDERR_FILENO) < 0)
        return 1;
    if (io_new(IO_URING, &chosen, &ctx) != ERR_UNAVAILABLE ||
        !strstr(ctx.detail, "io_uring is not allowed here"))
        return 2;
    if (io_new(IO_AUTO, &chosen, &ctx) != ERR_OK || strcmp(io_backend_name(chosen), "posix") != 0)
        return 3;
    io_free(chosen);
    return 0;
}

static void test_without_uring_posix_is_chosen_and_the_log_says_so(void **state)
{
    (void)state;
    int status;
    char line[512] = "", more[512];
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(choose_without_uring());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    FILE *log = fopen(path_of("log"), "r");
    assert_non_null(log);
    assert_non_null(fgets(line, sizeof(line), log));
    assert_null(fgets(more, sizeof(more), log));
    fclose(log);
    assert_non_null(strstr(line, "io_uring is not allowed here"));
    assert_non_null(strstr(line, "posix"));
}

static void test_backends_say_their_names(void **state)
{
    (void)state;
    struct io *other;
    assert_string_equal(io_backend_name(io), "posix");
    enum err e = io_new(IO_URING, &other, &ctx);
    assert_true(e == ERR_OK || e == ERR_UNAVAILABLE);
    if (e == ERR_OK) {
        assert_string_equal(io_backend_name(other), "io_uring");
        io_free(other);
    }
    io_free(NULL);
}

#define ON_BOTH(test)                                                                              \
    {#test " (io_uring)", test, with_uring, tear_down, NULL},                                      \
    {                                                                                              \
#test " (posix)", test, with_posix, tear_down, NULL                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(test_what_is_written_is_read_back),
        ON_BOTH(test_writing_nothing_makes_an_empty_file),
        ON_BOTH(test_write_sync_lands_at_its_offset),
        ON_BOTH(test_allocate_grows_and_truncate_cuts),
        ON_BOTH(test_reading_past_the_end_is_corrupt),
        ON_BOTH(test_many_reads_at_once_come_whole),
        ON_BOTH(test_a_write_sync_cut_short_is_an_error),
        ON_BOTH(test_open_modes),
        ON_BOTH(test_rename_replaces_and_unlink_removes),
        ON_BOTH(test_mkdir_takes_an_existing_directory_but_not_a_file),
        ON_BOTH(test_write_atomic_replaces_whole_files),
        ON_BOTH(test_write_atomic_passes_over_what_a_crash_left),
        ON_BOTH(test_write_atomic_that_fails_leaves_the_old_file),
        ON_BOTH(test_many_threads_sync_their_files_at_once),
        cmocka_unit_test_setup_teardown(test_without_uring_posix_is_chosen_and_the_log_says_so,
                                        with_posix, tear_down),
        cmocka_unit_test_setup_teardown(test_backends_say_their_names, with_posix, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
