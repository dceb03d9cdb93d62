/* Tags: names for versions, durable.
 *
 *   set / delete   tag lock: one at a time
 *     commit lock  check that the version is kept; log the record; tags_head
 *     wait         for the sync, outside the commit lock
 *     publish      readers see it
 *
 * A vacuum decides under the commit lock, too, by tags_head: the check holds. Failure:
 * before the record is logged nothing has happened; a failed sync makes the collection
 * read-only. */
#include "store/tags.h"

#include <inttypes.h>

#include "base/epoch.h"
#include "store/collection_internal.h"

bool tag_valid(const char *tag)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    size_t n = strlen(tag);
    if (n == 0 || n > TAG_MAX_BYTES || !strchr(letters, tag[0]))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!strchr(letters, tag[i]) && tag[i] != '.' && tag[i] != '-')
            return false;
    }
    return true;
}

/* ---- tables ---- */

struct tags *tags_new(void)
{
    return calloc(1, sizeof(struct tags));
}

/* Where the name is, or would go. */
static size_t place_of(const struct tags *t, const char *name, bool *found)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(t->list[mid].name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = lo < t->n && strcmp(t->list[lo].name, name) == 0;
    return lo;
}

enum err tags_change(const struct tags *t, const struct tag_record *r, struct tags **out,
                     struct err_ctx *ctx)
{
    struct tag fresh = {.version = r->version};
    bool found;
    if (r->tag_len <= TAG_MAX_BYTES)
        memcpy(fresh.name, r->tag, r->tag_len);
    if (!tag_valid(fresh.name) || strlen(fresh.name) != r->tag_len)
        return err_set(ctx, ERR_CORRUPT, "a record of a tag holds no valid name");
    size_t at = place_of(t, fresh.name, &found);
    if (!r->set && !found)
        return err_set(ctx, ERR_NOT_FOUND, "there is no tag '%s'", fresh.name);
    struct tags *next = calloc(1, sizeof *next + (t->n + 1) * sizeof next->list[0]);
    if (!next)
        return err_no_memory(ctx, t->n * sizeof next->list[0]);
    size_t behind = at + found; /* in t */
    memcpy(next->list, t->list, at * sizeof next->list[0]);
    next->n = at;
    if (r->set)
        next->list[next->n++] = fresh;
    memcpy(next->list + next->n, t->list + behind, (t->n - behind) * sizeof next->list[0]);
    next->n += t->n - behind;
    *out = next;
    return ERR_OK;
}

enum err tags_from_refs(const struct buf *refs, struct tags **out, struct err_ctx *ctx)
{
    const struct tag_ref *r = (const struct tag_ref *)refs->data;
    struct tags *t = tags_new();
    if (!t)
        return err_no_memory(ctx, sizeof *t);
    for (size_t i = 0; i < refs->len / sizeof *r; i++) {
        struct tag_record one = {r[i].tag, r[i].tag_len, true, r[i].version};
        struct tags *next;
        enum err e = tags_change(t, &one, &next, ctx);
        free(t);
        RETURN_NOT_OK(e);
        t = next;
    }
    *out = t;
    return ERR_OK;
}

void tags_list(const struct tags *t, struct buf *out)
{
    for (size_t i = 0; i < t->n; i++) {
        struct tag_ref ref = {t->list[i].name, strlen(t->list[i].name), t->list[i].version};
        buf_put(out, &ref, sizeof ref);
    }
}

/* ---- reading ---- */

enum err collection_tag_get(struct collection *c, const char *tag, uint64_t *version,
                            struct err_ctx *ctx)
{
    bool found;
    epoch_enter();
    const struct tags *t = atomic_load_explicit(&c->tags, memory_order_acquire);
    size_t at = place_of(t, tag, &found);
    if (found)
        *version = t->list[at].version;
    epoch_leave();
    return found ? ERR_OK
                 : err_set(ctx, ERR_NOT_FOUND, "collection '%s' has no tag '%.128s'", c->name, tag);
}

void collection_tags_each(struct collection *c,
                          void (*fn)(void *arg, const char *tag, uint64_t version), void *arg)
{
    epoch_enter();
    const struct tags *t = atomic_load_explicit(&c->tags, memory_order_acquire);
    for (size_t i = 0; i < t->n; i++)
        fn(arg, t->list[i].name, t->list[i].version);
    epoch_leave();
}

/* ---- writing ---- */

static enum err log_tag(struct collection *c, const struct tag_record *r, uint64_t *ticket,
                        struct err_ctx *ctx)
{
    struct buf record = {0};
    tag_record_encode(r, &record);
    enum err e = record.failed ? err_no_memory(ctx, record.len)
                               : collection_log(c, record.data, record.len, ticket, ctx);
    buf_deinit(&record);
    return e;
}

/* With the commit lock. */
static enum err change_locked(struct collection *c, const struct tag_record *r, uint64_t *ticket,
                              struct err_ctx *ctx)
{
    struct tags *next;
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    if (r->set)
        RETURN_NOT_OK(history_check(c, r->version, ctx));
    RETURN_NOT_OK(tags_change(c->tags_head, r, &next, ctx));
    enum err e = next->n > TAGS_MAX
                     ? err_set(ctx, ERR_UNPROCESSABLE,
                               "a collection has at most %d tags; delete one first", TAGS_MAX)
                     : log_tag(c, r, ticket, ctx);
    if (e != ERR_OK) {
        free(next);
        return e;
    }
    c->tags_head = next;
    return ERR_OK;
}

/* With the tag lock: readers see what is durable now. */
static void publish(struct collection *c)
{
    struct tags *old = atomic_load_explicit(&c->tags, memory_order_relaxed);
    atomic_store_explicit(&c->tags, c->tags_head, memory_order_release);
    epoch_retire(free, old);
}

static enum err change(struct collection *c, const struct tag_record *r, struct err_ctx *ctx)
{
    uint64_t ticket;
    struct err_ctx why;
    err_clear(&why);
    pthread_mutex_lock(&c->commit_lock);
    enum err e = change_locked(c, r, &ticket, ctx);
    pthread_mutex_unlock(&c->commit_lock);
    RETURN_NOT_OK(e);
    e = wal_wait(c->wal, ticket, &why);
    if (e == ERR_OK) {
        publish(c);
        return ERR_OK;
    }
    pthread_mutex_lock(&c->commit_lock);
    collection_set_read_only(c, why.detail);
    pthread_mutex_unlock(&c->commit_lock);
    return err_set(ctx, e, "%s", why.detail);
}

enum err collection_tag_set(struct collection *c, const char *tag, uint64_t version, bool *created,
                            struct err_ctx *ctx)
{
    struct tag_record r = {tag, strlen(tag), true, version};
    if (!tag_valid(tag))
        return err_set(
            ctx, ERR_INVALID,
            "tag '%.128s' is not allowed: it must match [A-Za-z0-9_][A-Za-z0-9_.-]{0,%d}", tag,
            TAG_MAX_BYTES - 1);
    pthread_mutex_lock(&c->tag_lock);
    bool found;
    (void)place_of(atomic_load(&c->tags), tag, &found);
    *created = !found;
    enum err e = change(c, &r, ctx);
    pthread_mutex_unlock(&c->tag_lock);
    return e;
}

enum err collection_tag_delete(struct collection *c, const char *tag, struct err_ctx *ctx)
{
    struct tag_record r = {tag, strlen(tag), false, 0};
    if (!tag_valid(tag))
        return err_set(ctx, ERR_NOT_FOUND, "collection '%s' has no tag '%.128s'", c->name, tag);
    pthread_mutex_lock(&c->tag_lock);
    enum err e = change(c, &r, ctx);
    pthread_mutex_unlock(&c->tag_lock);
    return e;
}
