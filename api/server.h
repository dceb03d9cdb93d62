/* The HTTP server: socket, library, workers, orderly stop. */
#ifndef LOADSTONE_API_SERVER_H
#define LOADSTONE_API_SERVER_H

#include <stdatomic.h>

#include "api/limits.h"

struct access;
struct catalog;
struct indexer;
struct server;

struct server_options {
    const char *listen; /* "127.0.0.1:7700", "[::1]:0"; port 0 = any free one */
    bool allow_remote;  /* listening beyond this machine was asked for */
    unsigned threads;   /* HTTP threads; 0 = one a core */
    struct limits limits;
    const struct access *access; /* borrowed like the next two */
    struct catalog *catalog;     /* both borrowed, must outlive the server */
    struct indexer *indexer;
    const char *io_backend;     /* its name, for /metrics */
    const atomic_bool *hurried; /* once true, server_stop waits for no request; NULL = never */
};

/* ERR_INVALID for an address that is none or is not local; ERR_CONFLICT when the port is in use. */
WARN_UNUSED enum err server_start(const struct server_options *o, struct server **out,
                                  struct err_ctx *ctx);
unsigned server_port(const struct server *s);
const char *server_address(const struct server *s); /* "127.0.0.1:7700", as it came out */

/* Stops accepting, lets running requests end (uploads for shutdown_timeout_s), frees. NULL is
 * allowed. */
void server_stop(struct server *s);

#endif
