/* ../index.faiss: the index of the newest version as a file that FAISS reads; and a file that FAISS
 * wrote elsewhere as the index.
 *
 * GET: the body is streamed in pieces (stream.h), with the ETag, the length and the ranges of an
 * export. PUT: the body streams through an upload into a file (index.h, index_import), and is taken
 * for the index once it was compared with the rows.
 *
 * Threads: GET on a writer, since files are checked before the first byte; of PUT, begin and answer
 * on the HTTP thread. Failure: the sentence of faiss_export.h, behind the first byte the connection
 * is cut; of an import, what file and collection differ in, and the index is what it was. */
#include "api/routes.h"

#include <stdio.h>

#include "api/conditional.h"
#include "api/stream.h"
#include "api/upload.h"
#include "base/epoch.h"
#include "index/faiss_export.h"

static enum err fill(void *arg, struct buf *out, bool *end, struct err_ctx *ctx)
{
    return faiss_export_fill(arg, STREAM_PIECE_BYTES, out, end, ctx);
}

static enum err choose_part(struct request *r, struct faiss_export *e, const char *etag,
                            int64_t *length, struct err_ctx *ctx)
{
    uint64_t all = faiss_export_bytes(e), from, to;
    RETURN_NOT_OK(conditional_part(r, etag, all, &from, &to, ctx));
    if (to - from < all)
        faiss_export_part(e, from, to);
    *length = (int64_t)(to - from);
    return ERR_OK;
}

/* *e is NULL once the stream has it. */
static enum err answer(struct request *r, struct faiss_export **e, struct err_ctx *ctx)
{
    struct hash128 h = faiss_export_hash(*e);
    const struct stream_source source = {*e, fill, faiss_export_free};
    uint64_t version = faiss_export_version(*e);
    char etag[ETAG_CAP];
    bool unchanged;
    int64_t length;
    r->version = (int64_t)version;
    snprintf(etag, sizeof(etag), "\"%016llx%016llx\"", (unsigned long long)h.hi,
             (unsigned long long)h.lo);
    request_add_header(r, "ETag", "%s", etag);
    RETURN_NOT_OK(conditional_check(r, etag, &unchanged, ctx));
    if (unchanged) {
        r->status = MHD_HTTP_NOT_MODIFIED;
        return ERR_OK;
    }
    RETURN_NOT_OK(choose_part(r, *e, etag, &length, ctx));
    r->content_type = "application/octet-stream";
    request_add_header(r, "Loadstone-Rows-Left-Out", "%u", faiss_export_left_out(*e));
    request_add_header(r, "Content-Disposition", "attachment; filename=\"%s-v%llu.faiss\"",
                       request_segment(r, 2)->text, (unsigned long long)version);
    RETURN_NOT_OK(stream_new(r->service, &source, length, &r->stream, ctx));
    *e = NULL;
    return r->head_only ? ERR_OK : stream_start(r->stream, ctx);
}

enum err index_faiss_get(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    struct faiss_export *e = NULL;
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err failed = faiss_export_new(c, &e, ctx);
    if (failed == ERR_OK)
        failed = answer(r, &e, ctx);
    faiss_export_free(e);
    collection_release(c);
    return failed;
}

/* ---- PUT ---- */

static enum err import_feed(void *import, const void *data, size_t n, struct err_ctx *ctx)
{
    return index_import_put(import, data, n, ctx);
}

static enum err import_finish(void *import, struct err_ctx *ctx)
{
    return index_import_finish(import, ctx);
}

static enum err begin_import(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    struct index_import *import;
    struct intake_options o = {.digest = r->head.content_digest};
    o.length = r->head.content_length > 0 ? (uint64_t)r->head.content_length : 0;
    RETURN_NOT_OK(request_collection(r, &c, ctx));
    RETURN_NOT_OK(index_import_new(r->service->indexer, c, &import, ctx));
    o.taker = (struct intake_taker){import, import_feed, import_finish, index_import_free};
    enum err e = upload_new(r->service, c, &o, 0, &r->upload, ctx);
    if (e != ERR_OK)
        index_import_free(import);
    return e;
}

enum err index_faiss_begin(struct request *r, struct err_ctx *ctx)
{
    epoch_enter();
    enum err e = begin_import(r, ctx);
    epoch_leave();
    return e;
}

enum err index_faiss_answer(struct request *r, struct err_ctx *ctx)
{
    struct intake_outcome out;
    RETURN_NOT_OK(upload_result(r->upload, &out, ctx));
    return collection_index(r, ctx);
}
