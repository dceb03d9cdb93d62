/* Versions and their tags: list, describe, name.
 *
 * Threads: all but the reading of a tag reads or writes files and runs on a writer. Failure: the
 * store's sentence. */
#include "api/routes.h"

#include "api/json_writer.h"
#include "api/problem.h"
#include "api/schema_json.h"
#include "base/epoch.h"
#include "store/load.h"
#include "store/version.h"

enum { VERSIONS_DEFAULT = 100 };

/* ---- tags of versions ---- */

/* Names as they stand in the collection, each behind its version: u64, blob. */
struct tag_list {
    struct buf entries;
};

static void add_tag(void *arg, const char *tag, uint64_t version)
{
    struct tag_list *list = arg;
    buf_put_u64(&list->entries, version);
    buf_put_blob(&list->entries, tag, strlen(tag));
}

static bool next_tag(struct cursor *c, uint64_t *version, struct json_slice *tag)
{
    if (!cursor_left(c))
        return false;
    *version = cursor_u64(c);
    tag->data = cursor_blob(c, &tag->len);
    return !c->failed;
}

static void put_tags_of(const struct tag_list *list, uint64_t version, struct buf *out)
{
    struct cursor c = cursor_over(list->entries.data, list->entries.len);
    struct json_slice tag;
    uint64_t its;
    bool any = false;
    json_put_raw(out, ",\"tags\":[");
    while (next_tag(&c, &its, &tag)) {
        if (its != version)
            continue;
        if (any)
            buf_put_u8(out, ',');
        json_put_string(out, tag.data, tag.len);
        any = true;
    }
    buf_put_u8(out, ']');
}

/* ---- versions ---- */

static void put_counts(const struct version_info *v, bool event_time, struct buf *out)
{
    buf_printf(out, ",\"rows\":%llu,\"inserted\":%llu,\"updated\":%llu,\"deleted\":%llu",
               (unsigned long long)v->rows, (unsigned long long)v->inserted,
               (unsigned long long)v->updated, (unsigned long long)v->deleted);
    if (event_time)
        buf_printf(out, ",\"stale\":%llu", (unsigned long long)v->stale);
    buf_printf(out, ",\"digest\":\"%016llx%016llx\"", (unsigned long long)v->digest.hi,
               (unsigned long long)v->digest.lo);
}

/* The object without its last brace. */
static void put_version(const struct version_info *v, const struct tag_list *tags, bool event_time,
                        struct buf *out)
{
    buf_printf(out, "{\"version\":%llu,\"time\":", (unsigned long long)v->version);
    json_put_timestamp(out, v->time_us);
    buf_printf(out, ",\"mode\":\"%s\",\"message\":", load_mode_name(v->mode));
    if (v->message_len)
        json_put_string(out, v->message, v->message_len);
    else
        json_put_raw(out, "null");
    json_put_raw(out, ",\"metadata\":");
    if (v->metadata_len)
        buf_put(out, v->metadata, v->metadata_len);
    else
        json_put_raw(out, "null");
    put_counts(v, event_time, out);
    put_tags_of(tags, v->version, out);
}

static bool has_event_time(const struct collection *c)
{
    epoch_enter();
    bool has = collection_snapshot(c)->schema->event_time >= 0;
    epoch_leave();
    return has;
}

struct listing {
    struct request *r;
    struct tag_list tags;
    bool event_time, any;
};

static bool list_version(void *arg, const struct version_info *v)
{
    struct listing *l = arg;
    if (l->any)
        buf_put_u8(&l->r->out, ',');
    l->any = true;
    put_version(v, &l->tags, l->event_time, &l->r->out);
    buf_put_u8(&l->r->out, '}');
    return request_check_out(l->r, NULL) == ERR_OK;
}

static enum err list_in(struct request *r, struct collection *c, struct err_ctx *ctx)
{
    uint64_t before = 0, most = r->service->limits.rows_page_max;
    uint64_t limit = VERSIONS_DEFAULT < most ? VERSIONS_DEFAULT : most;
    struct listing l = {.r = r, .event_time = has_event_time(c)};
    RETURN_NOT_OK(request_param_uint(r, "before", 1, INT64_MAX, &before, ctx));
    RETURN_NOT_OK(request_param_uint(r, "limit", 1, most, &limit, ctx));
    collection_tags_each(c, add_tag, &l.tags);
    json_put_raw(&r->out, "{\"versions\":[");
    enum err e = collection_versions(c, before, limit, list_version, &l, ctx);
    json_put_raw(&r->out, "]}\n");
    if (e == ERR_OK && l.tags.entries.failed)
        e = err_no_memory(ctx, l.tags.entries.len);
    buf_deinit(&l.tags.entries);
    return e == ERR_OK ? request_check_out(r, ctx) : e;
}

enum err versions_list(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = list_in(r, c, ctx);
    collection_release(c);
    return e;
}

/* What is read of the version: live rows, bytes, schema. */
static void put_content(const struct snapshot *s, struct buf *out)
{
    buf_printf(out, ",\"live_rows\":%llu,\"live_vectors\":%llu,\"bytes\":%llu,\"schema\":",
               (unsigned long long)s->rows, (unsigned long long)s->vectors,
               (unsigned long long)s->bytes);
    schema_write_json(s->schema, out);
    json_put_raw(out, "}\n");
}

static enum err describe_in(struct request *r, struct collection *c, uint64_t version,
                            struct err_ctx *ctx)
{
    struct version_info info;
    struct snapshot *s;
    struct buf hold = {0};
    struct tag_list tags = {0};
    enum err e = collection_version_info(c, version, &hold, &info, ctx);
    if (e == ERR_OK)
        e = collection_open_version(c, version, true, &s, ctx);
    if (e == ERR_OK) {
        collection_tags_each(c, add_tag, &tags);
        put_version(&info, &tags, has_event_time(c), &r->out);
        put_content(s, &r->out);
        snapshot_release(s);
        r->version = (int64_t)version;
        if (tags.entries.failed)
            e = err_no_memory(ctx, tags.entries.len);
    }
    buf_deinit(&tags.entries);
    buf_deinit(&hold);
    return e;
}

enum err version_describe(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    uint64_t version;
    RETURN_NOT_OK(request_segment_version(r, 4, &version, ctx));
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = describe_in(r, c, version, ctx);
    collection_release(c);
    return e;
}

/* ---- tags ---- */

static void put_tag(struct buf *out, const char *tag, size_t len, uint64_t version)
{
    json_put_raw(out, "{\"tag\":");
    json_put_string(out, tag, len);
    buf_printf(out, ",\"version\":%llu}", (unsigned long long)version);
}

enum err list_tags(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    struct tag_list list = {0};
    struct json_slice tag;
    uint64_t version;
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    collection_tags_each(c, add_tag, &list);
    collection_release(c);
    struct cursor at = cursor_over(list.entries.data, list.entries.len);
    json_put_raw(&r->out, "{\"tags\":[");
    for (bool any = false; next_tag(&at, &version, &tag); any = true) {
        if (any)
            buf_put_u8(&r->out, ',');
        put_tag(&r->out, tag.data, tag.len, version);
    }
    json_put_raw(&r->out, "]}\n");
    r->out.failed |= list.entries.failed;
    buf_deinit(&list.entries);
    return request_check_out(r, ctx);
}

static const char *asked_tag(const struct request *r)
{
    return request_segment(r, 4)->text;
}

static void answer_tag(struct request *r, uint64_t version)
{
    put_tag(&r->out, asked_tag(r), request_segment(r, 4)->len, version);
    buf_put_u8(&r->out, '\n');
    r->version = (int64_t)version;
}

enum err tag_get(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    uint64_t version;
    epoch_enter();
    enum err e = request_collection(r, &c, ctx);
    if (e == ERR_OK)
        e = collection_tag_get(c, asked_tag(r), &version, ctx);
    epoch_leave();
    if (e == ERR_OK)
        answer_tag(r, version);
    return e;
}

static enum err read_number(struct json_reader *json, int64_t *v, struct err_ctx *ctx)
{
    enum err e = json_int64(json, v, ctx);
    if (e == ERR_OK && *v < 0)
        e = err_set(ctx, ERR_INVALID, "version is %lld; versions count from 1", (long long)*v);
    if (e != ERR_OK)
        problem_place(ctx, -1, "version", 7);
    return e;
}

static enum err read_tag_body(struct request *r, uint64_t *version, struct err_ctx *ctx)
{
    struct json_slice name;
    int64_t v = -1;
    bool more;
    if (r->body.len == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send {\"version\":7}");
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            break;
        if (!json_slice_is(name, "version"))
            return request_unknown_field(name, "the body of a tag", "version", ctx);
        if (v >= 0)
            return err_set(ctx, ERR_INVALID, "field 'version' comes twice in the body");
        RETURN_NOT_OK(read_number(&r->json, &v, ctx));
    }
    if (v < 0)
        return err_set_at(ctx, ERR_INVALID, -1, "version", "the body needs \"version\":n");
    *version = (uint64_t)v;
    return json_end(&r->json, ctx);
}

enum err tag_put(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    uint64_t version = 0;
    bool created;
    RETURN_NOT_OK(read_tag_body(r, &version, ctx));
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = collection_tag_set(c, asked_tag(r), version, &created, ctx);
    collection_release(c);
    RETURN_NOT_OK(e);
    r->status = created ? MHD_HTTP_CREATED : MHD_HTTP_OK;
    answer_tag(r, version);
    return ERR_OK;
}

enum err tag_drop(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = collection_tag_delete(c, asked_tag(r), ctx);
    collection_release(c);
    RETURN_NOT_OK(e);
    r->status = MHD_HTTP_NO_CONTENT;
    return ERR_OK;
}
