/* A snapshot: one version of one collection opened for reading. Immutable; lock-free to use.
 *
 *   snapshot ── view[0] ── segment (mapped file, or the tail in memory)   rows [0, view.rows)
 *            ├─ view[1] ── segment                                        minus view.dead
 *            └─ ...
 *
 * Views stand in the order in which their segments came, the growing tail last. A row version is
 * (segment, row) and never moves. Take snapshots inside epoch_enter/epoch_leave; to keep one
 * longer, acquire it. */
#ifndef LOADSTONE_STORE_SNAPSHOT_H
#define LOADSTONE_STORE_SNAPSHOT_H

#include "store/mask.h"
#include "store/schema.h"
#include "store/segment.h"

struct view {
    struct segment *segment; /* referenced by the snapshot */
    uint32_t rows;           /* rows of the segment that this version knows of */
    uint32_t live;           /* rows - dead rows */
    struct mask *dead;       /* not current; NULL = all live; referenced */
    /* With event_time: dead rows that are not history either (deleted, replaced, purged); a subset
     * of `dead`. NULL = none. Without event_time always NULL: every dead row is gone. */
    struct mask *gone;
};

struct digest {
    uint64_t lo, hi;
};

struct snapshot {
    atomic_uint refs;
    struct schema *schema;
    uint64_t serial; /* order of publication: sealing changes views, not the version */
    uint64_t version;
    bool altered;         /* the schema was changed after this version's commit */
    int64_t time_us;      /* of the commit */
    uint64_t rows;        /* live rows */
    uint64_t vectors;     /* live rows with a vector */
    uint64_t bytes;       /* of the files and tail behind it */
    struct digest digest; /* additive hash over the canonical rows, live and history */
    uint32_t nviews;
    struct view views[];
};

struct row_ref {
    uint32_t view; /* index in snapshot->views */
    uint32_t row;
};

struct snapshot *snapshot_acquire(struct snapshot *s);
void snapshot_release(struct snapshot *s); /* NULL is allowed */

/* The live row of a key. No allocation, no lock. */
bool snapshot_find_int(const struct snapshot *s, int64_t key, struct row_ref *out);
bool snapshot_find_str(const struct snapshot *s, const void *key, size_t len, struct row_ref *out);

/* One of many keys looked up at once. The caller sets key and len. */
struct key_probe {
    const void *key; /* bytes of a string, or an int64 (len 8) */
    size_t len;
    uint64_t hash;
    struct row_ref ref;
    bool found;
};

/* The key of a segment's row; an int64 is kept in *room. */
static inline void key_probe_row(struct key_probe *p, const struct segment *s, uint32_t row,
                                 int64_t *room)
{
    if (s->schema->key == KEY_INT64) {
        *room = segment_key_int(s, row);
        p->key = room;
        p->len = sizeof *room;
    } else {
        p->key = segment_key_str(s, row, &p->len);
    }
}

/* Finds n keys; the cache misses of a group of them overlap. Sets hash, found and ref. */
void snapshot_find_many(const struct snapshot *s, struct key_probe *keys, size_t n);

/* With event_time: a row that ?history=true shows, current or not. */
static inline bool view_kept(const struct view *v, uint32_t row)
{
    return row < v->rows && !(v->gone && mask_get(v->gone, row));
}

static inline bool view_live(const struct view *v, uint32_t row)
{
    return row < v->rows && !(v->dead && mask_get(v->dead, row));
}

#endif
