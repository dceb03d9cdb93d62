/* Load sessions: opening and finding.
 *
 *   (nothing) --open--> OPEN <--failed-- COMMITTING --done--> a receipt
 *                         |--abort, expiry--> an end (410 for 7 days)
 *
 * What a load was when the process died is on disk (session_file.c); whether a commit of it had
 * got into the log before is looked up in the receipts when the load is next touched, by a request
 * or by the sweep.
 *
 * Threads: the lock of the collection's sessions guards lists and states. Failure: what is not
 * durable is not listed. */
#include "store/session.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/session_internal.h"

/* ---- ids ---- */

void session_id_text(const uint8_t id[LOAD_ID_BYTES], char out[33])
{
    for (size_t i = 0; i < LOAD_ID_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", id[i]);
}

bool session_id_parse(const char *text, size_t n, uint8_t out[LOAD_ID_BYTES])
{
    if (n != 2 * LOAD_ID_BYTES)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | digit : digit << 4);
    }
    return true;
}

const char *session_state_name(enum session_state s)
{
    static const char *const names[] = {"open", "committing", "committed", "aborted", "expired"};
    return names[s];
}

/* ---- memory ---- */

void part_free(struct part *p)
{
    if (p)
        free(p->name);
    free(p);
}

struct session *session_alloc(struct collection *c, const uint8_t id[LOAD_ID_BYTES])
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    atomic_init(&s->build.eta_s, -1);
    s->watch.build = &s->build;
    s->c = c;
    memcpy(s->id, id, LOAD_ID_BYTES);
    s->next_part = 1;
    err_clear(&s->error);
    return s;
}

void session_unref(struct session *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    for (size_t i = 0; i < s->nparts; i++)
        part_free(s->parts[i]);
    free(s->parts);
    free(s->chosen);
    free(s->text);
    free(s->fault);
    free(s);
}

struct session *session_acquire(struct session *s)
{
    collection_acquire(s->c);
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void session_release(struct session *s)
{
    if (!s)
        return;
    struct collection *c = s->c;
    session_unref(s);
    collection_release(c);
}

struct sessions *sessions_new(void)
{
    struct sessions *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    pthread_mutex_init(&all->lock, NULL);
    pthread_mutex_init(&all->file_lock, NULL);
    pthread_cond_init(&all->ended, NULL);
    return all;
}

void sessions_free(struct sessions *all)
{
    if (!all)
        return;
    for (size_t i = 0; i < all->n; i++)
        session_unref(all->list[i]);
    free(all->list);
    free(all->ends);
    pthread_mutex_destroy(&all->lock);
    pthread_mutex_destroy(&all->file_lock);
    pthread_cond_destroy(&all->ended);
    free(all);
}

/* ---- lists ---- */

static bool grow(void **list, size_t *cap, size_t n, size_t size)
{
    if (n < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 8;
    void *grown = realloc(*list, more * size);
    if (!grown)
        return false;
    *list = grown;
    *cap = more;
    return true;
}

bool sessions_list_add(struct sessions *all, struct session *s)
{
    if (!grow((void **)&all->list, &all->cap, all->n, sizeof *all->list))
        return false;
    all->list[all->n++] = s;
    s->listed = true;
    return true;
}

/* The list's reference goes with it. */
void sessions_list_remove(struct sessions *all, struct session *s)
{
    if (!s->listed)
        return;
    size_t at = 0;
    while (all->list[at] != s)
        at++;
    memmove(&all->list[at], &all->list[at + 1], (all->n - at - 1) * sizeof *all->list);
    all->n--;
    s->listed = false;
    session_unref(s);
}

bool sessions_ends_add(struct sessions *all, const struct session_end *end)
{
    if (all->nends == SESSION_ENDS_MAX) {
        all->nends--;
        memmove(all->ends, all->ends + 1, all->nends * sizeof *all->ends);
    }
    if (!grow((void **)&all->ends, &all->cap_ends, all->nends, sizeof *all->ends))
        return false;
    all->ends[all->nends++] = *end;
    return true;
}

static const struct session_end *find_end(const struct sessions *all,
                                          const uint8_t id[LOAD_ID_BYTES])
{
    for (size_t i = 0; i < all->nends; i++) {
        if (memcmp(all->ends[i].id, id, LOAD_ID_BYTES) == 0)
            return &all->ends[i];
    }
    return NULL;
}

bool session_find_part(const struct session *s, const char *name, size_t len, size_t *at)
{
    size_t lo = 0, hi = s->nparts;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct part *p = s->parts[mid];
        int order = memcmp(p->name, name, p->name_len < len ? p->name_len : len);
        if (order == 0)
            order = (p->name_len > len) - (p->name_len < len);
        if (order == 0) {
            *at = mid;
            return true;
        }
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *at = lo;
    return false;
}

bool session_insert_part(struct session *s, size_t at, struct part *p)
{
    if (!grow((void **)&s->parts, &s->cap_parts, s->nparts, sizeof *s->parts))
        return false;
    memmove(&s->parts[at + 1], &s->parts[at], (s->nparts - at) * sizeof *s->parts);
    s->parts[at] = p;
    s->nparts++;
    s->rows += p->rows;
    s->bytes += p->bytes;
    return true;
}

/* ---- opening ---- */

static size_t count_open(const struct sessions *all)
{
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++)
        n += !all->list[i]->one_shot;
    return n;
}

struct receipt session_receipt(const struct session *s)
{
    struct receipt r = {
        .keyed = s->keyed,
        .of_load = true,
        .expires_us = s->created_us + s->expiry_us,
        .time_us = s->created_us,
        .mode = s->mode,
    };
    memcpy(r.key, s->key, sizeof r.key);
    memcpy(r.hash, s->hash, sizeof r.hash);
    memcpy(r.load_id, s->id, sizeof r.load_id);
    return r;
}

static struct session *session_make(struct collection *c, const struct session_options *o)
{
    uint8_t id[LOAD_ID_BYTES];
    random_bytes(id, sizeof id);
    struct session *s = session_alloc(c, id);
    if (!s)
        return NULL;
    s->mode = o->mode;
    s->duplicates_last = o->duplicates_last;
    s->created_us = s->active_us = clock_wall_us();
    s->expiry_us = o->expiry_us;
    s->opening = true;
    s->text_len = o->text_len;
    if (o->key) {
        s->keyed = true;
        receipt_hash_key(o->key, o->key_len, s->key);
        memcpy(s->hash, o->hash, sizeof s->hash);
    }
    if (!(s->text = strndup(o->text ? o->text : "", o->text_len))) {
        session_unref(s);
        return NULL;
    }
    return s;
}

static enum err list_new(struct sessions *all, struct session *s, size_t loads_max,
                         struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    pthread_mutex_lock(&all->lock);
    if (count_open(all) >= loads_max)
        e = err_set(ctx, ERR_BUSY,
                    "the collection has loads_max (%zu) open loads: commit or abort one first",
                    loads_max);
    else if (!sessions_list_add(all, s))
        e = err_no_memory(ctx, sizeof *s);
    pthread_mutex_unlock(&all->lock);
    return e;
}

void session_describe_locked(const struct session *s, struct session_info *out)
{
    *out = (struct session_info){
        .state = s->state,
        .mode = s->mode,
        .created_us = s->created_us,
        .expires_us = s->active_us + s->expiry_us,
        .rows = s->rows,
        .bytes = s->bytes,
        .parts = s->nparts,
        .arriving = s->puts,
        .progress = atomic_load(&s->build.progress),
        .eta_s = atomic_load(&s->build.eta_s),
        .result = s->result,
        .error = s->error,
        .one_shot = s->one_shot,
        .phase = (enum load_phase)atomic_load(&s->watch.phase),
    };
    memcpy(out->id, s->id, sizeof out->id);
}

enum err session_open(struct collection *c, const struct session_options *o,
                      struct session_info *out, struct err_ctx *ctx)
{
    struct sessions *all = c->sessions;
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    struct session *s = session_make(c, o);
    if (!s)
        return err_no_memory(ctx, sizeof *s + o->text_len);
    enum err e = list_new(all, s, o->loads_max, ctx);
    if (e != ERR_OK) {
        session_unref(s);
        return e;
    }
    e = session_file_create(s, ctx);
    if (e != ERR_OK)
        session_file_remove(c, s->id);
    pthread_mutex_lock(&all->lock);
    s->opening = false;
    session_describe_locked(s, out);
    struct receipt receipt = session_receipt(s);
    if (e != ERR_OK)
        sessions_list_remove(all, s);
    pthread_mutex_unlock(&all->lock);
    if (e == ERR_OK && receipt.keyed)
        receipt_add(c, &receipt);
    return e;
}

/* Failed ones are kept so that who was told to ask gets to know. */
static void forget_old_failures(struct sessions *all)
{
    size_t failed = 0;
    struct session *oldest = NULL;
    for (size_t i = 0; i < all->n; i++) {
        if (!all->list[i]->one_shot || all->list[i]->state == SESSION_COMMITTING)
            continue;
        failed++;
        oldest = oldest ? oldest : all->list[i];
    }
    if (failed > SESSION_FAILED_MAX)
        sessions_list_remove(all, oldest);
}

enum err session_open_one_shot(struct collection *c, enum load_mode mode, struct session **out,
                               struct err_ctx *ctx)
{
    struct sessions *all = c->sessions;
    struct session_options o = {.mode = mode};
    struct session *s = session_make(c, &o);
    if (!s)
        return err_no_memory(ctx, sizeof *s);
    s->one_shot = true;
    s->opening = false;
    s->state = SESSION_COMMITTING;
    pthread_mutex_lock(&all->lock);
    bool listed = sessions_list_add(all, s);
    if (listed)
        forget_old_failures(all);
    pthread_mutex_unlock(&all->lock);
    if (!listed) {
        session_unref(s);
        return err_no_memory(ctx, sizeof *s);
    }
    *out = session_acquire(s);
    return ERR_OK;
}

void session_finish(struct session *s, enum err e, const struct commit_result *result,
                    const struct err_ctx *ctx)
{
    struct sessions *all = s->c->sessions;
    pthread_mutex_lock(&all->lock);
    s->state = e == ERR_OK ? SESSION_COMMITTED : SESSION_ABORTED;
    if (e == ERR_OK) {
        s->result = *result;
        sessions_list_remove(all, s);
    } else {
        s->error = *ctx;
    }
    pthread_mutex_unlock(&all->lock);
}

/* ---- finding ---- */

struct session *sessions_find(const struct sessions *all, const uint8_t id[LOAD_ID_BYTES])
{
    for (size_t i = 0; i < all->n; i++) {
        if (!all->list[i]->opening && memcmp(all->list[i]->id, id, LOAD_ID_BYTES) == 0)
            return all->list[i];
    }
    return NULL;
}

enum err session_settle(struct session *s, bool *committed, struct err_ctx *ctx)
{
    struct sessions *all = s->c->sessions;
    struct receipt r;
    bool found;
    *committed = false;
    RETURN_NOT_OK(receipt_find_load(s->c, s->id, &found, &r, ctx));
    *committed = found && r.committed;
    if (*committed)
        session_file_remove(s->c, s->id);
    pthread_mutex_lock(&all->lock);
    s->unsettled = false;
    if (*committed) {
        s->state = SESSION_COMMITTED;
        s->result = r.result;
        sessions_list_remove(all, s);
    }
    pthread_mutex_unlock(&all->lock);
    return ERR_OK;
}

/* Loads that are no longer in the list. */
static enum err find_ended(struct collection *c, const uint8_t id[LOAD_ID_BYTES],
                           struct session_info *out, struct err_ctx *ctx)
{
    struct receipt r;
    bool found;
    char text[33];
    *out = (struct session_info){.eta_s = -1};
    memcpy(out->id, id, LOAD_ID_BYTES);
    err_clear(&out->error);
    pthread_mutex_lock(&c->sessions->lock);
    const struct session_end *end = find_end(c->sessions, id);
    if (end)
        out->state = end->expired ? SESSION_EXPIRED : SESSION_ABORTED;
    pthread_mutex_unlock(&c->sessions->lock);
    if (end)
        return ERR_OK;
    RETURN_NOT_OK(receipt_find_load(c, id, &found, &r, ctx));
    if (found && r.committed) {
        out->state = SESSION_COMMITTED;
        out->mode = (enum load_mode)r.mode;
        out->result = r.result;
        return ERR_OK;
    }
    session_id_text(id, text);
    return err_set(ctx, ERR_NOT_FOUND, "collection '%s' has no load %s", c->name, text);
}

enum err session_find(struct collection *c, const uint8_t id[LOAD_ID_BYTES], struct session **s,
                      struct session_info *out, struct err_ctx *ctx)
{
    struct sessions *all = c->sessions;
    bool unsettled = false, committed;
    pthread_mutex_lock(&all->lock);
    *s = sessions_find(all, id);
    if (*s) {
        session_acquire(*s);
        unsettled = (*s)->unsettled;
        session_describe_locked(*s, out);
    }
    pthread_mutex_unlock(&all->lock);
    if (!*s)
        return find_ended(c, id, out, ctx);
    if (!unsettled)
        return ERR_OK;
    enum err e = session_settle(*s, &committed, ctx);
    if (e == ERR_OK)
        session_describe(*s, out);
    if (e != ERR_OK || committed) {
        session_release(*s);
        *s = NULL;
    }
    return e;
}

void session_describe(struct session *s, struct session_info *out)
{
    pthread_mutex_lock(&s->c->sessions->lock);
    session_describe_locked(s, out);
    pthread_mutex_unlock(&s->c->sessions->lock);
}

const uint8_t *session_id(const struct session *s)
{
    return s->id;
}

struct collection *session_collection(const struct session *s)
{
    return s->c;
}

const char *session_text(const struct session *s, size_t *n)
{
    *n = s->text_len;
    return s->text;
}

struct load_watch *session_watch(struct session *s)
{
    return &s->watch;
}

bool session_parts(struct session *s, const char *after, size_t after_len, size_t limit,
                   void (*fn)(void *arg, const struct session_part *part), void *arg)
{
    size_t at = 0;
    pthread_mutex_lock(&s->c->sessions->lock);
    if (after && session_find_part(s, after, after_len, &at))
        at++;
    for (; at < s->nparts && limit; at++, limit--) {
        const struct part *p = s->parts[at];
        struct session_part part = {p->name, p->name_len, p->rows, p->bytes, p->digest};
        fn(arg, &part);
    }
    bool more = at < s->nparts;
    pthread_mutex_unlock(&s->c->sessions->lock);
    return more;
}

void session_each_open(struct collection *c, void (*fn)(void *arg, const struct session_info *info),
                       void *arg)
{
    struct sessions *all = c->sessions;
    pthread_mutex_lock(&all->lock);
    for (size_t i = 0; i < all->n; i++) {
        struct session_info info;
        if (all->list[i]->opening)
            continue;
        session_describe_locked(all->list[i], &info);
        if (info.state == SESSION_OPEN || info.state == SESSION_COMMITTING)
            fn(arg, &info);
    }
    pthread_mutex_unlock(&all->lock);
}
