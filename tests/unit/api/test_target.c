/* Targets and routes: split before decoding; nothing decoded becomes a separator or ends a string.
 */
#include "unit/api/cmocka_all.h"

#include <stdio.h>

#include "api/request.h"
#include "api/router.h"
#include "api/target.h"

static enum err parse(const char *uri, char copy[512], struct target *t, struct err_ctx *err)
{
    err_clear(err);
    snprintf(copy, 512, "%s", uri);
    return target_parse(copy, t, err);
}

static void test_paths_are_split_then_decoded(void **state)
{
    (void)state;
    struct err_ctx err;
    struct target t;
    char copy[512];
    assert_int_equal(parse("/v1/collections/a%2Fb/rows/x+y%20z%25", copy, &t, &err), ERR_OK);
    assert_int_equal(t.nsegments, 5);
    assert_string_equal(t.segments[2].text, "a/b");
    assert_int_equal(t.segments[2].len, 3);
    assert_string_equal(t.segments[4].text, "x+y z%");
    assert_int_equal(parse("/", copy, &t, &err), ERR_OK);
    assert_int_equal(t.nsegments, 0);
    assert_int_equal(parse("/a//b/", copy, &t, &err), ERR_OK);
    assert_int_equal(t.nsegments, 4);
    assert_int_equal(parse("http://host:1/healthz", copy, &t, &err), ERR_OK);
    assert_int_equal(t.nsegments, 1);
    assert_string_equal(t.segments[0].text, "healthz");
    assert_int_equal(parse("/1/2/3/4/5/6/7/8/9/10", copy, &t, &err), ERR_OK);
    assert_int_equal(t.nsegments, TARGET_SEGMENTS_MAX + 1);
}

static void test_the_rest_of_a_path_is_one_name(void **state)
{
    static const struct {
        const char *uri, *rest;
    } cases[] = {
        {"/1/2/x", "x"},
        {"/1/2/3%2F0//17%25/", "3/0//17%/"},
        {"/1/2/", ""},
        {"/1/2/a/b/c/d/e/f/g%20h/i", "a/b/c/d/e/f/g h/i"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err_ctx err;
        struct target t;
        char copy[512];
        assert_int_equal(parse(cases[i].uri, copy, &t, &err), ERR_OK);
        struct target_segment rest = target_rest(&t, 2);
        assert_string_equal(rest.text, cases[i].rest);
        assert_int_equal(rest.len, strlen(cases[i].rest));
        assert_int_equal(t.nsegments, 2);
        assert_string_equal(t.segments[1].text, "2");
    }
}

static void test_a_pattern_may_take_the_rest(void **state)
{
    static const struct route table[] = {{.method = "PUT", .path = "a/{}/parts/{*}", .params = ""},
                                         {0}};
    static const char *const good[] = {"/a/b/parts/x", "/a/b/parts/", "/a/b/parts/1/2/3/4/5/6/7/8"};
    static const char *const bad[] = {"/a/b/parts", "/a/b/c/parts/x", "/a/b"};
    (void)state;
    struct err_ctx err;
    struct target t;
    char copy[512], allow[64];
    const struct route *found;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(parse(good[i], copy, &t, &err), ERR_OK);
        assert_int_equal(router_find(table, &t, "PUT", &found, allow, sizeof allow, &err), ERR_OK);
        assert_int_equal(parse(bad[i], copy, &t, &err), ERR_OK);
        assert_int_equal(router_find(table, &t, "PUT", &found, allow, sizeof allow, &err),
                         ERR_NOT_FOUND);
    }
}

static void test_queries_are_split_then_decoded(void **state)
{
    (void)state;
    struct err_ctx err;
    struct target t;
    char copy[512];
    assert_int_equal(parse("/x?a=1%262&b=c+d%2B&e&&f=", copy, &t, &err), ERR_OK);
    assert_int_equal(t.nparams, 4);
    assert_string_equal(target_param(&t, "a")->text, "1&2");
    assert_string_equal(target_param(&t, "b")->text, "c d+");
    assert_string_equal(target_param(&t, "e")->text, "");
    assert_string_equal(target_param(&t, "f")->text, "");
    assert_null(target_param(&t, "g"));
}

static void test_bad_targets_are_refused(void **state)
{
    static const char *const bad[] = {"/a%",      "/a%1",        "/a%zz",    "/a%00",
                                      "/a%2",     "/x?a=%00",    "/x?%zz=1", "/x?a=1&a=2",
                                      "/x?a=%g0", "/x?a=1&%61=2"};
    (void)state;
    struct err_ctx err;
    struct target t;
    char copy[512];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (parse(bad[i], copy, &t, &err) != ERR_INVALID)
            fail_msg("%s was taken", bad[i]);
    char many[512] = "/x?";
    for (int i = 0; i <= TARGET_PARAMS_MAX; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "p%d=1&", i);
    assert_int_equal(parse(many, copy, &t, &err), ERR_INVALID);
}

static enum err route(const char *method, const char *uri, const struct route **found, char *allow)
{
    static char copy[512];
    struct err_ctx err;
    struct target t;
    assert_int_equal(parse(uri, copy, &t, &err), ERR_OK);
    return router_find(api_routes, &t, method, found, allow, 64, &err);
}

static void test_routes_are_found(void **state)
{
    static const struct {
        const char *method, *uri, *path;
    } good[] = {
        {"GET", "/", ""},
        {"HEAD", "/healthz", "healthz"},
        {"PUT", "/v1/collections/a", "v1/collections/{}"},
        {"GET", "/v1/collections", "v1/collections"},
        {"POST", "/v1/collections/a/rows", "v1/collections/{}/rows"},
        {"POST", "/v1/collections/a/rows/delete", "v1/collections/{}/rows/delete"},
        {"GET", "/v1/collections/a/rows/delete", "v1/collections/{}/rows/{}"},
        {"GET", "/v1/collections/a/rows/x%2Fy", "v1/collections/{}/rows/{}"},
    };
    (void)state;
    const struct route *found;
    char allow[64];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(route(good[i].method, good[i].uri, &found, allow), ERR_OK);
        assert_string_equal(found->path, good[i].path);
    }
}

static void test_wrong_methods_and_paths(void **state)
{
    (void)state;
    const struct route *found;
    char allow[64];
    assert_int_equal(route("POST", "/v1/collections/a", &found, allow), ERR_METHOD);
    assert_string_equal(allow, "PUT, GET, HEAD, PATCH, DELETE");
    assert_int_equal(route("POST", "/v1/collections/a/rows/k", &found, allow), ERR_METHOD);
    assert_string_equal(allow, "GET, HEAD");
    assert_int_equal(route("GET", "/v1/collections/", &found, allow), ERR_OK);
    assert_int_equal(route("GET", "/v1", &found, allow), ERR_NOT_FOUND);
    assert_int_equal(route("GET", "/v1/collections/a/rows/k/x", &found, allow), ERR_NOT_FOUND);
    assert_int_equal(route("GET", "/v1/collections/../../etc/passwd", &found, allow),
                     ERR_NOT_FOUND);
    assert_int_equal(route("GET", "/1/2/3/4/5/6/7/8/9", &found, allow), ERR_NOT_FOUND);
}

static void test_unknown_parameters_are_named(void **state)
{
    static const struct route r = {.params = "mode duplicates"};
    (void)state;
    struct err_ctx err;
    struct target t;
    char copy[512];
    assert_int_equal(parse("/x?mode=a&duplicates=b", copy, &t, &err), ERR_OK);
    assert_int_equal(router_check_params(&r, &t, &err), ERR_OK);
    assert_int_equal(parse("/x?mode=a&dup=b", copy, &t, &err), ERR_OK);
    assert_int_equal(router_check_params(&r, &t, &err), ERR_INVALID);
    assert_string_equal(err.field, "dup");
    assert_non_null(strstr(err.detail, "mode duplicates"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths_are_split_then_decoded),
        cmocka_unit_test(test_the_rest_of_a_path_is_one_name),
        cmocka_unit_test(test_a_pattern_may_take_the_rest),
        cmocka_unit_test(test_queries_are_split_then_decoded),
        cmocka_unit_test(test_bad_targets_are_refused),
        cmocka_unit_test(test_routes_are_found),
        cmocka_unit_test(test_wrong_methods_and_paths),
        cmocka_unit_test(test_unknown_parameters_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
