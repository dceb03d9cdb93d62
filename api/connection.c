/* Watching over request heads.
 *
 *   connect --header_timeout--> head complete --(no deadline)--> answered
 *                                                  --idle + header_timeout--> next head ...
 *
 * Invariant: an entry is in the list from the library's "started" to its "closed" notice, which
 * comes before the socket is closed; so that under the lock every descriptor in the list is this
 * connection's.
 *
 * Threads: HTTP threads write deadlines without the lock; the watching thread reads them.
 *
 * Failure: a connection that finds no memory for its entry is not watched; the library's own
 * timeout stays. */
#include "api/connection.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"

struct entry {
    struct entry *prev, *next;
    int fd;
    atomic_uint_fast64_t deadline_us; /* 0 = none */
};

struct connection_watch {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool stopping;
    uint64_t header_us, idle_us;
    struct entry *first;
};

/* Both directions end, the library notices and closes. */
static void shut_overdue(struct connection_watch *w)
{
    uint64_t now = clock_mono_us();
    for (struct entry *e = w->first; e; e = e->next) {
        uint64_t deadline = atomic_load_explicit(&e->deadline_us, memory_order_relaxed);
        if (deadline && deadline < now)
            shutdown(e->fd, SHUT_RDWR);
    }
}

static void *watch(void *arg)
{
    struct connection_watch *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&w->wake, &w->lock, &until);
        shut_overdue(w);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void init_wake(struct connection_watch *w)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_condattr_destroy(&attr);
}

enum err connection_watch_new(uint64_t header_timeout_s, uint64_t idle_timeout_s,
                              struct connection_watch **out, struct err_ctx *ctx)
{
    struct connection_watch *w = calloc(1, sizeof *w);
    if (!w)
        return err_no_memory(ctx, sizeof *w);
    w->header_us = header_timeout_s * 1000000;
    w->idle_us = idle_timeout_s * 1000000;
    pthread_mutex_init(&w->lock, NULL);
    init_wake(w);
    int failed = pthread_create(&w->thread, NULL, watch, w);
    if (failed) {
        free(w);
        return err_system(ctx, failed, "starting the connection watch");
    }
    *out = w;
    return ERR_OK;
}

void connection_watch_free(struct connection_watch *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    ASSERT(!w->first);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static void *started(struct connection_watch *w, struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct entry *e = calloc(1, sizeof *e);
    if (!e || !info) {
        free(e);
        return NULL;
    }
    e->fd = info->connect_fd;
    atomic_init(&e->deadline_us, clock_mono_us() + w->header_us);
    pthread_mutex_lock(&w->lock);
    e->next = w->first;
    if (e->next)
        e->next->prev = e;
    w->first = e;
    pthread_mutex_unlock(&w->lock);
    return e;
}

static void closed(struct connection_watch *w, struct entry *e)
{
    pthread_mutex_lock(&w->lock);
    if (e->next)
        e->next->prev = e->prev;
    if (e->prev)
        e->prev->next = e->next;
    else
        w->first = e->next;
    pthread_mutex_unlock(&w->lock);
    free(e);
}

void connection_notify(void *w, struct MHD_Connection *conn, void **socket_context,
                       enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = started(w, conn);
    } else if (*socket_context) {
        closed(w, *socket_context);
        *socket_context = NULL;
    }
}

static struct entry *entry_of(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static void set_deadline(struct MHD_Connection *conn, uint64_t deadline_us)
{
    struct entry *e = entry_of(conn);
    if (e)
        atomic_store_explicit(&e->deadline_us, deadline_us, memory_order_relaxed);
}

void connection_head_done(struct MHD_Connection *conn)
{
    set_deadline(conn, 0);
}

void connection_request_done(struct connection_watch *w, struct MHD_Connection *conn,
                             uint64_t now_us)
{
    set_deadline(conn, now_us + w->idle_us + w->header_us);
}
