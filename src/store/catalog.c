/* The catalog: names to collections, and the thread that keeps them in shape.
 *
 * Entries live in an immutable sorted table behind one atomic pointer; create, drop and opening
 * replace the table under a lock and retire the old one through epochs. Look-ups take no lock.
 *
 * On disk: data/FORMAT (with the flock), data/<name>/, data/.tombstones/<name> (the last version of
 * a dropped collection, so that its numbers go on), data/.new-* and data/.dropped-* (half created,
 * half removed: swept at start). A name is durable before create returns; a drop is durable when
 * the directory is renamed.
 *
 * A collection outlives its entry while requests and builds hold it, and its successor has the same
 * path. Whoever changes files by name therefore holds the collection's dir lock shared
 * (collection_enter_dir); a drop renames the directory holding it alone and detaches the collection
 * before the name is free, a quarantine detaches it too: from then on it has open files but no
 * path. The process that builds an index works in its collection's directory, by relative names.
 *
 * What runs in the background is in maintain.c. */
#include "store/catalog.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/epoch.h"
#include "base/log.h"
#include "store/catalog_internal.h"

/* ---- the table ---- */

struct entry *catalog_entry(const struct table *t, const char *name)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int cmp = strcmp(t->entries[mid]->name, name);
        if (cmp == 0)
            return t->entries[mid];
        if (cmp < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static void free_entry(void *arg)
{
    struct entry *e = arg;
    collection_release(e->c);
    free(e->fault);
    free(e);
}

/* The table with `add` in and `drop` out (either may be NULL); not in use yet. */
static enum err table_new(const struct catalog *cat, struct entry *add, const struct entry *drop,
                          struct table **out, struct err_ctx *ctx)
{
    const struct table *old = atomic_load(&cat->table);
    struct table *t = malloc(sizeof *t + (old->n + 1) * sizeof t->entries[0]);
    if (!t)
        return err_no_memory(ctx, old->n * sizeof t->entries[0]);
    t->n = 0;
    bool added = add == NULL;
    for (size_t i = 0; i < old->n; i++) {
        struct entry *e = old->entries[i];
        if (!added && strcmp(add->name, e->name) < 0) {
            t->entries[t->n++] = add;
            added = true;
        }
        if (e != drop)
            t->entries[t->n++] = e;
    }
    if (!added)
        t->entries[t->n++] = add;
    *out = t;
    return ERR_OK;
}

/* Cannot fail: what is on disk by then and what is in the table go together. */
static void table_set(struct catalog *cat, struct table *t, struct entry *drop)
{
    struct table *old = atomic_load(&cat->table);
    atomic_store(&cat->table, t);
    epoch_retire(free, old);
    if (drop)
        epoch_retire(free_entry, drop);
}

enum err table_change(struct catalog *cat, struct entry *add, struct entry *drop,
                      struct err_ctx *ctx)
{
    struct table *t;
    RETURN_NOT_OK(table_new(cat, add, drop, &t, ctx));
    table_set(cat, t, drop);
    return ERR_OK;
}

struct entry *entry_new(const char *name, struct collection *c, const char *fault)
{
    struct entry *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    memcpy(e->name, name, strnlen(name, NAME_MAX_BYTES));
    e->c = c;
    if (fault && !(e->fault = strdup(fault))) {
        free(e);
        return NULL;
    }
    return e;
}

void entry_path(const struct catalog *cat, const char *name, char out[PATH_CAP])
{
    snprintf(out, PATH_CAP, "%s/%s", cat->dir, name);
}

/* ---- removing directories ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    if (remove(path) != 0)
        log_warn("cannot remove %s", path);
    return 0;
}

void catalog_remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- opening ---- */

static bool is_collection(const char *dir, const char *name)
{
    char path[PATH_CAP];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s/log", dir, name);
    return name_valid(name) && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

enum err catalog_check_new(const char *dir, struct err_ctx *ctx)
{
    bool holds = false;
    DIR *d = opendir(dir);
    if (!d)
        return err_system(ctx, errno, "open directory %s", dir);
    for (struct dirent *de; !holds && (de = readdir(d));)
        holds = is_collection(dir, de->d_name);
    closedir(d);
    if (!holds)
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT,
                   "%s holds collections but no FORMAT file: bring it back from a backup, or copy "
                   "that of another data directory of the same release",
                   dir);
}

static enum err lock_dir(struct catalog *cat, struct err_ctx *ctx)
{
    char path[PATH_CAP], text[64] = "";
    entry_path(cat, "FORMAT", path);
    if (access(path, F_OK) != 0)
        RETURN_NOT_OK(catalog_check_new(cat->dir, ctx));
    cat->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (cat->lock_fd < 0)
        return err_system(ctx, errno, "open %s", path);
    if (flock(cat->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return err_set(ctx, ERR_CONFLICT,
                       "the data directory %s is in use by another loadstoned; stop it, or choose "
                       "another --data",
                       cat->dir);
    ssize_t n = read(cat->lock_fd, text, sizeof text - 1);
    if (n < 0)
        return err_system(ctx, errno, "read %s", path);
    if (n == 0) {
        if (write(cat->lock_fd, CATALOG_FORMAT, strlen(CATALOG_FORMAT)) !=
                (ssize_t)strlen(CATALOG_FORMAT) ||
            fsync(cat->lock_fd) != 0)
            return err_system(ctx, errno, "write %s", path);
        return io_sync_dir(cat->io, cat->dir, ctx);
    }
    if (strcmp(text, CATALOG_FORMAT) != 0)
        return err_set(ctx, ERR_CORRUPT, "%s is not of a format this build reads", path);
    return ERR_OK;
}

static enum err scan_dir(struct catalog *cat, struct err_ctx *ctx)
{
    DIR *d = opendir(cat->dir);
    if (!d)
        return err_system(ctx, errno, "open directory %s", cat->dir);
    enum err e = ERR_OK;
    for (struct dirent *de; e == ERR_OK && (de = readdir(d));) {
        char path[PATH_CAP];
        entry_path(cat, de->d_name, path);
        if (strncmp(de->d_name, ".new-", 5) == 0 || strncmp(de->d_name, ".dropped-", 9) == 0) {
            catalog_remove_tree(path);
            continue;
        }
        struct stat st;
        if (!name_valid(de->d_name) || stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
            continue;
        struct entry *entry = entry_new(de->d_name, NULL, NULL);
        e = entry ? table_change(cat, entry, NULL, ctx) : err_no_memory(ctx, sizeof *entry);
    }
    closedir(d);
    return e;
}

/* ---- life ---- */

static void catalog_free(struct catalog *cat)
{
    struct table *t = atomic_load(&cat->table);
    for (size_t i = 0; t && i < t->n; i++) {
        if (t->entries[i]->c)
            collection_end(t->entries[i]->c);
        free_entry(t->entries[i]);
    }
    free(t);
    epoch_drain();
    if (cat->lock_fd >= 0)
        close(cat->lock_fd);
    pthread_mutex_destroy(&cat->lock);
    pthread_mutex_destroy(&cat->tick_lock);
    pthread_cond_destroy(&cat->tick);
    pthread_cond_destroy(&cat->upkeep_tick);
    free(cat->dir);
    free(cat);
}

static struct catalog *catalog_alloc(const char *dir, struct io *io,
                                     const struct store_hooks *hooks)
{
    struct catalog *cat = calloc(1, sizeof *cat);
    struct table *t = calloc(1, sizeof *t);
    if (!cat || !t || !(cat->dir = strdup(dir))) {
        free(cat);
        free(t);
        return NULL;
    }
    cat->lock_fd = -1;
    cat->io = io;
    if (hooks)
        cat->hooks = *hooks;
    atomic_store(&cat->table, t);
    pthread_mutex_init(&cat->lock, NULL);
    pthread_mutex_init(&cat->tick_lock, NULL);
    clock_cond_init(&cat->tick);
    clock_cond_init(&cat->upkeep_tick);
    return cat;
}

enum err catalog_open(const char *dir, struct io *io, const struct store_hooks *hooks,
                      struct catalog **out, struct err_ctx *ctx)
{
    if (strlen(dir) > CATALOG_DIR_MAX)
        return err_set(ctx, ERR_INVALID, "the path of the data directory is longer than %d bytes",
                       CATALOG_DIR_MAX);
    struct catalog *cat = catalog_alloc(dir, io, hooks);
    if (!cat)
        return err_no_memory(ctx, sizeof *cat);
    char tombstones[PATH_CAP];
    entry_path(cat, ".tombstones", tombstones);
    enum err e = io_mkdir(io, dir, ctx);
    if (e == ERR_OK)
        e = lock_dir(cat, ctx);
    if (e == ERR_OK)
        e = io_mkdir(io, tombstones, ctx);
    if (e == ERR_OK)
        e = scan_dir(cat, ctx);
    if (e == ERR_OK && pthread_create(&cat->thread, NULL, catalog_maintain, cat) != 0)
        e = err_set(ctx, ERR_NO_MEMORY, "cannot start the maintenance thread");
    if (e != ERR_OK) {
        catalog_free(cat);
        return e;
    }
    *out = cat;
    return ERR_OK;
}

void catalog_close(struct catalog *cat)
{
    if (!cat)
        return;
    catalog_stop_upkeep(cat);
    pthread_mutex_lock(&cat->tick_lock);
    cat->stopping = true;
    pthread_cond_signal(&cat->tick);
    pthread_mutex_unlock(&cat->tick_lock);
    pthread_join(cat->thread, NULL);
    catalog_free(cat);
}

bool catalog_ready(const struct catalog *cat)
{
    return atomic_load(&cat->ready);
}

enum err catalog_find(struct catalog *cat, const char *name, struct collection **out,
                      struct err_ctx *ctx)
{
    const struct entry *e = catalog_entry(atomic_load(&cat->table), name);
    if (!e)
        return err_set(ctx, ERR_NOT_FOUND,
                       "there is no collection '%.128s': create it with PUT /v1/collections/%.128s",
                       name, name);
    if (e->fault)
        return err_set(ctx, ERR_UNAVAILABLE, "collection '%s' is quarantined: %s", name, e->fault);
    if (!e->c)
        return err_set(ctx, ERR_UNAVAILABLE, "collection '%s' is being opened; try again soon",
                       name);
    struct err_ctx why;
    err_clear(&why);
    if (mapping_check(e->c->dir, &why) != ERR_OK)
        return err_set(ctx, ERR_UNAVAILABLE, "collection '%s' is quarantined: %.900s", name,
                       why.detail);
    *out = e->c;
    return ERR_OK;
}

void catalog_each(struct catalog *cat,
                  void (*fn)(void *arg, const char *name, struct collection *c, const char *fault),
                  void *arg)
{
    epoch_enter();
    const struct table *t = atomic_load(&cat->table);
    for (size_t i = 0; i < t->n; i++) {
        const struct entry *e = t->entries[i];
        fn(arg, e->name, e->c, e->fault ? e->fault : e->c ? NULL : "it is being opened");
    }
    epoch_leave();
}

/* ---- create and drop ---- */

static void tombstone_path(const struct catalog *cat, const char *name, char out[PATH_CAP])
{
    snprintf(out, PATH_CAP, "%s/.tombstones/%s", cat->dir, name);
}

/* The last version of a dropped collection of this name, or 0. */
static enum err read_tombstone(struct catalog *cat, const char *name, uint64_t *version,
                               struct err_ctx *ctx)
{
    char path[PATH_CAP], text[32] = "";
    tombstone_path(cat, name, path);
    *version = 0;
    if (access(path, F_OK) != 0)
        return ERR_OK;
    struct io_file *f;
    uint64_t n;
    RETURN_NOT_OK(io_file_open(cat->io, path, IO_READ, &f, ctx));
    enum err e = io_file_size(f, &n, ctx);
    if (e == ERR_OK)
        e = io_file_read(f, text, n < sizeof text - 1 ? n : sizeof text - 1, 0, ctx);
    io_file_close(f);
    if (e == ERR_OK)
        *version = strtoull(text, NULL, 10);
    return e;
}

static void random_name(const struct catalog *cat, const char *prefix, char out[PATH_CAP])
{
    uint64_t r;
    random_bytes(&r, sizeof r);
    snprintf(out, PATH_CAP, "%s/%s%016llx", cat->dir, prefix, (unsigned long long)r);
}

/* A name that was given to a collection which then could not be opened is free again. */
static void take_back(struct catalog *cat, const char *path, const char *fresh)
{
    struct err_ctx why;
    err_clear(&why);
    if (io_rename(cat->io, path, fresh, &why) == ERR_OK)
        catalog_remove_tree(fresh);
    else
        log_error("%s stays behind though it was not created; a restart serves it: %s", path,
                  why.detail);
}

static enum err make_collection(struct catalog *cat, const char *name, struct schema *schema,
                                struct collection **out, struct err_ctx *ctx)
{
    char fresh[PATH_CAP], path[PATH_CAP];
    uint64_t base;
    random_name(cat, ".new-", fresh);
    entry_path(cat, name, path);
    RETURN_NOT_OK(read_tombstone(cat, name, &base, ctx));
    enum err e = collection_init_dir(cat->io, fresh, schema, base, ctx);
    if (e == ERR_OK)
        e = io_rename(cat->io, fresh, path, ctx);
    if (e != ERR_OK) {
        catalog_remove_tree(fresh);
        return e;
    }
    e = io_sync_dir(cat->io, cat->dir, ctx);
    if (e == ERR_OK)
        e = collection_open(cat->io, name, path, &cat->hooks, out, ctx);
    if (e != ERR_OK)
        take_back(cat, path, fresh);
    return e;
}

static enum err create_locked(struct catalog *cat, const char *name, struct schema *schema,
                              bool *created, struct err_ctx *ctx)
{
    struct entry *e = catalog_entry(atomic_load(&cat->table), name);
    *created = e == NULL;
    if (e && !e->c)
        return err_set(ctx, ERR_UNAVAILABLE, "collection '%s' exists but is not open: %s", name,
                       e->fault ? e->fault : "it is being opened");
    if (e) {
        epoch_enter();
        bool equal = schema_equal(collection_snapshot(e->c)->schema, schema);
        epoch_leave();
        return equal ? ERR_OK
                     : err_set(ctx, ERR_CONFLICT,
                               "collection '%s' exists with another schema; drop it first or "
                               "choose another name",
                               name);
    }
    struct table *t = NULL;
    struct entry *fresh = entry_new(name, NULL, NULL);
    enum err rc = fresh ? table_new(cat, fresh, NULL, &t, ctx) : err_no_memory(ctx, sizeof *fresh);
    if (rc == ERR_OK)
        rc = make_collection(cat, name, schema, &fresh->c, ctx);
    if (rc == ERR_OK) {
        table_set(cat, t, NULL);
        return ERR_OK;
    }
    free(t);
    free(fresh);
    return rc;
}

enum err catalog_create(struct catalog *cat, const char *name, struct schema *schema, bool *created,
                        struct err_ctx *ctx)
{
    if (!name_valid(name))
        return err_set(ctx, ERR_INVALID,
                       "collection name '%.128s' is not allowed: it must match "
                       "[A-Za-z_][A-Za-z0-9_-]{0,127}",
                       name);
    pthread_mutex_lock(&cat->lock);
    enum err e = create_locked(cat, name, schema, created, ctx);
    pthread_mutex_unlock(&cat->lock);
    return e;
}

static enum err write_tombstone(struct catalog *cat, const char *name, uint64_t version,
                                struct err_ctx *ctx)
{
    char path[PATH_CAP], text[32];
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)version);
    tombstone_path(cat, name, path);
    return io_write_atomic(cat->io, path, text, strlen(text), ctx);
}

/* Ends writes and leaves the last version's number for a successor. */
static enum err end_numbers(struct catalog *cat, struct entry *e, struct err_ctx *ctx)
{
    if (!e->c)
        return e->last_version ? write_tombstone(cat, e->name, e->last_version, ctx) : ERR_OK;
    pthread_mutex_lock(&e->c->commit_lock);
    enum err rc = write_tombstone(cat, e->name, e->c->head->version, ctx);
    if (rc == ERR_OK) {
        atomic_store(&e->c->dropped, true);
        atomic_store(&e->c->upkeep_cancel, true);
    }
    pthread_mutex_unlock(&e->c->commit_lock);
    return rc;
}

/* A name that is gone, but maybe not durably, must not be written to any more: a start after a
 * crash may remove what it finds there. So a failure puts it back durably, or `*back` is false. */
static enum err move_away(struct catalog *cat, const char *path, const char *gone, bool *back,
                          struct err_ctx *ctx)
{
    struct err_ctx why;
    *back = true;
    RETURN_NOT_OK(io_rename(cat->io, path, gone, ctx));
    enum err e = io_sync_dir(cat->io, cat->dir, ctx);
    if (e == ERR_OK)
        return ERR_OK;
    err_clear(&why);
    *back = io_rename(cat->io, gone, path, &why) == ERR_OK &&
            io_sync_dir(cat->io, cat->dir, &why) == ERR_OK;
    if (!*back)
        log_error("%s is taken out of service, a start will tell whether it is dropped: %s", path,
                  why.detail);
    return e;
}

/* `without` is the table without the entry; *taken: it is in use. */
static enum err drop_entry(struct catalog *cat, struct entry *e, struct table *without, bool *taken,
                           struct err_ctx *ctx)
{
    char path[PATH_CAP], gone[PATH_CAP];
    entry_path(cat, e->name, path);
    random_name(cat, ".dropped-", gone);
    RETURN_NOT_OK(end_numbers(cat, e, ctx));
    struct collection *c = e->c ? collection_acquire(e->c) : NULL;
    if (c)
        collection_own_dir(c);
    bool back;
    enum err rc = move_away(cat, path, gone, &back, ctx);
    *taken = rc == ERR_OK || !back;
    if (c) {
        if (!*taken) {
            atomic_store(&c->dropped, false);
            atomic_store(&c->upkeep_cancel, false);
        }
        collection_disown_dir(c, *taken);
        collection_release(c);
    }
    if (*taken)
        table_set(cat, without, e);
    if (rc == ERR_OK)
        catalog_remove_tree(gone);
    return rc;
}

static enum err drop_locked(struct catalog *cat, const char *name, struct err_ctx *ctx)
{
    struct table *without;
    bool taken = false;
    struct entry *e = catalog_entry(atomic_load(&cat->table), name);
    if (!e)
        return err_set(ctx, ERR_NOT_FOUND, "there is no collection '%.128s'", name);
    if (!e->c && !e->fault)
        return err_set(ctx, ERR_UNAVAILABLE, "collection '%s' is being opened; try again soon",
                       name);
    RETURN_NOT_OK(table_new(cat, NULL, e, &without, ctx));
    enum err rc = drop_entry(cat, e, without, &taken, ctx);
    if (!taken)
        free(without);
    return rc;
}

enum err catalog_drop(struct catalog *cat, const char *name, struct err_ctx *ctx)
{
    pthread_mutex_lock(&cat->lock);
    enum err e = drop_locked(cat, name, ctx);
    pthread_mutex_unlock(&cat->lock);
    return e;
}
