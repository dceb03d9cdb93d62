/* What the JSON bodies of commits share, message, metadata and expected_version, and the answer
 * that every commit gives. */
#ifndef LOADSTONE_API_COMMIT_BODY_H
#define LOADSTONE_API_COMMIT_BODY_H

#include "api/request.h"
#include "store/load.h"

enum { MESSAGE_BYTES_MAX = 4096, METADATA_BYTES_MAX = 64 * 1024 };

struct commit_body {
    int64_t expected_version; /* -1 = any */
    struct buf message;       /* NUL-terminated; empty = none */
    struct buf metadata;      /* a JSON object, NUL-terminated; empty = none */
    unsigned seen;
};

void commit_body_init(struct commit_body *b);
void commit_body_deinit(struct commit_body *b);
/* Reads the value that `json` stands before when `name` is one of the three; else *taken is false.
 * ERR_INVALID when it came before or is too long. null is as if it were not there. */
WARN_UNUSED enum err commit_body_field(struct commit_body *b, struct json_reader *json,
                                       struct json_slice name, bool *taken, struct err_ctx *ctx);
/* Fills expected_version, message and metadata; borrows. */
void commit_body_options(const struct commit_body *b, struct load_options *o);

/* {"version":7,"rows":..,"inserted":..,"updated":..,"deleted":..}; with an event time "stale", too.
 */
void commit_result_put(struct buf *out, const struct commit_result *c, bool event_time);
/* The same as the answer, with its header. */
void commit_result_write(struct request *r, const struct commit_result *c, bool event_time);

#endif
