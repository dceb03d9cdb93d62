/* History without the rows of a purge: every history file is written anew where it names a segment
 * that was replaced.
 *
 *   a row number    its rank among those that stay; the rows that go leave every mask
 *   a tail's rows   fewer: the commit that brought n of them brought those that stay
 *   live rows ...   less what the rows that go contributed at that version, which the state
 *                   (history_state.h), led along by the records as they were, tells
 *   COMPACT old -> new   names new on both sides by then: nothing is left of it
 *
 * Threads: the seal lock is held for a file at a time, so that no checkpoint writes it meanwhile.
 * Failure: files before this one are new, it and those after it are old. Each reads as a whole: a
 * state that goes on into the next file begins with its base (history_walk.c). */
#include "store/purge.h"

#include "store/collection_internal.h"

struct rewrite {
    struct purge *p;
    struct history_state state; /* by the old records */
    struct buf out;             /* items */
    void **blobs;               /* masks of the record at hand */
    size_t nblobs, cap_blobs;
    bool changed, failed;
};

/* ---- names and rows ---- */

static const struct purged_segment *replaced(struct rewrite *w, uint64_t id)
{
    for (size_t i = 0; i < w->p->n; i++) {
        if (w->p->list[i].old->id == id) {
            w->changed = true;
            return &w->p->list[i];
        }
    }
    return NULL;
}

static uint64_t new_id(struct rewrite *w, uint64_t id)
{
    const struct purged_segment *s = replaced(w, id);
    return s ? s->new_id : id;
}

/* How many of the first `rows` rows stay. */
static uint32_t rows_kept(const struct purged_segment *s, uint32_t rows)
{
    const struct purged_row *gone = (const struct purged_row *)s->rows.data;
    uint32_t n = 0;
    while (n < s->rows.len / sizeof *gone && gone[n].row < rows)
        n++;
    return rows - n;
}

/* Owned until the record is encoded. */
static void *new_blob(struct rewrite *w, size_t n)
{
    if (w->nblobs == w->cap_blobs) {
        size_t cap = w->cap_blobs ? w->cap_blobs * 2 : 16;
        void **grown = realloc(w->blobs, cap * sizeof *grown);
        if (!grown)
            return NULL;
        w->blobs = grown;
        w->cap_blobs = cap;
    }
    void *blob = malloc(n + 1);
    if (blob)
        w->blobs[w->nblobs++] = blob;
    return blob;
}

static void free_blobs(struct rewrite *w)
{
    for (size_t i = 0; i < w->nblobs; i++)
        free(w->blobs[i]);
    w->nblobs = 0;
}

/* ---- lists of a record ---- */

static void put_refs(struct rewrite *w, const struct buf *in, struct buf *out)
{
    const struct segment_ref *refs = (const struct segment_ref *)in->data;
    for (size_t i = 0; i < in->len / sizeof *refs; i++) {
        struct segment_ref ref = refs[i];
        const struct purged_segment *s = replaced(w, ref.id);
        if (s) /* the new file's runs say versions outright */
            ref = (struct segment_ref){.id = s->new_id, .rows = rows_kept(s, ref.rows)};
        if (!s || ref.rows)
            buf_put(out, &ref, sizeof ref);
    }
    w->failed |= out->failed;
}

static void put_mask(struct rewrite *w, const struct purged_segment *s, const struct dead_ref *d,
                     struct buf *out)
{
    roaring_bitmap_t *rows = roaring_bitmap_portable_deserialize_safe(d->mask, d->mask_len);
    roaring_bitmap_t *to = rows && s->new_rows ? merge_map_rows(&s->out.maps[0], rows) : NULL;
    if (rows)
        roaring_bitmap_free(rows);
    if (!to) {
        w->failed |= !rows || s->new_rows;
        return;
    }
    roaring_bitmap_run_optimize(to);
    struct dead_ref ref = {.segment = s->new_id,
                           .mask_len = roaring_bitmap_portable_size_in_bytes(to)};
    void *blob = roaring_bitmap_is_empty(to) ? NULL : new_blob(w, ref.mask_len);
    if (blob) {
        roaring_bitmap_portable_serialize(to, blob);
        ref.mask = blob;
        buf_put(out, &ref, sizeof ref);
    }
    w->failed |= !roaring_bitmap_is_empty(to) && !blob;
    roaring_bitmap_free(to);
}

static void put_masks(struct rewrite *w, const struct buf *in, struct buf *out)
{
    const struct dead_ref *d = (const struct dead_ref *)in->data;
    for (size_t i = 0; i < in->len / sizeof *d; i++) {
        const struct purged_segment *s = replaced(w, d[i].segment);
        if (s)
            put_mask(w, s, &d[i], out);
        else
            buf_put(out, &d[i], sizeof d[i]);
    }
    w->failed |= out->failed;
}

static void put_manifest(struct rewrite *w, const struct manifest *in, struct manifest *out)
{
    put_refs(w, &in->segments, &out->segments);
    put_masks(w, &in->dead, &out->dead);
    put_masks(w, &in->gone, &out->gone);
}

/* ---- numbers ---- */

static bool has(const roaring_bitmap_t *r, uint32_t row)
{
    return r && roaring_bitmap_contains(r, row);
}

static const struct history_entry *entry_of(const struct history_state *s, uint64_t id)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->entries[i].ref.id == id)
            return &s->entries[i];
    }
    return NULL;
}

/* Takes off what the rows that go contribute at the state. */
static void correct(struct rewrite *w, struct commit_meta *m)
{
    bool history = w->state.schema->event_time >= 0;
    for (size_t i = 0; i < w->p->n; i++) {
        const struct purged_segment *s = &w->p->list[i];
        const struct history_entry *e = entry_of(&w->state, s->old->id);
        const struct purged_row *rows = (const struct purged_row *)s->rows.data;
        for (size_t k = 0; e && k < s->rows.len / sizeof *rows; k++) {
            bool dead = rows[k].row >= e->ref.rows || has(e->dead, rows[k].row);
            bool gone = rows[k].row >= e->ref.rows || has(e->gone, rows[k].row);
            if (history ? !gone : !dead)
                digest_sub(&m->digest, rows[k].digest);
            m->live_rows -= !dead;
            m->live_vectors -= !dead && rows[k].vector;
        }
    }
}

/* ---- records ---- */

/* The inline rows that stay; in history they are but a number. */
static void keep_inline(struct rewrite *w, const struct commit_record *in, uint32_t before,
                        struct commit_record *out)
{
    const struct purged_segment *s = replaced(w, in->tail_id);
    if (!s)
        return;
    out->tail_id = s->new_id;
    out->ninline = rows_kept(s, before + in->ninline) - rows_kept(s, before);
    out->runs = (struct buf){0};
    if (out->ninline)
        buf_put(&out->runs, &(struct inline_run){0}, sizeof(struct inline_run));
    w->failed |= out->runs.failed;
}

static void put_commit(struct rewrite *w, const struct commit_record *in, uint32_t before,
                       struct buf *record)
{
    struct commit_record out = *in;
    out.segments = out.dead = out.gone = (struct buf){0};
    out.target = (struct manifest){0};
    correct(w, &out.meta);
    keep_inline(w, in, before, &out);
    put_refs(w, &in->segments, &out.segments);
    put_masks(w, &in->dead, &out.dead);
    put_masks(w, &in->gone, &out.gone);
    put_manifest(w, &in->target, &out.target);
    commit_record_encode(&out, record);
    buf_deinit(&out.segments);
    buf_deinit(&out.dead);
    buf_deinit(&out.gone);
    manifest_deinit(&out.target);
    if (out.runs.data != in->runs.data)
        buf_deinit(&out.runs);
}

static enum err rewrite_commit(struct rewrite *w, const void *record, size_t n, struct buf *out,
                               struct err_ctx *ctx)
{
    struct commit_record r;
    RETURN_NOT_OK(commit_record_decode(record, n, &r, ctx));
    const struct history_entry *tail = entry_of(&w->state, r.tail_id);
    uint32_t before = tail ? tail->ref.rows : 0;
    enum err e = history_state_apply(&w->state, record, n, ctx);
    if (e == ERR_OK)
        put_commit(w, &r, before, out);
    commit_record_deinit(&r);
    return e;
}

static bool lists(const struct buf *ids, uint64_t id)
{
    const uint64_t *list = (const uint64_t *)ids->data;
    for (size_t i = 0; i < ids->len / sizeof id; i++) {
        if (list[i] == id)
            return true;
    }
    return false;
}

/* What is added and removed alike stays as it was. */
static void drop_swapped(struct manifest *added, struct buf *removed)
{
    struct segment_ref *refs = (struct segment_ref *)added->segments.data;
    struct buf *masks[] = {&added->dead, &added->gone};
    for (int m = 0; m < 2; m++) {
        struct dead_ref *d = (struct dead_ref *)masks[m]->data;
        size_t kept = 0;
        for (size_t i = 0; i < masks[m]->len / sizeof *d; i++) {
            if (!lists(removed, d[i].segment))
                d[kept++] = d[i];
        }
        masks[m]->len = kept * sizeof *d;
    }
    size_t nrefs = added->segments.len / sizeof *refs, kept = 0;
    for (size_t i = 0; i < nrefs; i++) {
        if (lists(removed, refs[i].id)) {
            uint64_t *ids = (uint64_t *)removed->data;
            size_t nids = 0;
            for (size_t k = 0; k < removed->len / sizeof *ids; k++) {
                if (ids[k] != refs[i].id)
                    ids[nids++] = ids[k];
            }
            removed->len = nids * sizeof *ids;
        } else {
            refs[kept++] = refs[i];
        }
    }
    added->segments.len = kept * sizeof *refs;
}

static enum err rewrite_compact(struct rewrite *w, const void *record, size_t n, struct buf *out,
                                struct err_ctx *ctx)
{
    struct compact_record r, to = {0};
    RETURN_NOT_OK(history_state_apply(&w->state, record, n, ctx));
    RETURN_NOT_OK(compact_record_decode(record, n, &r, ctx));
    const uint64_t *removed = (const uint64_t *)r.removed.data;
    for (size_t i = 0; i < r.removed.len / sizeof *removed; i++)
        buf_put_u64(&to.removed, new_id(w, removed[i]));
    put_manifest(w, &r.added, &to.added);
    if (!to.removed.failed && !w->failed)
        drop_swapped(&to.added, &to.removed);
    compact_record_encode(&to, out);
    w->failed |= to.removed.failed;
    compact_record_deinit(&to);
    compact_record_deinit(&r);
    return ERR_OK;
}

static enum err rewrite_alter(struct rewrite *w, const void *record, size_t n, struct buf *out,
                              struct err_ctx *ctx)
{
    struct schema *schema;
    uint64_t tail_id;
    RETURN_NOT_OK(history_state_apply(&w->state, record, n, ctx));
    RETURN_NOT_OK(alter_record_decode(record, n, &schema, &tail_id, ctx));
    alter_record_encode(schema, new_id(w, tail_id), out);
    schema_release(schema);
    return ERR_OK;
}

static enum err rewrite_record(struct rewrite *w, const struct history_item *item, struct buf *out,
                               struct err_ctx *ctx)
{
    switch (*item->record) {
    case RECORD_COMMIT:
        return rewrite_commit(w, item->record, item->len, out, ctx);
    case RECORD_COMPACT:
        return rewrite_compact(w, item->record, item->len, out, ctx);
    case RECORD_ALTER:
        return rewrite_alter(w, item->record, item->len, out, ctx);
    default:
        buf_put(out, item->record, item->len);
        return history_state_apply(&w->state, item->record, item->len, ctx);
    }
}

/* ---- files ---- */

static enum err rewrite_base(struct rewrite *w, const struct history_file *f, struct buf *out,
                             struct err_ctx *ctx)
{
    struct history_base base;
    RETURN_NOT_OK(history_state_init(&w->state, f->base, f->base_len, ctx));
    RETURN_NOT_OK(history_base_decode(f->base, f->base_len, &base, ctx));
    struct history_base to = base;
    to.manifest = (struct manifest){0};
    correct(w, &to.meta);
    put_manifest(w, &base.manifest, &to.manifest);
    history_base_encode(&to, out);
    manifest_deinit(&to.manifest);
    history_base_deinit(&base);
    free_blobs(w);
    return ERR_OK;
}

static enum err rewrite_items(struct rewrite *w, const struct history_file *f, struct err_ctx *ctx)
{
    struct cursor items = cursor_over(f->items, f->items_len);
    struct history_item item;
    struct buf record = {0};
    enum err e = ERR_OK;
    while (e == ERR_OK && history_file_next(&items, &item)) {
        buf_reset(&record);
        e = rewrite_record(w, &item, &record, ctx);
        free_blobs(w);
        buf_put_u64(&w->out, item.number);
        buf_put_blob(&w->out, record.data, record.len);
        w->failed |= record.failed;
    }
    buf_deinit(&record);
    return e;
}

static enum err write_file(struct rewrite *w, const char *path, const struct history_file *f,
                           const struct buf *base, struct err_ctx *ctx)
{
    struct collection *c = w->p->c;
    struct buf bytes = {0};
    struct history_file to = *f;
    to.base = base->data;
    to.base_len = base->len;
    to.items = w->out.data;
    to.items_len = w->out.len;
    history_file_encode(&to, c->id, &bytes);
    enum err e = bytes.failed ? err_no_memory(ctx, bytes.len) : collection_enter_dir(c, ctx);
    if (e == ERR_OK) {
        e = io_write_atomic(c->io, path, bytes.data, bytes.len, ctx);
        collection_leave_dir(c);
    }
    buf_deinit(&bytes);
    return e;
}

static void rewrite_deinit(struct rewrite *w)
{
    free_blobs(w);
    free(w->blobs);
    buf_deinit(&w->out);
    history_state_deinit(&w->state);
}

/* With the seal lock. */
static enum err rewrite_file(struct purge *p, uint64_t name, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct rewrite w = {.p = p};
    struct buf data = {0}, base = {0};
    struct history_file f;
    history_path(p->c, name, path, sizeof path);
    enum err e = history_file_read(p->c->io, path, p->c->id, &data, &f, ctx);
    if (e == ERR_OK)
        e = rewrite_base(&w, &f, &base, ctx);
    if (e == ERR_OK)
        e = rewrite_items(&w, &f, ctx);
    if (e == ERR_OK && (w.failed || w.out.failed || base.failed))
        e = err_no_memory(ctx, data.len);
    if (e == ERR_OK && w.changed)
        e = write_file(&w, path, &f, &base, ctx);
    buf_deinit(&data);
    buf_deinit(&base);
    rewrite_deinit(&w);
    return e;
}

static void list_files(struct collection *c, struct buf *names)
{
    pthread_mutex_lock(&c->history.lock);
    buf_put(names, c->history.files.data, c->history.files.len);
    pthread_mutex_unlock(&c->history.lock);
}

enum err purge_history(struct purge *p, struct err_ctx *ctx)
{
    struct buf names = {0};
    list_files(p->c, &names);
    enum err e = names.failed ? err_no_memory(ctx, names.len) : ERR_OK;
    const uint64_t *list = (const uint64_t *)names.data;
    for (size_t i = 0; e == ERR_OK && i < names.len / sizeof *list; i++) {
        pthread_mutex_lock(&p->c->seal_lock);
        e = rewrite_file(p, list[i], ctx);
        pthread_mutex_unlock(&p->c->seal_lock);
    }
    buf_deinit(&names);
    return e;
}
