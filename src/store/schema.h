/* What a collection holds: key type, optional vector, typed nullable features, settings.
 *
 * A schema is immutable and reference-counted: it belongs to versions. Fixed-width features lie in
 * one strip per row:
 *
 *   strip: [ null bits, one per feature, LSB first, 1 = null ][ 8-byte values ][ 4-byte ][ 1-byte ]
 *
 * Variable-width features keep only their null bit there; their cells lie in columns. */
#ifndef LOADSTONE_STORE_SCHEMA_H
#define LOADSTONE_STORE_SCHEMA_H

#include <stdatomic.h>

#include "base/bytes.h"

enum { NAME_MAX_BYTES = 128, KEY_MAX_BYTES = 1024, DIM_MAX = 65536, FEATURES_MAX = 4096 };
enum { M_MIN = 2, M_MAX = 512, EF_CONSTRUCTION_MAX = 10000, NLIST_MAX = 65536 };

enum key_type { KEY_STRING = 0, KEY_INT64 = 1 };
enum metric { DIST_COSINE = 0, DIST_L2 = 1, DIST_IP = 2 };
/* Who makes graphs; auto is the native one where its codes are good enough. */
enum index_builder { BUILDER_AUTO = 0, BUILDER_FAISS = 1, BUILDER_NATIVE = 2 };
enum index_kind { INDEX_FLAT = 0, INDEX_HNSW = 1, INDEX_IVF = 2, INDEX_AUTO = 3 };

enum feature_type {
    FEATURE_BOOL = 0,
    FEATURE_INT32,
    FEATURE_INT64,
    FEATURE_FLOAT32,
    FEATURE_FLOAT64,
    FEATURE_TIMESTAMP, /* int64 microseconds since 1970-01-01T00:00:00Z */
    FEATURE_STRING,    /* UTF-8 */
    FEATURE_BYTES,
    FEATURE_FLOAT32_LIST, /* cell = n x float32, little-endian */
    FEATURE_INT64_LIST,   /* cell = n x int64, little-endian */
    FEATURE_STRING_LIST,  /* cell = n x (u32 length, bytes) */
    FEATURE_TYPE_COUNT
};

struct feature {
    char name[NAME_MAX_BYTES + 1];
    enum feature_type type;
    uint32_t width;        /* bytes in the strip; 0 = variable */
    uint32_t strip_offset; /* of the value, when width > 0 */
    uint32_t var_index;    /* which variable column, when width = 0 */
};

struct index_settings {
    enum index_kind kind;
    uint32_t m;               /* HNSW: links per node and layer */
    uint32_t ef_construction; /* HNSW: candidates while building */
    uint32_t nlist;           /* IVF; 0 = chosen from the row count */
    enum index_builder builder;
};

struct retention {
    uint32_t versions;
    uint32_t hours;
};

struct schema {
    atomic_uint refs;
    enum key_type key;
    uint32_t dim; /* 0 = no vector */
    enum metric metric;
    uint32_t nfeatures;
    uint32_t nvar;        /* variable-width features */
    uint32_t null_bytes;  /* at the start of a strip */
    uint32_t strip_bytes; /* 0 when there are no features; else a multiple of 8 */
    struct feature *features;
    uint32_t npartition, njoin;
    char (*partition_by)[NAME_MAX_BYTES + 1];
    char (*join_keys)[NAME_MAX_BYTES + 1];
    int32_t event_time, created_time; /* feature index or -1 */
    struct index_settings index;
    struct retention retention;
    uint32_t revision; /* alterations since the collection was opened; not stored */
};

/* "float32[]" and so on; NULL for an unknown name. */
const char *feature_type_name(enum feature_type t);
bool feature_type_parse(const char *name, enum feature_type *out);
uint32_t feature_type_width(enum feature_type t); /* 0 = variable */
const char *metric_name(enum metric m);
bool metric_parse(const char *name, enum metric *out);
const char *index_kind_name(enum index_kind k);
bool index_kind_parse(const char *name, enum index_kind *out);
const char *index_builder_name(enum index_builder b);
bool index_builder_parse(const char *name, enum index_builder *out);

/* Names of collections and features: [A-Za-z_][A-Za-z0-9_-]{0,127}. */
bool name_valid(const char *name);

/* A schema without features and with the default settings (index auto, m 32, ef_construction 200,
 * retention 100 versions and 168 hours). One reference is the caller's. */
WARN_UNUSED enum err schema_new(enum key_type key, uint32_t dim, enum metric metric,
                                struct schema **out, struct err_ctx *ctx);
/* While building only. 422 for a bad or reserved (key, vector, distance) or repeated name. */
WARN_UNUSED enum err schema_add_feature(struct schema *s, const char *name, enum feature_type type,
                                        struct err_ctx *ctx);
/* While building, once the features are there. 422 when the feature is unknown, comes twice or its
 * type can't tell partitions apart (floats and lists). */
WARN_UNUSED enum err schema_add_partition(struct schema *s, const char *name, struct err_ctx *ctx);
/* While building: the timestamp features that order a key's rows; `created` may be NULL. 422. */
WARN_UNUSED enum err schema_set_times(struct schema *s, const char *event, const char *created,
                                      struct err_ctx *ctx);
/* Checks the settings and lays out the strip; the schema is immutable from here. */
WARN_UNUSED enum err schema_seal(struct schema *s, struct err_ctx *ctx);

/* A copy to alter while building: features may be added, settings changed; then seal it. */
WARN_UNUSED enum err schema_copy(const struct schema *s, struct schema **out, struct err_ctx *ctx);

struct schema *schema_acquire(struct schema *s);
void schema_release(struct schema *s); /* NULL is allowed */

/* Index of a feature by name, or -1. */
int schema_find(const struct schema *s, const char *name, size_t len);
/* The same after defaults: features by name and order. */
bool schema_equal(const struct schema *a, const struct schema *b);
/* True when rows of `base` are rows of `s`: all but the settings is the same, and `s` may have more
 * features behind those of `base`. */
bool schema_extends(const struct schema *s, const struct schema *base);

void schema_encode(const struct schema *s, struct buf *out);
WARN_UNUSED enum err schema_decode(struct cursor *c, struct schema **out, struct err_ctx *ctx);

static inline bool strip_null(const uint8_t *strip, uint32_t feature)
{
    return strip[feature >> 3] >> (feature & 7) & 1;
}

#endif
