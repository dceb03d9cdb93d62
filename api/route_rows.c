/* Rows: load them, delete them by key or filter.
 *
 * A load's body streams through an upload; what can be known from its head is checked before the
 * first byte. A commit that takes long is waited for (load_answer.c). A deletion's keys are
 * gathered and run on a writer.
 *
 * Threads: rows_begin and rows_answer on the HTTP thread, rows_delete on a writer. Failure: nothing
 * is committed; the sentence names row and field. */
#include "api/routes.h"

#include "api/commit_body.h"
#include "api/filter_param.h"
#include "api/json_writer.h"
#include "api/load_call.h"
#include "api/problem.h"
#include "api/row_intake.h"
#include "api/row_json.h"
#include "api/upload.h"
#include "base/clock.h"
#include "base/epoch.h"
#include "base/metrics.h"

METRIC_HISTOGRAM(load_time, "loadstone_load_duration_seconds",
                 "Time of a committed load: from the request line to the answer made.")

static enum err read_mode(struct request *r, struct load_options *o, struct err_ctx *ctx)
{
    const struct target_segment *mode = target_param(&r->target, "mode");
    return mode ? load_mode_read(mode->text, mode->len, &o->mode, ctx) : ERR_OK;
}

static enum err read_wait(struct request *r, struct load_options *o, struct err_ctx *ctx)
{
    const struct target_segment *wait = target_param(&r->target, "wait");
    return wait ? load_wait_read(wait->text, wait->len, &o->wait, ctx) : ERR_OK;
}

static enum err read_duplicates(struct request *r, struct load_options *o, struct err_ctx *ctx)
{
    const struct target_segment *text = target_param(&r->target, "duplicates");
    o->duplicates_last = text && strcmp(text->text, "last") == 0;
    if (!text || o->duplicates_last || strcmp(text->text, "error") == 0)
        return ERR_OK;
    return err_set_at(ctx, ERR_INVALID, -1, "duplicates",
                      "duplicates=%.40s is not known: take last or error", text->text);
}

/* What loads and deletions share: expected_version and message. */
static enum err read_commit_options(struct request *r, struct load_options *o, struct err_ctx *ctx)
{
    const struct target_segment *message = target_param(&r->target, "message");
    uint64_t expected = UINT64_MAX;
    RETURN_NOT_OK(request_param_uint(r, "expected_version", 0, INT64_MAX, &expected, ctx));
    o->expected_version = expected == UINT64_MAX ? -1 : (int64_t)expected;
    if (!message)
        return ERR_OK;
    if (message->len > MESSAGE_BYTES_MAX || !utf8_valid(message->text, message->len))
        return err_set_at(ctx, ERR_INVALID, -1, "message",
                          "message must be UTF-8 of at most %d bytes", MESSAGE_BYTES_MAX);
    o->message = message->text;
    return ERR_OK;
}

/* ---- load ---- */

static enum err begin_upload(struct request *r, struct intake_options *o, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(request_collection(r, &c, ctx));
    return row_intake_begin(r, c, o, ctx);
}

enum err rows_begin(struct request *r, struct err_ctx *ctx)
{
    struct intake_options o = {.key = r->head.idempotency_key};
    uint64_t wait_s;
    RETURN_NOT_OK(read_mode(r, &o.load, ctx));
    RETURN_NOT_OK(read_wait(r, &o.load, ctx));
    RETURN_NOT_OK(wait_s_read(r, &wait_s, ctx));
    RETURN_NOT_OK(read_duplicates(r, &o.load, ctx));
    RETURN_NOT_OK(read_commit_options(r, &o.load, ctx));
    epoch_enter();
    enum err e = begin_upload(r, &o, ctx);
    epoch_leave();
    return e;
}

enum err rows_answer(struct request *r, struct err_ctx *ctx)
{
    struct intake_outcome out;
    uint64_t wait_s;
    RETURN_NOT_OK(upload_result(r->upload, &out, ctx));
    if (out.running) {
        RETURN_NOT_OK(wait_s_read(r, &wait_s, ctx));
        RETURN_NOT_OK(load_answer(r, out.running, wait_s, ctx));
        if (r->waits_for && !r->waited)
            return ERR_OK; /* it runs on, and is looked at again */
    } else {
        commit_result_write(r, &out.result, out.event_time);
    }
    metric_observe_us(&load_time, 0, clock_mono_us() - r->started_us);
    return ERR_OK;
}

/* ---- delete ---- */

/* What is deleted: rows by key, or those that a filter matches. */
struct deletion {
    struct batch *keys;
    struct filter *filter; /* NULL: by key */
    bool by_key;
};

static enum err read_delete_field(struct request *r, struct json_slice name, struct deletion *d,
                                  struct err_ctx *ctx)
{
    if (json_slice_is(name, "filter")) {
        if (d->filter)
            return err_set(ctx, ERR_INVALID, "field 'filter' comes twice");
        return filter_read_json(r, d->keys->schema, &d->filter, ctx);
    }
    if (!json_slice_is(name, "keys"))
        return request_unknown_field(name, "the body of a deletion", "keys, filter", ctx);
    if (d->by_key)
        return err_set(ctx, ERR_INVALID, "field 'keys' comes twice");
    d->by_key = true;
    enum err e = keys_read_rows(&r->json, d->keys, ctx);
    if (e != ERR_OK)
        problem_place(ctx, -1, "keys", 4);
    return e;
}

static enum err read_delete_body(struct request *r, struct deletion *d, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            break;
        RETURN_NOT_OK(read_delete_field(r, name, d, ctx));
    }
    RETURN_NOT_OK(json_end(&r->json, ctx));
    if (d->by_key == (d->filter != NULL))
        return err_set(ctx, ERR_INVALID,
                       d->by_key ? "\"keys\" and \"filter\" exclude each other: send one"
                                 : "the body needs \"keys\":[..] or \"filter\":\"..\"");
    return ERR_OK;
}

static enum err run_deletion(struct collection *c, const struct deletion *d,
                             const struct load_options *o, struct commit_result *result,
                             struct err_ctx *ctx)
{
    return d->filter ? collection_delete_filter(c, d->filter, o, result, ctx)
                     : collection_delete_keys(c, d->keys, o, result, ctx);
}

static enum err delete_rows(struct request *r, struct collection *c, struct schema *s,
                            const struct load_options *o, struct commit_result *result,
                            struct err_ctx *ctx)
{
    struct deletion d = {0};
    RETURN_NOT_OK(batch_new(s, &d.keys, ctx));
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    enum err e = read_delete_body(r, &d, ctx);
    if (e == ERR_OK)
        e = run_deletion(c, &d, o, result, ctx);
    filter_free(d.filter);
    batch_free(d.keys);
    return e;
}

static enum err delete_once(struct request *r, struct collection *c, struct schema *s,
                            struct load_options *o, struct err_ctx *ctx)
{
    struct idempotency idem;
    struct commit_result result;
    bool replay;
    enum err e = idempotency_begin(r, c, "delete", &idem, &replay, &result, ctx);
    o->receipt = idempotency_receipt(&idem);
    if (e == ERR_OK && !replay)
        e = delete_rows(r, c, s, o, &result, ctx);
    idempotency_end(&idem, e, LOAD_DELETE, e == ERR_OK && !replay ? &result : NULL);
    if (e == ERR_OK)
        commit_result_write(r, &result, false);
    return e;
}

enum err rows_delete(struct request *r, struct err_ctx *ctx)
{
    struct load_options o = {.mode = LOAD_DELETE, .duplicates_last = true};
    struct collection *c;
    RETURN_NOT_OK(read_commit_options(r, &o, ctx));
    if (r->body.len == 0)
        return err_set(ctx, ERR_INVALID,
                       "the body is empty: send {\"keys\":[..]} or {\"filter\":\"..\"}");
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    struct schema *s = collection_schema(c);
    enum err e = delete_once(r, c, s, &o, ctx);
    schema_release(s);
    collection_release(c);
    return e;
}
