/* Restoring: a commit whose rows are those of an older version.
 *
 *   record:  the manifest of the version takes the place of what was there; no row is written, so
 *            rows keep their seq, and files their indexes
 *
 * Counted as a full refresh with the version's rows: a row is updated when its key is alive in the
 * newest version. The version is pinned meanwhile, so that no vacuum lets go of its files.
 *
 * Threads: any that may block. What is counted is counted outside the commit lock and again when
 * another commit came first; after a few times under it. Failure: no trace. */
#include <inttypes.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "store/resolve.h"

enum { ROUNDS_OUTSIDE = 4, GROUP_ROWS = 256, REPLACED_TRIES = 3 };

struct restore {
    struct collection *c;
    const struct load_options *opts;
    struct snapshot *source;  /* referenced */
    uint64_t purges;          /* before the source was opened: a later one may have rewritten it */
    struct snapshot *counted; /* referenced: what `updated` holds for */
    uint64_t updated;
    struct commit_meta meta;
    struct snapshot *next;
    uint64_t ticket;
};

/* ---- counting ---- */

static const struct view *view_of(const struct snapshot *s, uint64_t id)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (s->views[i].segment->id == id)
            return &s->views[i];
    }
    return NULL;
}

struct group {
    size_t n;
    int64_t ints[GROUP_ROWS];
    struct key_probe probes[GROUP_ROWS];
};

static uint64_t count_group(const struct snapshot *head, struct group *g)
{
    uint64_t found = 0;
    snapshot_find_many(head, g->probes, g->n);
    for (size_t i = 0; i < g->n; i++)
        found += g->probes[i].found;
    g->n = 0;
    return found;
}

static void put_probe(struct group *g, const struct segment *s, uint32_t row)
{
    key_probe_row(&g->probes[g->n], s, row, &g->ints[g->n]);
    g->n++;
}

/* Rows of the view whose key is alive in head: those that are alive there themselves need no look
 * at the key. */
static uint64_t count_view(const struct snapshot *head, const struct view *v, struct group *g)
{
    const struct view *same = view_of(head, v->segment->id);
    uint64_t n = 0;
    for (uint32_t row = 0; row < v->rows; row++) {
        if (!view_live(v, row))
            continue;
        if (same && view_live(same, row)) {
            n++;
            continue;
        }
        put_probe(g, v->segment, row);
        if (g->n == GROUP_ROWS)
            n += count_group(head, g);
    }
    return n + (g->n ? count_group(head, g) : 0);
}

static enum err count(struct restore *r, struct snapshot *head, struct err_ctx *ctx)
{
    struct group *g = malloc(sizeof *g);
    if (!g)
        return err_no_memory(ctx, sizeof *g);
    g->n = 0;
    r->updated = 0;
    for (uint32_t i = 0; i < r->source->nviews; i++) {
        epoch_enter();
        r->updated += count_view(head, &r->source->views[i], g);
        epoch_leave();
    }
    free(g);
    snapshot_release(r->counted);
    r->counted = snapshot_acquire(head);
    return ERR_OK;
}

/* Against head as it is, outside the lock. */
static enum err count_outside(struct restore *r, struct err_ctx *ctx)
{
    pthread_mutex_lock(&r->c->commit_lock);
    struct snapshot *head = snapshot_acquire(r->c->head);
    pthread_mutex_unlock(&r->c->commit_lock);
    enum err e = count(r, head, ctx);
    snapshot_release(head);
    return e;
}

/* ---- the record ---- */

static void fill_meta(struct restore *r, struct commit_record *rec)
{
    struct commit_meta *m = &rec->meta;
    const struct snapshot *s = r->source, *head = r->c->head;
    commit_stamp(r->c, m, LOAD_RESTORE, s->rows);
    m->updated = r->updated;
    m->inserted = s->rows - r->updated;
    m->deleted = head->rows - r->updated;
    m->live_rows = s->rows;
    m->live_vectors = s->vectors;
    m->digest = s->digest;
    commit_describe(m, r->opts);
    rec->tail_id = r->c->tail->id;
    rec->restores = true;
    r->meta = *m;
}

static enum err queue(struct restore *r, struct err_ctx *ctx)
{
    struct commit_record rec = {0};
    struct buf blobs = {0}, record = {0};
    enum err e = manifest_of(r->source, &rec.target, &blobs, ctx);
    if (e == ERR_OK) {
        fill_meta(r, &rec);
        commit_record_encode(&rec, &record);
        e = record.failed ? err_no_memory(ctx, record.len)
                          : commit_queue(r->c, &record, NULL, &r->next, &r->ticket, ctx);
    }
    buf_deinit(&blobs);
    buf_deinit(&record);
    commit_record_deinit(&rec);
    return e;
}

/* With the lock. */
static enum err restore_locked(struct restore *r, bool last, bool *again, struct err_ctx *ctx)
{
    *again = false;
    RETURN_NOT_OK(commit_preconditions(r->c, r->opts, ctx));
    if (r->c->purges != r->purges || r->purges % 2)
        return err_set(ctx, ERR_BUSY,
                       "a purge is removing keys from every version; restore when it has ended");
    if (r->counted != r->c->head) {
        *again = !last;
        if (*again)
            return ERR_OK;
        RETURN_NOT_OK(count(r, r->c->head, ctx));
    }
    return queue(r, ctx);
}

static enum err run(struct restore *r, struct err_ctx *ctx)
{
    bool again = true;
    for (int round = 0; again; round++) {
        RETURN_NOT_OK(count_outside(r, ctx));
        pthread_mutex_lock(&r->c->commit_lock);
        enum err e = restore_locked(r, round == ROUNDS_OUTSIDE, &again, ctx);
        pthread_mutex_unlock(&r->c->commit_lock);
        RETURN_NOT_OK(e);
    }
    return commit_publish(r->c, r->next, r->ticket, ctx);
}

/* The files that were not part of the newest version are again. */
static void announce(struct collection *c, const struct snapshot *s)
{
    for (uint32_t i = 0; c->hooks && c->hooks->segment_added && i < s->nviews; i++) {
        if (!s->views[i].segment->tail)
            c->hooks->segment_added(c->hooks->arg, c, s->views[i].segment);
    }
}

static bool is_version(const struct snapshot *s, const void *version)
{
    return s->version == *(const uint64_t *)version;
}

static enum err open_and_run(struct restore *r, uint64_t version, struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_open_version(r->c, version, true, &r->source, ctx));
    return run(r, ctx);
}

/* The version may be open with segments that a compaction replaced and a vacuum let go: reads are
 * fine with them, a record that names them is not. It is opened anew then. */
static enum err restore(struct restore *r, uint64_t version, struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    enum err e = open_and_run(r, version, &why);
    for (int i = 0; i < REPLACED_TRIES && e == ERR_NOT_FOUND; i++) {
        snapshot_release(r->source);
        r->source = NULL;
        history_forget(r->c, is_version, &version);
        err_clear(&why);
        e = open_and_run(r, version, &why);
    }
    return e == ERR_OK ? e : err_set(ctx, e, "%s", why.detail);
}

enum err collection_restore(struct collection *c, uint64_t version, const struct load_options *opts,
                            struct commit_result *out, struct err_ctx *ctx)
{
    struct restore r = {.c = c, .opts = opts};
    uint64_t since_us = clock_mono_us();
    RETURN_NOT_OK(commit_check_expected(c, opts, ctx));
    RETURN_NOT_OK(collection_pin(c, version, ctx));
    pthread_mutex_lock(&c->commit_lock);
    r.purges = c->purges;
    pthread_mutex_unlock(&c->commit_lock);
    enum err e = restore(&r, version, ctx);
    if (e == ERR_OK) {
        commit_answer(&r.meta, since_us, out);
        announce(c, r.source);
    }
    collection_unpin(c, version);
    snapshot_release(r.source);
    snapshot_release(r.counted);
    return e;
}
