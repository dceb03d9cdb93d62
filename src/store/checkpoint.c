/* Checkpoints of a collection: loading one at a start, writing one after a sealing.
 *
 *   rotation    what stood in head, tags, registry ... at the start of a log file  (commit lock)
 *   history     the items before that log file go into history files
 *   checkpoint  the rotation, every segment a file, written whole
 *   after that  logs and checkpoints before it go; the recent items begin behind it
 *
 * A crash or an error between any two steps leaves the older checkpoint and all logs since; items
 * that are in a history file by then are recognised by their numbers.
 *
 * Threads: one at a time, under the seal lock. Failure: everything stays as it was, and is tried
 * again at the next sealing. */
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "store/collection_internal.h"

/* ---- loading ---- */

static struct view *find_view(struct snapshot *s, uint64_t segment_id)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (s->views[i].segment->id == segment_id)
            return &s->views[i];
    }
    return NULL;
}

static enum err take_masks(struct snapshot *s, const struct buf *list, bool gone,
                           struct err_ctx *ctx)
{
    const struct dead_ref *d = (const struct dead_ref *)list->data;
    for (size_t i = 0; i < list->len / sizeof *d; i++) {
        struct view *v = find_view(s, d[i].segment);
        struct mask **mask = v ? gone ? &v->gone : &v->dead : NULL;
        if (!mask || *mask)
            return err_set(ctx, ERR_CORRUPT, "the checkpoint masks an unknown segment");
        RETURN_NOT_OK(mask_decode(d[i].mask, d[i].mask_len, v->rows, mask, ctx));
        v->live = v->rows - (v->dead ? (uint32_t)v->dead->count : 0);
    }
    return ERR_OK;
}

static enum err take_segment(struct collection *c, struct snapshot *s,
                             const struct segment_ref *ref, struct err_ctx *ctx)
{
    struct view *v = &s->views[s->nviews];
    RETURN_NOT_OK(collection_check_unknown(c, ref->id, ctx));
    RETURN_NOT_OK(segment_open_ref(c, ref, &v->segment, ctx));
    s->nviews++;
    if (!schema_extends(s->schema, v->segment->schema))
        return err_set(ctx, ERR_CORRUPT, "%s: the file is not of the collection's schema",
                       v->segment->path);
    v->rows = v->live = v->segment->rows;
    s->bytes += v->segment->bytes;
    collection_note_segment_id(c, ref->id);
    RETURN_NOT_OK(registry_reserve(c, 1, ctx));
    registry_add(c, v->segment);
    return ERR_OK;
}

/* The manifest becomes the head. */
static enum err take_head(struct collection *c, const struct checkpoint *cp, struct err_ctx *ctx)
{
    const struct manifest *m = &cp->manifest;
    const struct segment_ref *refs = (const struct segment_ref *)m->segments.data;
    size_t n = m->segments.len / sizeof *refs;
    struct snapshot *s = calloc(1, sizeof *s + n * sizeof s->views[0]);
    if (!s)
        return err_no_memory(ctx, n * sizeof s->views[0]);
    c->head = s;
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(cp->schema);
    s->serial = 1;
    s->version = cp->meta.version;
    s->altered = cp->altered;
    s->time_us = cp->meta.time_us;
    s->rows = cp->meta.live_rows;
    s->vectors = cp->meta.live_vectors;
    s->digest = cp->meta.digest;
    for (size_t i = 0; i < n; i++)
        RETURN_NOT_OK(take_segment(c, s, &refs[i], ctx));
    RETURN_NOT_OK(take_masks(s, &m->dead, false, ctx));
    return take_masks(s, &m->gone, true, ctx);
}

/* Segments that only older versions need stay closed. */
static enum err take_registry(struct collection *c, const struct checkpoint *cp,
                              struct err_ctx *ctx)
{
    const struct segment_ref *refs = (const struct segment_ref *)cp->registry.data;
    size_t n = cp->registry.len / sizeof *refs;
    RETURN_NOT_OK(registry_reserve(c, n, ctx));
    for (size_t i = 0; i < n; i++) {
        if (!registry_has(c, refs[i].id))
            registry_add_closed(c, &refs[i]);
        collection_note_segment_id(c, refs[i].id);
    }
    return ERR_OK;
}

static enum err take_history(struct collection *c, const struct checkpoint *cp, struct err_ctx *ctx)
{
    struct history *h = &c->history;
    struct tags *tags;
    c->items = cp->items;
    h->base_version = cp->base_version;
    h->horizon = cp->horizon;
    buf_reset(&h->kept);
    buf_put(&h->kept, cp->kept.data, cp->kept.len);
    if (h->kept.failed)
        return err_no_memory(ctx, cp->kept.len);
    RETURN_NOT_OK(history_base_of(c->head, c->items, &h->base, ctx));
    RETURN_NOT_OK(tags_from_refs(&cp->tags, &tags, ctx));
    free(c->tags_head);
    c->tags = c->tags_head = tags;
    return ERR_OK;
}

static enum err adopt(struct collection *c, const struct checkpoint *cp, struct err_ctx *ctx)
{
    RETURN_NOT_OK(take_head(c, cp, ctx));
    RETURN_NOT_OK(take_registry(c, cp, ctx));
    if (cp->next_segment_id > atomic_load(&c->next_segment_id))
        atomic_store(&c->next_segment_id, cp->next_segment_id);
    return take_history(c, cp, ctx);
}

/* As before the attempt, for the next one. */
static void forget(struct collection *c)
{
    snapshot_release(c->head);
    c->head = NULL;
    registry_deinit(&c->registry);
    registry_init(&c->registry);
    piece_release(c->history.base);
    c->history.base = NULL;
    c->items = 0;
}

static enum err read_whole(struct io *io, const char *path, struct buf *out, struct err_ctx *ctx)
{
    struct io_file *f;
    uint64_t n;
    RETURN_NOT_OK(io_file_open(io, path, IO_READ, &f, ctx));
    enum err e = io_file_size(f, &n, ctx);
    void *at = e == ERR_OK ? buf_extend(out, n) : NULL;
    if (e == ERR_OK && !at)
        e = err_no_memory(ctx, n);
    if (e == ERR_OK)
        e = io_file_read(f, at, n, 0, ctx);
    io_file_close(f);
    return e;
}

/* The checkpoint borrows from *data, which is the caller's to free, after an error too. */
static enum err read_checkpoint(struct io *io, const char *path, const uint8_t *collection_id,
                                struct buf *data, struct checkpoint *cp, struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    RETURN_NOT_OK(read_whole(io, path, data, ctx));
    enum err e = checkpoint_decode(data->data, data->len, collection_id, cp, &why);
    return e == ERR_OK ? e : err_set(ctx, e, "%s: offset 0: %.900s", path, why.detail);
}

enum err checkpoint_check_file(struct io *io, const char *path, struct err_ctx *ctx)
{
    struct checkpoint cp;
    struct buf data = {0};
    enum err e = read_checkpoint(io, path, NULL, &data, &cp, ctx);
    if (e == ERR_OK)
        checkpoint_deinit(&cp);
    buf_deinit(&data);
    return e;
}

enum err checkpoint_load(struct collection *c, uint64_t number, struct err_ctx *ctx)
{
    char dir[PATH_CAP - 64], path[PATH_CAP];
    struct buf data = {0};
    struct checkpoint cp;
    snprintf(dir, sizeof dir, "%s/log", c->dir);
    wal_path(dir, number, "ckpt", path, sizeof path);
    enum err e = read_checkpoint(c->io, path, c->id, &data, &cp, ctx);
    if (e == ERR_OK) {
        e = adopt(c, &cp, ctx);
        checkpoint_deinit(&cp);
        if (e != ERR_OK)
            forget(c);
    }
    buf_deinit(&data);
    return e;
}

/* ---- rotating ---- */

static struct tags *copy_tags(const struct tags *t)
{
    size_t size = sizeof *t + t->n * sizeof t->list[0];
    struct tags *copy = malloc(size);
    if (copy)
        memcpy(copy, t, size);
    return copy;
}

void rotation_free(struct rotation *r)
{
    if (!r)
        return;
    snapshot_release(r->state);
    buf_deinit(&r->kept);
    buf_deinit(&r->registry);
    free(r->tags);
    free(r);
}

enum err rotation_new(struct collection *c, uint64_t number, struct rotation **out,
                      struct err_ctx *ctx)
{
    struct history *h = &c->history;
    struct rotation *r = calloc(1, sizeof *r);
    if (!r)
        return err_no_memory(ctx, sizeof *r);
    r->state = snapshot_acquire(c->head);
    r->number = number;
    r->next_id = atomic_load(&c->next_segment_id);
    r->group = wal_next_group(c->wal);
    r->items = c->items;
    r->tags = copy_tags(c->tags_head);
    registry_list(c, &r->registry);
    pthread_mutex_lock(&h->lock);
    r->horizon = h->horizon;
    buf_put(&r->kept, h->kept.data, h->kept.len);
    pthread_mutex_unlock(&h->lock);
    if (!r->tags || r->registry.failed || r->kept.failed) {
        rotation_free(r);
        return err_no_memory(ctx, sizeof *r);
    }
    *out = r;
    return ERR_OK;
}

/* ---- writing ---- */

static enum err encode(struct collection *c, struct buf *out, struct err_ctx *ctx)
{
    const struct rotation *r = c->rotated;
    const struct snapshot *s = r->state;
    struct buf blobs = {0};
    struct checkpoint cp = {
        .schema = s->schema,
        .meta = {.version = s->version,
                 .time_us = s->time_us,
                 .live_rows = s->rows,
                 .live_vectors = s->vectors,
                 .digest = s->digest},
        .next_segment_id = r->next_id,
        .first_group = r->group,
        .items = r->items,
        .altered = s->altered,
        .base_version = c->history.base_version,
        .horizon = r->horizon,
        .kept = r->kept,
        .registry = r->registry,
    };
    enum err e = manifest_of(s, &cp.manifest, &blobs, ctx);
    if (e == ERR_OK) {
        tags_list(r->tags, &cp.tags);
        checkpoint_encode(&cp, c->id, out);
        manifest_deinit(&cp.manifest);
        if (out->failed || cp.tags.failed)
            e = err_no_memory(ctx, out->len);
        buf_deinit(&cp.tags);
    }
    buf_deinit(&blobs);
    return e;
}

static void remove_superseded(struct collection *c, const char *log_dir)
{
    static const char *const suffixes[] = {"log", "ckpt"};
    char path[PATH_CAP];
    for (uint64_t n = c->rotated->number; n-- > 1;) {
        bool any = false;
        for (size_t i = 0; i < 2; i++) {
            struct err_ctx why;
            err_clear(&why);
            wal_path(log_dir, n, suffixes[i], path, sizeof path);
            any |= io_unlink(c->io, path, &why) == ERR_OK;
        }
        if (!any)
            break;
    }
}

static enum err write_file(struct collection *c, const char *log_dir, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct buf data = {0};
    wal_path(log_dir, c->rotated->number, "ckpt", path, sizeof path);
    enum err e = encode(c, &data, ctx);
    if (e == ERR_OK)
        e = io_write_atomic(c->io, path, data.data, data.len, ctx);
    buf_deinit(&data);
    return e;
}

enum err checkpoint_write(struct collection *c, struct err_ctx *ctx)
{
    char dir[PATH_CAP - 64];
    struct piece *base;
    snprintf(dir, sizeof dir, "%s/log", c->dir);
    RETURN_NOT_OK(history_base_of(c->rotated->state, c->rotated->items, &base, ctx));
    enum err e = history_write(c, c->rotated->items, ctx);
    if (e == ERR_OK)
        e = write_file(c, dir, ctx);
    if (e != ERR_OK) {
        piece_release(base);
        return e;
    }
    remove_superseded(c, dir);
    history_rebase(c, base);
    history_prune(c, clock_wall_us());
    pthread_mutex_lock(&c->commit_lock);
    struct rotation *done = c->rotated;
    c->rotated = NULL;
    pthread_mutex_unlock(&c->commit_lock);
    rotation_free(done);
    return ERR_OK;
}
