/* What catalog.c (names, create, drop), maintain.c (opening, sealing, scrubbing), check.c and
 * backup.c share. Nobody else includes this. */
#ifndef LOADSTONE_STORE_CATALOG_INTERNAL_H
#define LOADSTONE_STORE_CATALOG_INTERNAL_H

#include "store/collection_internal.h"
#include "store/upkeep.h"

#define CATALOG_FORMAT "loadstone 1\n" /* the file FORMAT */

enum { CATALOG_DIR_MAX = 3500 }; /* bytes of the data directory's path */

struct entry {
    char name[NAME_MAX_BYTES + 1];
    struct collection *c; /* NULL: not open yet, or quarantined when `fault` says so */
    char *fault;
    uint64_t last_version; /* of one quarantined while it was served; 0 = not known */
    int64_t retry_seal_us;
};

struct table {
    size_t n;
    struct entry *entries[];
};

struct catalog {
    char *dir;
    int lock_fd;
    struct io *io;
    struct store_hooks hooks;
    pthread_mutex_t lock; /* create, drop, table changes */
    struct table *_Atomic table;
    pthread_t thread;
    pthread_mutex_t tick_lock;
    pthread_cond_t tick;
    bool stopping; /* under tick_lock */
    pthread_t upkeep_thread;
    pthread_cond_t upkeep_tick;
    bool upkeep_started, upkeep_stopping; /* under tick_lock */
    struct upkeep_options upkeep_options;
    atomic_bool ready;
};

/* With cat->lock or inside an epoch section. */
struct entry *catalog_entry(const struct table *t, const char *name);
/* `c` is taken over on success. NULL: no memory. */
struct entry *entry_new(const char *name, struct collection *c, const char *fault);
/* With cat->lock: replaces the table by one with `add` in and `drop` out (either may be NULL). */
WARN_UNUSED enum err table_change(struct catalog *cat, struct entry *add, struct entry *drop,
                                  struct err_ctx *ctx);
/* ERR_CORRUPT when the directory holds collections: only an empty one may be without FORMAT. */
WARN_UNUSED enum err catalog_check_new(const char *dir, struct err_ctx *ctx);
void entry_path(const struct catalog *cat, const char *name, char out[PATH_CAP]);

/* Removes a directory and what is in it; what stays behind is said in the log. */
void catalog_remove_tree(const char *path);

/* The maintenance thread: opens every collection, then works at each tick until cat->stopping. */
void *catalog_maintain(void *arg);

#endif
