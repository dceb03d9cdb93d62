/* States: applying records to a version by segment ids. Rules, in the order in which a commit
 * applies them (see plan.c, whose twin this is):
 *
 *   what was there   stays, or goes (replace_all), or makes room for the target (restores)
 *   the active tail  keeps its row numbers whatever happens: its rows die instead of leaving
 *   segments         the record's own are added, before the tail
 *   inline rows      the tail grows by their number
 *   dead, gone       rows leave; an entry whose rows have all left leaves too, unless it is the
 * tail
 *
 * Failure: memory, or ERR_CORRUPT; the state is then good for nothing but deinit. */
#include "store/history_state.h"

#include <inttypes.h>

static void entry_deinit(struct history_entry *e)
{
    if (e->dead)
        roaring_bitmap_free(e->dead);
    if (e->gone)
        roaring_bitmap_free(e->gone);
}

void history_state_deinit(struct history_state *s)
{
    for (size_t i = 0; i < s->n; i++)
        entry_deinit(&s->entries[i]);
    free(s->entries);
    schema_release(s->schema);
    *s = (struct history_state){0};
}

/* From the newest on: what changes is mostly young. */
static struct history_entry *find(const struct history_state *s, uint64_t id)
{
    for (size_t i = s->n; i-- > 0;) {
        if (s->entries[i].ref.id == id)
            return &s->entries[i];
    }
    return NULL;
}

static enum err add(struct history_state *s, const struct segment_ref *ref, struct err_ctx *ctx)
{
    if (find(s, ref->id))
        return err_set(ctx, ERR_CORRUPT, "segment %016" PRIx64 " comes twice", ref->id);
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        struct history_entry *grown = realloc(s->entries, cap * sizeof *grown);
        if (!grown)
            return err_no_memory(ctx, cap * sizeof *grown);
        s->entries = grown;
        s->cap = cap;
    }
    s->entries[s->n++] = (struct history_entry){.ref = *ref};
    return ERR_OK;
}

static enum err add_all(struct history_state *s, const struct buf *segments, struct err_ctx *ctx)
{
    const struct segment_ref *refs = (const struct segment_ref *)segments->data;
    for (size_t i = 0; i < segments->len / sizeof *refs; i++)
        RETURN_NOT_OK(add(s, &refs[i], ctx));
    return ERR_OK;
}

static enum err unite(roaring_bitmap_t **into, uint32_t rows, const struct dead_ref *d,
                      struct err_ctx *ctx)
{
    roaring_bitmap_t *r = roaring_bitmap_portable_deserialize_safe(d->mask, d->mask_len);
    if (!r)
        return err_set(ctx, ERR_CORRUPT, "a row mask is damaged");
    if (!roaring_bitmap_is_empty(r) && roaring_bitmap_maximum(r) >= rows) {
        roaring_bitmap_free(r);
        return err_set(ctx, ERR_CORRUPT, "a row mask names rows that do not exist");
    }
    if (*into) {
        roaring_bitmap_or_inplace(*into, r);
        roaring_bitmap_free(r);
    } else {
        *into = r;
    }
    return ERR_OK;
}

static enum err mask_all(struct history_state *s, const struct buf *dead, const struct buf *gone,
                         struct err_ctx *ctx)
{
    for (int which = 0; which < 2; which++) {
        const struct buf *list = which ? gone : dead;
        const struct dead_ref *d = (const struct dead_ref *)list->data;
        for (size_t i = 0; i < list->len / sizeof *d; i++) {
            struct history_entry *e = find(s, d[i].segment);
            if (!e)
                return err_set(ctx, ERR_CORRUPT,
                               "rows die in segment %016" PRIx64 ", which is not there",
                               d[i].segment);
            RETURN_NOT_OK(unite(which ? &e->gone : &e->dead, e->ref.rows, &d[i], ctx));
        }
    }
    return ERR_OK;
}

/* The texts borrow from a record that goes. */
static void keep_meta(struct history_state *s, const struct commit_meta *m)
{
    s->meta = *m;
    s->meta.message = s->meta.metadata = NULL;
    s->meta.load_id = s->meta.idem_key = NULL;
    s->meta.message_len = s->meta.metadata_len = s->meta.load_id_len = s->meta.idem_key_len = 0;
}

enum err history_state_init(struct history_state *s, const void *base, size_t n,
                            struct err_ctx *ctx)
{
    struct history_base b;
    *s = (struct history_state){0};
    RETURN_NOT_OK(history_base_decode(base, n, &b, ctx));
    s->schema = schema_acquire(b.schema);
    keep_meta(s, &b.meta);
    s->altered = b.altered;
    enum err e = add_all(s, &b.manifest.segments, ctx);
    if (e == ERR_OK)
        e = mask_all(s, &b.manifest.dead, &b.manifest.gone, ctx);
    history_base_deinit(&b);
    if (e != ERR_OK)
        history_state_deinit(s);
    return e;
}

enum err history_state_go_on(struct history_state *s, const void *base, size_t n,
                             struct err_ctx *ctx)
{
    struct history_state next;
    RETURN_NOT_OK(history_state_init(&next, base, n, ctx));
    uint64_t from = s->meta.version, to = next.meta.version;
    history_state_deinit(from == to ? s : &next);
    if (from != to)
        return err_set(ctx, ERR_CORRUPT,
                       "a history file ends at version %" PRIu64
                       ", the next one begins at %" PRIu64,
                       from, to);
    *s = next;
    return ERR_OK;
}

uint64_t history_state_live(const struct history_state *s)
{
    uint64_t live = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct history_entry *e = &s->entries[i];
        live += e->ref.rows - (e->dead ? roaring_bitmap_get_cardinality(e->dead) : 0);
    }
    return live;
}

/* ---- leaving ---- */

static bool empty(const struct history_state *s, const struct history_entry *e)
{
    const roaring_bitmap_t *left = s->schema->event_time >= 0 ? e->gone : e->dead;
    uint64_t gone = left ? roaring_bitmap_get_cardinality(left) : 0;
    return e->ref.id != s->tail_id && gone == e->ref.rows;
}

static void drop_empty(struct history_state *s)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (empty(s, &s->entries[i]))
            entry_deinit(&s->entries[i]);
        else
            s->entries[kept++] = s->entries[i];
    }
    s->n = kept;
}

/* Every entry leaves but the tail, which stays as `*tail` when it has rows. */
static void drop_all(struct history_state *s, struct history_entry *tail)
{
    *tail = (struct history_entry){0};
    for (size_t i = 0; i < s->n; i++) {
        if (s->entries[i].ref.id == s->tail_id)
            tail->ref = s->entries[i].ref;
        entry_deinit(&s->entries[i]);
    }
    s->n = 0;
}

static enum err kill_range(roaring_bitmap_t **mask, uint32_t from, uint32_t to, struct err_ctx *ctx)
{
    if (from >= to)
        return ERR_OK;
    if (!*mask && !(*mask = roaring_bitmap_create()))
        return err_no_memory(ctx, to / 8);
    roaring_bitmap_add_range(*mask, from, to);
    return ERR_OK;
}

/* The tail's entry comes back with all its rows, those from `from` on dead. */
static enum err keep_tail(struct history_state *s, const struct segment_ref *tail, uint32_t from,
                          struct err_ctx *ctx)
{
    if (!tail->rows)
        return ERR_OK;
    struct history_entry *e = find(s, tail->id);
    if (!e) {
        RETURN_NOT_OK(add(s, tail, ctx));
        e = find(s, tail->id);
        from = 0;
    }
    e->ref.rows = tail->rows;
    RETURN_NOT_OK(kill_range(&e->dead, from, tail->rows, ctx));
    return s->schema->event_time >= 0 ? kill_range(&e->gone, from, tail->rows, ctx) : ERR_OK;
}

static enum err replace(struct history_state *s, const struct commit_record *r, struct err_ctx *ctx)
{
    struct history_entry tail;
    drop_all(s, &tail);
    if (r->restores) {
        RETURN_NOT_OK(add_all(s, &r->target.segments, ctx));
        RETURN_NOT_OK(mask_all(s, &r->target.dead, &r->target.gone, ctx));
    }
    const struct history_entry *e = find(s, tail.ref.id);
    return keep_tail(s, &tail.ref, e ? e->ref.rows : 0, ctx);
}

/* ---- records ---- */

/* The tail's entry goes behind all others, as in a snapshot. */
static void tail_last(struct history_state *s)
{
    struct history_entry *e = find(s, s->tail_id);
    if (!e || e == &s->entries[s->n - 1])
        return;
    struct history_entry tail = *e;
    memmove(e, e + 1, (size_t)(s->entries + s->n - 1 - e) * sizeof *e);
    s->entries[s->n - 1] = tail;
}

static enum err grow_tail(struct history_state *s, uint32_t rows, struct err_ctx *ctx)
{
    if (!rows)
        return ERR_OK;
    if (!find(s, s->tail_id))
        RETURN_NOT_OK(add(s, &(struct segment_ref){.id = s->tail_id}, ctx));
    find(s, s->tail_id)->ref.rows += rows;
    return ERR_OK;
}

static enum err apply_commit(struct history_state *s, const struct commit_record *r,
                             struct err_ctx *ctx)
{
    if (r->meta.version != s->meta.version + 1)
        return err_set(ctx, ERR_CORRUPT, "history goes from version %" PRIu64 " to %" PRIu64,
                       s->meta.version, r->meta.version);
    s->tail_id = r->tail_id;
    if (r->replace_all || r->restores)
        RETURN_NOT_OK(replace(s, r, ctx));
    RETURN_NOT_OK(add_all(s, &r->segments, ctx));
    RETURN_NOT_OK(grow_tail(s, r->ninline, ctx));
    tail_last(s);
    RETURN_NOT_OK(mask_all(s, &r->dead, &r->gone, ctx));
    drop_empty(s);
    keep_meta(s, &r->meta);
    s->altered = false;
    return ERR_OK;
}

static enum err apply_compact(struct history_state *s, const struct compact_record *r,
                              struct err_ctx *ctx)
{
    const uint64_t *removed = (const uint64_t *)r->removed.data;
    for (size_t i = 0; i < r->removed.len / sizeof *removed; i++) {
        struct history_entry *e = find(s, removed[i]);
        if (!e) /* it was empty by the time of the swap */
            continue;
        entry_deinit(e);
        memmove(e, e + 1, (size_t)(s->entries + s->n - 1 - e) * sizeof *e);
        s->n--;
    }
    RETURN_NOT_OK(add_all(s, &r->added.segments, ctx));
    tail_last(s);
    RETURN_NOT_OK(mask_all(s, &r->added.dead, &r->added.gone, ctx));
    drop_empty(s);
    return ERR_OK;
}

static enum err apply_alter(struct history_state *s, const void *record, size_t n,
                            struct err_ctx *ctx)
{
    struct schema *schema;
    RETURN_NOT_OK(alter_record_decode(record, n, &schema, &s->tail_id, ctx));
    schema_release(s->schema);
    s->schema = schema;
    s->altered = true;
    return ERR_OK;
}

static enum err decode_and_commit(struct history_state *s, const void *record, size_t n,
                                  struct err_ctx *ctx)
{
    struct commit_record r;
    RETURN_NOT_OK(commit_record_decode(record, n, &r, ctx));
    enum err e = apply_commit(s, &r, ctx);
    commit_record_deinit(&r);
    return e;
}

static enum err decode_and_compact(struct history_state *s, const void *record, size_t n,
                                   struct err_ctx *ctx)
{
    struct compact_record r;
    RETURN_NOT_OK(compact_record_decode(record, n, &r, ctx));
    enum err e = apply_compact(s, &r, ctx);
    compact_record_deinit(&r);
    return e;
}

enum err history_state_apply(struct history_state *s, const void *record, size_t n,
                             struct err_ctx *ctx)
{
    switch (n ? *(const uint8_t *)record : 0) {
    case RECORD_COMMIT:
        return decode_and_commit(s, record, n, ctx);
    case RECORD_ALTER:
        return apply_alter(s, record, n, ctx);
    case RECORD_COMPACT:
        return decode_and_compact(s, record, n, ctx);
    case RECORD_TAG:
    case RECORD_VACUUM:
        return ERR_OK;
    default:
        return err_set(ctx, ERR_CORRUPT, "history holds a record of an unknown kind");
    }
}
