/* Responses that are made once.
 *
 *   kept[length % KEPT]  ->  response over (buffer, length, type, version)
 *
 * To make a response takes a dozen allocations, as much as a third of what a fetch of one key costs
 * outside the kernel and the library. Requests are reused and keep their buffers, so that answers
 * of one length differ only in the bytes that lie in the buffer. A response refers to them while it
 * is sent, not before and not after; a buffer that has moved is another key.
 *
 * Threads: those of the request. The library counts the connections that still use a response.
 * Failure: NULL when memory is out. */
#include "api/responses.h"

#include <stdbool.h>
#include <stdlib.h>

#include "api/number.h"

enum { KEPT = 64 };

struct kept {
    struct MHD_Response *response;
    struct response_key key;
};

struct responses {
    struct kept kept[KEPT];
};

enum MHD_Result describe_response(struct MHD_Response *response, const char *content_type,
                                  int64_t version)
{
    char number[NUMBER_TEXT_MAX + 1];
    enum MHD_Result ok = MHD_YES;
    if (content_type)
        ok &= MHD_add_response_header(response, "Content-Type", content_type);
    if (version >= 0) {
        number[number_print_int64(version, number)] = 0;
        ok &= MHD_add_response_header(response, "Loadstone-Version", number);
    }
    return ok;
}

struct MHD_Response *response_new(const struct response_key *key)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(key->len, key->data, MHD_RESPMEM_PERSISTENT);
    if (!response)
        return NULL;
    if (describe_response(response, key->len ? key->content_type : NULL, key->version) == MHD_YES)
        return response;
    MHD_destroy_response(response);
    return NULL;
}

static bool is_same(const struct response_key *a, const struct response_key *b)
{
    return a->data == b->data && a->len == b->len && a->content_type == b->content_type &&
           a->version == b->version;
}

struct MHD_Response *responses_get(struct responses **all, const struct response_key *key)
{
    if (!*all && !(*all = calloc(1, sizeof **all)))
        return NULL;
    struct kept *k = &(*all)->kept[key->len % KEPT];
    if (k->response && is_same(&k->key, key))
        return k->response;
    if (k->response)
        MHD_destroy_response(k->response);
    *k = (struct kept){response_new(key), *key};
    return k->response;
}

void responses_free(struct responses *all)
{
    if (!all)
        return;
    for (size_t i = 0; i < KEPT; i++)
        if (all->kept[i].response)
            MHD_destroy_response(all->kept[i].response);
    free(all);
}
