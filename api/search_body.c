/* What a search asks for.
 *
 * Every way to name the queries (vector, vectors, key, keys, octets) ends as nq x dim floats in
 * r->queries; a search by key also notes the row, so that it is left out of its own result.
 *
 * Threads: the request's. Failure: 400 for options that don't parse or exclude each other, 404 for
 * a key that isn't there, 422 for what contradicts the schema. */
#include "api/search_body.h"

#include <math.h>

#include "api/columns.h"
#include "api/filter_param.h"
#include "api/number.h"
#include "api/problem.h"
#include "api/row_json.h"
#include "api/selector.h"

static const char known_fields[] = "vector, vectors, key, keys, k, recall, ef, nprobe, exact, "
                                   "radius, filter, features, with_vectors, "
                                   "explain, version, tag, as_of";

enum field {
    F_VECTOR,
    F_VECTORS,
    F_KEY,
    F_KEYS,
    F_K,
    F_RECALL,
    F_EF,
    F_NPROBE,
    F_EXACT,
    F_RADIUS,
    F_FILTER,
    F_FEATURES,
    F_WITH_VECTORS,
    F_EXPLAIN,
    F_COUNT
};

/* What reads differently in another version. */
#define F_VERSIONED (1u << F_KEY | 1u << F_KEYS | 1u << F_FILTER | 1u << F_FEATURES)
#define F_QUERIES (1u << F_VECTOR | 1u << F_VECTORS | 1u << F_KEY | 1u << F_KEYS)

struct reading {
    struct request *r;
    const struct snapshot *s;
    struct search_ask *ask;
    uint32_t seen;
};

static enum err too_many(const struct request *r, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_TOO_LARGE,
                   "more queries than queries_max (%llu): send them in several requests",
                   (unsigned long long)r->service->limits.queries_max);
}

/* Room for one more query. */
static enum err add_query(struct reading *a, float **out, struct err_ctx *ctx)
{
    struct buf *b = &a->r->queries;
    if (a->ask->nq == a->r->service->limits.queries_max)
        return too_many(a->r, ctx);
    size_t bytes = a->s->schema->dim * sizeof(float);
    if (b->len + bytes > a->r->service->limits.json_body_bytes_max)
        return err_set(
            ctx, ERR_TOO_LARGE,
            "the vectors of the queries take more than json_body_bytes_max (%llu bytes): "
            "send them in several requests",
            (unsigned long long)a->r->service->limits.json_body_bytes_max);
    *out = buf_extend(b, bytes);
    if (!*out)
        return err_no_memory(ctx, b->len + bytes);
    a->ask->nq++;
    return ERR_OK;
}

/* ---- vectors ---- */

static enum err read_vector(struct reading *a, struct err_ctx *ctx)
{
    const struct schema *schema = a->s->schema;
    float *query;
    size_t n;
    RETURN_NOT_OK(add_query(a, &query, ctx));
    RETURN_NOT_OK(json_floats(&a->r->json, query, schema->dim, &n, ctx));
    if (n != schema->dim)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "vector has %zu elements, the collection's dim is %u", n, schema->dim);
    return search_check_query(schema, query, a->ask->nq - 1, ctx);
}

/* The items of an array, one query each; an error names the item. */
static enum err read_each(struct reading *a, const char *name,
                          enum err (*read)(struct reading *a, struct err_ctx *ctx),
                          struct err_ctx *ctx)
{
    bool more;
    RETURN_NOT_OK(json_array(&a->r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(&a->r->json, &more, ctx));
        if (!more)
            return ERR_OK;
        int64_t row = (int64_t)a->ask->nq;
        enum err e = read(a, ctx);
        if (e != ERR_OK) {
            problem_place(ctx, row, name, strlen(name));
            return e;
        }
    }
}

static enum err read_vectors(struct reading *a, struct err_ctx *ctx)
{
    return read_each(a, "vectors", read_vector, ctx);
}

/* ---- keys ---- */

static enum err find_key(struct reading *a, struct row_ref *ref, struct err_ctx *ctx)
{
    struct json_slice text;
    int64_t number;
    RETURN_NOT_OK(key_read(&a->r->json, a->s->schema->key, &number, &text, ctx));
    if (a->s->schema->key == KEY_INT64) {
        if (snapshot_find_int(a->s, number, ref))
            return ERR_OK;
        return err_set_at(ctx, ERR_NOT_FOUND, -1, "key", "the collection has no key %lld",
                          (long long)number);
    }
    if (snapshot_find_str(a->s, text.data, text.len, ref))
        return ERR_OK;
    return err_set_at(ctx, ERR_NOT_FOUND, -1, "key", "the collection has no key '%.*s'",
                      text.len > 200 ? 200 : (int)text.len, text.data);
}

static enum err no_vector(const struct reading *a, struct row_ref ref, struct err_ctx *ctx)
{
    const struct segment *g = a->s->views[ref.view].segment;
    size_t len;
    if (a->s->schema->key == KEY_INT64)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "key",
                          "key %lld has no vector to search with",
                          (long long)segment_key_int(g, ref.row));
    const char *key = segment_key_str(g, ref.row, &len);
    return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "key", "key '%.*s' has no vector to search with",
                      len > 200 ? 200 : (int)len, key);
}

static enum err read_key(struct reading *a, struct err_ctx *ctx)
{
    struct row_ref ref;
    float *query;
    RETURN_NOT_OK(find_key(a, &ref, ctx));
    const float *v = segment_vector(a->s->views[ref.view].segment, ref.row);
    if (!v)
        return no_vector(a, ref, ctx);
    RETURN_NOT_OK(add_query(a, &query, ctx));
    memcpy(query, v, a->s->schema->dim * sizeof(float));
    buf_put(&a->r->refs, &ref, sizeof ref);
    return a->r->refs.failed ? err_no_memory(ctx, a->r->refs.len) : ERR_OK;
}

static enum err read_keys(struct reading *a, struct err_ctx *ctx)
{
    return read_each(a, "keys", read_key, ctx);
}

/* ---- settings ---- */

static enum err read_setting(struct reading *a, const char *name, uint64_t max, uint32_t *out,
                             struct err_ctx *ctx)
{
    int64_t v;
    RETURN_NOT_OK(json_int64(&a->r->json, &v, ctx));
    if (v < 1 || (uint64_t)v > max)
        return err_set_at(ctx, ERR_INVALID, -1, name, "%s is %lld; it must be 1 to %llu (%s_max)",
                          name, (long long)v, (unsigned long long)max, name);
    *out = (uint32_t)v;
    return ERR_OK;
}

static enum err check_recall(double recall, struct err_ctx *ctx)
{
    if (recall > 0 && recall <= 1)
        return ERR_OK;
    return err_set_at(
        ctx, ERR_INVALID, -1, "recall",
        "recall is %.9g; it is the share of the nearest to find, above 0 and 1 at most", recall);
}

static enum err read_radius(struct reading *a, struct err_ctx *ctx)
{
    struct search_params *p = &a->ask->params;
    p->bounded = true;
    return json_double(&a->r->json, &p->radius, ctx);
}

static enum err read_features(struct reading *a, struct err_ctx *ctx)
{
    RETURN_NOT_OK(columns_read_json(&a->r->json, a->s->schema, &a->r->columns, ctx));
    a->ask->with_features = a->r->columns.len > 0;
    return ERR_OK;
}

static enum err read_value(struct reading *a, enum field f, struct err_ctx *ctx)
{
    const struct limits *l = &a->r->service->limits;
    struct search_params *p = &a->ask->params;
    switch (f) {
    case F_VECTOR:
        return read_vector(a, ctx);
    case F_VECTORS:
        return read_vectors(a, ctx);
    case F_KEY:
        return read_key(a, ctx);
    case F_KEYS:
        return read_keys(a, ctx);
    case F_K:
        return read_setting(a, "k", l->k_max, &p->k, ctx);
    case F_RECALL:
        RETURN_NOT_OK(json_double(&a->r->json, &p->recall, ctx));
        return check_recall(p->recall, ctx);
    case F_EF:
        return read_setting(a, "ef", l->ef_max, &p->ef, ctx);
    case F_NPROBE:
        return read_setting(a, "nprobe", l->nprobe_max, &p->nprobe, ctx);
    case F_RADIUS:
        return read_radius(a, ctx);
    case F_FILTER:
        return filter_read_json(a->r, a->s->schema, &a->ask->filter, ctx);
    case F_EXPLAIN:
        return json_bool(&a->r->json, &a->ask->explain, ctx);
    case F_EXACT:
        return json_bool(&a->r->json, &p->exact, ctx);
    case F_FEATURES:
        return read_features(a, ctx);
    case F_WITH_VECTORS:
        return json_bool(&a->r->json, &a->ask->with_vectors, ctx);
    case F_COUNT:
        break;
    }
    ASSERT(false);
}

static enum field field_of(struct json_slice name)
{
    static const char *const names[F_COUNT] = {
        "vector", "vectors", "key",    "keys",   "k",        "recall",       "ef",
        "nprobe", "exact",   "radius", "filter", "features", "with_vectors", "explain"};
    enum field f = 0;
    while (f < F_COUNT && !json_slice_is(name, names[f]))
        f++;
    return f;
}

static enum err read_field(struct reading *a, struct json_slice name, struct err_ctx *ctx)
{
    enum field f = field_of(name);
    if (f == F_COUNT && selector_is_field(name))
        return selector_read_field(a->r, name, ctx);
    if (f == F_COUNT)
        return request_unknown_field(name, "the search body", known_fields, ctx);
    if (a->seen >> f & 1)
        return err_set(ctx, ERR_INVALID, "field '%.*s' comes twice in the search body",
                       (int)name.len, name.data);
    if ((1u << f & F_QUERIES) && (a->seen & F_QUERIES))
        return err_set(ctx, ERR_INVALID, "give one of vector, vectors, key, keys");
    a->seen |= 1u << f;
    enum err e = read_value(a, f, ctx);
    if (e != ERR_OK)
        problem_place(ctx, -1, name.data, name.len);
    return e;
}

static enum err read_json(struct reading *a, struct err_ctx *ctx)
{
    struct request *r = a->r;
    struct json_slice name;
    bool more;
    if (r->target.nparams)
        return err_set(ctx, ERR_INVALID, "the settings of a JSON search go into its body");
    if (r->body.len == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send {\"vector\":[..],\"k\":10}");
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            break;
        RETURN_NOT_OK(read_field(a, name, ctx));
    }
    if (!(a->seen & F_QUERIES))
        return err_set(ctx, ERR_INVALID,
                       "the search names no query: give vector, vectors, key or "
                       "keys");
    return json_end(&r->json, ctx);
}

/* ---- octets ---- */

static enum err read_columns(struct reading *a, struct err_ctx *ctx)
{
    const struct target_segment *names = target_param(&a->r->target, "features");
    if (names)
        RETURN_NOT_OK(columns_read_text(names->text, a->s->schema, &a->r->columns, ctx));
    a->ask->with_features = a->r->columns.len > 0;
    return request_param_bool(a->r, "with_vectors", &a->ask->with_vectors, ctx);
}

static enum err read_params(struct request *r, struct search_params *p, struct err_ctx *ctx)
{
    const struct limits *l = &r->service->limits;
    const struct target_segment *radius = target_param(&r->target, "radius");
    const struct target_segment *recall = target_param(&r->target, "recall");
    uint64_t k = p->k, ef = p->ef, nprobe = p->nprobe;
    RETURN_NOT_OK(request_param_uint(r, "k", 1, l->k_max, &k, ctx));
    RETURN_NOT_OK(request_param_uint(r, "ef", 1, l->ef_max, &ef, ctx));
    RETURN_NOT_OK(request_param_uint(r, "nprobe", 1, l->nprobe_max, &nprobe, ctx));
    RETURN_NOT_OK(request_param_bool(r, "exact", &p->exact, ctx));
    if (recall && number_parse_double(recall->text, recall->len, &p->recall) != NUMBER_OK)
        return err_set_at(ctx, ERR_INVALID, -1, "recall", "recall=%.40s is not a number",
                          recall->text);
    if (recall)
        RETURN_NOT_OK(check_recall(p->recall, ctx));
    p->bounded = radius != NULL;
    if (radius && number_parse_double(radius->text, radius->len, &p->radius) != NUMBER_OK)
        return err_set_at(ctx, ERR_INVALID, -1, "radius", "radius=%.40s is not a finite number",
                          radius->text);
    p->k = (uint32_t)k;
    p->ef = (uint32_t)ef;
    p->nprobe = (uint32_t)nprobe;
    return ERR_OK;
}

static enum err read_octets(struct reading *a, struct err_ctx *ctx)
{
    struct request *r = a->r;
    const struct schema *schema = a->s->schema;
    size_t row_bytes = schema->dim * sizeof(float);
    RETURN_NOT_OK(read_params(r, &a->ask->params, ctx));
    RETURN_NOT_OK(read_columns(a, ctx));
    RETURN_NOT_OK(filter_read_param(r, schema, &a->ask->filter, ctx));
    RETURN_NOT_OK(request_param_bool(r, "explain", &a->ask->explain, ctx));
    if (r->body.len % row_bytes)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the body's length, %zu bytes, is no multiple of %zu (dim %u x 4)",
                       r->body.len, row_bytes, schema->dim);
    if (r->body.len == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send n x dim float32");
    a->ask->nq = r->body.len / row_bytes;
    if (a->ask->nq > r->service->limits.queries_max)
        return too_many(r, ctx);
    buf_put(&r->queries, r->body.data, r->body.len);
    if (r->queries.failed)
        return err_no_memory(ctx, r->body.len);
    for (size_t i = 0; i < a->ask->nq; i++)
        RETURN_NOT_OK(
            search_check_query(schema, (const float *)r->queries.data + i * schema->dim, i, ctx));
    return ERR_OK;
}

static enum err check(const struct reading *a, struct err_ctx *ctx)
{
    const struct search_ask *ask = a->ask;
    const struct search_params *p = &ask->params;
    if ((p->recall > 0) + (p->ef != 0) + (p->nprobe != 0) + p->exact > 1)
        return err_set(ctx, ERR_INVALID,
                       "two efforts at once: give one of recall, ef, nprobe, exact");
    if (p->bounded && p->radius < 0 && a->s->schema->metric != DIST_IP)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "radius",
                          "radius is %g, but distances of metric %s are never below 0", p->radius,
                          metric_name(a->s->schema->metric));
    if (a->r->media_out != MEDIA_OCTETS)
        return ERR_OK;
    if (a->s->schema->key != KEY_INT64)
        return err_set(ctx, ERR_NOT_ACCEPTABLE,
                       "an octet-stream result holds int64 keys, and the collection's keys are "
                       "strings: accept application/json");
    if (ask->with_features || ask->with_vectors || ask->explain)
        return err_set(ctx, ERR_INVALID,
                       "an octet-stream result holds keys and distances only: leave features, "
                       "with_vectors and explain out, or accept application/json");
    return ERR_OK;
}

enum err search_body_read(struct request *r, const struct snapshot *s, struct search_ask *out,
                          struct err_ctx *ctx)
{
    struct reading a = {.r = r, .s = s, .ask = out};
    *out = (struct search_ask){.params.k = 10};
    buf_reset(&r->queries);
    buf_reset(&r->refs);
    buf_reset(&r->columns);
    if (s->schema->dim == 0)
        return err_set(ctx, ERR_UNPROCESSABLE, "the collection has no vectors to search");
    RETURN_NOT_OK(r->media_in == MEDIA_OCTETS ? read_octets(&a, ctx) : read_json(&a, ctx));
    RETURN_NOT_OK(check(&a, ctx));
    out->params.filter = out->filter;
    out->report.recall = 1;
    out->params.report = &out->report;
    out->any_version = !(a.seen & F_VERSIONED);
    out->params.exclude = r->refs.len ? (const struct row_ref *)r->refs.data : NULL;
    return ERR_OK;
}
