/* What is counted of every request: how many by route and class of status, how long, bytes in and
 * out. */
#ifndef LOADSTONE_API_HTTP_METRICS_H
#define LOADSTONE_API_HTTP_METRICS_H

#include "api/request.h"

/* A request has ended; `answered` when its answer was handed over whole. Any thread. */
void http_metrics_count(const struct request *r, bool answered, uint64_t now_us);

#endif
