/* Sweeping: rows of before that a commit takes out by what they hold, not by their key: those of
 * the partitions it replaces, or those that its filter matches.
 *
 * Threads: as the resolver's. Failure: ERR_UNPROCESSABLE names the row outside the partitions. */
#include "store/resolve.h"

#include <inttypes.h>

#include "base/epoch.h"
#include "store/filter.h"

/* ---- which partitions ---- */

static enum err add_named(struct resolve *rv, struct err_ctx *ctx)
{
    const struct batch *b = rv->in->opts.partitions;
    for (size_t i = 0; i < b->rows; i++)
        RETURN_NOT_OK(partition_add_batch(rv->partitions, b, i, ctx));
    return ERR_OK;
}

static bool held_counts(const struct load_input *in, size_t i)
{
    return !in->skip || !(in->skip[i / 32] >> (i % 32) & 1);
}

static enum err outside(struct resolve *rv, uint64_t ordinal, const char *partition,
                        struct err_ctx *ctx)
{
    struct load_place p = load_locate(rv->in, ordinal);
    char place[256];
    load_place_text(&p, place, sizeof place);
    return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)p.row, rv->base->schema->partition_by[0],
                      "%s lies in partition %s, which is not among those that the load names in "
                      "\"partitions\"",
                      place, partition);
}

/* Adds the partition of a row, or, where they are named, checks that it is among them. */
static enum err take_held(struct resolve *rv, bool named, size_t i, struct err_ctx *ctx)
{
    char text[256];
    bool partial;
    row_from_batch(&rv->row, rv->in->held, i, NULL, 0, &partial);
    if (!named)
        return partition_add_row(rv->partitions, &rv->row.row, ctx);
    if (partition_has_row(rv->partitions, &rv->row.row))
        return ERR_OK;
    partition_text_row(rv->partitions, &rv->row.row, text, sizeof text);
    return outside(rv, i, text, ctx);
}

static enum err take_staged(struct resolve *rv, bool named, const struct incoming *s, uint32_t row,
                            struct err_ctx *ctx)
{
    char text[256];
    if (!named)
        return partition_add_segment(rv->partitions, s->segment, row, ctx);
    if (partition_has_segment(rv->partitions, s->segment, row))
        return ERR_OK;
    partition_text_segment(rv->partitions, s->segment, row, text, sizeof text);
    return outside(rv, incoming_ordinal(s, row), text, ctx);
}

static enum err take_all(struct resolve *rv, bool named, struct err_ctx *ctx)
{
    const struct load_input *in = rv->in;
    for (size_t i = 0; in->held && i < in->held->rows; i++) {
        if (held_counts(in, i))
            RETURN_NOT_OK(take_held(rv, named, i, ctx));
    }
    for (size_t i = 0; i < in->n; i++) {
        for (uint32_t row = 0; !in->seg[i].superseded && row < in->seg[i].rows; row++) {
            if (!incoming_lost(&in->seg[i], row))
                RETURN_NOT_OK(take_staged(rv, named, &in->seg[i], row, ctx));
        }
    }
    return ERR_OK;
}

enum err resolve_partitions(struct resolve *rv, struct err_ctx *ctx)
{
    bool named = rv->in->opts.partitions != NULL;
    if (rv->in->opts.mode != LOAD_PARTITION || rv->partitions)
        return ERR_OK;
    RETURN_NOT_OK(partition_set_new(rv->base->schema, &rv->partitions, ctx));
    if (named)
        RETURN_NOT_OK(add_named(rv, ctx));
    return take_all(rv, named, ctx);
}

/* ---- which rows ---- */

bool resolve_sweeps(struct resolve *rv, struct row_ref ref)
{
    const struct segment *s = rv->base->views[ref.view].segment;
    if (rv->partitions)
        return partition_has_segment(rv->partitions, s, ref.row);
    return rv->in->delete_filter && filter_match(rv->in->delete_filter, s, ref.row);
}

static uint64_t live_word(const struct view *v, uint32_t w)
{
    uint64_t left = v->rows - (uint64_t)w * 64;
    uint64_t bits = left < 64 ? (1ull << left) - 1 : ~0ull;
    uint32_t page = w / MASK_PAGE_WORDS;
    if (v->dead && page < v->dead->npages && v->dead->pages[page])
        bits &= ~v->dead->pages[page]->words[w % MASK_PAGE_WORDS];
    return bits;
}

static void sweep_row(struct resolve *rv, uint32_t view, uint32_t row)
{
    struct row key = {.schema = rv->base->schema};
    segment_row_key(rv->base->views[view].segment, row, &key);
    resolve_remove_key(rv, &key, (struct row_ref){view, row}, 1);
    rv->swept++;
}

static void sweep_word(struct resolve *rv, uint32_t view, uint32_t w)
{
    const struct view *v = &rv->base->views[view];
    uint64_t bits = live_word(v, w);
    if (bits && rv->in->delete_filter)
        bits = filter_word(rv->in->delete_filter, v->segment, w, bits);
    for (; bits; bits &= bits - 1) {
        uint32_t row = w * 64 + (uint32_t)__builtin_ctzll(bits);
        if (!rv->partitions || partition_has_segment(rv->partitions, v->segment, row))
            sweep_row(rv, view, row);
    }
}

enum err resolve_sweep_all(struct resolve *rv, struct err_ctx *ctx)
{
    if (!rv->partitions && !rv->in->delete_filter)
        return ERR_OK;
    for (uint32_t view = 0; view < rv->base->nviews; view++) {
        const struct view *v = &rv->base->views[view];
        for (uint32_t w = 0; v->live && w < (v->rows + 63) / 64; w++) {
            epoch_enter();
            sweep_word(rv, view, w);
            epoch_leave();
            if (rv->failed)
                return err_no_memory(ctx, 64);
        }
    }
    return ERR_OK;
}
