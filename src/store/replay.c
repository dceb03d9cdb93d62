/* The log again: each record applied to head as when it was first logged.
 *
 * The same plans are made and applied as by the live path, so that a restart rebuilds the same
 * views, row numbers and masks. Every record is an item of history, too.
 *
 * Threads: one, at open. Failure: ERR_CORRUPT for a record that contradicts what came before it;
 * the collection is then given up as a whole. */
#include <inttypes.h>

#include "store/collection_internal.h"

struct snapshot *snapshot_empty(struct schema *schema, uint64_t version)
{
    struct snapshot *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(schema);
    s->version = version;
    s->serial = 1;
    return s;
}

enum err collection_init_apply(struct collection *c, struct err_ctx *ctx)
{
    RETURN_NOT_OK(row_builder_init(&c->apply_row, c->head->schema, ctx));
    c->apply_vector = malloc((c->head->schema->dim + 1) * sizeof(float));
    return c->apply_vector ? ERR_OK : err_no_memory(ctx, c->head->schema->dim * sizeof(float));
}

static enum err replay_create(struct collection *c, const void *record, size_t n,
                              struct err_ctx *ctx)
{
    struct schema *schema;
    uint64_t base;
    RETURN_NOT_OK(create_record_decode(record, n, &schema, &base, ctx));
    c->head = snapshot_empty(schema, base);
    schema_release(schema);
    if (!c->head)
        return err_no_memory(ctx, sizeof *c->head);
    c->history.base_version = base;
    c->history.horizon = base;
    RETURN_NOT_OK(history_base_of(c->head, 0, &c->history.base, ctx));
    return collection_init_apply(c, ctx);
}

enum err collection_switch_tail(struct collection *c, uint64_t id, struct err_ctx *ctx)
{
    struct segment *tail;
    RETURN_NOT_OK(collection_check_unknown(c, id, ctx));
    RETURN_NOT_OK(registry_reserve(c, 1, ctx));
    RETURN_NOT_OK(tail_new(id, c->head->schema, &tail, ctx));
    collection_set_tail(c, tail);
    segment_release(tail);
    collection_note_segment_id(c, id);
    return ERR_OK;
}

/* ---- records that add segments ---- */

static void release_segments(struct segment **list, size_t n)
{
    while (n-- > 0)
        segment_release(list[n]);
    free(list);
}

static enum err open_added(struct collection *c, const struct buf *refs, struct segment ***out,
                           struct err_ctx *ctx)
{
    const struct segment_ref *r = (const struct segment_ref *)refs->data;
    size_t n = refs->len / sizeof *r, nopen = 0;
    struct segment **list = calloc(n + 1, sizeof *list);
    enum err e = list ? ERR_OK : err_no_memory(ctx, n * sizeof *list);
    for (; e == ERR_OK && nopen < n; nopen++) {
        e = collection_check_unknown(c, r[nopen].id, ctx);
        for (size_t i = 0; e == ERR_OK && i < nopen; i++) {
            if (r[i].id == r[nopen].id)
                e = err_set(ctx, ERR_CORRUPT, "segment %016" PRIx64 " comes twice", r[i].id);
        }
        if (e == ERR_OK)
            e = segment_open_ref(c, &r[nopen], &list[nopen], ctx);
        if (e != ERR_OK)
            break;
        collection_note_segment_id(c, r[nopen].id);
    }
    for (size_t i = 0; e == ERR_OK && i < n; i++) {
        if (!schema_extends(c->head->schema, list[i]->schema))
            e = err_set(ctx, ERR_CORRUPT, "%s: the file is not of the collection's schema",
                        list[i]->path);
    }
    if (e != ERR_OK) {
        release_segments(list, nopen);
        return e;
    }
    *out = list;
    return ERR_OK;
}

static enum err apply_plan(struct collection *c, enum err planned, struct plan *p)
{
    if (planned != ERR_OK)
        return planned;
    plan_apply(c, p);
    plan_deinit(p);
    return ERR_OK;
}

static enum err replay_commit(struct collection *c, const void *record, size_t n,
                              struct err_ctx *ctx)
{
    struct commit_record rec;
    struct segment **added = NULL;
    struct plan plan;
    RETURN_NOT_OK(commit_record_decode(record, n, &rec, ctx));
    size_t nadded = rec.segments.len / sizeof(struct segment_ref);
    enum err e = plan_check_rows(c, &rec, ctx);
    if (e == ERR_OK && (!c->tail || c->tail->id != rec.tail_id))
        e = collection_switch_tail(c, rec.tail_id, ctx);
    if (e == ERR_OK)
        e = open_added(c, &rec.segments, &added, ctx);
    if (e == ERR_OK) {
        e = apply_plan(c, plan_commit(c, record, n, added, &plan, ctx), &plan);
        release_segments(added, nadded);
    }
    commit_record_deinit(&rec);
    return e;
}

/* What a compaction merged were files: a tail among them had been closed and sealed, of which the
 * log tells nothing before the next commit with rows. */
static void close_merged_tail(struct collection *c, const struct compact_record *r)
{
    const uint64_t *removed = (const uint64_t *)r->removed.data;
    for (size_t i = 0; c->tail && i < r->removed.len / sizeof *removed; i++) {
        if (removed[i] == c->tail->id) { /* the registry keeps it as a closed one */
            segment_release(c->tail);
            c->tail = NULL;
        }
    }
}

static enum err replay_compact(struct collection *c, const void *record, size_t n,
                               struct err_ctx *ctx)
{
    struct compact_record rec;
    struct segment **added;
    struct plan plan;
    RETURN_NOT_OK(compact_record_decode(record, n, &rec, ctx));
    size_t nadded = rec.added.segments.len / sizeof(struct segment_ref);
    enum err e = open_added(c, &rec.added.segments, &added, ctx);
    if (e == ERR_OK) {
        close_merged_tail(c, &rec);
        e = apply_plan(c, plan_compact(c, record, n, added, &plan, ctx), &plan);
        release_segments(added, nadded);
    }
    compact_record_deinit(&rec);
    return e;
}

/* ---- the others ---- */

static enum err replay_tag(struct collection *c, const void *record, size_t n, struct err_ctx *ctx)
{
    struct tag_record r;
    struct tags *next;
    RETURN_NOT_OK(tag_record_decode(record, n, &r, ctx));
    if (tags_change(c->tags_head, &r, &next, ctx) != ERR_OK)
        return err_set(ctx, ERR_CORRUPT, "the log changes a tag that it did not set");
    free(c->tags_head);
    c->tags = c->tags_head = next;
    return ERR_OK;
}

static enum err replay_vacuum(struct collection *c, const void *record, size_t n,
                              struct err_ctx *ctx)
{
    struct vacuum_record r;
    RETURN_NOT_OK(vacuum_record_decode(record, n, &r, ctx));
    enum err e = r.horizon > c->head->version
                     ? err_set(ctx, ERR_CORRUPT, "a vacuum lets go of the newest version")
                     : vacuum_apply(c, &r, ctx);
    if (e == ERR_OK) { /* the log still leads to their files, until a checkpoint stands behind it */
        buf_put(&c->history.in_log, r.removed.data, r.removed.len);
        c->checkpoint_due = true;
        if (c->history.in_log.failed)
            e = err_no_memory(ctx, r.removed.len);
    }
    vacuum_record_deinit(&r);
    return e;
}

static enum err replay_by_type(struct collection *c, const void *record, size_t n,
                               struct err_ctx *ctx)
{
    switch (n ? *(const uint8_t *)record : 0) {
    case RECORD_ALTER:
        return replay_alter(c, record, n, ctx);
    case RECORD_COMPACT:
        return replay_compact(c, record, n, ctx);
    case RECORD_TAG:
        return replay_tag(c, record, n, ctx);
    case RECORD_VACUUM:
        return replay_vacuum(c, record, n, ctx);
    default:
        return replay_commit(c, record, n, ctx);
    }
}

enum err replay_record(void *arg, const void *record, size_t n, struct err_ctx *ctx)
{
    struct collection *c = arg;
    struct piece *item;
    if (!c->head)
        return replay_create(c, record, n, ctx);
    RETURN_NOT_OK(replay_by_type(c, record, n, ctx));
    RETURN_NOT_OK(history_prepare(c, record, n, &item, ctx));
    history_add(c, item);
    return ERR_OK;
}
