/* Log records: encoding and bounds-checked decoding.
 *
 * Layout: a record starts with its type byte. A commit record has a first part, and behind it a
 * second one (flags, what a load session and a version carry with them), which records of the first
 * releases lack. Threads: none of it is shared. Failure: integrity is the log's business (group
 * checksums); here only structure is checked. */
#include "store/record.h"

enum commit_flag { COMMIT_REPLACES_ALL = 1, COMMIT_RESTORES = 2, COMMIT_FLAGS = 3 };

/* ---- pieces ---- */

static void put_first_meta(const struct commit_meta *m, struct buf *out)
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

void first_meta_decode(struct cursor *c, struct commit_meta *m)
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

static void put_later_meta(const struct commit_meta *m, struct buf *out)
{
    buf_put_u64(out, m->stale);
    buf_put_blob(out, m->metadata, m->metadata_len);
    buf_put_blob(out, m->load_id, m->load_id_len);
    buf_put_blob(out, m->idem_key, m->idem_key_len);
    buf_put(out, m->idem_hash, sizeof m->idem_hash);
}

static void get_later_meta(struct cursor *c, struct commit_meta *m)
{
    m->stale = cursor_u64(c);
    m->metadata = cursor_blob(c, &m->metadata_len);
    m->load_id = cursor_blob(c, &m->load_id_len);
    m->idem_key = cursor_blob(c, &m->idem_key_len);
    const void *hash = cursor_take(c, sizeof m->idem_hash);
    if (hash)
        memcpy(m->idem_hash, hash, sizeof m->idem_hash);
    c->failed |= m->load_id_len != 0 && m->load_id_len != 16;
}

void meta_encode(const struct commit_meta *m, struct buf *out)
{
    put_first_meta(m, out);
    put_later_meta(m, out);
}

void meta_decode(struct cursor *c, struct commit_meta *out)
{
    first_meta_decode(c, out);
    get_later_meta(c, out);
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

static void put_ordinals(const struct buf *segments, struct buf *out)
{
    const struct segment_ref *s = (const struct segment_ref *)segments->data;
    for (size_t i = 0; i < segments->len / sizeof *s; i++)
        buf_put_u64(out, s[i].base_ordinal);
}

static void get_ordinals(struct cursor *c, struct buf *segments)
{
    struct segment_ref *s = (struct segment_ref *)segments->data;
    for (size_t i = 0; i < segments->len / sizeof *s; i++)
        s[i].base_ordinal = cursor_u64(c);
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

static void put_numbers(const struct buf *numbers, struct buf *out)
{
    const uint64_t *n = (const uint64_t *)numbers->data;
    buf_put_u32(out, (uint32_t)(numbers->len / sizeof *n));
    for (size_t i = 0; i < numbers->len / sizeof *n; i++)
        buf_put_u64(out, n[i]);
}

static void get_numbers(struct cursor *c, struct buf *numbers)
{
    uint32_t n = cursor_u32(c);
    for (uint32_t i = 0; i < n && !c->failed; i++) {
        uint64_t number = cursor_u64(c);
        buf_put(numbers, &number, sizeof number);
    }
}

void manifest_deinit(struct manifest *m)
{
    buf_deinit(&m->segments);
    buf_deinit(&m->dead);
    buf_deinit(&m->gone);
}

void manifest_encode(const struct manifest *m, struct buf *out)
{
    put_segments(&m->segments, out);
    put_ordinals(&m->segments, out);
    put_dead(&m->dead, out);
    put_dead(&m->gone, out);
}

void manifest_decode(struct cursor *c, struct manifest *out)
{
    get_segments(c, &out->segments);
    get_ordinals(c, &out->segments);
    get_dead(c, &out->dead);
    get_dead(c, &out->gone);
}

void first_manifest_decode(struct cursor *c, struct manifest *out)
{
    get_segments(c, &out->segments);
    get_dead(c, &out->dead);
}

static bool manifest_failed(const struct manifest *m)
{
    return m->segments.failed || m->dead.failed || m->gone.failed;
}

/* ---- commits ---- */

void commit_record_deinit(struct commit_record *r)
{
    buf_deinit(&r->runs);
    buf_deinit(&r->segments);
    buf_deinit(&r->dead);
    buf_deinit(&r->gone);
    manifest_deinit(&r->target);
}

static void put_later(const struct commit_record *r, struct buf *out)
{
    buf_put_u8(out, (uint8_t)((r->replace_all ? COMMIT_REPLACES_ALL : 0) |
                              (r->restores ? COMMIT_RESTORES : 0)));
    put_later_meta(&r->meta, out);
    put_ordinals(&r->segments, out);
    put_dead(&r->gone, out);
    if (r->restores)
        manifest_encode(&r->target, out);
}

static void get_later(struct cursor *c, struct commit_record *r)
{
    uint8_t flags = cursor_u8(c);
    r->replace_all = flags & COMMIT_REPLACES_ALL;
    r->restores = flags & COMMIT_RESTORES;
    c->failed |= flags > COMMIT_FLAGS || (r->replace_all && r->restores);
    get_later_meta(c, &r->meta);
    get_ordinals(c, &r->segments);
    get_dead(c, &r->gone);
    if (r->restores)
        manifest_decode(c, &r->target);
}

void commit_record_encode(const struct commit_record *r, struct buf *out)
{
    buf_put_u8(out, RECORD_COMMIT);
    put_first_meta(&r->meta, out);
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
    put_later(r, out);
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
    first_meta_decode(&c, &out->meta);
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
    if (cursor_left(&c))
        get_later(&c, out);
    enum err e = ERR_OK;
    if (c.failed || cursor_left(&c) || type != RECORD_COMMIT || !runs_valid(out))
        e = err_set(ctx, ERR_CORRUPT, "a commit record of the log is damaged");
    else if (out->runs.failed || out->segments.failed || out->dead.failed || out->gone.failed ||
             manifest_failed(&out->target))
        e = err_no_memory(ctx, n);
    if (e != ERR_OK)
        commit_record_deinit(out);
    return e;
}

/* ---- the others ---- */

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

void compact_record_deinit(struct compact_record *r)
{
    buf_deinit(&r->removed);
    manifest_deinit(&r->added);
}

void compact_record_encode(const struct compact_record *r, struct buf *out)
{
    buf_put_u8(out, RECORD_COMPACT);
    put_numbers(&r->removed, out);
    manifest_encode(&r->added, out);
}

enum err compact_record_decode(const void *record, size_t n, struct compact_record *out,
                               struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    struct cursor c = cursor_over(record, n);
    uint8_t type = cursor_u8(&c);
    get_numbers(&c, &out->removed);
    manifest_decode(&c, &out->added);
    enum err e = ERR_OK;
    if (c.failed || cursor_left(&c) || type != RECORD_COMPACT)
        e = err_set(ctx, ERR_CORRUPT, "a record of a compaction is damaged");
    else if (out->removed.failed || manifest_failed(&out->added))
        e = err_no_memory(ctx, n);
    if (e != ERR_OK)
        compact_record_deinit(out);
    return e;
}

void tag_record_encode(const struct tag_record *r, struct buf *out)
{
    buf_put_u8(out, RECORD_TAG);
    buf_put_u8(out, r->set);
    buf_put_u64(out, r->version);
    buf_put_blob(out, r->tag, r->tag_len);
}

enum err tag_record_decode(const void *record, size_t n, struct tag_record *out,
                           struct err_ctx *ctx)
{
    struct cursor c = cursor_over(record, n);
    uint8_t type = cursor_u8(&c), set = cursor_u8(&c);
    *out = (struct tag_record){.set = set, .version = cursor_u64(&c)};
    out->tag = cursor_blob(&c, &out->tag_len);
    if (c.failed || cursor_left(&c) || type != RECORD_TAG || set > 1 || !out->tag_len)
        return err_set(ctx, ERR_CORRUPT, "the record of a tag is damaged");
    return ERR_OK;
}

void vacuum_record_deinit(struct vacuum_record *r)
{
    buf_deinit(&r->kept);
    buf_deinit(&r->removed);
}

void vacuum_record_encode(const struct vacuum_record *r, struct buf *out)
{
    buf_put_u8(out, RECORD_VACUUM);
    buf_put_u64(out, r->horizon);
    put_numbers(&r->kept, out);
    put_numbers(&r->removed, out);
}

enum err vacuum_record_decode(const void *record, size_t n, struct vacuum_record *out,
                              struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    struct cursor c = cursor_over(record, n);
    uint8_t type = cursor_u8(&c);
    out->horizon = cursor_u64(&c);
    get_numbers(&c, &out->kept);
    get_numbers(&c, &out->removed);
    enum err e = ERR_OK;
    if (c.failed || cursor_left(&c) || type != RECORD_VACUUM)
        e = err_set(ctx, ERR_CORRUPT, "the record of a vacuum is damaged");
    else if (out->kept.failed || out->removed.failed)
        e = err_no_memory(ctx, n);
    if (e != ERR_OK)
        vacuum_record_deinit(out);
    return e;
}
