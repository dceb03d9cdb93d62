/* The library's callbacks: a request from its head to its completion. */
#ifndef LOADSTONE_API_DISPATCH_H
#define LOADSTONE_API_DISPATCH_H

#include <microhttpd.h>

#include "api/connection.h"
#include "api/service.h"

struct dispatcher {
    struct service *service;
    struct connection_watch *watch;
};

/* `arg` of all three is the dispatcher. */
void *dispatch_uri(void *arg, const char *uri, struct MHD_Connection *conn);
enum MHD_Result dispatch_request(void *arg, struct MHD_Connection *conn, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **state);
void dispatch_completed(void *arg, struct MHD_Connection *conn, void **state,
                        enum MHD_RequestTerminationCode why);

#endif
