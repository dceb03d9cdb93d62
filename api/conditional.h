/* Conditional requests and ranges (RFC 9110, sections 13 and 14). */
#ifndef LOADSTONE_API_CONDITIONAL_H
#define LOADSTONE_API_CONDITIONAL_H

#include "api/request.h"

enum { ETAG_CAP = 40 };

/* The request's If-Match and If-None-Match against a strong ETag, quotes included. ERR_PRECONDITION
 * when it must not be answered; *unchanged when the answer is 304. */
WARN_UNUSED enum err conditional_check(const struct request *r, const char *etag, bool *unchanged,
                                       struct err_ctx *ctx);

/* The part of `length` bytes to answer with: [*from, *to), all of them when the request asks for no
 * part, for several, in another unit, or for a part of something else (If-Range). Sets status and
 * headers; ERR_RANGE when what is asked for lies outside. */
WARN_UNUSED enum err conditional_part(struct request *r, const char *etag, uint64_t length,
                                      uint64_t *from, uint64_t *to, struct err_ctx *ctx);

#endif
