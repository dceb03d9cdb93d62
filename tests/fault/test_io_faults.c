/* Fault sweep over every operation of the store: the Nth call at the io seam fails, for N = 1, 2,
 * 3 ... until a run needs fewer; once, and from then on for good; with an I/O error after half a
 * write, with a full disk, with a sync that fails though all was written, and with writes that are
 * short and no error. During a run nothing of a refused step is seen; then the directory is opened
 * again without faults: every acknowledged step is there, a refused one whole or not at all, and
 * nothing is quarantined.
 *
 * FAULT_FIRST (default 1) is the first call that fails; FAULT_STRIDE: every how-manyth call fails
 * (default 4; `make check-fault` lets each). */
#include "dirs.h"
#include "../unit/store/sweep.h"

#include "base/log.h"

static const char *const FIRST_LIFE[] = {
    "create", "upsert", "streamed upsert", "tag",   "partial upsert",      "seal",
    "append", "delete", "streamed upsert", "alter", "partition overwrite", "compact",
    "upsert"};
static const char *const SECOND_LIFE[] = {"seal",         "partial upsert", "streamed refresh",
                                          "tag",          "seal",           "restore",
                                          "delete where", "compact",        "vacuum",
                                          "untag",        "refresh",        "upsert",
                                          "drop",         "create",         "upsert"};
enum {
    NFIRST = sizeof FIRST_LIFE / sizeof *FIRST_LIFE,
    NSECOND = sizeof SECOND_LIFE / sizeof *SECOND_LIFE
};

static uint64_t faults, acknowledged, refused;

/* What was refused in the life before may be there; what is refused in this one is not seen. */
static void one_life(struct workload *w, const char *const *kinds, size_t n, const char *where)
{
    struct fixture *f = w->f;
    if (catalog_open(f->dir, f->io, NULL, &f->cat, &f->ctx) != ERR_OK)
        return;
    while (!catalog_ready(f->cat))
        usleep(200);
    sweep.armed = false; /* comparing reads history files */
    workload_settle(w, where);
    sweep.armed = true;
    for (size_t i = 0; i < n; i++)
        workload_do(w, kinds[i]);
    sweep.armed = false;
    workload_compare_final(w, where);
    sweep.armed = true;
    catalog_close(f->cat);
}

static void run(struct workload *w, struct fixture *f, const char *where)
{
    remove_dir(f->dir);
    workload_new(w, f, 99);
    w->lenient = true;
    atomic_store(&sweep.calls, 0);
    sweep.armed = true;
    one_life(w, FIRST_LIFE, NFIRST, where);
    one_life(w, SECOND_LIFE, NSECOND, where);
    sweep.armed = false;
}

static void check(struct workload *w, struct fixture *f, const char *where)
{
    fixture_open(f);
    workload_compare(w, f, w->step, w->step, where);
    workload_write_again(f, where);
    catalog_close(f->cat);
}

struct sweep_param {
    enum io_backend backend;
    enum sweep_kind kind;
    bool for_good;
    int error;
};

/* Runs with the Nth call failing; true when that many calls were made. */
static bool one_fault(struct fixture *f, const struct sweep_param *p, unsigned at)
{
    struct workload w;
    char where[200];
    sweep.at = at;
    snprintf(where, sizeof where, "call %u fails (kind %d, errno %d, %s)", at, p->kind, p->error,
             p->for_good ? "for good" : "once");
    run(&w, f, where);
    check(&w, f, where);
    bool struck = atomic_load(&sweep.calls) >= at;
    if (!struck || p->kind == SWEEP_SHORT_WRITES)
        assert_int_equal(w.failed, 0);
    faults += struck;
    acknowledged += w.acknowledged;
    refused += w.failed;
    workload_free(&w);
    return struck;
}

static void every_failing_call_loses_nothing(void **state)
{
    const struct sweep_param *p = *state;
    struct fixture fx, *f = &fx;
    fixture_new(f, p->backend);
    catalog_close(f->cat);
    f->io = sweep_new(f->io);
    sweep.for_good = p->for_good;
    sweep.error = p->error;
    sweep.kind = p->kind;
    faults = acknowledged = refused = 0;
    log_set_level(LOG_ERROR + 1);
    for (unsigned at = (unsigned)setting("FAULT_FIRST", 1); one_fault(f, p, at);)
        at += p->kind == SWEEP_CALLS ? (unsigned)setting("FAULT_STRIDE", 4) : 1;
    log_set_level(LOG_INFO);
    assert_true(faults > 10); /* the seam was really gone through */
    print_message("%llu faults, %llu steps acknowledged, %llu refused, 0 lost\n",
                  (unsigned long long)faults, (unsigned long long)acknowledged,
                  (unsigned long long)refused);
    sweep.at = 0;
    fixture_open(f);
    fixture_free(f);
}

int main(void)
{
    static struct sweep_param params[] = {
        {IO_POSIX, SWEEP_CALLS, false, EIO},      {IO_AUTO, SWEEP_CALLS, false, EIO},
        {IO_POSIX, SWEEP_CALLS, true, EIO},       {IO_AUTO, SWEEP_CALLS, true, EIO},
        {IO_POSIX, SWEEP_CALLS, false, ENOSPC},   {IO_AUTO, SWEEP_CALLS, true, ENOSPC},
        {IO_POSIX, SWEEP_SYNCS, false, EIO},      {IO_AUTO, SWEEP_SYNCS, true, EIO},
        {IO_POSIX, SWEEP_SHORT_WRITES, false, 0}, {IO_AUTO, SWEEP_SHORT_WRITES, false, 0}};
    enum { N = sizeof params / sizeof *params };
    struct CMUnitTest tests[N];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){.name = "every_failing_call_loses_nothing",
                                       .test_func = every_failing_call_loses_nothing,
                                       .initial_state = &params[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
