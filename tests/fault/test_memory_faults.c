/* Allocations that fail, over every operation of the store: the Nth of the thread at work, for N =
 * 1, 2, 3 ... until a run needs fewer; once, and from then on for good. Each refusal has a
 * sentence, shows nothing of the refused step, and with memory again the store goes on; after a
 * start all that was acknowledged is there.
 *
 * FAULT_FIRST (default 1) is the first that fails; FAULT_STRIDE: every how-manyth allocation fails
 * (default 16; `make check-fault` lets each). */
#include "dirs.h"
#include "scarce.h"

#include "base/log.h"

static const char *const STEPS[] = {"create",
                                    "upsert",
                                    "streamed upsert",
                                    "tag",
                                    "partial upsert",
                                    "seal",
                                    "append",
                                    "delete",
                                    "alter",
                                    "upsert",
                                    "seal",
                                    "restore",
                                    "streamed refresh",
                                    "compact",
                                    "partition overwrite",
                                    "partial upsert",
                                    "seal",
                                    "tag",
                                    "delete where",
                                    "vacuum",
                                    "untag",
                                    "refresh",
                                    "upsert",
                                    "drop",
                                    "create",
                                    "upsert"};

static uint64_t faults, acknowledged, refused;

static void pause_memory(bool on)
{
    memory.armed = !on;
}

static unsigned one_fault(struct fixture *f, unsigned at, bool for_good)
{
    struct workload w;
    char where[100];
    snprintf(where, sizeof where, "allocation %u fails %s", at, for_good ? "for good" : "once");
    remove_dir(f->dir);
    fixture_open(f);
    workload_new(&w, f, 7);
    w.lenient = true;
    w.pause = pause_memory;
    memory.at = at;
    memory.for_good = for_good;
    memory.calls = 0;
    memory.armed = true;
    for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS; i++)
        workload_do(&w, STEPS[i]);
    memory.armed = false;
    assert_true(!w.failed || f->ctx.detail[0]);
    workload_compare_final(&w, where);
    fixture_reopen(f);
    workload_compare(&w, f, w.step, w.step, where);
    workload_write_again(f, where);
    catalog_close(f->cat);
    faults += memory.calls >= at;
    acknowledged += w.acknowledged;
    refused += w.failed;
    workload_free(&w);
    return memory.calls;
}

static void sweep(bool for_good)
{
    struct fixture fx, *f = &fx;
    unsigned stride = (unsigned)setting("FAULT_STRIDE", 16);
    base_dir(f, "memory");
    OK(io_new(IO_POSIX, &f->io, &f->ctx));
    log_set_level(LOG_ERROR + 1);
    faults = acknowledged = refused = 0;
    for (unsigned at = (unsigned)setting("FAULT_FIRST", 1); one_fault(f, at, for_good) >= at;)
        at += stride;
    log_set_level(LOG_INFO);
    print_message("%llu allocations failed, %llu steps acknowledged, %llu refused, 0 lost\n",
                  (unsigned long long)faults, (unsigned long long)acknowledged,
                  (unsigned long long)refused);
    assert_true(faults > 10);
    remove_dir(f->dir);
    io_free(f->io);
}

static void each_failing_allocation_loses_nothing(void **state)
{
    (void)state;
    sweep(false);
}

static void no_more_memory_loses_nothing(void **state)
{
    (void)state;
    sweep(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_failing_allocation_loses_nothing),
        cmocka_unit_test(no_more_memory_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
