/* Features of many keys as bare columns, for clients that would rather not parse JSON. */
#ifndef LOADSTONE_API_FETCH_OCTETS_H
#define LOADSTONE_API_FETCH_OCTETS_H

#include "api/request.h"

/* ERR_NOT_ACCEPTABLE when one of r->columns has no fixed width: asked before the keys are sought.
 */
WARN_UNUSED enum err fetch_octets_check(const struct request *r, const struct schema *s,
                                        struct err_ctx *ctx);
/* Writes the answer for the keys found (api/fetch_keys.h) and r->columns. */
WARN_UNUSED enum err fetch_octets_put(struct request *r, const struct snapshot *s,
                                      bool with_vectors, struct err_ctx *ctx);

#endif
