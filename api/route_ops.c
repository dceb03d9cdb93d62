/* Operations: health, readiness, limits, the OpenAPI document, and what the server is.
 *
 * Threads: HTTP threads; nothing here waits. Failure: /readyz says 503 until every healthy
 * collection is open. */
#include "api/routes.h"

#include "api/json_writer.h"
#include "api/openapi.h"
#include "base/version.h"
#include "store/collection.h"

enum err ops_root(struct request *r, struct err_ctx *ctx)
{
    (void)ctx;
    buf_printf(&r->out,
               "{\"name\":\"loadstone\",\"version\":\"%s\",\"commit\":\"%s\",\"look\":{"
               "\"collections\":\"/v1/collections\",\"limits\":\"/v1/limits\","
               "\"health\":\"/healthz\",\"readiness\":\"/readyz\",\"metrics\":\"/"
               "metrics\",\"openapi\":\"/openapi.json\"}}\n",
               version_number(), version_commit());
    return ERR_OK;
}

enum err ops_health(struct request *r, struct err_ctx *ctx)
{
    (void)ctx;
    json_put_raw(&r->out, "{\"status\":\"ok\"}\n");
    return ERR_OK;
}

struct fault_list {
    struct buf *out;
    bool any;
};

/* Collections that serve less than they should: quarantined, or read-only. */
static void add_fault(void *arg, const char *name, struct collection *c, const char *fault)
{
    struct fault_list *list = arg;
    const char *detail = c ? collection_read_only(c) : fault;
    if (!detail)
        return;
    buf_printf(list->out, "%s{\"name\":", list->any ? "," : "");
    json_put_text(list->out, name);
    buf_printf(list->out, ",\"state\":\"%s\",\"detail\":", c ? "read_only" : "quarantined");
    json_put_text(list->out, detail);
    buf_put_u8(list->out, '}');
    list->any = true;
}

/* The names of collections are for those with a token. */
enum err ops_ready(struct request *r, struct err_ctx *ctx)
{
    if (!catalog_ready(r->service->catalog))
        return err_set(ctx, ERR_UNAVAILABLE, "collections are still being opened");
    struct fault_list list = {.out = &r->out};
    json_put_raw(&r->out, "{\"status\":\"ready\",\"faults\":[");
    if (r->trusted)
        catalog_each(r->service->catalog, add_fault, &list);
    json_put_raw(&r->out, "]}\n");
    return ERR_OK;
}

enum err ops_limits(struct request *r, struct err_ctx *ctx)
{
    (void)ctx;
    limits_write(&r->service->limits, &r->out);
    return ERR_OK;
}

enum err ops_openapi(struct request *r, struct err_ctx *ctx)
{
    size_t n;
    const char *json = openapi_json(&n);
    (void)ctx;
    buf_put(&r->out, json, n);
    return ERR_OK;
}
