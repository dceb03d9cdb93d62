/* Search: read the queries, search in blocks, write each block's hits.
 *
 * The hits of one block are held at a time, so that memory is bounded by the answer, which is
 * bounded by result_bytes_max.
 *
 *   octet-stream out: [ keys: nq x k int64 ][ distances: nq x k float32 ], -1 and +Inf where
 * missing
 *
 * Threads: on the HTTP thread while the estimated work is short, else once more from the start on a
 * reader: parsing again costs little beside the search. Failure: the first error replaces the
 * answer. */
#include "api/routes.h"

#include <float.h>
#include <math.h>

#include "api/columns.h"
#include "api/json_writer.h"
#include "api/search_body.h"
#include "api/selector.h"
#include "api/slow_log.h"
#include "base/clock.h"
#include "base/metrics.h"

METRIC_HISTOGRAM(search_time, "loadstone_search_duration_seconds",
                 "Time of a search inside the daemon: from the request line to the answer made.")
METRIC_COUNTER(search_queries, "loadstone_search_queries_total", "Queries of searches answered.")

/* A walk on an HTTP thread that takes longer is made on a worker. */
enum { WALK_US_MAX = 4000 };
enum { BLOCK_HITS = 8192, HIT_JSON_BYTES_MIN = 22, HIT_OCTETS = 12 };

typedef void (*write_hits)(struct request *r, const struct snapshot *s, const struct search_ask *a,
                           size_t query, const struct hit *hits, uint32_t n);

/* ---- JSON ---- */

static void put_hit(struct request *r, const struct snapshot *s, const struct search_ask *a,
                    const struct hit *hit)
{
    struct buf *out = &r->out;
    json_put_raw(out, "{\"key\":");
    row_put_key(out, s, hit->ref);
    json_put_raw(out, ",\"distance\":");
    json_put_float(out, (float)hit->distance);
    if (a->with_features) {
        json_put_raw(out, ",\"features\":");
        row_put_features(out, s, hit->ref, &r->columns);
    }
    if (a->with_vectors) {
        json_put_raw(out, ",\"vector\":");
        row_put_vector(out, s, hit->ref);
    }
    buf_put_u8(out, '}');
}

static void put_json_hits(struct request *r, const struct snapshot *s, const struct search_ask *a,
                          size_t query, const struct hit *hits, uint32_t n)
{
    if (query)
        buf_put_u8(&r->out, ',');
    buf_put_u8(&r->out, '[');
    for (uint32_t i = 0; i < n && request_check_out(r, NULL) == ERR_OK; i++) {
        if (i)
            buf_put_u8(&r->out, ',');
        put_hit(r, s, a, &hits[i]);
    }
    buf_put_u8(&r->out, ']');
}

/* ---- octets ---- */

static enum err put_missing(struct request *r, size_t n, struct err_ctx *ctx)
{
    char *p = buf_extend(&r->out, n * HIT_OCTETS);
    if (!p)
        return err_no_memory(ctx, n * HIT_OCTETS);
    memset(p, 0xff, n * sizeof(int64_t));
    float *distances = (float *)(p + n * sizeof(int64_t));
    for (size_t i = 0; i < n; i++)
        distances[i] = INFINITY;
    return ERR_OK;
}

/* +Inf marks what is missing: a hit is farther than float32 can say at FLT_MAX. */
static float octet_distance(double distance)
{
    return distance > (double)FLT_MAX ? FLT_MAX : (float)distance;
}

static void put_octet_hits(struct request *r, const struct snapshot *s, const struct search_ask *a,
                           size_t query, const struct hit *hits, uint32_t n)
{
    int64_t *keys = (int64_t *)r->out.data;
    float *distances = (float *)(keys + a->nq * a->params.k);
    size_t at = query * a->params.k;
    for (uint32_t i = 0; i < n; i++) {
        keys[at + i] = segment_key_int(s->views[hits[i].ref.view].segment, hits[i].ref.row);
        distances[at + i] = octet_distance(hits[i].distance);
    }
}

/* ---- both ---- */

/* Fewer candidates than k give fewer hits. */
static uint32_t hits_max(const struct snapshot *s, const struct search_ask *a)
{
    return s->vectors < a->params.k ? (uint32_t)s->vectors : a->params.k;
}

static enum err check_size(struct request *r, const struct snapshot *s, const struct search_ask *a,
                           struct err_ctx *ctx)
{
    bool octets = r->media_out == MEDIA_OCTETS;
    uint64_t hits = (uint64_t)a->nq * (octets ? a->params.k : hits_max(s, a));
    uint64_t bytes = hits * (octets ? HIT_OCTETS : HIT_JSON_BYTES_MIN);
    uint64_t max = r->service->limits.result_bytes_max;
    if (bytes <= max)
        return ERR_OK;
    return err_set(ctx, ERR_TOO_LARGE,
                   "%zu queries with k = %u give more than result_bytes_max (%llu bytes): ask for "
                   "fewer at a time",
                   a->nq, a->params.k, (unsigned long long)max);
}

static enum err reserve_block(struct request *r, size_t block, uint32_t k, struct err_ctx *ctx)
{
    buf_reset(&r->hits);
    buf_reset(&r->counts);
    if (buf_extend(&r->hits, block * k * sizeof(struct hit)) &&
        buf_extend(&r->counts, block * sizeof(uint32_t)))
        return ERR_OK;
    return err_no_memory(ctx, block * k * sizeof(struct hit));
}

static enum err search_block(struct request *r, const struct snapshot *s,
                             const struct search_ask *a, size_t from, size_t n, uint32_t k,
                             write_hits write, struct err_ctx *ctx)
{
    struct search_params p = a->params;
    struct search_scratch *scratch = search_scratch_local();
    const float *queries = (const float *)r->queries.data + from * s->schema->dim;
    struct hit *hits = (struct hit *)r->hits.data;
    uint32_t *counts = (uint32_t *)r->counts.data;
    if (!scratch)
        return err_no_memory(ctx, 0);
    p.k = k;
    p.cancel = &r->service->closed;
    p.walk_us_max = r->on_worker ? 0 : WALK_US_MAX;
    if (p.exclude)
        p.exclude += from;
    RETURN_NOT_OK(search_run(s, queries, n, &p, scratch, hits, counts, ctx));
    for (size_t i = 0; i < n; i++) {
        write(r, s, a, from + i, hits + i * k, counts[i]);
        RETURN_NOT_OK(request_check_out(r, ctx));
    }
    return ERR_OK;
}

static enum err search_all(struct request *r, const struct snapshot *s, const struct search_ask *a,
                           write_hits write, struct err_ctx *ctx)
{
    uint32_t k = hits_max(s, a);
    size_t block = k == 0 || BLOCK_HITS / k == 0 ? 1 : BLOCK_HITS / k;
    if (block > a->nq)
        block = a->nq;
    if (k == 0) {
        for (size_t i = 0; i < a->nq; i++)
            write(r, s, a, i, NULL, 0);
        return ERR_OK;
    }
    RETURN_NOT_OK(reserve_block(r, block, k, ctx));
    for (size_t from = 0; from < a->nq; from += block) {
        size_t n = a->nq - from < block ? a->nq - from : block;
        RETURN_NOT_OK(search_block(r, s, a, from, n, k, write, ctx));
    }
    return ERR_OK;
}

/* ---- explaining ---- */

static void put_effort(struct request *r, const char *name, uint32_t effort)
{
    buf_printf(&r->out, ",\"%s\":%u", name, effort);
}

static void put_recall(struct request *r, double recall)
{
    json_put_raw(&r->out, ",\"recall\":");
    if (isnan(recall))
        json_put_raw(&r->out, "null");
    else
        json_put_float(&r->out, (float)recall);
}

/* What the whole search took. */
static void put_report(struct request *r, const struct search_report *report)
{
    if (report->ef)
        put_effort(r, "ef", report->ef);
    if (report->nprobe)
        put_effort(r, "nprobe", report->nprobe);
    put_recall(r, report->recall);
}

static void put_step(struct request *r, const struct search_step *step)
{
    static const char *const ways[] = {"scan", "graph", "lists", "codes"};
    json_put_raw(&r->out, "{\"rows\":");
    json_put_uint(&r->out, step->rows);
    buf_printf(&r->out, ",\"way\":\"%s\",\"selectivity\":", ways[step->way]);
    json_put_float(&r->out, (float)step->share);
    buf_printf(&r->out, ",\"cached\":%s", step->cached ? "true" : "false");
    if (step->effort)
        put_effort(r, step->way == SEARCH_LISTS ? "nprobe" : "ef", step->effort);
    put_recall(r, step->recall);
    buf_put_u8(&r->out, '}');
}

/* ,"explain":{"filter":"..","segments":[{"rows":..,"way":"graph","selectivity":0.5,"cached":true,"ef":46,
 *  "recall":0.957}]} */
static void put_explain(struct request *r, const struct snapshot *s, const struct search_ask *a)
{
    struct buf normal = {0};
    bool first = true;
    json_put_raw(&r->out, ",\"explain\":{\"filter\":");
    if (a->filter) {
        filter_normal(a->filter, &normal);
        json_put_string(&r->out, (const char *)normal.data, normal.len);
        r->out.failed |= normal.failed;
        buf_deinit(&normal);
    } else {
        json_put_raw(&r->out, "null");
    }
    json_put_raw(&r->out, ",\"segments\":[");
    for (uint32_t i = 0; i < s->nviews; i++) {
        struct search_step step;
        if (!s->views[i].live)
            continue;
        search_explain(s, a->nq, &a->params, i, &step);
        if (!first)
            buf_put_u8(&r->out, ',');
        put_step(r, &step);
        first = false;
    }
    json_put_raw(&r->out, "]}");
}

static enum err answer_json(struct request *r, const struct snapshot *s, const struct search_ask *a,
                            struct err_ctx *ctx)
{
    json_put_raw(&r->out, "{\"version\":");
    json_put_uint(&r->out, s->version);
    json_put_raw(&r->out, ",\"hits\":[");
    RETURN_NOT_OK(search_all(r, s, a, put_json_hits, ctx));
    buf_put_u8(&r->out, ']');
    put_report(r, &a->report);
    if (a->explain)
        put_explain(r, s, a);
    json_put_raw(&r->out, ",\"took_us\":");
    json_put_uint(&r->out, clock_mono_us() - r->started_us);
    json_put_raw(&r->out, "}\n");
    return request_check_out(r, ctx);
}

/* For who asked for recall: headers cost the others time. */
static void add_report_headers(struct request *r, const struct search_report *report)
{
    if (report->ef)
        request_add_header(r, "Loadstone-Ef", "%u", report->ef);
    if (report->nprobe)
        request_add_header(r, "Loadstone-Nprobe", "%u", report->nprobe);
    if (!isnan(report->recall))
        request_add_header(r, "Loadstone-Recall", "%.4f", report->recall);
}

static enum err answer_octets(struct request *r, const struct snapshot *s,
                              const struct search_ask *a, struct err_ctx *ctx)
{
    r->content_type = "application/octet-stream";
    RETURN_NOT_OK(put_missing(r, a->nq * a->params.k, ctx));
    RETURN_NOT_OK(search_all(r, s, a, put_octet_hits, ctx));
    if (a->params.recall > 0)
        add_report_headers(r, &a->report);
    return ERR_OK;
}

/* What a slow search did. */
static void note_plan(struct request *r, const struct snapshot *s, const struct search_ask *a)
{
    struct search_plan plan;
    if (!slow_log_wants(r))
        return;
    search_plan_get(s, a->nq, &a->params, &plan);
    slow_log_note(r, "queries", a->nq);
    slow_log_note(r, "k", a->params.k);
    slow_log_note(r, "ef", a->report.ef);
    slow_log_note(r, "nprobe", a->report.nprobe);
    slow_log_note(r, "exact", a->params.exact);
    slow_log_note(r, "filtered", a->filter != NULL);
    slow_log_note(r, "graphs", plan.graphs);
    slow_log_note(r, "lists", plan.lists);
    slow_log_note(r, "scans", plan.scans);
    slow_log_note(r, "rows_scanned", plan.rows_scanned);
}

/* Whether to leave it to a worker: it looks long, or it got long. */
static bool search_defers(struct request *r, const struct snapshot *s, const struct search_ask *a)
{
    double cost_us =
        columns_cost_us(s->schema, &r->columns, a->with_vectors, a->nq * hits_max(s, a));
    if (!r->on_worker && a->nq)
        cost_us += search_cost_us(s, a->nq, &a->params);
    return request_defers(r, cost_us);
}

static enum err search_read(struct request *r, const struct snapshot *s, const struct search_ask *a,
                            struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_size(r, s, a, ctx));
    if (search_defers(r, s, a))
        return ERR_OK;
    enum err e =
        r->media_out == MEDIA_OCTETS ? answer_octets(r, s, a, ctx) : answer_json(r, s, a, ctx);
    if (e == ERR_AGAIN && request_defers(r, INFINITY)) {
        err_clear(ctx);
        return ERR_OK;
    }
    note_plan(r, s, a);
    RETURN_NOT_OK(e);
    metric_observe_us(&search_time, 0, clock_mono_us() - r->started_us);
    metric_add(&search_queries, 0, a->nq);
    return ERR_OK;
}

/* Under the version that the body names. */
static enum err read_ask(struct request *r, struct snapshot **s, struct search_ask *a,
                         struct err_ctx *ctx)
{
    bool again;
    enum err e = search_body_read(r, *s, a, ctx);
    e = selector_reopen(r, e, a->any_version, s, &again, ctx);
    if (e != ERR_OK || !again)
        return e;
    filter_free(a->filter);
    return search_body_read(r, *s, a, ctx);
}

static enum err search_in(struct request *r, struct snapshot **s, struct err_ctx *ctx)
{
    struct search_ask a;
    enum err e = read_ask(r, s, &a, ctx);
    if (e == ERR_OK)
        e = search_read(r, *s, &a, ctx);
    filter_free(a.filter);
    return e;
}

enum err search(struct request *r, struct err_ctx *ctx)
{
    struct snapshot *s;
    if (request_defers(r, 0))
        return ERR_OK;
    RETURN_NOT_OK(selector_of_query(r, ctx));
    RETURN_NOT_OK(request_open_snapshot(r, &s, ctx));
    enum err e = search_in(r, &s, ctx);
    request_close_snapshot(r, s);
    return e;
}
