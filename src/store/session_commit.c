/* Committing a load: the parts that count, read back and handed to load_commit_parts.
 *
 * Which parts those are is settled when the commit begins; from then on the load takes no more. A
 * commit that fails leaves every file where it was, and the load open. One that succeeds leaves a
 * receipt, in the log and in memory, and no files.
 *
 * A log that could not be synced leaves the collection read-only: whether the record is there, the
 * next start knows; the load stays open until then.
 *
 * Threads: the committing state belongs to one thread, which may take long. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/session_internal.h"

/* With the lock. */
static enum err choose(struct session *s, const struct session_name *names, size_t n,
                       struct err_ctx *ctx)
{
    size_t count = names ? n : s->nparts, at;
    uint8_t *wanted = calloc(s->nparts + 1, 1);
    s->chosen = calloc(count + 1, sizeof *s->chosen);
    enum err e = wanted && s->chosen ? ERR_OK : err_no_memory(ctx, count * sizeof *s->chosen);
    for (size_t i = 0; e == ERR_OK && i < count; i++) {
        bool found = names ? session_find_part(s, names[i].text, names[i].len, &at) : true;
        if (!found)
            e = err_set_at(ctx, ERR_UNPROCESSABLE, -1, "parts",
                           "part '%.*s' was not loaded: put it and commit again, or leave it out",
                           (int)(names[i].len < 200 ? names[i].len : 200), names[i].text);
        else
            wanted[names ? at : i] = 1;
    }
    s->nchosen = 0;
    for (size_t i = 0; e == ERR_OK && i < s->nparts; i++) {
        if (wanted[i])
            s->chosen[s->nchosen++] = s->parts[i];
    }
    free(wanted);
    if (e != ERR_OK) {
        free(s->chosen);
        s->chosen = NULL;
    }
    return e;
}

static enum err begin_locked(struct session *s, const struct session_name *names, size_t n,
                             enum session_commit *what, struct err_ctx *ctx)
{
    *what = s->state == SESSION_COMMITTED    ? SESSION_DONE
            : s->state == SESSION_COMMITTING ? SESSION_ATTACH
                                             : SESSION_RUN;
    if (*what != SESSION_RUN)
        return ERR_OK;
    RETURN_NOT_OK(session_check_open(s, ctx));
    s->active_us = clock_wall_us();
    if (s->puts)
        return err_set(ctx, ERR_CONFLICT,
                       "%u parts of the load are still on their way: commit when they have been "
                       "answered",
                       s->puts);
    RETURN_NOT_OK(choose(s, names, n, ctx));
    s->state = SESSION_COMMITTING;
    err_clear(&s->error);
    atomic_store(&s->watch.phase, LOAD_PREPARING);
    atomic_store(&s->build.progress, 0);
    atomic_store(&s->build.eta_s, -1);
    return ERR_OK;
}

enum err session_commit_begin(struct session *s, const struct session_name *names, size_t n,
                              enum session_commit *what, struct err_ctx *ctx)
{
    pthread_mutex_lock(&s->c->sessions->lock);
    enum err e = begin_locked(s, names, n, what, ctx);
    pthread_mutex_unlock(&s->c->sessions->lock);
    return e;
}

static enum err read_parts(struct session *s, struct load_part *parts, struct err_ctx *ctx)
{
    for (size_t i = 0; i < s->nchosen; i++) {
        const struct part *p = s->chosen[i];
        parts[i].name = p->name;
        parts[i].rows = p->rows;
        RETURN_NOT_OK(session_file_get(s, p, &parts[i].staged, &parts[i].nstaged, ctx));
    }
    return ERR_OK;
}

static enum err commit_parts(struct session *s, const struct load_options *o,
                             struct commit_result *out, struct err_ctx *ctx)
{
    struct load_options opts = *o;
    struct load_receipt receipt = {.load_id = s->id};
    struct buf key = {0};
    struct load_part *parts = calloc(s->nchosen + 1, sizeof *parts);
    enum err e = parts ? read_parts(s, parts, ctx) : err_no_memory(ctx, s->nchosen * sizeof *parts);
    if (s->keyed) {
        receipt_encode_key(s->key, s->created_us + s->expiry_us, &key);
        receipt.key = key.data;
        receipt.key_len = key.len;
        memcpy(receipt.hash, s->hash, sizeof receipt.hash);
        if (e == ERR_OK && key.failed)
            e = err_no_memory(ctx, key.len);
    }
    opts.receipt = &receipt;
    opts.watch = &s->watch;
    if (e == ERR_OK)
        e = load_commit_parts(s->c, &opts, parts, s->nchosen, out, ctx);
    for (size_t i = 0; parts && i < s->nchosen; i++)
        staged_list_free(s->c, parts[i].staged, parts[i].nstaged, false);
    free(parts);
    buf_deinit(&key);
    return e;
}

static void note_outcome(struct session *s, enum err e, const struct commit_result *result,
                         const struct err_ctx *ctx)
{
    struct sessions *all = s->c->sessions;
    pthread_mutex_lock(&all->lock);
    free(s->chosen);
    s->chosen = NULL;
    s->nchosen = 0;
    s->active_us = clock_wall_us();
    if (e == ERR_OK) {
        s->state = SESSION_COMMITTED;
        s->result = *result;
        sessions_list_remove(all, s);
    } else {
        s->state = SESSION_OPEN;
        s->error = *ctx;
    }
    pthread_mutex_unlock(&all->lock);
}

void session_commit_give_up(struct session *s, const struct err_ctx *why)
{
    note_outcome(s, why->code, NULL, why);
}

enum err session_commit_run(struct session *s, const struct load_options *o,
                            struct commit_result *out, struct err_ctx *ctx)
{
    enum err e = commit_parts(s, o, out, ctx);
    if (e == ERR_OK) {
        struct receipt r = session_receipt(s);
        r.committed = true;
        r.mode = o->mode;
        r.time_us = out->time_us;
        r.result = *out;
        receipt_add(s->c, &r);
    }
    note_outcome(s, e, out, ctx);
    if (e == ERR_OK)
        session_file_remove(s->c, s->id);
    return e;
}
