/* Collections: create, list, describe, alter, drop, index state.
 *
 * Threads: create, alter and drop wait for the disk and run on a writer; the rest reads one
 * snapshot inside an epoch section. Failure: the store's sentence. */
#include "api/routes.h"

#include "api/json_writer.h"
#include "api/schema_diff.h"
#include "api/schema_json.h"
#include "api/selector.h"
#include "base/epoch.h"

static void write_eta(double eta_s, struct buf *out)
{
    if (eta_s < 0)
        json_put_raw(out, "null");
    else
        json_put_double(out, eta_s);
}

static void write_segment(const struct index_segment *g, struct buf *out)
{
    buf_printf(out,
               "{\"segment\":\"%016llx\",\"rows\":%llu,\"kind\":\"%s\",\"builder\":\"%s\","
               "\"codes\":{\"scheme\":\"%s\"",
               (unsigned long long)g->id, (unsigned long long)g->rows, index_kind_name(g->kind),
               g->builder, g->codes);
    if (!g->why)
        buf_printf(out, ",\"rerank_permille\":%u", g->rerank_permille);
    if (g->recall >= 0)
        buf_printf(out, ",\"recall\":%.4f", g->recall);
    if (g->why)
        buf_printf(out, ",\"why\":\"%s\"", g->why);
    json_put_raw(out, "}}");
}

static void write_segments(const struct snapshot *s, struct buf *out)
{
    struct index_segment g;
    bool first = true;
    json_put_raw(out, ",\"segments\":[");
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (!index_segment_get(&s->views[i], &g))
            continue;
        if (!first)
            buf_put_u8(out, ',');
        first = false;
        write_segment(&g, out);
    }
    buf_put_u8(out, ']');
}

static void write_index(struct indexer *ix, const struct collection *c, const struct snapshot *s,
                        struct buf *out)
{
    struct index_state state;
    index_state_get(ix, c, s, &state);
    buf_printf(
        out, "{\"state\":\"%s\",\"kind\":\"%s\",\"rows\":%llu,\"indexed_rows\":%llu,\"progress\":",
        state.building ? "building" : "ready", index_kind_name(state.kind),
        (unsigned long long)state.rows, (unsigned long long)state.indexed_rows);
    json_put_double(out, state.progress);
    json_put_raw(out, ",\"eta_s\":");
    write_eta(state.eta_s, out);
    buf_printf(out, ",\"bytes\":%llu", (unsigned long long)state.bytes);
    if (state.error[0]) {
        json_put_raw(out, ",\"error\":");
        json_put_text(out, state.error);
    }
    write_segments(s, out);
    buf_put_u8(out, '}');
}

static void describe(struct indexer *ix, const struct collection *c, const struct snapshot *s,
                     struct buf *out)
{
    const char *read_only = collection_read_only(c);
    json_put_raw(out, "{\"name\":");
    json_put_text(out, collection_name(c));
    json_put_raw(out, ",\"schema\":");
    schema_write_json(s->schema, out);
    buf_printf(out, ",\"rows\":%llu,\"version\":%llu,\"bytes\":%llu,\"index\":",
               (unsigned long long)s->rows, (unsigned long long)s->version,
               (unsigned long long)s->bytes);
    write_index(ix, c, s, out);
    if (read_only) {
        json_put_raw(out, ",\"state\":\"read_only\",\"detail\":");
        json_put_text(out, read_only);
    }
    buf_put_u8(out, '}');
}

static void describe_quarantined(const char *name, const char *fault, struct buf *out)
{
    json_put_raw(out, "{\"name\":");
    json_put_text(out, name);
    json_put_raw(out, ",\"state\":\"quarantined\",\"detail\":");
    json_put_text(out, fault ? fault : "");
    buf_put_u8(out, '}');
}

struct listing {
    struct request *request;
    bool any;
};

static void list_one(void *arg, const char *name, struct collection *c, const char *fault)
{
    struct listing *l = arg;
    struct buf *out = &l->request->out;
    if (l->any)
        buf_put_u8(out, ',');
    l->any = true;
    if (c)
        describe(l->request->service->indexer, c, collection_snapshot(c), out);
    else
        describe_quarantined(name, fault, out);
}

enum err collections_list(struct request *r, struct err_ctx *ctx)
{
    struct listing l = {.request = r};
    json_put_raw(&r->out, "{\"collections\":[");
    catalog_each(r->service->catalog, list_one, &l);
    json_put_raw(&r->out, "]}\n");
    return request_check_out(r, ctx);
}

/* Of the newest version, or of the one that the query names. */
static enum err describe_selected(struct request *r, const struct collection *c,
                                  struct err_ctx *ctx)
{
    struct snapshot *s;
    RETURN_NOT_OK(request_open_snapshot(r, &s, ctx));
    describe(r->service->indexer, c, s, &r->out);
    buf_put_u8(&r->out, '\n');
    request_close_snapshot(r, s);
    return ERR_OK;
}

enum err collection_describe(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(selector_of_query(r, ctx));
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = describe_selected(r, c, ctx);
    collection_release(c);
    return e;
}

enum err collection_index(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    epoch_enter();
    enum err e = request_collection(r, &c, ctx);
    if (e == ERR_OK) {
        write_index(r->service->indexer, c, collection_snapshot(c), &r->out);
        buf_put_u8(&r->out, '\n');
    }
    epoch_leave();
    return e;
}

/* What the store knows as "another schema" gets a sentence that says what is other. */
static void explain_conflict(struct request *r, const struct schema *asked, struct err_ctx *ctx)
{
    struct collection *c;
    struct buf text = {0};
    epoch_enter();
    if (request_collection(r, &c, NULL) == ERR_OK &&
        schema_put_difference(collection_snapshot(c)->schema, asked, &text) && !text.failed)
        err_set(ctx, ERR_CONFLICT, "collection '%s' exists, and %.*s", collection_name(c),
                (int)text.len, (const char *)text.data);
    epoch_leave();
    buf_deinit(&text);
}

enum err collection_create(struct request *r, struct err_ctx *ctx)
{
    const char *name;
    struct schema *schema;
    bool created;
    RETURN_NOT_OK(request_collection_name(r, &name, ctx));
    RETURN_NOT_OK(schema_read_json(r->body.data, r->body.len, &schema, ctx));
    enum err e = catalog_create(r->service->catalog, name, schema, &created, ctx);
    if (e == ERR_CONFLICT)
        explain_conflict(r, schema, ctx);
    schema_release(schema);
    RETURN_NOT_OK(e);
    r->status = created ? MHD_HTTP_CREATED : MHD_HTTP_OK;
    return collection_describe(r, ctx);
}

/* ---- altering ---- */

/* Derives a schema from the current one and the request's body. */
typedef enum err (*schema_patch)(const void *text, size_t n, const struct schema *current,
                                 struct schema **out, struct err_ctx *ctx);

/* Patches of different things at once all take effect: each starts from what the last one left. */
static enum err patch_schema(struct request *r, struct collection *c, schema_patch patch,
                             struct err_ctx *ctx)
{
    struct schema *next;
    collection_alter_begin(c);
    epoch_enter();
    enum err e = patch(r->body.data, r->body.len, collection_snapshot(c)->schema, &next, ctx);
    epoch_leave();
    if (e == ERR_OK) {
        e = collection_alter(c, next, ctx);
        schema_release(next);
    }
    collection_alter_end(c);
    return e;
}

enum err collection_patch(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = patch_schema(r, c, schema_patch_json, ctx);
    if (e == ERR_OK)
        indexer_settings_changed(r->service->indexer, c);
    collection_release(c);
    return e == ERR_OK ? collection_describe(r, ctx) : e;
}

enum err collection_reindex(struct request *r, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = patch_schema(r, c, schema_patch_index_json, ctx);
    if (e == ERR_OK)
        indexer_rebuild(r->service->indexer, c);
    collection_release(c);
    RETURN_NOT_OK(e);
    r->status = MHD_HTTP_ACCEPTED;
    return collection_index(r, ctx);
}

enum err collection_drop(struct request *r, struct err_ctx *ctx)
{
    const char *name;
    RETURN_NOT_OK(request_collection_name(r, &name, ctx));
    RETURN_NOT_OK(catalog_drop(r->service->catalog, name, ctx));
    r->status = MHD_HTTP_NO_CONTENT;
    return ERR_OK;
}
