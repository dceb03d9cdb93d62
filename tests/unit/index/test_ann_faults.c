/* Failing calls while an index file is written: whatever the Nth call is, the file is whole and
 * opens, or it is refused; nothing half-written is ever taken for an index. */
#include "rig.h"
#include "unit/store/sweep.h"

enum { DIM = 8, NODES = 3000, NLIST = 7 };

struct lists {
    float centroids[NLIST * DIM];
    uint32_t at[NLIST + 1];
    uint32_t rows[NODES];
};

static struct ann_shape fill(struct lists *l)
{
    for (int i = 0; i < NLIST * DIM; i++)
        l->centroids[i] = (float)i;
    for (uint32_t i = 0; i <= NLIST; i++)
        l->at[i] = i * NODES / NLIST;
    for (uint32_t i = 0; i < NODES; i++)
        l->rows[i] = i;
    return (struct ann_shape){.kind = INDEX_IVF,
                              .builder = BUILDER_FAISS,
                              .segment_id = 1,
                              .rows = NODES,
                              .nodes = NODES,
                              .dim = DIM,
                              .metric = DIST_L2,
                              .nlist = NLIST};
}

static void expect_whole_or_refused(const char *path, enum err written)
{
    struct ann_file *a = NULL;
    struct err_ctx ctx;
    err_clear(&ctx);
    enum err e = ann_file_open(path, &a, &ctx);
    if (e == ERR_OK)
        e = ann_file_verify(a, path, &ctx);
    if (written == ERR_OK && e != ERR_OK)
        fail_msg("call %u: written, but %s", sweep.at, ctx.detail);
    if (e != ERR_OK)
        assert_true(e == ERR_NOT_FOUND || e == ERR_CORRUPT);
    ann_file_close(a);
}

static void failing_write_is_never_taken_for_an_index(void **state)
{
    const bool *for_good = *state;
    static struct lists l;
    struct temp_dir dir;
    struct io *inner;
    struct err_ctx ctx;
    struct ann_shape shape = fill(&l);
    unsigned calls = 0;
    assert_int_equal(temp_dir_new(&dir), 0);
    assert_int_equal(io_new(IO_AUTO, &inner, NULL), ERR_OK);
    struct io *io = sweep_new(inner);
    sweep.for_good = *for_good;
    sweep.error = *for_good ? ENOSPC : EIO;
    for (sweep.at = 0; sweep.at <= calls; sweep.at++) { /* 0: no fault, to count the calls */
        const char *path = temp_path(&dir, "x.ann");
        err_clear(&ctx);
        atomic_store(&sweep.calls, 0);
        sweep.armed = true;
        const struct ann_lists lists = {l.centroids, l.at, l.rows};
        const struct ann_codes codes = {.verdict = CODES_REFUSED};
        enum err e = ann_file_write_ivf(io, path, &shape, &lists, &codes, &ctx);
        sweep.armed = false;
        assert_true(e == ERR_OK || ctx.detail[0]);
        assert_true(e == ERR_OK || sweep.at > 0);
        calls = sweep.at ? calls : atomic_load(&sweep.calls);
        expect_whole_or_refused(path, e);
        unlink(path);
    }
    assert_true(calls >= 5);
    sweep.at = 0;
    io_free(io);
    temp_dir_remove(&dir);
}

int main(void)
{
    static bool once = false, for_good = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(failing_write_is_never_taken_for_an_index, &once),
        cmocka_unit_test_prestate(failing_write_is_never_taken_for_an_index, &for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
