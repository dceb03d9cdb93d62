/* Limits: one table of names, offsets, defaults and bounds.
 *
 * Invariant: a value in a struct limits lies within the bounds of its row, so that no user of it
 * has to check again.
 *
 * Threads: set before the server starts, read by all. Failure: a sentence with the bounds. */
#include "api/limits.h"

#include "api/json_writer.h"
#include "api/number.h"
#include "index/search.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static const struct limit {
    const char *name;
    size_t offset;
    uint64_t standard, min, max;
} table[] = {
#define LIMIT(name, standard, min, max)                                                            \
    {                                                                                              \
#name, offsetof(struct limits, name), standard, min, max                                   \
    }
    LIMIT(body_bytes_max, 16 * GIB, 1, UINT64_MAX / 2),
    LIMIT(json_body_bytes_max, 64 * MIB, 1, 1 * GIB),
    LIMIT(row_bytes_max, 16 * MIB, 1 * KIB, 256 * MIB),
    LIMIT(result_bytes_max, 64 * MIB, 1 * KIB, 1 * GIB),
    LIMIT(rows_page_max, 10000, 1, 1 << 20),
    LIMIT(k_max, SEARCH_K_MAX, 1, SEARCH_K_MAX),
    LIMIT(ef_max, SEARCH_EF_MAX, 1, SEARCH_EF_MAX),
    LIMIT(nprobe_max, SEARCH_NPROBE_MAX, 1, SEARCH_NPROBE_MAX),
    LIMIT(queries_max, SEARCH_QUERIES_MAX, 1, SEARCH_QUERIES_MAX),
    LIMIT(buffer_bytes_max, 1 * GIB, 8 * MIB, 1024 * GIB),
    LIMIT(queue_max, 1024, 1, 1 << 20),
    LIMIT(connections_max, 4096, 1, 1 << 20),
    LIMIT(connections_per_ip_max, 4096, 1, 1 << 20),
    LIMIT(idle_timeout_s, 120, 1, 86400),
    LIMIT(header_timeout_s, 30, 1, 86400),
    LIMIT(drain_bytes_max, 64 * MIB, 0, 1 * GIB),
    LIMIT(drain_timeout_s, 5, 0, 3600),
    LIMIT(shutdown_timeout_s, 10, 0, 86400),
#undef LIMIT
};

enum { LIMITS = sizeof table / sizeof table[0] };

static uint64_t *slot(struct limits *l, const struct limit *row)
{
    return (uint64_t *)((char *)l + row->offset);
}

void limits_init(struct limits *l)
{
    for (size_t i = 0; i < LIMITS; i++)
        *slot(l, &table[i]) = table[i].standard;
}

static const struct limit *find(const char *name, size_t len)
{
    for (size_t i = 0; i < LIMITS; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return &table[i];
    return NULL;
}

static enum err unknown(const char *assignment, struct err_ctx *ctx)
{
    struct buf names = {0};
    for (size_t i = 0; i < LIMITS; i++)
        buf_printf(&names, "%s%s", i ? ", " : "", table[i].name);
    enum err e = err_set(ctx, ERR_INVALID, "--limit %s: write NAME=VALUE with one of %.*s",
                         assignment, (int)names.len, (const char *)names.data);
    buf_deinit(&names);
    return e;
}

enum err limits_set(struct limits *l, const char *assignment, struct err_ctx *ctx)
{
    const char *equals = strchr(assignment, '=');
    const struct limit *row = equals ? find(assignment, (size_t)(equals - assignment)) : NULL;
    int64_t value;
    if (!row)
        return unknown(assignment, ctx);
    if (number_parse_int64(equals + 1, strlen(equals + 1), &value) != NUMBER_OK || value < 0 ||
        (uint64_t)value < row->min || (uint64_t)value > row->max)
        return err_set(ctx, ERR_INVALID, "--limit %s: %s takes a whole number from %llu to %llu",
                       assignment, row->name, (unsigned long long)row->min,
                       (unsigned long long)row->max);
    *slot(l, row) = (uint64_t)value;
    return ERR_OK;
}

void limits_write(const struct limits *l, struct buf *out)
{
    buf_put_u8(out, '{');
    for (size_t i = 0; i < LIMITS; i++) {
        json_put_text(out, table[i].name);
        buf_put_u8(out, ':');
        json_put_uint(out, *slot((struct limits *)l, &table[i]));
        buf_put_u8(out, ',');
    }
    buf_printf(out,
               "\"key_bytes_max\":%d,\"name_bytes_max\":%d,\"dim_max\":%d,\"features_max\":%d,"
               "\"m_max\":%d,\"ef_construction_max\":%d,\"nlist_max\":%d}\n",
               KEY_MAX_BYTES, NAME_MAX_BYTES, DIM_MAX, FEATURES_MAX, M_MAX, EF_CONSTRUCTION_MAX,
               NLIST_MAX);
}
