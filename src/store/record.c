/* Log records and checkpoints: encoding and bounds-checked decoding.
 *
 * Layout: a record starts with its type byte; a checkpoint is an envelope around its body:
 *   magic 8 | format u32 | collection id 16 | body length u64 | crc32c of the body u32 | body.
 * Integrity of records is the log's business (group checksums); here only structure is checked. */
#include "store/record.h"

#define CHECKPOINT_MAGIC "LSTNCKP\x1a"

enum { CHECKPOINT_FORMAT = 1 };

static void put_meta(const struct commit_meta *m, struct buf *out)
{
    buf_put_u64(out, m->version);
    buf_put_u64(out, (uint64_t)m->time_us);
    buf_put_u32(out, m->mode);
    buf_put_u64(out, m->rows);
    buf_put_u64(out, m->inserted);
    buf_put_u64(out, m->updated);
    buf_put_u64(out, m->deleted);
    buf_put_u64(out, m->live_rows);
    buf_put_u64(out, m->live_vectors);
    buf_put_u64(out, m->digest.lo);
    buf_put_u64(out, m->digest.hi);
    buf_put_blob(out, m->message, m->message_len);
}

static void get_meta(struct cursor *c, struct commit_meta *m)
{
    m->version = cursor_u64(c);
    m->time_us = (int64_t)cursor_u64(c);
    m->mode = cursor_u32(c);
    m->rows = cursor_u64(c);
    m->inserted = cursor_u64(c);
    m->updated = cursor_u64(c);
    m->deleted = cursor_u64(c);
    m->live_rows = cursor_u64(c);
    m->live_vectors = cursor_u64(c);
    m->digest.lo = cursor_u64(c);
    m->digest.hi = cursor_u64(c);
    m->message = cursor_blob(c, &m->message_len);
}

static void put_segments(const struct buf *segments, struct buf *out)
{
    size_t n = segments->len / sizeof(struct segment_ref);
    const struct segment_ref *s = (const struct segment_ref *)segments->data;
    buf_put_u32(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        buf_put_u64(out, s[i].id);
        buf_put_u64(out, s[i].base_version);
        buf_put_u32(out, s[i].rows);
    }
}

static void get_segments(struct cursor *c, struct buf *segments)
{
    uint32_t n = cursor_u32(c);
    for (uint32_t i = 0; i < n && !c->failed; i++) {
        struct segment_ref s = {.id = cursor_u64(c)};
        s.base_version = cursor_u64(c);
        s.rows = cursor_u32(c);
        buf_put(segments, &s, sizeof s);
    }
}

static void put_dead(const struct buf *dead, struct buf *out)
{
    size_t n = dead->len / sizeof(struct dead_ref);
    const struct dead_ref *d = (const struct dead_ref *)dead->data;
    buf_put_u32(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        buf_put_u64(out, d[i].segment);
        buf_put_blob(out, d[i].mask, d[i].mask_len);
    }
}

static void get_dead(struct cursor *c, struct buf *dead)
{
    uint32_t n = cursor_u32(c);
    for (uint32_t i = 0; i < n && !c->failed; i++) {
        struct dead_ref d = {.segment = cursor_u64(c)};
        d.mask = cursor_blob(c, &d.mask_len);
        buf_put(dead, &d, sizeof d);
    }
}

void commit_record_deinit(struct commit_record *r)
{
    buf_deinit(&r->runs);
    buf_deinit(&r->segments);
    buf_deinit(&r->dead);
}

void commit_record_encode(const struct commit_record *r, struct buf *out)
{
    buf_put_u8(out, RECORD_COMMIT);
    put_meta(&r->meta, out);
    buf_put_u64(out, r->tail_id);
    buf_put_u32(out, r->ninline);
    buf_put_u64(out, r->inline_payload);
    size_t nruns = r->runs.len / sizeof(struct inline_run);
    const struct inline_run *runs = (const struct inline_run *)r->runs.data;
    buf_put_u32(out, (uint32_t)nruns);
    for (size_t i = 0; i < nruns; i++) {
        buf_put_u32(out, runs[i].index);
        buf_put_u64(out, runs[i].ordinal);
    }
    buf_put_blob(out, r->inline_rows, r->inline_len);
    put_segments(&r->segments, out);
    put_dead(&r->dead, out);
}

static bool runs_valid(const struct commit_record *r)
{
    size_t n = r->runs.len / sizeof(struct inline_run);
    const struct inline_run *runs = (const struct inline_run *)r->runs.data;
    if (r->ninline && (!n || runs[0].index != 0))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (runs[i].index >= r->ninline || (i && runs[i].index <= runs[i - 1].index))
            return false;
    }
    return true;
}

enum err commit_record_decode(const void *record, size_t n, struct commit_record *out,
                              struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    struct cursor c = cursor_over(record, n);
    uint8_t type = cursor_u8(&c);
    get_meta(&c, &out->meta);
    out->tail_id = cursor_u64(&c);
    out->ninline = cursor_u32(&c);
    out->inline_payload = cursor_u64(&c);
    uint32_t nruns = cursor_u32(&c);
    for (uint32_t i = 0; i < nruns && !c.failed; i++) {
        struct inline_run run = {.index = cursor_u32(&c)};
        run.ordinal = cursor_u64(&c);
        buf_put(&out->runs, &run, sizeof run);
    }
    out->inline_rows = cursor_blob(&c, &out->inline_len);
    get_segments(&c, &out->segments);
    get_dead(&c, &out->dead);
    enum err e = ERR_OK;
    if (c.failed || type != RECORD_COMMIT || !runs_valid(out))
        e = err_set(ctx, ERR_CORRUPT, "a commit record of the log is damaged");
    else if (out->runs.failed || out->segments.failed || out->dead.failed)
        e = err_no_memory(ctx, n);
    if (e != ERR_OK)
        commit_record_deinit(out);
    return e;
}

void create_record_encode(const struct schema *s, uint64_t base_version, struct buf *out)
{
    buf_put_u8(out, RECORD_CREATE);
    buf_put_u64(out, base_version);
    schema_encode(s, out);
}

enum err create_record_decode(const void *record, size_t n, struct schema **schema,
                              uint64_t *base_version, struct err_ctx *ctx)
{
    struct cursor c = cursor_over(record, n);
    if (cursor_u8(&c) != RECORD_CREATE)
        return err_set(ctx, ERR_CORRUPT, "the log does not start with the collection's schema");
    *base_version = cursor_u64(&c);
    return schema_decode(&c, schema, ctx);
}

void alter_record_encode(const struct schema *s, uint64_t tail_id, struct buf *out)
{
    buf_put_u8(out, RECORD_ALTER);
    buf_put_u64(out, tail_id);
    schema_encode(s, out);
}

enum err alter_record_decode(const void *record, size_t n, struct schema **schema,
                             uint64_t *tail_id, struct err_ctx *ctx)
{
    struct cursor c = cursor_over(record, n);
    ASSERT(cursor_u8(&c) == RECORD_ALTER);
    *tail_id = cursor_u64(&c);
    return schema_decode(&c, schema, ctx);
}

void checkpoint_deinit(struct checkpoint *c)
{
    schema_release(c->schema);
    buf_deinit(&c->segments);
    buf_deinit(&c->dead);
}

void checkpoint_encode(const struct checkpoint *c, const uint8_t collection_id[16], struct buf *out)
{
    struct buf body = {0};
    schema_encode(c->schema, &body);
    put_meta(&c->meta, &body);
    buf_put_u64(&body, c->next_segment_id);
    buf_put_u64(&body, c->first_group);
    put_segments(&c->segments, &body);
    put_dead(&c->dead, &body);
    buf_put(out, CHECKPOINT_MAGIC, 8);
    buf_put_u32(out, CHECKPOINT_FORMAT);
    buf_put(out, collection_id, 16);
    buf_put_u64(out, body.len);
    buf_put_u32(out, crc32c(0, body.data, body.len));
    buf_put(out, body.data, body.len);
    out->failed |= body.failed;
    buf_deinit(&body);
}

static enum err open_envelope(const void *data, size_t n, const uint8_t collection_id[16],
                              struct cursor *body, struct err_ctx *ctx)
{
    struct cursor c = cursor_over(data, n);
    const void *magic = cursor_take(&c, 8);
    uint32_t format = cursor_u32(&c);
    const void *id = cursor_take(&c, 16);
    uint64_t len = cursor_u64(&c);
    uint32_t crc = cursor_u32(&c);
    if (c.failed || memcmp(magic, CHECKPOINT_MAGIC, 8) != 0 || len != cursor_left(&c) ||
        crc != crc32c(0, c.p, len))
        return err_set(ctx, ERR_CORRUPT, "the checkpoint is damaged");
    if (format != CHECKPOINT_FORMAT || (collection_id && memcmp(id, collection_id, 16) != 0))
        return err_set(ctx, ERR_CORRUPT, "the checkpoint belongs to another collection or format");
    *body = c;
    return ERR_OK;
}

enum err checkpoint_decode(const void *data, size_t n, const uint8_t collection_id[16],
                           struct checkpoint *out, struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    struct cursor c;
    RETURN_NOT_OK(open_envelope(data, n, collection_id, &c, ctx));
    RETURN_NOT_OK(schema_decode(&c, &out->schema, ctx));
    get_meta(&c, &out->meta);
    out->next_segment_id = cursor_u64(&c);
    out->first_group = cursor_u64(&c);
    get_segments(&c, &out->segments);
    get_dead(&c, &out->dead);
    enum err e = ERR_OK;
    if (c.failed)
        e = err_set(ctx, ERR_CORRUPT, "the checkpoint is damaged");
    else if (out->segments.failed || out->dead.failed)
        e = err_no_memory(ctx, n);
    if (e != ERR_OK)
        checkpoint_deinit(out);
    return e;
}
