/* The worker pool: order, limits, and an end that runs what was queued. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#include "base/worker.h"

enum { MANY = 1000 };

static sem_t gate, entered;
static int order[MANY];
static atomic_int ran;

static int reset(void **state)
{
    (void)state;
    sem_init(&gate, 0, 0);
    sem_init(&entered, 0, 0);
    memset(order, 0, sizeof(order));
    atomic_store(&ran, 0);
    return 0;
}

static void wait_at_gate(void *arg)
{
    (void)arg;
    sem_post(&entered);
    sem_wait(&gate);
}

static void note_order(void *arg)
{
    order[atomic_fetch_add(&ran, 1)] = (int)(intptr_t)arg;
}

static struct worker_pool *new_pool(unsigned nthreads, size_t queue_max)
{
    struct worker_pool *p = NULL;
    struct err_ctx ctx;
    err_clear(&ctx);
    assert_int_equal(worker_pool_new("test", nthreads, queue_max, &p, &ctx), ERR_OK);
    return p;
}

static void test_jobs_start_in_the_order_they_came(void **state)
{
    (void)state;
    struct worker_pool *p = new_pool(1, MANY);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(worker_pool_submit(p, note_order, (void *)(intptr_t)i, NULL), ERR_OK);
    worker_pool_free(p);
    assert_int_equal(atomic_load(&ran), MANY);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(order[i], i);
}

static void test_a_full_queue_is_busy_and_takes_again_later(void **state)
{
    (void)state;
    struct err_ctx ctx;
    err_clear(&ctx);
    struct worker_pool *p = new_pool(1, 3);
    assert_int_equal(worker_pool_submit(p, wait_at_gate, NULL, &ctx), ERR_OK);
    sem_wait(&entered); /* it runs, and holds no place in the queue */
    for (int i = 0; i < 3; i++)
        assert_int_equal(worker_pool_submit(p, note_order, NULL, &ctx), ERR_OK);
    assert_int_equal(worker_pool_submit(p, note_order, NULL, &ctx), ERR_BUSY);
    assert_non_null(strstr(ctx.detail, "queue is full (3 jobs wait)"));
    assert_int_equal(worker_pool_submit(p, wait_at_gate, NULL, NULL), ERR_BUSY);

    sem_post(&gate);
    while (atomic_load(&ran) < 3)
        sched_yield();
    assert_int_equal(worker_pool_submit(p, note_order, NULL, &ctx), ERR_OK);
    worker_pool_free(p);
    assert_int_equal(atomic_load(&ran), 4);
}

static void test_jobs_run_side_by_side(void **state)
{
    (void)state;
    struct worker_pool *p = new_pool(4, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(worker_pool_submit(p, wait_at_gate, NULL, NULL), ERR_OK);
    for (int i = 0; i < 4; i++)
        sem_wait(&entered); /* hangs unless all four are in at once */
    for (int i = 0; i < 4; i++)
        sem_post(&gate);
    worker_pool_free(p);
}

static struct worker_pool *closing_pool;
static enum err late_result;

static void submit_until_refused(void *arg)
{
    (void)arg;
    enum err e;
    do
        e = worker_pool_submit(closing_pool, note_order, NULL, NULL);
    while (e == ERR_OK || e == ERR_BUSY);
    late_result = e;
}

static void test_a_closing_pool_refuses_and_runs_what_it_has(void **state)
{
    (void)state;
    late_result = ERR_OK;
    closing_pool = new_pool(2, MANY / 2);
    assert_int_equal(worker_pool_submit(closing_pool, submit_until_refused, NULL, NULL), ERR_OK);
    worker_pool_free(closing_pool);
    assert_int_equal(late_result, ERR_UNAVAILABLE);
}

static void count_job(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void *submit_many(void *arg)
{
    for (int i = 0; i < MANY; i++) {
        while (worker_pool_submit(arg, count_job, &ran, NULL) != ERR_OK)
            sched_yield();
    }
    return NULL;
}

static void test_no_job_is_lost_or_run_twice(void **state)
{
    (void)state;
    struct worker_pool *p = new_pool(3, 16);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, submit_many, p);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    worker_pool_free(p);
    assert_int_equal(atomic_load(&ran), 4 * MANY);
}

static void note_thread(void *arg)
{
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    bool blocked = sigismember(&mask, SIGTERM) == 1;
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    *(bool *)arg = blocked && strcmp(name, "a-name-that-is-") == 0;
}

static void test_threads_are_named_and_take_no_signals(void **state)
{
    (void)state;
    struct worker_pool *p;
    bool as_told = false;
    assert_int_equal(worker_pool_new("a-name-that-is-long", 1, 1, &p, NULL), ERR_OK);
    assert_int_equal(worker_pool_submit(p, note_thread, &as_told, NULL), ERR_OK);
    worker_pool_free(p);
    assert_true(as_told);
}

static void note_nice(void *arg)
{
    *(int *)arg = getpriority(PRIO_PROCESS, 0);
}

static void test_a_lowered_pool_yields_to_others(void **state)
{
    (void)state;
    struct worker_pool *p;
    int ours = getpriority(PRIO_PROCESS, 0), theirs = -100;
    assert_int_equal(worker_pool_new("low", 1, 1, &p, NULL), ERR_OK);
    worker_pool_lower(p, 7);
    assert_int_equal(worker_pool_submit(p, note_nice, &theirs, NULL), ERR_OK);
    worker_pool_free(p);
    assert_int_equal(theirs, ours + 7 > 19 ? 19 : ours + 7);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), ours);
}

static void test_senseless_sizes_are_refused(void **state)
{
    (void)state;
    struct worker_pool *p;
    struct err_ctx ctx;
    err_clear(&ctx);
    assert_int_equal(worker_pool_new("test", 0, 1, &p, &ctx), ERR_INVALID);
    assert_int_equal(worker_pool_new("test", 1, 0, &p, &ctx), ERR_INVALID);
    assert_int_equal(worker_pool_new("test", 1, SIZE_MAX, &p, &ctx), ERR_NO_MEMORY);
    worker_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_jobs_start_in_the_order_they_came, reset),
        cmocka_unit_test_setup(test_a_full_queue_is_busy_and_takes_again_later, reset),
        cmocka_unit_test_setup(test_jobs_run_side_by_side, reset),
        cmocka_unit_test_setup(test_a_closing_pool_refuses_and_runs_what_it_has, reset),
        cmocka_unit_test_setup(test_no_job_is_lost_or_run_twice, reset),
        cmocka_unit_test_setup(test_threads_are_named_and_take_no_signals, reset),
        cmocka_unit_test_setup(test_a_lowered_pool_yields_to_others, reset),
        cmocka_unit_test_setup(test_senseless_sizes_are_refused, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
