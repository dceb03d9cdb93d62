/* The request that opens a load: its JSON body, read against the collection's schema. */
#ifndef LOADSTONE_API_LOAD_CALL_H
#define LOADSTONE_API_LOAD_CALL_H

#include "api/commit_body.h"

enum { PARTITIONS_MAX = 10000 };

struct load_call {
    struct load_options options; /* borrows from what follows */
    struct commit_body body;
    struct batch *partitions;
};

/* {"mode","duplicates","message","metadata","expected_version","partitions"}; an empty text is an
 * upsert. ERR_INVALID, ERR_UNPROCESSABLE naming the field. */
WARN_UNUSED enum err load_call_read(const char *text, size_t n, struct schema *s,
                                    struct load_call **out, struct err_ctx *ctx);
void load_call_free(struct load_call *call); /* NULL is allowed */

/* upsert, append, full_refresh, partition_overwrite */
WARN_UNUSED enum err load_mode_read(const char *text, size_t n, enum load_mode *out,
                                    struct err_ctx *ctx);
/* indexed, durable */
WARN_UNUSED enum err load_wait_read(const char *text, size_t n, enum load_wait *out,
                                    struct err_ctx *ctx);

#endif
