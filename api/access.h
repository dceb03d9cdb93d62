/* Who may do what: bearer tokens of two scopes. Write includes read. Without any token everything
 * is open to whoever reaches the address.
 *
 * A token is 16 to 256 characters of A-Z a-z 0-9 - . _ ~ + / =. A token file holds one a line, up
 * to four, of which each is good: that way a token is rotated without a moment in which a client
 * is refused. */
#ifndef LOADSTONE_API_ACCESS_H
#define LOADSTONE_API_ACCESS_H

#include "base/err.h"

/* What a route asks for; a route that says nothing asks for the most. */
enum scope { SCOPE_WRITE, SCOPE_READ, SCOPE_NONE };

struct access;

/* Borrowed, for as long as the access lives. NULL: not given. */
struct access_options {
    const char *read_token, *write_token;           /* the tokens themselves */
    const char *read_token_file, *write_token_file; /* or files that hold them */
};

/* ERR_INVALID for contradictions, files that hold no token and tokens that are too short. */
WARN_UNUSED enum err access_new(const struct access_options *o, struct access **out,
                                struct err_ctx *ctx);
void access_free(struct access *a); /* NULL is allowed */

/* Reads the files anew; on error the tokens stay as they are. One thread at a time, beside any
 * number of checks. */
WARN_UNUSED enum err access_reload(struct access *a, struct err_ctx *ctx);

bool access_has_tokens(const struct access *a);

/* `authorization`: the header, or NULL. ERR_UNAUTHORIZED when it holds no token that is known,
 * ERR_FORBIDDEN when the token is not good for `wanted`. Takes the same time whatever a wrong token
 * has in common with a right one. */
WARN_UNUSED enum err access_check(const struct access *a, const char *authorization,
                                  enum scope wanted, struct err_ctx *ctx);

#endif
