/* Epochs: nothing is freed under a reader, everything is freed in the end. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/epoch.h"
#include "base/err.h"

enum {
    READERS = 4,
    SWAPS = 20000,
    READS = 3,
    MANY = 1000000,
    SLOTS = 1024, /* as many as epoch.c has */
    THREADS_MANY = SLOTS + 76,
};

static atomic_int freed;

static void count_free(void *arg)
{
    (void)arg;
    atomic_fetch_add(&freed, 1);
}

static int reset(void **state)
{
    (void)state;
    epoch_drain();
    atomic_store(&freed, 0);
    return 0;
}

static void test_what_no_reader_sees_is_freed(void **state)
{
    (void)state;
    epoch_retire(count_free, NULL);
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 1);
}

static void test_nested_sections_hold_until_the_outermost_ends(void **state)
{
    (void)state;
    epoch_enter();
    epoch_enter();
    epoch_retire(count_free, NULL);
    epoch_leave();
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 0);
    epoch_leave();
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 1);
}

/* A reader that stands still: `held` is retired before it leaves, later ones too. */
static sem_t inside, may_leave;

static void *stand_in_section(void *arg)
{
    (void)arg;
    epoch_enter();
    sem_post(&inside);
    sem_wait(&may_leave);
    epoch_leave();
    return NULL;
}

static void test_a_reader_holds_back_only_what_came_after_it(void **state)
{
    (void)state;
    pthread_t reader;
    sem_init(&inside, 0, 0);
    sem_init(&may_leave, 0, 0);
    epoch_retire(count_free, NULL); /* before the reader: it cannot see this one */
    pthread_create(&reader, NULL, stand_in_section, NULL);
    sem_wait(&inside);
    for (int i = 0; i < 500; i++) /* enough to make retiring collect and the queue grow */
        epoch_retire(count_free, NULL);
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 1);
    sem_post(&may_leave);
    pthread_join(reader, NULL);
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 501);
}

static void retire_again(void *arg)
{
    int *left = arg;
    atomic_fetch_add(&freed, 1);
    if ((*left)-- > 0)
        epoch_retire(retire_again, left);
}

/* So many at once that the stack would overflow if each free function collected in turn. */
static void test_freeing_may_retire_on_and_on(void **state)
{
    (void)state;
    int *left = malloc(MANY * sizeof(*left));
    assert_non_null(left);
    epoch_enter();
    for (int i = 0; i < MANY; i++) {
        left[i] = 2;
        epoch_retire(retire_again, &left[i]);
    }
    epoch_leave();
    epoch_drain();
    assert_int_equal(atomic_load(&freed), 3 * MANY);
    free(left);
}

/* ---- readers and a writer at once ---- */

struct object {
    uint64_t alive; /* ALIVE until it is freed, then it is overwritten */
    uint64_t serial;
};
static const uint64_t ALIVE = 0x600d600d600d600d, DEAD = 0xdeaddeaddeaddead;

static struct object *_Atomic current;
static atomic_bool stop;
static atomic_ulong sections;

static void free_object(void *arg)
{
    struct object *o = arg;
    *(volatile uint64_t *)&o->alive = DEAD;
    free(o);
    atomic_fetch_add(&freed, 1);
}

static void *read_on(void *arg)
{
    uintptr_t errors = 0;
    (void)arg;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        epoch_enter();
        struct object *o = atomic_load_explicit(&current, memory_order_acquire);
        uint64_t serial = o->serial;
        for (int i = 0; i < READS; i++) {
            errors += *(volatile uint64_t *)&o->alive != ALIVE || o->serial != serial;
            epoch_enter(); /* the outer section protects `o` through an inner one */
            epoch_leave();
        }
        epoch_leave();
        atomic_fetch_add_explicit(&sections, 1, memory_order_relaxed);
    }
    return (void *)errors;
}

static struct object *new_object(uint64_t serial)
{
    struct object *o = malloc(sizeof(*o));
    ASSERT(o);
    *o = (struct object){ALIVE, serial};
    return o;
}

static void *swap_on(void *arg)
{
    (void)arg;
    for (uint64_t i = 1; i <= SWAPS; i++) {
        struct object *old = atomic_exchange(&current, new_object(i));
        epoch_retire(free_object, old);
        if (i % 64 == 0)
            sched_yield();
    }
    return NULL;
}

static void test_readers_never_see_a_freed_object(void **state)
{
    (void)state;
    pthread_t readers[READERS], writers[2];
    uintptr_t errors = 0;
    atomic_store(&stop, false);
    atomic_store(&sections, 0);
    atomic_store(&current, new_object(0));
    for (int i = 0; i < READERS; i++)
        pthread_create(&readers[i], NULL, read_on, NULL);
    while (atomic_load(&sections) < READERS)
        sched_yield();
    for (int i = 0; i < 2; i++)
        pthread_create(&writers[i], NULL, swap_on, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(writers[i], NULL);
    assert_true(atomic_load(&freed) > 0); /* not all of it waited for the end */
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++) {
        void *seen;
        pthread_join(readers[i], &seen);
        errors += (uintptr_t)seen;
    }
    assert_int_equal(errors, 0);
    epoch_retire(free_object, atomic_load(&current));
    epoch_drain();
    assert_int_equal(atomic_load(&freed), 2 * SWAPS + 1);
}

/* ---- more threads than slots ---- */

static void *enter_once(void *arg)
{
    (void)arg;
    epoch_enter();
    epoch_leave();
    return NULL;
}

/* A reader with a slot holds back what is retired after it entered; one that shares the overflow
 * counter would hold back everything. So the last of more threads than slots got a slot back. */
static void test_an_ending_thread_gives_its_slot_back(void **state)
{
    (void)state;
    pthread_t t;
    for (int i = 0; i < THREADS_MANY; i++) {
        assert_int_equal(pthread_create(&t, NULL, enter_once, NULL), 0);
        pthread_join(t, NULL);
    }
    sem_init(&inside, 0, 0);
    sem_init(&may_leave, 0, 0);
    epoch_retire(count_free, NULL);
    pthread_create(&t, NULL, stand_in_section, NULL);
    sem_wait(&inside);
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 1);
    sem_post(&may_leave);
    pthread_join(t, NULL);
}

static sem_t others_may_leave;

static void *stand_beyond_the_slots(void *arg)
{
    (void)arg;
    epoch_enter();
    sem_post(&inside);
    sem_wait(&others_may_leave);
    epoch_leave();
    return NULL;
}

/* The first threads take every slot and leave; what is retired stays for those that came after. */
static void test_readers_beyond_the_slots_are_protected_too(void **state)
{
    (void)state;
    static pthread_t threads[THREADS_MANY];
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    sem_init(&inside, 0, 0);
    sem_init(&may_leave, 0, 0);
    sem_init(&others_may_leave, 0, 0);
    for (int i = 0; i < THREADS_MANY; i++) {
        bool slot_left = i < SLOTS;
        assert_int_equal(pthread_create(&threads[i], &attr,
                                        slot_left ? stand_in_section : stand_beyond_the_slots,
                                        NULL),
                         0);
        sem_wait(&inside);
    }
    epoch_retire(count_free, NULL);
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 0);
    for (int i = 0; i < SLOTS; i++)
        sem_post(&may_leave);
    for (int i = 0; i < SLOTS; i++)
        pthread_join(threads[i], NULL);
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 0);
    for (int i = SLOTS; i < THREADS_MANY; i++)
        sem_post(&others_may_leave);
    for (int i = SLOTS; i < THREADS_MANY; i++)
        pthread_join(threads[i], NULL);
    epoch_collect();
    assert_int_equal(atomic_load(&freed), 1);
    pthread_attr_destroy(&attr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_what_no_reader_sees_is_freed, reset),
        cmocka_unit_test_setup(test_nested_sections_hold_until_the_outermost_ends, reset),
        cmocka_unit_test_setup(test_a_reader_holds_back_only_what_came_after_it, reset),
        cmocka_unit_test_setup(test_freeing_may_retire_on_and_on, reset),
        cmocka_unit_test_setup(test_readers_never_see_a_freed_object, reset),
        cmocka_unit_test_setup(test_an_ending_thread_gives_its_slot_back, reset),
        cmocka_unit_test_setup(test_readers_beyond_the_slots_are_protected_too, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
