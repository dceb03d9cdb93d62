/* Schemas: names, defaults, the layout of a strip, the stored form.
 *
 * A schema is built by one thread (new, add_feature, seal) and immutable afterwards; references are
 * counted atomically. Decoding trusts nothing: what a file says goes through the same checks as
 * what a user says. */
#include "store/schema.h"

#include <stdio.h>

static const struct {
    const char *name;
    uint32_t width;
} type_table[FEATURE_TYPE_COUNT] = {
    [FEATURE_BOOL] = {"bool", 1},
    [FEATURE_INT32] = {"int32", 4},
    [FEATURE_INT64] = {"int64", 8},
    [FEATURE_FLOAT32] = {"float32", 4},
    [FEATURE_FLOAT64] = {"float64", 8},
    [FEATURE_TIMESTAMP] = {"timestamp", 8},
    [FEATURE_STRING] = {"string", 0},
    [FEATURE_BYTES] = {"bytes", 0},
    [FEATURE_FLOAT32_LIST] = {"float32[]", 0},
    [FEATURE_INT64_LIST] = {"int64[]", 0},
    [FEATURE_STRING_LIST] = {"string[]", 0},
};

static const char *const metric_table[] = {"cosine", "l2", "ip"};
static const char *const kind_table[] = {"flat", "hnsw", "ivf", "auto"};
static const char *const builder_table[] = {"auto", "faiss", "native"};

/* The builder stands above the kind in one byte: schemas of releases that knew none say auto. */
enum { BUILDER_SHIFT = 4 };

const char *feature_type_name(enum feature_type t)
{
    return t < FEATURE_TYPE_COUNT ? type_table[t].name : NULL;
}

bool feature_type_parse(const char *name, enum feature_type *out)
{
    for (int t = 0; t < FEATURE_TYPE_COUNT; t++) {
        if (strcmp(name, type_table[t].name) == 0) {
            *out = (enum feature_type)t;
            return true;
        }
    }
    return false;
}

uint32_t feature_type_width(enum feature_type t)
{
    return type_table[t].width;
}

static bool table_find(const char *const *table, int n, const char *name, int *out)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(name, table[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

const char *metric_name(enum metric m)
{
    return m <= DIST_IP ? metric_table[m] : NULL;
}

bool metric_parse(const char *name, enum metric *out)
{
    int i;
    if (!table_find(metric_table, 3, name, &i))
        return false;
    *out = (enum metric)i;
    return true;
}

const char *index_kind_name(enum index_kind k)
{
    return k <= INDEX_AUTO ? kind_table[k] : NULL;
}

bool index_kind_parse(const char *name, enum index_kind *out)
{
    int i;
    if (!table_find(kind_table, 4, name, &i))
        return false;
    *out = (enum index_kind)i;
    return true;
}

const char *index_builder_name(enum index_builder b)
{
    return b <= BUILDER_NATIVE ? builder_table[b] : NULL;
}

bool index_builder_parse(const char *name, enum index_builder *out)
{
    int i;
    if (!table_find(builder_table, 3, name, &i))
        return false;
    *out = (enum index_builder)i;
    return true;
}

static bool name_char(char ch, bool first)
{
    if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_')
        return true;
    return !first && ((ch >= '0' && ch <= '9') || ch == '-');
}

bool name_valid(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > NAME_MAX_BYTES || !name_char(name[0], true))
        return false;
    for (size_t i = 1; i < n; i++) {
        if (!name_char(name[i], false))
            return false;
    }
    return true;
}

enum err schema_new(enum key_type key, uint32_t dim, enum metric metric, struct schema **out,
                    struct err_ctx *ctx)
{
    if (dim > DIM_MAX)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "dim", "dim is %u; the most is %d", dim,
                          DIM_MAX);
    struct schema *s = calloc(1, sizeof *s);
    if (!s)
        return err_no_memory(ctx, sizeof *s);
    atomic_init(&s->refs, 1);
    s->key = key;
    s->dim = dim;
    s->metric = metric;
    s->event_time = s->created_time = -1;
    s->index = (struct index_settings){.kind = INDEX_AUTO, .m = 32, .ef_construction = 200};
    s->retention = (struct retention){.versions = 100, .hours = 168};
    *out = s;
    return ERR_OK;
}

static bool name_reserved(const char *name)
{
    return strcmp(name, "key") == 0 || strcmp(name, "vector") == 0 || strcmp(name, "distance") == 0;
}

enum err schema_add_feature(struct schema *s, const char *name, enum feature_type type,
                            struct err_ctx *ctx)
{
    if (!name_valid(name))
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, name,
                          "feature name '%s' is not allowed: it must match "
                          "[A-Za-z_][A-Za-z0-9_-]{0,127}",
                          name);
    if (name_reserved(name))
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, name,
                          "feature name '%s' is reserved; choose another", name);
    if (schema_find(s, name, strlen(name)) >= 0)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, name, "feature '%s' is named twice", name);
    if (s->nfeatures == FEATURES_MAX)
        return err_set(ctx, ERR_UNPROCESSABLE, "more than %d features", FEATURES_MAX);
    size_t size = (s->nfeatures + 1) * sizeof *s->features;
    struct feature *grown = realloc(s->features, size);
    if (!grown)
        return err_no_memory(ctx, size);
    s->features = grown;
    struct feature *f = &grown[s->nfeatures++];
    memset(f, 0, sizeof *f);
    snprintf(f->name, sizeof f->name, "%s", name);
    f->type = type;
    f->width = feature_type_width(type);
    return ERR_OK;
}

static bool tells_partitions(enum feature_type t)
{
    return t != FEATURE_FLOAT32 && t != FEATURE_FLOAT64 && t != FEATURE_FLOAT32_LIST &&
           t != FEATURE_INT64_LIST && t != FEATURE_STRING_LIST;
}

enum err schema_add_partition(struct schema *s, const char *name, struct err_ctx *ctx)
{
    int at = schema_find(s, name, strlen(name));
    if (at < 0)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "partition_by",
                          "partition_by names '%.128s', which is no feature of the schema", name);
    if (!tells_partitions(s->features[at].type))
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "partition_by",
                          "partition_by names '%s', whose type is %s: partitions are told apart by "
                          "bool, int32, int64, timestamp, string or bytes",
                          name, feature_type_name(s->features[at].type));
    for (uint32_t i = 0; i < s->npartition; i++) {
        if (strcmp(s->partition_by[i], name) == 0)
            return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "partition_by",
                              "partition_by names '%s' twice", name);
    }
    size_t size = (s->npartition + 1) * sizeof *s->partition_by;
    char(*grown)[NAME_MAX_BYTES + 1] = realloc(s->partition_by, size);
    if (!grown)
        return err_no_memory(ctx, size);
    s->partition_by = grown;
    snprintf(grown[s->npartition++], sizeof *grown, "%s", name);
    return ERR_OK;
}

static enum err find_time(const struct schema *s, const char *field, const char *name, int32_t *out,
                          struct err_ctx *ctx)
{
    *out = schema_find(s, name, strlen(name));
    if (*out < 0)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, field,
                          "%s names '%.128s', which is no feature of the schema", field, name);
    if (s->features[*out].type != FEATURE_TIMESTAMP)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, field,
                          "%s names '%s', whose type is %s: it must be a timestamp", field, name,
                          feature_type_name(s->features[*out].type));
    return ERR_OK;
}

enum err schema_set_times(struct schema *s, const char *event, const char *created,
                          struct err_ctx *ctx)
{
    if (!event)
        return created ? err_set_at(ctx, ERR_UNPROCESSABLE, -1, "created_time",
                                    "created_time needs an event_time: it decides between rows of "
                                    "the same event_time")
                       : ERR_OK;
    RETURN_NOT_OK(find_time(s, "event_time", event, &s->event_time, ctx));
    if (!created)
        return ERR_OK;
    RETURN_NOT_OK(find_time(s, "created_time", created, &s->created_time, ctx));
    if (s->created_time == s->event_time)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "created_time",
                          "event_time and created_time both name '%s': take two features", event);
    return ERR_OK;
}

static void lay_out_strip(struct schema *s)
{
    if (s->nfeatures == 0)
        return;
    uint32_t at = s->null_bytes = (s->nfeatures + 7) / 8;
    at = (uint32_t)round_up(at, 8);
    for (uint32_t width = 8; width >= 1; width >>= 1) {
        for (uint32_t i = 0; i < s->nfeatures; i++) {
            struct feature *f = &s->features[i];
            if (f->width != width)
                continue;
            f->strip_offset = at;
            at += width;
        }
    }
    s->strip_bytes = (uint32_t)round_up(at, 8);
    for (uint32_t i = 0; i < s->nfeatures; i++) {
        if (s->features[i].width == 0)
            s->features[i].var_index = s->nvar++;
    }
}

enum err schema_seal(struct schema *s, struct err_ctx *ctx)
{
    if (s->index.m < M_MIN || s->index.m > M_MAX)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "m", "index.m is %u; it must be %d to %d",
                          s->index.m, M_MIN, M_MAX);
    if (s->index.ef_construction < 1 || s->index.ef_construction > EF_CONSTRUCTION_MAX)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "ef_construction",
                          "index.ef_construction is %u; it must be 1 to %d",
                          s->index.ef_construction, EF_CONSTRUCTION_MAX);
    if (s->index.nlist > NLIST_MAX)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "nlist",
                          "index.nlist is %u; it must be 1 to %d, or 0 to have it chosen",
                          s->index.nlist, NLIST_MAX);
    lay_out_strip(s);
    return ERR_OK;
}

/* NULL for no names; *failed when memory is out. */
static void *copy_array(const void *from, size_t n, size_t size, bool *failed)
{
    void *to = n ? malloc(n * size) : NULL;
    *failed |= n && !to;
    if (to)
        memcpy(to, from, n * size);
    return to;
}

enum err schema_copy(const struct schema *s, struct schema **out, struct err_ctx *ctx)
{
    struct schema *copy;
    RETURN_NOT_OK(schema_new(s->key, s->dim, s->metric, &copy, ctx));
    bool failed = false;
    copy->features = copy_array(s->features, s->nfeatures, sizeof *s->features, &failed);
    copy->partition_by =
        copy_array(s->partition_by, s->npartition, sizeof *s->partition_by, &failed);
    copy->join_keys = copy_array(s->join_keys, s->njoin, sizeof *s->join_keys, &failed);
    if (failed) {
        schema_release(copy);
        return err_no_memory(ctx, s->nfeatures * sizeof *s->features);
    }
    copy->nfeatures = s->nfeatures;
    copy->npartition = s->npartition;
    copy->njoin = s->njoin;
    copy->event_time = s->event_time;
    copy->created_time = s->created_time;
    copy->index = s->index;
    copy->retention = s->retention;
    copy->revision = s->revision + 1;
    *out = copy;
    return ERR_OK;
}

struct schema *schema_acquire(struct schema *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void schema_release(struct schema *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(s->features);
    free(s->partition_by);
    free(s->join_keys);
    free(s);
}

int schema_find(const struct schema *s, const char *name, size_t len)
{
    for (uint32_t i = 0; i < s->nfeatures; i++) {
        if (strlen(s->features[i].name) == len && memcmp(s->features[i].name, name, len) == 0)
            return (int)i;
    }
    return -1;
}

bool schema_equal(const struct schema *a, const struct schema *b)
{
    struct buf x = {0}, y = {0};
    schema_encode(a, &x);
    schema_encode(b, &y);
    bool equal = !x.failed && !y.failed && x.len == y.len && memcmp(x.data, y.data, x.len) == 0;
    buf_deinit(&x);
    buf_deinit(&y);
    return equal;
}

static bool same_names(char (*a)[NAME_MAX_BYTES + 1], uint32_t na, char (*b)[NAME_MAX_BYTES + 1],
                       uint32_t nb)
{
    bool same = na == nb;
    for (uint32_t i = 0; same && i < na; i++)
        same = strcmp(a[i], b[i]) == 0;
    return same;
}

bool schema_extends(const struct schema *s, const struct schema *base)
{
    bool ok = s->key == base->key && s->dim == base->dim && s->metric == base->metric &&
              s->event_time == base->event_time && s->created_time == base->created_time &&
              s->nfeatures >= base->nfeatures &&
              same_names(s->partition_by, s->npartition, base->partition_by, base->npartition) &&
              same_names(s->join_keys, s->njoin, base->join_keys, base->njoin);
    for (uint32_t i = 0; ok && i < base->nfeatures; i++)
        ok = s->features[i].type == base->features[i].type &&
             strcmp(s->features[i].name, base->features[i].name) == 0;
    return ok;
}

static void encode_names(char (*names)[NAME_MAX_BYTES + 1], uint32_t n, struct buf *out)
{
    buf_put_u32(out, n);
    for (uint32_t i = 0; i < n; i++)
        buf_put_str(out, names[i]);
}

void schema_encode(const struct schema *s, struct buf *out)
{
    buf_put_u8(out, (uint8_t)s->key);
    buf_put_u8(out, (uint8_t)s->metric);
    buf_put_u32(out, s->dim);
    buf_put_u32(out, s->nfeatures);
    for (uint32_t i = 0; i < s->nfeatures; i++) {
        buf_put_str(out, s->features[i].name);
        buf_put_u8(out, (uint8_t)s->features[i].type);
    }
    encode_names(s->partition_by, s->npartition, out);
    encode_names(s->join_keys, s->njoin, out);
    buf_put_u32(out, (uint32_t)s->event_time);
    buf_put_u32(out, (uint32_t)s->created_time);
    buf_put_u8(out, (uint8_t)(s->index.kind | s->index.builder << BUILDER_SHIFT));
    buf_put_u32(out, s->index.m);
    buf_put_u32(out, s->index.ef_construction);
    buf_put_u32(out, s->index.nlist);
    buf_put_u32(out, s->retention.versions);
    buf_put_u32(out, s->retention.hours);
}

static bool decode_names(struct cursor *c, char (**names)[NAME_MAX_BYTES + 1], uint32_t *n)
{
    uint32_t count = cursor_u32(c);
    if (c->failed || count > FEATURES_MAX)
        return false;
    if (count == 0)
        return true;
    *names = calloc(count, sizeof **names);
    if (!*names)
        return false;
    *n = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!cursor_str(c, (*names)[i], sizeof(*names)[i]))
            return false;
    }
    return true;
}

static enum err decode_features(struct cursor *c, struct schema *s, struct err_ctx *ctx)
{
    uint32_t n = cursor_u32(c);
    for (uint32_t i = 0; i < n && !c->failed; i++) {
        char name[NAME_MAX_BYTES + 1];
        if (!cursor_str(c, name, sizeof name))
            break;
        uint8_t type = cursor_u8(c);
        if (c->failed || type >= FEATURE_TYPE_COUNT)
            return err_set(ctx, ERR_CORRUPT, "schema: feature %u is damaged", i);
        RETURN_NOT_OK(schema_add_feature(s, name, (enum feature_type)type, ctx));
    }
    return c->failed ? err_set(ctx, ERR_CORRUPT, "schema: the features are damaged") : ERR_OK;
}

static bool decode_settings(struct cursor *c, struct schema *s)
{
    if (!decode_names(c, &s->partition_by, &s->npartition) ||
        !decode_names(c, &s->join_keys, &s->njoin))
        return false;
    s->event_time = (int32_t)cursor_u32(c);
    s->created_time = (int32_t)cursor_u32(c);
    uint8_t both = cursor_u8(c), kind = both % (1 << BUILDER_SHIFT),
            builder = both >> BUILDER_SHIFT;
    s->index.kind = (enum index_kind)kind;
    s->index.builder = (enum index_builder)builder;
    s->index.m = cursor_u32(c);
    s->index.ef_construction = cursor_u32(c);
    s->index.nlist = cursor_u32(c);
    s->retention.versions = cursor_u32(c);
    s->retention.hours = cursor_u32(c);
    return !c->failed && kind <= INDEX_AUTO && builder <= BUILDER_NATIVE &&
           s->event_time < (int32_t)s->nfeatures && s->created_time < (int32_t)s->nfeatures;
}

enum err schema_decode(struct cursor *c, struct schema **out, struct err_ctx *ctx)
{
    uint8_t key = cursor_u8(c), metric = cursor_u8(c);
    uint32_t dim = cursor_u32(c);
    if (c->failed || key > KEY_INT64 || metric > DIST_IP)
        return err_set(ctx, ERR_CORRUPT, "schema: key type or metric is damaged");
    struct schema *s;
    RETURN_NOT_OK(schema_new((enum key_type)key, dim, (enum metric)metric, &s, ctx));
    enum err e = decode_features(c, s, ctx);
    if (e == ERR_OK && !decode_settings(c, s))
        e = err_set(ctx, ERR_CORRUPT, "schema: the settings are damaged");
    if (e == ERR_OK)
        e = schema_seal(s, ctx);
    if (e != ERR_OK) {
        schema_release(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}
