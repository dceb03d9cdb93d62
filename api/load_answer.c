/* Answers to commits: the result, or a load that can be asked for it.
 *
 * A handler with a load that is being committed is run twice: first it makes its request wait, then
 * it looks again. Whoever waited in vain gets 202, and the load's address.
 *
 * Threads: whichever runs the handler. Failure: that of the commit, as it was kept with the load.
 */
#include <stdio.h>

#include "api/commit_body.h"
#include "api/json_writer.h"
#include "api/row_intake.h"
#include "base/clock.h"
#include "base/epoch.h"

enum { WAIT_S_STANDARD = 30, PARTS_STANDARD = 1000 };

enum err wait_s_read(struct request *r, uint64_t *out, struct err_ctx *ctx)
{
    *out = WAIT_S_STANDARD;
    if (*out > r->service->limits.wait_s_max)
        *out = r->service->limits.wait_s_max;
    return request_param_uint(r, "wait_s", 0, r->service->limits.wait_s_max, out, ctx);
}

bool collection_has_event_time(struct collection *c)
{
    epoch_enter();
    bool has = collection_snapshot(c)->schema->event_time >= 0;
    epoch_leave();
    return has;
}

/* ---- a load ---- */

static void put_time(struct buf *out, const char *name, int64_t wall_us)
{
    buf_printf(out, ",\"%s\":", name);
    json_put_timestamp(out, wall_us);
}

static const char *phase_name(const struct session_info *info)
{
    static const char *const committing[] = {"preparing", "indexing", "recording"};
    if (info->state == SESSION_COMMITTING)
        return committing[info->phase];
    return info->state == SESSION_OPEN ? "receiving" : "done";
}

static void put_progress(struct buf *out, const struct session_info *info)
{
    json_put_raw(out, ",\"index\":{\"progress\":");
    json_put_double(out, info->progress);
    json_put_raw(out, ",\"eta_s\":");
    if (info->eta_s < 0)
        json_put_raw(out, "null");
    else
        json_put_double(out, info->eta_s);
    buf_put_u8(out, '}');
}

static void put_error(struct buf *out, const struct err_ctx *e)
{
    json_put_raw(out, ",\"error\":");
    problem_write(e, out);
    if (out->len && out->data[out->len - 1] == '\n')
        out->len--;
}

void load_put_head(struct buf *out, const struct session_info *info)
{
    char id[33];
    session_id_text(info->id, id);
    buf_printf(out, "{\"load\":\"%s\",\"state\":\"%s\",\"phase\":\"%s\",\"mode\":\"%s\"", id,
               session_state_name(info->state), phase_name(info), load_mode_name(info->mode));
    if (info->state != SESSION_OPEN && info->state != SESSION_COMMITTING)
        return;
    put_time(out, "created_at", info->created_us);
    if (!info->one_shot) {
        put_time(out, "expires_at", info->expires_us);
        buf_printf(out,
                   ",\"rows\":%llu,\"bytes\":%llu,\"part_count\":%llu,"
                   "\"arriving\":%u",
                   (unsigned long long)info->rows, (unsigned long long)info->bytes,
                   (unsigned long long)info->parts, info->arriving);
    }
    if (info->state == SESSION_COMMITTING)
        put_progress(out, info);
}

struct part_list {
    struct buf *out;
    size_t n;
    struct buf last; /* the name of the last one */
};

static void put_part(void *arg, const struct session_part *p)
{
    struct part_list *list = arg;
    if (list->n++)
        buf_put_u8(list->out, ',');
    part_write(list->out, p);
    buf_reset(&list->last);
    buf_put(&list->last, p->name, p->name_len);
}

void part_write(struct buf *out, const struct session_part *p)
{
    json_put_raw(out, "{\"name\":");
    json_put_string(out, p->name, p->name_len);
    buf_printf(out, ",\"rows\":%llu,\"bytes\":%llu,\"digest\":\"%016llx%016llx\"}",
               (unsigned long long)p->rows, (unsigned long long)p->bytes,
               (unsigned long long)p->digest.hi, (unsigned long long)p->digest.lo);
}

static enum err put_parts(struct request *r, struct session *s, struct err_ctx *ctx)
{
    const struct target_segment *after = target_param(&r->target, "after");
    uint64_t limit = PARTS_STANDARD;
    struct part_list list = {.out = &r->out};
    RETURN_NOT_OK(request_param_uint(r, "limit", 1, r->service->limits.rows_page_max, &limit, ctx));
    json_put_raw(&r->out, ",\"parts\":[");
    bool more = session_parts(s, after ? after->text : NULL, after ? after->len : 0, limit,
                              put_part, &list);
    json_put_raw(&r->out, "],\"next\":");
    if (more && !list.last.failed)
        json_put_string(&r->out, (const char *)list.last.data, list.last.len);
    else
        json_put_raw(&r->out, "null");
    r->out.failed |= list.last.failed;
    buf_deinit(&list.last);
    return ERR_OK;
}

enum err load_write(struct request *r, struct collection *c, struct session *s,
                    const struct session_info *info, struct err_ctx *ctx)
{
    load_put_head(&r->out, info);
    if (s && !info->one_shot && info->state != SESSION_COMMITTED)
        RETURN_NOT_OK(put_parts(r, s, ctx));
    if (info->error.code != ERR_OK)
        put_error(&r->out, &info->error);
    if (info->state == SESSION_COMMITTED) {
        json_put_raw(&r->out, ",\"result\":");
        commit_result_put(&r->out, &info->result, collection_has_event_time(c));
    }
    json_put_raw(&r->out, "}\n");
    return ERR_OK;
}

/* ---- waiting ---- */

static enum err answer_later(struct request *r, struct session *s, const struct session_info *info,
                             struct err_ctx *ctx)
{
    char id[33];
    session_id_text(info->id, id);
    r->status = MHD_HTTP_ACCEPTED;
    request_add_header(r, "Location", "/v1/collections/%s/loads/%s",
                       collection_name(session_collection(s)), id);
    request_add_header(r, "Retry-After", "1");
    return load_write(r, session_collection(s), s, info, ctx);
}

enum err load_answer(struct request *r, struct session *s, uint64_t wait_s, struct err_ctx *ctx)
{
    struct session_info info;
    session_describe(s, &info);
    if (info.state == SESSION_COMMITTED) {
        commit_result_write(r, &info.result, collection_has_event_time(session_collection(s)));
        return ERR_OK;
    }
    if (info.state != SESSION_COMMITTING) {
        *ctx = info.error;
        return ctx->code != ERR_OK ? ctx->code : session_ended(&info, ctx);
    }
    if (r->waited)
        return answer_later(r, s, &info, ctx);
    if (!r->waits_for)
        r->waits_for = session_acquire(s);
    r->wait_until_us = clock_mono_us() + wait_s * 1000000;
    return ERR_OK;
}
