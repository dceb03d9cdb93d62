/* Checks a whole data directory and changes nothing: `loadstoned check`.
 *
 * A collection is opened by the code that serves it, over a file backend that changes nothing, so
 * that whatever a start would refuse is found here, and what a start would mend is noted. Beyond
 * that every block, every row and the sums of each version are gone through. */
#ifndef LOADSTONE_STORE_CHECK_H
#define LOADSTONE_STORE_CHECK_H

#include "store/segment.h"

struct check;

enum check_kind {
    CHECK_NOTE,   /* worth knowing, mended or removed by the next start */
    CHECK_DAMAGE, /* a checksum or an invariant does not hold */
};

struct check_collection {
    const char *name;
    bool sound;    /* no damage */
    bool readable; /* opened: the numbers below are known */
    uint64_t version, rows, bytes;
    uint32_t segments;
};

struct check_hooks {
    void *arg;
    /* One finding; `text` names file and offset. */
    void (*found)(void *arg, enum check_kind kind, const char *collection, const char *text);
    /* A sound segment of `dir`, a collection's directory: what belongs to it is the caller's to
     * check, by check_found. May be NULL. */
    void (*segment)(void *arg, struct check *ck, const char *dir, const uint8_t *collection_id,
                    const struct segment *s);
    void (*done)(void *arg, const struct check_collection *c);
};

/* ERR_OK when everything was looked at, damaged or not: *damaged tells. Else the reason why the
 * directory cannot be checked; ERR_CONFLICT while a daemon serves it. One thread. */
WARN_UNUSED enum err check_dir(const char *dir, const struct check_hooks *hooks, bool *damaged,
                               struct err_ctx *ctx);

/* For the hook: reports a finding of the collection at hand. */
void check_found(struct check *ck, enum check_kind kind, const char *fmt, ...) PRINTF_LIKE(3, 4);

#endif
