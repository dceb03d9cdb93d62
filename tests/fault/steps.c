/* Steps that load, delete, change the schema, seal, and start anew; workload.h explains. Each
 * writes its page before it asks the store, so that a refusal leaves the page that may be found. */
#include "workload.h"

#include "store/filter.h"

/* A load that says it brings this much goes to segment files, whatever it brings. */
static const uint64_t STREAMED_BYTES = 5 << 20;

static void put_day(struct fixture *f, struct batch *b, int64_t key)
{
    char day[8];
    snprintf(day, sizeof day, "d%d", (int)(key % DAYS));
    OK(batch_set(b, DAY, day, strlen(day), &f->ctx));
}

enum err step_create(struct job *j)
{
    struct schema *s;
    bool created;
    struct fixture *f = j->f;
    RETURN_NOT_OK(schema_new(KEY_STRING, TEST_DIM, DIST_L2, &s, &f->ctx));
    enum err e = schema_add_feature(s, "price", FEATURE_FLOAT32, &f->ctx);
    if (e == ERR_OK)
        e = schema_add_feature(s, "count", FEATURE_INT64, &f->ctx);
    if (e == ERR_OK)
        e = schema_add_feature(s, "name", FEATURE_STRING, &f->ctx);
    if (e == ERR_OK)
        e = schema_add_feature(s, "tags", FEATURE_STRING_LIST, &f->ctx);
    if (e == ERR_OK)
        e = schema_add_feature(s, "day", FEATURE_STRING, &f->ctx);
    s->index.kind = INDEX_FLAT;
    if (e == ERR_OK)
        e = schema_add_partition(s, "day", &f->ctx);
    if (e == ERR_OK)
        e = schema_seal(s, &f->ctx);
    if (e == ERR_OK)
        e = catalog_create(f->cat, j->b->name, s, &created, &f->ctx);
    schema_release(s);
    j->p->exists = true;
    j->p->base = j->p->version;
    j->p->features = FEATURES_BEFORE;
    return e;
}

enum err step_drop(struct job *j)
{
    j->p->exists = false;
    j->p->hides = true;
    j->p->slack += j->b->n - 2 > j->b->final; /* what a drop drops may hold a refused step */
    page_wipe(j->p);
    memset(j->p->kept, 0, sizeof j->p->kept);
    memset(j->p->tags, 0, sizeof j->p->tags);
    memset(j->p->purged, 0, sizeof j->p->purged);
    memset(j->p->half_purged, 0, sizeof j->p->half_purged);
    return catalog_drop(j->f->cat, j->b->name, &j->f->ctx);
}

/* Rows from, from + stride .. below `to`: whole ones of the number x, or the feature count alone.
 */
struct span {
    int64_t from, to, stride;
    int32_t x;
    bool partial;
    uint64_t size_hint;
};

static enum err add_rows(struct job *j, struct load *l, const struct span *s)
{
    struct batch *b = NULL;
    struct fixture *f = j->f;
    RETURN_NOT_OK(batch_new(load_schema(l), &b, &f->ctx));
    pause_faults(j->w, true);
    for (int64_t key = s->from; key < s->to; key += s->stride) {
        int64_t x = s->x;
        if (s->partial) {
            put_key(f, b, key);
            OK(batch_set(b, COUNT, &x, sizeof x, &f->ctx));
        } else {
            put_row(f, b, key, x);
            put_day(f, b, key);
        }
    }
    pause_faults(j->w, false);
    enum err e = load_add(l, b, &f->ctx);
    batch_free(b);
    return e;
}

static enum err load_span(struct job *j, enum load_mode mode, const struct span *s)
{
    struct load_options o = {
        .mode = mode, .expected_version = -1, .size_hint = s->size_hint, .message = j->w->doing};
    struct commit_result r;
    struct load *l;
    RETURN_NOT_OK(load_new(j->c, &o, &l, &j->f->ctx));
    enum err e = add_rows(j, l, s);
    if (e == ERR_OK)
        e = load_commit(l, &r, &j->f->ctx);
    load_free(l);
    page_commit(j->p);
    if (e == ERR_OK)
        expect_version(j, r.version);
    return e;
}

static void book_span(struct job *j, const struct span *s)
{
    for (int64_t key = s->from; key < s->to; key += s->stride) {
        int32_t x = j->p->cells[key].x;
        if (!s->partial)
            page_set(j->p, key, s->x, s->x);
        else if (x != ABSENT)
            page_set(j->p, key, x, s->x);
    }
}

static struct span random_span(struct workload *w, int64_t rows_max)
{
    struct span s = {.from = random_below(w, KEYS - rows_max), .stride = 1 + random_below(w, 3)};
    s.to = s.from + 1 + random_below(w, rows_max);
    s.x = (int32_t)(w->step * 1000 + (uint32_t)random_below(w, 1000));
    return s;
}

enum err step_upsert(struct job *j)
{
    struct span s = random_span(j->w, 60);
    book_span(j, &s);
    return load_span(j, LOAD_UPSERT, &s);
}

enum err step_upsert_streamed(struct job *j)
{
    struct span s = random_span(j->w, 1500);
    s.size_hint = STREAMED_BYTES;
    book_span(j, &s);
    return load_span(j, LOAD_UPSERT, &s);
}

/* Only rows that are there: a new one would have neither vector nor name. */
enum err step_upsert_partial(struct job *j)
{
    struct span s = {.stride = 1, .partial = true, .x = (int32_t)(j->w->step * 1000)};
    s.from = random_below(j->w, KEYS);
    while (s.from < KEYS && j->p->cells[s.from].x == ABSENT)
        s.from++;
    s.to = s.from;
    while (s.to < KEYS && s.to < s.from + 40 && j->p->cells[s.to].x != ABSENT)
        s.to++;
    book_span(j, &s);
    return load_span(j, LOAD_UPSERT, &s);
}

enum err step_append(struct job *j)
{
    struct span s = {.stride = 1, .x = (int32_t)(j->w->step * 1000)};
    s.from = random_below(j->w, KEYS);
    while (s.from < KEYS && j->p->cells[s.from].x != ABSENT)
        s.from++;
    s.to = s.from;
    while (s.to < KEYS && s.to < s.from + 30 && j->p->cells[s.to].x == ABSENT)
        s.to++;
    book_span(j, &s);
    return load_span(j, LOAD_APPEND, &s);
}

enum err step_refresh(struct job *j)
{
    struct span s = random_span(j->w, 300);
    page_wipe(j->p);
    book_span(j, &s);
    return load_span(j, LOAD_FULL_REFRESH, &s);
}

enum err step_refresh_streamed(struct job *j)
{
    struct span s = random_span(j->w, 2000);
    s.size_hint = STREAMED_BYTES;
    page_wipe(j->p);
    book_span(j, &s);
    return load_span(j, LOAD_FULL_REFRESH, &s);
}

/* A key's day is its own for good, so that no row lives in another partition. */
enum err step_partition(struct job *j)
{
    struct span s = random_span(j->w, 400);
    s.stride = DAYS;
    for (int64_t key = s.from % DAYS; key < KEYS; key += DAYS)
        page_set(j->p, key, ABSENT, ABSENT);
    book_span(j, &s);
    return load_span(j, LOAD_PARTITION, &s);
}

enum err step_delete_where(struct job *j)
{
    struct load_options o = {.expected_version = -1};
    struct commit_result r;
    struct filter *f;
    char text[64];
    int32_t limit = (int32_t)(random_below(j->w, (int64_t)j->w->step) * 1000);
    snprintf(text, sizeof text, "count between %d and %d", limit, limit + 1500);
    for (int64_t key = 0; key < KEYS; key++) {
        const struct cell *cell = &j->p->cells[key];
        if (cell->x != ABSENT && cell->count >= limit && cell->count <= limit + 1500)
            page_set(j->p, key, ABSENT, ABSENT);
    }
    page_commit(j->p);
    epoch_enter();
    struct schema *schema = schema_acquire(collection_snapshot(j->c)->schema);
    epoch_leave();
    enum err e = filter_parse(schema, text, strlen(text), &f, &j->f->ctx);
    schema_release(schema);
    RETURN_NOT_OK(e);
    e = collection_delete_filter(j->c, f, &o, &r, &j->f->ctx);
    filter_free(f);
    if (e == ERR_OK)
        expect_version(j, r.version);
    return e;
}

enum err step_delete(struct job *j)
{
    struct load_options o = {.expected_version = -1};
    struct span s = random_span(j->w, 200);
    struct commit_result r;
    struct batch *b;
    struct fixture *f = j->f;
    epoch_enter();
    struct schema *schema = schema_acquire(collection_snapshot(j->c)->schema);
    epoch_leave();
    enum err e = batch_new(schema, &b, &f->ctx);
    schema_release(schema);
    RETURN_NOT_OK(e);
    pause_faults(j->w, true);
    for (int64_t key = s.from; key < s.to; key += s.stride) {
        put_key(f, b, key);
        page_set(j->p, key, ABSENT, ABSENT);
    }
    pause_faults(j->w, false);
    e = collection_delete_keys(j->c, b, &o, &r, &f->ctx);
    batch_free(b);
    page_commit(j->p);
    if (e == ERR_OK)
        expect_version(j, r.version);
    return e;
}

enum err step_alter(struct job *j)
{
    char name[32];
    j->neutral = j->p->features == FEATURES_AFTER;
    if (j->neutral)
        return ERR_OK;
    snprintf(name, sizeof name, "grown%u", j->p->features++);
    return try_alter(j->c, name, j->p->features & 1 ? FEATURE_INT64 : FEATURE_STRING, &j->f->ctx);
}

enum err step_seal(struct job *j)
{
    j->neutral = true;
    return collection_seal(j->c, &j->f->ctx);
}

/* A clean stop and start: the log is ended and replayed. */
enum err step_reopen(struct job *j)
{
    j->neutral = true;
    fixture_reopen(j->f);
    return ERR_OK;
}
