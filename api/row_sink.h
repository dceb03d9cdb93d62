/* Where a decoder puts its batches: a load of one body, or one part of a load. */
#ifndef LOADSTONE_API_ROW_SINK_H
#define LOADSTONE_API_ROW_SINK_H

#include "store/load.h"

struct row_sink {
    struct schema *schema; /* borrowed; what the rows are read under */
    /* Takes the batch over by copying. After an error the sink's owner can only be freed. */
    enum err (*add)(void *to, const struct batch *b, struct err_ctx *ctx);
    void *to;
};

static inline enum err row_sink_load(void *load, const struct batch *b, struct err_ctx *ctx)
{
    return load_add(load, b, ctx);
}

static inline struct row_sink row_sink_of(struct load *l)
{
    return (struct row_sink){load_schema(l), row_sink_load, l};
}

#endif
