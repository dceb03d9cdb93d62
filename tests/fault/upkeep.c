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
