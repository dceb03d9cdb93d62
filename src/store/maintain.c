/* Maintenance of a catalog: one thread that opens the collections at start, and then at every tick
 * seals what is due, scrubs a share of the files, and frees what readers have left behind.
 *
 * It works on references taken inside short epoch sections, so that neither sealing nor scrubbing
 * holds back reclamation. Failure: a collection that cannot be opened, or whose file turns out
 * damaged, is quarantined with the reason; sealing that fails is tried again later. */
#include <time.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "store/catalog_internal.h"
#include "store/scrub.h"
#include "store/session.h"

enum {
    TICK_MS = 100,
    SEAL_RETRY_US = 5 * 1000 * 1000,
    SCRUB_BLOCKS = 512, /* a tick: at most 320 MB/s */
};

/* ---- opening ---- */

/* Opens one entry and puts the result in its place; false when memory is out. */
static bool open_entry(struct catalog *cat, struct entry *e)
{
    char path[PATH_CAP];
    struct err_ctx ctx;
    struct collection *c = NULL;
    err_clear(&ctx);
    entry_path(cat, e->name, path);
    enum err rc = collection_open(cat->io, e->name, path, &cat->hooks, &c, &ctx);
    if (rc != ERR_OK)
        log_error("collection %s is quarantined: %s", e->name, ctx.detail);
    struct entry *opened = entry_new(e->name, c, rc == ERR_OK ? NULL : ctx.detail);
    pthread_mutex_lock(&cat->lock);
    bool ok = opened && table_change(cat, opened, e, &ctx) == ERR_OK;
    pthread_mutex_unlock(&cat->lock);
    if (!ok) {
        collection_release(c);
        if (opened)
            free(opened->fault);
        free(opened);
    } else if (c) {
        collection_announce(c);
    }
    return ok;
}

static struct entry *next_closed(struct catalog *cat)
{
    struct entry *found = NULL;
    epoch_enter();
    const struct table *t = atomic_load(&cat->table);
    for (size_t i = 0; i < t->n && !found; i++) {
        if (!t->entries[i]->c && !t->entries[i]->fault)
            found = t->entries[i];
    }
    epoch_leave();
    return found;
}

static void open_all(struct catalog *cat)
{
    for (struct entry *e; (e = next_closed(cat));) {
        if (!open_entry(cat, e)) {
            log_error("out of memory while opening collections; restart with more");
            return;
        }
    }
    atomic_store(&cat->ready, true);
}

/* ---- maintenance ---- */

static void seal_if_due(struct entry *e)
{
    struct err_ctx ctx;
    int64_t now = (int64_t)clock_mono_us();
    if (!e->c || now < e->retry_seal_us || !collection_wants_seal(e->c))
        return;
    err_clear(&ctx);
    if (collection_seal(e->c, &ctx) != ERR_OK) {
        log_error("collection %s: sealing failed, will be tried again: %s", e->name, ctx.detail);
        e->retry_seal_us = now + SEAL_RETRY_US;
    }
}

/* The entries to look at are copied out, so that sealing runs outside the epoch section. */
static void seal_all(struct catalog *cat)
{
    for (size_t i = 0;; i++) {
        epoch_enter();
        const struct table *t = atomic_load(&cat->table);
        struct entry *e = i < t->n ? t->entries[i] : NULL;
        struct collection *c = e && e->c ? collection_acquire(e->c) : NULL;
        struct entry copy = {.c = c};
        if (e) {
            memcpy(copy.name, e->name, sizeof copy.name);
            copy.retry_seal_us = e->retry_seal_us;
        }
        epoch_leave();
        if (!e)
            return;
        if (!c)
            continue;
        seal_if_due(&copy);
        sessions_sweep(c);
        receipts_sweep(c);
        epoch_enter();
        e = catalog_entry(atomic_load(&cat->table), copy.name);
        if (e)
            e->retry_seal_us = copy.retry_seal_us;
        epoch_leave();
        collection_release(c);
    }
}

/* The collection answers with the reason from here on; requests under way end on what they hold. */
static void quarantine(struct catalog *cat, const char *name, struct collection *c, const char *why)
{
    struct err_ctx ctx;
    struct entry *out = entry_new(name, NULL, why);
    log_error("collection %s is quarantined: %s", name, why);
    pthread_mutex_lock(&cat->lock);
    struct entry *e = catalog_entry(atomic_load(&cat->table), name);
    bool done = out && e && e->c == c && table_change(cat, out, e, &ctx) == ERR_OK;
    if (done) { /* a drop of the entry would not know of the collection, but for its last number */
        pthread_mutex_lock(&c->commit_lock);
        collection_set_read_only(c, why);
        out->last_version = c->head->version;
        pthread_mutex_unlock(&c->commit_lock);
        collection_own_dir(c);
        collection_disown_dir(c, true);
    }
    pthread_mutex_unlock(&cat->lock);
    if (!done && out) {
        free(out->fault);
        free(out);
    }
}

/* One share of the scrub. What is damaged, or could not be read, goes into quarantine: no answer
 * beats a wrong one. */
static void scrub_all(struct catalog *cat)
{
    uint64_t blocks = SCRUB_BLOCKS;
    for (size_t i = 0; blocks; i++) {
        struct err_ctx ctx;
        char name[NAME_MAX_BYTES + 1];
        err_clear(&ctx);
        epoch_enter();
        const struct table *t = atomic_load(&cat->table);
        struct entry *e = i < t->n ? t->entries[i] : NULL;
        struct collection *c = e && e->c ? collection_acquire(e->c) : NULL;
        struct snapshot *s = c ? snapshot_acquire(collection_snapshot(c)) : NULL;
        if (e)
            memcpy(name, e->name, sizeof name);
        epoch_leave();
        if (!e)
            return;
        if (c &&
            (mapping_check(c->dir, &ctx) != ERR_OK || scrub_snapshot(s, &blocks, &ctx) != ERR_OK))
            quarantine(cat, name, c, ctx.detail);
        snapshot_release(s);
        collection_release(c);
    }
}

static bool wait_tick(struct catalog *cat)
{
    struct timespec until = clock_after_ms(TICK_MS);
    pthread_mutex_lock(&cat->tick_lock);
    if (!cat->stopping)
        pthread_cond_timedwait(&cat->tick, &cat->tick_lock, &until);
    bool go_on = !cat->stopping;
    pthread_mutex_unlock(&cat->tick_lock);
    return go_on;
}

void *catalog_maintain(void *arg)
{
    struct catalog *cat = arg;
    open_all(cat);
    while (wait_tick(cat)) {
        seal_all(cat);
        scrub_all(cat);
        epoch_collect();
    }
    return NULL;
}
