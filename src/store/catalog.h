/* The catalog: every collection under one data directory, by name.
 *
 * Look-ups are lock-free inside an epoch section; create and drop serialise on a lock. A collection
 * that cannot be opened is quarantined: it is listed with the reason, answers ERR_UNAVAILABLE, and
 * does not keep the others from opening. */
#ifndef LOADSTONE_STORE_CATALOG_H
#define LOADSTONE_STORE_CATALOG_H

#include "store/collection.h"

struct catalog;

/* Calls upwards, registered by main. All may be NULL. */
struct store_hooks {
    void *arg;
    /* A file segment became part of the newest version (at open, after a bulk load, after sealing).
     * Runs on the writing thread: must only queue. `c` and `s` are borrowed: acquire to keep. */
    void (*segment_added)(void *arg, struct collection *c, struct segment *s);
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
