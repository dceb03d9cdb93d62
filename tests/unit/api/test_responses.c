/* Kept responses: lent again for the same answer, made anew for any other. */
#include "unit/api/cmocka_all.h"

#include "api/responses.h"

static char bytes[256];

static const struct response_key plain = {bytes, 10, "application/json", 7};

static const char *header(struct MHD_Response *r, const char *name)
{
    return MHD_get_response_header(r, name);
}

static void test_same_answer_is_lent_again(void **state)
{
    struct responses *all = NULL;
    (void)state;
    struct MHD_Response *first = responses_get(&all, &plain);
    assert_non_null(first);
    struct response_key longer = plain;
    longer.len++;
    struct MHD_Response *second = responses_get(&all, &longer);
    assert_ptr_not_equal(first, second);
    assert_ptr_equal(responses_get(&all, &plain), first);
    assert_ptr_equal(responses_get(&all, &longer), second);
    assert_string_equal(header(first, "Content-Type"), "application/json");
    assert_string_equal(header(first, "Loadstone-Version"), "7");
    responses_free(all);
}

static void test_version_and_type_are_those_asked_for(void **state)
{
    struct responses *all = NULL;
    (void)state;
    struct response_key key = plain;
    for (key.version = -1; key.version < 3; key.version++) {
        struct MHD_Response *r = responses_get(&all, &key);
        const char *version = header(r, "Loadstone-Version");
        assert_int_equal(version != NULL, key.version >= 0);
        assert_true(!version || version[0] == '0' + (char)key.version);
    }
    key.content_type = "text/plain";
    assert_string_equal(header(responses_get(&all, &key), "Content-Type"), "text/plain");
    key.len = 0;
    assert_null(header(responses_get(&all, &key), "Content-Type"));
    responses_free(all);
}

/* Lengths that share a place, and a buffer that has moved. */
static void test_another_body_takes_the_place(void **state)
{
    struct responses *all = NULL;
    (void)state;
    struct response_key key = plain;
    for (key.len = 0; key.len < sizeof bytes; key.len++)
        assert_non_null(responses_get(&all, &key));
    key = plain;
    key.version = 8;
    assert_string_equal(header(responses_get(&all, &key), "Loadstone-Version"), "8");
    struct response_key moved = key;
    moved.data = bytes + 1;
    struct MHD_Response *there = responses_get(&all, &moved);
    assert_ptr_equal(responses_get(&all, &moved), there);
    assert_string_equal(header(there, "Loadstone-Version"), "8");
    responses_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answer_is_lent_again),
        cmocka_unit_test(test_version_and_type_are_those_asked_for),
        cmocka_unit_test(test_another_body_takes_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
