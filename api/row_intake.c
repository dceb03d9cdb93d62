/* A body of rows, as far as its head tells: checked before the first byte comes.
 *
 * Threads: the HTTP thread's. Failure: the sentence names the parameter. */
#include "api/row_intake.h"

#include "api/upload.h"
#include "base/epoch.h"

/* Bodies of nothing but vectors: `what` is "an octet-stream" or "a .npy body". */
static enum err check_vectors(struct request *r, const struct schema *s, const char *what,
                              struct intake_options *o, struct err_ctx *ctx)
{
    if (s->dim == 0)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the collection has no vectors: %s holds nothing else", what);
    if (s->key != KEY_INT64)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "key",
                          "%s has int64 keys, counted from first_key, and the collection's keys "
                          "are strings: send JSON or NDJSON",
                          what);
    if (!target_param(&r->target, "first_key"))
        return err_set_at(ctx, ERR_INVALID, -1, "first_key",
                          "%s needs first_key=, the key of its first row", what);
    o->load.size_hint = o->length;
    return request_param_int(r, "first_key", &o->decoder.first_key, ctx);
}

static enum err check_octets(struct request *r, const struct schema *s, struct intake_options *o,
                             struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_vectors(r, s, "an octet-stream", o, ctx));
    size_t row_bytes = s->dim * sizeof(float);
    if (o->length % row_bytes)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the body's length, %llu bytes, is no multiple of %zu (dim %u x 4)",
                       (unsigned long long)o->length, row_bytes, s->dim);
    return ERR_OK;
}

static enum err check_media(struct request *r, const struct schema *s, struct intake_options *o,
                            struct err_ctx *ctx)
{
    if (r->media_in == MEDIA_OCTETS)
        return check_octets(r, s, o, ctx);
    if (r->media_in == MEDIA_NPY)
        return check_vectors(r, s, "a .npy body", o, ctx);
    if (target_param(&r->target, "first_key"))
        return err_set_at(ctx, ERR_INVALID, -1, "first_key",
                          "first_key is only for application/octet-stream and application/x-npy: "
                          "rows of other formats carry their keys");
    return ERR_OK;
}

enum err row_intake_begin(struct request *r, struct collection *c, struct intake_options *o,
                          struct err_ctx *ctx)
{
    const struct schema *s = collection_snapshot(c)->schema;
    o->length = r->head.content_length > 0 ? (uint64_t)r->head.content_length : 0;
    o->decoder.media = r->media_in;
    o->decoder.service = r->service;
    o->decoder.row_bytes_max = r->service->limits.row_bytes_max;
    o->decoder.body_bytes = o->length;
    o->digest = r->head.content_digest;
    RETURN_NOT_OK(check_media(r, s, o, ctx));
    size_t row_bytes = r->media_in == MEDIA_OCTETS ? s->dim * sizeof(float) : 0;
    return upload_new(r->service, c, o, row_bytes, &r->upload, ctx);
}
