/* Snapshots: counting references and finding keys.
 *
 * A key has at most one live row in a version. Views are probed from the newest to the oldest, and
 * within a segment from the newest row of the key to the older ones, until a live one is met. */
#include "store/snapshot.h"

enum {
    GROUP_KEYS = 32,
    CANDIDATES_MAX = 256
}; /* a few lines each: they stay in the first-level cache */

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
        mask_release(s->views[i].gone);
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

static bool find(const struct snapshot *s, const void *key, size_t len, uint64_t hash,
                 struct row_ref *out)
{
    for (uint32_t i = s->nviews; i-- > 0;) {
        const struct view *v = &s->views[i];
        if (live_row(v, segment_find(v->segment, key, len, hash), &out->row)) {
            out->view = i;
            return true;
        }
    }
    return false;
}

bool snapshot_find_int(const struct snapshot *s, int64_t key, struct row_ref *out)
{
    return find(s, &key, sizeof key, key_hash(&key, sizeof key), out);
}

bool snapshot_find_str(const struct snapshot *s, const void *key, size_t len, struct row_ref *out)
{
    return find(s, key, len, key_hash(key, len), out);
}

/* ---- many keys ---- */

/* Views that may hold a key of the group, oldest first. */
struct candidates {
    uint32_t n;
    bool all; /* those of the snapshot, more than have room here */
    uint32_t views[CANDIDATES_MAX];
};

static uint32_t candidate(const struct candidates *c, uint32_t i)
{
    return c->all ? i : c->views[i];
}

static int64_t int_key(const struct key_probe *k)
{
    int64_t key;
    memcpy(&key, k->key, sizeof key);
    return key;
}

/* Keys of a load come in runs, and so do those of its files: most views know none of a group. */
static void pick_by_range(const struct snapshot *s, const struct key_probe *keys, size_t n,
                          struct candidates *out)
{
    int64_t least = int_key(&keys[0]), most = least;
    for (size_t k = 1; k < n; k++) {
        int64_t key = int_key(&keys[k]);
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    out->n = 0;
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct segment *g = s->views[i].segment;
        if (g->tail || (g->key_min <= most && least <= g->key_max))
            out->views[out->n++] = i;
    }
}

static void pick(const struct snapshot *s, const struct key_probe *keys, size_t n,
                 struct candidates *out)
{
    out->all = s->schema->key != KEY_INT64 || s->nviews > CANDIDATES_MAX;
    if (out->all)
        out->n = s->nviews;
    else
        pick_by_range(s, keys, n, out);
}

/* Where the newest guess for each key of the group lies; view UINT32_MAX = nowhere. */
static void guess_rows(const struct snapshot *s, const struct candidates *c, struct key_probe *keys,
                       size_t n)
{
    for (size_t k = 0; k < n; k++) {
        keys[k].ref.view = UINT32_MAX;
        for (uint32_t i = c->n; i-- > 0 && keys[k].ref.view == UINT32_MAX;) {
            uint32_t view = candidate(c, i);
            const struct segment *g = s->views[view].segment;
            uint32_t guess = segment_guess(g, keys[k].key, keys[k].hash);
            if (!guess)
                continue;
            keys[k].ref = (struct row_ref){view, guess - 1};
            segment_prefetch_row(g, guess - 1);
        }
    }
}

static void read_ahead(const struct snapshot *s, const struct candidates *c, struct key_probe *keys,
                       size_t n)
{
    for (size_t k = 0; k < n; k++) {
        keys[k].hash = key_hash(keys[k].key, keys[k].len);
        for (uint32_t i = c->n; i-- > 0;)
            segment_prefetch_slot(s->views[candidate(c, i)].segment, keys[k].hash);
    }
    guess_rows(s, c, keys, n);
    for (size_t k = 0; s->schema->key == KEY_STRING && n > 1 && k < n; k++)
        if (keys[k].ref.view != UINT32_MAX)
            segment_prefetch_key(s->views[keys[k].ref.view].segment, keys[k].ref.row);
}

static bool find_among(const struct snapshot *s, const struct candidates *c, struct key_probe *k)
{
    for (uint32_t i = c->n; i-- > 0;) {
        uint32_t view = candidate(c, i);
        const struct view *v = &s->views[view];
        if (live_row(v, segment_find(v->segment, k->key, k->len, k->hash), &k->ref.row)) {
            k->ref.view = view;
            return true;
        }
    }
    return false;
}

void snapshot_find_many(const struct snapshot *s, struct key_probe *keys, size_t n)
{
    struct candidates c;
    for (size_t from = 0; from < n; from += GROUP_KEYS) {
        size_t group = n - from < GROUP_KEYS ? n - from : GROUP_KEYS;
        struct key_probe *k = keys + from;
        pick(s, k, group, &c);
        read_ahead(s, &c, k, group);
        for (size_t i = 0; i < group; i++)
            k[i].found = find_among(s, &c, &k[i]);
    }
}
