/* GET ../recall?k=10&sample=200: recall by effort, measured on the spot.
 *
 * Rows of the version that is asked about are the queries, each left out of its own result. The
 * last point of the answer is the exact search that the others are held against.
 *
 * Threads: on a reader, one measurement at a time over all collections, since it takes a core for
 * as long as it lasts: at most TRUTH_US_MAX for the exact searches, fewer rows then being asked,
 * and SWEEP_US_MAX for the rest. Ends at once when the server stops. Failure: 429 while another
 * runs.
 */
#include "api/routes.h"

#include <math.h>
#include <stdatomic.h>

#include "api/filter_param.h"
#include "api/json_writer.h"
#include "api/selector.h"
#include "index/recall_measure.h"

enum { K_MAX = 1000, SAMPLE_MAX = 1000, SAMPLE_DEFAULT = 200, SAMPLE_LEAST = 64 };

#define TRUTH_US_MAX 20e6
#define SWEEP_US_MAX 10e6

static atomic_bool measuring;

struct recall_ask {
    uint64_t k, sample;
    struct filter *filter;
};

static enum err read_ask(struct request *r, const struct snapshot *s, struct recall_ask *a,
                         struct err_ctx *ctx)
{
    uint64_t k_max = r->service->limits.k_max < K_MAX ? r->service->limits.k_max : K_MAX;
    RETURN_NOT_OK(request_param_uint(r, "k", 1, k_max, &a->k, ctx));
    RETURN_NOT_OK(request_param_uint(r, "sample", 1, SAMPLE_MAX, &a->sample, ctx));
    if (s->schema->dim == 0)
        return err_set(ctx, ERR_UNPROCESSABLE, "the collection has no vectors to search");
    return filter_read_param(r, s->schema, &a->filter, ctx);
}

/* "recall":0.95,"lower":0.93,"us":35.2} */
static void put_rest(struct buf *out, double recall, double lower, double us)
{
    json_put_raw(out, "\"recall\":");
    json_put_float(out, (float)recall);
    json_put_raw(out, ",\"lower\":");
    json_put_float(out, (float)lower);
    buf_printf(out, ",\"us\":%.1f}", us);
}

static void put_step(struct buf *out, const struct recall_step *step)
{
    buf_put_u8(out, '{');
    if (step->ef)
        buf_printf(out, "\"ef\":%u,", step->ef);
    if (step->nprobe)
        buf_printf(out, "\"nprobe\":%u,", step->nprobe);
    put_rest(out, recall_mean(&step->point), recall_lower(&step->point), step->point.us);
    buf_put_u8(out, ',');
}

static void put_answer(struct buf *out, const struct snapshot *s, const struct recall_ask *a,
                       const struct recall_sample *sample, const struct recall_step *steps,
                       uint32_t n)
{
    buf_printf(out, "{\"version\":%llu,\"k\":%llu,\"sample\":%u,\"confidence\":0.95,\"points\":[",
               (unsigned long long)s->version, (unsigned long long)a->k, sample->known);
    for (uint32_t i = 0; i < n; i++)
        put_step(out, &steps[i]);
    json_put_raw(out, "{\"exact\":true,");
    put_rest(out, 1, 1, sample->exact_us);
    json_put_raw(out, "]}\n");
}

static enum err measure(struct request *r, const struct snapshot *s, const struct recall_ask *a,
                        struct err_ctx *ctx)
{
    struct recall_sample sample;
    struct recall_step steps[RECALL_POINTS];
    uint32_t n = 0;
    RETURN_NOT_OK(
        recall_draw(s, (uint32_t)a->k, (uint32_t)a->sample, s->version + 1, &sample, ctx));
    sample.filter = a->filter;
    sample.cancel = &r->service->draining;
    sample.unknown = true;
    enum err e = recall_find_truth(&sample, SAMPLE_LEAST, TRUTH_US_MAX, ctx);
    if (e == ERR_OK)
        e = recall_sweep(&sample, (uint32_t)a->k, SWEEP_US_MAX, steps, &n, ctx);
    if (e == ERR_OK)
        put_answer(&r->out, s, a, &sample, steps, n);
    recall_sample_deinit(&sample);
    return e == ERR_OK ? request_check_out(r, ctx) : e;
}

static enum err measure_alone(struct request *r, const struct snapshot *s,
                              const struct recall_ask *a, struct err_ctx *ctx)
{
    if (atomic_exchange(&measuring, true))
        return err_set(ctx, ERR_BUSY,
                       "recall is being measured already, and that takes a core: "
                       "try again in a few seconds");
    enum err e = measure(r, s, a, ctx);
    atomic_store(&measuring, false);
    return e;
}

enum err collection_recall(struct request *r, struct err_ctx *ctx)
{
    struct snapshot *s;
    struct recall_ask a = {.k = 10, .sample = SAMPLE_DEFAULT};
    if (request_defers(r, INFINITY))
        return ERR_OK;
    RETURN_NOT_OK(selector_of_query(r, ctx));
    RETURN_NOT_OK(request_open_snapshot(r, &s, ctx));
    enum err e = read_ask(r, s, &a, ctx);
    if (e == ERR_OK)
        e = measure_alone(r, s, &a, ctx);
    filter_free(a.filter);
    request_close_snapshot(r, s);
    return e;
}
