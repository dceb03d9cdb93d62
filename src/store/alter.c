/* Alterations: another schema for what is committed from here on.
 *
 *   log:   ... commit | commit | ALTER schema, tail 9 | commit (inline rows under that schema) ...
 *
 * Inline rows of a record are encoded under the schema of the last ALTER before it, and the commit
 * lock orders both, so replay decodes them under the right one. A tail has one layout: when
 * features come, the active tail is closed as in a rotation and becomes a file soon; its rows read
 * as null in what came later. Open loads keep the schema they began with, whose features are the
 * first of the new one; commit.c fills in the rest.
 *
 * All that can fail is done before the record is queued; a failed sync makes the collection
 * read-only, since which of the two schemas reached the disk is unknown. After a crash it is one or
 * the other. */
#include "store/collection_internal.h"

struct alteration {
    struct segment *tail;   /* NULL: the active one stays */
    struct row_builder row; /* replaces apply_row */
    struct snapshot *next;
};

static void alteration_deinit(struct alteration *a)
{
    segment_release(a->tail);
    row_builder_deinit(&a->row);
    snapshot_release(a->next);
}

/* With the commit lock: all that the change needs; nobody sees any of it yet. */
static enum err prepare(struct collection *c, struct schema *schema, uint64_t tail_id,
                        struct alteration *a, struct err_ctx *ctx)
{
    memset(a, 0, sizeof *a);
    enum err e = ERR_OK;
    if (!c->tail || c->tail->id != tail_id) {
        e = registry_reserve(c, 1, ctx);
        if (e == ERR_OK)
            e = tail_new(tail_id, schema, &a->tail, ctx);
    }
    if (e == ERR_OK)
        e = row_builder_init(&a->row, schema, ctx);
    if (e == ERR_OK && !(a->next = snapshot_replace(c->head, NULL, NULL)))
        e = err_no_memory(ctx, sizeof *a->next);
    if (e != ERR_OK) {
        alteration_deinit(a);
        return e;
    }
    schema_release(a->next->schema);
    a->next->schema = schema_acquire(schema);
    a->next->serial++;
    a->next->altered = true;
    return ERR_OK;
}

/* With the commit lock; cannot fail. What was there before is left in `a`. */
static void apply(struct collection *c, struct alteration *a)
{
    if (a->tail)
        collection_set_tail(c, a->tail);
    struct row_builder row = c->apply_row;
    c->apply_row = a->row;
    a->row = row;
    snapshot_release(c->head);
    c->head = snapshot_acquire(a->next);
}

static enum err queue_record(struct collection *c, const struct schema *schema, uint64_t tail_id,
                             uint64_t *ticket, struct err_ctx *ctx)
{
    struct buf record = {0};
    alter_record_encode(schema, tail_id, &record);
    enum err e = record.failed ? err_no_memory(ctx, record.len)
                               : collection_log(c, record.data, record.len, ticket, ctx);
    buf_deinit(&record);
    return e;
}

static enum err check_base(const struct collection *c, const struct schema *next,
                           struct err_ctx *ctx)
{
    const struct schema *head = c->head->schema;
    if (next->revision == head->revision + 1 && schema_extends(next, head))
        return ERR_OK;
    return err_set(
        ctx, ERR_CONFLICT,
        "the schema of collection '%s' was changed by another request meanwhile; look at "
        "it and try again",
        c->name);
}

/* With the commit lock: everything up to the queued record. */
static enum err alter_locked(struct collection *c, struct schema *next, struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    bool grows = next->nfeatures > c->head->schema->nfeatures;
    if (grows)
        RETURN_NOT_OK(collection_wait_to_close_tail(c, ctx));
    RETURN_NOT_OK(check_base(c, next, ctx));
    if (schema_equal(next, c->head->schema))
        return ERR_OK;
    struct alteration a;
    uint64_t tail_id = grows ? atomic_fetch_add(&c->next_segment_id, 1) : c->tail->id;
    RETURN_NOT_OK(prepare(c, next, tail_id, &a, ctx));
    enum err e = queue_record(c, next, tail_id, &c->last_ticket, ctx);
    if (e == ERR_OK)
        apply(c, &a);
    alteration_deinit(&a);
    return e;
}

void collection_alter_begin(struct collection *c)
{
    pthread_mutex_lock(&c->alter_lock);
}

void collection_alter_end(struct collection *c)
{
    pthread_mutex_unlock(&c->alter_lock);
}

enum err collection_alter(struct collection *c, struct schema *next, struct err_ctx *ctx)
{
    pthread_mutex_lock(&c->commit_lock);
    enum err e = alter_locked(c, next, ctx);
    uint64_t ticket = c->last_ticket;
    struct snapshot *head = snapshot_acquire(c->head);
    pthread_mutex_unlock(&c->commit_lock);
    if (e == ERR_OK) {
        struct err_ctx why;
        err_clear(&why);
        e = wal_wait(c->wal, ticket, &why);
        pthread_mutex_lock(&c->commit_lock);
        if (e == ERR_OK)
            collection_publish(c, head);
        else
            collection_set_read_only(c, why.detail);
        pthread_mutex_unlock(&c->commit_lock);
        if (e != ERR_OK)
            e = err_set(ctx, e, "%s", why.detail);
    }
    snapshot_release(head);
    return e;
}

enum err replay_alter(struct collection *c, const void *record, size_t n, struct err_ctx *ctx)
{
    struct schema *schema;
    struct alteration a;
    uint64_t tail_id;
    RETURN_NOT_OK(alter_record_decode(record, n, &schema, &tail_id, ctx));
    bool grows = schema->nfeatures > c->head->schema->nfeatures;
    enum err e = ERR_OK;
    bool same_tail = c->tail && c->tail->id == tail_id;
    if (!schema_extends(schema, c->head->schema) || (grows && same_tail))
        e = err_set(ctx, ERR_CORRUPT, "the log changes the schema to one that does not follow");
    else if (!same_tail)
        e = collection_check_unknown(c, tail_id, ctx);
    if (e == ERR_OK)
        e = prepare(c, schema, tail_id, &a, ctx);
    if (e == ERR_OK) {
        apply(c, &a);
        alteration_deinit(&a);
        collection_note_segment_id(c, tail_id);
    }
    schema_release(schema);
    return e;
}
