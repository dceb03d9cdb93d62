/* With event_time: all rows of one key in the order of events, those of a version and those of a
 * load together.
 *
 *   order: event_time, created_time (null first), then the version's rows before the load's, then
 *          seq. The last one is the key's current row; a row's absent cells come from the one
 *          before it.
 *
 * One thread; the list's memory is used again for the next key. */
#ifndef LOADSTONE_STORE_TIMELINE_H
#define LOADSTONE_STORE_TIMELINE_H

#include "store/incoming.h"

struct event {
    int64_t time, created; /* created: INT64_MIN = null */
    bool created_null;
    bool load;       /* of the load; else of the version */
    bool current;    /* of the version: its current row */
    uint32_t source; /* view of the version, or segment of the load */
    uint32_t row;
    uint64_t version, ordinal; /* seq; version 0 in a load */
};

struct timeline {
    struct event *list;
    size_t n, cap;
    bool failed;
};

/* `base` NULL: the load's rows only; `in` NULL: the version's only. Lost rows are left out unless
 * `lost` is asked for. False: no memory. */
WARN_UNUSED bool timeline_read(struct timeline *t, const struct snapshot *base,
                               const struct load_input *in, const struct row *key, bool lost);
/* Appends one; the new count, 0: no memory. */
size_t timeline_put(struct timeline *t, const struct event *e);
bool events_tie(const struct event *a, const struct event *b);
void timeline_deinit(struct timeline *t);

#endif
