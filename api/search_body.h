/* What a search asks for, from JSON or from an octet-stream with settings in the query string. */
#ifndef LOADSTONE_API_SEARCH_BODY_H
#define LOADSTONE_API_SEARCH_BODY_H

#include "api/request.h"
#include "index/search.h"

struct search_ask {
    struct search_params params; /* exclude points into r->refs when rows leave themselves out */
    size_t nq;
    bool with_features, with_vectors; /* the features are in r->columns */
    bool explain;
    struct search_report report; /* params.report points here */
    bool any_version;            /* what was read is the same in every version */
    struct filter *filter;       /* the caller frees it, after an error too */
};

/* The queries are in r->queries, nq x dim float32, checked. */
WARN_UNUSED enum err search_body_read(struct request *r, const struct snapshot *s,
                                      struct search_ask *out, struct err_ctx *ctx);

#endif
