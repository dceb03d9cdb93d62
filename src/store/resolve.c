/* Resolving: the effect of a load on a version, key by key.
 *
 *   mode        row of before         row of the load
 *   append      stays                 refused when the key is there (event_time: see event_key)
 *   upsert      dies                  completed from it
 *   partition   dies with its         refused when the key is alive in another partition
 *               partition
 *   refresh     all die at once       -
 *   delete      dies                  -
 *
 * What a key does depends on the key's rows in the version and in the load only, so it can be taken
 * back and found anew when another commit touched the key (rebase.c).
 *
 * Threads: one; the base is immutable but for its growing tail, whose tables are read inside epoch
 * sections. Failure: nothing but the resolver and the bit sets of its input was touched. */
#include "store/resolve.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/epoch.h"

enum { GROUP_ROWS = 256 };

bool find_key(const struct snapshot *s, const struct row *key, struct row_ref *out)
{
    return s->schema->key == KEY_INT64 ? snapshot_find_int(s, key->int_key, out)
                                       : snapshot_find_str(s, key->key, key->key_len, out);
}

static bool has_events(const struct resolve *rv)
{
    return rv->base->schema->event_time >= 0;
}

bool resolve_keeps_base(const struct resolve *rv)
{
    return rv->in->opts.mode == LOAD_UPSERT || rv->in->opts.mode == LOAD_APPEND;
}

enum err resolve_init(struct resolve *rv, struct collection *c, struct load_input *in,
                      struct err_ctx *ctx)
{
    memset(rv, 0, sizeof *rv);
    rv->c = c;
    rv->in = in;
    return in->delete_keys ? key_set_init(&rv->deletes, in->delete_keys, ctx) : ERR_OK;
}

static void free_bits(roaring_bitmap_t **bits)
{
    if (*bits)
        roaring_bitmap_free(*bits);
    *bits = NULL;
}

static void drop_base(struct resolve *rv)
{
    for (uint32_t i = 0; rv->kills && i < rv->base->nviews; i++) {
        free_bits(&rv->kills[i].dead);
        free_bits(&rv->kills[i].gone);
    }
    free(rv->kills);
    rv->kills = NULL;
    row_builder_deinit(&rv->row);
    snapshot_release(rv->base);
    rv->base = NULL;
}

void resolve_deinit(struct resolve *rv)
{
    drop_base(rv);
    partition_set_free(rv->partitions);
    key_set_deinit(&rv->deletes);
    timeline_deinit(&rv->timeline);
    buf_deinit(&rv->inline_rows);
    free_bits(&rv->inline_dead);
    commit_record_deinit(&rv->rec);
}

/* ---- rows of before ---- */

static void mark(struct resolve *rv, roaring_bitmap_t **bits, uint32_t row, int sign)
{
    roaring_bitmap_t *b = bits_of(bits, &rv->failed);
    if (b && sign > 0)
        roaring_bitmap_add(b, row);
    else if (b)
        roaring_bitmap_remove(b, row);
}

void resolve_kill(struct resolve *rv, uint32_t view, uint32_t row, int sign, bool current,
                  bool removed)
{
    const struct segment *s = rv->base->views[view].segment;
    if (current) {
        mark(rv, &rv->kills[view].dead, row, sign);
        rv->killed += (uint64_t)sign;
        rv->killed_vectors += segment_vector(s, row) ? (uint64_t)sign : 0;
    }
    if (!removed)
        return;
    if (has_events(rv))
        mark(rv, &rv->kills[view].gone, row, sign);
    row_from_segment(&rv->row, s, row);
    struct digest d = row_digest(&rv->row.row);
    if (sign > 0)
        digest_add(&rv->removed, d);
    else
        digest_sub(&rv->removed, d);
}

void resolve_remove_key(struct resolve *rv, const struct row *key, struct row_ref ref, int sign)
{
    if (!has_events(rv)) {
        resolve_kill(rv, ref.view, ref.row, sign, true, true);
        return;
    }
    struct timeline *t = &rv->timeline;
    rv->failed |= !timeline_read(t, rv->base, NULL, key, false);
    for (size_t i = 0; i < t->n; i++)
        resolve_kill(rv, t->list[i].source, t->list[i].row, sign, t->list[i].current, true);
}

/* ---- completing: is it due? ---- */

/* True when a row has cells of features that came after the first `known`. */
static bool has_later_cells(const struct resolve *rv, const struct segment *s, uint32_t row,
                            uint32_t known)
{
    size_t len;
    for (uint32_t f = known; f < rv->base->schema->nfeatures; f++) {
        if (segment_cell(s, row, f, &len))
            return true;
    }
    return false;
}

/* A row was written with cells of the row that its note names; `before` is the one that they must
 * come from, NULL for none, and `before_needs` says that this one is to be written anew itself. */
static bool needs_completion(const struct resolve *rv, const struct incoming *seg, uint32_t row,
                             const struct event *before, bool before_needs)
{
    const uint8_t *present;
    const struct partial *p = incoming_partial(seg, row, &present);
    uint32_t known = seg->segment->schema->nfeatures;
    if (p) {
        uint64_t version = !before ? 0 : before->load ? UINT64_MAX : before->version;
        uint64_t ordinal = before ? before->ordinal : 0;
        if (p->version != version || p->ordinal != ordinal)
            return true;
    }
    if (!before || (!p && known == rv->base->schema->nfeatures))
        return false;
    const struct segment *from = before->load ? rv->in->seg[before->source].segment
                                              : rv->base->views[before->source].segment;
    return before_needs || has_later_cells(rv, from, before->row, known);
}

static void mark_need(struct resolve *rv, struct incoming *seg, uint32_t row, int sign)
{
    mark(rv, &seg->need, row, sign);
}

/* ---- rows of the load ---- */

static enum err key_exists(struct resolve *rv, const struct row *key, uint64_t ordinal,
                           struct err_ctx *ctx)
{
    struct load_place p = load_locate(rv->in, ordinal);
    char text[224], place[256];
    key_text(key, text, sizeof text);
    load_place_text(&p, place, sizeof place);
    return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)p.row, "key",
                      "key %s%s%s exists already; append takes new keys only (use mode=upsert to "
                      "replace rows)",
                      text, p.part ? " of " : "", p.part ? place : "");
}

static void count_key(struct resolve *rv, bool found, int sign)
{
    *(found ? &rv->updated : &rv->inserted) += (uint64_t)sign;
}

static enum err plain_key(struct resolve *rv, struct incoming *seg, uint32_t row, bool found,
                          struct row_ref ref, int sign)
{
    struct event before;
    if (rv->in->opts.mode == LOAD_UPSERT && (found || seg->npartials)) {
        if (found) {
            before = (struct event){.source = ref.view, .row = ref.row};
            const struct segment *s = rv->base->views[ref.view].segment;
            if (seg->npartials)
                segment_seq(s, ref.row, &before.version, &before.ordinal);
        }
        if (sign < 0 ? bit_of(seg->need, row)
                     : needs_completion(rv, seg, row, found ? &before : NULL, false))
            mark_need(rv, seg, row, sign);
    }
    if (found)
        resolve_kill(rv, ref.view, ref.row, sign, true, true);
    count_key(rv, found, sign);
    return ERR_OK;
}

/* One event of the version: it becomes history when the load has the last one, and is replaced by
 * an event of the load at the same times. */
static void base_event(struct resolve *rv, const struct timeline *t, size_t i, int sign)
{
    const struct event *e = &t->list[i];
    bool replaced = i + 1 < t->n && t->list[i + 1].load && events_tie(e, &t->list[i + 1]);
    bool passed = e->current && t->list[t->n - 1].load;
    if (replaced || passed)
        resolve_kill(rv, e->source, e->row, sign, e->current, replaced);
}

/* All events of a key, those of the version and of the load. */
static enum err event_key(struct resolve *rv, size_t at, uint32_t row, const struct row *key,
                          bool found, int sign, struct err_ctx *ctx)
{
    struct timeline *t = &rv->timeline;
    struct incoming *newest = &rv->in->seg[at];
    bool needs = false;
    if (!timeline_read(t, rv->base, rv->in, key, false))
        return err_no_memory(ctx, sizeof *t->list);
    for (size_t i = 0; i < t->n; i++) {
        const struct event *e = &t->list[i];
        if (!e->load) {
            needs = false;
            base_event(rv, t, i, sign);
            continue;
        }
        struct incoming *seg = &rv->in->seg[e->source];
        needs = rv->in->opts.mode == LOAD_UPSERT &&
                needs_completion(rv, seg, e->row, i ? &t->list[i - 1] : NULL, needs);
        if (needs)
            mark_need(rv, seg, e->row, sign);
    }
    if (t->list[t->n - 1].load) {
        count_key(rv, found, sign);
        return ERR_OK;
    }
    mark(rv, &newest->stale, row, sign);
    rv->stale += (uint64_t)sign;
    if (!newest->scratch) /* whose vectors count only as they go into the record */
        rv->stale_vectors += segment_vector(newest->segment, row) ? (uint64_t)sign : 0;
    return ERR_OK;
}

static enum err elsewhere(struct resolve *rv, size_t at, uint32_t row, const struct row *key,
                          struct row_ref ref, struct err_ctx *ctx)
{
    char there[256], here[256], text[224], place[256];
    const struct incoming *seg = &rv->in->seg[at];
    struct load_place p = load_locate(rv->in, incoming_ordinal(seg, row));
    key_text(key, text, sizeof text);
    load_place_text(&p, place, sizeof place);
    partition_text_segment(rv->partitions, rv->base->views[ref.view].segment, ref.row, there,
                           sizeof there);
    partition_text_segment(rv->partitions, seg->segment, row, here, sizeof here);
    return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)p.row, "key",
                      "%s puts key %s into partition %s, but it is alive in partition %s, which "
                      "this load does not replace",
                      place, text, here, there);
}

enum err resolve_load_row(struct resolve *rv, size_t at, uint32_t row, const struct row *key,
                          bool found, struct row_ref ref, int sign, struct err_ctx *ctx)
{
    enum load_mode mode = rv->in->opts.mode;
    struct incoming *seg = &rv->in->seg[at];
    if (mode == LOAD_PARTITION && found && sign > 0 && !resolve_sweeps(rv, ref))
        return elsewhere(rv, at, row, key, ref, ctx);
    if (!resolve_keeps_base(rv)) {
        count_key(rv, found, sign);
        return ERR_OK;
    }
    if (has_events(rv))
        return event_key(rv, at, row, key, found, sign, ctx);
    if (mode == LOAD_APPEND && found && sign > 0)
        return key_exists(rv, key, incoming_ordinal(seg, row), ctx);
    return plain_key(rv, seg, row, found, ref, sign);
}

/* ---- all rows of a segment ---- */

/* False when no view can hold a key of the segment: a run of new keys needs no look at each. */
static bool may_overlap(const struct snapshot *s, const struct segment *seg)
{
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct segment *other = s->views[i].segment;
        if (s->views[i].live == 0)
            continue;
        if (s->schema->key == KEY_STRING || other->tail || seg->tail ||
            (other->key_min <= seg->key_max && seg->key_min <= other->key_max))
            return true;
    }
    return false;
}

struct group {
    size_t n;
    uint32_t rows[GROUP_ROWS];
    int64_t ints[GROUP_ROWS];
    struct key_probe probes[GROUP_ROWS];
};

static enum err resolve_group(struct resolve *rv, size_t at, struct group *g, struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    epoch_enter();
    snapshot_find_many(rv->base, g->probes, g->n);
    for (size_t i = 0; i < g->n && e == ERR_OK; i++) {
        struct row key = {.schema = rv->in->seg[at].segment->schema};
        segment_row_key(rv->in->seg[at].segment, g->rows[i], &key);
        e = resolve_load_row(rv, at, g->rows[i], &key, g->probes[i].found, g->probes[i].ref, 1,
                             ctx);
    }
    epoch_leave();
    g->n = 0;
    return e;
}

static void put_probe(struct group *g, const struct segment *s, uint32_t row)
{
    g->rows[g->n] = row;
    key_probe_row(&g->probes[g->n], s, row, &g->ints[g->n]);
    g->n++;
}

static enum err resolve_segment(struct resolve *rv, size_t at, struct group *g, struct err_ctx *ctx)
{
    struct incoming *s = &rv->in->seg[at];
    if (s->superseded)
        return ERR_OK;
    if (!s->npartials && !s->past && !may_overlap(rv->base, s->segment)) {
        rv->inserted += s->rows - count_of(s->lost);
        return ERR_OK;
    }
    for (uint32_t row = 0; row < s->rows; row++) {
        if (bit_of(s->lost, row) || bit_of(s->past, row))
            continue;
        put_probe(g, s->segment, row);
        if (g->n == GROUP_ROWS)
            RETURN_NOT_OK(resolve_group(rv, at, g, ctx));
    }
    return g->n ? resolve_group(rv, at, g, ctx) : ERR_OK;
}

static enum err resolve_deletes(struct resolve *rv, struct err_ctx *ctx)
{
    const struct batch *b = rv->in->delete_keys;
    for (size_t i = 0; b && i < b->rows; i++) {
        struct row key = {.schema = b->schema};
        struct row_ref ref;
        batch_row_key(b, i, &key);
        epoch_enter();
        if (find_key(rv->base, &key, &ref) && !bit_of(rv->kills[ref.view].dead, ref.row)) {
            resolve_remove_key(rv, &key, ref, 1);
            rv->swept++;
        }
        epoch_leave();
    }
    return rv->failed ? err_no_memory(ctx, 64) : ERR_OK;
}

static void forget(struct resolve *rv)
{
    rv->inserted = rv->updated = rv->stale = rv->swept = 0;
    rv->killed = rv->killed_vectors = rv->stale_vectors = 0;
    rv->removed = (struct digest){0};
    for (size_t i = 0; i < rv->in->n; i++) {
        free_bits(&rv->in->seg[i].stale);
        free_bits(&rv->in->seg[i].need);
    }
}

static enum err adopt(struct resolve *rv, struct snapshot *base, struct err_ctx *ctx)
{
    snapshot_acquire(base);
    drop_base(rv);
    forget(rv);
    rv->base = base;
    rv->kills = calloc(base->nviews + 1, sizeof *rv->kills);
    if (!rv->kills)
        return err_no_memory(ctx, base->nviews * sizeof *rv->kills);
    return row_builder_init(&rv->row, base->schema, ctx);
}

enum err resolve_prepare(struct resolve *rv, struct snapshot *base, struct err_ctx *ctx)
{
    RETURN_NOT_OK(adopt(rv, base, ctx));
    RETURN_NOT_OK(resolve_partitions(rv, ctx));
    RETURN_NOT_OK(resolve_sweep_all(rv, ctx));
    RETURN_NOT_OK(resolve_deletes(rv, ctx));
    struct group *g = malloc(sizeof *g);
    if (!g)
        return err_no_memory(ctx, sizeof *g);
    g->n = 0;
    enum err e = ERR_OK;
    for (size_t i = 0; i < rv->in->n && e == ERR_OK; i++)
        e = resolve_segment(rv, i, g, ctx);
    free(g);
    if (e == ERR_OK && rv->failed)
        e = err_no_memory(ctx, 64);
    return e;
}

enum err resolve_key(struct resolve *rv, const struct row *key, int sign, struct err_ctx *ctx)
{
    struct row_ref ref = {0, 0};
    size_t seg;
    uint32_t row;
    enum err e = ERR_OK;
    epoch_enter();
    bool found = find_key(rv->base, key, &ref);
    if (found &&
        (resolve_sweeps(rv, ref) || (rv->deletes.slots && key_set_has(&rv->deletes, key)))) {
        resolve_remove_key(rv, key, ref, sign);
        rv->swept += (uint64_t)sign;
    }
    if (load_find(rv->in, key, &seg, &row))
        e = resolve_load_row(rv, seg, row, key, found, ref, sign, ctx);
    epoch_leave();
    return e == ERR_OK && rv->failed ? err_no_memory(ctx, 64) : e;
}

uint64_t resolve_needs(const struct resolve *rv)
{
    uint64_t n = 0;
    for (size_t i = 0; i < rv->in->n; i++)
        n += rv->in->seg[i].scratch ? 0 : count_of(rv->in->seg[i].need);
    return n;
}
