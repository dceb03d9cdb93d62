/* GET /metrics: counters and histograms of base/metrics, then the gauges, each read where it lives.
 *
 * The series of one family stand together in the format, so the collections are looked at once into
 * an array, which is then written family by family. Collections beyond COLLECTIONS_MAX, in the
 * order of their names, have no series of their own: a comment says how many were left out.
 *
 * Threads: runs on a writer, so that a scrape never holds an HTTP thread; takes the indexer's and
 * the pools' locks for moments. Failure: 503 when memory is out. */
#include "api/routes.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/process.h"
#include "base/version.h"
#include "index/filter_cache.h"
#include "index/search.h"

enum { COLLECTIONS_MAX = 256, FAMILIES = 11 };

enum state { SERVING, READ_ONLY, QUARANTINED, OPENING, STATES };
static const char *const state_names[STATES] = {"serving", "read_only", "quarantined", "opening"};

struct sample {
    char labels[NAME_MAX_BYTES + 32]; /* collection="name" */
    enum state state;
    double values[FAMILIES];
};

struct survey {
    struct request *request;
    struct buf samples; /* struct sample */
    size_t states[STATES];
    size_t left_out;
    uint64_t mapped_bytes;
};

/* Of each collection that is open. */
static const struct family {
    const char *name, *help;
} families[FAMILIES] = {
    {"loadstone_collection_version", "Newest version."},
    {"loadstone_collection_rows", "Live rows."},
    {"loadstone_collection_vectors", "Live rows with a vector."},
    {"loadstone_collection_bytes", "Bytes of its segments, files and tail."},
    {"loadstone_collection_segments", "Segments that a search visits."},
    {"loadstone_collection_indexed_rows", "Live rows with a vector in an ANN index."},
    {"loadstone_collection_index_bytes", "Bytes of its ANN indexes."},
    {"loadstone_collection_index_progress", "Share of the index that is built, 0 to 1."},
    {"loadstone_collection_index_building", "1 while a build of its index runs or waits."},
    {"loadstone_collection_recall",
     "Estimated recall@10 of searches that name no effort: measured at builds, corrected by live "
     "queries; 1 where all rows are looked at, NaN where it was never measured."},
    {"loadstone_collection_commit_time_seconds", "Unix time of the newest commit; 0: none."},
};

/* ---- collections ---- */

static void look_at_open(struct survey *v, struct collection *c, struct sample *out)
{
    const struct snapshot *s = collection_snapshot(c);
    struct index_state index;
    index_state_get(v->request->service->indexer, c, s, &index);
    const double values[FAMILIES] = {
        (double)s->version,        (double)s->rows,         (double)s->vectors,
        (double)s->bytes,          (double)s->nviews,       (double)index.indexed_rows,
        (double)index.bytes,       index.progress,          (double)index.building,
        search_expected_recall(s), (double)s->time_us / 1e6};
    memcpy(out->values, values, sizeof values);
    for (uint32_t i = 0; i < s->nviews; i++)
        v->mapped_bytes += s->views[i].segment->tail ? 0 : s->views[i].segment->bytes;
    v->mapped_bytes += index.bytes;
}

static enum state state_of(struct survey *v, struct collection *c)
{
    if (c)
        return collection_read_only(c) ? READ_ONLY : SERVING;
    return catalog_ready(v->request->service->catalog) ? QUARANTINED : OPENING;
}

static void look_at(void *arg, const char *name, struct collection *c, const char *fault)
{
    struct survey *v = arg;
    struct sample sample = {.state = state_of(v, c)};
    struct buf labels = {0};
    (void)fault;
    v->states[sample.state]++;
    if (c)
        look_at_open(v, c, &sample);
    if (v->samples.len / sizeof sample == COLLECTIONS_MAX) {
        v->left_out++;
        return;
    }
    metrics_put_label(&labels, "collection", name);
    if (labels.len)
        memcpy(sample.labels, labels.data, labels.len);
    v->samples.failed |= labels.failed;
    buf_deinit(&labels);
    buf_put(&v->samples, &sample, sizeof sample);
}

static void put_states(const struct survey *v, struct buf *out)
{
    metrics_put_head(out, "loadstone_collections", "gauge", "Collections by state.");
    for (int i = 0; i < STATES; i++) {
        char labels[64];
        snprintf(labels, sizeof labels, "state=\"%s\"", state_names[i]);
        metrics_put_sample(out, "loadstone_collections", labels, (double)v->states[i]);
    }
}

static void put_flag(const struct survey *v, const char *name, const char *help, enum state state,
                     struct buf *out)
{
    const struct sample *s = (const struct sample *)v->samples.data;
    metrics_put_head(out, name, "gauge", help);
    for (size_t i = 0; i < v->samples.len / sizeof *s; i++)
        metrics_put_sample(out, name, s[i].labels, s[i].state == state);
}

static void put_families(const struct survey *v, struct buf *out)
{
    const struct sample *s = (const struct sample *)v->samples.data;
    for (int f = 0; f < FAMILIES; f++) {
        metrics_put_head(out, families[f].name, "gauge", families[f].help);
        for (size_t i = 0; i < v->samples.len / sizeof *s; i++)
            if (s[i].state <= READ_ONLY)
                metrics_put_sample(out, families[f].name, s[i].labels, s[i].values[f]);
    }
}

static void put_collections(struct request *r, struct buf *out)
{
    struct survey v = {.request = r};
    catalog_each(r->service->catalog, look_at, &v);
    put_states(&v, out);
    if (v.left_out)
        buf_printf(out, "# %zu collections have no series of their own: the first %d by name do\n",
                   v.left_out, COLLECTIONS_MAX);
    put_families(&v, out);
    put_flag(&v, "loadstone_collection_read_only", "1 when it takes no more writes.", READ_ONLY,
             out);
    put_flag(&v, "loadstone_collection_quarantined", "1 when it is damaged and does not answer.",
             QUARANTINED, out);
    metrics_put_gauge(out, "loadstone_mapped_bytes", "Bytes of the segment and index files served.",
                      (double)v.mapped_bytes);
    out->failed |= v.samples.failed;
    buf_deinit(&v.samples);
}

/* ---- the server ---- */

static void put_pools(const struct service *s, struct buf *out)
{
    struct worker_pool *const pools[] = {s->writers, s->readers, s->exporters};
    static const char *const labels[] = {"pool=\"writer\"", "pool=\"reader\"", "pool=\"exporter\""};
    enum { POOLS = sizeof pools / sizeof pools[0] };
    size_t queued[POOLS];
    unsigned running[POOLS];
    for (int i = 0; i < POOLS; i++)
        worker_pool_stats(pools[i], &queued[i], &running[i]);
    metrics_put_head(out, "loadstone_worker_queue_length", "gauge", "Jobs that wait for a worker.");
    for (int i = 0; i < POOLS; i++)
        metrics_put_sample(out, "loadstone_worker_queue_length", labels[i], (double)queued[i]);
    metrics_put_head(out, "loadstone_worker_running", "gauge",
                     "Jobs that run on a worker, this scrape among them.");
    for (int i = 0; i < POOLS; i++)
        metrics_put_sample(out, "loadstone_worker_running", labels[i], running[i]);
}

static void put_server(const struct service *s, struct buf *out)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(atomic_load(&s->daemon), MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    metrics_put_gauge(out, "loadstone_http_connections", "Open connections.",
                      info ? info->num_connections : 0);
    metrics_put_gauge(out, "loadstone_http_requests_running",
                      "Requests between their head and the end of their answer.",
                      atomic_load(&s->running));
    metrics_put_gauge(out, "loadstone_http_requests_suspended",
                      "Requests that wait for a worker or the disk.", atomic_load(&s->suspended));
    metrics_put_gauge(out, "loadstone_http_buffer_bytes",
                      "Bytes of request bodies held in memory; buffer_bytes_max bounds them.",
                      (double)atomic_load(&s->buffer_bytes));
    metrics_put_gauge(out, "loadstone_exports",
                      "Exports and diffs being sent; exports_max bounds them.",
                      (double)atomic_load(&s->exports));
    metrics_put_gauge(out, "loadstone_filter_cache_bytes",
                      "Bytes of the matching rows of filters that are kept for the next search.",
                      (double)filter_cache_bytes());
    metrics_put_gauge(out, "loadstone_recall_samples_waiting",
                      "Live queries that wait to be searched again exactly, at idle priority.",
                      index_recall_waiting());
    put_pools(s, out);
    metrics_put_gauge(out, "loadstone_ready", "1 once every collection is open or quarantined.",
                      catalog_ready(s->catalog));
}

static void put_process(const struct service *s, struct buf *out)
{
    struct process_stats p;
    process_stats_get(&p);
    metrics_put_gauge(out, "loadstone_process_resident_bytes",
                      "Resident memory, cached pages of mapped files included.",
                      (double)p.resident_bytes);
    metrics_put_gauge(out, "loadstone_process_anonymous_bytes",
                      "Resident memory that is no file's.", (double)p.anonymous_bytes);
    metrics_put_gauge(out, "loadstone_process_virtual_bytes", "Address space.",
                      (double)p.virtual_bytes);
    metrics_put_gauge(out, "loadstone_process_open_files", "Open file descriptors.",
                      (double)p.open_files);
    metrics_put_gauge(out, "loadstone_process_open_files_max", "Limit on open file descriptors.",
                      (double)p.open_files_max);
    metrics_put_head(
        out, "loadstone_process_cpu_seconds_total", "counter",
        "Processor time, user and system; index builds run in processes of their own.");
    metrics_put_sample(out, "loadstone_process_cpu_seconds_total", NULL, (double)p.cpu_us / 1e6);
    metrics_put_gauge(out, "loadstone_process_start_time_seconds", "Unix time of the start.",
                      (double)s->started_wall_us / 1e6);
}

static void put_build(const struct service *s, struct buf *out)
{
    struct buf labels = {0};
    metrics_put_label(&labels, "version", version_number());
    metrics_put_label(&labels, "commit", version_commit());
    metrics_put_label(&labels, "io", s->io_backend);
    metrics_put_label(&labels, "kernels", index_isa());
    buf_put_u8(&labels, 0);
    out->failed |= labels.failed;
    metrics_put_head(out, "loadstone_build_info", "gauge",
                     "What runs here: version, commit, way to write files, distance kernels.");
    if (!labels.failed)
        metrics_put_sample(out, "loadstone_build_info", (const char *)labels.data, 1);
    buf_deinit(&labels);
}

enum err ops_metrics(struct request *r, struct err_ctx *ctx)
{
    (void)ctx;
    r->content_type = "text/plain; version=0.0.4; charset=utf-8";
    put_build(r->service, &r->out);
    metrics_write(&r->out);
    put_server(r->service, &r->out);
    put_process(r->service, &r->out);
    put_collections(r, &r->out);
    return ERR_OK;
}
