/* Commits: from gathered rows to a new version.
 *
 *   resolve   find the live row of every key, decide inserted / updated, complete absent cells,
 *             list the rows that die                                      (against head)
 *   record    encode all of it; plan: build the next snapshot from the record
 *   queue     wal_append; only now plan_apply: nothing after this point can fail but the disk
 *   wait      for the group's sync, outside the lock; then publish
 *
 * Replay goes through plan and apply too, so a restart rebuilds the same row numbers. The commit
 * lock is held from resolve to apply. A failure before the record is queued leaves no trace; a
 * failed sync makes the collection read-only, since what reached the disk is unknown. */
#include "store/collection_internal.h"

#include <inttypes.h>
#include <roaring/roaring.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/metrics.h"

METRIC_HISTOGRAM(commit_time, "loadstone_commit_duration_seconds",
                 "Time of a commit: resolving keys, writing the log, publishing.")
METRIC_COUNTER(rows_loaded, "loadstone_rows_loaded_total", "Rows in committed loads.")
METRIC_COUNTER(rows_deleted, "loadstone_rows_deleted_total", "Rows that deletions removed.")

/* ---- resolving ---- */

struct resolve {
    struct collection *c;
    const struct commit_input *in;
    const struct snapshot *base; /* head */
    roaring_bitmap_t **dead;     /* per base view, then per staged segment */
    struct row_builder row, old;
    struct buf inline_rows;
    struct commit_record rec;
    bool out_of_memory;
};

static roaring_bitmap_t *dead_of(struct resolve *rv, size_t slot)
{
    if (!rv->dead[slot] && !(rv->dead[slot] = roaring_bitmap_create()))
        rv->out_of_memory = true;
    return rv->dead[slot];
}

/* A live row of the base dies; false when it had died already in this commit. */
static bool kill_base_row(struct resolve *rv, struct row_ref ref)
{
    roaring_bitmap_t *dead = dead_of(rv, ref.view);
    if (!dead || !roaring_bitmap_add_checked(dead, ref.row))
        return false;
    const struct segment *s = rv->base->views[ref.view].segment;
    row_from_segment(&rv->old, s, ref.row);
    digest_sub(&rv->rec.meta.digest, row_digest(&rv->old.row));
    rv->rec.meta.live_rows--;
    rv->rec.meta.live_vectors -= rv->old.row.vector != NULL;
    return true;
}

static bool find_key(const struct snapshot *s, const struct row *key, struct row_ref *out)
{
    return s->schema->key == KEY_INT64 ? snapshot_find_int(s, key->int_key, out)
                                       : snapshot_find_str(s, key->key, key->key_len, out);
}

static enum err key_exists(const struct schema *s, const struct row *key, uint64_t body_row,
                           struct err_ctx *ctx)
{
    if (s->key == KEY_INT64)
        return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)body_row, "key",
                          "key %" PRId64 " exists already; append takes new keys only (use "
                          "mode=upsert to replace rows)",
                          key->int_key);
    return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)body_row, "key",
                      "key '%.*s' exists already; append takes new keys only (use mode=upsert to "
                      "replace rows)",
                      (int)(key->key_len < 200 ? key->key_len : 200), (const char *)key->key);
}

/* Notes an inline row that was built in rv->row. */
static void put_inline(struct resolve *rv, uint64_t ordinal)
{
    const struct row *r = &rv->row.row;
    struct commit_record *rec = &rv->rec;
    const struct inline_run *last =
        rec->runs.len ? (struct inline_run *)(rec->runs.data + rec->runs.len) - 1 : NULL;
    if (!last || last->ordinal + (rec->ninline - last->index) != ordinal) {
        struct inline_run run = {.index = rec->ninline, .ordinal = ordinal};
        buf_put(&rec->runs, &run, sizeof run);
    }
    row_encode(r, &rv->inline_rows);
    rec->ninline++;
    rec->inline_payload += r->key_len;
    for (uint32_t i = 0; i < r->schema->nvar; i++)
        rec->inline_payload += r->var[i].len;
    digest_add(&rec->meta.digest, row_digest(r));
    rec->meta.live_rows++;
    rec->meta.live_vectors += r->vector != NULL;
}

static enum err resolve_row(struct resolve *rv, const struct batch *b, size_t i,
                            struct err_ctx *ctx)
{
    struct row key = {.schema = b->schema};
    struct row_ref ref;
    batch_row_key(b, i, &key);
    bool found = find_key(rv->base, &key, &ref);
    if (found && rv->in->opts.mode == LOAD_APPEND)
        return key_exists(b->schema, &key, i, ctx);
    bool partial;
    row_from_batch(&rv->row, b, i, found ? rv->base->views[ref.view].segment : NULL,
                   found ? ref.row : 0, &partial);
    if (found)
        kill_base_row(rv, ref);
    *(found ? &rv->rec.meta.updated : &rv->rec.meta.inserted) += 1;
    put_inline(rv, i);
    return ERR_OK;
}

static enum err resolve_rows(struct resolve *rv, struct err_ctx *ctx)
{
    const struct batch *b = rv->in->rows;
    for (size_t i = 0; b && i < b->rows; i++) {
        if (rv->in->skip && rv->in->skip[i / 32] >> (i % 32) & 1)
            continue;
        RETURN_NOT_OK(resolve_row(rv, b, i, ctx));
    }
    return ERR_OK;
}

static void resolve_deletes(struct resolve *rv)
{
    const struct batch *b = rv->in->delete_keys;
    struct row key = {.schema = rv->base->schema};
    for (size_t i = 0; b && i < b->rows; i++) {
        struct row_ref ref;
        batch_row_key(b, i, &key);
        if (find_key(rv->base, &key, &ref))
            rv->rec.meta.deleted += kill_base_row(rv, ref);
    }
}

/* ---- resolving staged segments ---- */

/* False when no view can hold a key of the segment: a run of new keys needs no look at each. */
static bool may_overlap(const struct snapshot *s, const struct segment *seg)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct segment *other = s->views[i].segment;
        if (s->views[i].live == 0)
            continue;
        if (s->schema->key == KEY_STRING || other->tail ||
            (other->key_min <= seg->key_max && seg->key_min <= other->key_max))
            return true;
    }
    return false;
}

/* A staged row lacks cells of the row that is live now: build it anew from that, put it into the
 * tail and let the staged one be dead from birth. `present` are the cells that the body gave; NULL
 * = all that the load's schema knows. */
static enum err refresh_row(struct resolve *rv, size_t index, uint32_t row, const uint8_t *present,
                            bool found, struct row_ref ref, struct err_ctx *ctx)
{
    const struct staged *st = &rv->in->staged[index];
    uint32_t known = rv->in->schema->nfeatures;
    if (rv->rec.ninline >= INLINE_ROWS_MAX || rv->inline_rows.len >= INLINE_BYTES_MAX)
        return err_set(ctx, ERR_CONFLICT,
                       "too many rows were changed by other commits while this load ran, in fields "
                       "that it does not give; send it again");
    row_from_segment(&rv->row, st->segment, row);
    digest_sub(&rv->rec.meta.digest, row_digest(&rv->row.row));
    rv->rec.meta.live_rows--;
    rv->rec.meta.live_vectors -= rv->row.row.vector != NULL;
    const struct segment *src = found ? rv->base->views[ref.view].segment : NULL;
    row_builder_refill(&rv->row, present, known, src, found ? ref.row : 0);
    if (present && !(present[known >> 3] >> (known & 7) & 1))
        rv->row.row.vector = src ? segment_vector(src, ref.row) : NULL;
    roaring_bitmap_t *dead = dead_of(rv, rv->base->nviews + index);
    if (dead)
        roaring_bitmap_add(dead, row);
    put_inline(rv, st->first_ordinal + row);
    return ERR_OK;
}

struct staged_walk {
    size_t index;
    const struct staged *st;
    const struct partial *partials;
    size_t npartials, next_partial;
    const uint32_t *losers;
    size_t nlosers, next_loser;
};

/* The note of a row that was completed from an older one, or NULL. */
static const struct partial *partial_of(struct staged_walk *w, uint32_t row)
{
    while (w->next_partial < w->npartials && w->partials[w->next_partial].row < row)
        w->next_partial++;
    if (w->next_partial == w->npartials || w->partials[w->next_partial].row != row)
        return NULL;
    return &w->partials[w->next_partial];
}

/* True when a live row has cells of features that came after the load's schema. */
static bool has_later_cells(const struct resolve *rv, struct row_ref ref)
{
    size_t len;
    for (uint32_t f = rv->in->schema->nfeatures; f < rv->base->schema->nfeatures; f++) {
        if (segment_cell(rv->base->views[ref.view].segment, ref.row, f, &len))
            return true;
    }
    return false;
}

static enum err check_complete(struct resolve *rv, struct staged_walk *w, uint32_t row, bool found,
                               struct row_ref ref, struct err_ctx *ctx)
{
    const struct partial *p = partial_of(w, row);
    uint64_t id = found ? rv->base->views[ref.view].segment->id : 0;
    bool stale = p && (p->src_id != id || (found && p->src_row != ref.row));
    if (!stale && !(found && has_later_cells(rv, ref)))
        return ERR_OK;
    const uint8_t *present =
        p ? w->st->present.data + w->next_partial * present_bytes(rv->in->schema) : NULL;
    return refresh_row(rv, w->index, row, present, found, ref, ctx);
}

static enum err resolve_staged_row(struct resolve *rv, struct staged_walk *w, uint32_t row,
                                   struct err_ctx *ctx)
{
    if (w->next_loser < w->nlosers && w->losers[w->next_loser] == row) {
        w->next_loser++;
        return ERR_OK;
    }
    struct row key = {.schema = rv->in->schema};
    struct row_ref ref = {0, 0};
    segment_row_key(w->st->segment, row, &key);
    bool found = find_key(rv->base, &key, &ref);
    if (found && rv->in->opts.mode == LOAD_APPEND)
        return key_exists(rv->in->schema, &key, w->st->first_ordinal + row, ctx);
    RETURN_NOT_OK(check_complete(rv, w, row, found, ref, ctx));
    if (found)
        kill_base_row(rv, ref);
    *(found ? &rv->rec.meta.updated : &rv->rec.meta.inserted) += 1;
    return ERR_OK;
}

static enum err resolve_staged(struct resolve *rv, size_t index, struct err_ctx *ctx)
{
    const struct staged *st = &rv->in->staged[index];
    struct staged_walk w = {
        .index = index,
        .st = st,
        .partials = (const struct partial *)st->partials.data,
        .npartials = st->partials.len / sizeof(struct partial),
        .losers = (const uint32_t *)st->losers.data,
        .nlosers = st->losers.len / sizeof(uint32_t),
    };
    for (size_t i = 0; i < w.nlosers; i++) {
        roaring_bitmap_t *dead = dead_of(rv, rv->base->nviews + index);
        if (dead)
            roaring_bitmap_add(dead, w.losers[i]);
    }
    if (w.npartials == 0 && !may_overlap(rv->base, st->segment)) {
        rv->rec.meta.inserted += st->rows - w.nlosers;
        return ERR_OK;
    }
    for (uint32_t row = 0; row < st->rows; row++)
        RETURN_NOT_OK(resolve_staged_row(rv, &w, row, ctx));
    return ERR_OK;
}

static enum err resolve_all_staged(struct resolve *rv, struct err_ctx *ctx)
{
    struct commit_meta *m = &rv->rec.meta;
    digest_add(&m->digest, rv->in->staged_digest);
    m->live_vectors += rv->in->staged_vectors;
    for (size_t i = 0; i < rv->in->nstaged; i++) {
        const struct staged *st = &rv->in->staged[i];
        struct segment_ref ref = {.id = st->id, .base_version = m->version, .rows = st->rows};
        buf_put(&rv->rec.segments, &ref, sizeof ref);
        m->live_rows += st->rows - st->losers.len / sizeof(uint32_t);
        RETURN_NOT_OK(resolve_staged(rv, i, ctx));
    }
    return ERR_OK;
}

/* ---- the record ---- */

static enum err resolve_init(struct resolve *rv, struct collection *c,
                             const struct commit_input *in, struct err_ctx *ctx)
{
    memset(rv, 0, sizeof *rv);
    rv->c = c;
    rv->in = in;
    rv->base = c->head;
    struct commit_meta *m = &rv->rec.meta;
    int64_t now = clock_wall_us();
    m->version = c->head->version + 1;
    m->time_us = now > c->head->time_us ? now : c->head->time_us + 1;
    m->mode = (uint32_t)in->opts.mode;
    m->rows = in->rows_received;
    m->live_rows = c->head->rows;
    m->live_vectors = c->head->vectors;
    m->digest = c->head->digest;
    m->message = in->opts.message;
    m->message_len = in->opts.message ? strlen(in->opts.message) : 0;
    rv->rec.tail_id = c->tail->id;
    rv->dead = calloc(c->head->nviews + in->nstaged + 1, sizeof(roaring_bitmap_t *));
    if (!rv->dead)
        return err_no_memory(ctx, c->head->nviews * sizeof *rv->dead);
    RETURN_NOT_OK(row_builder_init(&rv->row, c->head->schema, ctx));
    return row_builder_init(&rv->old, c->head->schema, ctx);
}

static void resolve_deinit(struct resolve *rv)
{
    for (size_t i = 0; rv->dead && i < rv->base->nviews + rv->in->nstaged; i++) {
        if (rv->dead[i])
            roaring_bitmap_free(rv->dead[i]);
    }
    free(rv->dead);
    row_builder_deinit(&rv->row);
    row_builder_deinit(&rv->old);
    buf_deinit(&rv->inline_rows);
    commit_record_deinit(&rv->rec);
}

/* Serialises the dead rows into `blobs`; the record refers into it. */
static enum err put_dead_refs(struct resolve *rv, struct buf *blobs, struct err_ctx *ctx)
{
    size_t n = rv->base->nviews + rv->in->nstaged;
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += rv->dead[i] ? roaring_bitmap_portable_size_in_bytes(rv->dead[i]) : 0;
    if (!buf_reserve(blobs, total))
        return err_no_memory(ctx, total);
    for (size_t i = 0; i < n; i++) {
        if (!rv->dead[i] || roaring_bitmap_is_empty(rv->dead[i]))
            continue;
        size_t len = roaring_bitmap_portable_size_in_bytes(rv->dead[i]);
        void *at = buf_extend(blobs, len);
        roaring_bitmap_portable_serialize(rv->dead[i], at);
        struct dead_ref d = {.mask = at, .mask_len = len};
        d.segment = i < rv->base->nviews ? rv->base->views[i].segment->id
                                         : rv->in->staged[i - rv->base->nviews].id;
        buf_put(&rv->rec.dead, &d, sizeof d);
    }
    return ERR_OK;
}

static enum err encode_record(struct resolve *rv, struct buf *out, struct err_ctx *ctx)
{
    struct buf blobs = {0};
    enum err e = put_dead_refs(rv, &blobs, ctx);
    struct commit_record *r = &rv->rec;
    r->inline_rows = rv->inline_rows.data;
    r->inline_len = rv->inline_rows.len;
    if (e == ERR_OK) {
        commit_record_encode(r, out);
        if (out->failed || rv->out_of_memory || rv->inline_rows.failed || r->runs.failed ||
            r->segments.failed || r->dead.failed)
            e = err_no_memory(ctx, rv->inline_rows.len);
    }
    buf_deinit(&blobs);
    return e;
}

static enum err resolve_to_record(struct collection *c, const struct commit_input *in,
                                  struct buf *record, struct commit_meta *meta, struct err_ctx *ctx)
{
    struct resolve rv;
    enum err e = resolve_init(&rv, c, in, ctx);
    if (e == ERR_OK)
        e = resolve_rows(&rv, ctx);
    if (e == ERR_OK)
        e = resolve_all_staged(&rv, ctx);
    if (e == ERR_OK) {
        resolve_deletes(&rv);
        e = encode_record(&rv, record, ctx);
    }
    *meta = rv.rec.meta;
    resolve_deinit(&rv);
    return e;
}

/* ---- committing ---- */

static enum err check_preconditions(struct collection *c, const struct commit_input *in,
                                    struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    if (in->opts.expected_version >= 0 && (uint64_t)in->opts.expected_version != c->head->version)
        return err_set(ctx, ERR_PRECONDITION,
                       "expected_version is %" PRId64 ", but the newest version is %" PRIu64,
                       in->opts.expected_version, c->head->version);
    return collection_wait_for_room(c, ctx);
}

/* With the commit lock: everything up to the queued record. *next is referenced. */
static enum err commit_locked(struct collection *c, const struct commit_input *in,
                              struct commit_meta *meta, struct snapshot **next, uint64_t *ticket,
                              struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_preconditions(c, in, ctx));
    struct buf record = {0};
    struct segment **added = calloc(in->nstaged + 1, sizeof *added);
    enum err e = added ? resolve_to_record(c, in, &record, meta, ctx)
                       : err_no_memory(ctx, in->nstaged * sizeof *added);
    for (size_t i = 0; e == ERR_OK && i < in->nstaged; i++) {
        added[i] = in->staged[i].segment;
        added[i]->base_version = meta->version;
    }
    struct plan plan;
    if (e == ERR_OK) /* what was read of older rows was really read */
        e = mapping_check(c->dir, ctx);
    if (e == ERR_OK)
        e = plan_commit(c, record.data, record.len, added, &plan, ctx);
    if (e == ERR_OK) {
        e = collection_log(c, record.data, record.len, ticket, ctx);
        if (e == ERR_OK) {
            plan_apply(c, &plan);
            *next = snapshot_acquire(plan.next);
        }
        plan_deinit(&plan);
    }
    free(added);
    buf_deinit(&record);
    return e;
}

static void announce_staged(struct collection *c, const struct commit_input *in)
{
    for (size_t i = 0; c->hooks && c->hooks->segment_added && i < in->nstaged; i++)
        c->hooks->segment_added(c->hooks->arg, c, in->staged[i].segment);
}

static void count_commit(const struct commit_meta *m, uint64_t since_us)
{
    metric_observe_us(&commit_time, 0, clock_mono_us() - since_us);
    metric_add(&rows_deleted, 0, m->deleted);
    if (m->mode != LOAD_DELETE)
        metric_add(&rows_loaded, 0, m->rows);
}

enum err collection_commit(struct collection *c, const struct commit_input *in,
                           struct commit_result *out, struct err_ctx *ctx)
{
    uint64_t since_us = clock_mono_us();
    struct commit_meta meta = {0};
    struct snapshot *next = NULL;
    uint64_t ticket = 0;
    pthread_mutex_lock(&c->commit_lock);
    enum err e = commit_locked(c, in, &meta, &next, &ticket, ctx);
    pthread_mutex_unlock(&c->commit_lock);
    RETURN_NOT_OK(e);

    struct err_ctx why;
    err_clear(&why);
    e = wal_wait(c->wal, ticket, &why);
    pthread_mutex_lock(&c->commit_lock);
    if (e == ERR_OK)
        collection_publish(c, next);
    else
        collection_set_read_only(c, why.detail);
    pthread_mutex_unlock(&c->commit_lock);
    snapshot_release(next);
    if (e != ERR_OK)
        return err_set(ctx, e, "%s", why.detail);
    count_commit(&meta, since_us);
    announce_staged(c, in);
    *out = (struct commit_result){
        .version = meta.version,
        .time_us = meta.time_us,
        .rows = meta.rows,
        .inserted = meta.inserted,
        .updated = meta.updated,
        .deleted = meta.deleted,
    };
    return ERR_OK;
}
