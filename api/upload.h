/* An upload: a request body on its way from the HTTP thread to what takes it in (intake.h).
 *
 *   HTTP thread --copies--> [ chunk | chunk | chunk | chunk ] --decodes--> writer's job -> intake
 *                tail: being filled                   head: being decoded
 *
 * The HTTP thread never decodes and never waits: when the ring is full it suspends the connection
 * until the job has emptied a part of it. The job runs only while there is something to decode, so
 * a slow client holds no thread. At the end of the body the job commits, or hands a long commit
 * over, and resumes the connection. */
#ifndef LOADSTONE_API_UPLOAD_H
#define LOADSTONE_API_UPLOAD_H

#include <microhttpd.h>

#include "api/intake.h"

struct upload;

/* ERR_BUSY when too much is buffered already. `row_bytes`: octet-stream, chunks hold whole rows; 0
 * otherwise. The rest as intake_new. */
WARN_UNUSED enum err upload_new(struct service *s, struct collection *c,
                                const struct intake_options *o, size_t row_bytes,
                                struct upload **out, struct err_ctx *ctx);

/* HTTP thread: takes a piece of the body. Returns how many bytes were taken; less than `n` means
 * that the connection was suspended and the rest has to be offered again. */
size_t upload_push(struct upload *u, struct MHD_Connection *conn, const void *data, size_t n);
/* HTTP thread: the body is complete. Suspends the connection until it is taken in or that has
 * failed; call upload_result when it comes back. False when the server is closed. */
WARN_UNUSED bool upload_end(struct upload *u, struct MHD_Connection *conn);
/* True once that has failed: the rest of the body is of no use. */
bool upload_failed(struct upload *u);
/* After the end, or a failure. */
WARN_UNUSED enum err upload_result(struct upload *u, struct intake_outcome *out,
                                   struct err_ctx *ctx);
/* HTTP thread: gives the upload back. What was not committed never will be. */
void upload_close(struct upload *u);

/* Fails every upload that still takes bytes, so that the server can stop. */
void upload_cancel_all(void);

#endif
