/* Listing versions, newest first, and commits, oldest first.
 *
 * Recent commits come from memory, older ones file by file. The items of a file are listed forward
 * once, then given backward. Files and memory may overlap: what was given is known by its version.
 *
 * Threads: a list is noted at its start and goes on beside commits. Failure: ERR_CORRUPT names the
 * file; what was given before stays given. */
#include "store/version.h"

#include <inttypes.h>

#include "base/epoch.h"
#include "store/collection_internal.h"

struct listing {
    struct collection *c;
    uint64_t before, left; /* versions to give are below, this many */
    version_fn fn;
    void *arg;
    bool ended;
    uint64_t horizon, base_version;
    struct buf kept, files;
    struct piece **recent;
    size_t nrecent;
};

static bool is_kept(const struct listing *l, uint64_t version)
{
    const uint64_t *kept = (const uint64_t *)l->kept.data;
    bool found = version >= l->horizon;
    for (size_t i = 0; !found && i < l->kept.len / sizeof *kept; i++)
        found = kept[i] == version;
    return found && version > l->base_version;
}

static uint64_t oldest_kept(const struct listing *l)
{
    return l->kept.len ? *(const uint64_t *)l->kept.data : l->horizon;
}

static enum err note(struct listing *l, struct err_ctx *ctx)
{
    struct history *h = &l->c->history;
    epoch_enter();
    uint64_t newest = collection_snapshot(l->c)->version;
    epoch_leave();
    if (l->before == 0 || l->before > newest)
        l->before = newest + 1;
    pthread_mutex_lock(&h->lock);
    l->horizon = h->horizon;
    l->base_version = h->base_version;
    buf_put(&l->kept, h->kept.data, h->kept.len);
    buf_put(&l->files, h->files.data, h->files.len);
    l->recent = malloc((h->nrecent + 1) * sizeof *l->recent);
    for (size_t i = 0; l->recent && i < h->nrecent; i++) {
        l->recent[l->nrecent++] = h->recent[i];
        atomic_fetch_add_explicit(&h->recent[i]->refs, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&h->lock);
    bool ok = l->recent && !l->kept.failed && !l->files.failed;
    return ok ? ERR_OK : err_no_memory(ctx, l->files.len);
}

static void listing_deinit(struct listing *l)
{
    for (size_t i = 0; i < l->nrecent; i++)
        piece_release(l->recent[i]);
    free(l->recent);
    buf_deinit(&l->kept);
    buf_deinit(&l->files);
}

static struct version_info info_of(const struct commit_meta *m)
{
    return (struct version_info){.version = m->version,
                                 .time_us = m->time_us,
                                 .mode = m->mode,
                                 .rows = m->rows,
                                 .inserted = m->inserted,
                                 .updated = m->updated,
                                 .deleted = m->deleted,
                                 .stale = m->stale,
                                 .live_rows = m->live_rows,
                                 .live_vectors = m->live_vectors,
                                 .digest = m->digest,
                                 .message = m->message,
                                 .message_len = m->message_len,
                                 .metadata = m->metadata,
                                 .metadata_len = m->metadata_len};
}

static void give_meta(struct listing *l, const struct commit_meta *m)
{
    if (l->ended || m->version >= l->before)
        return;
    l->before = m->version;
    if (!is_kept(l, m->version))
        return;
    struct version_info info = info_of(m);
    l->ended = !l->fn(l->arg, &info) || --l->left == 0;
}

static enum err give(struct listing *l, const void *record, size_t n, struct err_ctx *ctx)
{
    struct commit_record r;
    if (!n || *(const uint8_t *)record != RECORD_COMMIT)
        return ERR_OK;
    RETURN_NOT_OK(commit_record_decode(record, n, &r, ctx));
    give_meta(l, &r.meta);
    commit_record_deinit(&r);
    return ERR_OK;
}

static enum err give_recent(struct listing *l, struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    for (size_t i = l->nrecent; e == ERR_OK && i-- > 0 && !l->ended;) {
        if (l->recent[i]->version < l->before)
            e = give(l, l->recent[i]->data, l->recent[i]->len, ctx);
    }
    return e;
}

static enum err read_file(struct collection *c, uint64_t name, struct buf *data,
                          struct history_file *f, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    history_path(c, name, path, sizeof path);
    return history_file_read(c->io, path, c->id, data, f, ctx);
}

static enum err give_backward(struct listing *l, const struct history_file *f, struct err_ctx *ctx)
{
    struct buf list = {0};
    struct history_item item;
    struct cursor items = cursor_over(f->items, f->items_len);
    while (history_file_next(&items, &item))
        buf_put(&list, &item, sizeof item);
    const struct history_item *all = (const struct history_item *)list.data;
    enum err e = list.failed ? err_no_memory(ctx, list.len) : ERR_OK;
    for (size_t i = list.len / sizeof item; e == ERR_OK && i-- > 0 && !l->ended;)
        e = give(l, all[i].record, all[i].len, ctx);
    buf_deinit(&list);
    return e;
}

/* A collection of a first release has a version that no record speaks of: its checkpoint's. */
static enum err give_base(struct listing *l, const void *data, size_t n, struct err_ctx *ctx)
{
    struct history_base b;
    if (l->ended)
        return ERR_OK;
    RETURN_NOT_OK(history_base_decode(data, n, &b, ctx));
    give_meta(l, &b.meta);
    history_base_deinit(&b);
    return ERR_OK;
}

static enum err give_files(struct listing *l, struct err_ctx *ctx)
{
    const uint64_t *names = (const uint64_t *)l->files.data;
    struct buf data = {0};
    struct history_file f;
    enum err e = ERR_OK;
    for (size_t i = l->files.len / sizeof *names;
         e == ERR_OK && i-- > 0 && !l->ended && l->before > oldest_kept(l);) {
        if (names[i] > l->before) /* its base may be the version asked for */
            continue;
        e = read_file(l->c, names[i], &data, &f, ctx);
        if (e == ERR_OK)
            e = give_backward(l, &f, ctx);
        if (e == ERR_OK && i == 0)
            e = give_base(l, f.base, f.base_len, ctx);
    }
    buf_deinit(&data);
    return e;
}

static enum err list(struct listing *l, struct err_ctx *ctx)
{
    struct history *h = &l->c->history;
    RETURN_NOT_OK(note(l, ctx));
    RETURN_NOT_OK(give_recent(l, ctx));
    if (l->files.len)
        return give_files(l, ctx);
    pthread_mutex_lock(&h->lock);
    struct piece *base = h->base;
    atomic_fetch_add_explicit(&base->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&h->lock);
    enum err e = give_base(l, base->data, base->len, ctx);
    piece_release(base);
    return e;
}

enum err collection_versions(struct collection *c, uint64_t before, uint64_t limit, version_fn fn,
                             void *arg, struct err_ctx *ctx)
{
    struct listing l = {.c = c, .before = before, .left = limit, .fn = fn, .arg = arg};
    if (limit == 0)
        return ERR_OK;
    enum err e = list(&l, ctx);
    listing_deinit(&l);
    return e;
}

/* ---- one version ---- */

struct one {
    struct version_info *out;
    struct buf *hold;
};

static bool keep_one(void *arg, const struct version_info *info)
{
    struct one *o = arg;
    *o->out = *info;
    buf_put(o->hold, info->message, info->message_len);
    buf_put(o->hold, info->metadata, info->metadata_len);
    return false;
}

enum err collection_version_info(struct collection *c, uint64_t version, struct buf *hold,
                                 struct version_info *out, struct err_ctx *ctx)
{
    struct one o = {out, hold};
    size_t at = hold->len;
    *out = (struct version_info){0};
    RETURN_NOT_OK(history_check(c, version, ctx));
    if (version == 0 || version == c->history.base_version)
        return err_set(ctx, ERR_NOT_FOUND,
                       "version %" PRIu64 " is the empty collection: no commit made it", version);
    RETURN_NOT_OK(collection_versions(c, version + 1, 1, keep_one, &o, ctx));
    if (hold->failed)
        return err_no_memory(ctx, hold->len);
    if (out->version != version)
        return err_set(ctx, ERR_CORRUPT, "%s/log: the commit of version %" PRIu64 " is missing",
                       c->dir, version);
    out->message = (const char *)hold->data + at;
    out->metadata = out->message + out->message_len;
    return ERR_OK;
}

/* ---- commits, oldest first ---- */

struct commits {
    uint64_t newest, given; /* versions */
    int64_t since_us;
    commit_fn fn;
    void *arg;
    bool ended;
};

static enum err give_commit(struct commits *k, const struct history_item *item, struct err_ctx *ctx)
{
    struct commit_record r;
    if (!item->len || item->record[0] != RECORD_COMMIT)
        return ERR_OK;
    RETURN_NOT_OK(commit_record_decode(item->record, item->len, &r, ctx));
    const struct commit_meta *m = &r.meta;
    if (m->version > k->newest) {
        k->ended = true;
    } else if (m->time_us > k->since_us && m->version > k->given) {
        k->given = m->version;
        k->ended = !k->fn(k->arg, m);
    }
    commit_record_deinit(&r);
    return ERR_OK;
}

/* The first file with a commit after the time, from the newest back. */
static enum err first_file(struct collection *c, const struct buf *files, int64_t since_us,
                           struct buf *data, size_t *first, struct err_ctx *ctx)
{
    struct history_file f;
    *first = files->len / sizeof(uint64_t);
    while (*first > 0) {
        RETURN_NOT_OK(read_file(c, ((const uint64_t *)files->data)[*first - 1], data, &f, ctx));
        if (f.last_time_us <= since_us && f.last_version >= f.first_version)
            return ERR_OK;
        --*first;
    }
    return ERR_OK;
}

static enum err each_in_files(struct listing *l, struct commits *k, struct err_ctx *ctx)
{
    struct buf data = {0};
    struct history_file f;
    struct history_item item;
    size_t i;
    enum err e = first_file(l->c, &l->files, k->since_us, &data, &i, ctx);
    for (; e == ERR_OK && i < l->files.len / sizeof(uint64_t) && !k->ended; i++) {
        e = read_file(l->c, ((const uint64_t *)l->files.data)[i], &data, &f, ctx);
        if (e != ERR_OK)
            break;
        struct cursor items = cursor_over(f.items, f.items_len);
        while (e == ERR_OK && !k->ended && history_file_next(&items, &item))
            e = give_commit(k, &item, ctx);
    }
    buf_deinit(&data);
    return e;
}

enum err collection_history_each(struct collection *c, int64_t since_us, commit_fn fn, void *arg,
                                 struct err_ctx *ctx)
{
    struct listing l = {.c = c};
    struct commits k = {.since_us = since_us, .fn = fn, .arg = arg};
    enum err e = note(&l, ctx);
    k.newest = l.before - 1;
    if (e == ERR_OK)
        e = each_in_files(&l, &k, ctx);
    for (size_t i = 0; e == ERR_OK && i < l.nrecent && !k.ended; i++) {
        struct history_item item = {l.recent[i]->number, l.recent[i]->data, l.recent[i]->len};
        e = give_commit(&k, &item, ctx);
    }
    listing_deinit(&l);
    return e;
}
