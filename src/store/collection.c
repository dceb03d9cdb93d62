/* Collections: creating, opening, publishing.
 *
 * Opening: the newest valid checkpoint gives a version whose rows all lie in segment files; the log
 * files from its number on are replayed over it; what nothing refers to is removed. A damaged
 * checkpoint is passed over while the logs before it are still there. Any contradiction is
 * ERR_CORRUPT and nothing is changed on disk: the catalog quarantines the collection. */
#include "store/collection_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"

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

struct collection *collection_acquire(struct collection *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void collection_release(struct collection *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    snapshot_release(c->head);
    snapshot_release(atomic_load(&c->current));
    snapshot_release(c->rotated);
    segment_release(c->tail);
    wal_close(c->wal);
    row_builder_deinit(&c->apply_row);
    free(c->apply_vector);
    pthread_mutex_destroy(&c->commit_lock);
    pthread_mutex_destroy(&c->seal_lock);
    pthread_mutex_destroy(&c->alter_lock);
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

/* ---- opening ---- */

/* Calls fn for each name in the folder that parses as <16 hex digits>.<suffix>; other names get
 * number UINT64_MAX. */
static enum err each_file(const struct collection *c, const char *folder, const char *suffix,
                          void (*fn)(void *arg, const char *path, uint64_t number), void *arg,
                          struct err_ctx *ctx)
{
    char dir[PATH_CAP], path[PATH_CAP + 300];
    snprintf(dir, sizeof dir, "%s/%s", c->dir, folder);
    DIR *d = opendir(dir);
    if (!d)
        return err_system(ctx, errno, "open directory %s", dir);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || e->d_name[1] == '.'))
            continue;
        char *end;
        uint64_t number = strtoull(e->d_name, &end, 16);
        bool ours = end == e->d_name + 16 && *end == '.' && strcmp(end + 1, suffix) == 0;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        fn(arg, path, ours ? number : UINT64_MAX);
    }
    closedir(d);
    return ERR_OK;
}

struct numbers {
    uint64_t *list;
    size_t n, cap;
    bool failed;
};

static void collect_number(void *arg, const char *path, uint64_t number)
{
    (void)path;
    struct numbers *all = arg;
    if (number == UINT64_MAX)
        return;
    if (all->n == all->cap) {
        size_t cap = all->cap ? all->cap * 2 : 16;
        uint64_t *grown = realloc(all->list, cap * sizeof *grown);
        if (!grown) {
            all->failed = true;
            return;
        }
        all->list = grown;
        all->cap = cap;
    }
    all->list[all->n++] = number;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static enum err list_numbers(const struct collection *c, const char *suffix, struct numbers *out,
                             struct err_ctx *ctx)
{
    *out = (struct numbers){0};
    enum err e = each_file(c, "log", suffix, collect_number, out, ctx);
    if (e == ERR_OK && out->failed)
        e = err_no_memory(ctx, out->cap * sizeof *out->list);
    if (out->n)
        qsort(out->list, out->n, sizeof *out->list, compare_numbers);
    return e;
}

static struct snapshot *empty_snapshot(struct schema *schema, uint64_t version)
{
    struct snapshot *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(schema);
    s->version = version;
    s->serial = 1;
    s->time_us = 0;
    return s;
}

void collection_note_segment_id(struct collection *c, uint64_t id)
{
    if (id >= atomic_load(&c->next_segment_id))
        atomic_store(&c->next_segment_id, id + 1);
}

static struct view *find_view(struct snapshot *s, uint64_t segment_id)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        if (s->views[i].segment->id == segment_id)
            return &s->views[i];
    }
    return NULL;
}

enum err collection_check_unknown(const struct collection *c, uint64_t segment_id,
                                  struct err_ctx *ctx)
{
    if (!find_view(c->head, segment_id))
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT, "segment %016llx comes twice", (unsigned long long)segment_id);
}

static enum err open_ref(struct collection *c, const struct segment_ref *ref, struct segment **out,
                         struct err_ctx *ctx)
{
    char path[PATH_CAP];
    RETURN_NOT_OK(collection_check_unknown(c, ref->id, ctx));
    segment_file_path(c, "segments", ref->id, path, sizeof path);
    RETURN_NOT_OK(segment_open(path, c->id, out, ctx));
    struct segment *s = *out;
    collection_note_segment_id(c, ref->id);
    s->base_version = ref->base_version;
    s->base_ordinal = ref->base_ordinal;
    if (s->id == ref->id && s->rows == ref->rows && schema_extends(c->head->schema, s->schema))
        return ERR_OK;
    segment_release(s);
    return err_set(ctx, ERR_CORRUPT, "%s: the file is not the segment that the log refers to",
                   path);
}

static enum err checkpoint_masks(struct snapshot *s, const struct checkpoint *cp,
                                 struct err_ctx *ctx)
{
    size_t n = cp->manifest.dead.len / sizeof(struct dead_ref);
    const struct dead_ref *d = (const struct dead_ref *)cp->manifest.dead.data;
    for (size_t i = 0; i < n; i++) {
        struct view *v = find_view(s, d[i].segment);
        if (!v || v->dead)
            return err_set(ctx, ERR_CORRUPT, "the checkpoint masks an unknown segment");
        RETURN_NOT_OK(mask_decode(d[i].mask, d[i].mask_len, v->rows, &v->dead, ctx));
        v->live = v->rows - (v->dead ? (uint32_t)v->dead->count : 0);
    }
    return ERR_OK;
}

/* Turns a checkpoint into the head. */
static enum err adopt_checkpoint(struct collection *c, const struct checkpoint *cp,
                                 struct err_ctx *ctx)
{
    size_t n = cp->manifest.segments.len / sizeof(struct segment_ref);
    const struct segment_ref *refs = (const struct segment_ref *)cp->manifest.segments.data;
    struct snapshot *s = calloc(1, sizeof *s + n * sizeof s->views[0]);
    if (!s)
        return err_no_memory(ctx, n * sizeof s->views[0]);
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(cp->schema);
    s->serial = 1;
    s->version = cp->meta.version;
    s->time_us = cp->meta.time_us;
    s->rows = cp->meta.live_rows;
    s->vectors = cp->meta.live_vectors;
    s->digest = cp->meta.digest;
    snapshot_release(c->head);
    c->head = s;
    for (size_t i = 0; i < n; i++) {
        struct view *v = &s->views[i];
        RETURN_NOT_OK(open_ref(c, &refs[i], &v->segment, ctx));
        s->nviews++;
        v->rows = v->live = v->segment->rows;
        s->bytes += v->segment->bytes;
    }
    RETURN_NOT_OK(checkpoint_masks(s, cp, ctx));
    if (cp->next_segment_id > atomic_load(&c->next_segment_id))
        atomic_store(&c->next_segment_id, cp->next_segment_id);
    return ERR_OK;
}

static enum err read_whole(struct io *io, const char *path, uint8_t **data, uint64_t *n,
                           struct err_ctx *ctx)
{
    struct io_file *f;
    *data = NULL;
    RETURN_NOT_OK(io_file_open(io, path, IO_READ, &f, ctx));
    enum err e = io_file_size(f, n, ctx);
    if (e == ERR_OK && !(*data = malloc(*n + 1)))
        e = err_no_memory(ctx, *n);
    if (e == ERR_OK)
        e = io_file_read(f, *data, *n, 0, ctx);
    io_file_close(f);
    if (e != ERR_OK) {
        free(*data);
        *data = NULL;
    }
    return e;
}

/* Masks borrow from *data, which is the caller's to free, after an error too. */
static enum err read_checkpoint(struct io *io, const char *path, const uint8_t *collection_id,
                                uint8_t **data, struct checkpoint *cp, struct err_ctx *ctx)
{
    uint64_t n;
    struct err_ctx why;
    err_clear(&why);
    RETURN_NOT_OK(read_whole(io, path, data, &n, ctx));
    enum err e = checkpoint_decode(*data, n, collection_id, cp, &why);
    return e == ERR_OK ? e : err_set(ctx, e, "%s: offset 0: %.900s", path, why.detail);
}

enum err checkpoint_check_file(struct io *io, const char *path, struct err_ctx *ctx)
{
    struct checkpoint cp;
    uint8_t *data = NULL;
    enum err e = read_checkpoint(io, path, NULL, &data, &cp, ctx);
    if (e == ERR_OK)
        checkpoint_deinit(&cp);
    free(data);
    return e;
}

static enum err load_checkpoint(struct collection *c, uint64_t number, struct err_ctx *ctx)
{
    char dir[PATH_CAP - 64], path[PATH_CAP];
    uint8_t *data = NULL;
    struct checkpoint cp;
    snprintf(dir, sizeof dir, "%s/log", c->dir);
    wal_path(dir, number, "ckpt", path, sizeof path);
    enum err e = read_checkpoint(c->io, path, c->id, &data, &cp, ctx);
    if (e == ERR_OK) {
        c->head = empty_snapshot(cp.schema, 0); /* open_ref compares schemas with the head's */
        e = c->head ? adopt_checkpoint(c, &cp, ctx) : err_no_memory(ctx, sizeof *c->head);
        checkpoint_deinit(&cp);
    }
    free(data);
    if (e != ERR_OK) {
        snapshot_release(c->head);
        c->head = NULL;
    }
    return e;
}

/* Finds where to start: the newest checkpoint that is whole and whose log is there, else log 1. */
static enum err find_start(struct collection *c, const struct numbers *logs, uint64_t *start,
                           struct err_ctx *ctx)
{
    struct numbers ckpts;
    enum err e = list_numbers(c, "ckpt", &ckpts, ctx);
    bool found = false;
    for (size_t i = ckpts.n; e == ERR_OK && i-- > 0 && !found;) {
        struct err_ctx why;
        err_clear(&why);
        if (ckpts.list[i] < logs->list[0])
            break;
        if (load_checkpoint(c, ckpts.list[i], &why) == ERR_OK) {
            *start = ckpts.list[i];
            found = true;
        } else {
            log_warn("collection %s: checkpoint %llu is passed over: %s", c->name,
                     (unsigned long long)ckpts.list[i], why.detail);
            err_set(ctx, why.code, "%s", why.detail);
        }
    }
    free(ckpts.list);
    if (e != ERR_OK || found)
        return e;
    if (logs->list[0] != 1)
        return ckpts.n ? ctx ? ctx->code : ERR_CORRUPT
                       : err_set(ctx, ERR_CORRUPT, "%s/log: no checkpoint and no first log file",
                                 c->dir);
    *start = 1;
    return ERR_OK;
}

/* Memory that plan_apply decodes rows into. */
static enum err init_apply(struct collection *c, struct err_ctx *ctx)
{
    RETURN_NOT_OK(row_builder_init(&c->apply_row, c->head->schema, ctx));
    c->apply_vector = malloc((c->head->schema->dim + 1) * sizeof(float));
    return c->apply_vector ? ERR_OK : err_no_memory(ctx, c->head->schema->dim * sizeof(float));
}

static enum err replay_create(struct collection *c, const void *record, size_t n,
                              struct err_ctx *ctx)
{
    struct schema *schema;
    uint64_t base;
    RETURN_NOT_OK(create_record_decode(record, n, &schema, &base, ctx));
    c->head = empty_snapshot(schema, base);
    schema_release(schema);
    return c->head ? init_apply(c, ctx) : err_no_memory(ctx, sizeof *c->head);
}

/* The log moved on to a new tail: the old one stays a view until it is sealed. */
static enum err switch_tail(struct collection *c, uint64_t id, struct err_ctx *ctx)
{
    struct segment *tail;
    RETURN_NOT_OK(collection_check_unknown(c, id, ctx));
    RETURN_NOT_OK(tail_new(id, c->head->schema, &tail, ctx));
    segment_release(c->tail);
    c->tail = tail;
    collection_note_segment_id(c, id);
    return ERR_OK;
}

static enum err replay_commit(struct collection *c, const void *record, size_t n,
                              struct err_ctx *ctx)
{
    struct commit_record rec;
    RETURN_NOT_OK(commit_record_decode(record, n, &rec, ctx));
    enum err e = plan_check_rows(c, &rec, ctx);
    if (e == ERR_OK && (!c->tail || c->tail->id != rec.tail_id))
        e = switch_tail(c, rec.tail_id, ctx);
    size_t nsegs = rec.segments.len / sizeof(struct segment_ref), nopen = 0;
    struct segment **added = calloc(nsegs + 1, sizeof *added);
    if (!added)
        e = err_no_memory(ctx, nsegs * sizeof *added);
    for (; e == ERR_OK && nopen < nsegs; nopen++) {
        e = open_ref(c, (struct segment_ref *)rec.segments.data + nopen, &added[nopen], ctx);
        if (e != ERR_OK)
            break;
    }
    struct plan plan;
    if (e == ERR_OK && (e = plan_commit(c, record, n, added, &plan, ctx)) == ERR_OK) {
        plan_apply(c, &plan);
        plan_deinit(&plan);
    }
    for (size_t i = 0; i < nopen; i++)
        segment_release(added[i]);
    free(added);
    commit_record_deinit(&rec);
    return e;
}

static enum err replay_record(void *arg, const void *record, size_t n, struct err_ctx *ctx)
{
    struct collection *c = arg;
    if (!c->head)
        return replay_create(c, record, n, ctx);
    if (n && *(const uint8_t *)record == RECORD_ALTER)
        return replay_alter(c, record, n, ctx);
    return replay_commit(c, record, n, ctx);
}

struct orphans {
    struct collection *c;
    uint64_t start; /* logs and checkpoints before it are superseded */
};

static void unlink_or_warn(struct collection *c, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (io_unlink(c->io, path, &why) != ERR_OK)
        log_warn("%s stays behind: %s", path, why.detail);
}

static void drop_orphan_segment(void *arg, const char *path, uint64_t number)
{
    struct orphans *o = arg;
    if (number == UINT64_MAX || !find_view(o->c->head, number))
        unlink_or_warn(o->c, path);
}

static void drop_staged(void *arg, const char *path, uint64_t number)
{
    (void)number;
    unlink_or_warn(((struct orphans *)arg)->c, path);
}

static void drop_old_log(void *arg, const char *path, uint64_t number)
{
    struct orphans *o = arg;
    if (number < o->start)
        unlink_or_warn(o->c, path);
}

/* What a kill left of a checkpoint that was being written. */
static void drop_half_written(void *arg, const char *path, uint64_t number)
{
    if (number != UINT64_MAX)
        unlink_or_warn(((struct orphans *)arg)->c, path);
}

static enum err remove_orphans(struct collection *c, uint64_t start, struct err_ctx *ctx)
{
    struct orphans o = {c, start};
    RETURN_NOT_OK(each_file(c, "segments", "seg", drop_orphan_segment, &o, ctx));
    RETURN_NOT_OK(each_file(c, "staging", "seg", drop_staged, &o, ctx));
    RETURN_NOT_OK(each_file(c, "log", "log", drop_old_log, &o, ctx));
    RETURN_NOT_OK(each_file(c, "log", "ckpt.tmp", drop_half_written, &o, ctx));
    return each_file(c, "log", "ckpt", drop_old_log, &o, ctx);
}

static enum err open_state(struct collection *c, struct err_ctx *ctx)
{
    struct numbers logs;
    uint64_t start = 0;
    char dir[PATH_CAP];
    snprintf(dir, sizeof dir, "%s/log", c->dir);
    enum err e = list_numbers(c, "log", &logs, ctx);
    if (e == ERR_OK && logs.n == 0)
        e = err_set(ctx, ERR_CORRUPT, "%s: the log is missing", dir);
    if (e == ERR_OK)
        e = wal_read_id(c->io, dir, logs.list[logs.n - 1], c->id, ctx);
    if (e == ERR_OK)
        e = find_start(c, &logs, &start, ctx);
    free(logs.list);
    RETURN_NOT_OK(e);
    if (c->head)
        RETURN_NOT_OK(init_apply(c, ctx));
    RETURN_NOT_OK(wal_open(c->io, dir, c->id, start, replay_record, c, &c->wal, ctx));
    if (!c->head)
        return err_set(ctx, ERR_CORRUPT, "%s: the log holds no schema", dir);
    if (!c->tail)
        RETURN_NOT_OK(switch_tail(c, atomic_load(&c->next_segment_id), ctx));
    return remove_orphans(c, start, ctx);
}

static struct collection *collection_alloc(struct io *io, const char *name, const char *dir,
                                           const struct store_hooks *hooks)
{
    struct collection *c = calloc(1, sizeof *c);
    if (!c || !(c->dir = strdup(dir))) {
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
    pthread_mutex_init(&c->alter_lock, NULL);
    pthread_rwlock_init(&c->dir_lock, NULL);
    clock_cond_init(&c->sealed);
    return c;
}

enum err collection_open(struct io *io, const char *name, const char *dir,
                         const struct store_hooks *hooks, struct collection **out,
                         struct err_ctx *ctx)
{
    struct collection *c = collection_alloc(io, name, dir, hooks);
    if (!c)
        return err_no_memory(ctx, sizeof *c);
    enum err e = open_state(c, ctx);
    if (e != ERR_OK) {
        collection_release(c);
        return e;
    }
    collection_publish(c, c->head);
    *out = c;
    return ERR_OK;
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
