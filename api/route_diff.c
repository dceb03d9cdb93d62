/* GET ../diff?from=&to=: the keys that two versions differ in, streamed.
 *
 *   JSON     {"from":3,"to":7,"added":[..],"updated":[..],"removed":[..]}     one walk a list
 *   NDJSON   {"op":"added","key":..}                     added and updated in one walk, then
 * removed
 *
 * Threads: on a writer, since old versions are read from files; the rest is the stream's. Failure:
 * before the first byte the store's sentence; behind it the connection is cut. */
#include "api/routes.h"

#include "api/columns.h"
#include "api/json_writer.h"
#include "api/number.h"
#include "api/stream.h"
#include "store/diff.h"
#include "store/segment_span.h"
#include "store/version.h"

enum { SIDES = 2, FROM = 0, TO = 1 };

/* One walk, and what is written before it. */
struct part {
    const char *opening;
    unsigned ops;
};

static const struct part json_parts[] = {
    {",\"added\":[", DIFF_ADDED},
    {"],\"updated\":[", DIFF_UPDATED},
    {"],\"removed\":[", DIFF_REMOVED},
};
static const struct part ndjson_parts[] = {
    {"", DIFF_ADDED | DIFF_UPDATED},
    {"", DIFF_REMOVED},
};

struct diff_answer {
    struct collection *collection;
    struct snapshot *sides[SIDES];
    uint64_t pinned[SIDES];
    unsigned npinned;
    bool lines;
    const struct part *parts;
    unsigned nparts, part;  /* the one that is walked */
    struct diff *diff;      /* NULL between parts */
    struct row_spans spans; /* keys of the part that are in the piece being made */
    bool any;               /* a key was written in this part */
};

static void answer_free(void *arg)
{
    struct diff_answer *a = arg;
    diff_free(a->diff);
    row_spans_deinit(&a->spans);
    for (unsigned i = 0; i < SIDES; i++)
        snapshot_release(a->sides[i]);
    for (unsigned i = 0; i < a->npinned; i++)
        collection_unpin(a->collection, a->pinned[i]);
    collection_release(a->collection);
    free(a);
}

/* ---- pieces ---- */

static const char *op_name(enum diff_op op)
{
    return op == DIFF_ADDED ? "added" : op == DIFF_UPDATED ? "updated" : "removed";
}

static void put_key(struct diff_answer *a, enum diff_op op, struct row_ref row, struct buf *out)
{
    row_spans_add(&a->spans, row);
    if (a->lines)
        buf_printf(out, "{\"op\":\"%s\",\"key\":", op_name(op));
    else if (a->any)
        buf_put_u8(out, ',');
    a->any = true;
    row_put_key(out, a->spans.snapshot, row);
    if (a->lines)
        json_put_raw(out, "}\n");
}

static enum err begin_part(struct diff_answer *a, struct buf *out, struct err_ctx *ctx)
{
    const struct part *p = &a->parts[a->part];
    if (a->part == 0 && !a->lines)
        buf_printf(out, "{\"from\":%llu,\"to\":%llu", (unsigned long long)a->sides[FROM]->version,
                   (unsigned long long)a->sides[TO]->version);
    buf_put(out, p->opening, strlen(p->opening));
    a->any = false;
    RETURN_NOT_OK(row_spans_init(&a->spans, a->sides[p->ops == DIFF_REMOVED ? FROM : TO], ctx));
    return diff_new(a->sides[FROM], a->sides[TO], p->ops, &a->diff, ctx);
}

static enum err end_part(struct diff_answer *a, struct buf *out, bool *end, struct err_ctx *ctx)
{
    RETURN_NOT_OK(row_spans_check(&a->spans, 0, ctx));
    row_spans_deinit(&a->spans);
    diff_free(a->diff);
    a->diff = NULL;
    *end = ++a->part == a->nparts;
    if (*end && !a->lines)
        json_put_raw(out, "]}\n");
    return ERR_OK;
}

static enum err fill(void *arg, struct buf *out, bool *end, struct err_ctx *ctx)
{
    struct diff_answer *a = arg;
    enum diff_step step = DIFF_ROW;
    while (!*end && step != DIFF_PAUSE && out->len < STREAM_PIECE_BYTES && !out->failed) {
        enum diff_op op;
        struct row_ref row;
        if (!a->diff)
            RETURN_NOT_OK(begin_part(a, out, ctx));
        step = diff_next(a->diff, &op, &row);
        if (step == DIFF_ROW)
            put_key(a, op, row, out);
        else if (step == DIFF_END)
            RETURN_NOT_OK(end_part(a, out, end, ctx));
    }
    return a->spans.views ? row_spans_check(&a->spans, 0, ctx) : ERR_OK;
}

/* ---- what is asked ---- */

/* A number is a version, anything else a tag; without one it is the newest. */
static enum err read_side(struct request *r, const char *name, struct selector *out,
                          struct err_ctx *ctx)
{
    const struct target_segment *text = target_param(&r->target, name);
    int64_t v;
    *out = (struct selector){.kind = SELECT_NEWEST};
    if (!text)
        return ERR_OK;
    if (number_parse_int64(text->text, text->len, &v) == NUMBER_OK && v >= 0) {
        *out = (struct selector){.kind = SELECT_VERSION, .version = (uint64_t)v};
        return ERR_OK;
    }
    *out = (struct selector){.kind = SELECT_TAG, .tag = text->text};
    if (tag_valid(text->text))
        return ERR_OK;
    return err_set_at(ctx, ERR_INVALID, -1, name,
                      "%s=%.40s is neither the number of a version nor the name of a tag", name,
                      text->text);
}

static enum err open_side(struct diff_answer *a, unsigned side, const struct selector *sel,
                          struct err_ctx *ctx)
{
    uint64_t version;
    RETURN_NOT_OK(collection_resolve(a->collection, sel, true, &version, ctx));
    RETURN_NOT_OK(collection_pin(a->collection, version, ctx));
    a->pinned[a->npinned++] = version;
    return collection_open_version(a->collection, version, true, &a->sides[side], ctx);
}

static enum err open_sides(struct request *r, struct diff_answer *a, struct err_ctx *ctx)
{
    struct selector from, to;
    if (!target_param(&r->target, "from"))
        return err_set_at(ctx, ERR_INVALID, -1, "from",
                          "say what to compare with: from=3&to=7; without 'to' it is the newest "
                          "version");
    RETURN_NOT_OK(read_side(r, "from", &from, ctx));
    RETURN_NOT_OK(read_side(r, "to", &to, ctx));
    RETURN_NOT_OK(open_side(a, FROM, &from, ctx));
    return open_side(a, TO, &to, ctx);
}

static enum err answer(struct request *r, struct diff_answer **a, struct err_ctx *ctx)
{
    struct stream_source source = {.arg = *a, .fill = fill, .free = answer_free};
    RETURN_NOT_OK(open_sides(r, *a, ctx));
    r->version = (int64_t)(*a)->sides[TO]->version;
    (*a)->lines = r->media_out == MEDIA_NDJSON;
    (*a)->parts = (*a)->lines ? ndjson_parts : json_parts;
    (*a)->nparts = (*a)->lines ? sizeof ndjson_parts / sizeof ndjson_parts[0]
                               : sizeof json_parts / sizeof json_parts[0];
    r->content_type = media_name(r->media_out);
    RETURN_NOT_OK(stream_new(r->service, &source, -1, &r->stream, ctx));
    *a = NULL;
    return r->head_only ? ERR_OK : stream_start(r->stream, ctx);
}

enum err versions_diff(struct request *r, struct err_ctx *ctx)
{
    struct diff_answer *a = calloc(1, sizeof *a);
    if (!a)
        return err_no_memory(ctx, sizeof *a);
    enum err e = request_hold_collection(r, &a->collection, ctx);
    if (e != ERR_OK) {
        free(a);
        return e;
    }
    e = answer(r, &a, ctx);
    if (a)
        answer_free(a);
    return e;
}
