/* Open loads on disk.
 *
 *   staging/ends                 loads that were aborted or expired in the last 7 days
 *   staging/<load>/load          what the load is; written first, removed first
 *                 /<n>.part      an acknowledged part: its name, its body's hash, its segments
 *                 /<id>.seg      its segments
 *
 * A part's segments are synced before its file is written, atomically, in the same directory; what
 * no part's file names was not acknowledged and goes at the next start, as does a directory without
 * a load's file. A commit moves segments into segments/ and only then writes its record: a start
 * that finds no record moves them back.
 *
 * Every file: magic, collection id, length, crc32c, body. A damaged one is told by whoever asks for
 * the load, which then can only be aborted: an acknowledged part is never dropped in silence.
 *
 * Threads: one thread a file. Failure: files are whole or absent. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/session_internal.h"

#define LOAD_MAGIC "LSLOAD1\n"
#define PART_MAGIC "LSPART1\n"
#define ENDS_MAGIC "LSENDS1\n"

enum { ENVELOPE_BYTES = 8 + 16 + 8 + 4 };

void session_dir(const struct collection *c, const uint8_t id[LOAD_ID_BYTES], char *out, size_t cap)
{
    char text[33];
    session_id_text(id, text);
    snprintf(out, cap, "%s/staging/%s", c->dir, text);
}

/* ---- envelopes ---- */

static enum err write_file(struct collection *c, const char *path, const char *magic,
                           const struct buf *body, struct err_ctx *ctx)
{
    struct buf file = {0};
    buf_put(&file, magic, 8);
    buf_put(&file, c->id, 16);
    buf_put_u64(&file, body->len);
    buf_put_u32(&file, crc32c(0, body->data, body->len));
    buf_put(&file, body->data, body->len);
    if (body->failed || file.failed) {
        buf_deinit(&file);
        return err_no_memory(ctx, body->len);
    }
    enum err e = collection_enter_dir(c, ctx);
    if (e == ERR_OK) {
        e = io_write_atomic(c->io, path, file.data, file.len, ctx);
        collection_leave_dir(c);
    }
    buf_deinit(&file);
    return e;
}

/* `hold` owns the bytes that *body walks. */
static enum err read_file(const struct collection *c, const char *path, const char *magic,
                          struct buf *hold, struct cursor *body, struct err_ctx *ctx)
{
    struct io_file *f;
    uint64_t n = 0;
    RETURN_NOT_OK(io_file_open(c->io, path, IO_READ, &f, ctx));
    enum err e = io_file_size(f, &n, ctx);
    void *at = e == ERR_OK ? buf_extend(hold, n + 1) : NULL;
    if (e == ERR_OK)
        e = at ? io_file_read(f, at, n, 0, ctx) : err_no_memory(ctx, n);
    io_file_close(f);
    RETURN_NOT_OK(e);
    struct cursor cur = cursor_over(at, n);
    const void *found = cursor_take(&cur, 8), *id = cursor_take(&cur, 16);
    uint64_t len = cursor_u64(&cur);
    uint32_t crc = cursor_u32(&cur);
    if (cur.failed || memcmp(found, magic, 8) != 0 || memcmp(id, c->id, 16) != 0 ||
        len != cursor_left(&cur) || crc != crc32c(0, cur.p, len))
        return err_set(ctx, ERR_CORRUPT, "%s is damaged", path);
    *body = cur;
    return ERR_OK;
}

static void put_hash(struct buf *b, struct hash128 h)
{
    buf_put_u64(b, h.lo);
    buf_put_u64(b, h.hi);
}

static struct hash128 get_hash(struct cursor *c)
{
    uint64_t lo = cursor_u64(c);
    return (struct hash128){lo, cursor_u64(c)};
}

static void get_bytes16(struct cursor *c, uint8_t out[16])
{
    const void *at = cursor_take(c, 16);
    if (at)
        memcpy(out, at, 16);
}

/* ---- the load ---- */

enum err session_file_create(const struct session *s, struct err_ctx *ctx)
{
    char dir[PATH_CAP - 64], path[PATH_CAP];
    struct buf b = {0};
    session_dir(s->c, s->id, dir, sizeof dir);
    RETURN_NOT_OK(collection_enter_dir(s->c, ctx));
    enum err e = io_mkdir(s->c->io, dir, ctx);
    collection_leave_dir(s->c);
    RETURN_NOT_OK(e);
    buf_put_u32(&b, (uint32_t)s->mode);
    buf_put_u8(&b, s->duplicates_last);
    buf_put_u64(&b, (uint64_t)s->created_us);
    buf_put_u64(&b, (uint64_t)s->expiry_us);
    buf_put_u8(&b, s->keyed);
    buf_put(&b, s->key, sizeof s->key);
    buf_put(&b, s->hash, sizeof s->hash);
    buf_put_blob(&b, s->text, s->text_len);
    snprintf(path, sizeof path, "%s/load", dir);
    e = write_file(s->c, path, LOAD_MAGIC, &b, ctx);
    buf_deinit(&b);
    return e;
}

static enum err read_load(struct session *s, struct err_ctx *ctx)
{
    char dir[PATH_CAP - 64], path[PATH_CAP];
    struct buf hold = {0};
    struct cursor c;
    size_t n = 0;
    session_dir(s->c, s->id, dir, sizeof dir);
    snprintf(path, sizeof path, "%s/load", dir);
    enum err e = read_file(s->c, path, LOAD_MAGIC, &hold, &c, ctx);
    if (e == ERR_OK) {
        s->mode = (enum load_mode)cursor_u32(&c);
        s->duplicates_last = cursor_u8(&c);
        s->created_us = s->active_us = (int64_t)cursor_u64(&c);
        s->expiry_us = (int64_t)cursor_u64(&c);
        s->keyed = cursor_u8(&c);
        get_bytes16(&c, s->key);
        get_bytes16(&c, s->hash);
        const char *text = cursor_blob(&c, &n);
        if (c.failed)
            e = err_set(ctx, ERR_CORRUPT, "%s is damaged", path);
        else if (!(s->text = strndup(text, n)))
            e = err_no_memory(ctx, n);
        s->text_len = n;
    }
    buf_deinit(&hold);
    return e;
}

/* ---- parts ---- */

static void part_path(const struct session *s, uint64_t number, char *out, size_t cap)
{
    char dir[PATH_CAP - 64];
    session_dir(s->c, s->id, dir, sizeof dir);
    snprintf(out, cap, "%s/%016" PRIx64 ".part", dir, number);
}

static void staged_path(const struct session *s, uint64_t id, char *out, size_t cap)
{
    char dir[PATH_CAP - 64];
    session_dir(s->c, s->id, dir, sizeof dir);
    snprintf(out, cap, "%s/%016" PRIx64 ".seg", dir, id);
}

enum err session_file_put(const struct session *s, const struct part *p,
                          const struct staged *staged, size_t nstaged, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct buf b = {0};
    buf_put_blob(&b, p->name, p->name_len);
    buf_put_u64(&b, p->rows);
    buf_put_u64(&b, p->bytes);
    put_hash(&b, p->digest);
    buf_put_u64(&b, (uint64_t)p->time_us);
    buf_put_u32(&b, (uint32_t)nstaged);
    for (size_t i = 0; i < nstaged; i++)
        buf_put_u64(&b, staged[i].id);
    staged_encode(staged, nstaged, &b);
    part_path(s, p->number, path, sizeof path);
    enum err e = write_file(s->c, path, PART_MAGIC, &b, ctx);
    buf_deinit(&b);
    return e;
}

/* The part and the ids of its segments, which are borrowed; the name is allocated. Behind them
 * stands what staged_encode wrote. */
static enum err get_part(struct cursor *c, struct part *p, const uint8_t **ids, uint32_t *nstaged,
                         const char *path, struct err_ctx *ctx)
{
    const char *name = cursor_blob(c, &p->name_len);
    p->rows = cursor_u64(c);
    p->bytes = cursor_u64(c);
    p->digest = get_hash(c);
    p->time_us = (int64_t)cursor_u64(c);
    *nstaged = cursor_u32(c);
    *ids = cursor_take(c, (size_t)*nstaged * sizeof(uint64_t));
    if (c->failed || p->name_len == 0)
        return err_set(ctx, ERR_CORRUPT, "%s is damaged", path);
    p->name = strndup(name, p->name_len);
    return p->name ? ERR_OK : err_no_memory(ctx, p->name_len);
}

enum err session_file_get(const struct session *s, const struct part *p, struct staged **out,
                          size_t *n, struct err_ctx *ctx)
{
    char dir[PATH_CAP - 64], path[PATH_CAP];
    struct buf hold = {0};
    struct cursor c;
    struct part same = {0};
    const uint8_t *ids;
    uint32_t count;
    session_dir(s->c, s->id, dir, sizeof dir);
    part_path(s, p->number, path, sizeof path);
    enum err e = read_file(s->c, path, PART_MAGIC, &hold, &c, ctx);
    if (e == ERR_OK)
        e = get_part(&c, &same, &ids, &count, path, ctx);
    if (e == ERR_OK)
        e = staged_decode(s->c, dir, &c, out, n, ctx);
    free(same.name);
    buf_deinit(&hold);
    return e;
}

/* ---- removing ---- */

/* Calls fn for each entry of a directory but . and ..; a directory that is not there has none. */
static enum err each_name(const char *dir, void (*fn)(void *arg, const char *name), void *arg,
                          struct err_ctx *ctx)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? ERR_OK : err_system(ctx, errno, "open directory %s", dir);
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            fn(arg, e->d_name);
    }
    closedir(d);
    return ERR_OK;
}

struct removal {
    struct collection *c;
    const char *dir;
};

static void remove_one(void *arg, const char *name)
{
    struct removal *r = arg;
    struct err_ctx why;
    char path[PATH_CAP];
    err_clear(&why);
    snprintf(path, sizeof path, "%.3900s/%.250s", r->dir, name);
    if (io_unlink(r->c->io, path, &why) != ERR_OK)
        log_warn("%s stays behind until the next start: %s", path, why.detail);
}

bool session_file_unput(const struct session *s, const struct part *p)
{
    char path[PATH_CAP];
    struct err_ctx why;
    part_path(s, p->number, path, sizeof path);
    if (collection_enter_dir(s->c, &why) != ERR_OK)
        return false;
    bool gone = access(path, F_OK) != 0 || io_unlink(s->c->io, path, &why) == ERR_OK;
    collection_leave_dir(s->c);
    return gone;
}

void session_file_remove(struct collection *c, const uint8_t id[LOAD_ID_BYTES])
{
    char dir[PATH_CAP - 64];
    struct err_ctx why;
    err_clear(&why);
    session_dir(c, id, dir, sizeof dir);
    struct removal r = {c, dir};
    if (collection_enter_dir(c, &why) != ERR_OK)
        return;
    if (access(dir, F_OK) == 0) {
        remove_one(&r, "load");
        if (each_name(dir, remove_one, &r, &why) != ERR_OK)
            log_warn("%s stays behind until the next start: %s", dir, why.detail);
        (void)rmdir(dir); /* an empty one that stays is removed at the next start */
    }
    collection_leave_dir(c);
}

/* ---- ends ---- */

static void ends_path(const struct collection *c, char *out, size_t cap)
{
    snprintf(out, cap, "%s/staging/ends", c->dir);
}

enum err session_file_ends(struct collection *c, const struct session_end *ends, size_t n,
                           struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct buf b = {0};
    for (size_t i = 0; i < n; i++) {
        buf_put(&b, ends[i].id, LOAD_ID_BYTES);
        buf_put_u8(&b, ends[i].expired);
        buf_put_u8(&b, ends[i].keyed);
        buf_put(&b, ends[i].key, 16);
        buf_put(&b, ends[i].hash, 16);
        buf_put_u64(&b, (uint64_t)ends[i].opened_expires_us);
        buf_put_u64(&b, (uint64_t)ends[i].time_us);
    }
    ends_path(c, path, sizeof path);
    enum err e = write_file(c, path, ENDS_MAGIC, &b, ctx);
    buf_deinit(&b);
    return e;
}

static bool get_end(struct cursor *c, struct session_end *end)
{
    get_bytes16(c, end->id);
    end->expired = cursor_u8(c);
    end->keyed = cursor_u8(c);
    get_bytes16(c, end->key);
    get_bytes16(c, end->hash);
    end->opened_expires_us = (int64_t)cursor_u64(c);
    end->time_us = (int64_t)cursor_u64(c);
    return !c->failed;
}

static enum err read_ends(struct collection *c, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct buf hold = {0};
    struct cursor cur;
    ends_path(c, path, sizeof path);
    if (access(path, F_OK) != 0)
        return ERR_OK;
    enum err e = read_file(c, path, ENDS_MAGIC, &hold, &cur, ctx);
    while (e == ERR_OK && cursor_left(&cur)) {
        struct session_end end = {0};
        if (!get_end(&cur, &end))
            e = err_set(ctx, ERR_CORRUPT, "%s is damaged", path);
        else if (!sessions_ends_add(c->sessions, &end))
            e = err_no_memory(ctx, sizeof end);
    }
    buf_deinit(&hold);
    return e;
}

/* ---- at open ---- */

struct reading {
    struct collection *c;
    struct session *s;
    struct err_ctx *ctx;
    struct buf kept; /* u64: segments that parts name */
};

static void note_fault(struct session *s, const char *why)
{
    if (!s->fault && !(s->fault = strdup(why)))
        log_warn("%s", why);
}

static bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* A commit that was cut off had moved the segment already, and no record names it. */
static enum err bring_back(struct session *s, uint64_t id, struct err_ctx *ctx)
{
    char staged[PATH_CAP], moved[PATH_CAP];
    struct err_ctx why;
    collection_note_segment_id(s->c, id);
    staged_path(s, id, staged, sizeof staged);
    segment_file_path(s->c, "segments", id, moved, sizeof moved);
    if (file_exists(staged) || !file_exists(moved) ||
        collection_check_unknown(s->c, id, &why) != ERR_OK)
        return ERR_OK;
    return io_rename(s->c->io, moved, staged, ctx);
}

/* Takes `p` over on success. Two files of one name: the put of the older failed when its file was
 * there already, and was sent again. */
static enum err list_part(struct session *s, struct part *p, struct err_ctx *ctx)
{
    size_t at;
    if (p->time_us > s->active_us)
        s->active_us = p->time_us;
    if (!session_find_part(s, p->name, p->name_len, &at))
        return session_insert_part(s, at, p) ? ERR_OK : err_no_memory(ctx, sizeof *p);
    struct part *old = s->parts[at];
    if (p->number > old->number) {
        s->rows += p->rows - old->rows;
        s->bytes += p->bytes - old->bytes;
        s->parts[at] = p;
        p = old;
    }
    part_free(p);
    return ERR_OK;
}

static enum err read_part(struct reading *r, uint64_t number, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct session *s = r->s;
    struct buf hold = {0};
    struct cursor c;
    const uint8_t *ids = NULL;
    uint32_t n = 0;
    struct part *p = calloc(1, sizeof *p);
    if (!p)
        return err_no_memory(ctx, sizeof *p);
    p->number = number;
    part_path(s, number, path, sizeof path);
    enum err e = read_file(s->c, path, PART_MAGIC, &hold, &c, ctx);
    if (e == ERR_OK)
        e = get_part(&c, p, &ids, &n, path, ctx);
    struct cursor list = cursor_over(ids, n * sizeof(uint64_t));
    for (uint32_t i = 0; e == ERR_OK && i < n; i++) {
        uint64_t id = cursor_u64(&list);
        buf_put_u64(&r->kept, id);
        e = bring_back(s, id, ctx);
    }
    if (e == ERR_OK)
        e = list_part(s, p, ctx);
    if (number >= s->next_part)
        s->next_part = number + 1;
    if (e != ERR_OK)
        part_free(p);
    buf_deinit(&hold);
    return e;
}

static bool parse_number(const char *name, const char *suffix, uint64_t *number)
{
    char end[16];
    return sscanf(name, "%16" SCNx64 "%15s", number, end) == 2 && strcmp(end, suffix) == 0;
}

static void read_entry(void *arg, const char *name)
{
    struct reading *r = arg;
    struct err_ctx why;
    uint64_t number;
    err_clear(&why);
    if (parse_number(name, ".part", &number) && read_part(r, number, &why) != ERR_OK)
        note_fault(r->s, why.detail);
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool is_kept(const struct reading *r, uint64_t id)
{
    size_t n = r->kept.len / sizeof id;
    return n && bsearch(&id, r->kept.data, n, sizeof id, by_id);
}

/* Segments of parts that were never acknowledged, and half-written files. */
static void sweep_entry(void *arg, const char *name)
{
    struct reading *r = arg;
    char dir[PATH_CAP - 64];
    uint64_t number;
    if (strcmp(name, "load") == 0 || parse_number(name, ".part", &number))
        return;
    if (r->s->fault || (parse_number(name, ".seg", &number) && is_kept(r, number)))
        return;
    session_dir(r->c, r->s->id, dir, sizeof dir);
    struct removal gone = {r->c, dir};
    remove_one(&gone, name);
}

static bool is_ended(const struct sessions *all, const uint8_t id[LOAD_ID_BYTES])
{
    for (size_t i = 0; i < all->nends; i++) {
        if (memcmp(all->ends[i].id, id, LOAD_ID_BYTES) == 0)
            return true;
    }
    return false;
}

static enum err read_session(struct reading *r, const char *dir, const uint8_t *id,
                             struct err_ctx *ctx)
{
    struct session *s = session_alloc(r->c, id);
    if (!s)
        return err_no_memory(ctx, sizeof *s);
    struct err_ctx why;
    err_clear(&why);
    r->s = s;
    r->kept.len = 0;
    if (read_load(s, &why) != ERR_OK)
        note_fault(s, why.detail);
    enum err e = each_name(dir, read_entry, r, ctx);
    if (e == ERR_OK && r->kept.failed)
        e = err_no_memory(ctx, r->kept.len);
    if (r->kept.len)
        qsort(r->kept.data, r->kept.len / sizeof(uint64_t), sizeof(uint64_t), by_id);
    if (e == ERR_OK)
        e = each_name(dir, sweep_entry, r, ctx);
    s->unsettled = true;
    if (s->fault)
        log_error("collection %s: an open load can only be aborted: %s", r->c->name, s->fault);
    if (e == ERR_OK && !sessions_list_add(r->c->sessions, s))
        e = err_no_memory(ctx, sizeof *s);
    if (e != ERR_OK)
        session_unref(s);
    return e;
}

static void read_dir(void *arg, const char *name)
{
    struct reading *r = arg;
    char dir[PATH_CAP - 64], path[PATH_CAP];
    uint8_t id[LOAD_ID_BYTES];
    if (r->ctx->code != ERR_OK || !session_id_parse(name, strlen(name), id))
        return;
    session_dir(r->c, id, dir, sizeof dir);
    snprintf(path, sizeof path, "%s/load", dir);
    if (is_ended(r->c->sessions, id) || !file_exists(path))
        session_file_remove(r->c, id);
    else
        (void)!read_session(r, dir, id, r->ctx);
}

static int by_age(const void *a, const void *b)
{
    const struct session *x = *(struct session *const *)a, *y = *(struct session *const *)b;
    return (x->created_us > y->created_us) - (x->created_us < y->created_us);
}

/* Keys whose answer was a load that no commit's record tells of. */
static void restore_receipts(struct collection *c)
{
    struct sessions *all = c->sessions;
    for (size_t i = 0; i < all->nends; i++) {
        const struct session_end *end = &all->ends[i];
        struct receipt r = {.keyed = end->keyed,
                            .of_load = true,
                            .expires_us = end->opened_expires_us,
                            .time_us = end->time_us};
        memcpy(r.key, end->key, sizeof r.key);
        memcpy(r.hash, end->hash, sizeof r.hash);
        memcpy(r.load_id, end->id, sizeof r.load_id);
        if (r.keyed)
            receipt_add(c, &r);
    }
    for (size_t i = 0; i < all->n; i++) {
        struct receipt r = session_receipt(all->list[i]);
        if (r.keyed)
            receipt_add(c, &r);
    }
}

/* A file of ends that is damaged costs no more than answers of 404 instead of 410. */
enum err sessions_read(struct collection *c, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    struct err_ctx why, failed;
    struct reading r = {.c = c, .ctx = &failed};
    err_clear(&why);
    err_clear(&failed);
    if (read_ends(c, &why) != ERR_OK)
        log_warn("collection %s: loads that ended are forgotten: %s", c->name, why.detail);
    snprintf(dir, sizeof dir, "%s/staging", c->dir);
    RETURN_NOT_OK(each_name(dir, read_dir, &r, ctx));
    buf_deinit(&r.kept);
    if (failed.code != ERR_OK)
        return err_set(ctx, failed.code, "%s", failed.detail);
    struct sessions *all = c->sessions;
    if (all->n)
        qsort(all->list, all->n, sizeof *all->list, by_age);
    restore_receipts(c);
    return ERR_OK;
}
