/* Long commits and who waits for them.
 *
 * Invariants, under the lock of the waits:
 *   - a waiter in the list has a suspended connection; whoever takes it out resumes it, once;
 *   - a load's state changes before its waiters are woken, and is looked at before one is added: no
 *     waiter is added that nobody would wake.
 *
 * Threads: jobs run on the committers' pool, so that neither uploads nor other requests wait behind
 * an index that is being built; one thread sleeps until the next deadline. Failure: what went wrong
 * is kept with the load. */
#include "api/commit_job.h"

#include <pthread.h>
#include <stdlib.h>

#include "api/load_call.h"
#include "base/clock.h"

struct waiter {
    struct waiter *next;
    struct session *s; /* referenced */
    struct MHD_Connection *conn;
    uint64_t deadline_us;
};

struct job {
    struct service *service;
    struct session *s; /* referenced */
    struct job *prev, *next;
    struct load_call *call; /* of a session */
    struct load *load;      /* of a one-shot */
    enum load_mode mode;
    struct idempotency idem;
};

struct waits {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    struct service *service;
    bool closed, stopping;
    struct waiter *first;
    struct job *jobs; /* those that are queued or run */
};

/* ---- waiting ---- */

/* With the lock: takes out the waiters that `over` names, as a list of their own. */
static struct waiter *take(struct waits *w, bool (*over)(const struct waiter *, const void *),
                           const void *arg)
{
    struct waiter *taken = NULL;
    for (struct waiter **at = &w->first; *at;) {
        struct waiter *x = *at;
        if (!over(x, arg)) {
            at = &x->next;
            continue;
        }
        *at = x->next;
        x->next = taken;
        taken = x;
    }
    return taken;
}

static void resume(struct waits *w, struct waiter *list)
{
    while (list) {
        struct waiter *x = list;
        list = x->next;
        session_release(x->s);
        service_resume(w->service, x->conn);
        free(x);
    }
}

static bool is_overdue(const struct waiter *x, const void *now_us)
{
    return x->deadline_us <= *(const uint64_t *)now_us;
}

static bool waits_for(const struct waiter *x, const void *session)
{
    return x->s == session;
}

static bool any(const struct waiter *x, const void *unused)
{
    (void)unused;
    return x != NULL;
}

/* Milliseconds until the next deadline; a minute when there is none. */
static uint64_t sleep_ms(const struct waits *w, uint64_t now_us)
{
    uint64_t ms = 60000;
    for (const struct waiter *x = w->first; x; x = x->next) {
        uint64_t left = x->deadline_us > now_us ? (x->deadline_us - now_us) / 1000 + 1 : 0;
        ms = left < ms ? left : ms;
    }
    return ms;
}

static void *watch_deadlines(void *arg)
{
    struct waits *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        uint64_t now = clock_mono_us();
        struct waiter *over = take(w, is_overdue, &now);
        if (over) {
            pthread_mutex_unlock(&w->lock);
            resume(w, over);
            pthread_mutex_lock(&w->lock);
            continue;
        }
        struct timespec until = clock_after_ms(sleep_ms(w, now));
        pthread_cond_timedwait(&w->wake, &w->lock, &until);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

enum err waits_new(struct service *s, struct waits **out, struct err_ctx *ctx)
{
    struct waits *w = calloc(1, sizeof *w);
    if (!w)
        return err_no_memory(ctx, sizeof *w);
    w->service = s;
    pthread_mutex_init(&w->lock, NULL);
    clock_cond_init(&w->wake);
    int failed = pthread_create(&w->thread, NULL, watch_deadlines, w);
    if (failed) {
        free(w);
        return err_system(ctx, failed, "starting the thread that wakes waiting requests");
    }
    *out = w;
    return ERR_OK;
}

void waits_close(struct waits *w)
{
    pthread_mutex_lock(&w->lock);
    w->closed = true;
    struct waiter *all = take(w, any, NULL);
    pthread_mutex_unlock(&w->lock);
    resume(w, all);
}

void waits_free(struct waits *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    ASSERT(!w->first && !w->jobs);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static bool is_committing(struct session *s)
{
    struct session_info info;
    session_describe(s, &info);
    return info.state == SESSION_COMMITTING;
}

bool waits_add(struct waits *w, struct session *s, struct MHD_Connection *conn,
               uint64_t deadline_us)
{
    struct waiter *x = calloc(1, sizeof *x);
    if (!x)
        return false;
    *x = (struct waiter){.s = session_acquire(s), .conn = conn, .deadline_us = deadline_us};
    pthread_mutex_lock(&w->lock);
    bool added = !w->closed && deadline_us > clock_mono_us() && is_committing(s);
    if (added) {
        x->next = w->first;
        w->first = x;
        pthread_cond_signal(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
    if (!added) {
        session_release(x->s);
        free(x);
    }
    return added;
}

static void wake(struct waits *w, struct session *s)
{
    pthread_mutex_lock(&w->lock);
    struct waiter *list = take(w, waits_for, s);
    pthread_mutex_unlock(&w->lock);
    resume(w, list);
}

/* ---- jobs ---- */

static void job_list(struct waits *w, struct job *j)
{
    pthread_mutex_lock(&w->lock);
    j->next = w->jobs;
    if (j->next)
        j->next->prev = j;
    w->jobs = j;
    pthread_mutex_unlock(&w->lock);
}

static void job_unlist(struct waits *w, struct job *j)
{
    pthread_mutex_lock(&w->lock);
    if (j->next)
        j->next->prev = j->prev;
    *(j->prev ? &j->prev->next : &w->jobs) = j->next;
    pthread_mutex_unlock(&w->lock);
}

static void run_rows(struct job *j)
{
    struct commit_result result;
    struct err_ctx err;
    err_clear(&err);
    load_set_receipt(j->load, idempotency_receipt(&j->idem));
    enum err e = load_commit(j->load, &result, &err);
    err.code = e;
    load_free(j->load);
    idempotency_end(&j->idem, e, j->mode, &result);
    session_finish(j->s, e, &result, &err);
}

static void run_session(struct job *j)
{
    struct commit_result result;
    struct err_ctx err;
    err_clear(&err);
    (void)!session_commit_run(j->s, &j->call->options, &result, &err);
    load_call_free(j->call);
}

static void run_job(void *arg)
{
    struct job *j = arg;
    struct waits *w = j->service->waits;
    if (j->call)
        run_session(j);
    else
        run_rows(j);
    wake(w, j->s);
    job_unlist(w, j);
    session_release(j->s);
    free(j);
}

static struct job *job_new(struct service *s, struct session *of)
{
    struct job *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    j->service = s;
    j->s = session_acquire(of);
    return j;
}

static enum err submit(struct job *j, struct err_ctx *ctx)
{
    struct waits *w = j->service->waits;
    job_list(w, j);
    enum err e = worker_pool_submit(j->service->committers, run_job, j, ctx);
    if (e != ERR_OK) {
        job_unlist(w, j);
        session_release(j->s);
        free(j);
    }
    return e;
}

enum err commit_job_rows(struct service *s, struct collection *c, struct load *l,
                         enum load_mode mode, struct idempotency *i, struct session **out,
                         struct err_ctx *ctx)
{
    struct session *of;
    RETURN_NOT_OK(session_open_one_shot(c, mode, &of, ctx));
    struct job *j = job_new(s, of);
    if (!j) {
        enum err e = err_no_memory(ctx, sizeof *j);
        session_finish(of, e, NULL, ctx);
        session_release(of);
        return e;
    }
    idempotency_set_load(i, c, session_id(of));
    load_set_watch(l, session_watch(of));
    j->load = l;
    j->mode = mode;
    j->idem = *i;
    enum err e = submit(j, ctx);
    if (e != ERR_OK) {
        session_finish(of, e, NULL, ctx);
        session_release(of);
        return e;
    }
    *i = (struct idempotency){0};
    *out = of;
    return ERR_OK;
}

enum err commit_job_session(struct service *s, struct session *load, struct load_call *call,
                            struct err_ctx *ctx)
{
    struct job *j = job_new(s, load);
    enum err e = j ? ERR_OK : err_no_memory(ctx, sizeof *j);
    if (j) {
        j->call = call;
        e = submit(j, ctx);
    }
    if (e != ERR_OK) {
        struct err_ctx why = *ctx;
        why.code = e;
        session_commit_give_up(load, &why);
        load_call_free(call);
    }
    return e;
}

void commit_jobs_cancel(struct service *s)
{
    struct waits *w = s->waits;
    pthread_mutex_lock(&w->lock);
    for (struct job *j = w->jobs; j; j = j->next)
        atomic_store(&session_watch(j->s)->build->cancel, true);
    pthread_mutex_unlock(&w->lock);
}
