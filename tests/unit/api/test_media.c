/* Media types: what a body is, and which answer an Accept header takes. */
#include "unit/api/cmocka_all.h"

#include "api/media.h"

static void test_content_types(void **state)
{
    (void)state;
    assert_int_equal(media_of(NULL), MEDIA_NONE);
    assert_int_equal(media_of("application/json"), MEDIA_JSON);
    assert_int_equal(media_of(" Application/JSON ; charset=utf-8"), MEDIA_JSON);
    assert_int_equal(media_of("application/x-ndjson"), MEDIA_NDJSON);
    assert_int_equal(media_of("application/octet-stream"), MEDIA_OCTETS);
    assert_int_equal(media_of("application/jsonx"), MEDIA_OTHER);
    assert_int_equal(media_of("text/csv"), MEDIA_OTHER);
    assert_int_equal(media_of(""), MEDIA_OTHER);
}

static const struct {
    const char *accept;
    enum media best;
} accepts[] = {
    {NULL, MEDIA_JSON},
    {"", MEDIA_JSON},
    {"*/*", MEDIA_JSON},
    {"application/*", MEDIA_JSON},
    {"application/json", MEDIA_JSON},
    {"application/octet-stream", MEDIA_OCTETS},
    {"APPLICATION/OCTET-STREAM;q=0.4", MEDIA_OCTETS},
    {"application/octet-stream, */*;q=0.1", MEDIA_OCTETS},
    {"application/octet-stream;q=0.1, */*", MEDIA_JSON},
    {"application/json;q=0, */*", MEDIA_OCTETS},
    {"text/html, application/octet-stream;q=0.9, application/json;q=0.8", MEDIA_OCTETS},
    {"text/html,application/xhtml+xml,*/*;q=0.8", MEDIA_JSON},
    {"text/html", MEDIA_NONE},
    {"application/json;q=0", MEDIA_NONE},
    {"application/problem+json", MEDIA_NONE},
    {",,;;q", MEDIA_NONE},
};

static void test_accept(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof accepts / sizeof accepts[0]; i++)
        if (media_accepted(accepts[i].accept, MEDIA_JSON | MEDIA_OCTETS) != accepts[i].best)
            fail_msg("Accept: %s", accepts[i].accept ? accepts[i].accept : "(none)");
    assert_int_equal(media_accepted("application/octet-stream", MEDIA_JSON), MEDIA_NONE);
}

static void test_lists_are_cut_to_their_room(void **state)
{
    (void)state;
    char list[128], small[10];
    media_list(MEDIA_JSON | MEDIA_OCTETS, list, sizeof list);
    assert_string_equal(list, "application/json, application/octet-stream");
    media_list(MEDIA_JSON | MEDIA_OCTETS, small, sizeof small);
    assert_string_equal(small, "applicati");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_types),
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_lists_are_cut_to_their_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
