/* Checking a data directory, collection by collection:
 *
 *   checkpoints   each file decodes, and so does each history file
 *   open          as a start does: log groups, replay, segments; see io_readonly.c
 *   segments      every block, then segment_check; those in use, or all when opening failed
 *   history       item follows item without a gap, and each version has the rows it recorded
 *   version       live rows, vectors and digest counted anew against what is recorded; each live
 *                 row is what its key finds
 *
 * The directory's lock is held meanwhile, so that no daemon serves it; several checks may run.
 * A sentence that only repeats an earlier finding (opening fails on the segment that was found
 * damaged) is left out. Threads: one. Failure: what cannot be read at all ends the check. */
#include "store/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/epoch.h"
#include "base/log.h"
#include "store/catalog_internal.h"
#include "store/scrub.h"
#include "store/segment_check.h"

struct check {
    const char *dir; /* data directory */
    const struct check_hooks *hooks;
    struct io *io;
    bool damaged;
    char name[NAME_MAX_BYTES + 1]; /* the collection at hand, or "" */
    char path[PATH_CAP - 64];      /* its directory */
    bool name_damaged;
    struct buf said; /* damage of the collection at hand, NUL after each */
};

static bool said_already(const struct check *ck, const char *text)
{
    const char *at = (const char *)ck->said.data, *end = at + ck->said.len;
    for (; at < end; at += strlen(at) + 1) {
        if (strstr(text, at))
            return true;
    }
    return false;
}

void check_found(struct check *ck, enum check_kind kind, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (kind == CHECK_DAMAGE) {
        ck->damaged = ck->name_damaged = true;
        if (said_already(ck, text))
            return;
        buf_put(&ck->said, text, strlen(text) + 1);
        if (ck->said.failed) /* then it is said twice */
            buf_reset(&ck->said);
    }
    ck->hooks->found(ck->hooks->arg, kind, ck->name, text);
}

/* What the code that opens would have changed on disk. */
static void note_change(void *arg, enum io_change what, const char *path, uint64_t offset)
{
    struct check *ck = arg;
    if (what == IO_CHANGE_UNLINK)
        check_found(ck, CHECK_NOTE, "%s: nothing refers to it; the next start removes it", path);
    else
        check_found(ck, CHECK_NOTE,
                    "%s: offset %" PRIu64 ": a commit was being written when the daemon or the "
                    "machine stopped; it was never acknowledged, and the next start cuts it off",
                    path, offset);
}

/* ---- segments ---- */

static bool blocks_sound(struct check *ck, const struct segment *s)
{
    struct err_ctx unread;
    err_clear(&unread);
    bool sound = true;
    for (uint64_t block = 0; block < s->data_len / IO_SUM_BLOCK; block++) {
        struct err_ctx why;
        err_clear(&why);
        if (segment_verify_block(s, block, &why) == ERR_OK)
            continue;
        check_found(ck, CHECK_DAMAGE, "%s", why.detail);
        sound = false;
    }
    if (!sound && mapping_check(ck->path, &unread) != ERR_OK)
        check_found(ck, CHECK_DAMAGE, "%s", unread.detail);
    return sound;
}

static void check_one_segment(struct check *ck, const uint8_t *collection_id,
                              const struct segment *s)
{
    struct err_ctx why;
    err_clear(&why);
    if (!s->tail && !blocks_sound(ck, s))
        return;
    if (segment_check(s, &why) != ERR_OK || mapping_check(ck->path, &why) != ERR_OK)
        check_found(ck, CHECK_DAMAGE, "%s", why.detail);
    else if (!s->tail && ck->hooks->segment)
        ck->hooks->segment(ck->hooks->arg, ck, ck->path, collection_id, s);
}

/* ---- files of a folder ---- */

static bool listed(const char *const list[], const char *suffix)
{
    while (list && *list && strcmp(*list, suffix) != 0)
        list++;
    return list && *list;
}

/* Calls fn for each file <16 hex digits>.<suffix> of a folder; others are noted. Names that end in
 * one of `others` (up to NULL) belong to another call. */
static void each_numbered(struct check *ck, const char *folder, const char *suffix,
                          const char *const others[],
                          void (*fn)(struct check *ck, const char *path))
{
    char dir[PATH_CAP], path[PATH_CAP + 300];
    snprintf(dir, sizeof dir, "%s/%s", ck->path, folder);
    DIR *d = opendir(dir);
    if (!d) {
        check_found(ck, CHECK_DAMAGE, "%s: the directory cannot be read: %s", dir, strerror(errno));
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        bool named = strspn(e->d_name, "0123456789abcdef") == 16 && e->d_name[16] == '.';
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (named && strcmp(e->d_name + 17, suffix) == 0) {
            if (fn)
                fn(ck, path);
        } else if (!named || !listed(others, e->d_name + 17)) {
            check_found(ck, CHECK_NOTE, "%s: not a file of the collection", path);
        }
    }
    closedir(d);
}

static void check_segment_file(struct check *ck, const char *path)
{
    struct segment *s;
    struct err_ctx why;
    err_clear(&why);
    if (segment_open(path, NULL, &s, &why) != ERR_OK) {
        check_found(ck, CHECK_DAMAGE, "%s", why.detail);
        return;
    }
    check_one_segment(ck, NULL, s);
    segment_release(s);
}

static void check_checkpoint_file(struct check *ck, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (checkpoint_check_file(ck->io, path, &why) != ERR_OK)
        check_found(ck, CHECK_DAMAGE, "%s", why.detail);
}

static void check_history_file(struct check *ck, const char *path)
{
    struct history_file f;
    struct buf data = {0};
    struct err_ctx why;
    err_clear(&why);
    if (history_file_read(ck->io, path, NULL, &data, &f, &why) != ERR_OK)
        check_found(ck, CHECK_DAMAGE, "%s", why.detail);
    buf_deinit(&data);
}

/* ---- older versions ---- */

/* Segments that only older versions need: head's are checked already. */
static void check_older_segments(struct check *ck, struct collection *c, const struct snapshot *s)
{
    struct buf refs = {0};
    registry_list(c, &refs);
    if (refs.failed)
        check_found(ck, CHECK_DAMAGE, "%s: out of memory while listing segments", ck->path);
    const struct segment_ref *r = (const struct segment_ref *)refs.data;
    for (size_t i = 0; i < refs.len / sizeof *r; i++) {
        struct segment *segment;
        struct err_ctx why;
        bool in_head = false;
        err_clear(&why);
        for (uint32_t k = 0; k < s->nviews && !in_head; k++)
            in_head = s->views[k].segment->id == r[i].id;
        if (in_head)
            continue;
        if (collection_segment(c, r[i].id, &segment, &why) == ERR_OK) {
            check_one_segment(ck, c->id, segment);
            segment_release(segment);
        } else {
            check_found(ck, CHECK_DAMAGE, "%s", why.detail);
        }
    }
    buf_deinit(&refs);
}

/* Each commit leads from the version before it to the rows that it recorded. */
static void check_history(struct check *ck, struct collection *c)
{
    struct err_ctx why;
    err_clear(&why);
    if (history_verify(c, &why) != ERR_OK)
        check_found(ck, CHECK_DAMAGE, "%s", why.detail);
}

/* ---- the newest version ---- */

struct sums {
    uint64_t rows, vectors;
    struct digest digest;
};

static void check_view(struct check *ck, const struct snapshot *s, uint32_t view,
                       struct row_builder *rb, struct sums *sums)
{
    const struct view *v = &s->views[view];
    bool events = s->schema->event_time >= 0;
    for (uint32_t row = 0; row < v->rows; row++) {
        struct row_ref ref;
        if (!(events ? view_kept(v, row) : view_live(v, row)))
            continue;
        row_from_segment(rb, v->segment, row);
        rb->row.hashed = NULL; /* what is checked is the vector itself */
        digest_add(&sums->digest, row_digest(&rb->row));
        if (!view_live(v, row)) /* history: in the digest, and no more */
            continue;
        sums->rows++;
        sums->vectors += rb->row.vector != NULL;
        bool found = s->schema->key == KEY_INT64
                         ? snapshot_find_int(s, rb->row.int_key, &ref)
                         : snapshot_find_str(s, rb->row.key, rb->row.key_len, &ref);
        if (!found || ref.view != view || ref.row != row) {
            check_found(ck, CHECK_DAMAGE,
                        "%s: row %u of segment %016" PRIx64
                        " is alive, but its key leads elsewhere",
                        ck->path, row, v->segment->id);
            return;
        }
    }
}

static void compare_sums(struct check *ck, const struct snapshot *s, const struct sums *sums)
{
    if (sums->rows != s->rows || sums->vectors != s->vectors)
        check_found(ck, CHECK_DAMAGE,
                    "%s: version %" PRIu64 " has %" PRIu64 " live rows and %" PRIu64
                    " vectors; recorded are %" PRIu64 " and %" PRIu64,
                    ck->path, s->version, sums->rows, sums->vectors, s->rows, s->vectors);
    else if (sums->digest.lo != s->digest.lo || sums->digest.hi != s->digest.hi)
        check_found(ck, CHECK_DAMAGE,
                    "%s: the digest of version %" PRIu64 " is %016" PRIx64 "%016" PRIx64
                    ", but its rows give %016" PRIx64 "%016" PRIx64,
                    ck->path, s->version, s->digest.hi, s->digest.lo, sums->digest.hi,
                    sums->digest.lo);
}

static void check_version(struct check *ck, const struct snapshot *s)
{
    struct row_builder rb;
    struct sums sums = {0};
    struct err_ctx why;
    err_clear(&why);
    if (row_builder_init(&rb, s->schema, &why) != ERR_OK) {
        check_found(ck, CHECK_DAMAGE, "%s: %s", ck->path, why.detail);
        return;
    }
    for (uint32_t i = 0; i < s->nviews; i++)
        check_view(ck, s, i, &rb, &sums);
    row_builder_deinit(&rb);
    compare_sums(ck, s, &sums);
}

/* ---- a collection ---- */

static void check_opened(struct check *ck, struct collection *c, struct check_collection *out)
{
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(c));
    epoch_leave();
    for (uint32_t i = 0; i < s->nviews; i++)
        check_one_segment(ck, c->id, s->views[i].segment);
    check_older_segments(ck, c, s);
    check_history(ck, c);
    if (!ck->name_damaged)
        check_version(ck, s);
    out->readable = true;
    out->version = s->version;
    out->rows = s->rows;
    out->bytes = s->bytes;
    for (uint32_t i = 0; i < s->nviews; i++)
        out->segments += !s->views[i].segment->tail;
    snapshot_release(s);
}

static const char *const beside_checkpoints[] = {"log", "hist", NULL};
static const char *const beside_history[] = {"log", "ckpt", NULL};

static void check_collection(struct check *ck, const char *name)
{
    struct collection *c;
    struct err_ctx why;
    struct check_collection out = {.name = name};
    err_clear(&why);
    snprintf(ck->name, sizeof ck->name, "%.*s", NAME_MAX_BYTES, name);
    snprintf(ck->path, sizeof ck->path, "%s/%s", ck->dir, ck->name);
    ck->name_damaged = false;
    buf_reset(&ck->said);
    each_numbered(ck, "log", "ckpt", beside_checkpoints, check_checkpoint_file);
    each_numbered(ck, "log", "hist", beside_history, check_history_file);
    each_numbered(ck, "index", "ann", NULL, NULL);
    if (collection_open(ck->io, name, ck->path, NULL, &c, &why) == ERR_OK) {
        check_opened(ck, c, &out);
        collection_release(c);
    } else {
        each_numbered(ck, "segments", "seg", NULL, check_segment_file);
        check_found(ck, CHECK_DAMAGE, "%s", why.detail);
    }
    out.sound = !ck->name_damaged;
    ck->hooks->done(ck->hooks->arg, &out);
    ck->name[0] = 0;
    epoch_drain();
}

/* ---- the data directory ---- */

static void check_tombstones(struct check *ck)
{
    char path[PATH_CAP];
    snprintf(path, sizeof path, "%s/.tombstones", ck->dir);
    DIR *d = opendir(path);
    if (!d) {
        check_found(ck, CHECK_NOTE, "%s: missing; the next start makes it", path);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        char file[PATH_CAP], text[32] = "", *end = text;
        if (!name_valid(e->d_name)) /* half written: never read */
            continue;
        snprintf(file, sizeof file, "%.3700s/%s", path, e->d_name);
        FILE *f = fopen(file, "r");
        bool ok = f && fgets(text, sizeof text, f) && text[0] >= '0' && text[0] <= '9';
        if (ok) {
            (void)strtoull(text, &end, 10);
            ok = *end == '\n';
        }
        if (f)
            fclose(f);
        if (!ok)
            check_found(ck, CHECK_DAMAGE, "%s: offset 0: not the number of a version", file);
    }
    closedir(d);
}

static void check_name(struct check *ck, const char *name)
{
    char path[PATH_CAP];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", ck->dir, name);
    if (strcmp(name, "FORMAT") == 0 || strcmp(name, ".tombstones") == 0)
        return;
    if (strncmp(name, ".new-", 5) == 0 || strncmp(name, ".dropped-", 9) == 0)
        check_found(ck, CHECK_NOTE, "%s: half created or half removed; the next start removes it",
                    path);
    else if (!name_valid(name) || stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        check_found(ck, CHECK_NOTE, "%s: not a file of loadstoned", path);
    else
        check_collection(ck, name);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static enum err check_names(struct check *ck, struct err_ctx *ctx)
{
    struct dirent **names;
    int n = scandir(ck->dir, &names, NULL, by_name);
    if (n < 0)
        return err_system(ctx, errno, "open directory %s", ck->dir);
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0)
            check_name(ck, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return ERR_OK;
}

/* The lock is shared with other checks, never with a daemon. */
static enum err lock_format(const char *dir, int *fd, struct err_ctx *ctx)
{
    char path[PATH_CAP], text[64] = "";
    snprintf(path, sizeof path, "%s/FORMAT", dir);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT) {
        RETURN_NOT_OK(catalog_check_new(dir, ctx));
        return err_set(ctx, ERR_NOT_FOUND, "%s is no data directory: it holds no file FORMAT", dir);
    }
    if (*fd < 0)
        return err_system(ctx, errno, "open %s", path);
    if (flock(*fd, LOCK_SH | LOCK_NB) != 0)
        return err_set(ctx, ERR_CONFLICT,
                       "the data directory %s is in use by a running loadstoned: stop it and check "
                       "again, or check a snapshot of the file system",
                       dir);
    if (read(*fd, text, sizeof text - 1) < 0)
        return err_system(ctx, errno, "read %s", path);
    if (strcmp(text, CATALOG_FORMAT) != 0)
        return err_set(ctx, ERR_CORRUPT, "%s: offset 0: not of a format this build reads", path);
    return ERR_OK;
}

enum err check_dir(const char *dir, const struct check_hooks *hooks, bool *damaged,
                   struct err_ctx *ctx)
{
    struct check ck = {.dir = dir, .hooks = hooks};
    int lock = -1;
    if (strlen(dir) > CATALOG_DIR_MAX)
        return err_set(ctx, ERR_INVALID, "the path is longer than %d bytes", CATALOG_DIR_MAX);
    enum err e = lock_format(dir, &lock, ctx);
    if (e == ERR_OK)
        e = io_new_readonly(note_change, &ck, &ck.io, ctx);
    if (e == ERR_OK) {
        log_set_level(LOG_ERROR + 1); /* what is to be said is said by the findings */
        check_tombstones(&ck);
        e = check_names(&ck, ctx);
        io_free(ck.io);
    }
    if (lock >= 0)
        close(lock);
    buf_deinit(&ck.said);
    *damaged = ck.damaged;
    return e;
}
