/* Conditional requests.
 *
 *   If-Match: "a", "b"       strong comparison: W/ never matches      none of them: 412
 *   If-None-Match: W/"a"     weak comparison                          one of them: 304
 *   If-Range: "a"            strong; otherwise Range is not looked at
 *   Range: bytes=0-99 | bytes=100- | bytes=-100                       206, or 416 outside
 *
 * Threads: no state. Failure: headers that do not parse match nothing, and ask for no part. */
#include "api/conditional.h"

#include <strings.h>

#include "api/number.h"

enum range_kind { RANGE_ALL, RANGE_PART, RANGE_OUTSIDE };

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t,");
}

/* Whether the list names the tag. */
static bool lists_tag(const char *list, const char *etag, bool weakly)
{
    size_t len = strlen(etag);
    for (const char *p = skip_blanks(list); *p; p = skip_blanks(p)) {
        if (*p == '*')
            return true;
        bool weak = p[0] == 'W' && p[1] == '/';
        p += weak ? 2 : 0;
        const char *end = *p == '"' ? strchr(p + 1, '"') : NULL;
        if (!end)
            return false;
        end++;
        if ((!weak || weakly) && (size_t)(end - p) == len && memcmp(p, etag, len) == 0)
            return true;
        p = end;
    }
    return false;
}

enum err conditional_check(const struct request *r, const char *etag, bool *unchanged,
                           struct err_ctx *ctx)
{
    const struct request_head *h = &r->head;
    *unchanged = false;
    if (h->if_match && !lists_tag(h->if_match, etag, false))
        return err_set(ctx, ERR_PRECONDITION, "If-Match names another content: the ETag here is %s",
                       etag);
    *unchanged = h->if_none_match && lists_tag(h->if_none_match, etag, true);
    return ERR_OK;
}

static bool read_number(const char *text, size_t n, uint64_t *out)
{
    int64_t v;
    for (size_t i = 0; i < n; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    enum number_status status = number_parse_int64(text, n, &v);
    *out = status == NUMBER_RANGE ? UINT64_MAX : (uint64_t)v;
    return n > 0 && status != NUMBER_MALFORMED;
}

/* bytes=FIRST-LAST, FIRST-, -SUFFIX */
static enum range_kind read_range(const char *text, uint64_t length, uint64_t *from, uint64_t *to)
{
    uint64_t first, last;
    const char *dash = strchr(text, '-');
    size_t before = dash ? (size_t)(dash - text) : 0, after = dash ? strlen(dash + 1) : 0;
    if (!dash || (before && !read_number(text, before, &first)) ||
        (after && !read_number(dash + 1, after, &last)) || (!before && !after))
        return RANGE_ALL;
    if (!before) {
        *from = last < length ? length - last : 0;
        *to = length;
        return last && length ? RANGE_PART : RANGE_OUTSIDE;
    }
    if (after && last < first)
        return RANGE_ALL;
    *from = first;
    *to = after && last < length ? last + 1 : length;
    return first < length ? RANGE_PART : RANGE_OUTSIDE;
}

static enum range_kind choose_range(const struct request *r, const char *etag, uint64_t length,
                                    uint64_t *from, uint64_t *to)
{
    const struct request_head *h = &r->head;
    *from = 0;
    *to = length;
    if (!h->range || r->head_only || strncasecmp(h->range, "bytes=", 6) != 0)
        return RANGE_ALL;
    if (h->if_range && strcmp(h->if_range, etag) != 0)
        return RANGE_ALL;
    enum range_kind kind = read_range(h->range + 6, length, from, to);
    if (kind != RANGE_PART) {
        *from = 0;
        *to = length;
    }
    return kind;
}

enum err conditional_part(struct request *r, const char *etag, uint64_t length, uint64_t *from,
                          uint64_t *to, struct err_ctx *ctx)
{
    request_add_header(r, "Accept-Ranges", "bytes");
    switch (choose_range(r, etag, length, from, to)) {
    case RANGE_ALL:
        return ERR_OK;
    case RANGE_PART:
        r->status = MHD_HTTP_PARTIAL_CONTENT;
        request_add_header(r, "Content-Range", "bytes %llu-%llu/%llu", (unsigned long long)*from,
                           (unsigned long long)*to - 1, (unsigned long long)length);
        return ERR_OK;
    case RANGE_OUTSIDE:
        break;
    }
    request_add_header(r, "Content-Range", "bytes */%llu", (unsigned long long)length);
    return err_set(ctx, ERR_RANGE, "the range %.60s lies outside of the %llu bytes", r->head.range,
                   (unsigned long long)length);
}
