/* The HTTP server.
 *
 *   HTTP threads (the library's, epoll)   heads, bodies, short searches and fetches
 *   writers                               uploads, commits, create and drop: mostly wait for the
 * disk readers                               long searches and fetches watch overdue heads and
 * answers
 *
 * A connection's memory pool is 64 KiB, and bounds the head of a request; an upload comes in pieces
 * of half of it. The library clears it, and half of it once more, in each request. Measured at 16,
 * 32 and 64 KiB: a bulk load reaches 64-79, 64-82 and 94-101 % of the disk's rate; the clearing is
 * 0.3, 0.6 and 1.2 us of a fetch's 10 us.
 *
 * Stopping: close the listening socket; let requests end and keep no connection alive; after
 * shutdown_timeout_s, or when asked to hurry, fail the uploads that still wait for bytes and the
 * scans that still run; take nothing more; wait until no connection is suspended, which the library
 * demands; stop it; join the workers.
 *
 * Failure: a start that fails undoes what it did. */
#include "api/server.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/access.h"
#include "api/commit_job.h"
#include "api/dispatch.h"
#include "api/listener.h"
#include "api/upload.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

enum {
    CONNECTION_POOL_BYTES = 64 * 1024,
    WRITERS = 32,
    COMMITTERS = 64,
    WRITERS_NICE = 10, /* searches go first when a load wants all cores */
    STOP_POLL_US = 2000,
};

static void pool_labels(unsigned series, struct buf *out)
{
    metrics_put_label(out, "pool", series ? "reader" : "writer");
}

METRIC_HISTOGRAMS(queue_wait, "loadstone_worker_queue_wait_seconds",
                  "Time that jobs waited for a worker.", 2, pool_labels)

struct server {
    struct service service;
    struct dispatcher dispatcher;
    struct listener listener;
    struct MHD_Daemon *daemon;
    const atomic_bool *hurried;
};

static void log_library(void *arg, const char *fmt, va_list args)
{
    char text[512];
    (void)arg;
    int n = vsnprintf(text, sizeof text, fmt, args);
    while (n > 0 && (n >= (int)sizeof text || text[n - 1] == '\n'))
        n = n >= (int)sizeof text ? (int)sizeof text - 1 : n - 1;
    if (n > 0)
        log_debug("http: %.*s", n, text);
}

/* Addresses are split before they are decoded (target.c), from the text that dispatch_uri is given;
 * what the library would decode is not looked at. */
static size_t keep_escapes(void *arg, struct MHD_Connection *conn, char *text)
{
    (void)arg, (void)conn;
    return strlen(text);
}

static unsigned core_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned)n;
}

static enum err start_daemon(struct server *s, unsigned threads, struct err_ctx *ctx)
{
    const struct limits *l = &s->service.limits;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                     MHD_USE_TURBO;
    struct MHD_OptionItem pool[] = {
        {threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, threads, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, dispatch_request, &s->dispatcher, MHD_OPTION_EXTERNAL_LOGGER,
        log_library, NULL, MHD_OPTION_LISTEN_SOCKET, s->listener.fd, MHD_OPTION_URI_LOG_CALLBACK,
        dispatch_uri, &s->dispatcher, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_NOTIFY_COMPLETED, dispatch_completed, &s->dispatcher,
        MHD_OPTION_NOTIFY_CONNECTION, connection_notify, s->dispatcher.watch,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_POOL_BYTES,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)l->connections_max,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)l->connections_per_ip_max,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)l->idle_timeout_s, MHD_OPTION_ARRAY, pool,
        MHD_OPTION_END);
    if (!s->daemon)
        return err_set(ctx, ERR_INTERNAL,
                       "the HTTP library did not start: look for limits on threads and open files");
    atomic_store(&s->service.daemon, s->daemon);
    return ERR_OK;
}

static enum err start_workers(struct server *s, struct err_ctx *ctx)
{
    struct service *v = &s->service;
    const struct limits *l = &v->limits;
    RETURN_NOT_OK(worker_pool_new("writer", WRITERS, l->queue_max, &v->writers, ctx));
    worker_pool_lower(v->writers, WRITERS_NICE);
    RETURN_NOT_OK(worker_pool_new("reader", core_count(), l->queue_max, &v->readers, ctx));
    RETURN_NOT_OK(
        worker_pool_new("exporter", core_count(), 2 * l->exports_max, &v->exporters, ctx));
    worker_pool_lower(v->exporters, WRITERS_NICE);
    RETURN_NOT_OK(worker_pool_new("committer", COMMITTERS, l->queue_max, &v->committers, ctx));
    worker_pool_lower(v->committers, WRITERS_NICE);
    RETURN_NOT_OK(waits_new(v, &v->waits, ctx));
    worker_pool_measure(v->writers, &queue_wait, 0);
    worker_pool_measure(v->readers, &queue_wait, 1);
    return connection_watch_new(l->header_timeout_s, l->idle_timeout_s, &s->dispatcher.watch, ctx);
}

static void server_free(struct server *s)
{
    worker_pool_free(s->service.writers);
    worker_pool_free(s->service.committers);
    worker_pool_free(s->service.readers);
    worker_pool_free(s->service.exporters);
    waits_free(s->service.waits);
    connection_watch_free(s->dispatcher.watch);
    if (s->listener.fd >= 0)
        close(s->listener.fd);
    free(s);
}

enum err server_start(const struct server_options *o, struct server **out, struct err_ctx *ctx)
{
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return err_no_memory(ctx, sizeof *s);
    s->listener.fd = -1;
    s->service.limits = o->limits;
    s->service.access = o->access;
    s->hurried = o->hurried;
    s->service.catalog = o->catalog;
    s->service.indexer = o->indexer;
    s->service.io_backend = o->io_backend;
    s->service.started_wall_us = clock_wall_us();
    s->dispatcher.service = &s->service;
    enum err e = listener_open(o->listen, o->allow_remote || access_has_tokens(o->access),
                               &s->listener, ctx);
    if (e == ERR_OK)
        e = start_workers(s, ctx);
    if (e == ERR_OK)
        e = start_daemon(s, o->threads ? o->threads : core_count(), ctx);
    if (e != ERR_OK) {
        server_free(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

unsigned server_port(const struct server *s)
{
    return s->listener.port;
}

const char *server_address(const struct server *s)
{
    return s->listener.address;
}

static bool drained(struct server *s)
{
    struct service *v = &s->service;
    uint64_t since = clock_mono_us(), timeout_us = v->limits.shutdown_timeout_s * 1000000;
    while (atomic_load(&v->running) > 0) {
        if (clock_mono_us() - since > timeout_us || (s->hurried && atomic_load(s->hurried)))
            return false;
        usleep(STOP_POLL_US);
    }
    return true;
}

void server_stop(struct server *s)
{
    if (!s)
        return;
    struct service *v = &s->service;
    atomic_store(&v->draining, true);
    MHD_quiesce_daemon(s->daemon);
    if (!drained(s))
        log_warn("stopping: cutting off %u requests that still run", atomic_load(&v->running));
    atomic_store(&v->closed, true);
    upload_cancel_all();
    commit_jobs_cancel(v);
    waits_close(v->waits);
    while (atomic_load(&v->suspended) > 0)
        usleep(STOP_POLL_US);
    MHD_stop_daemon(s->daemon);
    server_free(s);
}
