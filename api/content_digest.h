/* Content-Digest (RFC 9530): what a client says a body's SHA-256 or SHA-512 is, held against the
 * bytes that came. One thread at a time. */
#ifndef LOADSTONE_API_CONTENT_DIGEST_H
#define LOADSTONE_API_CONTENT_DIGEST_H

#include "base/bytes.h"

struct content_digest;

/* From the header's value; *out is NULL when `header` is. ERR_INVALID when it does not parse or
 * holds neither sha-256 nor sha-512; other algorithms beside them are passed over. */
WARN_UNUSED enum err content_digest_new(const char *header, struct content_digest **out,
                                        struct err_ctx *ctx);
void content_digest_put(struct content_digest *d, const void *data, size_t n); /* NULL: nothing */
/* ERR_UNPROCESSABLE when the bytes are others; NULL is always right. */
WARN_UNUSED enum err content_digest_check(struct content_digest *d, struct err_ctx *ctx);
void content_digest_free(struct content_digest *d); /* NULL is allowed */

#endif
