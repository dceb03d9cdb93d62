/* Collections: their life but for opening (open.c): references, creating, publishing, and what the
 * others ask of one.
 *
 * Threads: collection_internal.h. Failure: a directory that could not be made whole is the caller's
 * to remove. */
#include "store/collection_internal.h"
#include "store/compact.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "store/receipt_internal.h"
#include "store/session.h"

static const char *const folders[] = {"log", "segments", "index", "staging"};

const char *collection_name(const struct collection *c)
{
    return c->name;
}

const char *collection_dir(const struct collection *c)
{
    return c->dir;
}

const uint8_t *collection_id(const struct collection *c)
{
    return c->id;
}

struct snapshot *collection_snapshot(const struct collection *c)
{
    return atomic_load_explicit(&c->current, memory_order_acquire);
}

struct schema *collection_schema(const struct collection *c)
{
    epoch_enter();
    struct schema *s = schema_acquire(collection_snapshot(c)->schema);
    epoch_leave();
    return s;
}

struct collection *collection_acquire(struct collection *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

/* A change whose sync failed is in one table only. */
static void free_tags(struct collection *c)
{
    struct tags *published = atomic_load(&c->tags);
    if (published != c->tags_head)
        free(published);
    free(c->tags_head);
}

void collection_release(struct collection *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    snapshot_release(c->head);
    snapshot_release(atomic_load(&c->current));
    rotation_free(c->rotated);
    segment_release(c->tail);
    wal_close(c->wal);
    history_deinit(&c->history);
    registry_deinit(&c->registry);
    free_tags(c);
    row_builder_deinit(&c->apply_row);
    free(c->apply_vector);
    sessions_free(c->sessions);
    receipts_free(c->receipts);
    pthread_mutex_destroy(&c->commit_lock);
    pthread_mutex_destroy(&c->seal_lock);
    pthread_mutex_destroy(&c->upkeep_lock);
    buf_deinit(&c->condemned);
    pthread_mutex_destroy(&c->alter_lock);
    pthread_mutex_destroy(&c->tag_lock);
    pthread_rwlock_destroy(&c->dir_lock);
    pthread_cond_destroy(&c->sealed);
    free(c->dir);
    free(c);
}

bool collection_dropped(const struct collection *c)
{
    return atomic_load(&c->dropped);
}

const char *collection_read_only(const struct collection *c)
{
    return atomic_load(&c->read_only) ? c->read_only_reason : NULL;
}

void collection_set_read_only(struct collection *c, const char *reason)
{
    if (atomic_load(&c->read_only))
        return;
    snprintf(c->read_only_reason, sizeof c->read_only_reason, "%s", reason);
    atomic_store(&c->read_only, true);
    log_error("collection %s is read-only: %s", c->name, reason);
}

enum err collection_check_writable(struct collection *c, struct err_ctx *ctx)
{
    if (atomic_load(&c->dropped))
        return err_set(ctx, ERR_NOT_FOUND, "collection '%s' was dropped meanwhile", c->name);
    if (atomic_load(&c->read_only))
        return err_set(ctx, ERR_UNAVAILABLE,
                       "collection '%s' is read-only until the daemon is restarted: %s", c->name,
                       c->read_only_reason);
    return ERR_OK;
}

enum err collection_enter_dir(struct collection *c, struct err_ctx *ctx)
{
    pthread_rwlock_rdlock(&c->dir_lock);
    if (!c->detached)
        return ERR_OK;
    pthread_rwlock_unlock(&c->dir_lock);
    if (collection_dropped(c))
        return err_set(ctx, ERR_NOT_FOUND, "collection '%s' was dropped meanwhile", c->name);
    return err_set(ctx, ERR_UNAVAILABLE, "collection '%s' is quarantined", c->name);
}

void collection_leave_dir(struct collection *c)
{
    pthread_rwlock_unlock(&c->dir_lock);
}

void collection_own_dir(struct collection *c)
{
    pthread_mutex_lock(&c->seal_lock); /* a sealing under way ends first */
    pthread_rwlock_wrlock(&c->dir_lock);
}

void collection_disown_dir(struct collection *c, bool detach)
{
    c->detached |= detach;
    pthread_rwlock_unlock(&c->dir_lock);
    pthread_mutex_unlock(&c->seal_lock);
}

void segment_file_path(const struct collection *c, const char *folder, uint64_t id, char *out,
                       size_t cap)
{
    snprintf(out, cap, "%s/%s/%016llx.seg", c->dir, folder, (unsigned long long)id);
}

static void release_snapshot(void *s)
{
    snapshot_release(s);
}

void collection_publish(struct collection *c, struct snapshot *s)
{
    struct snapshot *old = atomic_load_explicit(&c->current, memory_order_relaxed);
    if (old && old->serial >= s->serial)
        return;
    atomic_store_explicit(&c->current, snapshot_acquire(s), memory_order_release);
    if (old)
        epoch_retire(release_snapshot, old);
}

void collection_end(struct collection *c)
{
    struct err_ctx why;
    err_clear(&why);
    pthread_mutex_lock(&c->commit_lock);
    if (!collection_dropped(c) && !collection_read_only(c) && wal_end(c->wal, &why) != ERR_OK)
        log_warn("collection %s: the end of its log could not be marked: %s", c->name, why.detail);
    pthread_mutex_unlock(&c->commit_lock);
}

/* ---- creating ---- */

static enum err write_create_record(struct io *io, const char *log_dir, struct schema *schema,
                                    uint64_t base_version, struct err_ctx *ctx)
{
    uint8_t id[16];
    uint64_t ticket;
    struct wal *w;
    struct buf record = {0};
    random_bytes(id, sizeof id);
    create_record_encode(schema, base_version, &record);
    if (record.failed)
        return err_no_memory(ctx, record.len);
    enum err e = wal_create(io, log_dir, id, 1, 1, &w, ctx);
    if (e == ERR_OK) {
        e = wal_append(w, record.data, record.len, &ticket, ctx);
        if (e == ERR_OK)
            e = wal_wait(w, ticket, ctx);
        wal_close(w);
    }
    buf_deinit(&record);
    return e;
}

enum err collection_init_dir(struct io *io, const char *dir, struct schema *schema,
                             uint64_t base_version, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    RETURN_NOT_OK(io_mkdir(io, dir, ctx));
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, folders[i]);
        RETURN_NOT_OK(io_mkdir(io, path, ctx));
    }
    snprintf(path, sizeof path, "%s/log", dir);
    return write_create_record(io, path, schema, base_version, ctx);
}

/* ---- life ---- */

struct collection *collection_alloc(struct io *io, const char *name, const char *dir,
                                    const struct store_hooks *hooks)
{
    struct collection *c = calloc(1, sizeof *c);
    if (!c || !(c->dir = strdup(dir)) || !(c->tags_head = tags_new())) {
        free(c ? c->dir : NULL);
        free(c);
        return NULL;
    }
    c->tags = c->tags_head;
    c->sessions = sessions_new();
    c->receipts = receipts_new();
    if (!c->sessions || !c->receipts) {
        sessions_free(c->sessions);
        receipts_free(c->receipts);
        free_tags(c);
        free(c->dir);
        free(c);
        return NULL;
    }
    atomic_init(&c->refs, 1);
    snprintf(c->name, sizeof c->name, "%s", name);
    c->io = io;
    c->hooks = hooks;
    c->next_segment_id = 1;
    pthread_mutex_init(&c->commit_lock, NULL);
    pthread_mutex_init(&c->seal_lock, NULL);
    pthread_mutex_init(&c->upkeep_lock, NULL);
    c->compact_bytes_max = COMPACT_BYTES_MAX;
    pthread_mutex_init(&c->alter_lock, NULL);
    pthread_mutex_init(&c->tag_lock, NULL);
    history_init(&c->history);
    registry_init(&c->registry);
    pthread_rwlock_init(&c->dir_lock, NULL);
    clock_cond_init(&c->sealed);
    return c;
}

void collection_note_segment_id(struct collection *c, uint64_t id)
{
    if (id >= atomic_load(&c->next_segment_id))
        atomic_store(&c->next_segment_id, id + 1);
}

enum err collection_check_unknown(struct collection *c, uint64_t segment_id, struct err_ctx *ctx)
{
    if (!registry_has(c, segment_id))
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT, "segment %016llx comes twice", (unsigned long long)segment_id);
}

void collection_set_tail(struct collection *c, struct segment *tail)
{
    struct segment *old = c->tail;
    registry_add(c, tail);
    c->tail = segment_acquire(tail);
    if (old && tail_rows(old) == 0)
        registry_remove(c, &old->id, 1);
    segment_release(old);
}

void collection_announce(struct collection *c)
{
    if (!c->hooks || !c->hooks->segment_added)
        return;
    epoch_enter();
    const struct snapshot *s = collection_snapshot(c);
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (!s->views[i].segment->tail)
            c->hooks->segment_added(c->hooks->arg, c, s->views[i].segment);
    }
    epoch_leave();
}
