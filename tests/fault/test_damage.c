/* Damaged files: one bit flipped, byte by byte over every file of a stopped store. Each flip is
 * found by the check, which names the file; or it lies in bytes that mean nothing, and what the
 * store then holds is equal to the last row. Whatever is damaged, the other collection opens and
 * is whole.
 *
 * DAMAGE_FLIPS flips a file, spread over it (default 60; `make check-fault` takes more). */
#include "dirs.h"

#include "base/log.h"
#include "store/check.h"

static struct {
    struct workload w;
    struct fixture *f, *copy;
    const char *path; /* the file at hand */
    uint64_t found, harmless, opened, files;
    bool named;
} run;

static void nothing(void *arg, uint32_t step)
{
    (void)arg;
    (void)step;
}

static void flip(const char *path, uint64_t at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    assert_true(fputc(c ^ (1 << at % 8), f) != EOF);
    fclose(f);
}

static void see(void *arg, enum check_kind kind, const char *collection, const char *text)
{
    (void)arg;
    (void)collection;
    const char *name = strrchr(run.path, '/') + 1;
    if (kind == CHECK_DAMAGE && strstr(text, name))
        run.named = true;
}

static void see_done(void *arg, const struct check_collection *c)
{
    (void)arg;
    (void)c;
}

/* The books say what is there; of the damaged collection, only whether it may be out. */
static void open_copy(bool damaged, const char *where)
{
    struct fixture *f = run.copy;
    char command[700];
    remove_dir(f->dir);
    snprintf(command, sizeof command, "cp -a %s %s", run.f->dir, f->dir);
    assert_int_equal(system(command), 0);
    fixture_open(f);
    run.w.f = f;
    if (damaged)
        workload_compare_final(&run.w, where);
    else
        workload_compare(&run.w, f, run.w.step, run.w.step, where);
    catalog_close(f->cat);
    run.opened++;
}

static void one_flip(const char *path, uint64_t at)
{
    struct fixture *f = run.f;
    struct check_hooks hooks = {.found = see, .done = see_done};
    char where[2200];
    bool damaged = false;
    snprintf(where, sizeof where, "byte %llu of %s flipped", (unsigned long long)at, path);
    flip(path, at);
    run.path = path;
    run.named = false;
    OK(check_dir(f->dir, &hooks, &damaged, &f->ctx));
    if (damaged && !run.named)
        fail_msg("%s: the check does not name the file", where);
    if (!damaged || (run.found % 16 == 0 && strstr(path, ".seg") == NULL))
        open_copy(damaged, where);
    run.found += damaged;
    run.harmless += !damaged;
    flip(path, at);
}

/* Dense in the first 4 KiB, where headers are, then at even distances. */
static void damage_file(void *arg, const char *path)
{
    uint64_t flips = setting("DAMAGE_FLIPS", 60);
    struct stat st;
    (void)arg;
    assert_int_equal(stat(path, &st), 0);
    uint64_t size = (uint64_t)st.st_size, head = size < 4096 ? size : 4096;
    if (size == 0 || strstr(path, "FORMAT"))
        return;
    for (uint64_t i = 0; i < flips / 2; i++)
        one_flip(path, i * head / (flips / 2));
    for (uint64_t i = 0; size > head && i < flips / 2; i++)
        one_flip(path, head + i * (size - head) / (flips / 2));
    run.files++;
}

static void every_flipped_bit_is_found_and_named_or_means_nothing(void **state)
{
    (void)state;
    struct fixture fx, copy, *f = &fx;
    base_dir(f, "damage");
    base_dir(&copy, "damaged");
    run.f = f;
    run.copy = &copy;
    OK(io_new(IO_POSIX, &f->io, &f->ctx));
    copy.io = f->io;
    log_set_level(LOG_ERROR + 1);
    fixture_open(f);
    workload_new(&run.w, f, 5);
    for (int i = 0; i < 30; i++)
        workload_step(&run.w, nothing, nothing, NULL);
    workload_do(&run.w, "upsert");
    catalog_close(f->cat);
    each_file(f->dir, damage_file, NULL);
    log_set_level(LOG_INFO);
    print_message("%llu files, %llu flips found and named, %llu in bytes that mean nothing, %llu "
                  "starts on damaged files\n",
                  (unsigned long long)run.files, (unsigned long long)run.found,
                  (unsigned long long)run.harmless, (unsigned long long)run.opened);
    assert_true(run.found > run.harmless);
    workload_free(&run.w);
    remove_dir(f->dir);
    remove_dir(copy.dir);
    io_free(f->io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_flipped_bit_is_found_and_named_or_means_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
