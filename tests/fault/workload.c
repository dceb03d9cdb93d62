/* The steps, the books, and the comparison; workload.h explains. */
#include "workload.h"

/* A load that says it brings this much goes to segment files, whatever it brings. */
static const uint64_t STREAMED_BYTES = 5 << 20;

static uint64_t next(struct workload *w)
{
    w->random += 0x9e3779b97f4a7c15ull;
    uint64_t z = w->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int64_t below(struct workload *w, int64_t n)
{
    return (int64_t)(next(w) % (uint64_t)n);
}

static void pause_faults(const struct workload *w, bool on)
{
    if (w->pause)
        w->pause(on);
}

/* ---- books ---- */

static struct page *last_page(struct book *b)
{
    return b->pages[b->final];
}

/* A copy of the last final page, to be changed by the step at work. */
static struct page *turn_page(struct workload *w, struct book *b)
{
    struct page *p = malloc(sizeof *p);
    assert_non_null(p);
    if (b->n)
        *p = *last_page(b);
    if (b->n == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 64;
        b->pages = realloc(b->pages, b->cap * sizeof(struct page *));
        assert_non_null(b->pages);
    }
    p->step = w->step;
    p->dropped = false;
    b->pages[b->n++] = p;
    return p;
}

static void set_cell(struct page *p, int64_t key, int32_t x, int32_t count)
{
    p->rows += (uint32_t)((x != ABSENT) - (p->cells[key].x != ABSENT));
    p->cells[key] = (struct cell){x, count};
}

static void wipe(struct page *p)
{
    for (int64_t key = 0; key < KEYS; key++)
        p->cells[key] = (struct cell){ABSENT, ABSENT};
    p->rows = 0;
}

void workload_new(struct workload *w, struct fixture *f, uint64_t seed)
{
    static const char *const names[BOOKS] = {"c", "d"};
    memset(w, 0, sizeof *w);
    w->f = f;
    w->seed = w->random = seed;
    for (int i = 0; i < BOOKS; i++) {
        struct book *b = &w->books[i];
        b->name = names[i];
        struct page *p = turn_page(w, b);
        memset(p, 0, sizeof *p);
        wipe(p);
    }
}

void workload_free(struct workload *w)
{
    for (int i = 0; i < BOOKS; i++) {
        for (size_t p = 0; p < w->books[i].n; p++)
            free(w->books[i].pages[p]);
        free(w->books[i].pages);
    }
}

/* ---- steps ---- */

struct job {
    struct workload *w;
    struct fixture *f;
    struct book *b;
    struct page *p;       /* the page it makes */
    struct collection *c; /* NULL: it does not exist */
};

static enum err make(struct job *j)
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
    s->index.kind = INDEX_FLAT;
    if (e == ERR_OK)
        e = schema_seal(s, &f->ctx);
    if (e == ERR_OK)
        e = catalog_create(f->cat, j->b->name, s, &created, &f->ctx);
    schema_release(s);
    j->p->exists = true;
    j->p->features = FEATURES_BEFORE;
    return e;
}

static enum err drop(struct job *j)
{
    j->p->exists = false;
    j->p->dropped = true;
    j->p->slack += j->b->n - 2 > j->b->final; /* what a drop drops may hold a refused step */
    wipe(j->p);
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
        }
    }
    pause_faults(j->w, false);
    enum err e = load_add(l, b, &f->ctx);
    batch_free(b);
    return e;
}

static void expect_version(const struct job *j, uint64_t version)
{
    if (version - j->p->version <= j->p->slack) {
        j->p->version = version;
        j->p->slack = 0;
    }
    if (version != j->p->version)
        fail_msg("seed %llu, %s: version %llu instead of %llu", (unsigned long long)j->w->seed,
                 j->w->doing, (unsigned long long)version, (unsigned long long)j->p->version);
}

static enum err load_span(struct job *j, enum load_mode mode, const struct span *s)
{
    struct load_options o = {.mode = mode, .expected_version = -1, .size_hint = s->size_hint};
    struct commit_result r;
    struct load *l;
    RETURN_NOT_OK(load_new(j->c, &o, &l, &j->f->ctx));
    enum err e = add_rows(j, l, s);
    if (e == ERR_OK)
        e = load_commit(l, &r, &j->f->ctx);
    load_free(l);
    j->p->version++;
    if (e == ERR_OK)
        expect_version(j, r.version);
    return e;
}

static void book_span(struct job *j, const struct span *s)
{
    for (int64_t key = s->from; key < s->to; key += s->stride) {
        int32_t x = j->p->cells[key].x;
        if (!s->partial)
            set_cell(j->p, key, s->x, s->x);
        else if (x != ABSENT)
            set_cell(j->p, key, x, s->x);
    }
}

static struct span random_span(struct workload *w, int64_t rows_max)
{
    struct span s = {.from = below(w, KEYS - rows_max), .stride = 1 + below(w, 3)};
    s.to = s.from + 1 + below(w, rows_max);
    s.x = (int32_t)(w->step * 1000 + (uint32_t)below(w, 1000));
    return s;
}

static enum err upsert(struct job *j)
{
    struct span s = random_span(j->w, 60);
    book_span(j, &s);
    return load_span(j, LOAD_UPSERT, &s);
}

static enum err upsert_streamed(struct job *j)
{
    struct span s = random_span(j->w, 1500);
    s.size_hint = STREAMED_BYTES;
    book_span(j, &s);
    return load_span(j, LOAD_UPSERT, &s);
}

/* Only rows that are there: a new one would have neither vector nor name. */
static enum err upsert_partial(struct job *j)
{
    struct span s = {.stride = 1, .partial = true, .x = (int32_t)(j->w->step * 1000)};
    s.from = below(j->w, KEYS);
    while (s.from < KEYS && j->p->cells[s.from].x == ABSENT)
        s.from++;
    s.to = s.from;
    while (s.to < KEYS && s.to < s.from + 40 && j->p->cells[s.to].x != ABSENT)
        s.to++;
    book_span(j, &s);
    return load_span(j, LOAD_UPSERT, &s);
}

static enum err append(struct job *j)
{
    struct span s = {.stride = 1, .x = (int32_t)(j->w->step * 1000)};
    s.from = below(j->w, KEYS);
    while (s.from < KEYS && j->p->cells[s.from].x != ABSENT)
        s.from++;
    s.to = s.from;
    while (s.to < KEYS && s.to < s.from + 30 && j->p->cells[s.to].x == ABSENT)
        s.to++;
    book_span(j, &s);
    return load_span(j, LOAD_APPEND, &s);
}

static enum err delete_keys(struct job *j)
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
        set_cell(j->p, key, ABSENT, ABSENT);
    }
    pause_faults(j->w, false);
    e = collection_delete_keys(j->c, b, &o, &r, &f->ctx);
    batch_free(b);
    j->p->version++;
    if (e == ERR_OK)
        expect_version(j, r.version);
    return e;
}

static enum err alter(struct job *j)
{
    char name[32];
    if (j->p->features == FEATURES_AFTER)
        return ERR_OK;
    snprintf(name, sizeof name, "grown%u", j->p->features++);
    return try_alter(j->c, name, j->p->features & 1 ? FEATURE_INT64 : FEATURE_STRING, &j->f->ctx);
}

static enum err seal(struct job *j)
{
    return collection_seal(j->c, &j->f->ctx);
}

/* A clean stop and start: the log is ended and replayed. */
static enum err reopen(struct job *j)
{
    fixture_reopen(j->f);
    return ERR_OK;
}

static const struct kind {
    const char *name;
    enum err (*run)(struct job *j);
    unsigned weight;
} KINDS[] = {
    {"create", make, 0}, /* done whenever there is none */
    {"upsert", upsert, 8},
    {"streamed upsert", upsert_streamed, 2},
    {"partial upsert", upsert_partial, 4},
    {"append", append, 4},
    {"delete", delete_keys, 3},
    {"alter", alter, 1},
    {"seal", seal, 3},
    {"reopen", reopen, 1},
    {"drop", drop, 1},
};

enum { NKINDS = sizeof KINDS / sizeof KINDS[0], KIND_CREATE = 0, KIND_DROP = NKINDS - 1 };

static struct collection *find(struct fixture *f, const char *name)
{
    struct collection *c = NULL;
    struct err_ctx why;
    err_clear(&why);
    epoch_enter();
    if (catalog_find(f->cat, name, &c, &why) != ERR_OK)
        c = NULL;
    epoch_leave();
    return c;
}

/* A failure leaves the page in the book as one that may be found: the next page that is
 * acknowledged rules it out. */
static void run_kind(struct workload *w, struct book *b, const struct kind *k)
{
    struct job j = {.w = w, .f = w->f, .b = b, .c = find(w->f, b->name)};
    snprintf(w->doing, sizeof w->doing, "step %u, %s of '%s'", w->step, k->name, b->name);
    bool creates = k == &KINDS[KIND_CREATE];
    if (w->lenient && (creates ? last_page(b)->exists : !j.c)) { /* an earlier step failed */
        w->failed++;
        return;
    }
    pause_faults(w, true);
    j.p = turn_page(w, b);
    pause_faults(w, false);
    enum err e = k->run(&j);
    if (e != ERR_OK && !w->lenient)
        fail_msg("seed %llu, %s: %s", (unsigned long long)w->seed, w->doing, w->f->ctx.detail);
    if (e == ERR_OK)
        b->final = b->n - 1;
    w->acknowledged += e == ERR_OK;
    w->failed += e != ERR_OK;
}

static const struct kind *pick_kind(struct workload *w, const struct book *b)
{
    unsigned sum = 0;
    if (!b->pages[b->final]->exists)
        return &KINDS[KIND_CREATE];
    for (size_t i = 0; i < NKINDS; i++)
        sum += KINDS[i].weight;
    int64_t r = below(w, sum);
    size_t i = 0;
    while (r >= KINDS[i].weight)
        r -= KINDS[i++].weight;
    /* the first collection stays */
    return b == &w->books[0] && i == KIND_DROP ? &KINDS[1] : &KINDS[i];
}

void workload_step(struct workload *w, void (*begun)(void *, uint32_t),
                   void (*acked)(void *, uint32_t), void *arg)
{
    struct book *b = &w->books[below(w, 3) == 0];
    w->step++;
    begun(arg, w->step);
    run_kind(w, b, pick_kind(w, b));
    acked(arg, w->step);
}

void workload_do(struct workload *w, const char *kind)
{
    size_t i = 0;
    while (i < NKINDS && strcmp(KINDS[i].name, kind) != 0)
        i++;
    assert_true(i < NKINDS);
    w->step++;
    run_kind(w, &w->books[0], &KINDS[i]);
}

/* ---- comparing ---- */

struct compare {
    struct workload *w;
    const struct book *b;
    const char *where;
    bool may_be_out; /* the start that made it unavailable was disturbed */
};

static bool row_is(const struct segment *seg, uint32_t row, const struct cell *cell)
{
    char text[32];
    size_t len;
    const float *v = segment_vector(seg, row);
    const float *price = segment_cell(seg, row, PRICE, &len);
    const int64_t *count = segment_cell(seg, row, COUNT, &len);
    if (!v || v[0] != (float)cell->x || v[3] != 3 || !price || *price != (float)cell->x / 2 ||
        !count || *count != cell->count)
        return false;
    snprintf(text, sizeof text, "n%d", cell->x);
    const char *name = segment_cell(seg, row, NAME, &len);
    return name && len == strlen(text) && memcmp(name, text, len) == 0;
}

/* The first key in which a snapshot differs from a page, or KEYS. */
static int64_t first_difference(const struct snapshot *s, const struct page *p)
{
    for (int64_t key = 0; key < KEYS; key++) {
        struct row_ref ref;
        bool there = find_ref(s, key, &ref);
        if (there != (p->cells[key].x != ABSENT))
            return key;
        if (there && !row_is(s->views[ref.view].segment, ref.row, &p->cells[key]))
            return key;
    }
    return KEYS;
}

static bool page_matches(const struct snapshot *s, const struct page *p)
{
    if (!s || !p->exists)
        return !s && !p->exists;
    return s->version - p->version <= p->slack && s->schema->nfeatures == p->features &&
           s->rows == p->rows && s->vectors == p->rows && first_difference(s, p) == KEYS;
}

static _Noreturn void differs(const struct compare *c, const struct snapshot *s, size_t from,
                              size_t to)
{
    char found[200] = "it does not exist";
    const struct page *p = c->b->pages[from];
    if (s)
        snprintf(found, sizeof found, "version %llu, %llu rows, %u features, differs at key %lld",
                 (unsigned long long)s->version, (unsigned long long)s->rows, s->schema->nfeatures,
                 (long long)first_difference(s, p));
    fail_msg("seed %llu, %s: '%s' is no page from step %u (exists %d, version %llu, %u rows, %u "
             "features) to step %u: %s",
             (unsigned long long)c->w->seed, c->where, c->b->name, p->step, p->exists,
             (unsigned long long)p->version, p->rows, p->features, c->b->pages[to]->step, found);
    abort();
}

/* The page that was found. */
static size_t compare_book(const struct compare *c, struct fixture *f, size_t from, size_t to)
{
    const struct book *b = c->b;
    struct collection *found;
    epoch_enter();
    enum err e = catalog_find(f->cat, b->name, &found, &f->ctx);
    struct snapshot *s = e == ERR_OK ? snapshot_acquire(collection_snapshot(found)) : NULL;
    epoch_leave();
    if (e == ERR_UNAVAILABLE && c->may_be_out)
        return from;
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        fail_msg("seed %llu, %s: %s", (unsigned long long)c->w->seed, c->where, f->ctx.detail);
    size_t i = from;
    while (i <= to && !page_matches(s, b->pages[i]))
        i++;
    if (i > to)
        differs(c, s, from, to);
    snapshot_release(s);
    return i;
}

void workload_compare(struct workload *w, struct fixture *f, uint32_t acked, uint32_t begun,
                      const char *where)
{
    for (int book = 0; book < BOOKS; book++) {
        struct compare c = {w, &w->books[book], where, false};
        const struct book *b = c.b;
        size_t from = 0, to = 0;
        for (size_t i = 0; i < b->n; i++) {
            if (b->pages[i]->step <= acked && i <= b->final)
                from = i;
            if (b->pages[i]->step <= begun)
                to = i;
        }
        (void)compare_book(&c, f, from, to);
    }
}

void workload_compare_final(struct workload *w, const char *where)
{
    for (int i = 0; i < BOOKS; i++) {
        struct compare c = {w, &w->books[i], where, true};
        bool dropped = c.b->pages[c.b->n - 1]->dropped;
        (void)compare_book(&c, w->f, c.b->final, dropped ? c.b->n - 1 : c.b->final);
    }
}

void workload_settle(struct workload *w, const char *where)
{
    for (int i = 0; i < BOOKS; i++) {
        struct compare c = {w, &w->books[i], where, true};
        w->books[i].final = compare_book(&c, w->f, c.b->final, c.b->n - 1);
    }
}

void workload_write_again(struct fixture *f, const char *where)
{
    struct collection *c = find(f, "c");
    struct commit_result r;
    if (!c)
        return;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    put_row(f, b, KEYS + 1, 1);
    OK(load_add(l, b, &f->ctx));
    if (load_commit(l, &r, &f->ctx) != ERR_OK)
        fail_msg("%s: no more writes: %s", where, f->ctx.detail);
    batch_free(b);
    load_free(l);
    expect_row(c, KEYS + 1, 1);
}
