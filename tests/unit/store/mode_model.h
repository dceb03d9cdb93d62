/* What every mode does to a collection, told row by row as the design says it: the model that the
 * store's modes are held against.
 *
 * Rows have the features day (the partition), price, count, ts and made (event and created time, in
 * collections that have them), and a vector made of one number. A version is a list of kept rows;
 * without event times every kept row is current. */
#ifndef LOADSTONE_TESTS_MODE_MODEL_H
#define LOADSTONE_TESTS_MODE_MODEL_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "store/load.h"

enum { M_DAY, M_PRICE, M_COUNT, M_TS, M_MADE, M_VECTOR, CELLS };
enum { MODEL_ROWS = 65536, LOAD_ROWS = 8192 };

struct model_cell {
    uint8_t state; /* enum cell_state */
    int64_t value;
};
struct model_row {
    int64_t key;
    struct model_cell cell[CELLS];
    uint64_t version, ordinal;
    bool current;
};
struct model {
    bool events;
    uint64_t version;
    size_t n;
    struct model_row row[MODEL_ROWS];
};

/* One commit: a load, or a deletion by keys (only their keys count) or of rows with count < below.
 */
struct model_load {
    enum load_mode mode;
    bool duplicates_last;
    bool by_filter;
    int64_t below;
    size_t npartitions; /* named ones; 0 = those that the rows hold */
    struct model_cell partition[8];
    size_t n;
    struct model_row row[LOAD_ROWS];
};

static inline bool model_same_cell(struct model_cell a, struct model_cell b)
{
    return a.state == b.state && (a.state != CELL_VALUE || a.value == b.value);
}

/* By times, null made first; what ties is 0. */
static inline int model_times(const struct model_row *a, const struct model_row *b)
{
    const struct model_cell *x = &a->cell[M_MADE], *y = &b->cell[M_MADE];
    if (a->cell[M_TS].value != b->cell[M_TS].value)
        return a->cell[M_TS].value < b->cell[M_TS].value ? -1 : 1;
    if ((x->state == CELL_VALUE) != (y->state == CELL_VALUE))
        return x->state == CELL_VALUE ? 1 : -1;
    if (x->state != CELL_VALUE || x->value == y->value)
        return 0;
    return x->value < y->value ? -1 : 1;
}

static inline void model_drop(struct model *m, size_t i)
{
    m->row[i] = m->row[--m->n];
}

static inline struct model_row *model_current(struct model *m, int64_t key)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->row[i].current && m->row[i].key == key)
            return &m->row[i];
    return NULL;
}

static inline bool model_in(const struct model_load *l, const struct model_row *r)
{
    for (size_t i = 0; i < l->npartitions; i++)
        if (model_same_cell(l->partition[i], r->cell[M_DAY]))
            return true;
    return false;
}

/* Rows that a later one of the load replaces; ERR_UNPROCESSABLE where that is an error. */
static inline enum err model_repeats(const struct model *m, const struct model_load *l, bool *lost)
{
    for (size_t i = 0; i < l->n; i++) {
        lost[i] = false;
        for (size_t j = i + 1; j < l->n && !lost[i]; j++)
            lost[i] = l->row[i].key == l->row[j].key &&
                      (!m->events || model_times(&l->row[i], &l->row[j]) == 0);
        bool allowed = l->mode == LOAD_APPEND ? m->events : l->duplicates_last;
        if (lost[i] && !allowed)
            return ERR_UNPROCESSABLE;
    }
    return ERR_OK;
}

/* The row whose cells an absent one takes: the last before it in the order of events. */
static inline const struct model_row *model_before(const struct model *m,
                                                   const struct model_row *row)
{
    const struct model_row *best = NULL;
    for (size_t i = 0; i < m->n; i++) {
        const struct model_row *r = &m->row[i];
        if (r->key != row->key || (m->events && model_times(r, row) > 0))
            continue;
        if (!best || !m->events || model_times(r, best) > 0)
            best = r;
    }
    return best;
}

static inline void model_complete(const struct model *m, struct model_row *row, enum load_mode mode)
{
    const struct model_row *before = mode == LOAD_UPSERT ? model_before(m, row) : NULL;
    for (int f = 0; f < CELLS; f++) {
        struct model_cell *c = &row->cell[f];
        if (c->state == CELL_ABSENT)
            *c = before && (f != M_MADE || !m->events) ? before->cell[f]
                                                       : (struct model_cell){CELL_NULL, 0};
    }
}

/* Puts a complete row in: what it ties with, or without event times its key's row, goes. */
static inline void model_put(struct model *m, const struct model_row *row)
{
    for (size_t i = 0; i < m->n;) {
        bool same = m->row[i].key == row->key && (!m->events || model_times(&m->row[i], row) == 0);
        if (same)
            model_drop(m, i);
        else
            i++;
    }
    m->row[m->n++] = *row;
    struct model_row *last = NULL;
    for (size_t i = 0; i < m->n; i++) {
        struct model_row *r = &m->row[i];
        if (r->key != row->key)
            continue;
        r->current = false;
        if (!last || model_times(r, last) > 0)
            last = r;
    }
    last->current = true;
}

static inline void model_remove_key(struct model *m, int64_t key)
{
    for (size_t i = 0; i < m->n;) {
        if (m->row[i].key == key)
            model_drop(m, i);
        else
            i++;
    }
}

static inline int model_by_event(const void *a, const void *b)
{
    const struct model_row *x = *(const struct model_row *const *)a,
                           *y = *(const struct model_row *const *)b;
    int t = model_times(x, y);
    return t ? t : (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
}

static inline enum err model_check_keys(struct model *m, const struct model_load *l,
                                        const bool *lost)
{
    for (size_t i = 0; i < l->n; i++) {
        struct model_row *old = model_current(m, l->row[i].key);
        if (lost[i])
            continue;
        if (l->mode == LOAD_APPEND && old && !m->events)
            return ERR_UNPROCESSABLE;
        if (l->mode == LOAD_PARTITION && (!model_in(l, &l->row[i]) || (old && !model_in(l, old))))
            return ERR_UNPROCESSABLE;
    }
    return ERR_OK;
}

static inline void model_count_alive(struct model *m, const int64_t *keys, size_t n, bool *alive)
{
    for (size_t i = 0; i < n; i++)
        alive[i] = model_current(m, keys[i]) != NULL;
}

static inline void model_delete(struct model *m, const struct model_load *l,
                                struct commit_result *out)
{
    for (size_t i = 0; !l->by_filter && i < l->n; i++) {
        out->deleted += model_current(m, l->row[i].key) != NULL;
        model_remove_key(m, l->row[i].key);
    }
    for (size_t i = 0; l->by_filter && i < m->n;) {
        const struct model_row *r = &m->row[i];
        if (!r->current || r->cell[M_COUNT].state != CELL_VALUE ||
            r->cell[M_COUNT].value >= l->below) {
            i++;
            continue;
        }
        out->deleted++;
        model_remove_key(m, r->key);
        i = 0;
    }
    out->rows = l->by_filter ? out->deleted : l->n;
}

/* Rows that the mode takes out whatever comes back; their number of keys. */
static inline uint64_t model_sweep(struct model *m, const struct model_load *l)
{
    uint64_t keys = 0;
    for (size_t i = 0; i < m->n;) {
        const struct model_row *r = &m->row[i];
        bool out = l->mode == LOAD_FULL_REFRESH || (l->mode == LOAD_PARTITION && model_in(l, r));
        if (!r->current || !out) {
            i++;
            continue;
        }
        keys++;
        model_remove_key(m, r->key);
        i = 0;
    }
    return keys;
}

/* Applies the load, which is changed: partitions that it does not name are filled in. */
static inline enum err model_apply(struct model *m, struct model_load *l, struct commit_result *out)
{
    static bool lost[LOAD_ROWS], alive[LOAD_ROWS];
    static struct model_row *order[LOAD_ROWS];
    memset(out, 0, sizeof *out);
    out->version = m->version + 1;
    if (l->mode == LOAD_DELETE) {
        model_delete(m, l, out);
        m->version++;
        return ERR_OK;
    }
    enum err e = model_repeats(m, l, lost);
    for (size_t i = 0; e == ERR_OK && i < l->n; i++) {
        if (l->mode == LOAD_PARTITION && l->row[i].cell[M_DAY].state == CELL_ABSENT)
            l->row[i].cell[M_DAY] = (struct model_cell){CELL_NULL, 0};
    }
    bool named = l->npartitions > 0;
    for (size_t i = 0; e == ERR_OK && l->mode == LOAD_PARTITION && !named && i < l->n; i++)
        if (!lost[i] && !model_in(l, &l->row[i]))
            l->partition[l->npartitions++] = l->row[i].cell[M_DAY];
    if (e == ERR_OK)
        e = model_check_keys(m, l, lost);
    if (e != ERR_OK)
        return e;
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        l->row[i].version = m->version + 1;
        l->row[i].ordinal = i;
        alive[i] = model_current(m, l->row[i].key) != NULL;
        if (!lost[i])
            order[n++] = &l->row[i];
    }
    uint64_t swept = model_sweep(m, l);
    if (m->events)
        qsort(order, n, sizeof(*order), model_by_event);
    for (size_t i = 0; i < n; i++) {
        model_complete(m, order[i], l->mode);
        model_put(m, order[i]);
    }
    for (size_t i = 0; i < n; i++) {
        const struct model_row *now = model_current(m, order[i]->key);
        bool won = now->version == m->version + 1 && now->ordinal == order[i]->ordinal;
        if (won)
            *(alive[order[i]->ordinal] ? &out->updated : &out->inserted) += 1;
        out->stale += !won;
    }
    out->rows = l->n;
    out->deleted = swept ? swept - out->updated : 0;
    m->version++;
    return ERR_OK;
}

#endif
