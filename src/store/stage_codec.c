/* Staged segments in bytes, for loads that stay open over restarts.
 *
 *   u32 count | per segment: id u64, first ordinal u64, rows u32, digest 2 x u64, vectors u64,
 *               blob of struct partial, blob of present bits
 *
 * What surrounds the bytes checks that they are whole; here they are held against the files they
 * speak of. Threads: none of its own. Failure: ERR_CORRUPT, nothing stays open. */
#include "store/stage.h"

#include <inttypes.h>
#include <stdio.h>

#include "store/collection_internal.h"

void staged_encode(const struct staged *list, size_t n, struct buf *out)
{
    buf_put_u32(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        const struct staged *s = &list[i];
        buf_put_u64(out, s->id);
        buf_put_u64(out, s->first_ordinal);
        buf_put_u32(out, s->rows);
        buf_put_u64(out, s->digest.lo);
        buf_put_u64(out, s->digest.hi);
        buf_put_u64(out, s->vectors);
        buf_put_blob(out, s->partials.data, s->partials.len);
        buf_put_blob(out, s->present.data, s->present.len);
    }
}

static bool partials_valid(const struct staged *s)
{
    size_t n = s->partials.len / sizeof(struct partial);
    const struct partial *p = (const struct partial *)s->partials.data;
    if (s->partials.len % sizeof *p || s->present.len != n * present_bytes(s->segment->schema))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (p[i].row >= s->rows || (i && p[i].row <= p[i - 1].row))
            return false;
    }
    return true;
}

static enum err open_staged(struct collection *c, const char *dir, struct staged *s,
                            struct err_ctx *ctx)
{
    char path[PATH_CAP];
    snprintf(path, sizeof path, "%s/%016" PRIx64 ".seg", dir, s->id);
    if (!(s->path = strdup(path)))
        return err_no_memory(ctx, strlen(path));
    RETURN_NOT_OK(segment_open(path, c->id, &s->segment, ctx));
    if (s->segment->id == s->id && s->segment->rows == s->rows && partials_valid(s))
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT, "%s: the file is not the segment that the load refers to",
                   path);
}

static enum err decode_one(struct collection *c, const char *dir, struct cursor *in,
                           struct staged *s, struct err_ctx *ctx)
{
    size_t len;
    s->id = cursor_u64(in);
    s->first_ordinal = cursor_u64(in);
    s->rows = cursor_u32(in);
    s->digest.lo = cursor_u64(in);
    s->digest.hi = cursor_u64(in);
    s->vectors = cursor_u64(in);
    const void *blob = cursor_blob(in, &len);
    if (blob)
        buf_put(&s->partials, blob, len);
    blob = cursor_blob(in, &len);
    if (blob)
        buf_put(&s->present, blob, len);
    if (in->failed)
        return err_set(ctx, ERR_CORRUPT, "the list of staged segments is cut short");
    if (s->partials.failed || s->present.failed)
        return err_no_memory(ctx, len);
    return open_staged(c, dir, s, ctx);
}

enum err staged_decode(struct collection *c, const char *dir, struct cursor *in,
                       struct staged **out, size_t *n, struct err_ctx *ctx)
{
    enum { SEGMENT_BYTES_MIN = 8 + 8 + 4 + 8 + 8 + 8 + 4 + 4 };
    uint32_t count = cursor_u32(in);
    if (in->failed || count > cursor_left(in) / SEGMENT_BYTES_MIN)
        return err_set(ctx, ERR_CORRUPT, "the list of staged segments is cut short");
    struct staged *list = calloc(count + 1, sizeof *list);
    if (!list)
        return err_no_memory(ctx, count * sizeof *list);
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < count && e == ERR_OK; i++)
        e = decode_one(c, dir, in, &list[i], ctx);
    if (e != ERR_OK) {
        staged_list_free(c, list, count, false);
        return e;
    }
    *out = list;
    *n = count;
    return ERR_OK;
}
