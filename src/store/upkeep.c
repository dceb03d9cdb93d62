/* The thread that keeps collections in shape: once a second it looks at each one, merges what the
 * tiers ask for, and now and then lets go of what retention does not keep.
 *
 *   compaction  step by step, until nothing is due; a failure is tried again after a while
 *   retention   every RETENTION_US, and after a compaction: its inputs may be nobody's
 *
 * It stands apart from the maintenance thread, whose sealing commits wait for. Threads: this one;
 * upkeep_lock of a collection orders it with requests that ask for the same. Failure: said in the
 * log; nothing is lost, only late. */
#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "store/catalog_internal.h"
#include "store/upkeep_internal.h"

enum {
    TICK_MS = 1000,
    RETRY_US = 60 * 1000 * 1000,
    RETENTION_US = 30 * 1000 * 1000,
    UPKEEP_WAIT_MS = 30 * 1000,
    UPKEEP_WAITING_MAX = 4,
};

/* ---- shared with compact.c and vacuum.c ---- */

struct snapshot *collection_newest(struct collection *c)
{
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    return s;
}

enum err upkeep_begin(struct collection *c, struct err_ctx *ctx)
{
    struct timespec until = clock_after_ms(UPKEEP_WAIT_MS);
    bool first_few = atomic_fetch_add(&c->upkeep_waiting, 1) < UPKEEP_WAITING_MAX;
    int failed =
        first_few ? pthread_mutex_clocklock(&c->upkeep_lock, CLOCK_MONOTONIC, &until) : EBUSY;
    atomic_fetch_sub(&c->upkeep_waiting, 1);
    if (failed)
        return err_set(ctx, ERR_BUSY,
                       "a compaction, vacuum or purge of '%s' runs and others wait for it: try "
                       "again when it is over",
                       c->name);
    if (!atomic_load(&c->upkeep_cancel))
        return ERR_OK;
    pthread_mutex_unlock(&c->upkeep_lock);
    return err_set(ctx, ERR_UNAVAILABLE, "collection '%s' is being closed", c->name);
}

void upkeep_end(struct collection *c)
{
    pthread_mutex_unlock(&c->upkeep_lock);
}

enum err upkeep_wait(struct collection *c, uint64_t ticket, struct snapshot *next,
                     struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    enum err e = wal_wait(c->wal, ticket, &why);
    pthread_mutex_lock(&c->commit_lock);
    if (e != ERR_OK)
        collection_set_read_only(c, why.detail);
    else if (next)
        collection_publish(c, next);
    pthread_mutex_unlock(&c->commit_lock);
    return e == ERR_OK ? ERR_OK : err_set(ctx, e, "%s", why.detail);
}

/* ---- one collection ---- */

static bool may_fail(enum err e) /* it comes right by itself */
{
    return e == ERR_CONFLICT || e == ERR_UNAVAILABLE || e == ERR_NOT_FOUND;
}

/* With upkeep_lock. */
static void compact_due(struct collection *c, int64_t now)
{
    bool did = true, any = false;
    enum err e = ERR_OK;
    struct err_ctx ctx;
    err_clear(&ctx);
    while (did && e == ERR_OK && !atomic_load(&c->upkeep_cancel)) {
        e = compact_step(c, COMPACT_DUE, UINT64_MAX, &did, &ctx);
        any |= did && e == ERR_OK;
    }
    if (any)
        c->retention_us = 0;
    if (e == ERR_OK)
        return;
    c->compact_retry_us = now + RETRY_US;
    if (!may_fail(e))
        log_warn("collection %s: a compaction failed, will be tried again: %s", c->name,
                 ctx.detail);
}

static void retain(struct collection *c, int64_t now)
{
    struct vacuum_options o = {0};
    struct vacuum_result r;
    struct err_ctx ctx;
    err_clear(&ctx);
    enum err e = vacuum_step(c, &o, &r, &ctx);
    c->retention_us = now + RETENTION_US;
    if (e == ERR_OK && r.segments)
        log_info("collection %s: %llu versions are let go, with %llu segments of %llu bytes",
                 c->name, (unsigned long long)r.versions, (unsigned long long)r.segments,
                 (unsigned long long)r.bytes);
    if (e != ERR_OK && !may_fail(e))
        log_warn("collection %s: versions beyond retention stay, will be tried again: %s", c->name,
                 ctx.detail);
}

static void look_after(struct catalog *cat, struct collection *c)
{
    int64_t now = (int64_t)clock_mono_us();
    if (collection_dropped(c) || collection_read_only(c) || upkeep_begin(c, NULL) != ERR_OK)
        return;
    if (cat->upkeep_options.compaction && now >= c->compact_retry_us)
        compact_due(c, now);
    if (now >= c->retention_us && !atomic_load(&c->upkeep_cancel))
        retain(c, now);
    upkeep_end(c);
}

/* ---- the thread ---- */

/* Referenced; NULL at the end of the table, or for an entry that is not open. */
static struct collection *entry_at(struct catalog *cat, size_t i, bool *end)
{
    epoch_enter();
    const struct table *t = atomic_load(&cat->table);
    *end = i >= t->n;
    struct collection *c = *end ? NULL : t->entries[i]->c;
    if (c)
        collection_acquire(c);
    epoch_leave();
    return c;
}

static void each_open(struct catalog *cat, void (*fn)(struct catalog *cat, struct collection *c))
{
    bool end = false;
    for (size_t i = 0; !end; i++) {
        struct collection *c = entry_at(cat, i, &end);
        if (c)
            fn(cat, c);
        collection_release(c);
    }
}

static bool wait_tick(struct catalog *cat)
{
    struct timespec until = clock_after_ms(TICK_MS);
    pthread_mutex_lock(&cat->tick_lock);
    if (!cat->upkeep_stopping)
        pthread_cond_timedwait(&cat->upkeep_tick, &cat->tick_lock, &until);
    bool go_on = !cat->upkeep_stopping;
    pthread_mutex_unlock(&cat->tick_lock);
    return go_on;
}

static void *run(void *arg)
{
    struct catalog *cat = arg;
    while (wait_tick(cat))
        each_open(cat, look_after);
    return NULL;
}

enum err catalog_start_upkeep(struct catalog *cat, const struct upkeep_options *options,
                              struct err_ctx *ctx)
{
    cat->upkeep_options = *options;
    int rc = pthread_create(&cat->upkeep_thread, NULL, run, cat);
    if (rc)
        return err_system(ctx, rc, "start the thread for upkeep");
    cat->upkeep_started = true;
    return ERR_OK;
}

static void cancel(struct catalog *cat, struct collection *c)
{
    (void)cat;
    atomic_store(&c->upkeep_cancel, true);
}

void catalog_stop_upkeep(struct catalog *cat)
{
    pthread_mutex_lock(&cat->tick_lock);
    cat->upkeep_stopping = true;
    pthread_cond_signal(&cat->upkeep_tick);
    pthread_mutex_unlock(&cat->tick_lock);
    each_open(cat, cancel);
    if (cat->upkeep_started)
        pthread_join(cat->upkeep_thread, NULL);
    cat->upkeep_started = false;
}
