/* GET ../versions/{v}/export.{format}: a version as a file, streamed.
 *
 *   parse -> pin and open the version -> ETag -> 304? 412? -> length and range -> first piece
 *         -> the rest while the client reads (stream.h)
 *
 * The address and its ETag never change their bytes; what a tag names is a redirect.
 *
 * Threads: on a writer, since an old version is read from files. Failure: before the first byte the
 * store's sentence; behind it the connection is cut. */
#include "api/routes.h"

#include "api/columns.h"
#include "api/export.h"
#include "api/filter_param.h"
#include "base/epoch.h"
#include "store/version.h"

static enum err find_codec(struct request *r, const struct codec **out, struct err_ctx *ctx)
{
    return codec_find(request_segment(r, 5)->text + strlen("export."), out, ctx);
}

/* ---- what is shown ---- */

static enum err check_vectors_only(struct request *r, const struct export *e, struct err_ctx *ctx)
{
    const char *name = e->codec->name;
    if (e->snapshot->schema->dim == 0)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the collection has no vectors, and %s holds nothing else: take another "
                       "format",
                       name);
    if (target_param(&r->target, "features"))
        return err_set_at(ctx, ERR_INVALID, -1, "features",
                          "%s holds vectors only: leave features out, or take another format",
                          name);
    if (!e->show.with_vectors)
        return err_set_at(ctx, ERR_INVALID, -1, "with_vectors",
                          "%s holds vectors only: leave with_vectors out, or take another format",
                          name);
    return ERR_OK;
}

static enum err read_show(struct request *r, struct export *e, struct err_ctx *ctx)
{
    const struct schema *s = e->snapshot->schema;
    e->show.with_vectors = true;
    RETURN_NOT_OK(request_param_bool(r, "with_vectors", &e->show.with_vectors, ctx));
    RETURN_NOT_OK(request_param_bool(r, "history", &e->history, ctx));
    RETURN_NOT_OK(filter_read_param(r, s, &e->filter, ctx));
    if (e->codec->vectors_only)
        return check_vectors_only(r, e, ctx);
    e->show.with_vectors &= s->dim > 0;
    return columns_of_query(&r->target, s, &e->show.columns, ctx);
}

/* ---- the answer ---- */

static enum err choose_part(struct request *r, struct export *e, const char *etag, int64_t *length,
                            struct err_ctx *ctx)
{
    uint64_t all = (uint64_t)*length, from, to;
    if (*length < 0)
        return ERR_OK;
    RETURN_NOT_OK(conditional_part(r, etag, all, &from, &to, ctx));
    if (to - from < all)
        export_part(e, from, to);
    *length = (int64_t)(to - from);
    return ERR_OK;
}

/* The stream has the export once it is made. */
static enum err start_stream(struct request *r, struct export **e, int64_t length,
                             struct err_ctx *ctx)
{
    struct stream_source source = export_source(*e);
    const char *name = (*e)->codec->name;
    r->content_type = (*e)->codec->content_type;
    request_add_header(r, "Content-Disposition", "attachment; filename=\"%s-v%llu.%s\"",
                       collection_name((*e)->collection),
                       (unsigned long long)(*e)->snapshot->version, name);
    RETURN_NOT_OK(stream_new(r->service, &source, length, &r->stream, ctx));
    *e = NULL;
    return r->head_only ? ERR_OK : stream_start(r->stream, ctx);
}

static enum err answer(struct request *r, struct export **e, struct err_ctx *ctx)
{
    char etag[ETAG_CAP];
    bool unchanged;
    int64_t length;
    RETURN_NOT_OK(read_show(r, *e, ctx));
    r->version = (int64_t)(*e)->snapshot->version;
    export_etag(*e, etag);
    request_add_header(r, "ETag", "%s", etag);
    RETURN_NOT_OK(conditional_check(r, etag, &unchanged, ctx));
    if (unchanged) {
        r->status = MHD_HTTP_NOT_MODIFIED;
        return ERR_OK;
    }
    RETURN_NOT_OK(export_measure(*e, &r->service->closed, &length, ctx));
    RETURN_NOT_OK(choose_part(r, *e, etag, &length, ctx));
    return start_stream(r, e, length, ctx);
}

enum err version_export(struct request *r, struct err_ctx *ctx)
{
    const struct codec *codec;
    struct collection *c;
    struct export *e;
    uint64_t version;
    RETURN_NOT_OK(find_codec(r, &codec, ctx));
    RETURN_NOT_OK(request_segment_version(r, 4, &version, ctx));
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err failed = export_new(c, version, codec, &e, ctx);
    if (failed == ERR_OK) {
        failed = answer(r, &e, ctx);
        export_free(e);
    }
    collection_release(c);
    return failed;
}

/* ---- tags ---- */

/* As it was sent, escapes anew: what parsing has decoded must not be read as separators. */
static void put_escaped(struct buf *out, const char *text, size_t n)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~,";
    for (size_t i = 0; i < n; i++) {
        if (strchr(plain, text[i]))
            buf_put_u8(out, (uint8_t)text[i]);
        else
            buf_printf(out, "%%%02X", (unsigned char)text[i]);
    }
}

static void put_query(const struct request *r, struct buf *out)
{
    for (unsigned i = 0; i < r->target.nparams; i++) {
        const struct target_param *p = &r->target.params[i];
        buf_put_u8(out, i ? '&' : '?');
        put_escaped(out, p->name, strlen(p->name));
        buf_put_u8(out, '=');
        put_escaped(out, p->value.text, p->value.len);
    }
}

enum err tag_export(struct request *r, struct err_ctx *ctx)
{
    const struct codec *codec;
    struct collection *c;
    uint64_t version;
    bool with_vectors, history;
    RETURN_NOT_OK(find_codec(r, &codec, ctx));
    RETURN_NOT_OK(request_param_bool(r, "with_vectors", &with_vectors, ctx));
    RETURN_NOT_OK(request_param_bool(r, "history", &history, ctx));
    epoch_enter();
    enum err e = request_collection(r, &c, ctx);
    if (e == ERR_OK)
        e = collection_tag_get(c, request_segment(r, 4)->text, &version, ctx);
    epoch_leave();
    RETURN_NOT_OK(e);
    struct buf *to = request_begin_header(r, "Location");
    buf_printf(to, "/v1/collections/%s/versions/%llu/export.%s", request_segment(r, 2)->text,
               (unsigned long long)version, codec->name);
    put_query(r, to);
    request_end_header(r);
    r->status = MHD_HTTP_TEMPORARY_REDIRECT;
    r->version = (int64_t)version;
    return ERR_OK;
}
