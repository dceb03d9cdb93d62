/* Process figures follow what the process does. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/process.h"

enum { FILES = 5, GROWTH = 64 << 20 };

static void test_open_files_are_counted(void **state)
{
    struct process_stats before, during, after;
    int fds[FILES];
    (void)state;
    process_stats_get(&before);
    for (int i = 0; i < FILES; i++)
        fds[i] = dup(STDIN_FILENO);
    process_stats_get(&during);
    for (int i = 0; i < FILES; i++)
        close(fds[i]);
    process_stats_get(&after);
    assert_int_equal(during.open_files, before.open_files + FILES);
    assert_int_equal(after.open_files, before.open_files);
    assert_true(before.open_files_max >= during.open_files);
}

static void test_memory_that_is_touched_counts(void **state)
{
    struct process_stats before, after;
    (void)state;
    process_stats_get(&before);
    char *memory = malloc(GROWTH);
    assert_non_null(memory);
    memset(memory, 1, GROWTH);
    process_stats_get(&after);
    assert_true(after.anonymous_bytes >= before.anonymous_bytes + GROWTH / 2);
    assert_true(after.resident_bytes >= after.anonymous_bytes);
    assert_true(after.virtual_bytes >= after.resident_bytes);
    assert_true(memory[GROWTH / 2] == 1);
    free(memory);
    assert_true(after.cpu_us >= before.cpu_us && after.cpu_us > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_files_are_counted),
        cmocka_unit_test(test_memory_that_is_touched_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
