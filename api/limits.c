/* Limits: their rows of the settings' table, and how they bear on each other.
 *
 * Threads: set before the server starts, read by all. Failure: a sentence with both names. */
#include "api/limits.h"

#include "api/json_writer.h"
#include "api/service.h"
#include "index/search.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define ROW(kind, field, by_default, least, most, what)                                            \
    {                                                                                              \
        .name = #field, .type = (kind), .offset = offsetof(struct limits, field),                  \
        .standard = (by_default), .min = (least), .max = (most), .help = (what)                    \
    }

static const struct config_row rows[] = {
    ROW(CONFIG_BYTES, body_bytes_max, "16G", 1, UINT64_MAX / 2,
        "bytes of a streamed body: NDJSON, npy, octet-stream"),
    ROW(CONFIG_BYTES, json_body_bytes_max, "64M", 1, 1 * GIB, "bytes of a JSON body"),
    ROW(CONFIG_BYTES, row_bytes_max, "16M", 1 * KIB, 256 * MIB, "bytes of one row's JSON text"),
    ROW(CONFIG_BYTES, result_bytes_max, "64M", 1 * KIB, 1 * GIB, "bytes of one answer"),
    ROW(CONFIG_UINT, rows_page_max, "10000", 1, 1 << 20, "rows of one page"),
    ROW(CONFIG_UINT, k_max, "10000", 1, SEARCH_K_MAX, "k of a search"),
    ROW(CONFIG_UINT, ef_max, "100000", 1, SEARCH_EF_MAX, "ef of a search"),
    ROW(CONFIG_UINT, nprobe_max, "65536", 1, SEARCH_NPROBE_MAX, "nprobe of a search"),
    ROW(CONFIG_UINT, queries_max, "10000", 1, SEARCH_QUERIES_MAX, "queries of one search request"),
    ROW(CONFIG_BYTES, filter_bytes_max, "1M", 1, 64 * MIB, "bytes of a filter"),
    ROW(CONFIG_BYTES, buffer_bytes_max, "1G", 8 * MIB, 1024 * GIB,
        "bytes of request bodies held in memory, all connections together"),
    ROW(CONFIG_UINT, queue_max, "1024", 1, 1 << 20, "requests waiting for a worker"),
    ROW(CONFIG_UINT, exports_max, "64", 1, 4096, "exports and diffs being sent at once"),
    ROW(CONFIG_UINT, loads_max, "1000", 1, 100000, "open loads of a collection"),
    ROW(CONFIG_UINT, parts_max, "10000", 1, 1000000, "parts of a load"),
    ROW(CONFIG_UINT, part_name_bytes_max, "1024", 1, 8192, "bytes of a part's name"),
    ROW(CONFIG_UINT, load_expiry_s, "86400", 1, 10 * 365 * 86400ull,
        "seconds without activity after which an open load expires"),
    ROW(CONFIG_UINT, idempotency_keys_max, "1000000", 1, 100000000,
        "repeatable answers kept of a collection, for 24 hours; beyond them the oldest are "
        "forgotten first"),
    ROW(CONFIG_UINT, wait_s_max, "3600", 0, 86400, "seconds that a commit may be waited for"),
    ROW(CONFIG_UINT, connections_max, "4096", 1, 1 << 20, "open connections"),
    ROW(CONFIG_UINT, connections_per_ip_max, "4096", 1, 1 << 20,
        "open connections from one address"),
    ROW(CONFIG_UINT, idle_timeout_s, "120", 1, 86400,
        "seconds until a connection on which nothing moves is closed"),
    ROW(CONFIG_UINT, header_timeout_s, "30", 1, 86400, "seconds to send a whole request head"),
    ROW(CONFIG_UINT, transfer_grace_s, "60", 1, 86400,
        "seconds that a client may take to send a body or to read an answer, whatever its length"),
    ROW(CONFIG_BYTES, transfer_rate_min, "1K", 1, 1 * GIB,
        "bytes that it must move in each second beyond those"),
    ROW(CONFIG_UINT, slow_request_ms, "1000", 0, 86400000,
        "requests that take as long are logged with their plan; 0 logs none"),
    ROW(CONFIG_BYTES, drain_bytes_max, "64M", 0, 1 * GIB,
        "bytes of a refused body that are still read, so that its client gets to read why"),
    ROW(CONFIG_UINT, drain_timeout_s, "5", 0, 3600, "seconds for that"),
    ROW(CONFIG_UINT, shutdown_timeout_s, "10", 0, 86400,
        "seconds that running requests may take after SIGTERM"),
};

enum { LIMITS = sizeof rows / sizeof rows[0] };

struct config_group limits_group(struct limits *l)
{
    return (struct config_group){"Limits", rows, LIMITS, l};
}

void limits_init(struct limits *l)
{
    struct config defaults;
    struct config_group group = limits_group(l);
    config_init(&defaults, &group, 1);
}

/* What could never be met is refused at the start, not at every request. */
enum err limits_check(const struct limits *l, struct err_ctx *ctx)
{
    uint64_t large = service_large_bodies_max(l);
    if (l->json_body_bytes_max > large)
        return err_set(ctx, ERR_INVALID,
                       "json_body_bytes_max (%llu) is over three quarters of buffer_bytes_max "
                       "(%llu), so that such a body would be refused for good: raise "
                       "buffer_bytes_max or lower json_body_bytes_max",
                       (unsigned long long)l->json_body_bytes_max,
                       (unsigned long long)l->buffer_bytes_max);
    if (l->row_bytes_max > large)
        return err_set(ctx, ERR_INVALID,
                       "row_bytes_max (%llu) is over three quarters of buffer_bytes_max (%llu): "
                       "raise buffer_bytes_max or lower row_bytes_max",
                       (unsigned long long)l->row_bytes_max,
                       (unsigned long long)l->buffer_bytes_max);
    return ERR_OK;
}

void limits_write(const struct limits *l, struct buf *out)
{
    buf_put_u8(out, '{');
    for (size_t i = 0; i < LIMITS; i++) {
        json_put_text(out, rows[i].name);
        buf_put_u8(out, ':');
        json_put_uint(out, *(const uint64_t *)((const char *)l + rows[i].offset));
        buf_put_u8(out, ',');
    }
    buf_printf(out,
               "\"key_bytes_max\":%d,\"name_bytes_max\":%d,\"dim_max\":%d,\"features_max\":%d,"
               "\"m_max\":%d,\"ef_construction_max\":%d,\"nlist_max\":%d,\"filter_depth_max\":%d,"
               "\"filter_terms_max\":%d,\"like_bytes_max\":%d}\n",
               KEY_MAX_BYTES, NAME_MAX_BYTES, DIM_MAX, FEATURES_MAX, M_MAX, EF_CONSTRUCTION_MAX,
               NLIST_MAX, FILTER_DEPTH_MAX, FILTER_TERMS_MAX, FILTER_LIKE_MAX);
}
