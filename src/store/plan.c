/* Plans: from a commit record to the next snapshot, in a commit and in replay alike, so that a
 * restart rebuilds the same views, row numbers and masks.
 *
 * plan_commit does all that can fail and changes nothing that a reader or a later commit could see
 * (a reservation in the tail apart); plan_apply only copies rows into reserved room and swaps the
 * head. Both run under the commit lock. */
#include "store/collection_internal.h"

#include <inttypes.h>
#include <roaring/roaring.h>

static size_t record_segments(const struct commit_record *r)
{
    return r->segments.len / sizeof(struct segment_ref);
}

static int tail_view(const struct snapshot *s, const struct segment *tail)
{
    return s->nviews && s->views[s->nviews - 1].segment == tail ? (int)s->nviews - 1 : -1;
}

static void copy_view(struct snapshot *to, const struct view *v)
{
    struct view *out = &to->views[to->nviews++];
    *out = *v;
    segment_acquire(out->segment);
    if (out->dead)
        mask_acquire(out->dead);
    if (out->gone)
        mask_acquire(out->gone);
}

static struct snapshot *next_snapshot(struct collection *c, const struct commit_record *r,
                                      struct segment **added)
{
    const struct snapshot *head = c->head;
    size_t nadded = record_segments(r);
    struct snapshot *s = calloc(1, sizeof *s + (head->nviews + nadded + 1) * sizeof s->views[0]);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(head->schema);
    s->serial = head->serial + 1;
    s->version = r->meta.version;
    s->time_us = r->meta.time_us;
    s->rows = r->meta.live_rows;
    s->vectors = r->meta.live_vectors;
    s->digest = r->meta.digest;
    s->bytes = head->bytes;
    int tail = tail_view(head, c->tail);
    for (uint32_t i = 0; i < head->nviews; i++) {
        if ((int)i != tail)
            copy_view(s, &head->views[i]);
    }
    for (size_t i = 0; i < nadded; i++) {
        copy_view(s, &(struct view){.segment = added[i], .rows = added[i]->rows});
        s->bytes += added[i]->bytes;
    }
    if (tail >= 0)
        copy_view(s, &head->views[tail]);
    else if (r->ninline)
        copy_view(s, &(struct view){.segment = c->tail});
    if (r->ninline)
        s->views[s->nviews - 1].rows += r->ninline;
    return s;
}

struct kill_arg {
    struct mask *mask;
    bool failed;
};

static bool kill_row(uint32_t row, void *arg)
{
    struct kill_arg *k = arg;
    bool was;
    k->failed |= !mask_set(k->mask, row, &was);
    return !k->failed;
}

static enum err apply_dead(struct snapshot *s, const struct dead_ref *d, struct err_ctx *ctx)
{
    struct view *v = NULL;
    for (uint32_t i = 0; i < s->nviews && !v; i++)
        v = s->views[i].segment->id == d->segment ? &s->views[i] : NULL;
    roaring_bitmap_t *r = roaring_bitmap_portable_deserialize_safe(d->mask, d->mask_len);
    if (!v || !r || (!roaring_bitmap_is_empty(r) && roaring_bitmap_maximum(r) >= v->rows)) {
        if (r)
            roaring_bitmap_free(r);
        return err_set(ctx, ERR_CORRUPT, "a commit record deletes rows that do not exist");
    }
    struct kill_arg k = {.mask = mask_edit(v->dead, v->rows)};
    if (k.mask)
        roaring_iterate(r, kill_row, &k);
    roaring_bitmap_free(r);
    if (!k.mask || k.failed) {
        mask_release(k.mask);
        return err_no_memory(ctx, v->rows / 8);
    }
    mask_release(v->dead);
    v->dead = k.mask;
    return ERR_OK;
}

enum err plan_commit(struct collection *c, const void *record, size_t n, struct segment **added,
                     struct plan *out, struct err_ctx *ctx)
{
    memset(out, 0, sizeof *out);
    RETURN_NOT_OK(commit_record_decode(record, n, &out->rec, ctx));
    struct commit_record *r = &out->rec;
    enum err e = ERR_OK;
    if (r->meta.version != c->head->version + 1)
        e = err_set(ctx, ERR_CORRUPT, "the log goes from version %" PRIu64 " to %" PRIu64,
                    c->head->version, r->meta.version);
    if (e == ERR_OK && r->ninline)
        e = tail_reserve(c->tail, r->ninline, (uint32_t)(r->runs.len / sizeof(struct inline_run)),
                         r->inline_payload, ctx);
    if (e == ERR_OK && !(out->next = next_snapshot(c, r, added)))
        e = err_no_memory(ctx, sizeof *out->next);
    const struct dead_ref *dead = (const struct dead_ref *)r->dead.data;
    for (size_t i = 0; e == ERR_OK && i < r->dead.len / sizeof *dead; i++)
        e = apply_dead(out->next, &dead[i], ctx);
    for (uint32_t i = 0; e == ERR_OK && i < out->next->nviews; i++) {
        struct view *v = &out->next->views[i];
        v->live = v->rows - (v->dead ? (uint32_t)v->dead->count : 0);
    }
    if (e != ERR_OK)
        plan_deinit(out);
    return e;
}

void plan_deinit(struct plan *p)
{
    snapshot_release(p->next);
    commit_record_deinit(&p->rec);
}

enum err plan_check_rows(struct collection *c, const struct commit_record *r, struct err_ctx *ctx)
{
    struct cursor cur = cursor_over(r->inline_rows, r->inline_len);
    const struct row *row = &c->apply_row.row;
    size_t payload = 0;
    bool ok = true;
    for (uint32_t i = 0; ok && i < r->ninline; i++) {
        ok = row_decode(&c->apply_row, &cur, c->apply_vector);
        payload += ok && row->schema->key == KEY_STRING ? row->key_len : 0;
        for (uint32_t v = 0; ok && v < row->schema->nvar; v++)
            payload += row->var[v].len;
    }
    if (ok && cursor_left(&cur) == 0 && payload == r->inline_payload)
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT, "the rows of the commit of version %" PRIu64 " do not decode",
                   r->meta.version);
}

/* The rows of a record were encoded just above or passed plan_check_rows: here they decode. */
void plan_apply(struct collection *c, struct plan *p)
{
    const struct commit_record *r = &p->rec;
    struct cursor cur = cursor_over(r->inline_rows, r->inline_len);
    const struct inline_run *runs = (const struct inline_run *)r->runs.data;
    size_t nruns = r->runs.len / sizeof *runs, run = 0;
    size_t before = tail_bytes(c->tail);
    for (uint32_t i = 0; i < r->ninline; i++) {
        if (run + 1 < nruns && runs[run + 1].index == i)
            run++;
        ASSERT(row_decode(&c->apply_row, &cur, c->apply_vector));
        tail_append(c->tail, &c->apply_row.row, r->meta.version,
                    runs[run].ordinal + (i - runs[run].index));
    }
    p->next->bytes += tail_bytes(c->tail) - before;
    snapshot_release(c->head);
    c->head = snapshot_acquire(p->next);
}
