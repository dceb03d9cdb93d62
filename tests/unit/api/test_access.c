/* Tokens: whose is good for what, what is no token, and a reload beside running checks. */
#include "cmocka_all.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/access.h"

#define READ "read-token-0123456789"
#define WRITE "write-token-0123456789"

static struct access *made(const char *read, const char *write)
{
    struct access_options o = {.read_token = read, .write_token = write};
    struct access *a = NULL;
    assert_int_equal(access_new(&o, &a, NULL), ERR_OK);
    return a;
}

static void test_without_tokens_everything_is_open(void **state)
{
    (void)state;
    struct access *a = made(NULL, NULL);
    assert_false(access_has_tokens(a));
    assert_int_equal(access_check(a, NULL, SCOPE_WRITE, NULL), ERR_OK);
    access_free(a);
}

static void test_write_includes_read_and_not_the_other_way(void **state)
{
    (void)state;
    static const struct {
        const char *authorization;
        enum err read, write;
    } cases[] = {
        {"Bearer " WRITE, ERR_OK, ERR_OK},
        {"Bearer " READ, ERR_OK, ERR_FORBIDDEN},
        {"bearer   " READ, ERR_OK, ERR_FORBIDDEN},
        {NULL, ERR_UNAUTHORIZED, ERR_UNAUTHORIZED},
        {"", ERR_UNAUTHORIZED, ERR_UNAUTHORIZED},
        {"Bearer ", ERR_UNAUTHORIZED, ERR_UNAUTHORIZED},
        {"Basic " WRITE, ERR_UNAUTHORIZED, ERR_UNAUTHORIZED},
        {"Bearer " WRITE "0", ERR_UNAUTHORIZED, ERR_UNAUTHORIZED},
        {"Bearer write-token-012345678", ERR_UNAUTHORIZED, ERR_UNAUTHORIZED},
        {"Bearer " WRITE " ", ERR_UNAUTHORIZED, ERR_UNAUTHORIZED},
    };
    struct access *a = made(READ, WRITE);
    assert_true(access_has_tokens(a));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *given = cases[i].authorization;
        assert_int_equal(access_check(a, given, SCOPE_READ, NULL), cases[i].read);
        assert_int_equal(access_check(a, given, SCOPE_WRITE, NULL), cases[i].write);
        assert_int_equal(access_check(a, given, SCOPE_NONE, NULL), ERR_OK);
    }
    access_free(a);
}

static void test_a_token_may_have_any_length_within_the_bounds(void **state)
{
    (void)state;
    char header[300] = "Bearer ", *token = header + 7;
    for (size_t n = 15; n <= 257; n++) {
        memset(token, 'x', n);
        token[n] = 0;
        struct access_options o = {.write_token = token};
        struct access *a = NULL;
        struct err_ctx err;
        if (n < 16 || n > 256) {
            assert_int_equal(access_new(&o, &a, &err), ERR_INVALID);
            assert_non_null(strstr(err.detail, "16 to 256 characters"));
            continue;
        }
        assert_int_equal(access_new(&o, &a, &err), ERR_OK);
        assert_int_equal(access_check(a, header, SCOPE_WRITE, NULL), ERR_OK);
        access_free(a);
    }
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

struct checker {
    struct access *access;
    atomic_bool stop;
    unsigned wrong;
};

/* The token that every version of the file holds is good at every moment. */
static void *check_on(void *arg)
{
    struct checker *c = arg;
    while (!atomic_load(&c->stop))
        c->wrong += access_check(c->access, "Bearer " WRITE, SCOPE_WRITE, NULL) != ERR_OK;
    return NULL;
}

static void test_reloads_never_disturb_a_check(void **state)
{
    (void)state;
    static const char *const contents[] = {WRITE "\n", "another-0123456789\r\n\n" WRITE "\n",
                                           "short\n", ""};
    static const enum err results[] = {ERR_OK, ERR_OK, ERR_INVALID, ERR_INVALID};
    char path[] = "/tmp/loadstone-token-XXXXXX";
    close(mkstemp(path));
    write_file(path, contents[0]);
    struct access_options o = {.write_token_file = path};
    struct checker c = {0};
    pthread_t thread;
    assert_int_equal(access_new(&o, &c.access, NULL), ERR_OK);
    assert_int_equal(pthread_create(&thread, NULL, check_on, &c), 0);
    for (unsigned i = 0; i < 200; i++) {
        write_file(path, contents[i % 4]);
        assert_int_equal(access_reload(c.access, NULL), results[i % 4]);
    }
    atomic_store(&c.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(c.wrong, 0);
    access_free(c.access);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_tokens_everything_is_open),
        cmocka_unit_test(test_write_includes_read_and_not_the_other_way),
        cmocka_unit_test(test_a_token_may_have_any_length_within_the_bounds),
        cmocka_unit_test(test_reloads_never_disturb_a_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
