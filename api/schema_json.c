/* Schemas as JSON.
 *
 * Fields come in any order, and the store wants key, dim and metric before the features: a first
 * walk notes the settings and where the features and join keys stand, a second reads those.
 *
 * What this build does not honour is refused, so that no collection promises what it does not do.
 *
 * Threads: no state. Failure: the error names the field. */
#include "api/schema_json.h"

#include <stdio.h>

#include "api/json_reader.h"
#include "api/json_writer.h"
#include "api/problem.h"

/* RETENTION_UNSET in a draft is a setting that the schema leaves out. */
#define RETENTION_UNSET UINT32_MAX
#define RETENTION_MAX (RETENTION_UNSET - 1)

struct draft {
    enum key_type key;
    uint32_t dim;
    enum metric metric;
    struct index_settings index;
    struct retention retention;
    bool has_key, has_kind, has_nlist, has_builder;
    struct json_slice features, join_keys, partition_by;
    char event_time[NAME_MAX_BYTES + 1], created_time[NAME_MAX_BYTES + 1]; /* empty = none */
    const char *field;                                                     /* being read */
    const struct schema *patched; /* PATCH: what is altered; else NULL */
};

/* An object's fields by name, each with its reader; the index of the name is its bit in the mask
 * that catches repetitions. */
struct field {
    const char *name;
    enum err (*read)(struct json_reader *r, struct draft *d, struct err_ctx *ctx);
};

static enum err refuse_change(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    (void)r;
    return err_set(ctx, ERR_UNPROCESSABLE,
                   "'%s' cannot be changed: create another collection with it and load the rows "
                   "there",
                   d->field);
}

static void list_names(const struct field *fields, char *out, size_t cap)
{
    size_t len = 0;
    for (; fields->name && fields->read != refuse_change && len < cap; fields++)
        len += (size_t)snprintf(out + len, cap - len, "%s%s", len ? ", " : "", fields->name);
}

static enum err unknown_field(struct json_slice name, const char *what, const struct field *fields,
                              struct err_ctx *ctx)
{
    char known[256], field[NAME_MAX_BYTES + 1];
    list_names(fields, known, sizeof known);
    snprintf(field, sizeof field, "%.*s",
             (int)(name.len > NAME_MAX_BYTES ? NAME_MAX_BYTES : name.len), name.data);
    return err_set_at(ctx, ERR_INVALID, -1, field, "unknown field '%s' in %s; known: %s", field,
                      what, known);
}

static enum err read_field(struct json_reader *r, struct draft *d, struct json_slice name,
                           const char *what, const struct field *fields, uint32_t *seen,
                           struct err_ctx *ctx)
{
    for (uint32_t i = 0; fields[i].name; i++) {
        if (!json_slice_is(name, fields[i].name))
            continue;
        if (*seen >> i & 1)
            return err_set_at(ctx, ERR_INVALID, -1, fields[i].name, "field '%s' comes twice in %s",
                              fields[i].name, what);
        *seen |= 1u << i;
        d->field = fields[i].name;
        enum err e = fields[i].read(r, d, ctx);
        if (e != ERR_OK)
            problem_place(ctx, -1, fields[i].name, strlen(fields[i].name));
        return e;
    }
    return unknown_field(name, what, fields, ctx);
}

static enum err read_object(struct json_reader *r, struct draft *d, const char *what,
                            const struct field *fields, struct err_ctx *ctx)
{
    struct json_slice name;
    uint32_t seen = 0;
    bool more;
    RETURN_NOT_OK(json_object(r, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(r, &name, &more, ctx));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(read_field(r, d, name, what, fields, &seen, ctx));
    }
}

static enum err read_word(struct json_reader *r, char out[32], struct err_ctx *ctx)
{
    struct json_slice s;
    RETURN_NOT_OK(json_string(r, &s, ctx));
    snprintf(out, 32, "%.*s", (int)(s.len > 31 ? 31 : s.len), s.data);
    return ERR_OK;
}

static enum err read_uint32(struct json_reader *r, const char *name, uint32_t min, uint32_t max,
                            uint32_t *out, struct err_ctx *ctx)
{
    int64_t v;
    RETURN_NOT_OK(json_int64(r, &v, ctx));
    if (v < min || v > max)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, name, "%s is %lld; it must be %u to %u", name,
                          (long long)v, min, max);
    *out = (uint32_t)v;
    return ERR_OK;
}

/* null is as good as leaving the field out. */
static enum err skip_null(struct json_reader *r, bool *was_null, struct err_ctx *ctx)
{
    enum json_type type;
    RETURN_NOT_OK(json_peek(r, &type, ctx));
    *was_null = type == JSON_NULL;
    return *was_null ? json_null(r, ctx) : ERR_OK;
}

/* ---- vector, index, retention ---- */

static enum err read_dim(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return read_uint32(r, "dim", 1, DIM_MAX, &d->dim, ctx);
}

static enum err read_metric(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    char word[32];
    RETURN_NOT_OK(read_word(r, word, ctx));
    if (metric_parse(word, &d->metric))
        return ERR_OK;
    return err_set(ctx, ERR_UNPROCESSABLE, "unknown metric '%s': take cosine, l2 or ip", word);
}

static const struct field vector_fields[] = {{"dim", read_dim}, {"metric", read_metric}, {0}};

static enum err read_vector(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    bool null;
    RETURN_NOT_OK(skip_null(r, &null, ctx));
    if (null)
        return ERR_OK;
    RETURN_NOT_OK(read_object(r, d, "'vector'", vector_fields, ctx));
    if (d->dim == 0)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "dim", "'vector' needs dim, 1 to %d",
                          DIM_MAX);
    return ERR_OK;
}

static enum err read_kind(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    char word[32];
    RETURN_NOT_OK(read_word(r, word, ctx));
    d->has_kind = index_kind_parse(word, &d->index.kind);
    if (d->has_kind)
        return ERR_OK;
    return err_set(ctx, ERR_UNPROCESSABLE, "unknown index kind '%s': take auto, hnsw, ivf or flat",
                   word);
}

static enum err read_builder(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    char word[32];
    RETURN_NOT_OK(read_word(r, word, ctx));
    d->has_builder = index_builder_parse(word, &d->index.builder);
    if (d->has_builder)
        return ERR_OK;
    return err_set(ctx, ERR_UNPROCESSABLE, "unknown builder '%s': take auto, native or faiss",
                   word);
}

static enum err read_m(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return read_uint32(r, "m", M_MIN, M_MAX, &d->index.m, ctx);
}

static enum err read_ef_construction(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return read_uint32(r, "ef_construction", 1, EF_CONSTRUCTION_MAX, &d->index.ef_construction,
                       ctx);
}

static enum err read_nlist(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    d->has_nlist = true;
    return read_uint32(r, "nlist", 0, NLIST_MAX, &d->index.nlist, ctx);
}

static const struct field index_fields[] = {{"kind", read_kind},
                                            {"m", read_m},
                                            {"ef_construction", read_ef_construction},
                                            {"nlist", read_nlist},
                                            {"builder", read_builder},
                                            {0}};

static enum err read_index(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    bool null;
    RETURN_NOT_OK(skip_null(r, &null, ctx));
    return null ? ERR_OK : read_object(r, d, "'index'", index_fields, ctx);
}

static enum err read_versions(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return read_uint32(r, "versions", 0, RETENTION_MAX, &d->retention.versions, ctx);
}

static enum err read_hours(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return read_uint32(r, "hours", 0, RETENTION_MAX, &d->retention.hours, ctx);
}

static const struct field retention_fields[] = {
    {"versions", read_versions}, {"hours", read_hours}, {0}};

static enum err read_retention(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    bool null;
    RETURN_NOT_OK(skip_null(r, &null, ctx));
    return null ? ERR_OK : read_object(r, d, "'retention'", retention_fields, ctx);
}

/* ---- the schema itself ---- */

static enum err read_key(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    char word[32];
    RETURN_NOT_OK(read_word(r, word, ctx));
    d->has_key = true;
    if (strcmp(word, "string") != 0 && strcmp(word, "int64") != 0)
        return err_set(ctx, ERR_UNPROCESSABLE, "unknown key type '%s': take string or int64", word);
    d->key = word[0] == 's' ? KEY_STRING : KEY_INT64;
    return ERR_OK;
}

static enum err read_features(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return json_raw(r, &d->features, ctx);
}

static enum err read_join_keys(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return json_raw(r, &d->join_keys, ctx);
}

static enum err read_partition_by(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return json_raw(r, &d->partition_by, ctx);
}

/* The name of a feature, or null for none. */
static enum err read_feature_name(struct json_reader *r, char out[NAME_MAX_BYTES + 1],
                                  struct err_ctx *ctx)
{
    struct json_slice name;
    bool null;
    RETURN_NOT_OK(skip_null(r, &null, ctx));
    if (null)
        return ERR_OK;
    RETURN_NOT_OK(json_string(r, &name, ctx));
    snprintf(out, NAME_MAX_BYTES + 1, "%.*s",
             (int)(name.len > NAME_MAX_BYTES ? NAME_MAX_BYTES : name.len), name.data);
    if (strlen(out) == name.len && name_valid(out))
        return ERR_OK;
    return err_set(ctx, ERR_UNPROCESSABLE, "'%s' is not a name of a feature", out);
}

static enum err read_event_time(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return read_feature_name(r, d->event_time, ctx);
}

static enum err read_created_time(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    return read_feature_name(r, d->created_time, ctx);
}

static const struct field schema_fields[] = {
    {"key", read_key},
    {"vector", read_vector},
    {"features", read_features},
    {"index", read_index},
    {"retention", read_retention},
    {"join_keys", read_join_keys},
    {"partition_by", read_partition_by},
    {"event_time", read_event_time},
    {"created_time", read_created_time},
    {0},
};

/* A patch may name a feature that is there already, once and with its type. */
static enum err put_feature(const struct draft *d, struct schema *s, const char *name,
                            enum feature_type type, struct err_ctx *ctx)
{
    int at = d->patched ? schema_find(d->patched, name, strlen(name)) : -1;
    if (at < 0)
        return schema_add_feature(s, name, type, ctx);
    enum feature_type there = d->patched->features[at].type;
    if (there == type)
        return ERR_OK;
    return err_set_at(ctx, ERR_CONFLICT, -1, name,
                      "feature '%s' is there already with type %s; add one with another name", name,
                      feature_type_name(there));
}

static enum err add_feature(struct json_reader *r, const struct draft *d, struct schema *s,
                            struct json_slice name, struct err_ctx *ctx)
{
    char feature[NAME_MAX_BYTES + 2], word[32];
    enum feature_type type;
    enum json_type found;
    snprintf(feature, sizeof feature, "%.*s",
             (int)(name.len > NAME_MAX_BYTES + 1 ? NAME_MAX_BYTES + 1 : name.len), name.data);
    if (strlen(feature) != name.len && name.len <= NAME_MAX_BYTES)
        return err_set(ctx, ERR_UNPROCESSABLE, "a feature's name holds a NUL");
    RETURN_NOT_OK(json_peek(r, &found, ctx));
    if (found != JSON_STRING)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, feature,
                          "the type of feature '%s' is %s: write its name, for example \"float32\"",
                          feature, json_type_name(found));
    RETURN_NOT_OK(read_word(r, word, ctx));
    if (!feature_type_parse(word, &type))
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, feature,
                          "feature '%s' has the unknown type '%s': take bool, int32, int64, "
                          "float32, float64, string, bytes, timestamp, float32[], int64[] or "
                          "string[]",
                          feature, word);
    return put_feature(d, s, feature, type, ctx);
}

static enum err add_features(struct json_reader *r, const struct draft *d, struct schema *s,
                             struct err_ctx *ctx)
{
    struct json_slice name;
    bool more, null;
    RETURN_NOT_OK(skip_null(r, &null, ctx));
    if (null)
        return ERR_OK;
    RETURN_NOT_OK(json_object(r, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(r, &name, &more, ctx));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(add_feature(r, d, s, name, ctx));
    }
}

static enum err add_join_key(struct json_reader *r, struct schema *s, struct err_ctx *ctx)
{
    struct json_slice name;
    RETURN_NOT_OK(json_string(r, &name, ctx));
    size_t bytes = (s->njoin + 1) * sizeof *s->join_keys;
    char(*grown)[NAME_MAX_BYTES + 1] = realloc(s->join_keys, bytes);
    if (!grown)
        return err_no_memory(ctx, bytes);
    s->join_keys = grown;
    snprintf(grown[s->njoin], sizeof *grown, "%.*s",
             (int)(name.len > NAME_MAX_BYTES ? NAME_MAX_BYTES : name.len), name.data);
    if (name.len > NAME_MAX_BYTES || !name_valid(grown[s->njoin]) ||
        strlen(grown[s->njoin]) != name.len)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "join_keys", "'%s' is not a name of a key",
                          grown[s->njoin]);
    s->njoin++;
    return ERR_OK;
}

static enum err add_partition(struct json_reader *r, struct schema *s, struct err_ctx *ctx)
{
    char name[NAME_MAX_BYTES + 1] = "";
    RETURN_NOT_OK(read_feature_name(r, name, ctx));
    return schema_add_partition(s, name, ctx);
}

/* A list, or null for an empty one. */
static enum err add_each(struct json_reader *r, struct schema *s,
                         enum err (*add)(struct json_reader *, struct schema *, struct err_ctx *),
                         struct err_ctx *ctx)
{
    bool more, null;
    RETURN_NOT_OK(skip_null(r, &null, ctx));
    if (null)
        return ERR_OK;
    RETURN_NOT_OK(json_array(r, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(r, &more, ctx));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(add(r, s, ctx));
    }
}

static enum err add_join_keys(struct json_reader *r, const struct draft *d, struct schema *s,
                              struct err_ctx *ctx)
{
    (void)d;
    return add_each(r, s, add_join_key, ctx);
}

static enum err add_partitions(struct json_reader *r, const struct draft *d, struct schema *s,
                               struct err_ctx *ctx)
{
    (void)d;
    return add_each(r, s, add_partition, ctx);
}

typedef enum err (*slice_reader)(struct json_reader *r, const struct draft *d, struct schema *s,
                                 struct err_ctx *ctx);

/* Reads a value that the first walk has stepped over. */
static enum err read_later(const char *body, const struct draft *d, struct json_slice text,
                           const char *field, struct schema *s, slice_reader read,
                           struct err_ctx *ctx)
{
    struct json_reader r;
    if (!text.data)
        return ERR_OK;
    json_init(&r, text.data, text.len, (uint64_t)(text.data - body));
    enum err e = read(&r, d, s, ctx);
    json_deinit(&r);
    if (e != ERR_OK)
        problem_place(ctx, -1, field, strlen(field));
    return e;
}

static enum err read_draft(struct json_reader *r, struct draft *d, struct err_ctx *ctx)
{
    RETURN_NOT_OK(read_object(r, d, "the schema", schema_fields, ctx));
    RETURN_NOT_OK(json_end(r, ctx));
    if (!d->has_key)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "key",
                          "the schema needs a key type: \"key\":\"string\" or \"key\":\"int64\"");
    return ERR_OK;
}

static void apply_settings(const struct draft *d, struct schema *s)
{
    if (d->has_kind)
        s->index.kind = d->index.kind;
    if (d->index.m)
        s->index.m = d->index.m;
    if (d->index.ef_construction)
        s->index.ef_construction = d->index.ef_construction;
    if (d->has_nlist)
        s->index.nlist = d->index.nlist;
    if (d->has_builder)
        s->index.builder = d->index.builder;
    if (d->retention.versions != RETENTION_UNSET)
        s->retention.versions = d->retention.versions;
    if (d->retention.hours != RETENTION_UNSET)
        s->retention.hours = d->retention.hours;
}

static enum err build(const char *body, const struct draft *d, struct schema **out,
                      struct err_ctx *ctx)
{
    struct schema *s;
    RETURN_NOT_OK(schema_new(d->key, d->dim, d->metric, &s, ctx));
    apply_settings(d, s);
    enum err e = read_later(body, d, d->features, "features", s, add_features, ctx);
    if (e == ERR_OK)
        e = read_later(body, d, d->join_keys, "join_keys", s, add_join_keys, ctx);
    if (e == ERR_OK)
        e = read_later(body, d, d->partition_by, "partition_by", s, add_partitions, ctx);
    if (e == ERR_OK)
        e = schema_set_times(s, *d->event_time ? d->event_time : NULL,
                             *d->created_time ? d->created_time : NULL, ctx);
    if (e == ERR_OK)
        e = schema_seal(s, ctx);
    if (e != ERR_OK) {
        schema_release(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

enum err schema_read_json(const void *text, size_t n, struct schema **out, struct err_ctx *ctx)
{
    struct draft d = {.metric = DIST_COSINE, .retention = {RETENTION_UNSET, RETENTION_UNSET}};
    struct json_reader r;
    if (n == 0)
        return err_set(ctx, ERR_INVALID,
                       "the body is empty: send the schema, for example "
                       "{\"key\":\"string\",\"vector\":{\"dim\":384}}");
    json_init(&r, text, n, 0);
    enum err e = read_draft(&r, &d, ctx);
    json_deinit(&r);
    return e == ERR_OK ? build(text, &d, out, ctx) : e;
}

/* ---- patches ---- */

static const struct field patch_fields[] = {
    {"features", read_features},     {"index", read_index},
    {"retention", read_retention},   {"key", refuse_change},
    {"vector", refuse_change},       {"join_keys", refuse_change},
    {"partition_by", refuse_change}, {"event_time", refuse_change},
    {"created_time", refuse_change}, {0},
};

static enum err build_patched(const char *body, const struct draft *d, struct schema **out,
                              struct err_ctx *ctx)
{
    struct schema *s;
    RETURN_NOT_OK(schema_copy(d->patched, &s, ctx));
    apply_settings(d, s);
    enum err e = read_later(body, d, d->features, "features", s, add_features, ctx);
    if (e == ERR_OK)
        e = schema_seal(s, ctx);
    if (e != ERR_OK) {
        schema_release(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

static enum err read_patch(const void *text, size_t n, const char *what, const struct field *fields,
                           const struct schema *current, struct schema **out, struct err_ctx *ctx)
{
    struct draft d = {.retention = {RETENTION_UNSET, RETENTION_UNSET}, .patched = current};
    struct json_reader r;
    json_init(&r, text, n, 0);
    enum err e = read_object(&r, &d, what, fields, ctx);
    if (e == ERR_OK)
        e = json_end(&r, ctx);
    json_deinit(&r);
    return e == ERR_OK ? build_patched(text, &d, out, ctx) : e;
}

enum err schema_patch_json(const void *text, size_t n, const struct schema *current,
                           struct schema **out, struct err_ctx *ctx)
{
    if (n == 0)
        return err_set(ctx, ERR_INVALID,
                       "the body is empty: send what changes, for example "
                       "{\"features\":{\"price\":\"float32\"}}");
    return read_patch(text, n, "the patch", patch_fields, current, out, ctx);
}

enum err schema_patch_index_json(const void *text, size_t n, const struct schema *current,
                                 struct schema **out, struct err_ctx *ctx)
{
    if (n == 0)
        return read_patch("{}", 2, "the body", index_fields, current, out, ctx);
    return read_patch(text, n, "the body", index_fields, current, out, ctx);
}

/* ---- out ---- */

static void write_features(const struct schema *s, struct buf *out)
{
    json_put_raw(out, ",\"features\":{");
    for (uint32_t i = 0; i < s->nfeatures; i++) {
        if (i)
            buf_put_u8(out, ',');
        json_put_text(out, s->features[i].name);
        buf_put_u8(out, ':');
        json_put_text(out, feature_type_name(s->features[i].type));
    }
    buf_put_u8(out, '}');
}

static void write_names(const char *field, char (*names)[NAME_MAX_BYTES + 1], uint32_t n,
                        struct buf *out)
{
    for (uint32_t i = 0; i < n; i++) {
        if (i == 0)
            buf_printf(out, ",\"%s\":[", field);
        else
            buf_put_u8(out, ',');
        json_put_text(out, names[i]);
    }
    if (n)
        buf_put_u8(out, ']');
}

static void write_time(const char *field, const struct schema *s, int32_t feature, struct buf *out)
{
    if (feature < 0)
        return;
    buf_printf(out, ",\"%s\":", field);
    json_put_text(out, s->features[feature].name);
}

void schema_write_json(const struct schema *s, struct buf *out)
{
    buf_printf(out, "{\"key\":\"%s\"", s->key == KEY_INT64 ? "int64" : "string");
    if (s->dim)
        buf_printf(out, ",\"vector\":{\"dim\":%u,\"metric\":\"%s\"}", s->dim,
                   metric_name(s->metric));
    write_features(s, out);
    write_names("join_keys", s->join_keys, s->njoin, out);
    write_names("partition_by", s->partition_by, s->npartition, out);
    write_time("event_time", s, s->event_time, out);
    write_time("created_time", s, s->created_time, out);
    buf_printf(out, ",\"index\":{\"kind\":\"%s\",\"m\":%u,\"ef_construction\":%u",
               index_kind_name(s->index.kind), s->index.m, s->index.ef_construction);
    if (s->index.nlist)
        buf_printf(out, ",\"nlist\":%u", s->index.nlist);
    if (s->index.builder != BUILDER_AUTO)
        buf_printf(out, ",\"builder\":\"%s\"", index_builder_name(s->index.builder));
    buf_printf(out, "},\"retention\":{\"versions\":%u,\"hours\":%u}}", s->retention.versions,
               s->retention.hours);
}
