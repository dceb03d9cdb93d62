/* Cuts a stream of bytes into the texts of single rows, without parsing them.
 *
 * Two shapes: {"rows":[{..},{..}]}, and one row a line (NDJSON). Pieces may end anywhere; a row
 * that lies whole in a piece is lent from it, one that does not is put together first, so that
 * memory is bounded by the longest row. One thread at a time. */
#ifndef LOADSTONE_API_FRAMER_H
#define LOADSTONE_API_FRAMER_H

#include "base/bytes.h"

/* `text` is borrowed for the call; `offset` is where it starts in the body. */
typedef enum err (*framer_row)(void *arg, const char *text, size_t n, uint64_t offset,
                               struct err_ctx *ctx);

enum framer_shape { FRAMER_JSON, FRAMER_LINES };

struct framer {
    enum framer_shape shape;
    unsigned state;
    size_t row_bytes_max;
    framer_row row;
    void *arg;
    uint64_t offset;     /* bytes taken before the piece at hand */
    uint64_t row_offset; /* where the row at hand starts */
    uint64_t rows;
    unsigned depth; /* JSON: open brackets in the row at hand */
    bool in_string, escaped;
    bool rows_seen;   /* JSON: the field "rows" has come */
    struct buf carry; /* the part of a row, or of a name, that came in earlier pieces */
};

void framer_init(struct framer *f, enum framer_shape shape, size_t row_bytes_max, framer_row row,
                 void *arg);
void framer_deinit(struct framer *f);

/* Errors of the callback end the feeding and are returned. */
WARN_UNUSED enum err framer_feed(struct framer *f, const void *data, size_t n, struct err_ctx *ctx);
/* The body has ended: ERR_INVALID when it is empty or stops half way. */
WARN_UNUSED enum err framer_finish(struct framer *f, struct err_ctx *ctx);

#endif
