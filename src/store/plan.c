/* Plans: from a record to the next snapshot, in a commit or a compaction and in replay alike, so
 * that a restart rebuilds the same views, row numbers and masks. history_state.c follows the same
 * rules by segment ids.
 *
 * plan_commit and plan_compact do all that can fail and change nothing that a reader or a later
 * commit could see (a reservation in the tail apart); plan_apply only copies rows into reserved
 * room and swaps the head. Both run under the commit lock. */
#include <inttypes.h>
#include <roaring/roaring.h>

#include "store/collection_internal.h"

static bool is_history(const struct snapshot *s, const struct view *v)
{
    return s->schema->event_time >= 0 && !(v->gone && v->gone->count == v->rows);
}

static int tail_view(const struct snapshot *s, const struct segment *tail)
{
    return s->nviews && s->views[s->nviews - 1].segment == tail ? (int)s->nviews - 1 : -1;
}

/* There is room. */
static struct view *add_view(struct snapshot *to, const struct view *v)
{
    struct view *out = &to->views[to->nviews++];
    *out = *v;
    segment_acquire(out->segment);
    if (out->dead)
        mask_acquire(out->dead);
    if (out->gone)
        mask_acquire(out->gone);
    return out;
}

static void drop_view(struct view *v)
{
    segment_release(v->segment);
    mask_release(v->dead);
    mask_release(v->gone);
}

static struct view *find_view(struct snapshot *s, uint64_t segment)
{
    for (uint32_t i = s->nviews; i-- > 0;) {
        if (s->views[i].segment->id == segment)
            return &s->views[i];
    }
    return NULL;
}

static struct snapshot *snapshot_with_room(const struct snapshot *head, size_t views)
{
    struct snapshot *s = calloc(1, sizeof *s + views * sizeof s->views[0]);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(head->schema);
    s->serial = head->serial + 1;
    s->version = head->version;
    s->altered = head->altered;
    s->time_us = head->time_us;
    s->rows = head->rows;
    s->vectors = head->vectors;
    s->digest = head->digest;
    return s;
}

/* ---- masks ---- */

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

/* The rows of `r` (NULL = none) and those from `from` on join the mask. */
static enum err kill(struct mask **mask, uint32_t rows, const roaring_bitmap_t *r, uint32_t from,
                     struct err_ctx *ctx)
{
    struct kill_arg k = {.mask = mask_edit(*mask, rows)};
    if (k.mask && r)
        roaring_iterate(r, kill_row, &k);
    for (uint32_t row = from; k.mask && !k.failed && row < rows; row++)
        kill_row(row, &k);
    if (!k.mask || k.failed) {
        mask_release(k.mask);
        return err_no_memory(ctx, rows / 8);
    }
    mask_release(*mask);
    *mask = k.mask;
    return ERR_OK;
}

static enum err kill_ref(struct snapshot *s, const struct dead_ref *d, bool gone,
                         struct err_ctx *ctx)
{
    struct view *v = find_view(s, d->segment);
    roaring_bitmap_t *r = roaring_bitmap_portable_deserialize_safe(d->mask, d->mask_len);
    enum err e;
    if (!v || !r || (!roaring_bitmap_is_empty(r) && roaring_bitmap_maximum(r) >= v->rows))
        e = err_set(ctx, ERR_CORRUPT, "a record of the log deletes rows that do not exist");
    else
        e = kill(gone ? &v->gone : &v->dead, v->rows, r, v->rows, ctx);
    if (r)
        roaring_bitmap_free(r);
    return e;
}

static enum err kill_refs(struct snapshot *s, const struct buf *dead, const struct buf *gone,
                          struct err_ctx *ctx)
{
    const struct dead_ref *d = (const struct dead_ref *)dead->data;
    const struct dead_ref *g = (const struct dead_ref *)gone->data;
    for (size_t i = 0; i < dead->len / sizeof *d; i++)
        RETURN_NOT_OK(kill_ref(s, &d[i], false, ctx));
    for (size_t i = 0; i < gone->len / sizeof *g; i++)
        RETURN_NOT_OK(kill_ref(s, &g[i], true, ctx));
    return ERR_OK;
}

/* Rows that the version does not hold, from `from` on, are neither current nor history. */
static enum err kill_from(const struct snapshot *s, struct view *v, uint32_t from,
                          struct err_ctx *ctx)
{
    if (from >= v->rows)
        return ERR_OK;
    RETURN_NOT_OK(kill(&v->dead, v->rows, NULL, from, ctx));
    return s->schema->event_time >= 0 ? kill(&v->gone, v->rows, NULL, from, ctx) : ERR_OK;
}

void plan_settle(struct collection *c, struct snapshot *s)
{
    uint32_t kept = 0;
    s->bytes = 0;
    for (uint32_t i = 0; i < s->nviews; i++) {
        struct view *v = &s->views[i];
        v->live = v->rows - (v->dead ? (uint32_t)v->dead->count : 0);
        if (v->live == 0 && v->segment != c->tail && !is_history(s, v)) {
            drop_view(v);
            continue;
        }
        s->bytes += v->segment->tail ? tail_bytes(v->segment) : v->segment->bytes;
        s->views[kept++] = *v;
    }
    s->nviews = kept;
}

/* ---- commits ---- */

/* The segment of a restored version, all of whose rows the view has; those that came after the
 * version are dead. */
static enum err restore_view(struct collection *c, struct snapshot *s,
                             const struct segment_ref *ref, struct err_ctx *ctx)
{
    struct segment *g;
    if (find_view(s, ref->id))
        return err_set(ctx, ERR_CORRUPT, "segment %016" PRIx64 " comes twice", ref->id);
    RETURN_NOT_OK(collection_segment(c, ref->id, &g, ctx));
    uint32_t rows = g->tail ? tail_rows(g) : g->rows;
    enum err e =
        ref->rows <= rows && schema_extends(s->schema, g->schema)
            ? ERR_OK
            : err_set(ctx, ERR_CORRUPT, "segment %016" PRIx64 " is not the restored one", ref->id);
    if (e == ERR_OK)
        e = kill_from(s, add_view(s, &(struct view){.segment = g, .rows = rows}), ref->rows, ctx);
    segment_release(g);
    return e;
}

/* All but the tail's view. */
static enum err restore_views(struct collection *c, struct snapshot *s,
                              const struct manifest *target, struct err_ctx *ctx)
{
    const struct segment_ref *refs = (const struct segment_ref *)target->segments.data;
    for (size_t i = 0; i < target->segments.len / sizeof *refs; i++) {
        if (refs[i].id != c->tail->id)
            RETURN_NOT_OK(restore_view(c, s, &refs[i], ctx));
    }
    return ERR_OK;
}

/* How many rows of the active tail the restored version has. */
static uint32_t restored_tail_rows(const struct collection *c, const struct manifest *target)
{
    const struct segment_ref *refs = (const struct segment_ref *)target->segments.data;
    for (size_t i = 0; i < target->segments.len / sizeof *refs; i++) {
        if (refs[i].id == c->tail->id)
            return refs[i].rows;
    }
    return 0;
}

/* The tail's view, behind the others: its rows keep their numbers, whatever becomes of them. */
static enum err put_tail(struct collection *c, struct snapshot *s, const struct commit_record *r,
                         struct err_ctx *ctx)
{
    int at = tail_view(c->head, c->tail);
    uint32_t rows = at >= 0 ? c->head->views[at].rows : 0;
    uint32_t kept = r->restores ? restored_tail_rows(c, &r->target) : 0;
    if (kept > rows)
        return err_set(ctx, ERR_CORRUPT, "a restore names rows that do not exist");
    if (rows && !r->restores && !r->replace_all)
        add_view(s, &c->head->views[at]);
    else if (rows)
        RETURN_NOT_OK(
            kill_from(s, add_view(s, &(struct view){.segment = c->tail, .rows = rows}), kept, ctx));
    else if (r->ninline)
        add_view(s, &(struct view){.segment = c->tail});
    return ERR_OK;
}

static enum err put_views(struct collection *c, struct snapshot *s, const struct commit_record *r,
                          struct segment **added, struct err_ctx *ctx)
{
    const struct snapshot *head = c->head;
    int tail = tail_view(head, c->tail);
    for (uint32_t i = 0; !r->replace_all && !r->restores && i < head->nviews; i++) {
        if ((int)i != tail)
            add_view(s, &head->views[i]);
    }
    if (r->restores)
        RETURN_NOT_OK(restore_views(c, s, &r->target, ctx));
    for (size_t i = 0; i < r->segments.len / sizeof(struct segment_ref); i++)
        add_view(s, &(struct view){.segment = added[i], .rows = added[i]->rows});
    RETURN_NOT_OK(put_tail(c, s, r, ctx));
    if (r->restores)
        RETURN_NOT_OK(kill_refs(s, &r->target.dead, &r->target.gone, ctx));
    if (r->ninline)
        s->views[s->nviews - 1].rows += r->ninline;
    return kill_refs(s, &r->dead, &r->gone, ctx);
}

static enum err next_version(struct collection *c, const struct commit_record *r,
                             struct segment **added, struct snapshot **out, struct err_ctx *ctx)
{
    size_t views = c->head->nviews + 1 +
                   (r->segments.len + r->target.segments.len) / sizeof(struct segment_ref);
    struct snapshot *s = snapshot_with_room(c->head, views);
    if (!s)
        return err_no_memory(ctx, sizeof *s + views * sizeof(struct view));
    s->version = r->meta.version;
    s->altered = false;
    s->time_us = r->meta.time_us;
    s->rows = r->meta.live_rows;
    s->vectors = r->meta.live_vectors;
    s->digest = r->meta.digest;
    enum err e = put_views(c, s, r, added, ctx);
    if (e != ERR_OK) {
        snapshot_release(s);
        return e;
    }
    plan_settle(c, s);
    *out = s;
    return ERR_OK;
}

/* For plan_apply, which tells the registry of them. */
static enum err note_added(struct collection *c, struct plan *p, struct segment **added, size_t n,
                           struct err_ctx *ctx)
{
    RETURN_NOT_OK(registry_reserve(c, n, ctx));
    p->added = malloc((n + 1) * sizeof *p->added);
    if (!p->added)
        return err_no_memory(ctx, n * sizeof *p->added);
    for (; p->nadded < n; p->nadded++)
        p->added[p->nadded] = segment_acquire(added[p->nadded]);
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
    if (e == ERR_OK)
        e = note_added(c, out, added, r->segments.len / sizeof(struct segment_ref), ctx);
    if (e == ERR_OK)
        e = next_version(c, r, added, &out->next, ctx);
    if (e != ERR_OK)
        plan_deinit(out);
    return e;
}

/* ---- compactions ---- */

static bool is_removed(const struct compact_record *r, uint64_t id)
{
    const uint64_t *removed = (const uint64_t *)r->removed.data;
    for (size_t i = 0; i < r->removed.len / sizeof *removed; i++) {
        if (removed[i] == id)
            return true;
    }
    return false;
}

static enum err compacted(struct collection *c, const struct compact_record *r,
                          struct segment **added, struct snapshot **out, struct err_ctx *ctx)
{
    size_t nadded = r->added.segments.len / sizeof(struct segment_ref);
    struct snapshot *s = snapshot_with_room(c->head, c->head->nviews + nadded);
    if (!s)
        return err_no_memory(ctx, sizeof *s);
    int tail = tail_view(c->head, c->tail);
    for (uint32_t i = 0; i < c->head->nviews; i++) {
        if ((int)i != tail && !is_removed(r, c->head->views[i].segment->id))
            add_view(s, &c->head->views[i]);
    }
    for (size_t i = 0; i < nadded; i++)
        add_view(s, &(struct view){.segment = added[i], .rows = added[i]->rows});
    if (tail >= 0)
        add_view(s, &c->head->views[tail]);
    enum err e = kill_refs(s, &r->added.dead, &r->added.gone, ctx);
    uint64_t live = 0;
    plan_settle(c, s);
    for (uint32_t i = 0; i < s->nviews; i++)
        live += s->views[i].live;
    if (e == ERR_OK && live != s->rows)
        e = err_set(ctx, ERR_CORRUPT, "a compaction leaves %" PRIu64 " rows of %" PRIu64, live,
                    s->rows);
    if (e != ERR_OK) {
        snapshot_release(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

enum err plan_compact(struct collection *c, const void *record, size_t n, struct segment **added,
                      struct plan *out, struct err_ctx *ctx)
{
    struct compact_record r;
    memset(out, 0, sizeof *out);
    RETURN_NOT_OK(compact_record_decode(record, n, &r, ctx));
    enum err e = note_added(c, out, added, r.added.segments.len / sizeof(struct segment_ref), ctx);
    if (e == ERR_OK)
        e = compacted(c, &r, added, &out->next, ctx);
    compact_record_deinit(&r);
    if (e != ERR_OK)
        plan_deinit(out);
    return e;
}

void plan_deinit(struct plan *p)
{
    snapshot_release(p->next);
    while (p->nadded > 0)
        segment_release(p->added[--p->nadded]);
    free(p->added);
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
    size_t before = r->ninline ? tail_bytes(c->tail) : 0;
    for (uint32_t i = 0; i < r->ninline; i++) {
        if (run + 1 < nruns && runs[run + 1].index == i)
            run++;
        ASSERT(row_decode(&c->apply_row, &cur, c->apply_vector));
        tail_append(c->tail, &c->apply_row.row, r->meta.version,
                    runs[run].ordinal + (i - runs[run].index));
    }
    if (r->ninline)
        p->next->bytes += tail_bytes(c->tail) - before;
    for (size_t i = 0; i < p->nadded; i++)
        registry_add(c, p->added[i]);
    c->restores += r->restores;
    snapshot_release(c->head);
    c->head = snapshot_acquire(p->next);
}
