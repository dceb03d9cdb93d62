/* All rows, or those that match a filter, page by page in the order of their seq, and their number.
 *
 *   GET rows -> page, "next":"7.123" -> GET rows?after=7.123 -> ... -> "next":null
 *
 * The cursor is the seq of the last row seen, so pages need no state here and a writer disturbs
 * none: a row that stays is shown once; one that is replaced meanwhile is shown at its new place
 * too. A page that would outgrow result_bytes_max ends early.
 *
 * Threads: on the HTTP thread while short, else on a reader. Failure: the first error replaces the
 * answer. */
#include "api/routes.h"

#include "api/columns.h"
#include "api/filter_param.h"
#include "api/json_writer.h"
#include "api/number.h"
#include "api/selector.h"
#include "api/slow_log.h"
#include "store/seq_walk.h"

enum { ROWS_DEFAULT = 100, END_BYTES = 128 /* what follows the rows */ };

struct page_ask {
    struct seq after;
    bool has_after;
    uint64_t limit;
    bool with_vectors;
    struct filter *filter; /* NULL = every row */
};

/* Which rows of the last 64 asked about match. */
struct matches {
    const struct filter *filter;
    uint32_t view, word;
    bool known;
    uint64_t bits;
};

/* ---- what is asked ---- */

static bool read_part(const char *text, size_t n, uint64_t *out)
{
    int64_t v;
    if (n == 0 || text[0] < '0' || text[0] > '9' || number_parse_int64(text, n, &v) != NUMBER_OK)
        return false;
    *out = (uint64_t)v;
    return true;
}

static enum err read_after(struct request *r, struct page_ask *a, struct err_ctx *ctx)
{
    const struct target_segment *text = target_param(&r->target, "after");
    if (!text)
        return ERR_OK;
    size_t dot = strcspn(text->text, ".");
    a->has_after = dot < text->len && read_part(text->text, dot, &a->after.version) &&
                   read_part(text->text + dot + 1, text->len - dot - 1, &a->after.ordinal);
    if (a->has_after)
        return ERR_OK;
    return err_set_at(ctx, ERR_INVALID, -1, "after",
                      "after=%.40s is no place among the rows: write what the page before gave as "
                      "'next', for example 7.123",
                      text->text);
}

static enum err read_ask(struct request *r, struct page_ask *a, struct err_ctx *ctx)
{
    uint64_t most = r->service->limits.rows_page_max;
    *a = (struct page_ask){.limit = ROWS_DEFAULT < most ? ROWS_DEFAULT : most};
    RETURN_NOT_OK(read_after(r, a, ctx));
    RETURN_NOT_OK(request_param_bool(r, "with_vectors", &a->with_vectors, ctx));
    enum err e = request_param_uint(r, "limit", 1, most, &a->limit, ctx);
    if (e == ERR_OK)
        return ERR_OK;
    return err_set_at(ctx, e, -1, "limit", "%s (rows_page_max)", ctx->detail);
}

/* Rows to write, dead ones to step over, and views to compare where they interleave; with a filter,
 * every row to look at, since those that match may be the last ones. */
static double cost_us(const struct request *r, const struct snapshot *s, const struct page_ask *a)
{
    double rows = (double)(a->limit < s->rows ? a->limit : s->rows), dead = 0;
    for (uint32_t i = 0; i < s->nviews; i++)
        dead += s->views[i].live ? s->views[i].rows - s->views[i].live : 0;
    return columns_cost_us(s->schema, &r->columns, a->with_vectors, (size_t)rows) +
           rows * s->nviews * 0.001 + dead * 0.001 + filter_cost_us(a->filter, s) +
           (a->filter ? (double)s->rows * 0.005 : 0);
}

/* ---- the page ---- */

static void put_row(struct request *r, const struct snapshot *s, struct row_ref ref,
                    bool with_vectors)
{
    struct buf *out = &r->out;
    json_put_raw(out, "{\"key\":");
    row_put_key(out, s, ref);
    if (with_vectors) {
        json_put_raw(out, ",\"vector\":");
        row_put_vector(out, s, ref);
    }
    for (size_t i = 0; i < columns_count(&r->columns); i++) {
        buf_put_u8(out, ',');
        columns_put_name(out, s->schema, columns_get(&r->columns, i));
        row_put_cell(out, s, ref, columns_get(&r->columns, i));
    }
    buf_put_u8(out, '}');
}

static enum err row_too_long(const struct request *r, struct seq seq, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_TOO_LARGE,
                   "the row at %llu.%llu is larger than result_bytes_max (%llu bytes) by itself: "
                   "name fewer features (features=a,b), or go on behind it (after=%llu.%llu)",
                   (unsigned long long)seq.version, (unsigned long long)seq.ordinal,
                   (unsigned long long)r->service->limits.result_bytes_max,
                   (unsigned long long)seq.version, (unsigned long long)seq.ordinal);
}

static bool matches(struct matches *m, const struct snapshot *s, struct row_ref ref)
{
    const struct view *v = &s->views[ref.view];
    uint32_t w = ref.row / 64, left = v->rows - w * 64;
    if (!m->filter)
        return true;
    if (!m->known || m->view != ref.view || m->word != w)
        *m = (struct matches){
            m->filter, ref.view, w, true,
            filter_word(m->filter, v->segment, w, left < 64 ? (1ull << left) - 1 : UINT64_MAX)};
    return m->bits >> ref.row % 64 & 1;
}

/* The next row that matches. False at the end. */
static bool next_row(struct seq_walk *w, const struct snapshot *s, struct matches *m,
                     struct row_ref *ref, struct seq *seq)
{
    while (seq_walk_next(w, ref, seq)) {
        if (matches(m, s, *ref))
            return true;
    }
    return false;
}

/* Writes rows until the page is full; *last is the seq of the last one, *more tells whether others
 * follow. */
static enum err put_rows(struct request *r, const struct snapshot *s, struct seq_walk *w,
                         const struct page_ask *a, struct seq *last, bool *more,
                         struct err_ctx *ctx)
{
    struct row_ref ref;
    struct seq seq;
    uint64_t max = r->service->limits.result_bytes_max;
    struct matches m = {.filter = a->filter};
    for (uint64_t n = 0; (*more = next_row(w, s, &m, &ref, &seq)) && n < a->limit; n++) {
        size_t before = r->out.len;
        if (n)
            buf_put_u8(&r->out, ',');
        put_row(r, s, ref, a->with_vectors);
        if (r->out.failed)
            return err_no_memory(ctx, r->out.len);
        if (r->out.len + END_BYTES > max) {
            r->out.len = before;
            return n ? ERR_OK : row_too_long(r, seq, ctx);
        }
        *last = seq;
    }
    return ERR_OK;
}

static enum err put_page(struct request *r, const struct snapshot *s, const struct page_ask *a,
                         struct err_ctx *ctx)
{
    struct seq_walk *w;
    struct seq last = {0};
    bool more;
    slow_log_note(r, "limit", a->limit);
    RETURN_NOT_OK(seq_walk_new(s, a->has_after ? &a->after : NULL, &w, ctx));
    buf_printf(&r->out, "{\"version\":%llu,\"rows\":[", (unsigned long long)s->version);
    enum err e = put_rows(r, s, w, a, &last, &more, ctx);
    seq_walk_free(w);
    RETURN_NOT_OK(e);
    if (more)
        buf_printf(&r->out, "],\"next\":\"%llu.%llu\"}\n", (unsigned long long)last.version,
                   (unsigned long long)last.ordinal);
    else
        json_put_raw(&r->out, "],\"next\":null}\n");
    return ERR_OK;
}

static enum err page_in(struct request *r, const struct snapshot *s, struct err_ctx *ctx)
{
    struct page_ask a;
    RETURN_NOT_OK(read_ask(r, &a, ctx));
    buf_reset(&r->columns);
    RETURN_NOT_OK(columns_of_query(&r->target, s->schema, &r->columns, ctx));
    RETURN_NOT_OK(filter_read_param(r, s->schema, &a.filter, ctx));
    enum err e = request_defers(r, cost_us(r, s, &a)) ? ERR_OK : put_page(r, s, &a, ctx);
    filter_free(a.filter);
    return e;
}

enum err rows_page(struct request *r, struct err_ctx *ctx)
{
    struct snapshot *s;
    RETURN_NOT_OK(selector_of_query(r, ctx));
    RETURN_NOT_OK(request_open_snapshot(r, &s, ctx));
    enum err e = page_in(r, s, ctx);
    request_close_snapshot(r, s);
    return e;
}

/* ---- count ---- */

static enum err read_count_fields(struct request *r, const struct schema *s, struct filter **out,
                                  struct err_ctx *ctx)
{
    struct json_slice name;
    bool more, seen = false;
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            return json_end(&r->json, ctx);
        if (selector_is_field(name)) {
            RETURN_NOT_OK(selector_read_field(r, name, ctx));
            continue;
        }
        if (!json_slice_is(name, "filter"))
            return request_unknown_field(name, "the body of a count", "filter, version, tag, as_of",
                                         ctx);
        if (seen)
            return err_set(ctx, ERR_INVALID, "field 'filter' comes twice in the body of a count");
        seen = true;
        RETURN_NOT_OK(filter_read_json(r, s, out, ctx));
    }
}

static enum err read_count(struct request *r, const struct snapshot *s, struct filter **filter,
                           struct err_ctx *ctx)
{
    if (r->body.len == 0)
        return ERR_OK;
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    return read_count_fields(r, s->schema, filter, ctx);
}

/* Under the version that the body names. */
static enum err read_count_ask(struct request *r, struct snapshot **s, struct filter **filter,
                               struct err_ctx *ctx)
{
    bool again;
    enum err e = read_count(r, *s, filter, ctx);
    e = selector_reopen(r, e, *filter == NULL, s, &again, ctx);
    if (e != ERR_OK || !again)
        return e;
    filter_free(*filter);
    *filter = NULL;
    return read_count(r, *s, filter, ctx);
}

static enum err count_in(struct request *r, struct snapshot **opened, struct filter **filter,
                         struct err_ctx *ctx)
{
    RETURN_NOT_OK(read_count_ask(r, opened, filter, ctx));
    const struct snapshot *s = *opened;
    uint64_t rows = s->rows;
    if (request_defers(r, filter_cost_us(*filter, s)))
        return ERR_OK;
    if (*filter)
        RETURN_NOT_OK(filter_count(*filter, s, &r->service->closed, &rows, ctx));
    buf_printf(&r->out, "{\"version\":%llu,\"count\":%llu}\n", (unsigned long long)s->version,
               (unsigned long long)rows);
    return ERR_OK;
}

enum err rows_count(struct request *r, struct err_ctx *ctx)
{
    struct snapshot *s;
    struct filter *filter = NULL;
    RETURN_NOT_OK(request_open_snapshot(r, &s, ctx));
    enum err e = count_in(r, &s, &filter, ctx);
    filter_free(filter);
    request_close_snapshot(r, s);
    return e;
}
