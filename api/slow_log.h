/* Requests that took longer than slow_request_ms are logged with their plan: how the search, fetch
 * or load was done. */
#ifndef LOADSTONE_API_SLOW_LOG_H
#define LOADSTONE_API_SLOW_LOG_H

#include "api/request.h"

/* Time of the request without what its client took to send the body. */
uint64_t slow_log_took_us(const struct request *r, uint64_t now_us);
/* Whether it is worth to work out a plan: nothing is spent on requests that are fast. */
bool slow_log_wants(const struct request *r);
/* One more number of the plan; `name` is a constant. What does not fit is left out. */
void slow_log_note(struct request *r, const char *name, uint64_t number);
/* Called once, when the answer goes out. */
void slow_log_end(const struct request *r, uint64_t now_us);

#endif
