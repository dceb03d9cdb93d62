/* Fetch: features by key, columnar for many keys, one object for one.
 *
 *   {"keys":[..],"features":[..]}  ->  keys looked up together  ->  column by column
 *
 * Threads: on the HTTP thread while short, else on a reader. Failure: the first error replaces the
 * answer. */
#include "api/routes.h"

#include "api/columns.h"
#include "api/fetch_keys.h"
#include "api/fetch_octets.h"
#include "api/json_writer.h"
#include "api/problem.h"
#include "api/selector.h"
#include "api/slow_log.h"
#include "base/clock.h"
#include "base/metrics.h"

METRIC_HISTOGRAM(fetch_time, "loadstone_fetch_duration_seconds",
                 "Time of a fetch inside the daemon: from the request line to the answer made.")
METRIC_COUNTER(fetch_keys, "loadstone_fetch_keys_total", "Keys of fetches answered.")

enum { VECTORS = UINT32_MAX }; /* instead of a feature */

struct fetch_ask {
    bool keys, features, with_vectors_seen; /* fields that came */
    bool with_vectors;
};

/* ---- many keys ---- */

/* Which of the fields a name is; false when it came before. */
static bool first_time(bool *seen)
{
    bool first = !*seen;
    *seen = true;
    return first;
}

static enum err read_field(struct request *r, const struct snapshot *s, struct json_slice name,
                           struct fetch_ask *a, struct err_ctx *ctx)
{
    enum json_type type;
    if (json_slice_is(name, "keys") && first_time(&a->keys))
        return fetch_keys_read_json(r, s->schema, ctx);
    if (json_slice_is(name, "with_vectors") && first_time(&a->with_vectors_seen))
        return json_bool(&r->json, &a->with_vectors, ctx);
    if (json_slice_is(name, "features") && !a->features) {
        RETURN_NOT_OK(json_peek(&r->json, &type, ctx));
        a->features = type != JSON_NULL;
        return columns_read_json(&r->json, s->schema, &r->columns, ctx);
    }
    if (json_slice_is(name, "keys") || json_slice_is(name, "with_vectors") ||
        json_slice_is(name, "features"))
        return err_set(ctx, ERR_INVALID, "field '%.*s' comes twice in the body", (int)name.len,
                       name.data);
    if (selector_is_field(name))
        return selector_read_field(r, name, ctx);
    return request_unknown_field(name, "the body of a fetch",
                                 "keys, features, with_vectors, version, tag, as_of", ctx);
}

static enum err read_json(struct request *r, const struct snapshot *s, struct fetch_ask *a,
                          struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    if (r->target.nparams)
        return err_set(ctx, ERR_INVALID,
                       "what a JSON fetch asks for goes into its body, not into the URL");
    if (r->body.len == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send {\"keys\":[..]}");
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            break;
        enum err e = read_field(r, s, name, a, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, -1, name.data, name.len);
            return e;
        }
    }
    if (!a->keys)
        return err_set(ctx, ERR_INVALID, "the body needs \"keys\":[..]");
    RETURN_NOT_OK(json_end(&r->json, ctx));
    return a->features ? ERR_OK : columns_all(s->schema, &r->columns, ctx);
}

static enum err read_octets(struct request *r, const struct snapshot *s, struct fetch_ask *a,
                            struct err_ctx *ctx)
{
    RETURN_NOT_OK(request_param_bool(r, "with_vectors", &a->with_vectors, ctx));
    RETURN_NOT_OK(columns_of_query(&r->target, s->schema, &r->columns, ctx));
    return fetch_keys_read_octets(r, s->schema, ctx);
}

static void put_found(struct request *r)
{
    for (size_t i = 0; i < fetch_key_count(r); i++) {
        if (i)
            buf_put_u8(&r->out, ',');
        struct row_ref ref;
        json_put_bool(&r->out, fetch_key_row(r, i, &ref));
    }
}

static enum err put_column(struct request *r, const struct snapshot *s, uint32_t feature,
                           struct err_ctx *ctx)
{
    for (size_t i = 0; i < fetch_key_count(r); i++) {
        struct row_ref ref;
        if (i)
            buf_put_u8(&r->out, ',');
        if (!fetch_key_row(r, i, &ref))
            json_put_raw(&r->out, "null");
        else if (feature == VECTORS)
            row_put_vector(&r->out, s, ref);
        else
            row_put_cell(&r->out, s, ref, feature);
        RETURN_NOT_OK(request_check_out(r, ctx));
    }
    return ERR_OK;
}

static enum err put_json(struct request *r, const struct snapshot *s, bool with_vectors,
                         struct err_ctx *ctx)
{
    json_put_raw(&r->out, "{\"version\":");
    json_put_uint(&r->out, s->version);
    json_put_raw(&r->out, ",\"keys\":[");
    fetch_keys_put(r, s->schema);
    json_put_raw(&r->out, "],\"found\":[");
    put_found(r);
    json_put_raw(&r->out, "],\"features\":{");
    for (size_t i = 0; i < columns_count(&r->columns); i++) {
        if (i)
            buf_put_u8(&r->out, ',');
        columns_put_name(&r->out, s->schema, columns_get(&r->columns, i));
        buf_put_u8(&r->out, '[');
        RETURN_NOT_OK(put_column(r, s, columns_get(&r->columns, i), ctx));
        buf_put_u8(&r->out, ']');
    }
    buf_put_u8(&r->out, '}');
    if (with_vectors) {
        json_put_raw(&r->out, ",\"vectors\":[");
        RETURN_NOT_OK(put_column(r, s, VECTORS, ctx));
        buf_put_u8(&r->out, ']');
    }
    json_put_raw(&r->out, "}\n");
    return ERR_OK;
}

static void count_fetch(struct request *r, size_t keys)
{
    slow_log_note(r, "keys", keys);
    slow_log_note(r, "columns", columns_count(&r->columns));
    metric_observe_us(&fetch_time, 0, clock_mono_us() - r->started_us);
    metric_add(&fetch_keys, 0, keys);
}

static enum err read_body(struct request *r, const struct snapshot *s, struct fetch_ask *a,
                          struct err_ctx *ctx)
{
    *a = (struct fetch_ask){0};
    fetch_keys_reset(r);
    buf_reset(&r->columns);
    return r->media_in == MEDIA_OCTETS ? read_octets(r, s, a, ctx) : read_json(r, s, a, ctx);
}

/* Under the version that the body names. */
static enum err read_ask(struct request *r, struct snapshot **s, struct fetch_ask *a,
                         struct err_ctx *ctx)
{
    bool again;
    enum err e = selector_reopen(r, read_body(r, *s, a, ctx), false, s, &again, ctx);
    return e == ERR_OK && again ? read_body(r, *s, a, ctx) : e;
}

static enum err fetch_in(struct request *r, struct snapshot **opened, struct err_ctx *ctx)
{
    struct fetch_ask a;
    bool octets = r->media_out == MEDIA_OCTETS;
    RETURN_NOT_OK(read_ask(r, opened, &a, ctx));
    const struct snapshot *s = *opened;
    if (octets)
        RETURN_NOT_OK(fetch_octets_check(r, s->schema, ctx));
    size_t n = fetch_key_count(r);
    if (request_defers(r, columns_cost_us(s->schema, &r->columns, a.with_vectors, n)))
        return ERR_OK;
    fetch_keys_find(r, s);
    RETURN_NOT_OK(octets ? fetch_octets_put(r, s, a.with_vectors, ctx)
                         : put_json(r, s, a.with_vectors, ctx));
    count_fetch(r, n);
    return ERR_OK;
}

enum err fetch_features(struct request *r, struct err_ctx *ctx)
{
    struct snapshot *s;
    if (request_defers(r, 0))
        return ERR_OK;
    RETURN_NOT_OK(selector_of_query(r, ctx));
    RETURN_NOT_OK(request_open_snapshot(r, &s, ctx));
    enum err e = fetch_in(r, &s, ctx);
    request_close_snapshot(r, s);
    return e;
}

/* ---- one key, in the path ---- */

static enum err find_row(struct request *r, const struct snapshot *s, struct row_ref *ref,
                         struct err_ctx *ctx)
{
    fetch_keys_reset(r);
    RETURN_NOT_OK(fetch_keys_read_path(r, s->schema, ctx));
    fetch_keys_find(r, s);
    if (fetch_key_row(r, 0, ref))
        return ERR_OK;
    return err_set_at(ctx, ERR_NOT_FOUND, -1, "key", "the collection has no key '%.200s'",
                      request_segment(r, 4)->text);
}

static enum err fetch_row_in(struct request *r, const struct snapshot *s, struct err_ctx *ctx)
{
    struct row_ref ref;
    bool with_vectors = false;
    RETURN_NOT_OK(request_param_bool(r, "with_vectors", &with_vectors, ctx));
    buf_reset(&r->columns);
    RETURN_NOT_OK(columns_of_query(&r->target, s->schema, &r->columns, ctx));
    RETURN_NOT_OK(find_row(r, s, &ref, ctx));
    json_put_raw(&r->out, "{\"version\":");
    json_put_uint(&r->out, s->version);
    json_put_raw(&r->out, ",\"key\":");
    row_put_key(&r->out, s, ref);
    json_put_raw(&r->out, ",\"features\":");
    row_put_features(&r->out, s, ref, &r->columns);
    if (with_vectors) {
        json_put_raw(&r->out, ",\"vector\":");
        row_put_vector(&r->out, s, ref);
    }
    json_put_raw(&r->out, "}\n");
    count_fetch(r, 1);
    return request_check_out(r, ctx);
}

enum err fetch_row(struct request *r, struct err_ctx *ctx)
{
    struct snapshot *s;
    RETURN_NOT_OK(selector_of_query(r, ctx));
    RETURN_NOT_OK(request_open_snapshot(r, &s, ctx));
    enum err e = fetch_row_in(r, s, ctx);
    request_close_snapshot(r, s);
    return e;
}
