/* Settings: three sources and their order, what is refused and in which words, the texts. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"

struct values {
    const char *path, *token;
    uint64_t threads, bytes;
    bool remote;
    unsigned level;
};

#define ROW(t, key, field, ...)                                                                    \
    {                                                                                              \
        .name = key, .type = t, .offset = offsetof(struct values, field), .help = "help of " key,  \
        __VA_ARGS__                                                                                \
    }

static const struct config_row first_rows[] = {
    ROW(CONFIG_TEXT, "data_path", path, .takes = "DIR", .unset = "none"),
    ROW(CONFIG_UINT, "threads", threads, .min = 1, .max = 1024, .unset = "one a core"),
    ROW(CONFIG_BOOL, "allow_remote", remote, .standard = "false"),
};
static const struct config_row second_rows[] = {
    ROW(CONFIG_BYTES, "body_bytes_max", bytes, .standard = "16G", .min = 1, .max = 1ull << 50),
    ROW(CONFIG_CHOICE, "log_level", level, .standard = "info", .choices = "debug info warn"),
    ROW(CONFIG_SECRET, "token", token, .unset = "none"),
};

static struct values v;
static struct config c;
static struct err_ctx err;

static int fresh(void **state)
{
    (void)state;
    static struct config_group groups[2];
    groups[0] = (struct config_group){"First", first_rows, 3, &v};
    groups[1] = (struct config_group){"Second", second_rows, 3, &v};
    memset(&v, 0xee, sizeof v);
    config_init(&c, groups, 2);
    err_clear(&err);
    return 0;
}

static int done(void **state)
{
    (void)state;
    config_deinit(&c);
    return 0;
}

static enum err flags(const char *line)
{
    char text[512], *argv[16];
    int argc = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    return config_read_flags(&c, argc, argv, &err);
}

static enum err env(const char *variable)
{
    char text[512], *environment[] = {"PATH=/bin", text, NULL};
    snprintf(text, sizeof text, "%s", variable);
    return config_read_env(&c, environment, &err);
}

static enum err file(const char *content)
{
    char path[] = "/tmp/loadstone-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    close(fd);
    enum err e = config_read_file(&c, path, &err);
    unlink(path);
    return e;
}

static void assert_refused(enum err e, const char *sentence)
{
    assert_int_equal(e, ERR_INVALID);
    if (!strstr(err.detail, sentence))
        fail_msg("'%s' is not in '%s'", sentence, err.detail);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_null(v.path);
    assert_int_equal(v.threads, 0);
    assert_int_equal(v.bytes, 16ull << 30);
    assert_false(v.remote);
    assert_int_equal(v.level, 1);
    assert_int_equal(config_source_of(&c, "threads"), CONFIG_DEFAULT);
}

static void test_flags_of_every_type(void **state)
{
    (void)state;
    assert_int_equal(flags("--data-path /x --threads=8 --allow-remote --body-bytes-max 3k "
                           "--log-level warn"),
                     ERR_OK);
    assert_string_equal(v.path, "/x");
    assert_int_equal(v.threads, 8);
    assert_true(v.remote);
    assert_int_equal(v.bytes, 3072);
    assert_int_equal(v.level, 2);
    assert_int_equal(flags("--allow-remote=true"), ERR_OK);
}

static void test_the_same_from_environment_and_file(void **state)
{
    (void)state;
    assert_int_equal(env("LOADSTONE_BODY_BYTES_MAX=2T"), ERR_OK);
    assert_int_equal(v.bytes, 2ull << 40);
    assert_int_equal(file("# a comment\n\n  threads = 7   # and one behind\n"
                          "data_path=/with#hash and space \r\nallow_remote = true"),
                     ERR_OK);
    assert_int_equal(v.threads, 7);
    assert_string_equal(v.path, "/with#hash and space");
    assert_true(v.remote);
}

static void test_flag_is_stronger_than_environment_than_file_in_any_order(void **state)
{
    (void)state;
    assert_int_equal(file("threads = 1\nlog_level = debug\n"), ERR_OK);
    assert_int_equal(env("LOADSTONE_THREADS=2"), ERR_OK);
    assert_int_equal(v.threads, 2);
    assert_int_equal(flags("--threads 3"), ERR_OK);
    assert_int_equal(env("LOADSTONE_THREADS=4"), ERR_OK);
    assert_int_equal(file("threads = 5\n"), ERR_OK);
    assert_int_equal(v.threads, 3);
    assert_int_equal(v.level, 0);
    char name[64];
    config_written_name(&c, "threads", name, sizeof name);
    assert_string_equal(name, "--threads");
    assert_int_equal(config_source_of(&c, "log_level"), CONFIG_FILE);
}

static void test_what_is_overridden_is_checked_all_the_same(void **state)
{
    (void)state;
    assert_int_equal(flags("--threads 3"), ERR_OK);
    assert_refused(env("LOADSTONE_THREADS=none"), "LOADSTONE_THREADS takes a whole number");
    assert_int_equal(v.threads, 3);
}

static void test_unknown_names_get_the_nearest_known_one(void **state)
{
    (void)state;
    assert_refused(flags("--treads 3"), "unknown setting '--treads'; the nearest known one is "
                                        "--threads");
    assert_refused(flags("--body_bytes_max=1"), "nearest known one is --body-bytes-max");
    assert_refused(env("LOADSTONE_LOGLEVEL=info"), "'LOADSTONE_LOGLEVEL'; the nearest known one is "
                                                   "LOADSTONE_LOG_LEVEL");
    assert_refused(env("LOADSTONE_threads=2"), "nearest known one is LOADSTONE_THREADS");
    assert_refused(file("threads = 1\nbody-bytes-mx = 5\n"),
                   "line 2: unknown setting 'body-bytes-mx'; the nearest known one is "
                   "body_bytes_max");
    assert_refused(flags("--bogus 3"), "unknown setting '--bogus'; loadstoned --help lists");
    assert_refused(file("x = 1\n"), "unknown setting 'x'; loadstoned --help lists");
}

static void test_values_out_of_range_are_told_the_range(void **state)
{
    (void)state;
    static const char *const bad[] = {"0", "1025", "-1", "1x", "x", "0x10", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char flag[64];
        snprintf(flag, sizeof flag, "--threads=%s", bad[i]);
        assert_refused(flags(flag), "--threads takes a whole number from 1 to 1024, not '");
    }
    assert_refused(flags("--body-bytes-max=99999999T"), "a whole number of bytes from 1 to");
    assert_refused(flags("--body-bytes-max=1Q"), "not '1Q'");
    assert_refused(flags("--allow-remote=maybe"), "true or false");
    assert_refused(flags("--log-level=loud"), "--log-level takes debug, info or warn, not 'loud'");
    assert_refused(flags("--data-path="), "--data-path has an empty value");
    assert_refused(flags("--threads"), "--threads lacks its value");
    assert_refused(flags("threads"), "unexpected argument 'threads'");
}

static void test_one_source_may_not_contradict_itself(void **state)
{
    (void)state;
    assert_int_equal(flags("--threads 3 --threads 3"), ERR_OK);
    assert_refused(flags("--threads 4"), "--threads is given twice, as '3' and as '4'");
    assert_refused(file("log_level = info\nlog_level = warn\n"),
                   "line 2: log_level is given twice");
}

static void test_secrets_come_from_the_environment_only(void **state)
{
    (void)state;
    assert_refused(flags("--token=abc"), "--token would show in the list of processes");
    assert_refused(file("token = abc\n"), "line 1: token belongs in the environment");
    assert_int_equal(env("LOADSTONE_TOKEN=abc"), ERR_OK);
    assert_string_equal(v.token, "abc");
}

static void test_empty_variables_and_announced_services_are_no_settings(void **state)
{
    (void)state;
    assert_int_equal(env("LOADSTONE_THREADS="), ERR_OK);
    assert_int_equal(env("LOADSTONE_SERVICE_HOST=10.0.0.1"), ERR_OK);
    assert_int_equal(env("LOADSTONE_PORT=tcp://10.0.0.1:7700"), ERR_OK);
    assert_int_equal(env("LOADSTONE_PORT_7700_TCP_ADDR=10.0.0.1"), ERR_OK);
    assert_refused(env("LOADSTONE_PORTS=1"), "unknown setting");
    assert_int_equal(v.threads, 0);
}

static void test_file_errors_name_file_and_line(void **state)
{
    (void)state;
    assert_refused(file("\n\nthreads 4\n"),
                   "line 3: 'threads 4' is no setting: write name = value");
    assert_refused(file("threads = 4096\n"), "line 1: threads takes a whole number");
    char longer[9000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    assert_refused(file(longer), "line 1: ");
    assert_int_equal(config_read_file(&c, "/nowhere/at/all", &err), ERR_IO);
    assert_non_null(strstr(err.detail, "/nowhere/at/all"));
}

static void test_the_sample_read_back_gives_the_defaults(void **state)
{
    (void)state;
    struct buf out = {0};
    char line[4096] = "";
    config_sample(&c, &out);
    buf_put_u8(&out, 0);
    for (char *p = (char *)out.data; (p = strstr(p, "\n#")); p++)
        if (p[2] != ' ' && !strstr(p, "= \n"))
            strncat(line, p + 2, strcspn(p + 2, "\n") + 1);
    assert_non_null(strstr(line, "body_bytes_max = 16G\nlog_level = info"));
    assert_null(strstr(line, "token"));
    assert_int_equal(file(line), ERR_OK);
    assert_int_equal(v.bytes, 16ull << 30);
    assert_int_equal(v.level, 1);
    buf_deinit(&out);
}

static void test_the_texts_name_every_setting(void **state)
{
    (void)state;
    struct buf help = {0}, table = {0};
    config_help(&c, &help);
    config_markdown(&c, &table);
    buf_put_u8(&help, 0);
    buf_put_u8(&table, 0);
    assert_non_null(strstr((char *)help.data, "  --threads N"));
    assert_non_null(strstr((char *)help.data, "help of threads (one a core)\n"));
    assert_non_null(strstr((char *)help.data, "  LOADSTONE_TOKEN"));
    assert_non_null(strstr((char *)table.data,
                           "| `body_bytes_max` | 1 to 1024T | `16G` | help of body_bytes_max |\n"));
    assert_non_null(strstr((char *)table.data, "| `log_level` | debug, info, warn | `info` |"));
    buf_deinit(&help);
    buf_deinit(&table);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),
        TEST(test_flags_of_every_type),
        TEST(test_the_same_from_environment_and_file),
        TEST(test_flag_is_stronger_than_environment_than_file_in_any_order),
        TEST(test_what_is_overridden_is_checked_all_the_same),
        TEST(test_unknown_names_get_the_nearest_known_one),
        TEST(test_values_out_of_range_are_told_the_range),
        TEST(test_one_source_may_not_contradict_itself),
        TEST(test_secrets_come_from_the_environment_only),
        TEST(test_empty_variables_and_announced_services_are_no_settings),
        TEST(test_file_errors_name_file_and_line),
        TEST(test_the_sample_read_back_gives_the_defaults),
        TEST(test_the_texts_name_every_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
