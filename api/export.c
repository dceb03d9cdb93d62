/* Exports.
 *
 * A piece is made of the rows that follow the last one; then the blocks which those rows lie in are
 * checked, so that no byte of a damaged segment leaves: the stream ends there, visibly incomplete.
 *
 *   at:   0 ...... head ...... row 17 ...... row 18 ......      bytes of the whole export
 *                       from ^......................^ to        the part that is asked for
 *
 * What lies before the part is walked over and not written.
 *
 * The ETag covers what the bytes depend on. The digest of a version covers its current rows; with
 * history the version itself is part of it.
 *
 * Threads: one worker at a time. Failure: ERR_CORRUPT from the blocks, ERR_NO_MEMORY. */
#include "api/export.h"

#include <stdio.h>

#include "api/columns.h"
#include "base/hash.h"
#include "store/seq_walk.h"
#include "store/version.h"

enum { ROWS_LOOKED_AT_MAX = 32768 /* by one turn of a worker */, ETAG_REVISION = 1 };

enum err export_new(struct collection *c, uint64_t version, const struct codec *codec,
                    struct export **out, struct err_ctx *ctx)
{
    struct export *e = calloc(1, sizeof *e);
    if (!e)
        return err_no_memory(ctx, sizeof *e);
    e->collection = collection_acquire(c);
    e->codec = codec;
    e->to = UINT64_MAX;
    e->matches.view = UINT32_MAX;
    enum err failed = collection_pin(c, version, ctx);
    bool pinned = failed == ERR_OK;
    if (pinned)
        failed = collection_open_version(c, version, true, &e->snapshot, ctx);
    if (failed != ERR_OK) {
        if (pinned)
            collection_unpin(c, version);
        collection_release(c);
        free(e);
        return failed;
    }
    e->show.snapshot = e->snapshot;
    *out = e;
    return ERR_OK;
}

void export_free(void *arg)
{
    struct export *e = arg;
    if (!e)
        return;
    uint64_t version = e->snapshot->version;
    seq_walk_free(e->walk);
    filter_free(e->filter);
    buf_deinit(&e->show.columns);
    row_spans_deinit(&e->spans);
    snapshot_release(e->snapshot);
    collection_unpin(e->collection, version);
    collection_release(e->collection);
    free(e);
}

/* ---- the ETag ---- */

static void put_schema(const struct schema *s, struct buf *out)
{
    buf_put_u8(out, (uint8_t)s->key);
    buf_put_u32(out, s->dim);
    buf_put_u32(out, s->nfeatures);
    for (uint32_t i = 0; i < s->nfeatures; i++) {
        buf_put_str(out, s->features[i].name);
        buf_put_u8(out, (uint8_t)s->features[i].type);
    }
}

static void put_identity(const struct export *e, struct buf *out)
{
    const struct snapshot *s = e->snapshot;
    buf_put_u8(out, ETAG_REVISION);
    buf_put(out, collection_id(e->collection), 16);
    buf_put_u64(out, s->digest.lo);
    buf_put_u64(out, s->digest.hi);
    put_schema(s->schema, out);
    buf_put_str(out, e->codec->name);
    buf_put_u32(out, e->codec->revision);
    buf_put_u8(out, e->show.with_vectors);
    buf_put_blob(out, e->show.columns.data, e->show.columns.len);
    buf_put_u64(out, e->history ? s->version : 0);
    if (e->filter)
        filter_normal(e->filter, out);
}

void export_etag(const struct export *e, char out[ETAG_CAP])
{
    struct buf bytes = {0};
    put_identity(e, &bytes);
    struct hash128 h = hash128(bytes.data, bytes.len);
    snprintf(out, ETAG_CAP, "\"%016llx%016llx\"", (unsigned long long)h.hi,
             (unsigned long long)h.lo);
    buf_deinit(&bytes);
}

/* ---- rows ---- */

static enum err start_walk(struct export *e, struct err_ctx *ctx)
{
    struct seq_walk_options o = {.history = e->history};
    const struct snapshot *s = e->snapshot;
    if (!e->spans.views)
        RETURN_NOT_OK(row_spans_init(&e->spans, s, ctx));
    for (uint32_t i = 0; i < s->nviews; i++)
        RETURN_NOT_OK(segment_verify_runs(s->views[i].segment, ctx));
    return seq_walk_open(s, &o, NULL, &e->walk, ctx);
}

static enum err check_rows(struct export *e, struct err_ctx *ctx)
{
    bool vectors = e->show.with_vectors || e->codec->vectors_only || e->filter;
    bool features = columns_count(&e->show.columns) || e->filter;
    return row_spans_check(&e->spans, (vectors ? SPAN_VECTORS : 0) | (features ? SPAN_FEATURES : 0),
                           ctx);
}

/* Rows of a view come in ascending order, so that most are in the word of the one before. */
static bool matches(struct export *e, struct row_ref row)
{
    const struct view *v = &e->snapshot->views[row.view];
    uint32_t word = row.row / 64;
    if (e->matches.view != row.view || e->matches.word != word) {
        uint32_t left = v->rows - word * 64;
        uint64_t all = left < 64 ? (1ull << left) - 1 : UINT64_MAX;
        e->matches.bits = filter_word(e->filter, v->segment, word, all);
        e->matches.view = row.view;
        e->matches.word = word;
    }
    return e->matches.bits >> row.row % 64 & 1;
}

static bool shows(struct export *e, struct row_ref row)
{
    const struct segment *g = e->snapshot->views[row.view].segment;
    if (e->codec->vectors_only && !segment_vector(g, row.row))
        return false;
    return !e->filter || matches(e, row);
}

/* The next row that is shown. *end behind the last one; neither when enough were looked at. */
static bool next_row(struct export *e, struct row_ref *row, unsigned *looked, bool *end)
{
    struct seq seq;
    while (*looked < ROWS_LOOKED_AT_MAX) {
        if (!seq_walk_next(e->walk, row, &seq)) {
            *end = true;
            return false;
        }
        ++*looked;
        row_spans_add(&e->spans, *row);
        if (shows(e, *row))
            return true;
    }
    return false;
}

/* ---- the length ---- */

static enum err count_rows(struct export *e, const atomic_bool *cancel, uint64_t *rows,
                           struct err_ctx *ctx)
{
    bool end = false;
    RETURN_NOT_OK(start_walk(e, ctx));
    *rows = 0;
    while (!end) {
        struct row_ref row;
        unsigned looked = 0;
        while (next_row(e, &row, &looked, &end))
            ++*rows;
        RETURN_NOT_OK(check_rows(e, ctx));
        if (atomic_load_explicit(cancel, memory_order_relaxed))
            return err_set(ctx, ERR_UNAVAILABLE, "the server is shutting down");
    }
    seq_walk_free(e->walk);
    e->walk = NULL;
    return ERR_OK;
}

enum err export_measure(struct export *e, const atomic_bool *cancel, int64_t *length,
                        struct err_ctx *ctx)
{
    const struct codec *codec = e->codec;
    *length = -1;
    if (!codec->row_bytes)
        return ERR_OK;
    e->show.rows = codec->vectors_only ? e->snapshot->vectors : e->snapshot->rows;
    if (e->filter || e->history)
        RETURN_NOT_OK(count_rows(e, cancel, &e->show.rows, ctx));
    *length = (int64_t)(codec->head_bytes(&e->show) + e->show.rows * codec->row_bytes(&e->show));
    return ERR_OK;
}

void export_part(struct export *e, uint64_t from, uint64_t to)
{
    e->from = from;
    e->to = to;
}

/* ---- pieces ---- */

/* Bytes [start, out->len) are the next of the export: those outside the part go. */
static void keep_part(struct export *e, struct buf *out, size_t start)
{
    uint64_t n = out->len - start, before = e->at < e->from ? e->from - e->at : 0;
    e->at += n;
    if (before) {
        memmove(out->data + start, out->data + start + before, n - before);
        out->len -= before;
    }
    if (e->at > e->to)
        out->len -= e->at - e->to;
}

/* True when the next `bytes` lie before the part, and need not be made. */
static bool skips(struct export *e, uint64_t bytes)
{
    if (e->at + bytes > e->from)
        return false;
    e->at += bytes;
    return true;
}

static void put_head(struct export *e, struct buf *out)
{
    size_t start = out->len;
    e->head_done = true;
    if (!e->codec->put_head || (e->codec->head_bytes && skips(e, e->codec->head_bytes(&e->show))))
        return;
    e->codec->put_head(&e->show, out);
    if (!out->failed)
        keep_part(e, out, start);
}

static void put_row(struct export *e, struct row_ref row, struct buf *out)
{
    size_t start = out->len;
    if (e->codec->row_bytes && skips(e, e->codec->row_bytes(&e->show)))
        return;
    e->codec->put_row(&e->show, row, out);
    if (!out->failed)
        keep_part(e, out, start);
}

static enum err fill(void *arg, struct buf *out, bool *end, struct err_ctx *ctx)
{
    struct export *e = arg;
    struct row_ref row;
    unsigned looked = 0;
    if (!e->walk)
        RETURN_NOT_OK(start_walk(e, ctx));
    if (!e->head_done)
        put_head(e, out);
    while (e->at < e->to && out->len < STREAM_PIECE_BYTES && !out->failed &&
           next_row(e, &row, &looked, end))
        put_row(e, row, out);
    *end |= e->at >= e->to;
    return check_rows(e, ctx);
}

struct stream_source export_source(struct export *e)
{
    return (struct stream_source){.arg = e, .fill = fill, .free = export_free};
}
