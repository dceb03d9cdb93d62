/* The listening socket: parse, resolve, check, bind.
 *
 * A server without a token must not be reachable from other machines by accident: an address that
 * is not loopback needs allow_remote.
 *
 * Threads: called once at start. Failure: one sentence that says which flag to change. */
#include "api/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 1024, HOST_MAX = 256, PORT_MAX = 65535 };

static enum err split(const char *address, char host[HOST_MAX], const char **port,
                      struct err_ctx *ctx)
{
    const char *colon = strrchr(address, ':');
    size_t n = colon ? (size_t)(colon - address) : 0;
    const char *from = address;
    if (n >= 2 && address[0] == '[' && address[n - 1] == ']') {
        from++;
        n -= 2;
    }
    if (!colon || n == 0 || n >= HOST_MAX || !colon[1])
        return err_set(ctx, ERR_INVALID, "--listen %s: write HOST:PORT, for example 127.0.0.1:7700",
                       address);
    memcpy(host, from, n);
    host[n] = 0;
    *port = colon + 1;
    if (strspn(*port, "0123456789") != strlen(*port) || strlen(*port) > 5 || atoi(*port) > PORT_MAX)
        return err_set(ctx, ERR_INVALID, "--listen %s: the port must be 0 to %d", address,
                       PORT_MAX);
    return ERR_OK;
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static enum err bind_failed(int errnum, const char *address, struct err_ctx *ctx)
{
    if (errnum == EADDRINUSE)
        return err_set(ctx, ERR_CONFLICT,
                       "%s is in use by another program: stop it, or choose another port with "
                       "--listen",
                       address);
    return err_system(ctx, errnum, "listening on %s", address);
}

static enum err open_socket(const struct addrinfo *a, const char *address, struct listener *out,
                            struct err_ctx *ctx)
{
    int on = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_system(ctx, errno, "opening a socket for %s", address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        enum err e = bind_failed(errno, address, ctx);
        close(fd);
        return e;
    }
    out->fd = fd;
    return ERR_OK;
}

static enum err describe(struct listener *l, struct err_ctx *ctx)
{
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof bound;
    char host[48], port[8];
    if (getsockname(l->fd, (struct sockaddr *)&bound, &len) != 0 ||
        getnameinfo((struct sockaddr *)&bound, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        enum err e = err_system(ctx, errno, "reading the socket's address");
        close(l->fd);
        l->fd = -1;
        return e;
    }
    l->port = (unsigned)atoi(port);
    snprintf(l->address, sizeof l->address, bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
             port);
    return ERR_OK;
}

enum err listener_open(const char *address, bool allow_remote, struct listener *out,
                       struct err_ctx *ctx)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char host[HOST_MAX];
    const char *port = NULL;
    RETURN_NOT_OK(split(address, host, &port, ctx));
    int failed = getaddrinfo(host, port, &hints, &found);
    if (failed)
        return err_set(ctx, ERR_INVALID, "--listen %s: %s", address, gai_strerror(failed));
    enum err e;
    if (!allow_remote && !is_loopback(found->ai_addr))
        e = err_set(ctx, ERR_INVALID,
                    "--listen %s is reachable from other machines and no token is asked for: set "
                    "write_token_file, listen on 127.0.0.1, or add --allow-remote if that is "
                    "wanted",
                    address);
    else
        e = open_socket(found, address, out, ctx);
    freeaddrinfo(found);
    return e == ERR_OK ? describe(out, ctx) : e;
}
