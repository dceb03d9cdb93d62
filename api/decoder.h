/* Request bodies into rows: a decoder takes the bytes of one body in order and adds its rows to a
 * sink, in batches of bounded size. One thread at a time (it may move between threads). */
#ifndef LOADSTONE_API_DECODER_H
#define LOADSTONE_API_DECODER_H

#include "api/media.h"
#include "api/service.h"
#include "api/row_sink.h"

struct decoder;

struct decoder_options {
    enum media media;
    struct service *service; /* counts what a columnar body holds */
    uint64_t row_bytes_max;  /* JSON: of one row's text */
    int64_t first_key;       /* octet-stream, npy */
    uint64_t body_bytes;     /* of the whole body; 0 = unknown */
};

/* What the sink leads to must outlive the decoder. */
WARN_UNUSED enum err decoder_new(struct row_sink sink, const struct decoder_options *o,
                                 struct decoder **out, struct err_ctx *ctx);
void decoder_free(struct decoder *d); /* NULL is allowed */

/* Bytes of a body. For octet-stream, `n` is a multiple of the row's size except in the last piece,
 * and `data` is aligned to float. */
WARN_UNUSED enum err decoder_feed(struct decoder *d, const void *data, size_t n,
                                  struct err_ctx *ctx);
/* The body is complete: checks its end and adds what is left. */
WARN_UNUSED enum err decoder_finish(struct decoder *d, struct err_ctx *ctx);

#endif
