/* A store against its books; workload.h explains. */
#include "workload.h"

/* ---- comparing ---- */

struct compare {
    struct workload *w;
    const struct book *b;
    const char *where;
    uint32_t acked;  /* steps up to this one were acknowledged */
    bool final;      /* of refused steps only what they hid may show */
    bool may_be_out; /* the start was disturbed, or files are damaged: it may say so */
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

/* In an old version, a key whose purge did not come to its end. */
static bool loose(const struct compare *c, const struct page *p, uint64_t v, int64_t key)
{
    if (v == 0 || p->purged[key] <= v)
        return false;
    return p->half_purged[key] || (p->purges && p->step > c->acked && p->purged[key] == p->version);
}

/* The first key in which a snapshot differs from a page, or KEYS. With `v` from that version of
 * it. */
static int64_t first_difference(const struct compare *c, const struct snapshot *s,
                                const struct page *p, uint64_t v)
{
    for (int64_t key = 0; key < KEYS; key++) {
        if (loose(c, p, v, key))
            continue;
        struct row_ref ref;
        struct cell cell = v ? page_past(p, v, key) : p->cells[key];
        bool there = find_ref(s, key, &ref);
        if (there != (cell.x != ABSENT))
            return key;
        if (there && !row_is(s->views[ref.view].segment, ref.row, &cell))
            return key;
    }
    return KEYS;
}

static bool newest_matches(const struct compare *c, const struct snapshot *s, const struct page *p)
{
    return s->version - p->version <= p->slack && s->schema->nfeatures == p->features &&
           s->rows == p->rows && s->vectors == p->rows && first_difference(c, s, p, 0) == KEYS;
}

static bool tags_match(struct collection *c, const struct page *p)
{
    for (int i = 0; i < TAGGED; i++) {
        struct err_ctx why;
        char tag[16];
        uint64_t v = 0;
        err_clear(&why);
        snprintf(tag, sizeof tag, "t%d", i);
        if (collection_tag_get(c, tag, &v, &why) != ERR_OK)
            v = 0;
        if (v != p->tags[i])
            return false;
    }
    return true;
}

static bool take_version(void *arg, const struct version_info *info)
{
    bool *listed = arg;
    if (info->version < VERSIONS_TRACKED)
        listed[info->version] = true;
    return true;
}

static bool listing_matches(const struct compare *at, struct fixture *f, struct collection *c,
                            const struct page *p)
{
    bool listed[VERSIONS_TRACKED] = {false};
    enum err e = collection_versions(c, 0, UINT64_MAX, take_version, listed, &f->ctx);
    if (e == ERR_CORRUPT && at->may_be_out)
        return true;
    if (e != ERR_OK)
        fail_msg("seed %llu, %s: the versions cannot be listed: %s",
                 (unsigned long long)at->w->seed, at->where, f->ctx.detail);
    return p->slack || memcmp(listed, p->kept, sizeof listed) == 0;
}

static bool page_matches(const struct compare *c, struct fixture *f, struct collection *found,
                         const struct snapshot *s, const struct page *p)
{
    if (!s || !p->exists)
        return !s && !p->exists;
    return newest_matches(c, s, p) && tags_match(found, p) && listing_matches(c, f, found, p);
}

/* Version v is what the page of its commit holds. */
static void compare_version(const struct compare *c, struct fixture *f, struct collection *found,
                            const struct page *p, uint64_t v)
{
    struct snapshot *s;
    enum err e = collection_open_version(found, v, true, &s, &f->ctx);
    if (e == ERR_CORRUPT && c->may_be_out)
        return;
    if (e != ERR_OK)
        fail_msg("seed %llu, %s: version %llu of '%s' cannot be read: %s",
                 (unsigned long long)c->w->seed, c->where, (unsigned long long)v, c->b->name,
                 f->ctx.detail);
    int64_t key = first_difference(c, s, p, v);
    uint32_t rows = 0;
    bool counts = true;
    for (int64_t k = 0; k < KEYS; k++) {
        rows += page_past(p, v, k).x != ABSENT;
        counts &= !loose(c, p, v, k);
    }
    if (key != KEYS || (counts && s->rows != rows) || s->version != v ||
        s->schema->nfeatures != p->of[v]->features)
        fail_msg("seed %llu, %s: version %llu of '%s' (step %u) has changed: %llu rows for %u, "
                 "differs at key %lld",
                 (unsigned long long)c->w->seed, c->where, (unsigned long long)v, c->b->name,
                 p->of[v]->step, (unsigned long long)s->rows, rows, (long long)key);
    snapshot_release(s);
}

/* The oldest, the newest, those with tags, and a few between; what is not kept says so. */
static void compare_past(const struct compare *c, struct fixture *f, struct collection *found,
                         const struct page *p)
{
    uint64_t n = 0, stride = 1 + p->version / 5;
    if (p->slack)
        return;
    for (uint64_t v = p->base + 1; v < VERSIONS_TRACKED && v <= p->version; v++) {
        struct snapshot *s;
        bool tagged = v == p->tags[0] || v == p->tags[1] || v == p->tags[2];
        if (p->kept[v] && (tagged || n++ % stride == p->step % stride)) {
            compare_version(c, f, found, p, v);
        } else if (!p->kept[v]) {
            enum err e = collection_open_version(found, v, true, &s, &f->ctx);
            if (e != ERR_GONE && e != ERR_NOT_FOUND && !(e == ERR_CORRUPT && c->may_be_out))
                fail_msg("seed %llu, %s: version %llu of '%s' is %d instead of gone",
                         (unsigned long long)c->w->seed, c->where, (unsigned long long)v,
                         c->b->name, e);
        }
    }
}

static _Noreturn void differs(const struct compare *c, const struct snapshot *s, size_t from,
                              size_t to)
{
    char found[200] = "it does not exist";
    const struct page *p = c->b->pages[from];
    if (s)
        snprintf(found, sizeof found, "version %llu, %llu rows, %u features, differs at key %lld",
                 (unsigned long long)s->version, (unsigned long long)s->rows, s->schema->nfeatures,
                 (long long)first_difference(c, s, p, 0));
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
    found = e == ERR_OK ? collection_acquire(found) : NULL;
    epoch_leave();
    if (e == ERR_UNAVAILABLE && c->may_be_out)
        return from;
    if (e != ERR_OK && e != ERR_NOT_FOUND)
        fail_msg("seed %llu, %s: %s", (unsigned long long)c->w->seed, c->where, f->ctx.detail);
    size_t i = from;
    while (i <= to && !((i == from || !c->final || b->pages[i]->hides) &&
                        page_matches(c, f, found, s, b->pages[i])))
        i++;
    if (i > to)
        differs(c, s, from, to);
    if (found)
        compare_past(c, f, found, b->pages[i]);
    snapshot_release(s);
    collection_release(found);
    return i;
}

void workload_compare(struct workload *w, struct fixture *f, uint32_t acked, uint32_t begun,
                      const char *where)
{
    for (int book = 0; book < BOOKS; book++) {
        struct compare c = {w, &w->books[book], where, acked, false, false};
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
        struct compare c = {w, &w->books[i], where, w->step, true, true};
        (void)compare_book(&c, w->f, c.b->final, c.b->n - 1);
    }
}

void workload_settle(struct workload *w, const char *where)
{
    for (int i = 0; i < BOOKS; i++) {
        struct compare c = {w, &w->books[i], where, w->step, false, true};
        w->books[i].final = compare_book(&c, w->f, c.b->final, c.b->n - 1);
        c.b->pages[c.b->final]->settled = true;
    }
}

void workload_write_again(struct fixture *f, const char *where)
{
    struct collection *c;
    epoch_enter();
    enum err e = catalog_find(f->cat, "c", &c, &f->ctx);
    epoch_leave();
    struct commit_result r;
    if (e != ERR_OK)
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
