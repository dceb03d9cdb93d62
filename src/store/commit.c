/* Commits: from gathered rows to a version.
 *
 *   no lock   sort out     rows of the load among themselves; merge small files      (incoming,
 * place) prepare      every key against a snapshot: what dies, what is counted  (resolve) complete
 * rows whose absent cells another commit changed: new files (complete) index        when the commit
 * waits for it; then the files are renamed  (place) lock      rebase       keys that commits since
 * that snapshot touched             (rebase) record       encode all of it; plan the next snapshot
 * from the record  (inline, plan) queue        log; only now plan_apply: nothing after this point
 * can fail but the disk no lock   wait         for the group's sync; then publish
 *
 * Far behind the head, a load is rebased outside the lock first, so that the lock is held for a few
 * thousand keys at most. A small load is prepared under the lock, where nothing can change.
 *
 * Replay goes through plan and apply too, so a restart rebuilds the same row numbers. A failure
 * before the record is queued leaves no trace; a failed sync makes the collection read-only, since
 * what reached the disk is unknown. */
#include "store/collection_internal.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/metrics.h"
#include "store/place.h"
#include "store/resolve.h"

METRIC_HISTOGRAM(commit_time, "loadstone_commit_duration_seconds",
                 "Time of a commit: resolving keys, writing the log, publishing.")
METRIC_COUNTER(rows_loaded, "loadstone_rows_loaded_total", "Rows in committed loads.")
METRIC_COUNTER(rows_deleted, "loadstone_rows_deleted_total", "Rows that deletions removed.")

enum {
    LOCKED_CHANGES_MAX = 4096, /* rows; more are rebased outside the lock */
    LOCKED_KEYS_MAX = 4096,    /* deletions by key; more are prepared outside */
    ROUNDS_MAX = 32,
};

/* ---- from record to version ---- */

static enum err differs(const struct load_options *o, uint64_t newest, struct err_ctx *ctx)
{
    if (o->expected_version < 0 || (uint64_t)o->expected_version == newest)
        return ERR_OK;
    return err_set(ctx, ERR_PRECONDITION,
                   "expected_version is %" PRId64 ", but the newest version is %" PRIu64,
                   o->expected_version, newest);
}

enum err commit_check_expected(struct collection *c, const struct load_options *o,
                               struct err_ctx *ctx)
{
    epoch_enter();
    uint64_t newest = collection_snapshot(c)->version;
    epoch_leave();
    return differs(o, newest, ctx);
}

enum err commit_preconditions(struct collection *c, const struct load_options *o,
                              struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    RETURN_NOT_OK(differs(o, c->head->version, ctx));
    RETURN_NOT_OK(collection_wait_for_room(c, ctx));
    RETURN_NOT_OK(collection_check_writable(c, ctx)); /* waiting let others in */
    return differs(o, c->head->version, ctx);
}

void commit_stamp(const struct collection *c, struct commit_meta *m, enum load_mode mode,
                  uint64_t rows)
{
    int64_t now = clock_wall_us();
    m->version = c->head->version + 1;
    m->time_us = now > c->head->time_us ? now : c->head->time_us + 1;
    m->mode = (uint32_t)mode;
    m->rows = rows;
}

void commit_describe(struct commit_meta *m, const struct load_options *o)
{
    const struct load_receipt *r = o->receipt;
    m->message = o->message;
    m->message_len = o->message ? strlen(o->message) : 0;
    m->metadata = o->metadata;
    m->metadata_len = o->metadata ? strlen(o->metadata) : 0;
    if (!r)
        return;
    m->idem_key = r->key;
    m->idem_key_len = r->key_len;
    memcpy(m->idem_hash, r->hash, sizeof m->idem_hash);
    m->load_id = r->load_id;
    m->load_id_len = r->load_id ? 16 : 0;
}

enum err commit_queue(struct collection *c, const struct buf *record, struct segment **added,
                      struct snapshot **next, uint64_t *ticket, struct err_ctx *ctx)
{
    struct plan plan;
    RETURN_NOT_OK(mapping_check(c->dir, ctx)); /* what was read of older rows was really read */
    RETURN_NOT_OK(plan_commit(c, record->data, record->len, added, &plan, ctx));
    enum err e = collection_log(c, record->data, record->len, ticket, ctx);
    if (e == ERR_OK) {
        plan_apply(c, &plan);
        *next = snapshot_acquire(plan.next);
    }
    plan_deinit(&plan);
    return e;
}

static bool is_visible(const struct collection *c, const struct snapshot *s)
{
    epoch_enter();
    bool visible = collection_snapshot(c)->serial >= s->serial;
    epoch_leave();
    return visible;
}

/* Of the commits of one sync the first to come publishes for all: head, if it is durable too. */
static void publish_durable(struct collection *c, struct snapshot *next)
{
    if (is_visible(c, next))
        return;
    pthread_mutex_lock(&c->commit_lock);
    collection_publish(c, wal_durable(c->wal, c->last_ticket) ? c->head : next);
    pthread_mutex_unlock(&c->commit_lock);
}

static void stop_writes(struct collection *c, const char *why)
{
    pthread_mutex_lock(&c->commit_lock);
    collection_set_read_only(c, why);
    pthread_mutex_unlock(&c->commit_lock);
}

enum err commit_publish(struct collection *c, struct snapshot *next, uint64_t ticket,
                        struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    enum err e = wal_wait(c->wal, ticket, &why);
    if (e == ERR_OK)
        publish_durable(c, next);
    else
        stop_writes(c, why.detail);
    snapshot_release(next);
    return e == ERR_OK ? ERR_OK : err_set(ctx, e, "%s", why.detail);
}

struct commit_result commit_result_of(const struct commit_meta *m)
{
    return (struct commit_result){
        .version = m->version,
        .time_us = m->time_us,
        .rows = m->rows,
        .inserted = m->inserted,
        .updated = m->updated,
        .deleted = m->deleted,
        .stale = m->stale,
    };
}

void commit_answer(const struct commit_meta *m, uint64_t since_us, struct commit_result *out)
{
    metric_observe_us(&commit_time, 0, clock_mono_us() - since_us);
    metric_add(&rows_deleted, 0, m->deleted);
    if (m->mode != LOAD_DELETE && m->mode != LOAD_PURGE)
        metric_add(&rows_loaded, 0, m->rows);
    *out = commit_result_of(m);
}

/* ---- one commit ---- */

struct commit {
    struct collection *c;
    struct load_input *in;
    struct resolve rv;
    bool small; /* prepared under the lock */
    struct snapshot *next;
    uint64_t ticket;
    bool queued;
};

static bool is_small(const struct load_input *in)
{
    if (in->opts.mode == LOAD_PARTITION || in->delete_filter)
        return false;
    for (size_t i = 0; i < in->n; i++) {
        if (!in->seg[i].scratch)
            return false;
    }
    return !in->delete_keys || in->delete_keys->rows <= LOCKED_KEYS_MAX;
}

/* Referenced. */
static struct snapshot *take_head(struct collection *c)
{
    pthread_mutex_lock(&c->commit_lock);
    struct snapshot *s = snapshot_acquire(c->head);
    pthread_mutex_unlock(&c->commit_lock);
    return s;
}

static enum err busy(struct err_ctx *ctx)
{
    return err_set(ctx, ERR_BUSY,
                   "other commits change the same rows faster than this load can follow; nothing "
                   "was changed: try again when they are fewer");
}

/* Until no more rows are to be completed than a record takes. */
static enum err prepare(struct commit *k, struct err_ctx *ctx)
{
    load_set_phase(k->in, LOAD_PREPARING);
    for (int round = 0; round < ROUNDS_MAX; round++) {
        RETURN_NOT_OK(load_check_cancel(k->in, ctx));
        struct snapshot *head = take_head(k->c);
        enum err e = resolve_prepare(&k->rv, head, ctx);
        snapshot_release(head);
        RETURN_NOT_OK(e);
        if (!resolve_many_needs(&k->rv))
            return ERR_OK;
        RETURN_NOT_OK(resolve_complete(&k->rv, ctx));
    }
    return busy(ctx);
}

/* Closer to the head, outside the lock, until what is left is little. */
static enum err follow(struct commit *k, bool *again, struct err_ctx *ctx)
{
    *again = false;
    for (int round = 0; round < ROUNDS_MAX && !*again; round++) {
        struct snapshot *head = take_head(k->c);
        enum err e = ERR_OK;
        uint64_t distance = resolve_distance(&k->rv, head);
        if (distance > LOCKED_CHANGES_MAX)
            e = resolve_rebase(&k->rv, head, again, ctx);
        snapshot_release(head);
        RETURN_NOT_OK(e);
        if (distance <= LOCKED_CHANGES_MAX)
            return ERR_OK;
    }
    return ERR_OK;
}

static enum err record_and_queue(struct commit *k, struct err_ctx *ctx)
{
    struct collection *c = k->c;
    struct load_input *in = k->in;
    struct commit_meta *m = &k->rv.rec.meta;
    struct buf record = {0};
    struct segment **added = calloc(in->n + 1, sizeof *added);
    if (!added)
        return err_no_memory(ctx, in->n * sizeof *added);
    k->rv.rec.tail_id = c->tail->id;
    commit_stamp(c, m, in->opts.mode, in->rows_received);
    enum err e = resolve_record(&k->rv, &record, ctx);
    for (size_t i = 0, n = 0; e == ERR_OK && i < in->n; i++) {
        if (in->seg[i].superseded)
            continue;
        added[n] = in->seg[i].segment;
        added[n]->base_version = m->version;
        added[n++]->base_ordinal = in->seg[i].base_ordinal;
    }
    if (e == ERR_OK)
        e = commit_queue(c, &record, added, &k->next, &k->ticket, ctx);
    k->queued = e == ERR_OK;
    free(added);
    buf_deinit(&record);
    return e;
}

/* With the lock. *again: the head is too far away, or too much is to be completed. */
static enum err finish_locked(struct commit *k, bool *again, struct err_ctx *ctx)
{
    struct collection *c = k->c;
    *again = false;
    RETURN_NOT_OK(commit_preconditions(c, &k->in->opts, ctx));
    if (k->small) {
        RETURN_NOT_OK(resolve_prepare(&k->rv, c->head, ctx));
    } else {
        RETURN_NOT_OK(resolve_rebase(&k->rv, c->head, again, ctx));
        if (*again)
            return ERR_OK;
    }
    RETURN_NOT_OK(resolve_held(&k->rv, ctx));
    RETURN_NOT_OK(resolve_inline(&k->rv, again, ctx));
    return *again ? ERR_OK : record_and_queue(k, ctx);
}

static enum err finish(struct commit *k, bool *again, struct err_ctx *ctx)
{
    *again = false;
    load_set_phase(k->in, LOAD_RECORDING);
    if (!k->small)
        RETURN_NOT_OK(follow(k, again, ctx));
    if (*again)
        return ERR_OK;
    pthread_mutex_lock(&k->c->commit_lock);
    enum err e = finish_locked(k, again, ctx);
    pthread_mutex_unlock(&k->c->commit_lock);
    return e;
}

static enum err run_large(struct commit *k, struct err_ctx *ctx)
{
    RETURN_NOT_OK(load_sort_out(k->in, ctx));
    RETURN_NOT_OK(load_merge(k->in, ctx));
    for (int round = 0; round < ROUNDS_MAX; round++) {
        bool again;
        RETURN_NOT_OK(prepare(k, ctx));
        RETURN_NOT_OK(load_build_indexes(k->in, ctx));
        RETURN_NOT_OK(load_place(k->in, ctx));
        RETURN_NOT_OK(load_check_cancel(k->in, ctx));
        RETURN_NOT_OK(finish(k, &again, ctx));
        if (!again)
            return ERR_OK;
    }
    return busy(ctx);
}

static enum err run(struct commit *k, struct err_ctx *ctx)
{
    bool again;
    RETURN_NOT_OK(collection_check_writable(k->c, ctx));
    RETURN_NOT_OK(commit_check_expected(k->c, &k->in->opts, ctx));
    if (!k->small)
        return run_large(k, ctx);
    RETURN_NOT_OK(load_sort_out(k->in, ctx));
    return finish(k, &again, ctx);
}

static void announce(struct collection *c, const struct load_input *in)
{
    for (size_t i = 0; c->hooks && c->hooks->segment_added && i < in->n; i++) {
        if (!in->seg[i].superseded)
            c->hooks->segment_added(c->hooks->arg, c, in->seg[i].segment);
    }
}

enum err collection_commit(struct load_input *in, struct commit_result *out, struct err_ctx *ctx)
{
    struct commit k = {.c = in->c, .in = in, .small = is_small(in)};
    uint64_t since_us = clock_mono_us();
    enum err e = resolve_init(&k.rv, k.c, in, ctx);
    if (e == ERR_OK)
        e = run(&k, ctx);
    if (k.queued) {
        /* A record that may have reached the disk must find its segments after a restart. */
        load_settle(in);
        e = commit_publish(k.c, k.next, k.ticket, ctx);
    } else {
        load_put_back(in);
    }
    if (e == ERR_OK) {
        commit_answer(&k.rv.rec.meta, since_us, out);
        announce(k.c, in);
    }
    resolve_deinit(&k.rv);
    return e;
}
