/* Steps on versions: tags, restores, compaction, vacuum, purge; workload.h explains. */
#include "workload.h"

#include "store/upkeep.h"

enum err step_tag(struct job *j)
{
    char tag[8];
    bool created;
    int64_t i = random_below(j->w, TAGGED);
    uint64_t v = random_version(j->w, j->p);
    j->neutral = !v;
    if (!v)
        return ERR_OK;
    snprintf(tag, sizeof tag, "t%d", (int)i);
    j->p->tags[i] = v;
    return collection_tag_set(j->c, tag, v, &created, &j->f->ctx);
}

enum err step_untag(struct job *j)
{
    char tag[8];
    int64_t i = random_below(j->w, TAGGED);
    j->neutral = !j->p->tags[i];
    if (j->neutral)
        return ERR_OK;
    snprintf(tag, sizeof tag, "t%d", (int)i);
    j->p->tags[i] = 0;
    return collection_tag_delete(j->c, tag, &j->f->ctx);
}

enum err step_compact(struct job *j)
{
    struct compact_result r;
    j->neutral = true;
    return collection_compact(j->c, &r, &j->f->ctx);
}

static bool tagged(const struct page *p, uint64_t v)
{
    return v == p->tags[0] || v == p->tags[1] || v == p->tags[2];
}

enum err step_vacuum(struct job *j)
{
    struct page *p = j->p;
    struct vacuum_options o = {.versions = 3 + (uint64_t)random_below(j->w, 6)};
    struct vacuum_result r;
    j->neutral = true;
    j->p->hides = true;
    for (uint64_t v = 1; v < VERSIONS_TRACKED; v++) {
        if (p->kept[v] && v + o.versions <= p->version && !tagged(p, v))
            p->kept[v] = j->neutral = false;
    }
    return collection_vacuum(j->c, &o, &r, &j->f->ctx);
}

enum err step_restore(struct job *j)
{
    struct load_options o = {.expected_version = -1};
    struct commit_result r;
    uint64_t v = random_version(j->w, j->p);
    j->neutral = !v;
    if (!v)
        return ERR_OK;
    for (int64_t key = 0; key < KEYS; key++) {
        struct cell cell = page_past(j->p, v, key);
        page_set(j->p, key, cell.x, cell.count);
    }
    page_commit(j->p);
    enum err e = collection_restore(j->c, v, &o, &r, &j->f->ctx);
    if (e == ERR_OK)
        expect_version(j, r.version);
    return e;
}

static uint64_t newest_version(struct collection *c)
{
    epoch_enter();
    uint64_t v = collection_snapshot(c)->version;
    epoch_leave();
    return v;
}

/* The newest version is without the keys, of the others nobody knows. */
static enum err half_purge(struct page *p, int64_t from)
{
    for (int64_t key = from; key < from + 20; key++)
        p->half_purged[key] = true;
    return ERR_OK;
}

enum err step_purge(struct job *j)
{
    struct fixture *f = j->f;
    struct page *p = j->p;
    struct purge_result r;
    struct batch *b;
    int64_t from = random_below(j->w, KEYS - 20);
    page_commit(p);
    p->purges = true;
    epoch_enter();
    struct schema *schema = schema_acquire(collection_snapshot(j->c)->schema);
    epoch_leave();
    enum err e = batch_new(schema, &b, &f->ctx);
    schema_release(schema);
    RETURN_NOT_OK(e);
    pause_faults(j->w, true);
    for (int64_t key = from; key < from + 20; key++) {
        put_key(f, b, key);
        page_set(p, key, ABSENT, ABSENT);
        p->purged[key] = (uint16_t)p->version;
    }
    pause_faults(j->w, false);
    e = collection_purge(j->c, b, &r, &f->ctx);
    batch_free(b);
    if (e == ERR_OK)
        expect_version(j, r.version);
    else if (newest_version(j->c) == p->version)
        e = half_purge(p, from);
    return e;
}
