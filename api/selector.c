/* Selectors.
 *
 * The body of a search or fetch may name its version behind everything that depends on it. It is
 * read with the newest snapshot, which costs requests without a selector nothing; only when one
 * turns up, or the reading failed, perhaps for want of it, is the body looked through for its
 * selector, and read again under the version that it names.
 *
 * Threads: the request's. Failure: 400 for what does not parse and for two at once. */
#include "api/selector.h"

#include <stdio.h>

#include "api/number.h"
#include "api/problem.h"
#include "base/clock.h"

static const char *const names[] = {
    [SELECT_VERSION] = "version", [SELECT_TAG] = "tag", [SELECT_TIME] = "as_of"};

static enum selector_kind kind_of(struct json_slice name)
{
    for (enum selector_kind k = SELECT_VERSION; k <= SELECT_TIME; k++)
        if (json_slice_is(name, names[k]))
            return k;
    return SELECT_NEWEST;
}

static enum err choose(struct request *r, enum selector_kind kind, struct err_ctx *ctx)
{
    if (r->selector.kind == kind)
        return err_set(ctx, ERR_INVALID, "'%s' comes twice", names[kind]);
    if (r->selector.kind != SELECT_NEWEST)
        return err_set(ctx, ERR_INVALID, "two versions at once: give one of version, tag, as_of");
    r->selector.kind = kind;
    return ERR_OK;
}

static enum err read_time(struct request *r, const char *text, size_t n, struct err_ctx *ctx)
{
    if (clock_parse_rfc3339(text, n, &r->selector.time_us) == 0)
        return ERR_OK;
    return err_set_at(ctx, ERR_INVALID, -1, "as_of",
                      "as_of: '%.*s' is not a time: write RFC 3339, 2024-05-01T12:00:00Z (a '+' in "
                      "a URL is %%2B)",
                      n > 40 ? 40 : (int)n, text);
}

static enum err read_tag(struct request *r, const char *text, size_t n, struct err_ctx *ctx)
{
    snprintf(r->selector_tag, sizeof r->selector_tag, "%.*s", (int)n, text);
    r->selector.tag = r->selector_tag;
    if (n <= TAG_MAX_BYTES && strlen(r->selector_tag) == n && tag_valid(r->selector_tag))
        return ERR_OK;
    return err_set_at(
        ctx, ERR_INVALID, -1, "tag",
        "'%.*s' is not a name of a tag: letters, digits, '_', '.' and '-', at most %d",
        n > 40 ? 40 : (int)n, text, TAG_MAX_BYTES);
}

/* ---- the query string ---- */

static enum err read_param(struct request *r, enum selector_kind kind, struct err_ctx *ctx)
{
    const struct target_segment *text = target_param(&r->target, names[kind]);
    if (!text)
        return ERR_OK;
    RETURN_NOT_OK(choose(r, kind, ctx));
    if (kind == SELECT_TAG)
        return read_tag(r, text->text, text->len, ctx);
    if (kind == SELECT_TIME)
        return read_time(r, text->text, text->len, ctx);
    return request_param_uint(r, "version", 0, INT64_MAX, &r->selector.version, ctx);
}

enum err selector_of_query(struct request *r, struct err_ctx *ctx)
{
    if (r->target.nparams == 0)
        return ERR_OK;
    for (enum selector_kind k = SELECT_VERSION; k <= SELECT_TIME; k++)
        RETURN_NOT_OK(read_param(r, k, ctx));
    return ERR_OK;
}

/* ---- JSON ---- */

bool selector_is_field(struct json_slice name)
{
    return kind_of(name) != SELECT_NEWEST;
}

static enum err read_value(struct request *r, enum selector_kind kind, struct err_ctx *ctx)
{
    struct json_slice text;
    int64_t version;
    if (kind != SELECT_VERSION) {
        RETURN_NOT_OK(json_string(&r->json, &text, ctx));
        return kind == SELECT_TAG ? read_tag(r, text.data, text.len, ctx)
                                  : read_time(r, text.data, text.len, ctx);
    }
    RETURN_NOT_OK(json_int64(&r->json, &version, ctx));
    if (version < 0)
        return err_set(ctx, ERR_INVALID, "version is %lld; versions count from 1",
                       (long long)version);
    r->selector.version = (uint64_t)version;
    return ERR_OK;
}

enum err selector_read_field(struct request *r, struct json_slice name, struct err_ctx *ctx)
{
    enum selector_kind kind = kind_of(name);
    RETURN_NOT_OK(choose(r, kind, ctx));
    enum err e = read_value(r, kind, ctx);
    if (e != ERR_OK)
        problem_place(ctx, -1, names[kind], strlen(names[kind]));
    return e;
}

/* Only the selectors of the body; the rest is stepped over. */
static enum err scan_body(struct request *r, struct err_ctx *ctx)
{
    struct json_slice name;
    bool more;
    r->selector.kind = SELECT_NEWEST;
    json_reinit(&r->json, r->body.data, r->body.len, 0);
    RETURN_NOT_OK(json_object(&r->json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_field(&r->json, &name, &more, ctx));
        if (!more)
            return ERR_OK;
        if (selector_is_field(name))
            RETURN_NOT_OK(selector_read_field(r, name, ctx));
        else
            RETURN_NOT_OK(json_skip(&r->json, ctx));
    }
}

/* The selector is forgotten: the body may be read again. */
static enum err open_instead(struct request *r, struct snapshot **s, struct err_ctx *ctx)
{
    request_close_snapshot(r, *s);
    enum err e = request_open_snapshot(r, s, ctx);
    r->selector.kind = SELECT_NEWEST;
    return e;
}

enum err selector_reopen(struct request *r, enum err e, bool alike, struct snapshot **s,
                         bool *again, struct err_ctx *ctx)
{
    struct err_ctx other;
    *again = false;
    if (r->media_in != MEDIA_JSON || (e == ERR_OK && r->selector.kind == SELECT_NEWEST))
        return e;
    if (e == ERR_OK && alike)
        return open_instead(r, s, ctx);
    err_clear(&other);
    if (scan_body(r, &other) != ERR_OK || r->selector.kind == SELECT_NEWEST)
        return e;
    *again = true;
    err_clear(ctx);
    return open_instead(r, s, ctx);
}
