/* Open connections, watched from outside the library for two things that it does not see:
 *
 *   - a client that sends a byte now and then: its timeout starts again with every byte, so that a
 *     request head could take for ever;
 *   - a client that is gone: the library clears its "readable" mark after a short read, and an end
 *     of stream that came together with the data is not announced again. */
#ifndef LOADSTONE_API_CONNECTION_H
#define LOADSTONE_API_CONNECTION_H

#include <microhttpd.h>

#include "base/err.h"

struct connection_watch;
struct connection; /* of one client; NULL when there was no memory to watch it */

/* Starts a thread that shuts down connections whose head is overdue, whose answer is not read in
 * time, or whose client is gone. */
WARN_UNUSED enum err connection_watch_new(uint64_t header_timeout_s, uint64_t idle_timeout_s,
                                          struct connection_watch **out, struct err_ctx *ctx);
void connection_watch_free(struct connection_watch *w); /* NULL is allowed */

/* For MHD_OPTION_NOTIFY_CONNECTION; `w` is the watch. */
void connection_notify(void *w, struct MHD_Connection *conn, void **socket_context,
                       enum MHD_ConnectionNotificationCode code);

/* The rest is for the connection's HTTP thread, and takes NULL. */
struct connection *connection_of(struct MHD_Connection *conn);
/* The head of a request is complete: no deadline until its answer. */
void connection_head_done(struct connection *c);
/* Whether the next thing to happen is that the client sends something. */
void connection_set_turn(struct connection *c, bool clients);
/* The answer is on its way: the client has until then to read it. */
void connection_answering(struct connection *c, uint64_t deadline_us);
/* A request has ended: the next head may take its time. */
void connection_request_done(struct connection_watch *w, struct connection *c, uint64_t now_us);

#endif
