/* Requests by route.
 *
 *   series of a route: its place in api_routes + 1; 0 is for what found no route
 *
 * A route's label is its pattern, never the address that was asked for: there are as many series as
 * routes, whatever clients send. A request that the library refuses by itself (a malformed head)
 * never comes here.
 *
 * Threads: any. Failure: none. */
#include "api/http_metrics.h"

#include <stdio.h>

#include "api/router.h"
#include "base/metrics.h"

enum { ROUTES_MAX = 64, CLASSES = 5, CLASS_ABORTED = 0 };

static const char *const class_names[CLASSES] = {"aborted", "2xx", "3xx", "4xx", "5xx"};

static void route_labels(unsigned series, struct buf *out)
{
    char path[128] = "";
    const struct route *route = series ? &api_routes[series - 1] : NULL;
    if (route)
        snprintf(path, sizeof path, "/%s", route->path);
    metrics_put_label(out, "method", route ? route->method : "");
    metrics_put_label(out, "route", path);
}

static void class_labels(unsigned series, struct buf *out)
{
    route_labels(series / CLASSES, out);
    metrics_put_label(out, "class", class_names[series % CLASSES]);
}

METRIC_COUNTERS(requests, "loadstone_http_requests_total",
                "Requests that ended, by route and class of the answer's status; aborted: the "
                "connection ended before the answer was sent.",
                ROUTES_MAX *CLASSES, class_labels)
METRIC_HISTOGRAMS(durations, "loadstone_http_request_duration_seconds",
                  "Time from the request line to the answer's last byte, the arrival of the body "
                  "included.",
                  ROUTES_MAX, route_labels)
METRIC_COUNTER(received, "loadstone_http_received_bytes_total", "Bytes of request bodies.")
METRIC_COUNTER(sent, "loadstone_http_sent_bytes_total", "Bytes of answers' bodies.")

static unsigned route_series(const struct request *r)
{
    unsigned series = r->route ? (unsigned)(r->route - api_routes) + 1 : 0;
    ASSERT(series < ROUTES_MAX);
    return series;
}

static unsigned class_of(const struct request *r, bool answered)
{
    bool known = r->status >= 200 && r->status < 600;
    return answered && known ? r->status / 100 - 1 : CLASS_ABORTED;
}

void http_metrics_count(const struct request *r, bool answered, uint64_t now_us)
{
    unsigned series = route_series(r);
    metric_add(&requests, series * CLASSES + class_of(r, answered), 1);
    metric_observe_us(&durations, series, now_us - r->started_us);
    metric_add(&received, 0, r->received);
    if (answered)
        metric_add(&sent, 0, r->out.len + r->streamed);
}
