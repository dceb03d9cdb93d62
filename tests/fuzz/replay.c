/* The corpus of one fuzz target as a unit test: every kept input goes through the target, crashes
 * of the past among them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>

#include "fuzz.h"

/* The input in memory of exactly its size, so that a sanitizer sees a read past it. */
static void replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long n = ftell(f);
    assert_true(n >= 0);
    rewind(f);
    uint8_t *data = malloc((size_t)n);
    assert_true(data || n == 0);
    assert_int_equal(fread(data, 1, (size_t)n, f), n);
    fclose(f);
    assert_int_equal(LLVMFuzzerTestOneInput(data, (size_t)n), 0);
    free(data);
}

static void kept_inputs_do_no_harm(void **state)
{
    (void)state;
    char path[600];
    int count = 0;
    DIR *d = opendir(FUZZ_CORPUS);
    if (!d)
        fail_msg("there is no corpus %s", FUZZ_CORPUS);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", FUZZ_CORPUS, e->d_name);
        replay(path);
        count++;
    }
    closedir(d);
    assert_true(count > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kept_inputs_do_no_harm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
