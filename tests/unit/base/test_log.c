/* The log: one line a message, levels, lines that cannot be forged or overrun. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

static int saved_stderr, pipe_ends[2];

static void capture_begin(void)
{
    assert_int_equal(pipe(pipe_ends), 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(pipe_ends[1], STDERR_FILENO);
    close(pipe_ends[1]);
}

static void capture_end(char *out, size_t cap)
{
    dup2(saved_stderr, STDERR_FILENO); /* closes the last writing end */
    close(saved_stderr);
    size_t len = 0;
    ssize_t n;
    while (len < cap - 1 && (n = read(pipe_ends[0], out + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    close(pipe_ends[0]);
    out[len] = '\0';
}

static void test_a_line_has_time_level_and_message(void **state)
{
    (void)state;
    char out[256];
    capture_begin();
    log_warn("disk at %d%%", 91);
    capture_end(out, sizeof(out));
    char *space = strchr(out, ' ');
    assert_non_null(space);
    int64_t us;
    assert_int_equal(clock_parse_rfc3339(out, (size_t)(space - out), &us), 0);
    assert_true(llabs(clock_wall_us() - us) < 60000000);
    assert_string_equal(space, " warn disk at 91%\n");
}

static void test_lower_levels_are_silent(void **state)
{
    (void)state;
    char out[256];
    capture_begin();
    log_debug("a");
    log_set_level(LOG_ERROR);
    log_warn("b");
    log_error("c");
    log_set_level(LOG_INFO);
    capture_end(out, sizeof(out));
    assert_null(strstr(out, " a\n"));
    assert_null(strstr(out, " b\n"));
    assert_non_null(strstr(out, " error c\n"));
}

static void test_a_message_cannot_forge_a_second_line(void **state)
{
    (void)state;
    char out[256];
    capture_begin();
    log_info("name %s", "x\n2024-01-01T00:00:00Z error fake\r\x1b[0m");
    capture_end(out, sizeof(out));
    assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
    assert_null(strchr(out, '\r'));
    assert_null(strchr(out, 0x1b));
}

static void test_a_long_message_is_cut_and_errno_kept(void **state)
{
    (void)state;
    char text[5000], out[8192];
    memset(text, 'y', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    capture_begin();
    errno = EDOM;
    log_info("%s", text);
    int after = errno;
    capture_end(out, sizeof(out));
    assert_int_equal(after, EDOM);
    assert_int_equal(strlen(out), 2047);
    assert_string_equal(out + strlen(out) - 5, "y...\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_has_time_level_and_message),
        cmocka_unit_test(test_lower_levels_are_silent),
        cmocka_unit_test(test_a_message_cannot_forge_a_second_line),
        cmocka_unit_test(test_a_long_message_is_cut_and_errno_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
