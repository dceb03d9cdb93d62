/* The first difference of two schemas, as a sentence.
 *
 * What only another collection can have comes first, then what PATCH changes: whoever follows the
 * advice is not led to a difference that was there all along and cannot be mended.
 *
 * Threads: reads two immutable schemas. Failure: the buffer's. */
#include "api/schema_diff.h"

#include <stdio.h>
#include <string.h>

static const char drop[] = "PATCH can't change that: drop it first or choose another name";
static const char patch[] = "PATCH changes that (what a body leaves out has its default)";

static bool words_differ(struct buf *out, const char *what, const char *there, const char *asked,
                         const char *advice)
{
    if (strcmp(there, asked) == 0)
        return false;
    buf_printf(out, "%s is '%s' there and '%s' in the body; %s", what, there, asked, advice);
    return true;
}

static bool numbers_differ(struct buf *out, const char *what, uint32_t there, uint32_t asked,
                           const char *advice)
{
    if (there == asked)
        return false;
    buf_printf(out, "%s is %u there and %u in the body; %s", what, there, asked, advice);
    return true;
}

static bool says(struct buf *out, bool differs, const char *sentence)
{
    if (differs)
        buf_printf(out, "%s; %s", sentence, drop);
    return differs;
}

static bool vectors_differ(const struct schema *a, const struct schema *b, struct buf *out)
{
    if (says(out, a->dim && !b->dim, "it has vectors and the body names none") ||
        says(out, !a->dim && b->dim, "it has no vectors and the body names some"))
        return true;
    return numbers_differ(out, "vector.dim", a->dim, b->dim, drop) ||
           (a->dim && words_differ(out, "vector.metric", metric_name(a->metric),
                                   metric_name(b->metric), drop));
}

static bool has(const struct schema *s, const struct feature *f)
{
    return schema_find(s, f->name, strlen(f->name)) >= 0;
}

/* One place in the list: the same feature, or one that the other does not have, or out of order. */
static bool feature_differs(const struct schema *a, const struct schema *b, uint32_t i,
                            struct buf *out)
{
    const struct feature *there = &a->features[i], *asked = &b->features[i];
    char what[NAME_MAX_BYTES + 32];
    snprintf(what, sizeof what, "the feature '%s'", there->name);
    if (strcmp(there->name, asked->name) == 0)
        return words_differ(out, what, feature_type_name(there->type),
                            feature_type_name(asked->type), drop);
    if (!has(b, there) || !has(a, asked))
        return false;
    buf_printf(out, "%s comes where the body has '%s': send the features in the order of GET", what,
               asked->name);
    return true;
}

static bool features_lack(const struct schema *a, const struct schema *b, struct buf *out)
{
    for (uint32_t i = 0; i < a->nfeatures; i++) {
        if (!has(b, &a->features[i])) {
            buf_printf(out,
                       "the feature '%s' is not in the body; send the body with it, or drop the "
                       "collection first to be rid of it",
                       a->features[i].name);
            return true;
        }
    }
    for (uint32_t i = 0; i < b->nfeatures; i++) {
        if (!has(a, &b->features[i])) {
            buf_printf(out, "the feature '%s' of the body is not there; PATCH adds it",
                       b->features[i].name);
            return true;
        }
    }
    return false;
}

static bool features_differ(const struct schema *a, const struct schema *b, struct buf *out)
{
    uint32_t both = a->nfeatures < b->nfeatures ? a->nfeatures : b->nfeatures;
    for (uint32_t i = 0; i < both; i++) {
        if (feature_differs(a, b, i, out))
            return true;
    }
    return features_lack(a, b, out);
}

static const char *time_name(const struct schema *s, int32_t feature)
{
    return feature < 0 ? "" : s->features[feature].name;
}

static bool order_differs(const struct schema *a, const struct schema *b, struct buf *out)
{
    bool same = a->npartition == b->npartition;
    for (uint32_t i = 0; same && i < a->npartition; i++)
        same = strcmp(a->partition_by[i], b->partition_by[i]) == 0;
    return says(out, !same, "partition_by differs from the body's") ||
           words_differ(out, "event_time", time_name(a, a->event_time), time_name(b, b->event_time),
                        drop) ||
           words_differ(out, "created_time", time_name(a, a->created_time),
                        time_name(b, b->created_time), drop);
}

static bool settings_differ(const struct schema *a, const struct schema *b, struct buf *out)
{
    const struct index_settings *x = &a->index, *y = &b->index;
    return words_differ(out, "index.kind", index_kind_name(x->kind), index_kind_name(y->kind),
                        patch) ||
           numbers_differ(out, "index.m", x->m, y->m, patch) ||
           numbers_differ(out, "index.ef_construction", x->ef_construction, y->ef_construction,
                          patch) ||
           numbers_differ(out, "index.nlist", x->nlist, y->nlist, patch) ||
           words_differ(out, "index.builder", index_builder_name(x->builder),
                        index_builder_name(y->builder), patch) ||
           numbers_differ(out, "retention.versions", a->retention.versions, b->retention.versions,
                          patch) ||
           numbers_differ(out, "retention.hours", a->retention.hours, b->retention.hours, patch);
}

bool schema_put_difference(const struct schema *there, const struct schema *asked, struct buf *out)
{
    return words_differ(out, "key", there->key == KEY_INT64 ? "int64" : "string",
                        asked->key == KEY_INT64 ? "int64" : "string", drop) ||
           vectors_differ(there, asked, out) || features_differ(there, asked, out) ||
           order_differs(there, asked, out) || settings_differ(there, asked, out);
}
