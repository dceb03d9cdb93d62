/* Playing: what a disk may hold after a power cut at one point of the trace.
 *
 *   durable    content of each file and names of each directory that syncs have covered
 *   pending    events that none has covered, in the order in which they happened
 *   cut        durable + a choice of the pending ones
 *
 * A sync covers what was done before it began, from the moment on at which it ended. A directory
 * sync covers the names made and removed in that directory and the renames into it.
 *
 * Threads: one. Failure: an assertion. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault/trace.h"

struct content {
    uint8_t *data; /* owned */
    uint64_t len, cap;
};

struct player {
    const struct disk *d;
    size_t at; /* events played */
    struct content *files;
    struct links names;
    size_t *pending; /* events */
    size_t npending, pending_cap;
    size_t *syncs; /* begun and not ended */
    size_t nsyncs, syncs_cap;
};

/* ---- durable content ---- */

static void content_resize(struct content *c, uint64_t len)
{
    if (len > c->cap) {
        c->cap = len * 2;
        c->data = realloc(c->data, c->cap);
        ASSERT(c->data);
    }
    if (len > c->len)
        memset(c->data + c->len, 0, len - c->len);
    c->len = len;
}

static void content_apply(struct content *c, const struct event *e)
{
    if (e->kind == EV_TRUNCATE) {
        content_resize(c, e->offset);
        return;
    }
    if (e->offset + e->n > c->len)
        content_resize(c, e->offset + e->n);
    if (e->kind == EV_WRITE)
        memcpy(c->data + e->offset, e->data, e->n);
}

static bool is_name(const struct event *e)
{
    return e->kind == EV_LINK || e->kind == EV_UNLINK || e->kind == EV_RENAME;
}

static bool covered(const struct event *e, const struct event *sync, size_t sync_at)
{
    if (e->done == NEVER || (size_t)e->done > sync_at)
        return false;
    if (sync->kind == EV_SYNC)
        return !is_name(e) && e->node == sync->node;
    return is_name(e) && sync->node == (e->kind == EV_RENAME ? e->to_parent : e->parent);
}

/* A name that was moved on durably is not made anew by the pending event that made it first. */
static bool outrun(const struct player *p, const struct event *e, size_t sync_at)
{
    if (e->kind != EV_LINK)
        return false;
    for (size_t i = 0; i < p->npending; i++) {
        const struct event *later = &p->d->events[p->pending[i]];
        if (later->kind == EV_RENAME && later->node == e->node && later > e &&
            covered(later, &p->d->events[sync_at], sync_at))
            return true;
    }
    return false;
}

static void apply_sync(struct player *p, size_t sync_at)
{
    const struct event *sync = &p->d->events[sync_at];
    size_t *kept = malloc((p->npending + 1) * sizeof *kept), n = 0;
    ASSERT(kept);
    for (size_t i = 0; i < p->npending; i++) {
        const struct event *e = &p->d->events[p->pending[i]];
        if (!covered(e, sync, sync_at)) {
            if (!outrun(p, e, sync_at))
                kept[n++] = p->pending[i];
        } else if (is_name(e)) {
            links_apply(&p->names, e);
        } else {
            content_apply(&p->files[e->node], e);
        }
    }
    if (n)
        memcpy(p->pending, kept, n * sizeof *kept);
    p->npending = n;
    free(kept);
}

/* ---- stepping ---- */

static void end_syncs(struct player *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->nsyncs; i++) {
        int64_t done = p->d->events[p->syncs[i]].done;
        if (done != NEVER && (size_t)done <= p->at)
            apply_sync(p, p->syncs[i]);
        else
            p->syncs[n++] = p->syncs[i];
    }
    p->nsyncs = n;
}

bool player_step(struct player *p, bool *is_note, uint64_t *note)
{
    if (p->at == p->d->nevents)
        return false;
    const struct event *e = &p->d->events[p->at];
    *is_note = e->kind == EV_NOTE;
    *note = e->note;
    if (e->kind == EV_SYNC || e->kind == EV_SYNC_DIR) {
        p->syncs = grown(p->syncs, p->nsyncs, &p->syncs_cap, sizeof *p->syncs);
        p->syncs[p->nsyncs++] = p->at;
    } else if (e->kind != EV_NOTE) {
        p->pending = grown(p->pending, p->npending, &p->pending_cap, sizeof *p->pending);
        p->pending[p->npending++] = p->at;
    }
    p->at++;
    end_syncs(p);
    return true;
}

bool player_unsynced(const struct player *p)
{
    return p->npending > 0;
}

const char *player_where(const struct player *p)
{
    static const char *const KINDS[] = {"write",  "truncate", "allocate", "sync", "link",
                                        "unlink", "rename",   "sync dir", "note"};
    static char text[1200];
    const struct event *e = p->at ? &p->d->events[p->at - 1] : NULL;
    if (!e)
        return "the start";
    const char *name = e->name;
    for (size_t i = 0; !name[0] && i < p->d->live.n; i++) {
        if (p->d->live.at[i].node == e->node)
            name = p->d->live.at[i].name;
    }
    snprintf(text, sizeof text, "event %zu: %s of %s%s%s, %llu bytes at %llu", p->at,
             KINDS[e->kind], name, e->to_name[0] ? " to " : "", e->to_name,
             (unsigned long long)e->n, (unsigned long long)e->offset);
    return text;
}

/* ---- cutting ---- */

struct choice {
    enum cut_style style;
    uint64_t seed;
    unsigned share; /* of 256: how much is kept of CUT_ANY_KEPT */
    size_t prefix;  /* how many of CUT_PREFIX_KEPT */
};

enum fate { DROPPED, KEPT, TORN };

static uint64_t mixed(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9e3779b97f4a7c15ull + b + 0x632be59bd9b4e019ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static enum fate fate(const struct choice *c, size_t i)
{
    uint64_t r = mixed(c->seed, i);
    switch (c->style) {
    case CUT_NONE_KEPT:
        return DROPPED;
    case CUT_ALL_KEPT:
        return KEPT;
    case CUT_PREFIX_KEPT:
        return i < c->prefix ? KEPT : i == c->prefix ? TORN : DROPPED;
    default:
        if (r % 5 == 0)
            return TORN;
        return (r >> 8 & 255) < c->share ? KEPT : DROPPED;
    }
}

static void put(int fd, const uint8_t *data, uint64_t n, uint64_t offset)
{
    while (n) {
        ssize_t w = pwrite(fd, data, n, (off_t)offset);
        ASSERT(w > 0);
        data += w;
        n -= (uint64_t)w;
        offset += (uint64_t)w;
    }
}

static void grow(int fd, uint64_t size)
{
    struct stat st;
    ASSERT(fstat(fd, &st) == 0);
    if ((uint64_t)st.st_size < size)
        ASSERT(ftruncate(fd, (off_t)size) == 0);
}

/* Half of the sectors, at random; the size may have become durable all the same. */
static void put_torn(int fd, const struct event *e, uint64_t seed)
{
    for (uint64_t from = e->offset; from < e->offset + e->n;) {
        uint64_t to = (from / SECTOR_BYTES + 1) * SECTOR_BYTES;
        if (to > e->offset + e->n)
            to = e->offset + e->n;
        if (mixed(seed, from) & 1)
            put(fd, e->data + (from - e->offset), to - from, from);
        from = to;
    }
    if (mixed(seed, 1) & 1)
        grow(fd, e->offset + e->n);
}

static void put_event(int fd, const struct event *e, enum fate fate, uint64_t seed)
{
    if (e->kind == EV_WRITE && fate == TORN)
        put_torn(fd, e, seed);
    else if (e->kind == EV_WRITE)
        put(fd, e->data, e->n, e->offset);
    else if (e->kind == EV_TRUNCATE)
        ASSERT(ftruncate(fd, (off_t)e->offset) == 0);
    else
        grow(fd, e->offset + e->n);
}

static void lay_file(const struct player *p, uint32_t node, const char *path,
                     const struct choice *c)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    ASSERT(fd >= 0);
    put(fd, p->files[node].data, p->files[node].len, 0);
    for (size_t i = 0; i < p->npending; i++) {
        const struct event *e = &p->d->events[p->pending[i]];
        enum fate f = fate(c, i);
        if (!is_name(e) && e->node == node && f != DROPPED)
            put_event(fd, e, f, mixed(c->seed, i + 1000));
    }
    close(fd);
}

/* Directories that are being made or removed, file by file, where the trace does not look. */
static bool half_there(const char *name)
{
    return strncmp(name, ".dropped-", 9) == 0;
}

static void lay_dir(const struct player *p, const struct links *names, uint32_t dir,
                    const char *path, const struct choice *c, bool half)
{
    ASSERT(mkdir(path, 0750) == 0);
    for (size_t i = 0; i < names->n; i++) {
        const struct link *l = &names->at[i];
        char below[4096];
        if (l->parent != dir || (half && mixed(c->seed, i) & 1))
            continue;
        ASSERT((size_t)snprintf(below, sizeof below, "%s/%s", path, l->name) < sizeof below);
        if (p->d->nodes[l->node].dir)
            lay_dir(p, names, l->node, below, c,
                    half || (c->style == CUT_ANY_KEPT && half_there(l->name)));
        else
            lay_file(p, l->node, below, c);
    }
}

void player_cut(const struct player *p, const char *root, enum cut_style style, uint64_t seed)
{
    struct choice c = {style, seed, (unsigned)(mixed(seed, 77) & 255),
                       p->npending ? (size_t)(mixed(seed, 78) % p->npending) : 0};
    struct links names;
    links_copy(&names, &p->names);
    for (size_t i = 0; i < p->npending; i++) {
        const struct event *e = &p->d->events[p->pending[i]];
        if (is_name(e) && fate(&c, i) == KEPT)
            links_apply(&names, e);
    }
    lay_dir(p, &names, 0, root, &c, false);
    free(names.at);
}

/* ---- life ---- */

struct player *player_new(const struct disk *d)
{
    struct player *p = calloc(1, sizeof *p);
    ASSERT(p);
    p->d = d;
    p->files = calloc(d->nnodes, sizeof *p->files);
    ASSERT(p->files);
    links_copy(&p->names, &d->start);
    for (size_t i = 0; i < d->nnodes; i++) {
        content_resize(&p->files[i], d->nodes[i].start_len);
        if (d->nodes[i].start_len)
            memcpy(p->files[i].data, d->nodes[i].start, d->nodes[i].start_len);
    }
    return p;
}

void player_free(struct player *p)
{
    for (size_t i = 0; i < p->d->nnodes; i++)
        free(p->files[i].data);
    free(p->files);
    free(p->names.at);
    free(p->pending);
    free(p->syncs);
    free(p);
}
