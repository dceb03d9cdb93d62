/* Routes by walking the table: a dozen entries, compared segment by segment.
 *
 * Invariant: of the routes whose path matches, the first with the right method wins; so that a
 * literal path ("rows/delete") and a pattern ("rows/{}") may overlap as long as their methods do
 * not. "{}" is any segment, "export.{}" any that begins so, and a last segment "{*}" takes the
 * rest of the path, slashes and all.
 *
 * Threads: no state. Failure: 404 says where to look, 405 lists what is allowed. */
#include "api/router.h"

#include <stdio.h>

/* The next segment of a pattern: its length, and *pattern moved behind it and its slash. */
static size_t next_segment(const char **pattern)
{
    size_t n = strcspn(*pattern, "/");
    *pattern += n + ((*pattern)[n] == '/');
    return n;
}

/* "rows", "{}", "export.{}" */
static bool segment_matches(const char *pattern, size_t n, const struct target_segment *s)
{
    bool open = n >= 2 && pattern[n - 2] == '{';
    size_t fixed = open ? n - 2 : n;
    if (open && fixed && s->len == fixed)
        return false;
    return (open ? s->len >= fixed : s->len == fixed) && memcmp(pattern, s->text, fixed) == 0;
}

static bool path_matches(const char *pattern, const struct target *t)
{
    for (unsigned i = 0; i < t->nsegments; i++) {
        const char *at = pattern;
        size_t n = next_segment(&pattern);
        if (n == 3 && at[1] == '*')
            return true;
        if (n == 0 || i == TARGET_SEGMENTS_MAX)
            return false;
        if (!segment_matches(at, n, &t->segments[i]))
            return false;
    }
    return !*pattern;
}

static void allow_add(char *allow, size_t cap, const char *method)
{
    size_t len = strlen(allow);
    snprintf(allow + len, cap - len, "%s%s%s", len ? ", " : "", method,
             strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

static enum err nothing_here(const struct target *t, struct err_ctx *ctx)
{
    if (t->nsegments > 3 && strcmp(t->segments[1].text, "collections") == 0)
        return err_set(ctx, ERR_NOT_FOUND,
                       "a collection has no '%.64s' in this build; it has rows, rows/{key}, "
                       "rows/delete, loads, count, search, features, index, versions, tags, diff, "
                       "restore, compact, vacuum and purge",
                       t->segments[3].text);
    return err_set(ctx, ERR_NOT_FOUND,
                   "there is nothing at this address; GET / says where to look");
}

enum err router_find(const struct route *table, const struct target *t, const char *method,
                     const struct route **out, char *allow, size_t allow_cap, struct err_ctx *ctx)
{
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    for (const struct route *r = table; r->method; r++) {
        if (strcmp(r->method, wanted) == 0 && path_matches(r->path, t)) {
            *out = r;
            return ERR_OK;
        }
    }
    allow[0] = 0;
    for (const struct route *r = table; r->method; r++)
        if (path_matches(r->path, t))
            allow_add(allow, allow_cap, r->method);
    if (!allow[0])
        return nothing_here(t, ctx);
    return err_set(ctx, ERR_METHOD, "%s does not work here; allowed: %s", method, allow);
}

static bool listed(const char *list, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, name, n) == 0)
            return true;
        p += n + (p[n] == ' ');
    }
    return false;
}

enum err router_check_params(const struct route *route, const struct target *t, struct err_ctx *ctx)
{
    for (unsigned i = 0; i < t->nparams; i++) {
        const char *name = t->params[i].name;
        if (!listed(route->params, name))
            return err_set_at(ctx, ERR_INVALID, -1, name,
                              "query parameter '%s' is not known here; known: %s", name,
                              *route->params ? route->params : "none");
    }
    return ERR_OK;
}
