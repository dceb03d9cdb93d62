/* An answer that is made piece by piece, of any length, in bounded memory.
 *
 *   source.fill, on a worker -> [ piece | piece ] -> copied by the HTTP thread -> socket
 *
 * One piece is sent while the other is filled. The HTTP thread never waits and touches no mapping:
 * when no piece is ready it suspends the connection until the worker has one. The worker's job ends
 * when both are full, so that a slow client holds two buffers and no thread. */
#ifndef LOADSTONE_API_STREAM_H
#define LOADSTONE_API_STREAM_H

#include "api/service.h"
#include "base/bytes.h"

struct request;
struct stream;

enum { STREAM_PIECE_BYTES = 256 * 1024 };

struct stream_source {
    void *arg;
    /* Appends what comes next, about STREAM_PIECE_BYTES; *end when it was the last. It may append
     * nothing, to let others have the worker: it is called again. One thread at a time. */
    enum err (*fill)(void *arg, struct buf *out, bool *end, struct err_ctx *ctx);
    void (*free)(void *arg); /* on any thread */
};

/* `length` of the whole answer, -1 = unknown. ERR_BUSY over exports_max; on an error the source
 * stays the caller's. */
WARN_UNUSED enum err stream_new(struct service *s, const struct stream_source *source,
                                int64_t length, struct stream **out, struct err_ctx *ctx);
/* On a worker: makes the first piece, so that what fails at once is answered as an error. */
WARN_UNUSED enum err stream_start(struct stream *st, struct err_ctx *ctx);
/* For HTTP threads: the response that sends it to the request's client, over which the stream goes
 * from the caller to the library. Bytes sent are added to r->streamed. NULL when memory is out: the
 * stream stays the caller's. */
struct MHD_Response *stream_response(struct stream *st, struct request *r);
/* Gives up what was not handed to a response. NULL is allowed. */
void stream_close(struct stream *st);

#endif
