/* The registry of segments: a sorted array, looked up by bisection.
 *
 * Ids are given out in ascending order, so that additions nearly always go to the end. Threads and
 * failure: registry.h; nothing here fails but the memory of a reservation and the opening of a
 * file, and neither leaves a trace. */
#include "store/registry.h"

#include <inttypes.h>

#include "store/collection_internal.h"

void registry_init(struct registry *r)
{
    *r = (struct registry){0};
    pthread_mutex_init(&r->lock, NULL);
}

void registry_deinit(struct registry *r)
{
    for (size_t i = 0; i < r->n; i++)
        segment_release(r->list[i].segment);
    free(r->list);
    pthread_mutex_destroy(&r->lock);
}

/* Where the id is, or would go. */
static size_t place_of(const struct registry *r, uint64_t id)
{
    size_t lo = 0, hi = r->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r->list[mid].ref.id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct registered *find(const struct registry *r, uint64_t id)
{
    size_t i = place_of(r, id);
    return i < r->n && r->list[i].ref.id == id ? &r->list[i] : NULL;
}

enum err registry_reserve(struct collection *c, size_t n, struct err_ctx *ctx)
{
    struct registry *r = &c->registry;
    enum err e = ERR_OK;
    pthread_mutex_lock(&r->lock);
    if (r->n + n > r->cap) {
        size_t cap = r->cap * 2 > r->n + n ? r->cap * 2 : r->n + n + 8;
        struct registered *grown = realloc(r->list, cap * sizeof *grown);
        if (grown) {
            r->list = grown;
            r->cap = cap;
        } else {
            e = err_no_memory(ctx, cap * sizeof *grown);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return e;
}

static void insert(struct registry *r, struct registered one)
{
    pthread_mutex_lock(&r->lock);
    size_t at = place_of(r, one.ref.id);
    ASSERT(r->n < r->cap && (at == r->n || r->list[at].ref.id != one.ref.id));
    memmove(r->list + at + 1, r->list + at, (r->n - at) * sizeof *r->list);
    r->list[at] = one;
    r->n++;
    r->changes++;
    pthread_mutex_unlock(&r->lock);
}

static struct segment_ref ref_of(const struct segment *s)
{
    return (struct segment_ref){.id = s->id,
                                .base_version = s->base_version,
                                .rows = s->tail ? tail_rows(s) : s->rows,
                                .base_ordinal = s->base_ordinal};
}

void registry_add(struct collection *c, struct segment *s)
{
    insert(&c->registry, (struct registered){ref_of(s), segment_acquire(s)});
}

void registry_add_closed(struct collection *c, const struct segment_ref *ref)
{
    insert(&c->registry, (struct registered){*ref, NULL});
}

uint64_t registry_changes(struct collection *c)
{
    pthread_mutex_lock(&c->registry.lock);
    uint64_t changes = c->registry.changes;
    pthread_mutex_unlock(&c->registry.lock);
    return changes;
}

bool registry_has(struct collection *c, uint64_t id)
{
    pthread_mutex_lock(&c->registry.lock);
    bool has = find(&c->registry, id) != NULL;
    pthread_mutex_unlock(&c->registry.lock);
    return has;
}

void registry_replace(struct collection *c, struct segment *file)
{
    struct segment *before = NULL;
    pthread_mutex_lock(&c->registry.lock);
    struct registered *at = find(&c->registry, file->id);
    if (at) {
        before = at->segment;
        *at = (struct registered){ref_of(file), segment_acquire(file)};
        c->registry.changes++;
    }
    pthread_mutex_unlock(&c->registry.lock);
    segment_release(before);
}

void registry_remove(struct collection *c, const uint64_t *ids, size_t n)
{
    struct registry *r = &c->registry;
    for (size_t i = 0; i < n; i++) {
        struct segment *before = NULL;
        pthread_mutex_lock(&r->lock);
        struct registered *at = find(r, ids[i]);
        if (at) {
            before = at->segment;
            r->n--;
            r->changes++;
            memmove(at, at + 1, (size_t)(r->list + r->n - at) * sizeof *at);
        }
        pthread_mutex_unlock(&r->lock);
        segment_release(before);
    }
}

static bool waits(const struct registered *one, const struct segment *active)
{
    return one->segment && one->segment->tail && one->segment != active && tail_rows(one->segment);
}

struct segment *registry_closed_tail(struct collection *c, const struct segment *active)
{
    struct registry *r = &c->registry;
    struct segment *found = NULL;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n && !found; i++) {
        if (waits(&r->list[i], active))
            found = segment_acquire(r->list[i].segment);
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

void registry_closed_tails_size(struct collection *c, const struct segment *active, uint64_t *rows,
                                uint64_t *bytes)
{
    struct registry *r = &c->registry;
    *rows = *bytes = 0;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n; i++) {
        if (!waits(&r->list[i], active))
            continue;
        *rows += tail_rows(r->list[i].segment);
        *bytes += tail_bytes(r->list[i].segment);
    }
    pthread_mutex_unlock(&r->lock);
}

void registry_files(struct collection *c, struct buf *out)
{
    struct registry *r = &c->registry;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n; i++) {
        if (!r->list[i].segment || !r->list[i].segment->tail)
            buf_put_u64(out, r->list[i].ref.id);
    }
    pthread_mutex_unlock(&r->lock);
}

void registry_list(struct collection *c, struct buf *out)
{
    struct registry *r = &c->registry;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->n; i++) {
        struct segment_ref ref = r->list[i].segment ? ref_of(r->list[i].segment) : r->list[i].ref;
        if (ref.rows)
            buf_put(out, &ref, sizeof ref);
    }
    pthread_mutex_unlock(&r->lock);
}

/* ---- opening ---- */

enum err segment_open_ref(struct collection *c, const struct segment_ref *ref, struct segment **out,
                          struct err_ctx *ctx)
{
    char path[PATH_CAP];
    segment_file_path(c, "segments", ref->id, path, sizeof path);
    RETURN_NOT_OK(segment_open(path, c->id, out, ctx));
    struct segment *s = *out;
    s->base_version = ref->base_version;
    s->base_ordinal = ref->base_ordinal;
    if (s->id == ref->id && s->rows == ref->rows)
        return ERR_OK;
    segment_release(s);
    return err_set(ctx, ERR_CORRUPT, "%s: the file is not the segment that the log refers to",
                   path);
}

/* Of two that open one at the same time, one keeps what the other opened. */
static enum err open_and_keep(struct collection *c, const struct segment_ref *ref,
                              struct segment **out, struct err_ctx *ctx)
{
    struct segment *opened, *other = NULL;
    RETURN_NOT_OK(segment_open_ref(c, ref, &opened, ctx));
    pthread_mutex_lock(&c->registry.lock);
    struct registered *at = find(&c->registry, ref->id);
    if (at && at->segment)
        other = segment_acquire(at->segment);
    else if (at)
        at->segment = segment_acquire(opened);
    pthread_mutex_unlock(&c->registry.lock);
    if (other) {
        segment_release(opened);
        opened = other;
    } else if (c->hooks && c->hooks->segment_opened) {
        c->hooks->segment_opened(c->hooks->arg, c, opened);
    }
    *out = opened;
    return ERR_OK;
}

enum err collection_segment(struct collection *c, uint64_t id, struct segment **out,
                            struct err_ctx *ctx)
{
    struct segment_ref ref = {0};
    pthread_mutex_lock(&c->registry.lock);
    const struct registered *at = find(&c->registry, id);
    *out = at && at->segment ? segment_acquire(at->segment) : NULL;
    if (at)
        ref = at->ref;
    pthread_mutex_unlock(&c->registry.lock);
    if (*out)
        return ERR_OK;
    if (!at)
        return err_set(ctx, ERR_NOT_FOUND, "%s: segment %016" PRIx64 " is not part of any version",
                       c->dir, id);
    return open_and_keep(c, &ref, out, ctx);
}
