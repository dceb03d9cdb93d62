/* Load sessions over HTTP: open, put parts, commit, look, abort.
 *
 *   POST loads                        opens one; the body is kept and read again at the commit
 *   PUT  loads/{load}/parts/{part..}  streams like rows do, into a part
 *   POST loads/{load}/commit          runs as a job; the request waits for it, or attaches to it
 *   GET  loads, GET/DELETE loads/{load}
 *
 * Threads: part_begin and part_answer on the HTTP thread, the others on a writer (what was
 * committed before this start is looked up in files). load_commit is run again when its wait is
 * over. Failure: after 412 and 422 at the commit the load is open still. */
#include "api/routes.h"

#include <stdlib.h>

#include "api/commit_body.h"
#include "api/json_writer.h"
#include "api/load_call.h"
#include "api/row_intake.h"
#include "api/upload.h"
#include "base/clock.h"
#include "base/epoch.h"

enum { LOAD_TEXT_MAX = 1 << 20 };

/* ---- what all of them need ---- */

/* References, for work that waits for the disk. */
static enum err hold(struct request *r, struct collection **c, struct schema **s,
                     struct err_ctx *ctx)
{
    RETURN_NOT_OK(request_hold_collection(r, c, ctx));
    *s = collection_schema(*c);
    return ERR_OK;
}

static void let_go(struct collection *c, struct schema *s)
{
    schema_release(s);
    collection_release(c);
}

static enum err read_id(struct request *r, uint8_t id[LOAD_ID_BYTES], struct err_ctx *ctx)
{
    const struct target_segment *text = request_segment(r, 4);
    if (session_id_parse(text->text, text->len, id))
        return ERR_OK;
    return err_set(ctx, ERR_NOT_FOUND,
                   "there is no load '%.64s': POST loads opens one and answers with its id",
                   text->text);
}

typedef enum err (*load_fn)(struct request *r, struct collection *c, struct schema *schema,
                            const uint8_t id[LOAD_ID_BYTES], struct err_ctx *ctx);

static enum err with_load(struct request *r, load_fn fn, struct err_ctx *ctx)
{
    uint8_t id[LOAD_ID_BYTES];
    struct collection *c;
    struct schema *schema;
    RETURN_NOT_OK(hold(r, &c, &schema, ctx));
    enum err e = read_id(r, id, ctx);
    if (e == ERR_OK)
        e = fn(r, c, schema, id, ctx);
    let_go(c, schema);
    return e;
}

/* ---- opening ---- */

static void write_opened(struct request *r, struct collection *c, const uint8_t *id,
                         int64_t expires_us)
{
    char text[33];
    session_id_text(id, text);
    r->status = MHD_HTTP_CREATED;
    request_add_header(r, "Location", "/v1/collections/%s/loads/%s", collection_name(c), text);
    buf_printf(&r->out, "{\"load\":\"%s\",\"expires_at\":", text);
    json_put_timestamp(&r->out, expires_us);
    json_put_raw(&r->out, "}\n");
}

static enum err check_version(struct collection *c, int64_t expected, struct err_ctx *ctx)
{
    epoch_enter();
    uint64_t newest = collection_snapshot(c)->version;
    epoch_leave();
    if (expected < 0 || (uint64_t)expected == newest)
        return ERR_OK;
    return err_set_at(ctx, ERR_PRECONDITION, -1, "expected_version",
                      "expected_version is %lld, but the newest version is %llu",
                      (long long)expected, (unsigned long long)newest);
}

static enum err open_load(struct request *r, struct collection *c, const struct load_call *call,
                          const struct idempotency *idem, struct err_ctx *ctx)
{
    struct session_info info;
    const char *key = r->head.idempotency_key;
    struct session_options o = {
        .mode = call->options.mode,
        .duplicates_last = call->options.duplicates_last,
        .text = (const char *)r->body.data,
        .text_len = r->body.len,
        .expiry_us = (int64_t)(r->service->limits.load_expiry_s * 1000000),
        .loads_max = r->service->limits.loads_max,
        .key = key,
        .key_len = key ? strlen(key) : 0,
    };
    memcpy(o.hash, idem->note.hash, sizeof o.hash);
    RETURN_NOT_OK(check_version(c, call->options.expected_version, ctx));
    RETURN_NOT_OK(session_open(c, &o, &info, ctx));
    write_opened(r, c, info.id, info.expires_us);
    return ERR_OK;
}

/* With a key that was used before: its load, whatever has become of it. */
static enum err open_once(struct request *r, struct collection *c, struct schema *schema,
                          struct err_ctx *ctx)
{
    struct idempotency idem;
    struct receipt first;
    struct load_call *call = NULL;
    bool found;
    enum err e = idempotency_look_up(r, c, "load", &idem, &found, &first, ctx);
    if (e == ERR_OK && found)
        write_opened(r, c, first.load_id, first.expires_us);
    else if (e == ERR_OK && (e = load_call_read((const char *)r->body.data, r->body.len, schema,
                                                &call, ctx)) == ERR_OK)
        e = open_load(r, c, call, &idem, ctx);
    load_call_free(call);
    idempotency_end(&idem, e, LOAD_UPSERT, NULL);
    return e;
}

enum err loads_open(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    struct schema *schema;
    if (r->body.len > LOAD_TEXT_MAX)
        return err_set(ctx, ERR_TOO_LARGE,
                       "the body of a load is at most %d bytes: its rows come "
                       "as parts",
                       LOAD_TEXT_MAX);
    RETURN_NOT_OK(hold(r, &c, &schema, ctx));
    enum err e = open_once(r, c, schema, ctx);
    let_go(c, schema);
    return e;
}

/* ---- parts ---- */

static enum err check_name(const struct request *r, struct target_segment name, struct err_ctx *ctx)
{
    uint64_t max = r->service->limits.part_name_bytes_max;
    if (name.len && name.len <= max && utf8_valid(name.text, name.len))
        return ERR_OK;
    return err_set_at(ctx, ERR_INVALID, -1, "part",
                      "a part's name is UTF-8 of 1 to part_name_bytes_max (%llu) bytes",
                      (unsigned long long)max);
}

enum err part_begin(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    struct target_segment name = target_rest(&r->target, 6);
    struct intake_options o = {
        .part = name.text, .part_len = name.len, .parts_max = r->service->limits.parts_max};
    RETURN_NOT_OK(read_id(r, o.load_id, ctx));
    RETURN_NOT_OK(check_name(r, name, ctx));
    epoch_enter();
    enum err e = request_collection(r, &c, ctx);
    if (e == ERR_OK)
        e = row_intake_begin(r, c, &o, ctx);
    epoch_leave();
    return e;
}

enum err part_answer(struct request *r, struct err_ctx *ctx)
{
    struct intake_outcome out;
    RETURN_NOT_OK(upload_result(r->upload, &out, ctx));
    struct session_part part = {out.part, strlen(out.part), out.rows, out.bytes, out.hash};
    r->status = out.created ? MHD_HTTP_CREATED : MHD_HTTP_OK;
    part_write(&r->out, &part);
    buf_put_u8(&r->out, '\n');
    return ERR_OK;
}

/* ---- committing ---- */

struct commit_call {
    bool all;
    struct buf names;   /* one behind the other */
    struct buf lengths; /* size_t each */
    enum load_wait wait;
    uint64_t wait_s;
};

static enum err read_names(struct json_reader *json, struct commit_call *call, struct err_ctx *ctx)
{
    struct json_slice s;
    bool more;
    call->all = false;
    RETURN_NOT_OK(json_array(json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(json, &more, ctx));
        if (!more)
            break;
        RETURN_NOT_OK(json_string(json, &s, ctx));
        buf_put(&call->names, s.data, s.len);
        buf_put(&call->lengths, &s.len, sizeof s.len);
    }
    return call->names.failed || call->lengths.failed ? err_no_memory(ctx, call->names.len)
                                                      : ERR_OK;
}

static enum err read_wait_s(struct request *r, struct commit_call *call, struct err_ctx *ctx)
{
    int64_t v;
    RETURN_NOT_OK(json_int64(&r->json, &v, ctx));
    if (v < 0 || (uint64_t)v > r->service->limits.wait_s_max)
        return err_set(ctx, ERR_INVALID, "'wait_s' is not from 0 to wait_s_max (%llu)",
                       (unsigned long long)r->service->limits.wait_s_max);
    call->wait_s = (uint64_t)v;
    return ERR_OK;
}

static enum err read_commit_field(struct request *r, struct json_slice name,
                                  struct commit_call *call, struct err_ctx *ctx)
{
    struct json_slice s;
    if (json_slice_is(name, "parts"))
        return read_names(&r->json, call, ctx);
    if (json_slice_is(name, "wait_s"))
        return read_wait_s(r, call, ctx);
    if (!json_slice_is(name, "wait"))
        return request_unknown_field(name, "the body of a commit", "parts, wait, wait_s", ctx);
    RETURN_NOT_OK(json_string(&r->json, &s, ctx));
    return load_wait_read(s.data, s.len, &call->wait, ctx);
}

static enum err read_commit(struct request *r, struct commit_call *call, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    call->all = true;
    RETURN_NOT_OK(wait_s_read(r, &call->wait_s, ctx));
    if (r->body.len == 0)
        return ERR_OK;
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            return json_end(&r->json, ctx);
        char field[16];
        size_t len = name.len < sizeof field ? name.len : sizeof field;
        memcpy(field, name.data, len);
        enum err e = read_commit_field(r, name, call, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, -1, field, len);
            return e;
        }
    }
}

static enum err begin_commit(struct session *s, const struct commit_call *call,
                             enum session_commit *what, struct err_ctx *ctx)
{
    size_t n = call->lengths.len / sizeof(size_t), at = 0;
    const size_t *lengths = (const size_t *)call->lengths.data;
    struct session_name *names = calloc(n + 1, sizeof *names);
    if (!names)
        return err_no_memory(ctx, n * sizeof *names);
    for (size_t i = 0; i < n; at += lengths[i++])
        names[i] = (struct session_name){(const char *)call->names.data + at, lengths[i]};
    enum err e = session_commit_begin(s, call->all ? NULL : names, n, what, ctx);
    free(names);
    return e;
}

/* The load is committing: what goes wrong before its job runs opens it again. */
static enum err run_commit(struct request *r, struct session *s, struct schema *schema,
                           enum load_wait wait, struct err_ctx *ctx)
{
    size_t n;
    struct load_call *call;
    const char *text = session_text(s, &n);
    enum err e = load_call_read(text, n, schema, &call, ctx);
    if (e != ERR_OK) {
        struct err_ctx why = *ctx;
        why.code = e;
        session_commit_give_up(s, &why);
        return e;
    }
    call->options.wait = wait;
    return commit_job_session(r->service, s, call, ctx);
}

static enum err commit_open(struct request *r, struct session *s, struct schema *schema,
                            struct err_ctx *ctx)
{
    struct commit_call call = {0};
    enum session_commit what = SESSION_DONE;
    enum err e = read_commit(r, &call, ctx);
    if (e == ERR_OK)
        e = begin_commit(s, &call, &what, ctx);
    if (e == ERR_OK && what == SESSION_RUN)
        e = run_commit(r, s, schema, call.wait, ctx);
    if (e == ERR_OK)
        e = load_answer(r, s, call.wait_s, ctx);
    buf_deinit(&call.names);
    buf_deinit(&call.lengths);
    return e;
}

static enum err commit(struct request *r, struct collection *c, struct schema *schema,
                       const uint8_t id[LOAD_ID_BYTES], struct err_ctx *ctx)
{
    struct session *s;
    struct session_info info;
    RETURN_NOT_OK(session_find(c, id, &s, &info, ctx));
    if (s) {
        enum err e = commit_open(r, s, schema, ctx);
        session_release(s);
        return e;
    }
    if (info.state != SESSION_COMMITTED)
        return session_ended(&info, ctx);
    commit_result_write(r, &info.result, schema->event_time >= 0);
    return ERR_OK;
}

enum err load_commit_run(struct request *r, struct err_ctx *ctx)
{
    if (r->waits_for)
        return load_answer(r, r->waits_for, 0, ctx);
    return with_load(r, commit, ctx);
}

/* ---- looking and aborting ---- */

static enum err get(struct request *r, struct collection *c, struct schema *schema,
                    const uint8_t id[LOAD_ID_BYTES], struct err_ctx *ctx)
{
    struct session *s;
    struct session_info info;
    (void)schema;
    RETURN_NOT_OK(session_find(c, id, &s, &info, ctx));
    enum err e = load_write(r, c, s, &info, ctx);
    session_release(s);
    return e;
}

enum err load_get(struct request *r, struct err_ctx *ctx)
{
    return with_load(r, get, ctx);
}

static enum err abort_load(struct request *r, struct collection *c, struct schema *schema,
                           const uint8_t id[LOAD_ID_BYTES], struct err_ctx *ctx)
{
    struct session *s;
    struct session_info info;
    (void)schema;
    RETURN_NOT_OK(session_find(c, id, &s, &info, ctx));
    enum err e = ERR_OK;
    if (s)
        e = session_abort(s, ctx);
    else if (info.state != SESSION_ABORTED) /* aborted before: the answer may have been lost */
        e = session_ended(&info, ctx);
    session_release(s);
    r->status = MHD_HTTP_NO_CONTENT;
    return e;
}

enum err load_abort(struct request *r, struct err_ctx *ctx)
{
    return with_load(r, abort_load, ctx);
}

struct load_list {
    struct buf *out;
    size_t n;
};

static void put_load(void *arg, const struct session_info *info)
{
    struct load_list *list = arg;
    if (list->n++)
        buf_put_u8(list->out, ',');
    load_put_head(list->out, info);
    buf_put_u8(list->out, '}');
}

enum err loads_list(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    struct load_list list = {.out = &r->out};
    epoch_enter();
    enum err e = request_collection(r, &c, ctx);
    if (e == ERR_OK) {
        json_put_raw(&r->out, "{\"loads\":[");
        session_each_open(c, put_load, &list);
        json_put_raw(&r->out, "]}\n");
    }
    epoch_leave();
    return e;
}
