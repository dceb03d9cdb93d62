/* Epoch-based reclamation (Fraser, "Practical lock-freedom", 2004, chapter 5).
 *
 *   slots    [ 0 ][ 7 ][ 9 ][ 0 ] ...   the epoch at which each reading thread entered, 0 = none
 *   clock    9                           counts retirements
 *   pending  (5,a)(6,b)(7,c)(8,d)        retired objects, stamped with the clock, in order
 *
 * An object stamped e is freed when every marked slot is above e: here a and b, while c waits for
 * the reader at 7.
 *
 * Why that is safe. The writer has unlinked the object before it ticks the clock from e to e + 1.
 *   - A reader whose slot is above e read the clock after that tick. The tick releases and that
 *     read acquires, so the reader sees the unlinking and cannot reach the object.
 *   - A reader whose mark the scan missed: mark, full fence, load pointers on its side; unlink,
 *     full fence, load slots on the scanning side. Of two threads that each store, fence, and load
 *     the other's variable, one sees the other's store; the scan did not, so the reader does.
 *   - A reader whose slot is read as cleared or as a later mark left the object before that store,
 *     which releases; the scan acquires it before freeing.
 *
 * ThreadSanitizer does not understand fences. Under it the mark is a sequentially consistent
 * exchange, which on the CPU is the same barrier.
 *
 * A thread owns a slot from its first enter until it ends. When all slots are taken, readers share
 * one counter, and nothing is freed while it is above zero: slower to free, never wrong.
 *
 * Threads: any. Failure: when there is no memory for another pending entry the object is leaked,
 * with a line in the log; freeing it at once could pull it from under a reader. */
#include "base/epoch.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/log.h"

enum {
    SLOTS_MAX = 1024,
    CACHE_LINE_BYTES = 64,
    PENDING_MIN = 64, /* entries that the queue starts with */
    COLLECT_AT = 64,  /* a retirement collects too once so many wait */
    FREE_BATCH = 32,  /* objects taken from the queue per lock */
};

struct slot {
    _Alignas(CACHE_LINE_BYTES) atomic_ulong epoch; /* 0 = not reading */
    atomic_bool taken;
};

struct retired {
    unsigned long epoch;
    void (*fn)(void *);
    void *arg;
};

static struct slot slots[SLOTS_MAX];
static atomic_uint nslots; /* slots [0, nslots) were taken at some time */
static atomic_ulong shared_readers;
static atomic_ulong epoch_clock = 1;

static pthread_mutex_t pending_lock = PTHREAD_MUTEX_INITIALIZER;
static struct retired *pending; /* ring of pending_cap */
static size_t pending_cap, pending_head, pending_count;

static __thread struct slot *my_slot;
static __thread unsigned my_depth;
static __thread bool collecting;

static pthread_key_t exit_key;
static pthread_once_t exit_key_once = PTHREAD_ONCE_INIT;

/* ---- slots ---- */

static void release_slot(void *arg)
{
    struct slot *s = arg;
    ASSERT(my_depth == 0);
    my_slot = NULL;
    atomic_store_explicit(&s->taken, false, memory_order_release);
}

static void make_exit_key(void)
{
    ASSERT(pthread_key_create(&exit_key, release_slot) == 0);
}

static void raise_nslots(unsigned to)
{
    unsigned seen = atomic_load(&nslots);
    while (seen < to && !atomic_compare_exchange_weak(&nslots, &seen, to)) {
    }
}

static struct slot *take_slot(void)
{
    pthread_once(&exit_key_once, make_exit_key);
    for (unsigned i = 0; i < SLOTS_MAX; i++) {
        bool taken = atomic_load(&slots[i].taken);
        if (taken || !atomic_compare_exchange_strong(&slots[i].taken, &taken, true))
            continue;
        if (pthread_setspecific(exit_key, &slots[i]) != 0) {
            atomic_store(&slots[i].taken, false);
            return NULL;
        }
        raise_nslots(i + 1);
        return &slots[i];
    }
    return NULL;
}

/* ---- reading ---- */

static inline void full_fence(void)
{
#ifndef __SANITIZE_THREAD__
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void mark(struct slot *s)
{
    unsigned long now = atomic_load_explicit(&epoch_clock, memory_order_acquire);
#ifdef __SANITIZE_THREAD__
    atomic_exchange(&s->epoch, now);
#else
    atomic_store_explicit(&s->epoch, now, memory_order_release);
    full_fence();
#endif
}

void epoch_enter(void)
{
    if (my_depth++ > 0)
        return;
    if (!my_slot)
        my_slot = take_slot();
    if (my_slot) {
        mark(my_slot);
    } else {
        atomic_fetch_add(&shared_readers, 1);
        full_fence();
    }
}

void epoch_leave(void)
{
    ASSERT(my_depth > 0);
    if (--my_depth > 0)
        return;
    if (my_slot)
        atomic_store_explicit(&my_slot->epoch, 0, memory_order_release);
    else
        atomic_fetch_sub(&shared_readers, 1);
}

/* The lowest epoch that a reader may be in; objects stamped below it can go. */
static unsigned long oldest_reader(void)
{
    full_fence();
    unsigned long oldest = atomic_load(&epoch_clock);
    if (atomic_load(&shared_readers) > 0)
        return 0;
    unsigned n = atomic_load(&nslots);
    for (unsigned i = 0; i < n; i++) {
        unsigned long e = atomic_load(&slots[i].epoch);
        if (e && e < oldest)
            oldest = e;
    }
    return oldest;
}

/* ---- retiring ---- */

static bool grow_pending(void)
{
    ASSERT(pending_count <= pending_cap);
    size_t cap = pending_cap ? pending_cap * 2 : PENDING_MIN;
    struct retired *ring = malloc(cap * sizeof(*ring));
    if (!ring)
        return false;
    for (size_t i = 0; i < pending_count; i++)
        ring[i] = pending[(pending_head + i) % pending_cap];
    free(pending);
    pending = ring;
    pending_cap = cap;
    pending_head = 0;
    return true;
}

/* The lock orders stamps, so the queue is sorted. */
static bool push_pending(void (*fn)(void *), void *arg, size_t *count)
{
    pthread_mutex_lock(&pending_lock);
    bool room = pending_count < pending_cap || grow_pending();
    if (room) {
        unsigned long e = atomic_fetch_add(&epoch_clock, 1);
        pending[(pending_head + pending_count++) % pending_cap] = (struct retired){e, fn, arg};
    }
    *count = pending_count;
    pthread_mutex_unlock(&pending_lock);
    return room;
}

static size_t pop_freeable(struct retired out[FREE_BATCH])
{
    size_t n = 0;
    pthread_mutex_lock(&pending_lock);
    unsigned long oldest = pending_count ? oldest_reader() : 0;
    while (n < FREE_BATCH && pending_count > 0 && pending[pending_head].epoch < oldest) {
        out[n++] = pending[pending_head];
        pending_head = (pending_head + 1) % pending_cap;
        pending_count--;
    }
    pthread_mutex_unlock(&pending_lock);
    return n;
}

/* Runs outside the lock, and flat: what a free function retires is picked up by this loop. */
void epoch_collect(void)
{
    struct retired batch[FREE_BATCH];
    size_t n;
    if (collecting)
        return;
    collecting = true;
    while ((n = pop_freeable(batch)) > 0) {
        for (size_t i = 0; i < n; i++)
            batch[i].fn(batch[i].arg);
    }
    collecting = false;
}

void epoch_retire(void (*fn)(void *), void *arg)
{
    size_t count;
    if (!push_pending(fn, arg, &count))
        log_error("out of memory: a retired object is leaked");
    if (count >= COLLECT_AT)
        epoch_collect();
}

void epoch_drain(void)
{
    epoch_collect();
    pthread_mutex_lock(&pending_lock);
    ASSERT(pending_count == 0);
    free(pending);
    pending = NULL;
    pending_cap = pending_head = 0;
    pthread_mutex_unlock(&pending_lock);
}
