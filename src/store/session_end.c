/* Load sessions: aborting, expiring, and what is known of those that ended.
 *
 * An end is written to the file of ends, under its own lock, before the load's files go, so that
 * nothing can be taken for an open load whose parts are half gone.
 *
 * Threads: requests abort, the maintenance thread sweeps. Failure: a load that could not be ended
 * stays as it was; one that expired is tried again later. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/session_internal.h"

enum { EXPIRE_AGAIN_US = 5 * 1000 * 1000 };

enum err session_ended(const struct session_info *info, struct err_ctx *ctx)
{
    switch (info->state) {
    case SESSION_OPEN:
        return ERR_OK;
    case SESSION_COMMITTING:
        return err_set(ctx, ERR_CONFLICT, "the load is being committed");
    case SESSION_COMMITTED:
        return err_set(ctx, ERR_CONFLICT, "the load is committed as version %" PRIu64,
                       info->result.version);
    case SESSION_ABORTED:
        return err_set(ctx, ERR_GONE, "the load was aborted%s%.900s: open another",
                       info->error.code != ERR_OK ? ", because " : "", info->error.detail);
    case SESSION_EXPIRED:
        return err_set(ctx, ERR_GONE,
                       "the load expired, because nothing came for it for so long: "
                       "open another");
    }
    return ERR_OK;
}

enum err session_check_open(const struct session *s, struct err_ctx *ctx)
{
    struct session_info info;
    session_describe_locked(s, &info);
    RETURN_NOT_OK(session_ended(&info, ctx));
    return s->fault ? err_set(ctx, ERR_CORRUPT, "the load can only be aborted: %s", s->fault)
                    : ERR_OK;
}

enum err session_find_open(struct collection *c, const uint8_t id[LOAD_ID_BYTES],
                           struct session **s, struct err_ctx *ctx)
{
    struct session_info info;
    RETURN_NOT_OK(session_find(c, id, s, &info, ctx));
    enum err e = session_ended(&info, ctx);
    ASSERT(e != ERR_OK || *s);
    if (e != ERR_OK) {
        session_release(*s);
        *s = NULL;
    }
    return e;
}

static struct session_end end_of(const struct session *s, bool expired)
{
    struct session_end end = {
        .expired = expired,
        .keyed = s->keyed,
        .opened_expires_us = s->created_us + s->expiry_us,
        .time_us = clock_wall_us(),
    };
    memcpy(end.id, s->id, sizeof end.id);
    memcpy(end.key, s->key, sizeof end.key);
    memcpy(end.hash, s->hash, sizeof end.hash);
    return end;
}

/* With the file lock: writes what the ends are with this one, then makes it known. */
static enum err record_end(struct session *s, bool expired, struct err_ctx *ctx)
{
    struct sessions *all = s->c->sessions;
    struct session_end end = end_of(s, expired);
    size_t n = all->nends; /* changes only under the file lock */
    struct session_end *ends = malloc((n + 1) * sizeof *ends);
    if (!ends)
        return err_no_memory(ctx, (n + 1) * sizeof *ends);
    if (n)
        memcpy(ends, all->ends, n * sizeof *ends);
    ends[n] = end;
    size_t skip = n + 1 > SESSION_ENDS_MAX ? 1 : 0;
    enum err e = session_file_ends(s->c, ends + skip, n + 1 - skip, ctx);
    free(ends);
    RETURN_NOT_OK(e);
    pthread_mutex_lock(&all->lock);
    bool added = sessions_ends_add(all, &end);
    pthread_mutex_unlock(&all->lock);
    return added ? ERR_OK : err_no_memory(ctx, sizeof end);
}

/* The state is set first, so that nothing begins on a load that goes; and back when it stays. */
static enum err end_session(struct session *s, bool expired, struct err_ctx *ctx)
{
    struct sessions *all = s->c->sessions;
    pthread_mutex_lock(&all->file_lock);
    enum err e = record_end(s, expired, ctx);
    pthread_mutex_unlock(&all->file_lock);
    pthread_mutex_lock(&all->lock);
    if (e == ERR_OK) {
        sessions_list_remove(all, s);
    } else {
        s->state = SESSION_OPEN;
        if (expired)
            s->active_us = clock_wall_us() - s->expiry_us + EXPIRE_AGAIN_US;
    }
    unsigned puts = s->puts;
    pthread_mutex_unlock(&all->lock);
    if (e == ERR_OK && puts == 0) /* else the last put removes them */
        session_file_remove(s->c, s->id);
    return e;
}

enum err session_abort(struct session *s, struct err_ctx *ctx)
{
    struct sessions *all = s->c->sessions;
    pthread_mutex_lock(&all->lock);
    enum err e = s->state == SESSION_OPEN ? ERR_OK : session_check_open(s, ctx);
    if (e == ERR_OK)
        s->state = SESSION_ABORTED;
    pthread_mutex_unlock(&all->lock);
    return e == ERR_OK ? end_session(s, false, ctx) : e;
}

/* ---- the sweep ---- */

static bool is_due(const struct session *s, int64_t now_us)
{
    return s->state == SESSION_OPEN && !s->opening && !s->one_shot && s->puts == 0 &&
           now_us >= s->retry_us && (s->unsettled || now_us - s->active_us > s->expiry_us);
}

/* One load that is to be settled or has expired, referenced; NULL: none. */
static struct session *take_due(struct collection *c)
{
    struct sessions *all = c->sessions;
    struct session *found = NULL;
    int64_t now = clock_wall_us();
    pthread_mutex_lock(&all->lock);
    for (size_t i = 0; i < all->n && !found; i++) {
        if (is_due(all->list[i], now))
            found = session_acquire(all->list[i]);
    }
    if (found && !found->unsettled)
        found->state = SESSION_EXPIRED;
    pthread_mutex_unlock(&all->lock);
    return found;
}

static void forget_old_ends(struct sessions *all)
{
    size_t old = 0;
    int64_t now = clock_wall_us();
    pthread_mutex_lock(&all->file_lock);
    pthread_mutex_lock(&all->lock);
    while (old < all->nends && now - all->ends[old].time_us > RECEIPT_LOAD_US)
        old++;
    all->nends -= old;
    if (old)
        memmove(all->ends, all->ends + old, all->nends * sizeof *all->ends);
    pthread_mutex_unlock(&all->lock);
    pthread_mutex_unlock(&all->file_lock);
}

static void put_off(struct session *s)
{
    pthread_mutex_lock(&s->c->sessions->lock);
    s->retry_us = clock_wall_us() + EXPIRE_AGAIN_US;
    pthread_mutex_unlock(&s->c->sessions->lock);
}

void sessions_sweep(struct collection *c)
{
    struct err_ctx why;
    bool committed;
    for (struct session *s; (s = take_due(c));) {
        char id[33];
        err_clear(&why);
        session_id_text(s->id, id);
        bool settling = s->state != SESSION_EXPIRED;
        enum err e = settling ? session_settle(s, &committed, &why) : end_session(s, true, &why);
        if (e != ERR_OK) {
            log_warn("collection %s: load %s: %s", c->name, id, why.detail);
            put_off(s);
        } else if (!settling) {
            log_info("collection %s: load %s expired", c->name, id);
        }
        session_release(s);
    }
    forget_old_ends(c->sessions);
}
