/* Formats that rows are exported in: a table, so that one more format is one more row.
 *
 * A codec writes a head and then row after row; the bytes depend on nothing but what is asked and
 * the rows. Whoever changes them raises `revision`, which is part of every ETag. */
#ifndef LOADSTONE_API_CODEC_H
#define LOADSTONE_API_CODEC_H

#include "base/bytes.h"
#include "store/snapshot.h"

/* What an export shows. */
struct projection {
    const struct snapshot *snapshot;
    struct buf columns; /* feature indexes: columns.h */
    bool with_vectors;  /* false without a vector in the schema */
    uint64_t rows;      /* how many there will be; only for codecs that are `sized` */
};

struct codec {
    const char *name; /* the ending of the address: export.NAME */
    const char *content_type;
    uint32_t revision;
    bool vectors_only; /* neither keys nor features; rows without a vector are left out */
    /* Bytes of the head and of each row, when they are all alike: then the length of an export is
     * known before it is made, and a part of it can be asked for. NULL otherwise. */
    uint64_t (*head_bytes)(const struct projection *p);
    uint64_t (*row_bytes)(const struct projection *p);
    void (*put_head)(const struct projection *p, struct buf *out); /* NULL = none */
    void (*put_row)(const struct projection *p, struct row_ref ref, struct buf *out);
};

/* ERR_NOT_FOUND names the formats that there are. */
WARN_UNUSED enum err codec_find(const char *name, const struct codec **out, struct err_ctx *ctx);

extern const struct codec codec_ndjson, codec_csv, codec_npy;

#endif
