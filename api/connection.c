/* Watching over connections.
 *
 *   connect --header_timeout--> head complete --(no deadline)--> answer begins
 *           --time to read it--> read --idle + header_timeout--> next head ...
 *
 * Invariant: an entry is in the list from the library's "started" to its "closed" notice, which
 * comes before the socket is closed; so that under the lock every descriptor in the list is this
 * connection's.
 *
 * A client that is gone is one whose stream has ended while it is its turn to send, twice in a row:
 * once may be a moment that its HTTP thread is about to see itself. One that waits for an answer
 * may have ended its stream and is left alone.
 *
 * Threads: HTTP threads write deadlines and turns without the lock; the watching thread reads them.
 *
 * Failure: a connection that finds no memory for its entry is not watched; the library's own
 * timeout stays. */
#include "api/connection.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/clock.h"

enum { LOOK_EVERY_MS = 500 };

struct connection {
    struct connection *prev, *next;
    int fd;
    bool seen_gone; /* at the last look */
    atomic_bool clients_turn;
    atomic_uint_fast64_t deadline_us; /* 0 = none */
};

struct connection_watch {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    bool stopping;
    uint64_t header_us, idle_us;
    struct connection *first;
};

static bool is_overdue(const struct connection *c, uint64_t now_us)
{
    uint64_t deadline = atomic_load_explicit(&c->deadline_us, memory_order_relaxed);
    return deadline && deadline < now_us;
}

static bool is_gone(struct connection *c)
{
    char next;
    bool before = c->seen_gone;
    c->seen_gone = atomic_load_explicit(&c->clients_turn, memory_order_relaxed) &&
                   recv(c->fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    return before && c->seen_gone;
}

/* With both directions ended the library notices and closes. */
static void shut_idlers(struct connection_watch *w)
{
    uint64_t now = clock_mono_us();
    for (struct connection *c = w->first; c; c = c->next)
        if (is_overdue(c, now) || is_gone(c))
            shutdown(c->fd, SHUT_RDWR);
}

static void *watch(void *arg)
{
    struct connection_watch *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        struct timespec until = clock_after_ms(LOOK_EVERY_MS);
        pthread_cond_timedwait(&w->wake, &w->lock, &until);
        shut_idlers(w);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
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
    clock_cond_init(&w->wake);
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
    struct connection *e = calloc(1, sizeof *e);
    if (!e || !info) {
        free(e);
        return NULL;
    }
    e->fd = info->connect_fd;
    atomic_init(&e->clients_turn, true);
    atomic_init(&e->deadline_us, clock_mono_us() + w->header_us);
    pthread_mutex_lock(&w->lock);
    e->next = w->first;
    if (e->next)
        e->next->prev = e;
    w->first = e;
    pthread_mutex_unlock(&w->lock);
    return e;
}

static void closed(struct connection_watch *w, struct connection *e)
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

struct connection *connection_of(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

void connection_set_turn(struct connection *c, bool clients)
{
    if (c)
        atomic_store_explicit(&c->clients_turn, clients, memory_order_relaxed);
}

void connection_head_done(struct connection *c)
{
    if (c)
        atomic_store_explicit(&c->deadline_us, 0, memory_order_relaxed);
}

void connection_answering(struct connection *c, uint64_t deadline_us)
{
    if (c)
        atomic_store_explicit(&c->deadline_us, deadline_us, memory_order_relaxed);
}

void connection_request_done(struct connection_watch *w, struct connection *c, uint64_t now_us)
{
    if (!c)
        return;
    atomic_store_explicit(&c->deadline_us, now_us + w->idle_us + w->header_us,
                          memory_order_relaxed);
    connection_set_turn(c, true);
}
