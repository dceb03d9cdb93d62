/* Parts of a load on their way.
 *
 *   begin: the load must be open          `puts` counts it: no commit, no expiry meanwhile
 *   add:   rows stream into segment files of the load's directory (stage.h)
 *   end:   segments complete and synced -> the part's file -> in the list: acknowledged
 *
 * A part whose name is there already is not staged: its bytes are compared by their hash. Two puts
 * of one new name may run at once; the first to end is the part, the other is compared with it.
 *
 * Threads: one a put, any number of puts a load. Failure: the put leaves nothing; a load that ended
 * meanwhile takes its files along with the last put. */
#include <stdlib.h>

#include "base/clock.h"
#include "store/session_internal.h"

struct session_put {
    struct session *s; /* referenced */
    char *name;
    size_t name_len;
    struct schema *schema;
    struct stage *stage; /* NULL when the part is known */
    struct session_put *next_ending;
};

static struct session_put *put_new(struct session *s, const char *name, size_t len)
{
    struct session_put *p = calloc(1, sizeof *p);
    if (!p || !(p->name = strndup(name, len))) {
        free(p);
        return NULL;
    }
    p->name_len = len;
    p->schema = collection_schema(s->c);
    p->s = session_acquire(s);
    return p;
}

/* With the lock, the put counted. */
static enum err check_begin(struct session *s, const char *name, size_t len, size_t parts_max,
                            bool *known, struct err_ctx *ctx)
{
    size_t at;
    RETURN_NOT_OK(session_check_open(s, ctx));
    if (s->one_shot)
        return err_set(ctx, ERR_CONFLICT, "this load is one request's: it takes no parts");
    *known = session_find_part(s, name, len, &at);
    if (*known || s->nparts + s->puts <= parts_max)
        return ERR_OK;
    return err_set(ctx, ERR_TOO_LARGE,
                   "the load has parts_max (%zu) parts: make them larger, or commit it and open "
                   "another",
                   parts_max);
}

static enum err open_stage(struct session_put *p, uint64_t size_hint, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    session_dir(p->s->c, p->s->id, dir, sizeof dir);
    struct stage_options o = {
        .mode = p->s->mode,
        .duplicates_last = p->s->duplicates_last,
        .size_hint = size_hint,
        .dir = dir,
    };
    return stage_new(p->s->c, p->schema, &o, &p->stage, ctx);
}

/* One part less is on its way; the last one of a load that ended takes its files along. */
static void leave(struct session *s)
{
    pthread_mutex_lock(&s->c->sessions->lock);
    bool last = --s->puts == 0;
    bool ended = s->state == SESSION_ABORTED || s->state == SESSION_EXPIRED;
    bool remove = last && ended && !s->listed;
    pthread_mutex_unlock(&s->c->sessions->lock);
    if (remove)
        session_file_remove(s->c, s->id);
}

bool session_announce(struct collection *c, const uint8_t id[LOAD_ID_BYTES], struct session **s)
{
    pthread_mutex_lock(&c->sessions->lock);
    struct session *found = sessions_find(c->sessions, id);
    bool open = found && found->state == SESSION_OPEN && !found->unsettled && !found->one_shot;
    if (open) {
        found->puts++;
        *s = session_acquire(found);
    }
    pthread_mutex_unlock(&c->sessions->lock);
    return open;
}

void session_announced_back(struct session *s)
{
    leave(s);
    session_release(s);
}

static void put_drop(struct session_put *p)
{
    stage_free(p->stage);
    schema_release(p->schema);
    session_release(p->s);
    free(p->name);
    free(p);
}

/* With the put counted. */
static enum err begin_counted(struct session_put *p, size_t parts_max, uint64_t size_hint,
                              struct err_ctx *ctx)
{
    bool known = false;
    pthread_mutex_lock(&p->s->c->sessions->lock);
    enum err e = check_begin(p->s, p->name, p->name_len, parts_max, &known, ctx);
    pthread_mutex_unlock(&p->s->c->sessions->lock);
    return e == ERR_OK && !known ? open_stage(p, size_hint, ctx) : e;
}

enum err session_put_begin(struct session *s, bool announced, const char *name, size_t name_len,
                           size_t parts_max, uint64_t size_hint, struct session_put **out,
                           struct err_ctx *ctx)
{
    if (!announced) {
        pthread_mutex_lock(&s->c->sessions->lock);
        s->puts++;
        pthread_mutex_unlock(&s->c->sessions->lock);
    }
    enum err e = collection_check_writable(s->c, ctx);
    struct session_put *p = e == ERR_OK ? put_new(s, name, name_len) : NULL;
    if (e == ERR_OK)
        e = p ? begin_counted(p, parts_max, size_hint, ctx)
              : err_no_memory(ctx, sizeof *p + name_len);
    if (e == ERR_OK) {
        *out = p;
        return ERR_OK;
    }
    if (p)
        put_drop(p);
    leave(s);
    return e;
}

bool session_put_known(const struct session_put *p)
{
    return !p->stage;
}

struct schema *session_put_schema(const struct session_put *p)
{
    return p->schema;
}

enum err session_put_add(struct session_put *p, const struct batch *b, struct err_ctx *ctx)
{
    return stage_add(p->stage, b, ctx);
}

/* With the lock. */
static enum err compare(const struct session_put *p, const struct part *there,
                        struct hash128 digest, uint64_t bytes, struct session_part *out,
                        struct err_ctx *ctx)
{
    if (there->bytes != bytes || memcmp(&there->digest, &digest, sizeof digest) != 0)
        return err_set(ctx, ERR_CONFLICT,
                       "part '%.200s' is there with other bytes, or from another first_key: give "
                       "this one another name, and "
                       "commit with the list of those that count",
                       p->name);
    *out = (struct session_part){p->name, p->name_len, there->rows, bytes, digest};
    return ERR_OK;
}

/* With the lock: true when the part was there, or the load is not open any more: *e says. */
static bool end_early(struct session_put *p, struct hash128 digest, uint64_t bytes,
                      struct session_part *out, enum err *e, struct err_ctx *ctx)
{
    size_t at;
    *e = session_check_open(p->s, ctx);
    if (*e != ERR_OK)
        return true;
    p->s->active_us = clock_wall_us();
    if (!session_find_part(p->s, p->name, p->name_len, &at))
        return false;
    *e = compare(p, p->s->parts[at], digest, bytes, out, ctx);
    return true;
}

/* With the lock. */
static enum err insert(struct session_put *p, struct part *part, struct err_ctx *ctx)
{
    size_t at;
    RETURN_NOT_OK(session_check_open(p->s, ctx));
    bool there = session_find_part(p->s, p->name, p->name_len, &at);
    ASSERT(!there); /* a name's parts end one after the other */
    return session_insert_part(p->s, at, part) ? ERR_OK : err_no_memory(ctx, sizeof *part);
}

static enum err write_part(struct session_put *p, struct part *part, struct err_ctx *ctx)
{
    struct sessions *all = p->s->c->sessions;
    struct staged *staged = NULL;
    size_t n = 0;
    part->rows = stage_rows(p->stage);
    RETURN_NOT_OK(stage_finish(p->stage, &staged, &n, ctx));
    enum err e = session_file_put(p->s, part, staged, n, ctx);
    if (e == ERR_OK) {
        pthread_mutex_lock(&all->lock);
        e = insert(p, part, ctx);
        pthread_mutex_unlock(&all->lock);
    }
    bool unlink = e != ERR_OK && session_file_unput(p->s, part);
    staged_list_free(p->s->c, staged, n, unlink);
    return e;
}

static enum err new_part(struct session_put *p, struct hash128 digest, uint64_t bytes,
                         struct session_part *out, struct err_ctx *ctx)
{
    struct part *part = calloc(1, sizeof *part);
    if (!part || !(part->name = strdup(p->name))) {
        free(part);
        return err_no_memory(ctx, sizeof *part + p->name_len);
    }
    part->name_len = p->name_len;
    part->bytes = bytes;
    part->digest = digest;
    part->time_us = clock_wall_us();
    pthread_mutex_lock(&p->s->c->sessions->lock);
    part->number = p->s->next_part++;
    pthread_mutex_unlock(&p->s->c->sessions->lock);
    enum err e = write_part(p, part, ctx);
    if (e != ERR_OK) {
        part_free(part);
        return e;
    }
    *out = (struct session_part){p->name, p->name_len, part->rows, bytes, digest};
    return ERR_OK;
}

/* With the lock. */
static bool name_is_ending(const struct session_put *p)
{
    for (const struct session_put *q = p->s->ending; q; q = q->next_ending) {
        if (strcmp(q->name, p->name) == 0)
            return true;
    }
    return false;
}

/* With the lock: puts of one name end one after the other. */
static void begin_ending(struct session_put *p)
{
    while (name_is_ending(p))
        pthread_cond_wait(&p->s->c->sessions->ended, &p->s->c->sessions->lock);
    p->next_ending = p->s->ending;
    p->s->ending = p;
}

static void finish_ending(struct session_put *p)
{
    struct sessions *all = p->s->c->sessions;
    pthread_mutex_lock(&all->lock);
    struct session_put **at = &p->s->ending;
    while (*at != p)
        at = &(*at)->next_ending;
    *at = p->next_ending;
    pthread_cond_broadcast(&all->ended);
    pthread_mutex_unlock(&all->lock);
}

enum err session_put_end(struct session_put *p, struct hash128 digest, uint64_t bytes,
                         bool *created, struct session_part *out, struct err_ctx *ctx)
{
    struct sessions *all = p->s->c->sessions;
    enum err e;
    pthread_mutex_lock(&all->lock);
    begin_ending(p);
    *created = !end_early(p, digest, bytes, out, &e, ctx);
    pthread_mutex_unlock(&all->lock);
    if (*created)
        e = new_part(p, digest, bytes, out, ctx);
    finish_ending(p);
    return e;
}

void session_put_free(struct session_put *p)
{
    if (!p)
        return;
    struct session *s = session_acquire(p->s);
    put_drop(p);
    leave(s);
    session_release(s);
}
