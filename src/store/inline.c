/* What goes into the log record itself: the rows of a small load, rows of a large one that are
 * completed at the last moment, and the lists of rows that die.
 *
 * Inline rows go to the end of the active tail in the order of their ordinals. With event_time a
 * row may be born as history: dead, not gone.
 *
 * Threads: under the commit lock. Failure: no trace outside the resolver and its input. */
#include "store/resolve.h"

enum { COMPLETE_INLINE_MAX = 1024 }; /* rows; more are completed into a file, outside the lock */

/* Notes an inline row that was built in rv->row. */
static void put_row(struct resolve *rv, uint64_t ordinal, bool current)
{
    const struct row *r = &rv->row.row;
    struct commit_record *rec = &rv->rec;
    const struct inline_run *last =
        rec->runs.len ? (struct inline_run *)(rec->runs.data + rec->runs.len) - 1 : NULL;
    if (!last || last->ordinal + (rec->ninline - last->index) != ordinal) {
        struct inline_run run = {.index = rec->ninline, .ordinal = ordinal};
        buf_put(&rec->runs, &run, sizeof run);
    }
    if (!current && bits_of(&rv->inline_dead, &rv->failed))
        roaring_bitmap_add(rv->inline_dead, rec->ninline);
    row_encode(r, &rv->inline_rows);
    rec->ninline++;
    rec->inline_payload += r->schema->key == KEY_STRING ? r->key_len : 0;
    for (uint32_t i = 0; i < r->schema->nvar; i++)
        rec->inline_payload += r->var[i].len;
    digest_add(&rv->added_digest, row_digest(r));
    rv->added += current;
    rv->added_vectors += current && r->vector;
}

/* ---- a small load without event times ---- */

static enum err held_exists(const struct row *key, size_t i, struct err_ctx *ctx)
{
    char text[224];
    key_text(key, text, sizeof text);
    return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)i, "key",
                      "key %s exists already; append takes new keys only (use mode=upsert to "
                      "replace rows)",
                      text);
}

static enum err held_elsewhere(struct resolve *rv, const struct row *key, size_t i,
                               struct row_ref ref, struct err_ctx *ctx)
{
    char text[224], there[256], here[256];
    key_text(key, text, sizeof text);
    partition_text_segment(rv->partitions, rv->base->views[ref.view].segment, ref.row, there,
                           sizeof there);
    partition_text_row(rv->partitions, &rv->row.row, here, sizeof here);
    return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)i, "key",
                      "row %zu puts key %s into partition %s, but it is alive in partition %s, "
                      "which this load does not replace",
                      i, text, here, there);
}

static enum err held_row(struct resolve *rv, const struct batch *b, size_t i, struct err_ctx *ctx)
{
    enum load_mode mode = rv->in->opts.mode;
    struct row key = {.schema = b->schema};
    struct row_ref ref = {0, 0};
    bool partial;
    batch_row_key(b, i, &key);
    bool found = find_key(rv->base, &key, &ref);
    if (found && mode == LOAD_APPEND)
        return held_exists(&key, i, ctx);
    if (found && mode == LOAD_UPSERT)
        resolve_kill(rv, ref.view, ref.row, 1, true, true);
    bool completes = found && mode == LOAD_UPSERT;
    row_from_batch(&rv->row, b, i, completes ? rv->base->views[ref.view].segment : NULL, ref.row,
                   &partial);
    if (found && mode == LOAD_PARTITION && !resolve_sweeps(rv, ref))
        return held_elsewhere(rv, &key, i, ref, ctx);
    *(found ? &rv->updated : &rv->inserted) += 1;
    put_row(rv, i, true);
    return ERR_OK;
}

enum err resolve_held(struct resolve *rv, struct err_ctx *ctx)
{
    const struct batch *b = rv->in->held;
    for (size_t i = 0; b && i < b->rows; i++) {
        if (rv->in->skip && rv->in->skip[i / 32] >> (i % 32) & 1)
            continue;
        RETURN_NOT_OK(held_row(rv, b, i, ctx));
    }
    return rv->failed ? err_no_memory(ctx, 64) : ERR_OK;
}

/* ---- rows of staged segments ---- */

static enum err put_places(struct resolve *rv, const struct row_places *places, bool *again,
                           struct err_ctx *ctx)
{
    size_t n = places->list.len / sizeof(struct row_place);
    const struct row_place *p = (const struct row_place *)places->list.data;
    for (size_t i = 0; i < n; i++) {
        struct partial source;
        const struct incoming *s = &rv->in->seg[p[i].seg];
        RETURN_NOT_OK(resolve_build(rv, p[i].seg, p[i].row, &source, ctx));
        put_row(rv, p[i].ordinal, !bit_of(s->past, p[i].row) && !bit_of(s->stale, p[i].row));
        if (!s->scratch && rv->inline_rows.len > INLINE_BYTES_MAX) {
            rv->need_all = *again = true;
            return ERR_OK;
        }
    }
    return ERR_OK;
}

static void forget_inline(struct resolve *rv)
{
    commit_record_deinit(&rv->rec);
    memset(&rv->rec, 0, sizeof rv->rec);
    rv->inline_rows.len = 0;
    if (rv->inline_dead)
        roaring_bitmap_clear(rv->inline_dead);
    rv->added = rv->added_vectors = 0;
    rv->added_digest = (struct digest){0};
}

/* Everything of a scratch segment is in the record: none of it counts as a segment's. */
static void leave_scratch(struct load_input *in)
{
    for (size_t i = 0; i < in->n; i++) {
        if (!in->seg[i].scratch)
            continue;
        in->seg[i].superseded = true;
    }
}

bool resolve_many_needs(const struct resolve *rv)
{
    return rv->need_all ? resolve_needs(rv) > 0 : resolve_needs(rv) > COMPLETE_INLINE_MAX;
}

enum err resolve_inline(struct resolve *rv, bool *again, struct err_ctx *ctx)
{
    struct row_places places = {0};
    *again = resolve_needs(rv) > COMPLETE_INLINE_MAX;
    if (*again)
        return ERR_OK;
    enum err e = resolve_list(rv, true, &places, ctx);
    if (e == ERR_OK)
        e = put_places(rv, &places, again, ctx);
    if (e == ERR_OK && *again)
        forget_inline(rv);
    else if (e == ERR_OK) {
        leave_scratch(rv->in);
        e = resolve_drop(rv, &places, ctx);
    }
    buf_deinit(&places.list);
    return e == ERR_OK && rv->failed ? err_no_memory(ctx, 64) : e;
}

/* ---- the record ---- */

struct blobs {
    struct buf bytes;
    bool failed;
};

/* Notes `bits` of a segment in `refs`; addresses follow when all bytes are there. */
static void put_bits(struct blobs *b, struct buf *refs, uint64_t segment,
                     const roaring_bitmap_t *bits)
{
    if (!bits || roaring_bitmap_is_empty(bits))
        return;
    struct dead_ref d = {.segment = segment,
                         .mask_len = roaring_bitmap_portable_size_in_bytes(bits)};
    void *at = buf_extend(&b->bytes, d.mask_len);
    if (at)
        roaring_bitmap_portable_serialize(bits, at);
    b->failed |= !at;
    buf_put(refs, &d, sizeof d);
}

static void set_addresses(const struct buf *refs, const uint8_t **at)
{
    struct dead_ref *d = (struct dead_ref *)refs->data;
    for (size_t i = 0; i < refs->len / sizeof *d; i++) {
        d[i].mask = *at;
        *at += d[i].mask_len;
    }
}

/* Inline rows that are born dead, by their numbers in the tail. */
static void add_inline_dead(struct resolve *rv, roaring_bitmap_t **bits)
{
    uint32_t first = tail_rows(rv->c->tail);
    if (!rv->inline_dead || !bits_of(bits, &rv->failed))
        return;
    roaring_uint32_iterator_t *it = roaring_create_iterator(rv->inline_dead);
    rv->failed |= !it;
    for (; it && it->has_value; roaring_advance_uint32_iterator(it))
        roaring_bitmap_add(*bits, first + it->current_value);
    if (it)
        roaring_free_uint32_iterator(it);
}

static void put_base_bits(struct resolve *rv, struct blobs *b, bool gone)
{
    struct buf *refs = gone ? &rv->rec.gone : &rv->rec.dead;
    bool tail_seen = false;
    for (uint32_t i = 0; i < rv->base->nviews; i++) {
        const struct segment *s = rv->base->views[i].segment;
        if (s == rv->c->tail && !gone)
            add_inline_dead(rv, &rv->kills[i].dead);
        tail_seen |= s == rv->c->tail;
        if (!rv->rec.replace_all || (s == rv->c->tail && !gone))
            put_bits(b, refs, s->id, gone ? rv->kills[i].gone : rv->kills[i].dead);
    }
    if (tail_seen || gone)
        return;
    roaring_bitmap_t *bits = NULL;
    add_inline_dead(rv, &bits);
    put_bits(b, refs, rv->c->tail->id, bits);
    if (bits)
        roaring_bitmap_free(bits);
}

/* Rows of the load's own segments that are dead, or gone, from birth. */
static void put_load_bits(struct resolve *rv, struct blobs *b, bool gone)
{
    bool events = rv->base->schema->event_time >= 0;
    for (size_t i = 0; i < rv->in->n; i++) {
        const struct incoming *s = &rv->in->seg[i];
        if (s->superseded || (gone && !events))
            continue;
        if (gone || (!s->past && !s->stale)) {
            put_bits(b, gone ? &rv->rec.gone : &rv->rec.dead, s->segment->id, s->lost);
            continue;
        }
        roaring_bitmap_t *all = roaring_bitmap_create();
        rv->failed |= !all;
        const roaring_bitmap_t *parts[] = {s->lost, s->past, s->stale};
        for (size_t p = 0; all && p < 3; p++) {
            if (parts[p])
                roaring_bitmap_or_inplace(all, parts[p]);
        }
        put_bits(b, &rv->rec.dead, s->segment->id, all);
        if (all)
            roaring_bitmap_free(all);
    }
}

static uint64_t current_rows(const struct incoming *s)
{
    uint64_t out = s->lost && s->past ? roaring_bitmap_or_cardinality(s->lost, s->past)
                                      : count_of(s->lost) + count_of(s->past);
    return s->rows - out - count_of(s->stale);
}

/* What the version holds after the commit, and what it answers. */
static void sum_up(struct resolve *rv)
{
    struct commit_meta *m = &rv->rec.meta;
    const struct load_input *in = rv->in;
    bool anew = in->opts.mode == LOAD_FULL_REFRESH;
    rv->rec.replace_all = anew;
    m->live_rows = rv->added + (anew ? 0 : rv->base->rows - rv->killed);
    m->live_vectors = rv->added_vectors + (anew ? 0 : rv->base->vectors - rv->killed_vectors);
    m->digest = anew ? (struct digest){0} : rv->base->digest;
    if (!anew)
        digest_sub(&m->digest, rv->removed);
    digest_add(&m->digest, rv->added_digest);
    for (size_t i = 0; i < in->n; i++) {
        const struct incoming *s = &in->seg[i];
        if (s->superseded)
            continue;
        struct segment_ref ref = {.id = s->segment->id,
                                  .base_version = m->version,
                                  .base_ordinal = s->base_ordinal,
                                  .rows = s->rows};
        buf_put(&rv->rec.segments, &ref, sizeof ref);
        m->live_rows += current_rows(s);
        m->live_vectors += s->vectors;
        digest_add(&m->digest, s->digest);
    }
    m->live_vectors -= rv->stale_vectors;
    m->inserted = rv->inserted;
    m->updated = rv->updated;
    m->stale = in->past_rows + rv->stale;
    if (in->delete_filter)
        m->rows = rv->swept;
    m->deleted = anew ? rv->base->rows - rv->updated : rv->swept;
    if (in->opts.mode == LOAD_PARTITION)
        m->deleted = rv->swept - rv->updated;
}

enum err resolve_record(struct resolve *rv, struct buf *out, struct err_ctx *ctx)
{
    struct commit_record *r = &rv->rec;
    struct blobs b = {0};
    sum_up(rv);
    commit_describe(&r->meta, &rv->in->opts);
    put_base_bits(rv, &b, false);
    put_load_bits(rv, &b, false);
    put_base_bits(rv, &b, true);
    put_load_bits(rv, &b, true);
    bool failed = b.failed || b.bytes.failed || rv->failed || rv->inline_rows.failed ||
                  r->runs.failed || r->segments.failed || r->dead.failed || r->gone.failed;
    if (!failed) { /* else a reference may lack its mask */
        const uint8_t *at = b.bytes.data;
        set_addresses(&r->dead, &at);
        set_addresses(&r->gone, &at);
        r->inline_rows = rv->inline_rows.data;
        r->inline_len = rv->inline_rows.len;
        commit_record_encode(r, out);
        failed = out->failed;
    }
    buf_deinit(&b.bytes);
    return failed ? err_no_memory(ctx, rv->inline_rows.len) : ERR_OK;
}
