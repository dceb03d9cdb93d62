/* The catalog: every collection under one data directory, by name.
 *
 * Look-ups are lock-free inside an epoch section; create and drop serialise on a lock. A collection
 * that cannot be opened is quarantined: it is listed with the reason, answers ERR_UNAVAILABLE, and
 * does not keep the others from opening. */
#ifndef LOADSTONE_STORE_CATALOG_H
#define LOADSTONE_STORE_CATALOG_H

#include "store/collection.h"

struct catalog;

/* An index build that somebody waits for, as others may watch and end it. */
struct build_watch {
    _Atomic double progress; /* 0..1, of this build */
    _Atomic double eta_s;    /* until it ends; negative while unknown */
    atomic_bool cancel;      /* set by whoever no longer wants it */
};

/* Calls upwards, registered by main. All may be NULL. `c` and `s` are borrowed: acquire to keep. */
struct store_hooks {
    void *arg;
    /* A file segment became part of the newest version (at open, after a bulk load, after sealing).
     * Runs on the writing thread: must only queue. */
    void (*segment_added)(void *arg, struct collection *c, struct segment *s);
    /* A file segment was opened that only older versions need: what stands on disk for it is
     * attached, nothing is built. Short. */
    void (*segment_opened)(void *arg, struct collection *c, struct segment *s);
    /* Builds, before the segment is part of any version, what its collection's settings ask for,
     * and attaches it; ERR_OK also when they ask for nothing. Blocks until it is done: outside
     * epoch sections and locks. The file must keep its name meanwhile (s->path, in staging/ or in
     * segments/). `watch` may be NULL. ERR_UNPROCESSABLE when the settings ask for what can't be
     * built within the memory budget; ERR_CONFLICT when watch->cancel was set. After an error
     * nothing is attached. Who gives the segment up calls segment_removed. */
    enum err (*segment_build)(void *arg, struct collection *c, struct segment *s,
                              struct build_watch *watch, struct err_ctx *ctx);
    /* The file of the segment is gone, or about to go: no version needs it. Outside
     * collection_enter_dir; an id that never had an index is no error. */
    void (*segment_removed)(void *arg, struct collection *c, uint64_t id);
};

/* Opens the directory (created when missing) and locks it; ERR_CONFLICT when another daemon holds
 * it. Collections open in the background: see catalog_ready. */
WARN_UNUSED enum err catalog_open(const char *dir, struct io *io, const struct store_hooks *hooks,
                                  struct catalog **out, struct err_ctx *ctx);
/* Stops background work, seals nothing, closes. No reader or load may be left. */
void catalog_close(struct catalog *cat);

/* True once every collection is open or quarantined. */
bool catalog_ready(const struct catalog *cat);

/* Inside an epoch section; the collection is borrowed. ERR_NOT_FOUND; ERR_UNAVAILABLE when it is
 * quarantined or not open yet. */
WARN_UNUSED enum err catalog_find(struct catalog *cat, const char *name, struct collection **out,
                                  struct err_ctx *ctx);

/* Creates; `*created` is false when an equal one existed. ERR_CONFLICT when it differs. The schema
 * stays the caller's. */
WARN_UNUSED enum err catalog_create(struct catalog *cat, const char *name, struct schema *schema,
                                    bool *created, struct err_ctx *ctx);
/* Removes the collection and its files; its version numbers go on if it is created again. */
WARN_UNUSED enum err catalog_drop(struct catalog *cat, const char *name, struct err_ctx *ctx);

/* Visits every collection in name order, inside an epoch section of its own; `c` is NULL for a
 * quarantined one and `fault` says why. */
void catalog_each(struct catalog *cat,
                  void (*fn)(void *arg, const char *name, struct collection *c, const char *fault),
                  void *arg);

#endif
