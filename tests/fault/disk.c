/* Recording: the backend in front of a real one. disk.h draws it.
 *
 * An event is written down before the operation starts, and marked done when it ends, so that what
 * ran beside it can be told from what came before. Syncs are recorded and not carried out: nobody
 * cuts the real power, and reads see the page cache.
 *
 * Threads: one lock around the trace, not held while an operation runs. Failure: of an operation:
 * passed on, its event stays undone; of the recorder: an assertion. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault/trace.h"

enum { FDS = 65536, LANES = 64 };

/* ---- names ---- */

size_t links_find(const struct links *l, uint32_t parent, const char *name)
{
    size_t i = 0;
    while (i < l->n && (l->at[i].parent != parent || strcmp(l->at[i].name, name) != 0))
        i++;
    return i;
}

void links_set(struct links *l, uint32_t parent, const char *name, uint32_t node)
{
    size_t i = links_find(l, parent, name);
    if (i == l->n) {
        l->at = grown(l->at, l->n, &l->cap, sizeof l->at[0]);
        l->n++;
        l->at[i].parent = parent;
        snprintf(l->at[i].name, NAME_CAP, "%s", name);
    }
    l->at[i].node = node;
}

void links_clear(struct links *l, uint32_t parent, const char *name, uint32_t node)
{
    size_t i = links_find(l, parent, name);
    if (i < l->n && l->at[i].node == node)
        l->at[i] = l->at[--l->n];
}

void links_apply(struct links *l, const struct event *e)
{
    if (e->kind == EV_LINK) {
        links_set(l, e->parent, e->name, e->node);
    } else {
        links_clear(l, e->parent, e->name, e->node);
        if (e->kind == EV_RENAME)
            links_set(l, e->to_parent, e->to_name, e->node);
    }
}

void links_copy(struct links *to, const struct links *from)
{
    *to = (struct links){from->n, from->n, NULL};
    if (from->n == 0)
        return;
    to->at = malloc(from->n * sizeof from->at[0]);
    ASSERT(to->at);
    memcpy(to->at, from->at, from->n * sizeof from->at[0]);
}

/* Splits "ROOT/a/b/c" into the node of ROOT/a/b and "c"; ROOT itself is (0, ""). */
static uint32_t walk(struct disk *d, const char *path, char name[NAME_CAP])
{
    size_t root = strlen(d->root);
    ASSERT(strncmp(path, d->root, root) == 0 && (path[root] == '/' || path[root] == 0));
    uint32_t at = 0;
    path += root;
    name[0] = 0;
    while (*path == '/')
        path++;
    while (*path) {
        size_t n = strcspn(path, "/");
        ASSERT(n < NAME_CAP);
        if (name[0]) {
            size_t i = links_find(&d->live, at, name);
            ASSERT(i < d->live.n);
            at = d->live.at[i].node;
        }
        memcpy(name, path, n);
        name[n] = 0;
        path += n + (path[n] == '/');
    }
    return at;
}

static uint32_t node_of(struct disk *d, const char *path)
{
    char name[NAME_CAP];
    uint32_t parent = walk(d, path, name);
    if (!name[0])
        return 0;
    size_t i = links_find(&d->live, parent, name);
    ASSERT(i < d->live.n);
    return d->live.at[i].node;
}

static uint32_t node_add(struct disk *d, bool dir)
{
    d->nodes = grown(d->nodes, d->nnodes, &d->nodes_cap, sizeof d->nodes[0]);
    d->nodes[d->nnodes] = (struct node){.dir = dir};
    return (uint32_t)d->nnodes++;
}

/* ---- the trace ---- */

/* With the lock. -1 once recording has stopped. */
static int64_t begin(struct disk *d, struct event e)
{
    if (d->stopped)
        return -1;
    d->events = grown(d->events, d->nevents, &d->events_cap, sizeof d->events[0]);
    e.done = NEVER;
    d->events[d->nevents] = e;
    return (int64_t)d->nevents++;
}

static int64_t begin_locked(struct disk *d, struct event e)
{
    pthread_mutex_lock(&d->lock);
    int64_t i = begin(d, e);
    pthread_mutex_unlock(&d->lock);
    return i;
}

static void end(struct disk *d, int64_t i, bool ok)
{
    if (i < 0 || !ok)
        return;
    pthread_mutex_lock(&d->lock);
    d->events[i].done = (int64_t)d->nevents;
    pthread_mutex_unlock(&d->lock);
}

static int64_t begin_write(struct disk *d, int fd, const void *p, size_t n, uint64_t offset)
{
    uint8_t *copy = malloc(n);
    ASSERT(copy && fd < FDS);
    memcpy(copy, p, n);
    return begin_locked(
        d, (struct event){
               .kind = EV_WRITE, .node = d->fd_node[fd], .data = copy, .n = n, .offset = offset});
}

/* A short write wrote that much. */
static void end_write(struct disk *d, int64_t i, ssize_t result)
{
    if (i < 0 || result <= 0)
        return;
    pthread_mutex_lock(&d->lock);
    d->events[i].n = (uint64_t)result;
    d->events[i].done = (int64_t)d->nevents;
    pthread_mutex_unlock(&d->lock);
}

static int64_t begin_sync(struct disk *d, int fd)
{
    return begin_locked(d, (struct event){.kind = EV_SYNC, .node = d->fd_node[fd]});
}

/* ---- files ---- */

static int disk_open(struct io *io, const char *path, int flags)
{
    struct disk *d = (struct disk *)io;
    char name[NAME_CAP];
    pthread_mutex_lock(&d->lock);
    int fd = d->inner->ops->open(d->inner, path, flags);
    if (fd >= 0 && !d->stopped) {
        ASSERT(fd < FDS);
        if (flags & O_CREAT) {
            struct event e = {.kind = EV_LINK, .node = node_add(d, false)};
            e.parent = walk(d, path, name);
            snprintf(e.name, NAME_CAP, "%s", name);
            links_apply(&d->live, &e);
            int64_t i = begin(d, e);
            d->events[i].done = (int64_t)d->nevents;
        }
        d->fd_node[fd] = node_of(d, path);
    }
    pthread_mutex_unlock(&d->lock);
    return fd;
}

static void disk_close(struct io *io, int fd)
{
    struct disk *d = (struct disk *)io;
    d->inner->ops->close(d->inner, fd);
}

static ssize_t disk_write(struct io *io, int fd, const void *p, size_t n, uint64_t offset)
{
    struct disk *d = (struct disk *)io;
    int64_t i = begin_write(d, fd, p, n, offset);
    ssize_t w = d->inner->ops->write(d->inner, fd, p, n, offset);
    end_write(d, i, w);
    return w;
}

static int disk_sync(struct io *io, int fd)
{
    struct disk *d = (struct disk *)io;
    end(d, begin_sync(d, fd), true);
    return 0;
}

static ssize_t disk_write_sync(struct io *io, int fd, const void *p, size_t n, uint64_t offset)
{
    ssize_t w = disk_write(io, fd, p, n, offset);
    if (w == (ssize_t)n)
        (void)disk_sync(io, fd);
    return w;
}

static ssize_t disk_read(struct io *io, int fd, void *p, size_t n, uint64_t offset)
{
    struct disk *d = (struct disk *)io;
    return d->inner->ops->read(d->inner, fd, p, n, offset);
}

static int disk_allocate(struct io *io, int fd, uint64_t offset, uint64_t n)
{
    struct disk *d = (struct disk *)io;
    int64_t i = begin_locked(
        d, (struct event){.kind = EV_ALLOCATE, .node = d->fd_node[fd], .offset = offset, .n = n});
    int r = d->inner->ops->allocate(d->inner, fd, offset, n);
    end(d, i, r >= 0);
    return r;
}

static int disk_truncate(struct io *io, int fd, uint64_t size)
{
    struct disk *d = (struct disk *)io;
    int64_t i = begin_locked(
        d, (struct event){.kind = EV_TRUNCATE, .node = d->fd_node[fd], .offset = size});
    int r = d->inner->ops->truncate(d->inner, fd, size);
    end(d, i, r >= 0);
    return r;
}

static int disk_size(struct io *io, int fd, uint64_t *size)
{
    struct disk *d = (struct disk *)io;
    return d->inner->ops->size(d->inner, fd, size);
}

static int disk_direct(struct io *io, int fd)
{
    struct disk *d = (struct disk *)io;
    return d->inner->ops->set_direct(d->inner, fd);
}

/* ---- names: the lock is held, so that the trace has them in the order in which they happened */

static int disk_rename(struct io *io, const char *from, const char *to)
{
    struct disk *d = (struct disk *)io;
    struct event e = {.kind = EV_RENAME};
    pthread_mutex_lock(&d->lock);
    int r = d->inner->ops->rename(d->inner, from, to);
    if (r >= 0 && !d->stopped) {
        e.parent = walk(d, from, e.name);
        e.to_parent = walk(d, to, e.to_name);
        e.node = node_of(d, from);
        links_apply(&d->live, &e);
        int64_t i = begin(d, e);
        d->events[i].done = (int64_t)d->nevents;
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

static int disk_unlink(struct io *io, const char *path)
{
    struct disk *d = (struct disk *)io;
    struct event e = {.kind = EV_UNLINK};
    pthread_mutex_lock(&d->lock);
    int r = d->inner->ops->unlink(d->inner, path);
    if (r >= 0 && !d->stopped) {
        e.parent = walk(d, path, e.name);
        e.node = node_of(d, path);
        links_apply(&d->live, &e);
        int64_t i = begin(d, e);
        d->events[i].done = (int64_t)d->nevents;
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

static int disk_mkdir(struct io *io, const char *path)
{
    struct disk *d = (struct disk *)io;
    struct event e = {.kind = EV_LINK};
    pthread_mutex_lock(&d->lock);
    int r = d->inner->ops->mkdir(d->inner, path);
    if (r >= 0 && !d->stopped) {
        e.node = node_add(d, true);
        e.parent = walk(d, path, e.name);
        links_apply(&d->live, &e);
        int64_t i = begin(d, e);
        d->events[i].done = (int64_t)d->nevents;
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

static bool below_root(const struct disk *d, const char *path)
{
    size_t root = strlen(d->root);
    return strncmp(path, d->root, root) == 0 && (path[root] == '/' || path[root] == 0);
}

static int disk_sync_dir(struct io *io, const char *path)
{
    struct disk *d = (struct disk *)io;
    if (!below_root(d, path)) /* the parent of the root: that one is there */
        return 0;
    pthread_mutex_lock(&d->lock);
    if (!d->stopped) {
        int64_t i = begin(d, (struct event){.kind = EV_SYNC_DIR, .node = node_of(d, path)});
        d->events[i].done = (int64_t)d->nevents;
    }
    pthread_mutex_unlock(&d->lock);
    return 0;
}

/* ---- lanes: a write is in the trace from submission on, done when its result is collected ---- */

static struct flying {
    struct io_lane *lane;
    int64_t event[LANE_BUFFERS_MAX];
} lanes[LANES];

static int64_t *flying_event(struct disk *d, struct io_lane *lane, unsigned buffer)
{
    struct flying *f = NULL;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < LANES && (!f || f->lane != lane); i++) {
        if (lanes[i].lane == lane || (!lanes[i].lane && !f))
            f = &lanes[i];
    }
    ASSERT(f);
    f->lane = lane;
    pthread_mutex_unlock(&d->lock);
    return &f->event[buffer];
}

static int disk_lane_acquire(struct io *io, struct io_lane **out)
{
    struct disk *d = (struct disk *)io;
    return d->inner->ops->lane_acquire(d->inner, out);
}

static void disk_lane_release(struct io *io, struct io_lane *lane, bool idle)
{
    struct disk *d = (struct disk *)io;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < LANES; i++) {
        if (lanes[i].lane == lane)
            lanes[i].lane = NULL;
    }
    pthread_mutex_unlock(&d->lock);
    d->inner->ops->lane_release(d->inner, lane, idle);
}

static int disk_lane_submit(struct io *io, struct io_lane *lane, int fd, unsigned buffer,
                            size_t from, size_t n, uint64_t offset)
{
    struct disk *d = (struct disk *)io;
    const uint8_t *data = lane->buffers + (size_t)buffer * LANE_BUFFER_BYTES + from;
    *flying_event(d, lane, buffer) = begin_write(d, fd, data, n, offset);
    return d->inner->ops->lane_submit(d->inner, lane, fd, buffer, from, n, offset);
}

static int disk_lane_wait(struct io *io, struct io_lane *lane, unsigned *buffer, ssize_t *result)
{
    struct disk *d = (struct disk *)io;
    int r = d->inner->ops->lane_wait(d->inner, lane, buffer, result);
    if (r >= 0)
        end_write(d, *flying_event(d, lane, *buffer), *result);
    return r;
}

/* ---- life ---- */

static void disk_io_free(struct io *io)
{
    (void)io; /* disk_free does it */
}

static const struct io_ops DISK_OPS = {
    .name = "disk",
    .free = disk_io_free,
    .open = disk_open,
    .close = disk_close,
    .write = disk_write,
    .write_sync = disk_write_sync,
    .read = disk_read,
    .sync = disk_sync,
    .allocate = disk_allocate,
    .truncate = disk_truncate,
    .size = disk_size,
    .set_direct = disk_direct,
    .rename = disk_rename,
    .unlink = disk_unlink,
    .mkdir = disk_mkdir,
    .sync_dir = disk_sync_dir,
    .lane_acquire = disk_lane_acquire,
    .lane_release = disk_lane_release,
    .lane_submit = disk_lane_submit,
    .lane_wait = disk_lane_wait,
};

static void read_content(struct node *node, const char *path, size_t size)
{
    node->start = malloc(size + 1);
    FILE *f = fopen(path, "rb");
    ASSERT(node->start && f);
    node->start_len = fread(node->start, 1, size, f);
    ASSERT(node->start_len == size);
    fclose(f);
}

/* What lies in a directory when recording begins. */
static void scan(struct disk *d, uint32_t parent, const char *dir)
{
    DIR *list = opendir(dir);
    ASSERT(list);
    for (struct dirent *de; (de = readdir(list));) {
        char path[4096];
        struct stat st;
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        ASSERT((size_t)snprintf(path, sizeof path, "%s/%s", dir, de->d_name) < sizeof path);
        ASSERT(stat(path, &st) == 0);
        uint32_t node = node_add(d, S_ISDIR(st.st_mode));
        links_set(&d->start, parent, de->d_name, node);
        if (S_ISDIR(st.st_mode))
            scan(d, node, path);
        else
            read_content(&d->nodes[node], path, (size_t)st.st_size);
    }
    closedir(list);
}

struct disk *disk_new(const char *root, enum io_backend inner)
{
    struct err_ctx ctx;
    struct disk *d = calloc(1, sizeof *d);
    ASSERT(d);
    err_clear(&ctx);
    io_init(&d->base, &DISK_OPS);
    ASSERT(io_new(inner, &d->inner, &ctx) == ERR_OK);
    pthread_mutex_init(&d->lock, NULL);
    d->root = strdup(root);
    d->fd_node = calloc(FDS, sizeof *d->fd_node);
    ASSERT(d->root && d->fd_node);
    (void)node_add(d, true);
    scan(d, 0, root);
    links_copy(&d->live, &d->start);
    return d;
}

struct io *disk_io(struct disk *d)
{
    return &d->base;
}

void disk_note(struct disk *d, uint64_t what)
{
    end(d, begin_locked(d, (struct event){.kind = EV_NOTE, .note = what}), true);
}

void disk_stop(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    d->stopped = true;
    pthread_mutex_unlock(&d->lock);
}

size_t disk_events(const struct disk *d)
{
    return d->nevents;
}

void disk_free(struct disk *d)
{
    for (size_t i = 0; i < d->nevents; i++)
        free(d->events[i].data);
    for (size_t i = 0; i < d->nnodes; i++)
        free(d->nodes[i].start);
    io_free(d->inner);
    pthread_mutex_destroy(&d->lock);
    free(d->events);
    free(d->nodes);
    free(d->start.at);
    free(d->live.at);
    free(d->fd_node);
    free(d->root);
    free(d);
}
