/* Steps on versions: tags, restores, compaction, vacuum, purge; workload.h explains. */
#include "workload.h"

enum err step_tag(struct job *j)
{
    char tag[8];
    bool created;
    int64_t i = random_below(j->w, TAGGED);
    uint64_t v = random_version(j->w, j->p);
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
    if (!j->p->tags[i])
        return ERR_OK;
    snprintf(tag, sizeof tag, "t%d", (int)i);
    j->p->tags[i] = 0;
    return collection_tag_delete(j->c, tag, &j->f->ctx);
}
