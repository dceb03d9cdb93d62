/* The target of a request.
 *
 *   /v1/collections/my%2Dc/rows/a%2Fb?features=x%2Cy&with_vectors=true
 *    [0]     [1]      [2]   [3]  [4]   params[0]     params[1]
 *
 * Splitting comes first, decoding after. Decoding never makes text longer, so that it is done in
 * place.
 *
 * Threads: no state. Failure: a sentence that quotes the bad part. */
#include "api/target.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* -1 for an escape that is not two hex digits, or stands for NUL. */
static int decode_escape(const char *p)
{
    int high = hex_digit(p[1]);
    int low = high < 0 ? -1 : hex_digit(p[2]);
    return low < 0 ? -1 : high << 4 | low ? high << 4 | low : -1;
}

static enum err decode(char *text, bool plus_is_space, struct target_segment *out,
                       struct err_ctx *ctx)
{
    char *to = text;
    for (const char *p = text; *p; p++) {
        int c = (unsigned char)*p;
        if (c == '%') {
            c = decode_escape(p);
            if (c < 0)
                return err_set(ctx, ERR_INVALID,
                               "'%.20s' in the URL is not an escape: write %%XX with two hex "
                               "digits, other than %%00",
                               p);
            p += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        *to++ = (char)c;
    }
    *to = 0;
    *out = (struct target_segment){text, (size_t)(to - text)};
    return ERR_OK;
}

/* A proxy may send the whole URL: what comes before the path is not looked at. */
static char *skip_authority(char *uri)
{
    char *authority = *uri == '/' ? NULL : strstr(uri, "://");
    if (!authority)
        return uri;
    return authority + 3 + strcspn(authority + 3, "/");
}

static enum err parse_path(char *path, struct target *out, struct err_ctx *ctx)
{
    if (*path == '/')
        path++;
    if (!*path)
        return ERR_OK;
    for (char *next; path; path = next) {
        next = out->nsegments < TARGET_SEGMENTS_MAX ? strchr(path, '/') : NULL;
        if (next)
            *next++ = 0;
        RETURN_NOT_OK(decode(path, false, &out->segments[out->nsegments++], ctx));
    }
    return ERR_OK;
}

/* Decoded segments stand in the order of the path, each no longer than it was: moving them together
 * overtakes none. */
struct target_segment target_rest(struct target *t, unsigned from)
{
    ASSERT(from < t->nsegments);
    struct target_segment all = t->segments[from];
    char *end = (char *)all.text + all.len;
    for (unsigned i = from + 1; i < t->nsegments; i++) {
        *end++ = '/';
        memmove(end, t->segments[i].text, t->segments[i].len);
        end += t->segments[i].len;
    }
    *end = 0;
    all.len = (size_t)(end - all.text);
    t->nsegments = from;
    return all;
}

static enum err add_param(struct target *out, char *name, char *value, struct err_ctx *ctx)
{
    struct target_segment decoded;
    struct target_param *p = &out->params[out->nparams];
    if (out->nparams == TARGET_PARAMS_MAX)
        return err_set(ctx, ERR_INVALID, "the URL has more than %d query parameters",
                       TARGET_PARAMS_MAX);
    RETURN_NOT_OK(decode(name, true, &decoded, ctx));
    RETURN_NOT_OK(decode(value, true, &p->value, ctx));
    if (target_param(out, decoded.text))
        return err_set_at(ctx, ERR_INVALID, -1, decoded.text,
                          "query parameter '%s' comes twice: give it once", decoded.text);
    p->name = decoded.text;
    out->nparams++;
    return ERR_OK;
}

static enum err parse_query(char *query, struct target *out, struct err_ctx *ctx)
{
    for (char *next; query; query = next) {
        next = strchr(query, '&');
        if (next)
            *next++ = 0;
        if (!*query)
            continue;
        char *value = strchr(query, '=');
        if (value)
            *value++ = 0;
        else
            value = query + strlen(query);
        RETURN_NOT_OK(add_param(out, query, value, ctx));
    }
    return ERR_OK;
}

enum err target_parse(char *uri, struct target *out, struct err_ctx *ctx)
{
    out->nsegments = 0;
    out->nparams = 0;
    char *query = strchr(uri, '?');
    if (query)
        *query++ = 0;
    RETURN_NOT_OK(parse_path(skip_authority(uri), out, ctx));
    return parse_query(query, out, ctx);
}

const struct target_segment *target_param(const struct target *t, const char *name)
{
    for (unsigned i = 0; i < t->nparams; i++)
        if (strcmp(t->params[i].name, name) == 0)
            return &t->params[i].value;
    return NULL;
}
