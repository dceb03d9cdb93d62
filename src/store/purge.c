/* Purge: keys leave every version, tagged ones included, and the disk.
 *
 *   1. a commit of mode purge: the newest version is without them
 *   2. checkpoint: all rows of before lie in files, the logs that held them are gone
 *   3. every file with rows of the keys is written anew without them; an index of the newest
 *      version's is built
 *   4. swap: the new files take the old ones' places in the newest version (COMPACT records)
 *   5. checkpoint: the registry names the new ones, what was logged lies in history files
 *   6. history files: old names become new ones (purge_history.c)
 *   7. vacuum: nothing needs the old files, they go with their indexes
 *
 * After a crash between any two steps every version reads as before or without the keys, and the
 * same purge done again goes through: rows of its keys are found wherever they are. No restore
 * lands while one runs: it would bring keys back.
 *
 * Threads: under upkeep_lock, the other locks as the steps take them. Failure: what is done is
 * whole; the answer is an error until nothing is left. */
#include "store/purge.h"

#include "base/log.h"
#include "base/metrics.h"
#include "store/collection_internal.h"
#include "store/key_index.h"
#include "store/upkeep_internal.h"

METRIC_COUNTER(purged_keys, "loadstone_purged_keys_total", "Keys removed from every version.")

enum { ROUNDS_MAX = 5 };

/* ---- new files ---- */

static const struct view *view_of(const struct snapshot *s, const struct segment *seg, uint32_t *at)
{
    for (*at = 0; *at < s->nviews; ++*at) {
        if (s->views[*at].segment == seg)
            return &s->views[*at];
    }
    return NULL;
}

static void set_input(struct merge_input *in, const struct purged_segment *s)
{
    *in = (struct merge_input){.segment = s->old,
                               .rows = s->old->rows,
                               .drop = s->drop,
                               .base_version = s->old->base_version,
                               .base_ordinal = s->old->base_ordinal};
}

static enum err build_index(struct collection *c, struct segment *s, struct err_ctx *ctx)
{
    if (!c->hooks || !c->hooks->segment_build)
        return ERR_OK;
    enum err e = c->hooks->segment_build(c->hooks->arg, c, s, NULL, ctx);
    return e == ERR_UNPROCESSABLE ? ERR_OK : e; /* searched exactly, as its predecessor was */
}

/* Without an input's schema nothing changes but the rows: each file keeps its own. */
static enum err write_segment(struct purge *p, struct purged_segment *s, bool in_head,
                              struct err_ctx *ctx)
{
    struct collection *c = p->c;
    struct merge_input in;
    set_input(&in, s);
    RETURN_NOT_OK(segment_verify(s->old, ctx));
    RETURN_NOT_OK(merge_segments(c, &in, 1, s->old->schema, &c->upkeep_cancel, &s->out, ctx));
    s->new_id = s->out.id;
    enum err e = in_head ? build_index(c, s->out.segment, ctx) : ERR_OK;
    if (e == ERR_OK)
        e = merge_place(c, &s->out, ctx);
    if (e != ERR_OK)
        merge_discard(c, &s->out);
    return e;
}

/* The new file in the place of the old one in the newest version. */
static enum err swap(struct purge *p, struct purged_segment *s, struct snapshot *base,
                     uint32_t view, struct err_ctx *ctx)
{
    struct compaction *job = calloc(1, sizeof *job);
    if (!job)
        return err_no_memory(ctx, sizeof *job);
    job->base = base;
    job->n = 1;
    job->views[0] = view;
    set_input(&job->inputs[0], s);
    job->out = s->out;
    enum err e = compact_swap(p->c, job, ctx);
    free(job);
    if (e == ERR_OK && p->c->hooks && p->c->hooks->segment_added)
        p->c->hooks->segment_added(p->c->hooks->arg, p->c, s->out.segment);
    return e;
}

/* Only older versions need it: the next checkpoint names it. */
static enum err register_segment(struct collection *c, struct segment *s, struct err_ctx *ctx)
{
    pthread_mutex_lock(&c->commit_lock);
    enum err e = registry_reserve(c, 1, ctx);
    if (e == ERR_OK)
        registry_add(c, s);
    pthread_mutex_unlock(&c->commit_lock);
    return e;
}

static enum err replace_segment(struct purge *p, struct purged_segment *s, struct err_ctx *ctx)
{
    uint32_t at;
    s->new_id = atomic_fetch_add(&p->c->next_segment_id, 1);
    if (s->new_rows == 0)
        return ERR_OK;
    struct snapshot *base = collection_newest(p->c);
    bool in_head = view_of(base, s->old, &at) != NULL;
    enum err e = write_segment(p, s, in_head, ctx);
    if (e == ERR_OK) {
        struct err_ctx why;
        err_clear(&why);
        e = in_head ? swap(p, s, base, at, &why) : ERR_CONFLICT;
        if (e == ERR_CONFLICT) /* not, or no longer, in the newest version */
            e = register_segment(p->c, s->out.segment, ctx);
        else if (e != ERR_OK)
            err_set(ctx, e, "%s", why.detail);
        /* A record that may have reached the disk must find its segment after a restart. */
        if (e != ERR_OK && !collection_read_only(p->c))
            merge_discard(p->c, &s->out);
    }
    snapshot_release(base);
    return e;
}

/* ---- a round ---- */

static bool any_version(const struct snapshot *s, const void *arg)
{
    (void)s;
    (void)arg;
    return true;
}

static enum err remove_old(struct purge *p, struct err_ctx *ctx)
{
    struct vacuum_options keep_all = {.keep_versions = true};
    struct vacuum_result r;
    history_forget(p->c, any_version, NULL);
    enum err e = ERR_CONFLICT;
    for (int i = 0; i < ROUNDS_MAX && e == ERR_CONFLICT; i++)
        e = vacuum_step(p->c, &keep_all, &r, ctx);
    return e;
}

static enum err delete_keys(struct purge *p, struct commit_result *out, struct err_ctx *ctx)
{
    struct load_options o = {.mode = LOAD_PURGE, .expected_version = -1};
    RETURN_NOT_OK(collection_delete_keys(p->c, p->keys, &o, out, ctx));
    p->version = out->version;
    return collection_checkpoint(p->c, ctx);
}

static enum err replace_found(struct purge *p, struct err_ctx *ctx)
{
    for (size_t i = 0; i < p->n; i++)
        RETURN_NOT_OK(replace_segment(p, &p->list[i], ctx));
    RETURN_NOT_OK(collection_checkpoint(p->c, ctx));
    RETURN_NOT_OK(purge_history(p, ctx));
    return remove_old(p, ctx);
}

/* Rounds until a look at all files finds nothing. */
static enum err purge_all(struct purge *p, struct purge_result *out, struct err_ctx *ctx)
{
    struct commit_result commit;
    for (int round = 0; round < ROUNDS_MAX; round++) {
        RETURN_NOT_OK(delete_keys(p, &commit, ctx));
        out->version = commit.version;
        purge_forget(p);
        RETURN_NOT_OK(purge_find(p, ctx));
        RETURN_NOT_OK(p->n ? replace_found(p, ctx) : vacuum_remove_files(p->c, ctx));
        purge_forget(p);
        RETURN_NOT_OK(purge_find(p, ctx));
        if (p->n == 0)
            return ERR_OK;
    }
    return err_set(ctx, ERR_CONFLICT,
                   "other commits kept bringing the keys back; purge them again when those rest");
}

/* Restores are refused from the first call on until the second. */
static void turn(struct collection *c)
{
    pthread_mutex_lock(&c->commit_lock);
    c->purges++;
    pthread_mutex_unlock(&c->commit_lock);
}

static bool same_key(const void *arg, uint32_t row, const struct row *key)
{
    const struct batch *keys = arg;
    struct row other = {.schema = keys->schema};
    batch_row_key(keys, row, &other);
    return row_keys_equal(&other, key);
}

/* Keys that come again in the request count once. */
static enum err count_purged(const struct purge *p, uint64_t *n, struct err_ctx *ctx)
{
    struct key_index ix;
    *n = 0;
    RETURN_NOT_OK(key_index_init(&ix, (uint32_t)p->keys->rows, ctx));
    enum err e = ERR_OK;
    for (uint32_t i = 0; i < p->keys->rows && e == ERR_OK; i++) {
        struct row key = {.schema = p->keys->schema};
        batch_row_key(p->keys, i, &key);
        e = key_index_add(&ix, i, &key, same_key, p->keys, ctx);
        *n += p->seen[i] && !(ix.prev && ix.prev[i]);
    }
    key_index_deinit(&ix);
    return e;
}

enum err collection_purge(struct collection *c, const struct batch *keys, struct purge_result *out,
                          struct err_ctx *ctx)
{
    struct purge p = {.c = c, .keys = keys, .seen = calloc(1, keys->rows + 1)};
    if (!p.seen)
        return err_no_memory(ctx, keys->rows);
    enum err e = upkeep_begin(c, ctx);
    if (e == ERR_OK) {
        turn(c);
        e = purge_all(&p, out, ctx);
        turn(c);
        upkeep_end(c);
    }
    if (e == ERR_OK)
        e = count_purged(&p, &out->purged, ctx);
    if (e == ERR_OK) {
        metric_add(&purged_keys, 0, out->purged);
        log_info("collection %s: %llu keys are purged from every version", c->name,
                 (unsigned long long)out->purged);
    }
    purge_forget(&p);
    free(p.seen);
    return e;
}
