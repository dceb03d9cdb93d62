/* What every request shares: the store, the indexer, the workers, the limits, and the counters that
 * bound memory and let the server stop in order. */
#ifndef LOADSTONE_API_SERVICE_H
#define LOADSTONE_API_SERVICE_H

#include <microhttpd.h>
#include <stdatomic.h>

#include "api/limits.h"
#include "base/worker.h"
#include "index/index.h"
#include "store/catalog.h"

struct access;
struct waits;

struct service {
    struct limits limits;
    const struct access *access;
    struct catalog *catalog;
    struct indexer *indexer;
    struct worker_pool *writers;    /* uploads, commits, create and drop: many, they mostly wait */
    struct worker_pool *committers; /* commits that may take long: they mostly wait */
    struct waits *waits;            /* for those */
    struct worker_pool *readers;    /* long searches and fetches: about one a core */
    struct worker_pool *exporters;  /* fill streams, below everything else; a place for each */
    atomic_uint_fast64_t exports;   /* streams being sent */
    atomic_uint_fast64_t buffer_bytes; /* request bodies held in memory */
    atomic_uint running;               /* requests between head and completion */
    atomic_uint suspended;             /* connections that wait for a worker */
    atomic_bool draining;              /* finish what runs; keep no connection alive */
    struct MHD_Daemon *_Atomic daemon; /* NULL until it runs */
    const char *io_backend;            /* how files are written, for /metrics */
    int64_t started_wall_us;
    atomic_bool closed;           /* take nothing more */
    atomic_uint_fast64_t read_us; /* when the last search or fetch came */
};

/* Counts `n` more bytes of a body that holds `held` against buffer_bytes_max, of which a body over
 * 1 MiB may use three quarters; ERR_BUSY when they don't fit. */
WARN_UNUSED enum err service_reserve(struct service *s, uint64_t held, uint64_t n,
                                     struct err_ctx *ctx);
/* The share of buffer_bytes_max that bodies over 1 MiB may use. */
uint64_t service_large_bodies_max(const struct limits *l);
void service_unreserve(struct service *s, uint64_t n);

/* Suspends a connection from its HTTP thread until service_resume, which any thread may call; false
 * when the server is closed: a connection suspended then would never be looked at again. */
WARN_UNUSED bool service_suspend(struct service *s, struct MHD_Connection *conn);
void service_resume(struct service *s, struct MHD_Connection *conn);

#endif
