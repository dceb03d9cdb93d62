/* Open connections and the time they have to send a request head: the library's own timeout starts
 * again with every byte, so that a client that sends one byte now and then would stay for good. */
#ifndef LOADSTONE_API_CONNECTION_H
#define LOADSTONE_API_CONNECTION_H

#include <microhttpd.h>

#include "base/err.h"

struct connection_watch;

/* Starts a thread that shuts down connections whose head is overdue. */
WARN_UNUSED enum err connection_watch_new(uint64_t header_timeout_s, uint64_t idle_timeout_s,
                                          struct connection_watch **out, struct err_ctx *ctx);
void connection_watch_free(struct connection_watch *w); /* NULL is allowed */

/* For MHD_OPTION_NOTIFY_CONNECTION; `w` is the watch. */
void connection_notify(void *w, struct MHD_Connection *conn, void **socket_context,
                       enum MHD_ConnectionNotificationCode code);
/* The head of a request is complete: no deadline until its end. */
void connection_head_done(struct MHD_Connection *conn);
/* A request has ended: the next head may take its time. */
void connection_request_done(struct connection_watch *w, struct MHD_Connection *conn,
                             uint64_t now_us);

#endif
