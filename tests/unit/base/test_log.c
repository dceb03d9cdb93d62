/* The log: one line a message, levels, lines that cannot be forged or overrun. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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
    assert_memory_equal(out, "time=", 5);
    char *space = strchr(out, ' ');
    assert_non_null(space);
    int64_t us;
    assert_int_equal(clock_parse_rfc3339(out + 5, (size_t)(space - out - 5), &us), 0);
    assert_true(llabs(clock_wall_us() - us) < 60000000);
    assert_string_equal(space, " level=warn msg=\"disk at 91%\"\n");
}

static void test_fields_follow_the_message_in_both_formats(void **state)
{
    (void)state;
    const struct log_field fields[] = {{.name = "path", .text = "/a b"},
                                       {.name = "took_us", .number = -12}};
    char out[512];
    capture_begin();
    log_event(LOG_INFO, "slow", fields, 2);
    log_set_format(LOG_JSON);
    log_event(LOG_INFO, "slow", fields, 2);
    log_set_format(LOG_TEXT);
    capture_end(out, sizeof(out));
    char *second = strchr(out, '\n') + 1;
    assert_non_null(
        strstr(out, " level=info msg=\"slow\" path=\"/a b\" took_us=-12\n{\"time\":\""));
    assert_non_null(strstr(
        second, "\",\"level\":\"info\",\"msg\":\"slow\",\"path\":\"/a b\",\"took_us\":-12}\n"));
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
    assert_null(strstr(out, "\"a\""));
    assert_null(strstr(out, "\"b\""));
    assert_non_null(strstr(out, " level=error msg=\"c\"\n"));
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
    assert_non_null(strstr(out, "\\n2024-01-01T00:00:00Z error fake\\u000d\\u001b[0m\"\n"));
}

static void test_a_text_cannot_forge_a_field_or_reach_the_terminal(void **state)
{
    (void)state;
    const struct log_field fields[] = {
        {.name = "a", .text = "x\" level=\"error\\"}, /* ends its quotes */
        {.name = "b",
         .text = "\xc2\x9b"
                 "2J\xc3\xa9"},            /* C1 control, then a letter */
        {.name = "c", .text = "\xff\xc3"}, /* not UTF-8 */
    };
    char out[512];
    capture_begin();
    log_event(LOG_WARN, "m", fields, 3);
    capture_end(out, sizeof(out));
    assert_non_null(strstr(out, " a=\"x\\\" level=\\\"error\\\\\" b=\"\\u009b2J\xc3\xa9\" "
                                "c=\"\\u00ff\\u00c3\"\n"));
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
    assert_true(strlen(out) <= 4096);
    assert_string_equal(out + strlen(out) - 6, "y...\"\n");
}

/* Whatever the length, a cut line is still whole: quotes and braces are closed, nothing overruns.
 */
static void test_lines_of_every_length_near_the_limit_are_whole(void **state)
{
    (void)state;
    char text[4200], out[8192];
    log_set_format(LOG_JSON);
    for (size_t n = 3900; n < sizeof text - 1; n++) {
        const struct log_field fields[] = {{.name = "f", .text = "\xc3\xa9\n\xc3\xa9"},
                                           {.name = "n", .number = 1234567890}};
        memset(text, 'y', n);
        text[n] = '\0';
        capture_begin();
        log_event(LOG_INFO, text, fields, 2);
        capture_end(out, sizeof(out));
        size_t len = strlen(out), quotes = 0;
        for (size_t i = 0; i < len; i++)
            quotes += out[i] == '"';
        assert_true(len <= 4096);
        assert_int_equal(quotes % 2, 0);
        assert_string_equal(out + len - 2, "}\n");
        assert_true(out[0] == '{' && strchr(out, '\n') == out + len - 1);
    }
    log_set_format(LOG_TEXT);
}

static void slurp(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    out[fread(out, 1, cap - 1, f)] = '\0';
    fclose(f);
}

static void test_a_renamed_file_is_opened_anew(void **state)
{
    (void)state;
    static char dir[] = "/tmp/loadstone-log-XXXXXX", path[64];
    char moved[64], out[512];
    struct err_ctx err;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/log", dir);
    snprintf(moved, sizeof moved, "%s/log.1", dir);
    assert_int_equal(log_open(path, &err), ERR_OK);
    log_info("one");
    assert_int_equal(rename(path, moved), 0);
    log_info("two");
    assert_int_equal(log_reopen(&err), ERR_OK);
    log_info("three");
    slurp(moved, out, sizeof out);
    assert_true(strstr(out, "\"one\"") && strstr(out, "\"two\"") && !strstr(out, "three"));
    slurp(path, out, sizeof out);
    assert_true(strstr(out, "\"three\"") && !strstr(out, "two"));
    unlink(path);
    unlink(moved);
    rmdir(dir);
    assert_int_equal(log_reopen(&err), ERR_IO);
    assert_non_null(strstr(err.detail, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_has_time_level_and_message),
        cmocka_unit_test(test_fields_follow_the_message_in_both_formats),
        cmocka_unit_test(test_lower_levels_are_silent),
        cmocka_unit_test(test_a_message_cannot_forge_a_second_line),
        cmocka_unit_test(test_a_text_cannot_forge_a_field_or_reach_the_terminal),
        cmocka_unit_test(test_a_long_message_is_cut_and_errno_kept),
        cmocka_unit_test(test_lines_of_every_length_near_the_limit_are_whole),
        cmocka_unit_test(test_a_renamed_file_is_opened_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
