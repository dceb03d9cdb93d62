/* Rows: load them, delete them by key.
 *
 * A load's body streams through an upload; what can be known from the head (the mode, the length of
 * an octet-stream) is checked before the first byte. A deletion's keys are gathered and run on a
 * writer.
 *
 * Threads: rows_begin and rows_answer on the HTTP thread, rows_delete on a writer. Failure: nothing
 * is committed; the sentence names row and field. */
#include "api/routes.h"

#include "api/json_writer.h"
#include "api/problem.h"
#include "api/row_json.h"
#include "api/slow_log.h"
#include "api/upload.h"
#include "base/clock.h"
#include "base/epoch.h"
#include "base/metrics.h"

METRIC_HISTOGRAM(load_time, "loadstone_load_duration_seconds",
                 "Time of a committed load: from the request line to the answer made.")

enum { MESSAGE_BYTES_MAX = 4096 };

static enum err read_mode(struct request *r, struct load_options *o, struct err_ctx *ctx)
{
    const struct target_segment *mode = target_param(&r->target, "mode");
    if (!mode || strcmp(mode->text, "upsert") == 0)
        o->mode = LOAD_UPSERT;
    else if (strcmp(mode->text, "append") == 0)
        o->mode = LOAD_APPEND;
    else
        return err_set_at(ctx, ERR_INVALID, -1, "mode",
                          "mode=%.40s is not available in this build: take upsert or append",
                          mode->text);
    return ERR_OK;
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

/* Bodies of nothing but vectors: `what` is "an octet-stream" or "a .npy body". */
static enum err check_vectors(struct request *r, const struct schema *s, const char *what,
                              struct upload_options *o, struct err_ctx *ctx)
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

static enum err check_octets(struct request *r, const struct schema *s, struct upload_options *o,
                             struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_vectors(r, s, "an octet-stream", o, ctx));
    o->row_bytes = s->dim * sizeof(float);
    if (o->length % o->row_bytes)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the body's length, %llu bytes, is no multiple of %zu (dim %u x 4)",
                       (unsigned long long)o->length, o->row_bytes, s->dim);
    return ERR_OK;
}

static enum err check_media(struct request *r, const struct schema *s, struct upload_options *o,
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

static enum err begin_upload(struct request *r, struct upload_options *o, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(request_collection(r, &c, ctx));
    RETURN_NOT_OK(check_media(r, collection_snapshot(c)->schema, o, ctx));
    return upload_new(r->service, c, o, &r->upload, ctx);
}

enum err rows_begin(struct request *r, struct err_ctx *ctx)
{
    struct upload_options o = {
        .decoder = {.media = r->media_in,
                    .service = r->service,
                    .row_bytes_max = r->service->limits.row_bytes_max},
        .length = r->head.content_length > 0 ? (uint64_t)r->head.content_length : 0,
    };
    o.decoder.body_bytes = o.length;
    RETURN_NOT_OK(read_mode(r, &o.load, ctx));
    RETURN_NOT_OK(read_duplicates(r, &o.load, ctx));
    RETURN_NOT_OK(read_commit_options(r, &o.load, ctx));
    epoch_enter();
    enum err e = begin_upload(r, &o, ctx);
    epoch_leave();
    return e;
}

static void write_result(struct request *r, const struct commit_result *c)
{
    r->version = (int64_t)c->version;
    slow_log_note(r, "rows", c->rows);
    slow_log_note(r, "inserted", c->inserted);
    slow_log_note(r, "updated", c->updated);
    slow_log_note(r, "deleted", c->deleted);
    buf_printf(&r->out,
               "{\"version\":%llu,\"rows\":%llu,\"inserted\":%llu,\"updated\":%llu,"
               "\"deleted\":%llu}\n",
               (unsigned long long)c->version, (unsigned long long)c->rows,
               (unsigned long long)c->inserted, (unsigned long long)c->updated,
               (unsigned long long)c->deleted);
}

enum err rows_answer(struct request *r, struct err_ctx *ctx)
{
    struct commit_result result;
    RETURN_NOT_OK(upload_result(r->upload, &result, ctx));
    write_result(r, &result);
    metric_observe_us(&load_time, 0, clock_mono_us() - r->started_us);
    return ERR_OK;
}

/* ---- delete ---- */

static enum err read_keys(struct json_reader *json, struct batch *b, struct err_ctx *ctx)
{
    bool more;
    RETURN_NOT_OK(json_array(json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(json, &more, ctx));
        if (!more)
            return ERR_OK;
        int64_t row = (int64_t)b->rows;
        enum err e = key_read_row(json, b, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, row, "keys", 4);
            return e;
        }
    }
}

static enum err read_delete_body(struct json_reader *json, struct batch *b, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more, seen = false;
    RETURN_NOT_OK(json_object(json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(json, &name, &more, ctx));
        if (!more)
            break;
        if (!json_slice_is(name, "keys"))
            return request_unknown_field(name, "the body of a deletion", "keys", ctx);
        if (seen)
            return err_set(ctx, ERR_INVALID, "field 'keys' comes twice");
        seen = true;
        enum err e = read_keys(json, b, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, -1, "keys", 4);
            return e;
        }
    }
    if (!seen)
        return err_set(ctx, ERR_INVALID, "the body needs \"keys\":[..]");
    return json_end(json, ctx);
}

static enum err delete_rows(struct request *r, struct collection *c, struct schema *s,
                            const struct load_options *o, struct err_ctx *ctx)
{
    struct commit_result result;
    struct batch *keys;
    RETURN_NOT_OK(batch_new(s, &keys, ctx));
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    enum err e = read_delete_body(&r->json, keys, ctx);
    if (e == ERR_OK)
        e = collection_delete_keys(c, keys, o, &result, ctx);
    if (e == ERR_OK)
        write_result(r, &result);
    batch_free(keys);
    return e;
}

/* The commit must not keep an epoch section open: it waits for the disk. */
static enum err hold_collection(struct request *r, struct collection **c, struct schema **s,
                                struct err_ctx *ctx)
{
    epoch_enter();
    enum err e = request_collection(r, c, ctx);
    if (e == ERR_OK) {
        *s = schema_acquire(collection_snapshot(*c)->schema);
        collection_acquire(*c);
    }
    epoch_leave();
    return e;
}

enum err rows_delete(struct request *r, struct err_ctx *ctx)
{
    struct load_options o = {.mode = LOAD_DELETE, .duplicates_last = true};
    struct collection *c;
    struct schema *s;
    RETURN_NOT_OK(read_commit_options(r, &o, ctx));
    if (r->body.len == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send {\"keys\":[..]}");
    RETURN_NOT_OK(hold_collection(r, &c, &s, ctx));
    enum err e = delete_rows(r, c, s, &o, ctx);
    schema_release(s);
    collection_release(c);
    return e;
}
