/* From a decoded path and a method to a route. */
#ifndef LOADSTONE_API_ROUTER_H
#define LOADSTONE_API_ROUTER_H

#include "api/request.h"

/* ERR_NOT_FOUND when no route has the path; ERR_METHOD when one has, and `allow` lists the methods
 * that it takes. HEAD is GET. */
WARN_UNUSED enum err router_find(const struct route *table, const struct target *t,
                                 const char *method, const struct route **out, char *allow,
                                 size_t allow_cap, struct err_ctx *ctx);

/* ERR_INVALID names the first query parameter that the route does not take. */
WARN_UNUSED enum err router_check_params(const struct route *route, const struct target *t,
                                         struct err_ctx *ctx);

/* All routes; the end is a NULL method. */
extern const struct route api_routes[];

#endif
