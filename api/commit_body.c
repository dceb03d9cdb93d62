/* Bodies and answers of commits.
 *
 * Threads: the request's. Failure: the sentence names the field. */
#include "api/commit_body.h"

#include "api/json_writer.h"
#include "api/problem.h"
#include "api/slow_log.h"

enum { SEEN_EXPECTED = 1, SEEN_MESSAGE = 2, SEEN_METADATA = 4 };

void commit_body_init(struct commit_body *b)
{
    *b = (struct commit_body){.expected_version = -1};
}

void commit_body_deinit(struct commit_body *b)
{
    buf_deinit(&b->message);
    buf_deinit(&b->metadata);
}

static enum err keep(struct buf *to, struct json_slice text, struct err_ctx *ctx)
{
    buf_reset(to);
    buf_put(to, text.data, text.len);
    buf_put_u8(to, 0);
    return to->failed ? err_no_memory(ctx, text.len) : ERR_OK;
}

static enum err read_expected(struct commit_body *b, struct json_reader *json, struct err_ctx *ctx)
{
    RETURN_NOT_OK(json_int64(json, &b->expected_version, ctx));
    if (b->expected_version >= 0)
        return ERR_OK;
    return err_set(ctx, ERR_INVALID, "expected_version is %lld; it must be 0 or more",
                   (long long)b->expected_version);
}

static enum err read_message(struct commit_body *b, struct json_reader *json, struct err_ctx *ctx)
{
    struct json_slice text;
    RETURN_NOT_OK(json_string(json, &text, ctx));
    if (text.len > MESSAGE_BYTES_MAX || memchr(text.data, 0, text.len))
        return err_set(ctx, ERR_INVALID, "message must be text of at most %d bytes, without NUL",
                       MESSAGE_BYTES_MAX);
    return keep(&b->message, text, ctx);
}

static enum err read_metadata(struct commit_body *b, struct json_reader *json, struct err_ctx *ctx)
{
    enum json_type type;
    struct json_slice text;
    RETURN_NOT_OK(json_peek(json, &type, ctx));
    if (type != JSON_OBJECT)
        return err_set(ctx, ERR_INVALID, "metadata is %s; it must be an object",
                       json_type_name(type));
    RETURN_NOT_OK(json_raw(json, &text, ctx));
    if (text.len > METADATA_BYTES_MAX)
        return err_set(ctx, ERR_INVALID, "metadata has %zu bytes; at most %d are kept", text.len,
                       METADATA_BYTES_MAX);
    return keep(&b->metadata, text, ctx);
}

static unsigned field_of(struct json_slice name)
{
    if (json_slice_is(name, "expected_version"))
        return SEEN_EXPECTED;
    if (json_slice_is(name, "message"))
        return SEEN_MESSAGE;
    return json_slice_is(name, "metadata") ? SEEN_METADATA : 0;
}

static enum err read_field(struct commit_body *b, struct json_reader *json, unsigned field,
                           struct err_ctx *ctx)
{
    enum json_type type;
    if (b->seen & field)
        return err_set(ctx, ERR_INVALID, "the field comes twice in the body");
    b->seen |= field;
    RETURN_NOT_OK(json_peek(json, &type, ctx));
    if (type == JSON_NULL)
        return json_null(json, ctx);
    if (field == SEEN_EXPECTED)
        return read_expected(b, json, ctx);
    return field == SEEN_MESSAGE ? read_message(b, json, ctx) : read_metadata(b, json, ctx);
}

enum err commit_body_field(struct commit_body *b, struct json_reader *json, struct json_slice name,
                           bool *taken, struct err_ctx *ctx)
{
    unsigned field = field_of(name);
    *taken = field != 0;
    if (!field)
        return ERR_OK;
    enum err e = read_field(b, json, field, ctx);
    if (e != ERR_OK)
        problem_place(ctx, -1, name.data, name.len);
    return e;
}

void commit_body_options(const struct commit_body *b, struct load_options *o)
{
    o->expected_version = b->expected_version;
    o->message = b->message.len ? (const char *)b->message.data : NULL;
    o->metadata = b->metadata.len ? (const char *)b->metadata.data : NULL;
}

void commit_result_put(struct buf *out, const struct commit_result *c, bool event_time)
{
    buf_printf(out,
               "{\"version\":%llu,\"rows\":%llu,\"inserted\":%llu,\"updated\":%llu,"
               "\"deleted\":%llu",
               (unsigned long long)c->version, (unsigned long long)c->rows,
               (unsigned long long)c->inserted, (unsigned long long)c->updated,
               (unsigned long long)c->deleted);
    if (event_time)
        buf_printf(out, ",\"stale\":%llu", (unsigned long long)c->stale);
    buf_put_u8(out, '}');
}

void commit_result_write(struct request *r, const struct commit_result *c, bool event_time)
{
    r->version = (int64_t)c->version;
    slow_log_note(r, "rows", c->rows);
    slow_log_note(r, "inserted", c->inserted);
    slow_log_note(r, "updated", c->updated);
    slow_log_note(r, "deleted", c->deleted);
    commit_result_put(&r->out, c, event_time);
    buf_put_u8(&r->out, '\n');
}
