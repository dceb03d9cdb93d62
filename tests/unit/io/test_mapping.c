/* Watched mappings of a file that is cut short while it is mapped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/mapping.h"
#include "temp_dir.h"

enum { PAGE = 4096, PAGES = 8 };

static struct temp_dir dir;
static struct err_ctx ctx;

struct mapped_file {
    char path[400];
    const volatile uint8_t *at;
    struct mapping *watch;
};

static void map_new(struct mapped_file *f, const char *name, bool watch)
{
    uint8_t page[PAGE];
    memset(page, 7, sizeof page);
    snprintf(f->path, sizeof f->path, "%s", temp_path(&dir, name));
    int fd = open(f->path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    for (int i = 0; i < PAGES; i++)
        assert_int_equal(write(fd, page, sizeof page), sizeof page);
    void *map = mmap(NULL, PAGE * PAGES, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    close(fd);
    f->at = map;
    assert_int_equal(mapping_catch_faults(&ctx), ERR_OK); /* cmocka has handlers of its own */
    f->watch = NULL;
    if (watch)
        assert_int_equal(mapping_watch(map, PAGE * PAGES, f->path, &f->watch, &ctx), ERR_OK);
}

static void map_free(struct mapped_file *f)
{
    mapping_unwatch(f->watch);
    munmap((void *)f->at, PAGE * PAGES);
}

static int setup(void **state)
{
    (void)state;
    err_clear(&ctx);
    assert_int_equal(temp_dir_new(&dir), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    temp_dir_remove(&dir);
    return 0;
}

static void lost_page_reads_as_zeros_and_is_told(void **state)
{
    (void)state;
    struct mapped_file f, sound;
    map_new(&f, "lost", true);
    map_new(&sound, "sound", true);
    const char *parent = temp_path(&dir, "");
    char under[400];
    snprintf(under, sizeof under, "%.*s", (int)strlen(parent) - 1, parent);
    unsigned before = mapping_faults();
    assert_int_equal(f.at[3 * PAGE], 7);
    assert_int_equal(mapping_check(under, &ctx), ERR_OK);
    assert_int_equal(truncate(f.path, 2 * PAGE), 0);
    assert_int_equal(f.at[5 * PAGE + 17], 0);
    assert_int_equal(f.at[PAGE], 7);
    assert_int_equal(mapping_faults(), before + 1);
    assert_int_equal(mapping_check_since(before, &ctx), ERR_UNAVAILABLE);
    assert_int_equal(mapping_check(under, &ctx), ERR_CORRUPT);
    char offset[64];
    snprintf(offset, sizeof offset, "offset %d", 5 * PAGE + 17);
    assert_non_null(strstr(ctx.detail, f.path));
    assert_non_null(strstr(ctx.detail, offset));
    assert_int_equal(mapping_check("/elsewhere", &ctx), ERR_OK);
    assert_int_equal(mapping_check(sound.path, &ctx), ERR_OK);
    map_free(&f);
    assert_int_equal(mapping_check(under, &ctx), ERR_OK); /* nobody reads it any more */
    map_free(&sound);
}

/* ThreadSanitizer takes the page that a handler supplies for a write that races with the reads of
 * others. */
__attribute__((no_sanitize("thread"))) static void *read_all(void *arg)
{
    const struct mapped_file *f = arg;
    unsigned sum = 0;
    for (int i = 0; i < PAGES; i++)
        sum += f->at[i * PAGE];
    return sum ? NULL : arg;
}

static void every_thread_that_faults_goes_on(void **state)
{
    (void)state;
    enum { THREADS = 8, ROUNDS = 20 };
    for (int round = 0; round < ROUNDS; round++) {
        struct mapped_file f;
        pthread_t threads[THREADS];
        map_new(&f, "shared", true);
        unsigned before = mapping_faults();
        assert_int_equal(truncate(f.path, 0), 0);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, read_all, &f), 0);
        for (int i = 0; i < THREADS; i++) {
            void *zeros;
            pthread_join(threads[i], &zeros);
            assert_ptr_equal(zeros, &f);
        }
        assert_true(mapping_faults() - before >= PAGES);
        map_free(&f);
    }
}

static void more_mappings_than_a_block_holds_are_all_watched(void **state)
{
    (void)state;
    enum { N = 200 };
    static struct mapped_file files[N];
    char name[32];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "many-%d", i);
        map_new(&files[i], name, true);
    }
    for (int i = 0; i < N; i += 3) {
        assert_int_equal(truncate(files[i].path, 0), 0);
        assert_int_equal(files[i].at[0], 0);
    }
    for (int i = 0; i < N; i++)
        map_free(&files[i]);
}

/* What is not watched ends the process, by the signal. */
static void unwatched_fault_still_kills(void **state)
{
    (void)state;
    struct mapped_file f;
    int status;
    map_new(&f, "unwatched", false);
    assert_int_equal(truncate(f.path, 0), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)f.at[0];
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    map_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lost_page_reads_as_zeros_and_is_told),
        cmocka_unit_test(every_thread_that_faults_goes_on),
        cmocka_unit_test(more_mappings_than_a_block_holds_are_all_watched),
        cmocka_unit_test(unwatched_fault_still_kills),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
