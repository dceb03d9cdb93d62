/* The trace that disk.c writes and player.c plays. Nodes are files and directories, numbered; the
 * root is node 0. A link gives a node its name in a directory. */
#ifndef LOADSTONE_TESTS_FAULT_TRACE_H
#define LOADSTONE_TESTS_FAULT_TRACE_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "fault/disk.h"

enum { NAME_CAP = 256, NEVER = -1 };

struct link {
    uint32_t parent, node;
    char name[NAME_CAP];
};

struct links {
    size_t n, cap;
    struct link *at;
};

enum event_kind {
    EV_WRITE,
    EV_TRUNCATE,
    EV_ALLOCATE,
    EV_SYNC,
    EV_LINK,
    EV_UNLINK,
    EV_RENAME,
    EV_SYNC_DIR,
    EV_NOTE
};

struct event {
    enum event_kind kind;
    uint32_t node;
    uint32_t parent, to_parent;
    char name[NAME_CAP], to_name[NAME_CAP];
    uint8_t *data; /* EV_WRITE; owned */
    uint64_t n, offset;
    uint64_t note;
    int64_t done; /* events there were when it ended; NEVER: it has not, or it failed */
};

struct node {
    bool dir;
    uint8_t *start; /* content when recording began; owned */
    size_t start_len;
};

struct disk {
    struct io base;
    struct io *inner;
    char *root;
    pthread_mutex_t lock;
    bool stopped;
    struct event *events;
    size_t nevents, events_cap;
    struct node *nodes;
    size_t nnodes, nodes_cap;
    struct links start; /* the names when recording began */
    struct links live;  /* the names as the store sees them */
    uint32_t *fd_node;  /* by file descriptor */
};

static inline void *grown(void *at, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return at;
    *cap = *cap ? *cap * 2 : 64;
    at = realloc(at, *cap * size);
    ASSERT(at);
    return at;
}

/* The position of a name, or links->n. */
size_t links_find(const struct links *l, uint32_t parent, const char *name);
void links_set(struct links *l, uint32_t parent, const char *name, uint32_t node);
/* Only when the name is still that node's. */
void links_clear(struct links *l, uint32_t parent, const char *name, uint32_t node);
/* What a link, unlink or rename does to the names. */
void links_apply(struct links *l, const struct event *e);
void links_copy(struct links *to, const struct links *from);

#endif
