/* Upkeep on request: compact, vacuum, purge.
 *
 * Threads: they work for long and wait for the disk, so they run on a writer, holding a reference
 * to the collection and no epoch section. Failure: the store's sentence; what was done by then is
 * whole and stays. */
#include "api/routes.h"

#include "api/row_json.h"
#include "store/batch.h"
#include "store/upkeep.h"

/* ---- compact ---- */

static enum err read_empty_body(struct request *r, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    if (r->body.len == 0)
        return ERR_OK;
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(json_object(&r->json, ctx));
    RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
    if (more)
        return request_unknown_field(name, "the body of a compaction", "none", ctx);
    return json_end(&r->json, ctx);
}

enum err upkeep_compact(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    struct compact_result result;
    RETURN_NOT_OK(read_empty_body(r, ctx));
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = collection_seal(c, ctx);
    if (e == ERR_OK)
        e = collection_compact(c, &result, ctx);
    collection_release(c);
    RETURN_NOT_OK(e);
    buf_printf(&r->out,
               "{\"segments_before\":%u,\"segments_after\":%u,\"bytes_before\":%llu,"
               "\"bytes_after\":%llu}\n",
               result.segments_before, result.segments_after,
               (unsigned long long)result.bytes_before, (unsigned long long)result.bytes_after);
    return ERR_OK;
}

/* ---- vacuum ---- */

static enum err read_limit(struct json_reader *json, const char *name, uint64_t *out,
                           struct err_ctx *ctx)
{
    int64_t v;
    RETURN_NOT_OK(json_int64(json, &v, ctx));
    if (v < 1 || v > UINT32_MAX)
        return err_set_at(ctx, ERR_INVALID, -1, name, "%s must be 1 to %u", name, UINT32_MAX);
    *out = (uint64_t)v;
    return ERR_OK;
}

static enum err read_vacuum_field(struct json_reader *json, struct json_slice name,
                                  struct vacuum_options *o, struct err_ctx *ctx)
{
    if (json_slice_is(name, "dry_run"))
        return json_bool(json, &o->dry_run, ctx);
    if (json_slice_is(name, "versions"))
        return read_limit(json, "versions", &o->versions, ctx);
    if (json_slice_is(name, "hours"))
        return read_limit(json, "hours", &o->hours, ctx);
    return request_unknown_field(name, "the body of a vacuum", "dry_run, versions, hours", ctx);
}

static enum err read_vacuum_body(struct request *r, struct vacuum_options *o, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    if (r->body.len == 0)
        return ERR_OK;
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            return json_end(&r->json, ctx);
        RETURN_NOT_OK(read_vacuum_field(&r->json, name, o, ctx));
    }
}

enum err upkeep_vacuum(struct request *r, struct err_ctx *ctx)
{
    struct vacuum_options o = {0};
    struct vacuum_result result;
    struct collection *c;
    RETURN_NOT_OK(read_vacuum_body(r, &o, ctx));
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = collection_vacuum(c, &o, &result, ctx);
    collection_release(c);
    RETURN_NOT_OK(e);
    buf_printf(&r->out,
               "{\"dry_run\":%s,\"versions\":%llu,\"segments\":%llu,\"bytes\":%llu,"
               "\"horizon\":%llu}\n",
               o.dry_run ? "true" : "false", (unsigned long long)result.versions,
               (unsigned long long)result.segments, (unsigned long long)result.bytes,
               (unsigned long long)result.horizon);
    return ERR_OK;
}

/* ---- purge ---- */

static enum err read_purge_body(struct json_reader *json, struct batch *b, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more, seen = false;
    RETURN_NOT_OK(json_object(json, ctx));
    for (;; seen = true) {
        RETURN_NOT_OK(json_next_field(json, &name, &more, ctx));
        if (!more)
            break;
        if (!json_slice_is(name, "keys"))
            return request_unknown_field(name, "the body of a purge", "keys", ctx);
        if (seen)
            return err_set(ctx, ERR_INVALID, "field 'keys' comes twice");
        RETURN_NOT_OK(keys_read_rows(json, b, ctx));
    }
    if (!seen)
        return err_set_at(ctx, ERR_INVALID, -1, "keys", "the body needs \"keys\":[..]");
    return json_end(json, ctx);
}

static enum err purge(struct request *r, struct collection *c, struct batch *keys,
                      struct err_ctx *ctx)
{
    struct purge_result result;
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(read_purge_body(&r->json, keys, ctx));
    RETURN_NOT_OK(collection_purge(c, keys, &result, ctx));
    r->version = (int64_t)result.version;
    buf_printf(&r->out, "{\"version\":%llu,\"purged\":%llu}\n", (unsigned long long)result.version,
               (unsigned long long)result.purged);
    return ERR_OK;
}

enum err upkeep_purge(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    struct batch *keys;
    if (r->body.len == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send {\"keys\":[..]}");
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    struct schema *s = collection_schema(c);
    enum err e = batch_new(s, &keys, ctx);
    schema_release(s);
    if (e == ERR_OK) {
        e = purge(r, c, keys, ctx);
        batch_free(keys);
    }
    collection_release(c);
    return e;
}
