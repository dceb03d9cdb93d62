/* Reading a key's events: every row of the key that a version keeps, current or history, and every
 * row of a load, sorted.
 *
 * Threads: one a timeline; the version's tail may grow meanwhile, its view's row count bounds what
 * is read. Failure: memory, told by the return. */
#include "store/timeline.h"

static int compare_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_times(const struct event *a, const struct event *b)
{
    if (a->time != b->time)
        return a->time < b->time ? -1 : 1;
    if (a->created_null != b->created_null)
        return a->created_null ? -1 : 1;
    if (a->created_null || a->created == b->created)
        return 0;
    return a->created < b->created ? -1 : 1;
}

static int compare_events(const void *left, const void *right)
{
    const struct event *a = left, *b = right;
    int by_time = compare_times(a, b);
    if (by_time)
        return by_time;
    if (a->load != b->load)
        return a->load ? 1 : -1;
    if (a->version != b->version)
        return compare_u64(a->version, b->version);
    return compare_u64(a->ordinal, b->ordinal);
}

bool events_tie(const struct event *a, const struct event *b)
{
    return compare_times(a, b) == 0;
}

static int64_t time_of(const struct segment *s, uint32_t row, int32_t feature, bool *null)
{
    size_t len;
    int64_t time = INT64_MIN;
    const void *cell = feature < 0 ? NULL : segment_cell(s, row, (uint32_t)feature, &len);
    *null = !cell;
    if (cell)
        memcpy(&time, cell, sizeof time);
    return time;
}

size_t timeline_put(struct timeline *t, const struct event *e)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 8;
        struct event *grown = realloc(t->list, cap * sizeof *grown);
        if (!grown) {
            t->failed = true;
            return 0;
        }
        t->list = grown;
        t->cap = cap;
    }
    t->list[t->n++] = *e;
    return t->n;
}

static struct event *add(struct timeline *t, const struct segment *s, uint32_t row)
{
    bool null;
    struct event e = {.row = row, .time = time_of(s, row, s->schema->event_time, &null)};
    e.created = time_of(s, row, s->schema->created_time, &e.created_null);
    segment_seq(s, row, &e.version, &e.ordinal);
    return timeline_put(t, &e) ? &t->list[t->n - 1] : NULL;
}

static uint32_t first_of(const struct segment *s, const struct row *key, uint64_t hash)
{
    if (key->schema->key == KEY_STRING)
        return segment_find(s, key->key, key->key_len, hash);
    return segment_find(s, &key->int_key, sizeof key->int_key, hash);
}

static void add_base(struct timeline *t, const struct snapshot *base, const struct row *key,
                     uint64_t hash)
{
    for (uint32_t i = 0; i < base->nviews && !t->failed; i++) {
        const struct view *v = &base->views[i];
        for (uint32_t at = first_of(v->segment, key, hash); at && !t->failed;
             at = segment_older(v->segment, at - 1)) {
            if (!view_kept(v, at - 1))
                continue;
            struct event *e = add(t, v->segment, at - 1);
            if (!e)
                return;
            e->source = i;
            e->current = view_live(v, at - 1);
        }
    }
}

static void add_load(struct timeline *t, const struct load_input *in, const struct row *key,
                     uint64_t hash, bool lost)
{
    for (size_t i = 0; i < in->n && !t->failed; i++) {
        const struct incoming *s = &in->seg[i];
        if (s->superseded ||
            (key->schema->key == KEY_INT64 && !s->segment->tail &&
             (key->int_key < s->segment->key_min || key->int_key > s->segment->key_max)))
            continue;
        for (uint32_t at = first_of(s->segment, key, hash); at && !t->failed;
             at = segment_older(s->segment, at - 1)) {
            if (!lost && incoming_lost(s, at - 1))
                continue;
            struct event *e = add(t, s->segment, at - 1);
            if (!e)
                return;
            e->source = (uint32_t)i;
            e->load = true;
            e->version = 0;
            e->ordinal = incoming_ordinal(s, at - 1);
        }
    }
}

bool timeline_read(struct timeline *t, const struct snapshot *base, const struct load_input *in,
                   const struct row *key, bool lost)
{
    uint64_t hash = row_key_hash(key);
    t->n = 0;
    t->failed = false;
    if (base)
        add_base(t, base, key, hash);
    if (in)
        add_load(t, in, key, hash, lost);
    if (t->n > 1)
        qsort(t->list, t->n, sizeof *t->list, compare_events);
    return !t->failed;
}

void timeline_deinit(struct timeline *t)
{
    free(t->list);
}
