/* Every limit of the outside: rows of the settings' table, which GET /v1/limits lists too. The
 * error that a limit causes names it. */
#ifndef LOADSTONE_API_LIMITS_H
#define LOADSTONE_API_LIMITS_H

#include "base/config.h"

struct limits {
    uint64_t body_bytes_max;
    uint64_t json_body_bytes_max;
    uint64_t row_bytes_max;
    uint64_t result_bytes_max;
    uint64_t rows_page_max;
    uint64_t k_max;
    uint64_t ef_max;
    uint64_t nprobe_max;
    uint64_t queries_max;
    uint64_t filter_bytes_max;
    uint64_t buffer_bytes_max;
    uint64_t queue_max;
    uint64_t exports_max;
    uint64_t loads_max;
    uint64_t parts_max;
    uint64_t part_name_bytes_max;
    uint64_t load_expiry_s;
    uint64_t idempotency_keys_max;
    uint64_t wait_s_max;
    uint64_t connections_max;
    uint64_t connections_per_ip_max;
    uint64_t idle_timeout_s;
    uint64_t header_timeout_s;
    uint64_t transfer_grace_s;
    uint64_t transfer_rate_min;
    uint64_t slow_request_ms;
    uint64_t drain_bytes_max;
    uint64_t drain_timeout_s;
    uint64_t shutdown_timeout_s;
};

/* The group of the settings that fills `l`. */
struct config_group limits_group(struct limits *l);
/* The defaults. */
void limits_init(struct limits *l);
/* Limits that make no sense together: ERR_INVALID says which one to change. */
WARN_UNUSED enum err limits_check(const struct limits *l, struct err_ctx *ctx);
/* How long a client may take to send or to read `bytes`. */
static inline uint64_t limits_transfer_us(const struct limits *l, uint64_t bytes)
{
    return (l->transfer_grace_s + bytes / l->transfer_rate_min) * 1000000;
}
/* A JSON object of all limits, those that the store fixes too. */
void limits_write(const struct limits *l, struct buf *out);

#endif
