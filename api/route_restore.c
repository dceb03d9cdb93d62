/* POST ../restore: the rows of an old version again, as a commit.
 *
 * Threads: on a writer, since it waits for the disk. Failure: the store's sentence; nothing
 * changes. */
#include "api/routes.h"

#include "api/commit_body.h"
#include "api/idempotency.h"
#include "api/selector.h"
#include "base/epoch.h"
#include "store/version.h"

static const char restore_fields[] = "version, tag, as_of, message, metadata, expected_version";

static enum err read_restore(struct request *r, struct commit_body *b, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more, taken;
    if (r->body.len == 0)
        return err_set(ctx, ERR_INVALID,
                       "the body is empty: send {\"version\":7}, {\"tag\":\"..\"} or "
                       "{\"as_of\":\"..\"}");
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            break;
        if (selector_is_field(name)) {
            RETURN_NOT_OK(selector_read_field(r, name, ctx));
            continue;
        }
        RETURN_NOT_OK(commit_body_field(b, &r->json, name, &taken, ctx));
        if (!taken)
            return request_unknown_field(name, "the body of a restore", restore_fields, ctx);
    }
    if (r->selector.kind == SELECT_NEWEST)
        return err_set(ctx, ERR_INVALID,
                       "the body must say what to restore: version, tag or as_of");
    return json_end(&r->json, ctx);
}

static enum err restore(struct request *r, struct collection *c, struct load_options *o,
                        struct commit_result *result, struct err_ctx *ctx)
{
    uint64_t version;
    RETURN_NOT_OK(collection_resolve(c, &r->selector, true, &version, ctx));
    return collection_restore(c, version, o, result, ctx);
}

static enum err restore_in(struct request *r, struct collection *c, const struct commit_body *b,
                           struct err_ctx *ctx)
{
    struct load_options o = {.mode = LOAD_RESTORE};
    struct commit_result result;
    struct idempotency idem;
    bool replay;
    commit_body_options(b, &o);
    enum err e = idempotency_begin(r, c, "restore", &idem, &replay, &result, ctx);
    o.receipt = idempotency_receipt(&idem);
    if (e == ERR_OK && !replay)
        e = restore(r, c, &o, &result, ctx);
    idempotency_end(&idem, e, o.mode, e == ERR_OK && !replay ? &result : NULL);
    RETURN_NOT_OK(e);
    epoch_enter();
    bool event_time = collection_snapshot(c)->schema->event_time >= 0;
    epoch_leave();
    commit_result_write(r, &result, event_time);
    return ERR_OK;
}

enum err version_restore(struct request *r, struct err_ctx *ctx)
{
    struct commit_body body;
    struct collection *c;
    commit_body_init(&body);
    enum err e = read_restore(r, &body, ctx);
    if (e == ERR_OK)
        e = request_hold_collection(r, &c, ctx);
    if (e == ERR_OK) {
        e = restore_in(r, c, &body, ctx);
        collection_release(c);
    }
    commit_body_deinit(&body);
    return e;
}
