/* Books, and the choosing and running of steps; workload.h explains. */
#include "workload.h"

/* ---- chance ---- */

static uint64_t next(struct workload *w)
{
    w->random += 0x9e3779b97f4a7c15ull;
    uint64_t z = w->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

int64_t random_below(struct workload *w, int64_t n)
{
    return (int64_t)(next(w) % (uint64_t)n);
}

uint64_t random_version(struct workload *w, const struct page *p)
{
    uint64_t at = (uint64_t)random_below(w, VERSIONS_TRACKED);
    for (uint64_t i = 0; i < VERSIONS_TRACKED; i++) {
        uint64_t v = (at + i) % VERSIONS_TRACKED;
        if (p->kept[v])
            return v;
    }
    return 0;
}

void pause_faults(const struct workload *w, bool on)
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
    p->hides = p->purges = p->settled = false;
    b->pages[b->n++] = p;
    return p;
}

void page_set(struct page *p, int64_t key, int32_t x, int32_t count)
{
    p->rows += (uint32_t)((x != ABSENT) - (p->cells[key].x != ABSENT));
    p->cells[key] = (struct cell){x, count};
}

void page_wipe(struct page *p)
{
    for (int64_t key = 0; key < KEYS; key++)
        p->cells[key] = (struct cell){ABSENT, ABSENT};
    p->rows = 0;
}

struct cell page_past(const struct page *p, uint64_t v, int64_t key)
{
    if (p->purged[key] > v)
        return (struct cell){ABSENT, ABSENT};
    return p->of[v]->cells[key];
}

void page_commit(struct page *p)
{
    p->version++;
    if (p->version < VERSIONS_TRACKED) {
        p->kept[p->version] = true;
        p->of[p->version] = p;
    }
}

void expect_version(const struct job *j, uint64_t version)
{
    struct page *p = j->p;
    if (version != p->version && version - p->version <= p->slack) {
        p->kept[p->version] = false;
        if (p->base == p->version - 1)
            p->base = version - 1;
        p->version = version - 1;
        page_commit(p);
    }
    p->slack = 0;
    if (version != p->version)
        fail_msg("seed %llu, %s: version %llu instead of %llu", (unsigned long long)j->w->seed,
                 j->w->doing, (unsigned long long)version, (unsigned long long)p->version);
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
        page_wipe(p);
        p->settled = true;
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

/* ---- running ---- */

static const struct kind {
    const char *name;
    step_fn run;
    unsigned weight;
} KINDS[] = {
    {"create", step_create, 0}, /* done whenever there is none */
    {"upsert", step_upsert, 8},
    {"streamed upsert", step_upsert_streamed, 2},
    {"partial upsert", step_upsert_partial, 4},
    {"append", step_append, 4},
    {"refresh", step_refresh, 1},
    {"streamed refresh", step_refresh_streamed, 1},
    {"partition overwrite", step_partition, 2},
    {"delete", step_delete, 3},
    {"delete where", step_delete_where, 1},
    {"restore", step_restore, 2},
    {"alter", step_alter, 1},
    {"seal", step_seal, 3},
    {"reopen", step_reopen, 1},
    {"tag", step_tag, 2},
    {"untag", step_untag, 1},
    {"compact", step_compact, 2},
    {"vacuum", step_vacuum, 1},
    {"purge", step_purge, 1},
    {"drop", step_drop, 1},
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
    if (j.neutral) {
        free(b->pages[--b->n]);
    } else if (e == ERR_OK) {
        b->final = b->n - 1;
        j.p->settled = true;
    }
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
    int64_t r = random_below(w, sum);
    size_t i = 0;
    while (r >= KINDS[i].weight)
        r -= KINDS[i++].weight;
    /* the first collection stays */
    return b == &w->books[0] && i == KIND_DROP ? &KINDS[1] : &KINDS[i];
}

void workload_step(struct workload *w, void (*begun)(void *, uint32_t),
                   void (*acked)(void *, uint32_t), void *arg)
{
    struct book *b = &w->books[random_below(w, 3) == 0];
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
