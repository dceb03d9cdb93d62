/* A pool of threads over one FIFO queue of jobs.
 *
 *   jobs: ring of queue_max     head -> [ job ][ job ][ job ] <- head + count
 *
 * Threads: submit from anywhere, a job of the pool included. The threads of a pool take no signals:
 * those are the main thread's. Failure: a full queue is ERR_BUSY and the job was not taken; the
 * ring is allocated at the start, so a submit needs no memory. */
#include "base/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/metrics.h"

struct job {
    void (*fn)(void *);
    void *arg;
    uint64_t queued_us;
};

struct worker_pool {
    char name[16]; /* what the kernel keeps of a thread's name */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a job came, or the pool closes */
    struct job *jobs;
    size_t queue_max, head, count;
    bool closing;
    unsigned nthreads, running;
    const struct metric_family *wait; /* NULL: not measured */
    unsigned wait_series;
    int nice; /* below the process */
    pthread_t threads[];
};

/* Waits for a job; false when the pool closes and none is left. */
static bool take_job(struct worker_pool *p, struct job *out)
{
    pthread_mutex_lock(&p->lock);
    while (p->count == 0 && !p->closing)
        pthread_cond_wait(&p->changed, &p->lock);
    bool got = p->count > 0;
    if (got) {
        *out = p->jobs[p->head];
        p->head = (p->head + 1) % p->queue_max;
        p->count--;
        p->running++;
    }
    pthread_mutex_unlock(&p->lock);
    if (got && p->wait)
        metric_observe_us(p->wait, p->wait_series, clock_mono_us() - out->queued_us);
    return got;
}

static void job_done(struct worker_pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->running--;
    pthread_mutex_unlock(&p->lock);
}

/* Linux keeps the nice value of each thread, whatever POSIX says. */
static void lower_thread(int nice)
{
    if (nice)
        setpriority(PRIO_PROCESS, (id_t)gettid(), getpriority(PRIO_PROCESS, 0) + nice);
}

static void *worker_main(void *arg)
{
    struct worker_pool *p = arg;
    struct job job;
    bool lowered = false;
    pthread_setname_np(pthread_self(), p->name);
    while (take_job(p, &job)) {
        if (!lowered)
            lower_thread(p->nice);
        lowered = true;
        job.fn(job.arg);
        job_done(p);
    }
    return NULL;
}

static int start_threads(struct worker_pool *p, unsigned nthreads)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = 0;
    while (!failed && p->nthreads < nthreads) {
        failed = pthread_create(&p->threads[p->nthreads], NULL, worker_main, p);
        if (!failed)
            p->nthreads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

enum err worker_pool_new(const char *name, unsigned nthreads, size_t queue_max,
                         struct worker_pool **out, struct err_ctx *ctx)
{
    if (nthreads == 0 || queue_max == 0)
        return err_set(ctx, ERR_INVALID,
                       "the %s workers need at least one thread and one place "
                       "in the queue",
                       name);
    size_t size, ring_bytes;
    if (!checked_mul(nthreads, sizeof(pthread_t), &size) ||
        !checked_add(size, sizeof(struct worker_pool), &size) ||
        !checked_mul(queue_max, sizeof(struct job), &ring_bytes))
        return err_no_memory(ctx, SIZE_MAX);
    struct worker_pool *p = calloc(1, size);
    if (!p)
        return err_no_memory(ctx, size);
    p->jobs = malloc(ring_bytes);
    if (!p->jobs) {
        free(p);
        return err_no_memory(ctx, ring_bytes);
    }
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->queue_max = queue_max;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);

    int failed = start_threads(p, nthreads);
    if (failed) {
        worker_pool_free(p);
        return err_system(ctx, failed, "cannot start %u %s threads", nthreads, name);
    }
    *out = p;
    return ERR_OK;
}

enum err worker_pool_submit(struct worker_pool *p, void (*fn)(void *), void *arg,
                            struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&p->lock);
    if (p->closing) {
        e = err_set(ctx, ERR_UNAVAILABLE, "the %s workers are shutting down", p->name);
    } else if (p->count == p->queue_max) {
        e = err_set(ctx, ERR_BUSY, "the %s queue is full (%zu jobs wait); try again in a moment",
                    p->name, p->count);
    } else {
        p->jobs[(p->head + p->count) % p->queue_max] = (struct job){fn, arg, clock_mono_us()};
        p->count++;
    }
    pthread_mutex_unlock(&p->lock);
    if (e == ERR_OK) /* whoever wakes finds the lock free */
        pthread_cond_signal(&p->changed);
    return e;
}

void worker_pool_free(struct worker_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->nthreads; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p->jobs);
    free(p);
}

void worker_pool_measure(struct worker_pool *p, const struct metric_family *wait, unsigned series)
{
    ASSERT(series < wait->nseries);
    p->wait = wait;
    p->wait_series = series;
}

void worker_pool_lower(struct worker_pool *p, int nice)
{
    pthread_mutex_lock(&p->lock);
    p->nice = nice;
    pthread_mutex_unlock(&p->lock);
}

void worker_pool_stats(struct worker_pool *p, size_t *queued, unsigned *running)
{
    pthread_mutex_lock(&p->lock);
    *queued = p->count;
    *running = p->running;
    pthread_mutex_unlock(&p->lock);
}
