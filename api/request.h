/* One HTTP request: what was asked, the body so far, the answer.
 *
 * Handlers get it with target, body and media types checked against their route, write `out` and
 * return ERR_OK, or return an error and its sentence. Requests are reused per thread and keep their
 * buffers, so that a search or a fetch allocates nothing.
 *
 * Threads: a request belongs to its HTTP thread, or, while its connection is suspended, to one
 * worker. */
#ifndef LOADSTONE_API_REQUEST_H
#define LOADSTONE_API_REQUEST_H

#include <microhttpd.h>

#include "api/access.h"
#include "api/json_reader.h"
#include "api/media.h"
#include "api/service.h"
#include "api/target.h"
#include "base/log.h"
#include "store/version.h"

struct connection;
struct request;
struct responses;
struct session;
struct stream;
struct upload;

typedef enum err (*request_handler)(struct request *r, struct err_ctx *ctx);

struct route {
    const char *method;    /* GET also answers HEAD */
    const char *path;      /* "v1/collections/{}/rows"; {} is any segment */
    const char *params;    /* query parameters taken, separated by spaces */
    unsigned takes;        /* set of media in; 0 = no body */
    unsigned offers;       /* set of media out; 0 = whatever is accepted */
    enum scope scope;      /* of the token; left out: write */
    bool blocking;         /* waits for the disk: always runs on a writer */
    request_handler begin; /* streams the body: makes r->upload before the body comes */
    request_handler run;   /* the whole body is there, or the upload is done */
};

enum { REQUEST_PLAN_MAX = 10 };

enum request_phase {
    REQUEST_NEW,
    REQUEST_GATHER,  /* body goes to r->body */
    REQUEST_UPLOAD,  /* body goes to r->upload */
    REQUEST_DRAIN,   /* r->err is noted, the body is thrown away */
    REQUEST_WORKING, /* suspended, a worker has it */
    REQUEST_DONE,    /* answered */
};

struct request_head {
    int64_t content_length; /* -1: not given */
    unsigned content_lengths;
    bool chunked, other_transfer, expect_continue, bad_name;
    const char *content_type, *content_encoding, *accept;
    const char *idempotency_key, *content_digest;
    const char *repeated; /* one of those two that came twice */
    const char *if_match, *if_none_match, *if_range, *range;
    const char *authorization;
    unsigned authorizations;
};

struct request {
    struct service *service;
    struct MHD_Connection *conn;
    struct connection *watched;
    const struct route *route;
    const char *uri_text; /* the library's copy of the URI, undecoded until the head is parsed */
    enum request_phase phase;
    struct request_head head;
    struct target target;
    enum media media_in, media_out;
    uint64_t started_us;
    bool head_only; /* HEAD: the answer without its body */
    bool trusted;   /* may know what is here: has a token, or none is asked for */
    bool on_worker; /* long work may be done here */
    bool settled;   /* may be suspended for good: see dispatch.c */
    bool defer;     /* a handler asks to be run again on a worker */

    struct upload *upload;
    struct session *waits_for; /* the load whose commit the answer is; referenced */
    uint64_t wait_until_us;    /* monotonic; a handler sets both */
    bool waited;
    uint64_t received;  /* bytes of body */
    uint64_t waited_us; /* for the client, while the body came */
    uint64_t waiting_since_us;
    uint64_t drained, draining_since_us;
    uint64_t handed_us, queued_us; /* to a worker: when, and how long until it began */
    uint64_t reserved;             /* of service->buffer_bytes */

    struct selector selector; /* which version it reads: selector.h */
    char selector_tag[TAG_MAX_BYTES + 1];
    bool selected; /* the snapshot that is open is a reference, not the newest one on loan */

    /* the answer */
    struct err_ctx err;
    unsigned status;
    const char *content_type;
    int64_t version; /* of the collection, for the Loadstone-Version header; -1 = none */
    char allow[64];
    struct log_field plan[REQUEST_PLAN_MAX]; /* see slow_log.h */
    unsigned plan_len;
    struct stream *stream; /* the body instead of `out`, handed over when it is sent */
    uint64_t streamed;     /* bytes of it that were sent */
    struct buf headers;    /* more of them: request_add_header */
    bool close;
    bool raw; /* the answer went past the library */

    /* memory that stays with the request when it is reused */
    struct buf uri, body, out;
    struct buf queries, refs, hits, counts, columns;
    struct json_reader json;
    struct responses *responses; /* made before; NULL until the first */
    struct request *next_free;
};

/* From the calling thread's free list; NULL when memory is out. `uri` is copied. */
struct request *request_new(struct service *s, const char *uri);
void request_free(struct request *r);

/* Reads method, URI and headers, finds the route, checks the framing and the media types. */
WARN_UNUSED enum err request_parse_head(struct request *r, const char *method, struct err_ctx *ctx);
bool request_has_body(const struct request *r);
uint64_t request_body_max(const struct request *r);
/* That the body is larger, by the name of the limit. */
WARN_UNUSED enum err request_too_large(const struct request *r, struct err_ctx *ctx);

/* Appends a piece to r->body within the limits. */
WARN_UNUSED enum err request_gather(struct request *r, const void *data, size_t n,
                                    struct err_ctx *ctx);

/* True when work of `cost_us` must move to a worker: the handler returns ERR_OK at once and is run
 * again there. */
bool request_defers(struct request *r, double cost_us);

/* Queues r->out, or r->err when it is set. */
enum MHD_Result request_answer(struct request *r);
/* Writes r->err past the library, which cannot answer while a body arrives, and closes the sending
 * side: the client reads the answer and the end of the stream. */
void request_answer_raw(struct request *r);

/* ---- for handlers ---- */

/* The name of a collection in the path; ERR_INVALID when it can't be one. */
WARN_UNUSED enum err request_collection_name(struct request *r, const char **out,
                                             struct err_ctx *ctx);
/* The collection that the path names. Inside an epoch section; borrowed. */
WARN_UNUSED enum err request_collection(struct request *r, struct collection **out,
                                        struct err_ctx *ctx);
/* The same with a reference, outside of any epoch section: for what waits. */
WARN_UNUSED enum err request_hold_collection(struct request *r, struct collection **out,
                                             struct err_ctx *ctx);
/* The snapshot that r->selector names, for reading until request_close_snapshot; sets the version
 * header. On an HTTP thread that is an epoch section, on a worker, where work is long, a reference.
 * An old version that is not at hand is ERR_AGAIN on an HTTP thread: the handler returns that, and
 * is run once more on a worker. */
WARN_UNUSED enum err request_open_snapshot(struct request *r, struct snapshot **out,
                                           struct err_ctx *ctx);
void request_close_snapshot(struct request *r, struct snapshot *s); /* NULL is allowed */
/* A decoded path segment. */
const struct target_segment *request_segment(const struct request *r, unsigned i);

/* A path segment that is the number of a version. */
WARN_UNUSED enum err request_segment_version(const struct request *r, unsigned i, uint64_t *out,
                                             struct err_ctx *ctx);

/* Query parameters: the default stays when one is not given. */
WARN_UNUSED enum err request_param_uint(struct request *r, const char *name, uint64_t min,
                                        uint64_t max, uint64_t *v, struct err_ctx *ctx);
WARN_UNUSED enum err request_param_int(struct request *r, const char *name, int64_t *v,
                                       struct err_ctx *ctx);
WARN_UNUSED enum err request_param_bool(struct request *r, const char *name, bool *v,
                                        struct err_ctx *ctx);

/* One more header of the answer, unless it becomes an error. `name` is a constant. */
void request_add_header(struct request *r, const char *name, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/* One of any length: its value is appended to the buffer lent, and holds no NUL. */
struct buf *request_begin_header(struct request *r, const char *name);
void request_end_header(struct request *r);

/* ERR_TOO_LARGE once the answer has outgrown result_bytes_max; ERR_NO_MEMORY when memory was. */
WARN_UNUSED enum err request_check_out(const struct request *r, struct err_ctx *ctx);

/* The sentence for a field that the body must not have. `known` is a list for the reader. */
WARN_UNUSED enum err request_unknown_field(struct json_slice name, const char *what,
                                           const char *known, struct err_ctx *ctx);

#endif
