/* What the routes that take rows and commit share: a body of rows in any format, and the answers to
 * commits and about loads. */
#ifndef LOADSTONE_API_ROW_INTAKE_H
#define LOADSTONE_API_ROW_INTAKE_H

#include "api/intake.h"
#include "api/problem.h"
#include "api/request.h"

/* Checks what can be known from the head against the schema (an octet-stream's length, first_key)
 * and makes r->upload. `o` has the load's options, or the load and the part's name. Inside an epoch
 * section. */
WARN_UNUSED enum err row_intake_begin(struct request *r, struct collection *c,
                                      struct intake_options *o, struct err_ctx *ctx);

/* ---- load_answer.c ---- */

/* wait_s of the query; 30 when it is not given. */
WARN_UNUSED enum err wait_s_read(struct request *r, uint64_t *out, struct err_ctx *ctx);
bool collection_has_event_time(struct collection *c);
/* A load whose commit the request asked for or attached to: first makes the request wait until
 * `wait_s` from now, then writes the result, or 202 with Location. The error is the commit's. */
WARN_UNUSED enum err load_answer(struct request *r, struct session *s, uint64_t wait_s,
                                 struct err_ctx *ctx);
/* The load as GET gives it, its parts by after= and limit=. `s` is NULL for one that ended before
 * this process began. */
WARN_UNUSED enum err load_write(struct request *r, struct collection *c, struct session *s,
                                const struct session_info *info, struct err_ctx *ctx);
/* The fields of it that a list has; the object stays open. */
void load_put_head(struct buf *out, const struct session_info *info);
void part_write(struct buf *out, const struct session_part *p);

#endif
