/* Every limit of the outside, in one table: GET /v1/limits lists it, `--limit NAME=VALUE` sets it,
 * and the error that a limit causes names it. */
#ifndef LOADSTONE_API_LIMITS_H
#define LOADSTONE_API_LIMITS_H

#include "base/bytes.h"

struct limits {
    uint64_t body_bytes_max;      /* of a streamed body (octet-stream, npy, NDJSON) */
    uint64_t json_body_bytes_max; /* of a JSON body */
    uint64_t row_bytes_max;       /* of one row's JSON text */
    uint64_t result_bytes_max;
    uint64_t rows_page_max; /* of one page of rows */
    uint64_t k_max;
    uint64_t ef_max;
    uint64_t nprobe_max;
    uint64_t queries_max;      /* of one search request */
    uint64_t buffer_bytes_max; /* request bodies held in memory, all connections together */
    uint64_t queue_max;        /* requests waiting for a worker */
    uint64_t connections_max;
    uint64_t connections_per_ip_max;
    uint64_t idle_timeout_s;   /* a silent connection is closed */
    uint64_t header_timeout_s; /* to send a whole request head */
    uint64_t drain_bytes_max;  /* of a refused body that is still read, so that the answer is */
    uint64_t drain_timeout_s;
    uint64_t shutdown_timeout_s; /* running uploads may go on that long after SIGTERM */
};

void limits_init(struct limits *l);
/* "name=value"; ERR_INVALID names what is wrong and lists the names. */
WARN_UNUSED enum err limits_set(struct limits *l, const char *assignment, struct err_ctx *ctx);
/* A JSON object of all limits, those that the store fixes too. */
void limits_write(const struct limits *l, struct buf *out);

#endif
