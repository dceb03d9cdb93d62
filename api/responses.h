/* Responses of the HTTP library, kept with a request for its next answers. */
#ifndef LOADSTONE_API_RESPONSES_H
#define LOADSTONE_API_RESPONSES_H

#include <microhttpd.h>
#include <stddef.h>
#include <stdint.h>

/* All that a plain answer consists of, but for the bytes of its body. */
struct response_key {
    void *data; /* borrowed while the response is sent */
    size_t len;
    const char *content_type; /* a literal: told apart by its address */
    int64_t version;          /* Loadstone-Version; -1 = none */
};

struct responses;

/* Content-Type (NULL = none) and Loadstone-Version (-1 = none). MHD_NO when memory is out. */
enum MHD_Result describe_response(struct MHD_Response *response, const char *content_type,
                                  int64_t version);

/* Content-Type (of a body that is not empty) and Loadstone-Version are set; the caller destroys it.
 * NULL when memory is out. */
struct MHD_Response *response_new(const struct response_key *key);

/* Lends the same from *all (made when NULL), where it is kept for the next call with this key. */
struct MHD_Response *responses_get(struct responses **all, const struct response_key *key);
void responses_free(struct responses *all);

#endif
