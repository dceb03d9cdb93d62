/* Media types.
 *
 * Accept is a list of ranges, each with a weight (";q=0.5", 1 when left out). For each type offered
 * the most specific range that covers it gives its weight; the heaviest type wins.
 *
 * Threads: no state. Failure: none; what does not parse covers nothing. */
#include "api/media.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct {
    enum media media;
    const char *name;
} table[] = {
    {MEDIA_JSON, "application/json"},
    {MEDIA_NDJSON, "application/x-ndjson"},
    {MEDIA_OCTETS, "application/octet-stream"},
    {MEDIA_NPY, "application/x-npy"},
};

enum { MEDIA_TYPES = sizeof table / sizeof table[0] };

const char *media_name(enum media m)
{
    for (size_t i = 0; i < MEDIA_TYPES; i++)
        if (table[i].media == m)
            return table[i].name;
    return "";
}

static bool is_type(const char *text, size_t n, const char *name)
{
    return strlen(name) == n && strncasecmp(text, name, n) == 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

enum media media_of(const char *content_type)
{
    if (!content_type)
        return MEDIA_NONE;
    while (is_blank(*content_type))
        content_type++;
    size_t n = 0;
    while (content_type[n] && content_type[n] != ';' && !is_blank(content_type[n]))
        n++;
    for (size_t i = 0; i < MEDIA_TYPES; i++)
        if (is_type(content_type, n, table[i].name))
            return table[i].media;
    return MEDIA_OTHER;
}

/* How closely a range covers a type: 0 not at all, 1 by "*", 2 by "application/", 3 by name. */
static int coverage(const char *range, size_t n, const char *name)
{
    if (is_type(range, n, name))
        return 3;
    if (is_type(range, n, "application/*"))
        return 2;
    return is_type(range, n, "*/*");
}

/* q in thousandths; 1000 when there is none. */
static int weight(const char *params, const char *end)
{
    for (const char *p = params; p < end; p++) {
        if (*p != ';')
            continue;
        p += 1 + strspn(p + 1, " \t");
        double q;
        if ((*p == 'q' || *p == 'Q') && sscanf(p + 1, " = %lf", &q) == 1)
            return q <= 0 ? 0 : q >= 1 ? 1000 : (int)(q * 1000);
    }
    return 1000;
}

static int weight_of(const char *accept, const char *name)
{
    int best = 0, q = 0;
    while (*accept) {
        accept += strspn(accept, " \t,");
        size_t n = strcspn(accept, ",");
        size_t type = strcspn(accept, ";, \t");
        int c = coverage(accept, type, name);
        if (c > best) {
            best = c;
            q = weight(accept + type, accept + n);
        }
        accept += n;
    }
    return q;
}

enum media media_accepted(const char *accept, unsigned offered)
{
    enum media best = MEDIA_NONE;
    int best_q = 0;
    bool any = !accept || !*accept || strcmp(accept, "*/*") == 0;
    for (size_t i = 0; i < MEDIA_TYPES; i++) {
        if (!(offered & table[i].media))
            continue;
        int q = any ? 1000 : weight_of(accept, table[i].name);
        if (q > best_q) {
            best = table[i].media;
            best_q = q;
        }
    }
    return best;
}

void media_list(unsigned set, char *out, size_t cap)
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < MEDIA_TYPES; i++) {
        if (!(set & table[i].media))
            continue;
        len += (size_t)snprintf(out + len, cap - len, "%s%s", len ? ", " : "", table[i].name);
        if (len >= cap)
            return;
    }
}
