/* Snapshots: counting references and finding keys.
 *
 * A key has at most one live row in a version. Views are probed from the newest to the oldest, and
 * within a segment from the newest row of the key to the older ones, until a live one is met. */
#include "store/snapshot.h"

struct snapshot *snapshot_acquire(struct snapshot *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void snapshot_release(struct snapshot *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < s->nviews; i++) {
        segment_release(s->views[i].segment);
        mask_release(s->views[i].dead);
    }
    schema_release(s->schema);
    free(s);
}

/* Follows a key's rows from `found` (row + 1) to the live one. */
static bool live_row(const struct view *v, uint32_t found, uint32_t *row)
{
    while (found) {
        *row = found - 1;
        if (view_live(v, *row))
            return true;
        found = segment_older(v->segment, *row);
    }
    return false;
}

bool snapshot_find_int(const struct snapshot *s, int64_t key, struct row_ref *out)
{
    for (uint32_t i = s->nviews; i-- > 0;) {
        const struct view *v = &s->views[i];
        if (live_row(v, segment_find_int(v->segment, key), &out->row)) {
            out->view = i;
            return true;
        }
    }
    return false;
}

bool snapshot_find_str(const struct snapshot *s, const void *key, size_t len, struct row_ref *out)
{
    uint64_t hash = key_hash(key, len);
    for (uint32_t i = s->nviews; i-- > 0;) {
        const struct view *v = &s->views[i];
        if (live_row(v, segment_find_str(v->segment, key, len, hash), &out->row)) {
            out->view = i;
            return true;
        }
    }
    return false;
}
