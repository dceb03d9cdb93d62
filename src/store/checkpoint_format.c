/* Checkpoints as bytes, and the envelope around every file that is written whole:
 *
 *   magic 8 | format u32 | collection id 16 | body length u64 | crc32c of the body u32 | body
 *
 * Format 2 of a checkpoint holds the state (schema, counts, manifest) and what history needs: the
 * number of items before it, the versions that are kept, tags, and every segment of a kept version.
 * Format 1 held the state only; a directory with one opens as a collection whose versions before
 * the checkpoint's are vacuumed. Failure: ERR_CORRUPT for whatever does not decode to the last
 * byte. */
#include "store/record.h"

#define CHECKPOINT_MAGIC "LSTNCKP\x1a"

enum { CHECKPOINT_FORMAT_FIRST = 1, CHECKPOINT_FORMAT = 2 };

void envelope_encode(const char magic[8], uint32_t format, const uint8_t collection_id[16],
                     const struct buf *body, struct buf *out)
{
    buf_put(out, magic, 8);
    buf_put_u32(out, format);
    buf_put(out, collection_id, 16);
    buf_put_u64(out, body->len);
    buf_put_u32(out, crc32c(0, body->data, body->len));
    buf_put(out, body->data, body->len);
    out->failed |= body->failed;
}

enum err envelope_decode(const void *data, size_t n, const char magic[8],
                         const uint8_t collection_id[16], const char *what, uint32_t *format,
                         struct cursor *body, struct err_ctx *ctx)
{
    struct cursor c = cursor_over(data, n);
    const void *found = cursor_take(&c, 8);
    *format = cursor_u32(&c);
    const void *id = cursor_take(&c, 16);
    uint64_t len = cursor_u64(&c);
    uint32_t crc = cursor_u32(&c);
    if (c.failed || memcmp(found, magic, 8) != 0 || len != cursor_left(&c) ||
        crc != crc32c(0, c.p, len))
        return err_set(ctx, ERR_CORRUPT, "the %s is damaged", what);
    if (collection_id && memcmp(id, collection_id, 16) != 0)
        return err_set(ctx, ERR_CORRUPT, "the %s belongs to another collection", what);
    *body = c;
    return ERR_OK;
}

void checkpoint_deinit(struct checkpoint *c)
{
    schema_release(c->schema);
    manifest_deinit(&c->manifest);
    buf_deinit(&c->kept);
    buf_deinit(&c->tags);
    buf_deinit(&c->registry);
}

static void put_history(const struct checkpoint *c, struct buf *out)
{
    const struct tag_ref *tags = (const struct tag_ref *)c->tags.data;
    size_t ntags = c->tags.len / sizeof *tags;
    struct manifest registry = {.segments = c->registry};
    buf_put_u64(out, c->items);
    buf_put_u8(out, c->altered);
    buf_put_u64(out, c->base_version);
    buf_put_u64(out, c->horizon);
    buf_put_blob(out, c->kept.data, c->kept.len);
    buf_put_u32(out, (uint32_t)ntags);
    for (size_t i = 0; i < ntags; i++) {
        buf_put_blob(out, tags[i].tag, tags[i].tag_len);
        buf_put_u64(out, tags[i].version);
    }
    manifest_encode(&registry, out);
}

static void get_history(struct cursor *c, struct checkpoint *out)
{
    struct manifest registry = {0};
    size_t kept_len;
    out->items = cursor_u64(c);
    out->altered = cursor_u8(c);
    out->base_version = cursor_u64(c);
    out->horizon = cursor_u64(c);
    const void *kept = cursor_blob(c, &kept_len);
    if (kept)
        buf_put(&out->kept, kept, kept_len);
    c->failed |= kept_len % sizeof(uint64_t) != 0;
    uint32_t ntags = cursor_u32(c);
    for (uint32_t i = 0; i < ntags && !c->failed; i++) {
        struct tag_ref tag = {0};
        tag.tag = cursor_blob(c, &tag.tag_len);
        tag.version = cursor_u64(c);
        buf_put(&out->tags, &tag, sizeof tag);
    }
    manifest_decode(c, &registry);
    out->registry = registry.segments;
    c->failed |= registry.dead.len || registry.gone.len;
    buf_deinit(&registry.dead);
    buf_deinit(&registry.gone);
}

void checkpoint_encode(const struct checkpoint *c, const uint8_t collection_id[16], struct buf *out)
{
    struct buf body = {0};
    schema_encode(c->schema, &body);
    meta_encode(&c->meta, &body);
    buf_put_u64(&body, c->next_segment_id);
    buf_put_u64(&body, c->first_group);
    manifest_encode(&c->manifest, &body);
    put_history(c, &body);
    envelope_encode(CHECKPOINT_MAGIC, CHECKPOINT_FORMAT, collection_id, &body, out);
    buf_deinit(&body);
}

static bool out_of_memory(const struct checkpoint *c)
{
    const struct manifest *m = &c->manifest;
    return m->segments.failed || m->dead.failed || m->gone.failed || c->kept.failed ||
           c->tags.failed || c->registry.failed;
}

enum err checkpoint_decode(const void *data, size_t n, const uint8_t collection_id[16],
                           struct checkpoint *out, struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    struct cursor c;
    uint32_t format;
    RETURN_NOT_OK(
        envelope_decode(data, n, CHECKPOINT_MAGIC, collection_id, "checkpoint", &format, &c, ctx));
    if (format != CHECKPOINT_FORMAT && format != CHECKPOINT_FORMAT_FIRST)
        return err_set(ctx, ERR_CORRUPT,
                       "the checkpoint is of format %u, written by another "
                       "release",
                       format);
    RETURN_NOT_OK(schema_decode(&c, &out->schema, ctx));
    if (format == CHECKPOINT_FORMAT) {
        meta_decode(&c, &out->meta);
        out->next_segment_id = cursor_u64(&c);
        out->first_group = cursor_u64(&c);
        manifest_decode(&c, &out->manifest);
        get_history(&c, out);
    } else {
        first_meta_decode(&c, &out->meta);
        out->next_segment_id = cursor_u64(&c);
        out->first_group = cursor_u64(&c);
        first_manifest_decode(&c, &out->manifest);
        out->horizon = out->meta.version;
        buf_put(&out->registry, out->manifest.segments.data, out->manifest.segments.len);
    }
    enum err e = ERR_OK;
    if (c.failed || cursor_left(&c))
        e = err_set(ctx, ERR_CORRUPT, "the checkpoint is damaged");
    else if (out_of_memory(out))
        e = err_no_memory(ctx, n);
    if (e != ERR_OK)
        checkpoint_deinit(out);
    return e;
}
