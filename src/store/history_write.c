/* Writing history files: before each checkpoint, what the log said since the one before it.
 *
 *   last file small:  base | items | + recent items           written anew, under the same name
 *   else:             a file of its own: base of the recent items | recent items
 *
 * A file grows until its items outweigh its base and FILE_BYTES, so that bases cost no more than
 * what they lead to, and a version is read from one file of bounded size.
 *
 * Threads: one at a time, under the seal lock. Failure: nothing is changed; the items stay in
 * memory and in the log, and the next sealing writes them. A last file that turns out damaged is
 * left as it is, and the next one begins behind it. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "store/collection_internal.h"

enum { FILE_BYTES = 1 << 20 };

#define KEEP_US (7ll * 24 * 3600 * 1000 * 1000)

void history_path(const struct collection *c, uint64_t first_version, char *out, size_t cap)
{
    char dir[PATH_CAP - 64];
    snprintf(dir, sizeof dir, "%s/log", c->dir);
    wal_path(dir, first_version, "hist", out, cap);
}

/* What is to be written. */
struct writing {
    struct piece *base;
    struct piece **items;
    size_t n;
    uint64_t last_name; /* of the last file; 0 = none */
    struct buf data;    /* of the last file */
    struct history_file file;
    struct buf encoded; /* items */
};

static enum err take_items(struct collection *c, uint64_t upto, struct writing *w,
                           struct err_ctx *ctx)
{
    struct history *h = &c->history;
    pthread_mutex_lock(&h->lock);
    w->items = malloc((h->nrecent + 1) * sizeof(struct piece *));
    for (size_t i = 0; w->items && i < h->nrecent && h->recent[i]->number <= upto; i++) {
        w->items[w->n++] = h->recent[i];
        atomic_fetch_add_explicit(&h->recent[i]->refs, 1, memory_order_relaxed);
    }
    w->base = h->base;
    atomic_fetch_add_explicit(&w->base->refs, 1, memory_order_relaxed);
    size_t nfiles = h->files.len / sizeof(uint64_t);
    w->last_name = nfiles ? ((const uint64_t *)h->files.data)[nfiles - 1] : 0;
    pthread_mutex_unlock(&h->lock);
    return w->items ? ERR_OK : err_no_memory(ctx, h->nrecent * sizeof(struct piece *));
}

static void drop_items(struct writing *w)
{
    for (size_t i = 0; i < w->n; i++)
        piece_release(w->items[i]);
    free(w->items);
    piece_release(w->base);
    buf_deinit(&w->data);
    buf_deinit(&w->encoded);
}

static bool full(const struct history_file *f)
{
    return f->last_version >= f->first_version && f->items_len >= FILE_BYTES &&
           f->items_len >= f->base_len;
}

static void start_new(struct writing *w)
{
    w->file = (struct history_file){.first_version = w->base->version + 1,
                                    .last_version = w->base->version,
                                    .first_time_us = INT64_MAX,
                                    .last_time_us = INT64_MIN,
                                    .base_items = w->base->number,
                                    .last_item = w->base->number,
                                    .base = w->base->data,
                                    .base_len = w->base->len};
    buf_reset(&w->encoded);
}

/* Goes on with the last file, or begins one. A file that ends before the base leaves a gap, which
 * readers of what is missing are told of. */
static enum err choose_file(struct collection *c, struct writing *w, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct err_ctx why;
    err_clear(&why);
    start_new(w);
    if (!w->last_name)
        return ERR_OK;
    history_path(c, w->last_name, path, sizeof path);
    struct history_file last;
    enum err e = history_file_read(c->io, path, c->id, &w->data, &last, &why);
    if (e == ERR_CORRUPT && w->last_name < w->file.first_version) {
        log_error("collection %s: history goes on in another file: %s", c->name, why.detail);
        return ERR_OK;
    }
    if (e != ERR_OK)
        return err_set(ctx, e, "%s", why.detail);
    if (last.last_item < w->base->number || (last.last_item == w->base->number && full(&last)))
        return ERR_OK;
    w->file = last;
    buf_put(&w->encoded, last.items, last.items_len);
    return ERR_OK;
}

static void put_item(struct writing *w, const struct piece *p)
{
    struct history_file *f = &w->file;
    buf_put_u64(&w->encoded, p->number);
    buf_put_blob(&w->encoded, p->data, p->len);
    f->last_item = p->number;
    if (!p->version)
        return;
    f->last_version = p->version;
    f->last_time_us = p->time_us;
    if (f->first_time_us > p->time_us)
        f->first_time_us = p->time_us;
}

static enum err write_file(struct collection *c, struct writing *w, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct buf out = {0};
    w->file.items = w->encoded.data;
    w->file.items_len = w->encoded.len;
    history_file_encode(&w->file, c->id, &out);
    history_path(c, w->file.first_version, path, sizeof path);
    enum err e = out.failed || w->encoded.failed
                     ? err_no_memory(ctx, w->encoded.len)
                     : io_write_atomic(c->io, path, out.data, out.len, ctx);
    buf_deinit(&out);
    return e;
}

/* Its room was taken before the file was written. */
static void note_file(struct collection *c, uint64_t name)
{
    struct history *h = &c->history;
    pthread_mutex_lock(&h->lock);
    size_t n = h->files.len / sizeof name;
    if (!n || ((const uint64_t *)h->files.data)[n - 1] != name)
        buf_put(&h->files, &name, sizeof name);
    ASSERT(!h->files.failed);
    pthread_mutex_unlock(&h->lock);
}

static enum err reserve_name(struct collection *c, struct err_ctx *ctx)
{
    struct history *h = &c->history;
    pthread_mutex_lock(&h->lock);
    bool ok = buf_reserve(&h->files, sizeof(uint64_t));
    h->files.failed = false;
    pthread_mutex_unlock(&h->lock);
    return ok ? ERR_OK : err_no_memory(ctx, sizeof(uint64_t));
}

enum err history_write(struct collection *c, uint64_t upto, struct err_ctx *ctx)
{
    struct writing w = {0};
    RETURN_NOT_OK(reserve_name(c, ctx));
    enum err e = take_items(c, upto, &w, ctx);
    if (e == ERR_OK && w.n)
        e = choose_file(c, &w, ctx);
    uint64_t before = w.file.last_item;
    for (size_t i = 0; e == ERR_OK && i < w.n; i++) {
        if (w.items[i]->number > before)
            put_item(&w, w.items[i]);
    }
    if (e == ERR_OK && w.file.last_item > before)
        e = write_file(c, &w, ctx);
    if (e == ERR_OK && w.file.last_item > before)
        note_file(c, w.file.first_version);
    drop_items(&w);
    return e;
}

/* ---- removing ---- */

/* The oldest file's name, when the versions in it are let go; 0 = none. A version is read from the
 * newest file that begins at or before it. */
static uint64_t oldest_unneeded(struct collection *c)
{
    struct history *h = &c->history;
    pthread_mutex_lock(&h->lock);
    const uint64_t *first = (const uint64_t *)h->files.data;
    uint64_t wanted = h->kept.len ? *(const uint64_t *)h->kept.data : h->horizon;
    bool unneeded = h->files.len / sizeof *first > 1 && first[1] <= wanted;
    uint64_t name = unneeded ? first[0] : 0;
    pthread_mutex_unlock(&h->lock);
    return name;
}

static void forget_oldest(struct history *h)
{
    pthread_mutex_lock(&h->lock);
    h->files.len -= sizeof(uint64_t);
    memmove(h->files.data, h->files.data + sizeof(uint64_t), h->files.len);
    pthread_mutex_unlock(&h->lock);
}

void history_prune(struct collection *c, int64_t now_us)
{
    char path[PATH_CAP];
    struct buf data = {0};
    struct history_file f;
    struct err_ctx why;
    for (uint64_t name; (name = oldest_unneeded(c));) {
        err_clear(&why);
        history_path(c, name, path, sizeof path);
        if (history_file_read(c->io, path, c->id, &data, &f, &why) != ERR_OK) {
            log_warn("collection %s: history stays: %s", c->name, why.detail);
            break;
        }
        if (f.last_time_us > now_us - KEEP_US)
            break;
        if (io_unlink(c->io, path, &why) != ERR_OK) {
            log_warn("%s stays behind: %s", path, why.detail);
            break;
        }
        forget_oldest(&c->history);
    }
    buf_deinit(&data);
}

/* ---- at a start ---- */

static bool parse_name(const char *name, uint64_t *number)
{
    char *end;
    *number = strtoull(name, &end, 16);
    return end == name + 16 && strcmp(end, ".hist") == 0;
}

enum err history_open(struct collection *c, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    struct buf *files = &c->history.files;
    snprintf(dir, sizeof dir, "%s/log", c->dir);
    DIR *d = opendir(dir);
    if (!d)
        return err_system(ctx, errno, "open directory %s", dir);
    buf_reset(files);
    for (struct dirent *e; (e = readdir(d));) {
        uint64_t number;
        if (parse_name(e->d_name, &number))
            buf_put(files, &number, sizeof number);
    }
    closedir(d);
    numbers_sort(files);
    return files->failed ? err_no_memory(ctx, files->len) : ERR_OK;
}

static enum err verify_live(struct collection *c, const struct history_state *s,
                            struct err_ctx *ctx)
{
    uint64_t live = history_state_live(s);
    if (live == s->meta.live_rows)
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT,
                   "%s/log: version %" PRIu64 " has %" PRIu64 " rows, but history gives %" PRIu64,
                   c->dir, s->meta.version, s->meta.live_rows, live);
}

/* Every item of a file applies to its base, which is the version that the file before ends at. */
static enum err verify_step(struct collection *c, const struct history_walk *w,
                            struct history_state *s, const struct history_item *item,
                            struct err_ctx *ctx)
{
    if (w->entered) {
        RETURN_NOT_OK(history_state_go_on(s, w->entered, w->entered_len, ctx));
        RETURN_NOT_OK(verify_live(c, s, ctx));
    }
    uint64_t before = s->meta.version;
    RETURN_NOT_OK(history_state_apply(s, item->record, item->len, ctx));
    return s->meta.version == before ? ERR_OK : verify_live(c, s, ctx);
}

static enum err verify_all(struct collection *c, struct history_walk *w, struct history_state *s,
                           struct err_ctx *ctx)
{
    struct history_item item;
    for (bool more = true; more;) {
        RETURN_NOT_OK(history_walk_next(w, &item, &more, ctx));
        if (more)
            RETURN_NOT_OK(verify_step(c, w, s, &item, ctx));
    }
    if (w->covered <= c->items)
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT,
                   "%s/log: the history files end at item %" PRIu64 ", the log at item %" PRIu64,
                   c->dir, w->covered, c->items);
}

enum err history_verify(struct collection *c, struct err_ctx *ctx)
{
    struct history_walk w;
    struct history_state s;
    struct history *h = &c->history;
    pthread_mutex_lock(&h->lock);
    uint64_t oldest = h->files.len ? *(const uint64_t *)h->files.data - 1 : h->base->version;
    uint64_t wanted = h->kept.len ? *(const uint64_t *)h->kept.data : h->horizon;
    pthread_mutex_unlock(&h->lock);
    if (oldest > wanted)
        return err_set(ctx, ERR_CORRUPT,
                       "%s/log: the history file with version %" PRIu64 " is missing", c->dir,
                       wanted);
    enum err e = history_walk_begin(c, oldest, &w, &s, ctx);
    if (e == ERR_OK)
        e = verify_all(c, &w, &s, ctx);
    history_state_deinit(&s);
    history_walk_end(&w);
    return e;
}
