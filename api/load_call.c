/* The body of POST loads. The load keeps it as it came and reads it again at its commit, under the
 * schema of then: the options of a load need no form of their own on disk.
 *
 * Threads: no state. Failure: a sentence that names the field. */
#include "api/load_call.h"

#include <stdlib.h>

#include "api/problem.h"
#include "api/request.h"
#include "api/row_json.h"

void load_call_free(struct load_call *call)
{
    if (!call)
        return;
    commit_body_deinit(&call->body);
    batch_free(call->partitions);
    free(call);
}

enum err load_mode_read(const char *text, size_t n, enum load_mode *out, struct err_ctx *ctx)
{
    for (enum load_mode m = LOAD_UPSERT; m <= LOAD_PARTITION; m++) {
        if (strlen(load_mode_name(m)) == n && memcmp(load_mode_name(m), text, n) == 0) {
            *out = m;
            return ERR_OK;
        }
    }
    return err_set_at(ctx, ERR_INVALID, -1, "mode",
                      "mode '%.*s' is not known: take upsert, append, full_refresh or "
                      "partition_overwrite",
                      n > 40 ? 40 : (int)n, text);
}

enum err load_wait_read(const char *text, size_t n, enum load_wait *out, struct err_ctx *ctx)
{
    bool indexed = n == 7 && memcmp(text, "indexed", 7) == 0;
    if (!indexed && !(n == 7 && memcmp(text, "durable", 7) == 0))
        return err_set_at(ctx, ERR_INVALID, -1, "wait",
                          "wait '%.*s' is not known: take durable or indexed", n > 40 ? 40 : (int)n,
                          text);
    *out = indexed ? LOAD_WAIT_INDEXED : LOAD_WAIT_DURABLE;
    return ERR_OK;
}

static enum err read_duplicates(struct json_reader *json, struct load_call *call,
                                struct err_ctx *ctx)
{
    struct json_slice s;
    RETURN_NOT_OK(json_string(json, &s, ctx));
    call->options.duplicates_last = json_slice_is(s, "last");
    if (call->options.duplicates_last || json_slice_is(s, "error"))
        return ERR_OK;
    return err_set(ctx, ERR_INVALID, "'duplicates' is neither last nor error");
}

/* ---- partitions ---- */

static bool is_partition_feature(const struct schema *s, int feature)
{
    for (uint32_t i = 0; i < s->npartition; i++) {
        if (strcmp(s->partition_by[i], s->features[feature].name) == 0)
            return true;
    }
    return false;
}

/* {"day":"d1"}: exactly the features of partition_by. */
static enum err read_partition(struct row_reader *r, struct batch *b, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    uint32_t seen = 0;
    RETURN_NOT_OK(r->schema->key == KEY_INT64 ? batch_row_int(b, (int64_t)b->rows, ctx)
                                              : batch_row_str(b, "p", 1, ctx));
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;; seen++) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            break;
        int feature = schema_find(r->schema, name.data, name.len);
        if (feature < 0 || !is_partition_feature(r->schema, feature))
            return err_set(ctx, ERR_UNPROCESSABLE,
                           "'%.*s' is not one of the features that the collection is partitioned "
                           "by",
                           name.len > 128 ? 128 : (int)name.len, name.data);
        RETURN_NOT_OK(row_reader_feature(r, b, (uint32_t)feature, ctx));
    }
    if (seen == r->schema->npartition)
        return ERR_OK;
    return err_set(ctx, ERR_UNPROCESSABLE,
                   "a partition needs a value (or null) for each feature that the collection is "
                   "partitioned by");
}

static enum err read_partition_list(struct row_reader *r, struct batch *b, struct err_ctx *ctx)
{
    bool more;
    RETURN_NOT_OK(json_array(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(&r->json, &more, ctx));
        if (!more)
            return ERR_OK;
        if (b->rows == PARTITIONS_MAX)
            return err_set(ctx, ERR_TOO_LARGE, "more than %d partitions", PARTITIONS_MAX);
        enum err e = read_partition(r, b, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, (int64_t)b->rows - 1, NULL, 0);
            return e;
        }
    }
}

static enum err read_partitions(struct json_reader *json, struct load_call *call, struct schema *s,
                                struct err_ctx *ctx)
{
    struct json_slice text;
    struct row_reader r;
    if (s->npartition == 0)
        return err_set(ctx, ERR_UNPROCESSABLE, "the collection has no partition_by");
    RETURN_NOT_OK(json_raw(json, &text, ctx));
    batch_free(call->partitions);
    call->partitions = NULL;
    RETURN_NOT_OK(batch_new(s, &call->partitions, ctx));
    call->options.partitions = call->partitions;
    RETURN_NOT_OK(row_reader_init(&r, s, ctx));
    json_reinit(&r.json, text.data, text.len, json->base + (uint64_t)(text.data - json->start));
    enum err e = read_partition_list(&r, call->partitions, ctx);
    row_reader_deinit(&r);
    return e;
}

/* ---- the body ---- */

static enum err read_field(struct json_reader *json, struct json_slice name, struct load_call *call,
                           struct schema *s, struct err_ctx *ctx)
{
    struct json_slice text;
    if (json_slice_is(name, "mode")) {
        RETURN_NOT_OK(json_string(json, &text, ctx));
        return load_mode_read(text.data, text.len, &call->options.mode, ctx);
    }
    if (json_slice_is(name, "duplicates"))
        return read_duplicates(json, call, ctx);
    if (json_slice_is(name, "partitions"))
        return read_partitions(json, call, s, ctx);
    bool taken;
    RETURN_NOT_OK(commit_body_field(&call->body, json, name, &taken, ctx));
    if (taken)
        return ERR_OK;
    return request_unknown_field(name, "the body of a load",
                                 "mode, duplicates, message, metadata, expected_version, "
                                 "partitions",
                                 ctx);
}

static enum err read_body(struct json_reader *json, struct load_call *call, struct schema *s,
                          struct err_ctx *ctx)
{
    struct json_slice name;
    char field[NAME_MAX_BYTES + 1];
    bool more;
    RETURN_NOT_OK(json_object(json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(json, &name, &more, ctx));
        if (!more)
            break;
        size_t len = name.len < NAME_MAX_BYTES ? name.len : NAME_MAX_BYTES;
        memcpy(field, name.data, len);
        enum err e = read_field(json, name, call, s, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, -1, field, len);
            return e;
        }
    }
    RETURN_NOT_OK(json_end(json, ctx));
    commit_body_options(&call->body, &call->options);
    if (call->partitions && call->options.mode != LOAD_PARTITION)
        return err_set_at(ctx, ERR_INVALID, -1, "partitions",
                          "'partitions' is only for mode partition_overwrite");
    return ERR_OK;
}

enum err load_call_read(const char *text, size_t n, struct schema *s, struct load_call **out,
                        struct err_ctx *ctx)
{
    struct json_reader json;
    struct load_call *call = calloc(1, sizeof *call);
    if (!call)
        return err_no_memory(ctx, sizeof *call);
    call->options.expected_version = -1;
    commit_body_init(&call->body);
    enum err e = ERR_OK;
    if (n) {
        json_init(&json, text, n, 0);
        e = read_body(&json, call, s, ctx);
        json_deinit(&json);
    }
    if (e == ERR_OK && call->options.mode == LOAD_PARTITION && s->npartition == 0)
        e = err_set_at(ctx, ERR_UNPROCESSABLE, -1, "mode",
                       "mode partition_overwrite needs a collection with partition_by");
    if (e != ERR_OK) {
        load_call_free(call);
        return e;
    }
    *out = call;
    return ERR_OK;
}
