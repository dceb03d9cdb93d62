/* Conditional requests and ranges (RFC 9110, sections 13 and 14). */
#ifndef LOADSTONE_API_CONDITIONAL_H
#define LOADSTONE_API_CONDITIONAL_H

#include "api/request.h"

enum { ETAG_CAP = 40 };

/* The request's If-Match and If-None-Match against a strong ETag, quotes included. ERR_PRECONDITION
 * when it must not be answered; *unchanged when the answer is 304. */
WARN_UNUSED enum err conditional_check(const struct request *r, const char *etag, bool *unchanged,
                                       struct err_ctx *ctx);

enum range_kind { RANGE_ALL, RANGE_PART, RANGE_OUTSIDE };

/* The part of `length` bytes that the request asks for: [*from, *to). RANGE_ALL when it asks for
 * none, for several, in another unit, or for a part of something else (If-Range). */
enum range_kind conditional_range(const struct request *r, const char *etag, uint64_t length,
                                  uint64_t *from, uint64_t *to);

#endif
