/* Errors as HTTP: the one table that maps enum err to statuses, and the body that says it
 * (RFC 9457, application/problem+json). */
#ifndef LOADSTONE_API_PROBLEM_H
#define LOADSTONE_API_PROBLEM_H

#include "base/bytes.h"

unsigned problem_status(enum err code);
/* {"type":"about:blank","title":..,"status":..,"detail":..,"row":..,"field":..} */
void problem_write(const struct err_ctx *err, struct buf *out);

/* Adds where an error happened, unless that is known: the row, and the field, which the sentence is
 * made to name. Row -1 and field NULL add nothing. */
void problem_place(struct err_ctx *ctx, int64_t row, const char *field, size_t field_len);

#endif
