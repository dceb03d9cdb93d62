/* Structures of segments: found on disk, attached, taken off, warmed up.
 *
 *   <collection dir>/index/<segment id as 16 hex digits>.ann  ─ map, check ─>  segment.ann
 *
 * The old structure serves until the new one is attached, and the old mapping goes when the last
 * reader has left its epoch section. After a crash the file is one or the other; made with other
 * settings than the schema's, it serves all the same while it is built anew. A damaged file, or one
 * of another segment, is not used: what its header and shape tell is seen before it is attached,
 * the bulk is read behind that, before the warm-up, so that a start need not wait for it.
 *
 * A dropped collection's path may be its successor's: files are removed inside
 * collection_enter_dir.
 *
 * Threads: `attach_lock` orders attaching and taking off; readers see either. Failure: said in the
 * log; the segment is scanned exactly. */
#include "index/indexer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/epoch.h"
#include "base/log.h"
#include "index/search_internal.h"

enum { WARM_BYTES = 32 << 20 };

uint32_t segment_vectors(const struct segment *s)
{
    struct view all = {.segment = (struct segment *)s, .rows = s->rows, .live = s->rows};
    return s->schema->dim ? view_vectors(&all) : 0;
}

struct index_plan plan_now(const struct indexer *ix, const struct collection *c, uint32_t vectors)
{
    epoch_enter();
    struct index_plan p = plan_segment(collection_snapshot(c)->schema, vectors, &ix->limits);
    epoch_leave();
    return p;
}

bool has_planned(const struct segment *s, const struct index_plan *p)
{
    epoch_enter();
    const struct ann_file *a = segment_ann(s);
    bool has = a && plan_matches(p, a);
    epoch_leave();
    return has;
}

bool has_dated(const struct segment *s)
{
    epoch_enter();
    const struct ann_file *a = segment_ann(s);
    bool dated = a && plan_dated(a);
    epoch_leave();
    return dated;
}

/* ---- files ---- */

char *ann_path(const struct collection *c, uint64_t segment_id)
{
    char *path = NULL;
    if (asprintf(&path, "%s/index/%016llx.ann", collection_dir(c), (unsigned long long)segment_id) <
        0)
        return NULL;
    return path;
}

void remove_file(struct collection *c, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (collection_enter_dir(c, &why) != ERR_OK)
        return;
    if (unlink(path) != 0 && errno != ENOENT)
        log_warn("%s, which nothing needs, stays behind: %s", path, strerror(errno));
    collection_leave_dir(c);
}

/* Maps the file at `path`, which belongs to the segment. */
static enum err open_ann(const struct collection *c, const struct segment *s, const char *path,
                         bool verify, struct ann_file **out, struct err_ctx *ctx)
{
    struct ann_file *a = NULL;
    RETURN_NOT_OK(ann_file_open(path, &a, ctx));
    enum err e = ann_file_check(a, collection_id(c), s, ctx);
    if (e == ERR_OK && verify)
        e = ann_file_verify(a, path, ctx);
    if (e != ERR_OK) {
        ann_file_close(a);
        return e;
    }
    a->verified = verify;
    *out = a;
    return ERR_OK;
}

/* Whether the collection is larger than what indexes may take of memory. */
static bool beyond_memory(const struct indexer *ix, const struct collection *c,
                          const struct segment *s, const struct ann_file *a)
{
    epoch_enter();
    uint64_t all = collection_snapshot(c)->bytes;
    epoch_leave();
    uint64_t own = s->bytes;
    return (all > own ? all : own) + a->bytes > ix->limits.memory_bytes;
}

/* Lists that memory does not hold are read from their files. */
static enum err choose_reads(const struct indexer *ix, const struct collection *c,
                             const struct segment *s, const char *path, struct ann_file *a,
                             struct err_ctx *ctx)
{
    bool lists = a->shape.kind == INDEX_IVF && a->codes && ix->io;
    if (!lists || !beyond_memory(ix, c, s, a))
        return ERR_OK;
    RETURN_NOT_OK(ann_file_read_from(a, ix->io, path, s, ctx));
    log_info("index of %s, segment %016llx: more than --memory holds; its lists are read from disk",
             collection_name(c), (unsigned long long)s->id);
    return ERR_OK;
}

/* ---- attaching ---- */

/* Under the attach lock. What the segment had goes when its last reader has left. */
static void set_ann(struct segment *s, struct ann_file *a)
{
    segment_set_ann(s, a, ann_file_close);
}

/* Under the attach lock. */
static void take_off_locked(struct collection *c, struct segment *s, const char *path)
{
    set_ann(s, NULL);
    remove_file(c, path);
}

void take_off(struct indexer *ix, struct collection *c, struct segment *s, const char *path)
{
    pthread_mutex_lock(&ix->attach_lock);
    take_off_locked(c, s, path);
    pthread_mutex_unlock(&ix->attach_lock);
}

enum err attach_built(struct indexer *ix, const struct job *j, const char *path,
                      struct err_ctx *ctx)
{
    struct ann_file *a = NULL;
    RETURN_NOT_OK(open_ann(j->collection, j->segment, path, true, &a, ctx));
    enum err e = choose_reads(ix, j->collection, j->segment, path, a, ctx);
    if (e != ERR_OK) {
        ann_file_close(a);
        return e;
    }
    pthread_mutex_lock(&ix->attach_lock);
    struct index_plan now = plan_now(ix, j->collection, j->vectors);
    bool wanted = plan_matches(&now, a);
    if (wanted)
        set_ann(j->segment, a);
    else if (now.kind == INDEX_FLAT)
        take_off_locked(j->collection, j->segment, path);
    pthread_mutex_unlock(&ix->attach_lock);
    if (!wanted)
        ann_file_close(a);
    return ERR_OK;
}

enum err attach_found(struct indexer *ix, struct collection *c, struct segment *s, const char *path,
                      struct err_ctx *ctx)
{
    struct ann_file *a = NULL;
    enum err e = ERR_OK;
    pthread_mutex_lock(&ix->attach_lock);
    if (!segment_ann(s)) {
        e = open_ann(c, s, path, false, &a, ctx);
        if (e == ERR_OK && (e = choose_reads(ix, c, s, path, a, ctx)) != ERR_OK)
            ann_file_close(a);
        if (e == ERR_OK)
            set_ann(s, a);
        else if (e == ERR_CORRUPT && !collection_dropped(c))
            log_warn("%s", ctx->detail);
    }
    pthread_mutex_unlock(&ix->attach_lock);
    return e;
}

/* ---- what was found is checked ---- */

static bool was_verified(const struct segment *s)
{
    epoch_enter();
    const struct ann_file *a = segment_ann(s);
    bool yes = !a || a->verified;
    epoch_leave();
    return yes;
}

struct verifying {
    struct indexer *ix;
    const struct job *job;
};

static bool verifying_stopped(void *arg)
{
    const struct verifying *v = arg;
    return job_cancelled(v->ix, v->job);
}

/* By a mapping of its own, so that no epoch section lasts as long. */
static enum err verify_file(struct indexer *ix, const struct job *j, const char *path,
                            struct err_ctx *ctx)
{
    struct ann_file *a = NULL;
    struct verifying v = {ix, j};
    RETURN_NOT_OK(ann_file_open(path, &a, ctx));
    enum err e = ann_file_verify_until(a, path, verifying_stopped, &v, ctx);
    ann_file_close(a);
    return e;
}

enum err verify_found(struct indexer *ix, const struct job *j, struct err_ctx *ctx)
{
    if (was_verified(j->segment))
        return ERR_OK;
    char *path = ann_path(j->collection, j->segment->id);
    if (!path)
        return err_no_memory(ctx, 64);
    enum err e = verify_file(ix, j, path, ctx);
    if (e == ERR_CORRUPT && !collection_dropped(j->collection)) {
        log_warn("%s", ctx->detail);
        take_off(ix, j->collection, j->segment, path);
    }
    free(path);
    return e;
}

/* ---- warm-up ---- */

/* Whether the structure still serves; maps a piece of its pages if so. False ends the warm-up. */
static bool populate_piece(const struct segment *s, const struct ann_file *a, uintptr_t at,
                           size_t n)
{
    epoch_enter();
    bool ok = segment_ann(s) == a && madvise((void *)at, n, MADV_POPULATE_READ) == 0;
    epoch_leave();
    return ok;
}

/* Maps the pages of [data, data + n) piece by piece, as long as nobody waits for the thread. A
 * kernel without MADV_POPULATE_READ (before 5.14) refuses: pages then come with the searches. */
static void populate(struct indexer *ix, const struct job *j, const struct ann_file *a,
                     const void *data, uint64_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t at = (uintptr_t)data & ~(page - 1), end = (uintptr_t)data + n;
    for (; at < end && !job_cancelled(ix, j); at += WARM_BYTES) {
        if (!populate_piece(j->segment, a, at, end - at < WARM_BYTES ? end - at : WARM_BYTES))
            return;
    }
}

void warm(struct indexer *ix, const struct job *j)
{
    const struct segment *s = j->segment;
    uint64_t vectors = (uint64_t)s->rows * s->schema->dim * sizeof(float);
    epoch_enter();
    const struct ann_file *a = segment_ann(s);
    const uint8_t *map = a ? a->map : NULL;
    uint64_t bytes = a ? a->bytes : 0;
    epoch_leave();
    if (!a || bytes + vectors > ix->limits.memory_bytes)
        return;
    populate(ix, j, a, map, bytes);
    populate(ix, j, a, s->vectors, vectors);
}
