/* An export: the rows of one version in one format, the same bytes every time.
 *
 *   snapshot -> walk by seq -> filter -> codec -> pieces of a stream */
#ifndef LOADSTONE_API_EXPORT_H
#define LOADSTONE_API_EXPORT_H

#include "api/codec.h"
#include "api/conditional.h"
#include "api/stream.h"
#include "store/filter.h"
#include "store/segment_span.h"

struct export
{
    struct collection *collection; /* all owned */
    struct snapshot *snapshot;
    struct filter *filter; /* NULL = every row */
    const struct codec *codec;
    struct projection show;
    bool history;

    struct seq_walk *walk;
    bool head_done;
    uint64_t at, from, to;  /* the next byte that is made; the part that is asked for */
    struct row_spans spans; /* rows that the piece being made was made of */

    struct {
        uint64_t bits;
        uint32_t view, word; /* view UINT32_MAX: nothing yet */
    } matches;               /* of the filter, 64 rows at a time */
};

/* `c` is acquired and the version pinned, then opened. Reads files. */
WARN_UNUSED enum err export_new(struct collection *c, uint64_t version, const struct codec *codec,
                                struct export **out, struct err_ctx *ctx);
void export_free(void *e);

/* Once what is to be shown is set: a quoted strong ETag. */
void export_etag(const struct export *e, char out[ETAG_CAP]);
/* Bytes of the whole, -1 for a codec that cannot tell. May look at every row; `cancel` ends that
 * with ERR_UNAVAILABLE. */
WARN_UNUSED enum err export_measure(struct export *e, const atomic_bool *cancel, int64_t *length,
                                    struct err_ctx *ctx);
/* Only bytes [from, to) of what was measured. */
void export_part(struct export *e, uint64_t from, uint64_t to);
/* For stream_new; it owns the export from there on. */
struct stream_source export_source(struct export *e);

#endif
