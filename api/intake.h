/* What a streamed body becomes: the rows of a load that commits at its end, a part of a load
 * session, or whatever a taker makes of it. Checks what the request says of the body
 * (Content-Digest, Idempotency-Key) on the way.
 *
 * One thread at a time, a worker. */
#ifndef LOADSTONE_API_INTAKE_H
#define LOADSTONE_API_INTAKE_H

#include "api/commit_job.h"
#include "api/decoder.h"

struct intake;

/* Takes the bytes of a body that are no rows. */
struct intake_taker {
    void *arg; /* NULL: the body is rows */
    enum err (*feed)(void *arg, const void *data, size_t n, struct err_ctx *ctx);
    enum err (*finish)(void *arg, struct err_ctx *ctx);
    void (*free)(void *arg);
};

struct intake_options {
    struct intake_taker taker; /* the intake's, once it is made */
    struct load_options load;  /* rows; `message` is copied */
    struct decoder_options decoder;
    uint64_t length;    /* of the body, 0 = unknown */
    const char *key;    /* Idempotency-Key, or NULL; copied */
    const char *digest; /* Content-Digest, or NULL; read at intake_new */
    const char *part;   /* the name of a part of load `load_id`; NULL: rows. Copied */
    uint8_t load_id[LOAD_ID_BYTES];
    size_t part_len, parts_max;
};

struct intake_outcome {
    struct commit_result result;
    bool event_time;         /* the collection has one */
    struct session *running; /* rows: the commit goes on there; referenced, NULL: result is set */
    const char *part;        /* its name; borrowed from the intake */
    bool created;            /* it was not there before */
    uint64_t rows, bytes;
    struct hash128 hash;
};

/* Checks the headers. The collection is acquired. */
WARN_UNUSED enum err intake_new(struct service *s, struct collection *c,
                                const struct intake_options *o, struct intake **out,
                                struct err_ctx *ctx);
WARN_UNUSED enum err intake_feed(struct intake *t, const void *data, size_t n, struct err_ctx *ctx);
/* The body is complete: commits, or hands over a commit that may take long; or ends the part. */
WARN_UNUSED enum err intake_finish(struct intake *t, struct intake_outcome *out,
                                   struct err_ctx *ctx);
/* True while giving up leaves files to remove: work for a worker. After an error, and after the
 * end, nothing is held: who is told so finds key and load as free as they are said to be. */
bool intake_holds(const struct intake *t);
/* Drops what was not committed or ended, and gives the key back. */
void intake_drop(struct intake *t);
void intake_free(struct intake *t); /* while nothing is held; NULL is allowed */

#endif
