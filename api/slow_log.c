/* The slow-request log.
 *
 *   handler: slow_log_wants? ── notes numbers: k, ef, views walked, rows ...
 *   answer:  over slow_request_ms? ── one line: request, status, times, bytes, the numbers
 *
 * Threads: those of the request. Failure: none; the log drops what it cannot write. */
#include "api/slow_log.h"

#include <stdio.h>

#include "base/clock.h"

enum { COMMON = 7, PATH_BYTES = 256 };

uint64_t slow_log_took_us(const struct request *r, uint64_t now_us)
{
    uint64_t all_us = now_us - r->started_us;
    return all_us > r->waited_us ? all_us - r->waited_us : 0;
}

static bool is_slow(const struct request *r, uint64_t took_us)
{
    uint64_t ms = r->service->limits.slow_request_ms;
    return ms > 0 && took_us >= ms * 1000;
}

bool slow_log_wants(const struct request *r)
{
    return is_slow(r, slow_log_took_us(r, clock_mono_us()));
}

void slow_log_note(struct request *r, const char *name, uint64_t number)
{
    if (r->plan_len == REQUEST_PLAN_MAX)
        return;
    r->plan[r->plan_len++] = (struct log_field){.name = name, .number = (int64_t)number};
}

/* As much of the decoded path as fits. */
static void write_path(const struct request *r, char out[PATH_BYTES])
{
    int n = 0;
    out[0] = 0;
    for (unsigned i = 0; i < r->target.nsegments && i < TARGET_SEGMENTS_MAX && n < PATH_BYTES; i++)
        n += snprintf(out + n, (size_t)(PATH_BYTES - n), "/%s", r->target.segments[i].text);
}

void slow_log_end(const struct request *r, uint64_t now_us)
{
    uint64_t took_us = slow_log_took_us(r, now_us);
    if (!is_slow(r, took_us))
        return;
    char path[PATH_BYTES];
    write_path(r, path);
    struct log_field all[COMMON + REQUEST_PLAN_MAX] = {
        {.name = "method", .text = r->route ? r->route->method : "?"},
        {.name = "path", .text = path},
        {.name = "status", .number = (int64_t)r->status},
        {.name = "took_us", .number = (int64_t)took_us},
        {.name = "queued_us", .number = (int64_t)r->queued_us},
        {.name = "bytes_in", .number = (int64_t)r->received},
        {.name = "bytes_out", .number = (int64_t)r->out.len},
    };
    unsigned n = COMMON;
    for (unsigned i = 0; i < r->plan_len; i++)
        all[n++] = r->plan[i];
    log_event(LOG_WARN, "slow request", all, n);
}
