/* Which version a request reads: `version`, `tag` or `as_of`, in the query string or in the JSON
 * body; the newest when it names none. What is found goes into r->selector, which
 * request_open_snapshot follows. */
#ifndef LOADSTONE_API_SELECTOR_H
#define LOADSTONE_API_SELECTOR_H

#include "api/request.h"

/* The query string's. ERR_INVALID for two at once, and for what does not parse. */
WARN_UNUSED enum err selector_of_query(struct request *r, struct err_ctx *ctx);

/* Whether a field of a JSON body is one of the three; then the value that r->json stands before is
 * read. A body is parsed with the newest snapshot at hand, since most bodies name no version. */
bool selector_is_field(struct json_slice name);
WARN_UNUSED enum err selector_read_field(struct request *r, struct json_slice name,
                                         struct err_ctx *ctx);

/* After a body was read with the newest snapshot *s, and that ended with `e`: when the body names a
 * version, *s becomes that one; *again tells to read the body once more, unless it reads `alike` in
 * every version. Otherwise `e` comes back. The caller closes *s in any case; it may be NULL. */
WARN_UNUSED enum err selector_reopen(struct request *r, enum err e, bool alike, struct snapshot **s,
                                     bool *again, struct err_ctx *ctx);

#endif
