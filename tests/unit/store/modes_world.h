/* A collection and its model: loads made at random, committed in every way, compared whole. A hook
 * lets another commit, or a compaction, into the middle of a load's own commit. */
#ifndef LOADSTONE_TESTS_MODES_WORLD_H
#define LOADSTONE_TESTS_MODES_WORLD_H

#include "mode_model.h"
#include "store_fixture.h"

#include "store/collection_internal.h"
#include "store/filter.h"
#include "store/seq_walk.h"
#include "store/stage.h"
#include "store/upkeep.h"

enum { KEYS = 60 };

struct world {
    struct fixture fixture;
    struct collection *c;
    struct model *model;
    struct model *old; /* as it was at some version before */
    enum key_type key;
    uint64_t seed;
    bool in_the_middle;        /* the next index build lets another commit in */
    bool compact_instead;      /* or a compaction */
    struct model_load *middle; /* which one; NULL: a random one */
};

static struct world *the_world;

static inline uint64_t random_below(uint64_t n)
{
    uint64_t *x = &the_world->seed;
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x % n;
}

/* ---- making loads ---- */

static inline struct model_cell random_cell(int64_t range)
{
    uint64_t kind = random_below(6);
    if (kind == 0)
        return (struct model_cell){CELL_ABSENT, 0};
    if (kind == 1)
        return (struct model_cell){CELL_NULL, 0};
    return (struct model_cell){CELL_VALUE, (int64_t)random_below((uint64_t)range)};
}

static inline struct model_row random_row(bool events, int64_t keys)
{
    struct model_row r = {.key = (int64_t)random_below((uint64_t)keys)};
    r.cell[M_DAY] = random_cell(4);
    r.cell[M_PRICE] = random_cell(1000);
    r.cell[M_COUNT] = random_cell(1000);
    r.cell[M_VECTOR] = random_cell(1000);
    if (events) {
        r.cell[M_TS] = (struct model_cell){CELL_VALUE, (int64_t)random_below(12)};
        r.cell[M_MADE] = random_cell(3);
    } else {
        r.cell[M_TS] = random_cell(100);
        r.cell[M_MADE] = random_cell(100);
    }
    return r;
}

static inline void random_load(struct model_load *l, bool events, size_t rows)
{
    static const enum load_mode modes[] = {LOAD_UPSERT,    LOAD_UPSERT,       LOAD_APPEND,
                                           LOAD_PARTITION, LOAD_FULL_REFRESH, LOAD_DELETE};
    memset(l, 0, offsetof(struct model_load, row));
    l->mode = modes[random_below(6)];
    if (l->mode == LOAD_FULL_REFRESH && random_below(3))
        l->mode = LOAD_UPSERT;
    l->duplicates_last = random_below(4) != 0;
    l->by_filter = l->mode == LOAD_DELETE && random_below(2);
    l->below = (int64_t)random_below(400);
    l->n = random_below(rows + 1);
    for (size_t i = 0; i < l->n; i++)
        l->row[i] = random_row(events, l->mode == LOAD_APPEND && !events ? 100000 : KEYS);
    if (l->mode != LOAD_PARTITION || random_below(2))
        return;
    for (size_t i = 0; i < 1 + random_below(3); i++)
        l->partition[l->npartitions++] =
            random_below(4) ? (struct model_cell){CELL_VALUE, (int64_t)random_below(4)}
                            : (struct model_cell){CELL_NULL, 0};
    for (size_t i = 0; i < l->n; i++) /* mostly inside */
        if (random_below(30))
            l->row[i].cell[M_DAY] = l->partition[random_below(l->npartitions)];
}

static inline void put_cell(struct fixture *f, struct batch *b, int at, struct model_cell c)
{
    float v[TEST_DIM] = {(float)c.value, 1, 2, 3}, price = (float)c.value / 2;
    char text[32];
    if (c.state == CELL_ABSENT)
        return;
    if (c.state == CELL_NULL) {
        OK(at == M_VECTOR ? batch_set_vector_null(b, &f->ctx)
                          : batch_set_null(b, (uint32_t)at, &f->ctx));
        return;
    }
    snprintf(text, sizeof text, "d%lld", (long long)c.value);
    if (at == M_VECTOR)
        OK(batch_set_vector(b, v, &f->ctx));
    else if (at == M_DAY)
        OK(batch_set(b, M_DAY, text, strlen(text), &f->ctx));
    else if (at == M_PRICE)
        OK(batch_set(b, M_PRICE, &price, sizeof price, &f->ctx));
    else
        OK(batch_set(b, (uint32_t)at, &c.value, sizeof c.value, &f->ctx));
}

static inline void put_model_row(struct fixture *f, struct batch *b, const struct model_row *r)
{
    put_key(f, b, r->key);
    for (int at = 0; at < CELLS; at++)
        put_cell(f, b, at, r->cell[at]);
}

static inline struct schema *newest_schema(struct collection *c)
{
    epoch_enter();
    struct schema *s = schema_acquire(collection_snapshot(c)->schema);
    epoch_leave();
    return s;
}

static inline struct batch *make_batch(struct world *w, struct schema *s,
                                       const struct model_load *l, size_t from, size_t to)
{
    struct fixture *f = &w->fixture;
    struct batch *b;
    OK(batch_new(s, &b, &f->ctx));
    for (size_t i = from; i < to; i++)
        put_model_row(f, b, &l->row[i]);
    return b;
}

static inline struct batch *make_partitions(struct world *w, struct schema *s,
                                            const struct model_load *l)
{
    struct fixture *f = &w->fixture;
    struct batch *b;
    if (!l->npartitions)
        return NULL;
    OK(batch_new(s, &b, &f->ctx));
    for (size_t i = 0; i < l->npartitions; i++) {
        put_key(f, b, 0);
        put_cell(f, b, M_DAY, l->partition[i]);
    }
    return b;
}

/* ---- committing them ---- */

static inline enum err commit_delete(struct world *w, struct schema *s, const struct model_load *l,
                                     struct commit_result *r)
{
    struct fixture *f = &w->fixture;
    struct load_options o = {.expected_version = -1};
    if (l->by_filter) {
        char text[64];
        struct filter *filter;
        snprintf(text, sizeof text, "count < %lld", (long long)l->below);
        OK(filter_parse(s, text, strlen(text), &filter, &f->ctx));
        enum err e = collection_delete_filter(w->c, filter, &o, r, &f->ctx);
        filter_free(filter);
        return e;
    }
    struct batch *b = make_batch(w, s, l, 0, l->n);
    enum err e = collection_delete_keys(w->c, b, &o, r, &f->ctx);
    batch_free(b);
    return e;
}

static inline enum err commit_small(struct world *w, struct schema *s, const struct model_load *l,
                                    const struct load_options *o, struct commit_result *r)
{
    struct fixture *f = &w->fixture;
    struct load *load;
    OK(load_new(w->c, o, &load, &f->ctx));
    struct batch *b = make_batch(w, s, l, 0, l->n);
    enum err e = load_add(load, b, &f->ctx);
    if (e == ERR_OK)
        e = load_commit(load, r, &f->ctx);
    batch_free(b);
    load_free(load);
    return e;
}

/* A part through its bytes and back, as over a restart. */
static inline void thaw(struct world *w, struct load_part *p, const char *dir)
{
    struct fixture *f = &w->fixture;
    struct buf bytes = {0};
    staged_encode(p->staged, p->nstaged, &bytes);
    staged_list_free(w->c, p->staged, p->nstaged, false);
    struct cursor in = cursor_over(bytes.data, bytes.len);
    OK(staged_decode(w->c, dir, &in, &p->staged, &p->nstaged, &f->ctx));
    assert_int_equal(cursor_left(&in), 0);
    buf_deinit(&bytes);
}

static inline enum err stage_part(struct world *w, struct schema *s, const struct model_load *l,
                                  size_t from, size_t to, struct load_part *out)
{
    struct fixture *f = &w->fixture;
    struct stage_options o = {.mode = l->mode, .duplicates_last = l->duplicates_last};
    struct stage *stage;
    char dir[400];
    OK(stage_new(w->c, s, &o, &stage, &f->ctx));
    struct batch *b = make_batch(w, s, l, from, to);
    enum err e = stage_add(stage, b, &f->ctx);
    batch_free(b);
    out->rows = to - from;
    if (e == ERR_OK)
        e = stage_finish(stage, &out->staged, &out->nstaged, &f->ctx);
    stage_free(stage);
    snprintf(dir, sizeof dir, "%s/staging", collection_dir(w->c));
    if (e == ERR_OK && random_below(3) == 0)
        thaw(w, out, dir);
    return e;
}

static inline enum err commit_parts(struct world *w, struct schema *s, const struct model_load *l,
                                    struct load_options *o, struct commit_result *r)
{
    static const char *const names[] = {"0/a", "0/b", "1", "z"};
    struct fixture *f = &w->fixture;
    struct load_part parts[4] = {0};
    size_t n = 1 + random_below(4);
    enum err e = ERR_OK;
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        parts[n - 1 - i].name = names[i]; /* handed over in another order */
        e = stage_part(w, s, l, l->n * i / n, l->n * (i + 1) / n, &parts[n - 1 - i]);
    }
    w->in_the_middle = random_below(3) != 0;
    w->compact_instead = random_below(4) == 0;
    if (e == ERR_OK)
        e = load_commit_parts(w->c, o, parts, n, r, &f->ctx);
    w->in_the_middle = false;
    for (size_t i = 0; i < n; i++)
        staged_list_free(w->c, parts[i].staged, parts[i].nstaged, true);
    return e;
}

static inline enum err commit(struct world *w, const struct model_load *l, bool parts,
                              struct commit_result *r)
{
    struct schema *s = newest_schema(w->c);
    struct batch *partitions = make_partitions(w, s, l);
    struct load_options o = {.mode = l->mode,
                             .duplicates_last = l->duplicates_last,
                             .expected_version = -1,
                             .partitions = partitions,
                             .wait = parts ? LOAD_WAIT_INDEXED : LOAD_WAIT_DEFAULT};
    enum err e = l->mode == LOAD_DELETE ? commit_delete(w, s, l, r)
                 : parts                ? commit_parts(w, s, l, &o, r)
                                        : commit_small(w, s, l, &o, r);
    batch_free(partitions);
    schema_release(s);
    return e;
}

/* ---- comparing ---- */

static inline int by_seq(const void *a, const void *b)
{
    const struct model_row *x = a, *y = b;
    if (x->version != y->version)
        return x->version < y->version ? -1 : 1;
    return (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
}

/* The number behind the first letter. */
static inline int64_t number_of(const void *text, size_t len)
{
    char copy[64];
    snprintf(copy, sizeof copy, "%.*s", (int)len - 1, (const char *)text + 1);
    return strtoll(copy, NULL, 10);
}

static inline struct model_cell read_cell(const struct segment *s, uint32_t row, int at)
{
    size_t len;
    int64_t value = 0;
    if (at == M_VECTOR) {
        const float *v = segment_vector(s, row);
        return v ? (struct model_cell){CELL_VALUE, (int64_t)v[0]}
                 : (struct model_cell){CELL_NULL, 0};
    }
    const void *data = segment_cell(s, row, (uint32_t)at, &len);
    if (!data)
        return (struct model_cell){CELL_NULL, 0};
    if (at == M_DAY)
        value = number_of(data, len);
    else if (at == M_PRICE)
        value = (int64_t)(*(const float *)data * 2);
    else
        memcpy(&value, data, sizeof value);
    return (struct model_cell){CELL_VALUE, value};
}

static inline int64_t read_key(const struct segment *s, uint32_t row)
{
    size_t len;
    if (s->schema->key == KEY_INT64)
        return segment_key_int(s, row);
    const void *key = segment_key_str(s, row, &len);
    return number_of(key, len);
}

static inline size_t read_rows(const struct snapshot *s, bool events, struct model_row *out,
                               struct digest *digest)
{
    size_t n = 0;
    struct row_builder rb;
    struct err_ctx ctx;
    assert_int_equal(row_builder_init(&rb, s->schema, &ctx), ERR_OK);
    *digest = (struct digest){0};
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        for (uint32_t row = 0; row < v->rows; row++) {
            if (!(events ? view_kept(v, row) : view_live(v, row)))
                continue;
            struct model_row *r = &out[n++];
            *r = (struct model_row){.key = read_key(v->segment, row), .current = view_live(v, row)};
            segment_seq(v->segment, row, &r->version, &r->ordinal);
            for (int at = 0; at < CELLS; at++)
                r->cell[at] = read_cell(v->segment, row, at);
            row_from_segment(&rb, v->segment, row);
            digest_add(digest, row_digest(&rb.row));
        }
    }
    row_builder_deinit(&rb);
    qsort(out, n, sizeof *out, by_seq);
    return n;
}

static inline void compare_row(const struct model_row *is, const struct model_row *want)
{
    if (is->key != want->key || by_seq(is, want) || is->current != want->current)
        fail_msg("key %lld seq %llu.%llu current %d instead of key %lld seq %llu.%llu current %d",
                 (long long)is->key, (unsigned long long)is->version,
                 (unsigned long long)is->ordinal, is->current, (long long)want->key,
                 (unsigned long long)want->version, (unsigned long long)want->ordinal,
                 want->current);
    for (int at = 0; at < CELLS; at++) {
        if (!model_same_cell(is->cell[at], want->cell[at]))
            fail_msg("key %lld seq %llu.%llu cell %d: %d %lld instead of %d %lld",
                     (long long)is->key, (unsigned long long)is->version,
                     (unsigned long long)is->ordinal, at, is->cell[at].state,
                     (long long)is->cell[at].value, want->cell[at].state,
                     (long long)want->cell[at].value);
    }
}

static inline void compare(const struct snapshot *s, struct model *m)
{
    static struct model_row rows[MODEL_ROWS];
    struct digest digest;
    uint64_t current = 0, vectors = 0;
    assert_int_equal(s->version, m->version);
    size_t n = read_rows(s, m->events, rows, &digest);
    qsort(m->row, m->n, sizeof *m->row, by_seq);
    for (size_t i = 0; i < n && i < m->n; i++)
        compare_row(&rows[i], &m->row[i]);
    assert_int_equal(n, m->n);
    for (size_t i = 0; i < n; i++) {
        current += m->row[i].current;
        vectors += m->row[i].current && m->row[i].cell[M_VECTOR].state == CELL_VALUE;
    }
    assert_int_equal(s->rows, current);
    assert_int_equal(s->vectors, vectors);
    assert_int_equal(s->digest.lo, digest.lo);
    assert_int_equal(s->digest.hi, digest.hi);
}

static inline void compare_newest(struct world *w)
{
    epoch_enter();
    compare(collection_snapshot(w->c), w->model);
    epoch_leave();
}

static inline void expect_counts(const struct commit_result *is, const struct commit_result *want)
{
    assert_int_equal(is->version, want->version);
    assert_int_equal(is->rows, want->rows);
    assert_int_equal(is->inserted, want->inserted);
    assert_int_equal(is->updated, want->updated);
    assert_int_equal(is->deleted, want->deleted);
    assert_int_equal(is->stale, want->stale);
}

static inline void run(struct world *w, struct model_load *l, bool parts)
{
    struct commit_result is = {0}, want;
    enum err e = commit(w, l, parts, &is);
    enum err expected = model_apply(w->model, l, &want);
    if (e != expected)
        fail_msg("mode %s: %d instead of %d: %s", load_mode_name(l->mode), e, expected,
                 w->fixture.ctx.detail);
    if (e == ERR_OK)
        expect_counts(&is, &want);
    else
        assert_true(w->fixture.ctx.detail[0] != '\0');
    err_clear(&w->fixture.ctx);
}

/* ---- the hook: what lands in the middle of a commit ---- */

static inline enum err build(void *arg, struct collection *c, struct segment *s,
                             struct build_watch *watch, struct err_ctx *ctx)
{
    static struct model_load other;
    struct world *w = the_world;
    (void)arg, (void)s, (void)watch, (void)ctx;
    if (!w->in_the_middle)
        return ERR_OK;
    w->in_the_middle = false;
    if (w->compact_instead) {
        struct compact_result r;
        struct fixture *f = &w->fixture;
        OK(collection_seal(c, &f->ctx));
        OK(collection_compact(c, &r, &f->ctx));
        return ERR_OK;
    }
    if (!w->middle)
        random_load(&other, w->model->events, 25);
    run(w, w->middle ? w->middle : &other, false);
    return ERR_OK;
}

static const struct store_hooks hooks = {.segment_build = build};

static inline void open_world(struct world *w)
{
    struct fixture *f = &w->fixture;
    OK(catalog_open(f->dir, f->io, &hooks, &f->cat, &f->ctx));
    while (!catalog_ready(f->cat))
        usleep(500);
}

static inline void create(struct world *w, bool events)
{
    static const struct {
        const char *name;
        enum feature_type type;
    } features[] = {{"day", FEATURE_STRING},
                    {"price", FEATURE_FLOAT32},
                    {"count", FEATURE_INT64},
                    {"ts", FEATURE_TIMESTAMP},
                    {"made", FEATURE_TIMESTAMP}};
    struct fixture *f = &w->fixture;
    struct schema *s;
    bool created;
    OK(schema_new(w->key, TEST_DIM, DIST_L2, &s, &f->ctx));
    for (size_t i = 0; i < 5; i++)
        OK(schema_add_feature(s, features[i].name, features[i].type, &f->ctx));
    OK(schema_add_partition(s, "day", &f->ctx));
    if (events)
        OK(schema_set_times(s, "ts", "made", &f->ctx));
    OK(schema_seal(s, &f->ctx));
    OK(catalog_create(f->cat, "c", s, &created, &f->ctx));
    schema_release(s);
    w->c = fixture_find(f, "c");
}

static inline void setup(struct world *w, enum key_type key, bool events, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    the_world = w;
    w->key = key;
    w->seed = seed;
    fixture_new(&w->fixture, IO_AUTO);
    catalog_close(w->fixture.cat);
    open_world(w);
    w->model = calloc(1, sizeof *w->model);
    w->old = calloc(1, sizeof *w->old);
    w->model->events = events;
    create(w, events);
}

static inline void teardown(struct world *w)
{
    free(w->model);
    free(w->old);
    fixture_free(&w->fixture);
}

#endif
