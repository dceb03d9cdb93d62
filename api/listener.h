/* The listening socket. */
#ifndef LOADSTONE_API_LISTENER_H
#define LOADSTONE_API_LISTENER_H

#include "base/err.h"

struct listener {
    int fd;
    unsigned port;
    char address[64]; /* numeric, with the port */
};

/* `address` is HOST:PORT or [HOST]:PORT; port 0 takes a free one. Without `allow_remote` only
 * loopback addresses are taken. ERR_CONFLICT when the port is in use. */
WARN_UNUSED enum err listener_open(const char *address, bool allow_remote, struct listener *out,
                                   struct err_ctx *ctx);

#endif
