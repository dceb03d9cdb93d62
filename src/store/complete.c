/* Completing: rows that leave cells absent, built anew from the row that must give them.
 *
 *   cell of a row:  its own, if the body gave it; else that of the row before it, which may be a
 * row of the load that left it out as well; and so on down to a row of the version
 *
 * Few rows are put into the record (inline.c). Many are written into files of their own before the
 * commit lock is taken, with a note of what they were completed from; the rows that they stand for
 * are lost from birth. They keep their ordinals.
 *
 * Threads: as the resolver's. Failure: the file begun is unlinked; the input stays as it was. */
#include "store/resolve.h"

#include "base/epoch.h"
#include "store/segment_writer.h"

/* ---- one row ---- */

static bool gives(const struct incoming *s, uint32_t row, uint32_t feature, uint32_t vector_bit)
{
    const uint8_t *present;
    uint32_t known = s->segment->schema->nfeatures;
    bool vector = feature == vector_bit;
    if (!vector && feature >= known)
        return false;
    uint32_t bit = vector ? known : feature;
    return !incoming_partial(s, row, &present) || present[bit >> 3] >> (bit & 7) & 1;
}

/* The rows before this one, nearest last, in rv->timeline; *n of them. */
static bool read_before(struct resolve *rv, size_t at, uint32_t row, const struct row *key,
                        size_t *n)
{
    struct timeline *t = &rv->timeline;
    struct row_ref ref;
    if (rv->base->schema->event_time < 0) {
        t->n = *n = 0;
        if (!find_key(rv->base, key, &ref))
            return true;
        struct event e = {.source = ref.view, .row = ref.row};
        segment_seq(rv->base->views[ref.view].segment, ref.row, &e.version, &e.ordinal);
        return (*n = timeline_put(t, &e)) != 0;
    }
    if (!timeline_read(t, rv->base, rv->in, key, false))
        return false;
    for (*n = 0; *n < t->n; ++*n) {
        const struct event *e = &t->list[*n];
        if (e->load && e->source == at && e->row == row)
            break;
    }
    return true;
}

/* The row that gives a cell; NULL: none does, the cell is null. */
static const struct segment *giver(const struct resolve *rv, size_t n, uint32_t feature,
                                   uint32_t vector_bit, uint32_t *row)
{
    for (size_t i = n; i-- > 0;) {
        const struct event *e = &rv->timeline.list[i];
        *row = e->row;
        if (!e->load)
            return rv->base->views[e->source].segment;
        if (gives(&rv->in->seg[e->source], e->row, feature, vector_bit))
            return rv->in->seg[e->source].segment;
    }
    return NULL;
}

static void note_source(const struct resolve *rv, size_t n, struct partial *source)
{
    *source = (struct partial){0};
    if (n == 0)
        return;
    const struct event *e = &rv->timeline.list[n - 1];
    source->version = e->load ? UINT64_MAX : e->version;
    source->ordinal = e->ordinal;
}

enum err resolve_build(struct resolve *rv, size_t at, uint32_t row, struct partial *source,
                       struct err_ctx *ctx)
{
    const struct incoming *s = &rv->in->seg[at];
    const struct schema *schema = rv->base->schema;
    uint32_t vector_bit = schema->nfeatures, from_row;
    size_t before;
    *source = (struct partial){0};
    row_from_segment(&rv->row, s->segment, row);
    if (rv->in->opts.mode != LOAD_UPSERT)
        return ERR_OK;
    struct row key = {.schema = s->segment->schema};
    segment_row_key(s->segment, row, &key);
    if (!read_before(rv, at, row, &key, &before))
        return err_no_memory(ctx, sizeof(struct event));
    note_source(rv, before, source);
    for (uint32_t f = 0; f < schema->nfeatures; f++) {
        if (gives(s, row, f, vector_bit))
            continue;
        const struct segment *from = giver(rv, before, f, vector_bit, &from_row);
        row_builder_copy_cell(&rv->row, f, from, from_row);
    }
    if (schema->dim && !gives(s, row, vector_bit, vector_bit)) {
        const struct segment *from = giver(rv, before, vector_bit, vector_bit, &from_row);
        row_builder_set_vector(&rv->row, from, from_row);
    }
    return ERR_OK;
}

/* ---- many rows ---- */

static int compare_places(const void *a, const void *b)
{
    const struct row_place *x = a, *y = b;
    return (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
}

static enum err list_rows(const struct load_input *in, size_t at, const roaring_bitmap_t *bits,
                          struct row_places *out, struct err_ctx *ctx)
{
    roaring_uint32_iterator_t *it = roaring_create_iterator(bits);
    if (!it)
        return err_no_memory(ctx, sizeof *it);
    for (; it->has_value; roaring_advance_uint32_iterator(it)) {
        uint32_t row = it->current_value;
        struct row_place p = {incoming_ordinal(&in->seg[at], row), (uint32_t)at, row};
        buf_put(&out->list, &p, sizeof p);
    }
    roaring_free_uint32_iterator(it);
    return out->list.failed ? err_no_memory(ctx, out->list.len) : ERR_OK;
}

static enum err list_scratch(const struct load_input *in, size_t at, struct row_places *out,
                             struct err_ctx *ctx)
{
    for (uint32_t row = 0; row < in->seg[at].rows; row++) {
        struct row_place p = {incoming_ordinal(&in->seg[at], row), (uint32_t)at, row};
        if (!incoming_lost(&in->seg[at], row))
            buf_put(&out->list, &p, sizeof p);
    }
    return out->list.failed ? err_no_memory(ctx, out->list.len) : ERR_OK;
}

enum err resolve_list(const struct resolve *rv, bool scratch, struct row_places *out,
                      struct err_ctx *ctx)
{
    const struct load_input *in = rv->in;
    for (size_t i = 0; i < in->n; i++) {
        if (in->seg[i].scratch && scratch)
            RETURN_NOT_OK(list_scratch(in, i, out, ctx));
        else if (!in->seg[i].scratch && in->seg[i].need)
            RETURN_NOT_OK(list_rows(in, i, in->seg[i].need, out, ctx));
    }
    size_t n = out->list.len / sizeof(struct row_place);
    if (n)
        qsort(out->list.data, n, sizeof(struct row_place), compare_places);
    return ERR_OK;
}

enum err resolve_drop(struct resolve *rv, const struct row_places *places, struct err_ctx *ctx)
{
    size_t n = places->list.len / sizeof(struct row_place);
    const struct row_place *p = (const struct row_place *)places->list.data;
    for (size_t i = 0; i < n; i++) {
        struct incoming *s = &rv->in->seg[p[i].seg];
        if (s->scratch)
            continue;
        if (!bits_of(&s->lost, &rv->failed))
            return err_no_memory(ctx, 64);
        row_from_segment(&rv->row, s->segment, p[i].row);
        digest_sub(&s->digest, row_digest(&rv->row.row));
        s->vectors -= rv->row.row.vector && !bit_of(s->past, p[i].row);
        if (bit_of(s->stale, p[i].row)) {
            rv->stale_vectors -= rv->row.row.vector != NULL;
            roaring_bitmap_remove(s->stale, p[i].row);
        }
        roaring_bitmap_add(s->lost, p[i].row);
        s->superseded = count_of(s->lost) == s->rows;
    }
    return ERR_OK;
}

/* ---- a file of them ---- */

struct completion {
    struct resolve *rv;
    struct incoming *out;
    uint64_t id;
    struct segment_writer *writer;
    struct buf runs; /* struct seq_run */
    uint64_t next_ordinal;
};

static enum err begin(struct completion *k, struct err_ctx *ctx)
{
    struct collection *c = k->rv->c;
    char path[PATH_CAP];
    RETURN_NOT_OK(load_input_add(k->rv->in, &k->out, ctx));
    k->out->superseded = true; /* until it is whole */
    k->id = atomic_fetch_add(&c->next_segment_id, 1);
    k->runs.len = 0;
    segment_file_path(c, "staging", k->id, path, sizeof path);
    if (!(k->out->path = strdup(path)))
        return err_no_memory(ctx, strlen(path));
    RETURN_NOT_OK(collection_enter_dir(c, ctx));
    enum err e =
        segment_writer_new(c->io, path, c->id, k->id, k->rv->base->schema, 0, &k->writer, ctx);
    collection_leave_dir(c);
    return e;
}

static void copy_present(const struct incoming *from, uint32_t row, const struct schema *wide,
                         uint8_t *out)
{
    memset(out, 0, present_bytes(wide));
    for (uint32_t f = 0; f <= wide->nfeatures; f++) {
        if (gives(from, row, f, wide->nfeatures))
            out[f >> 3] |= (uint8_t)(1u << (f & 7));
    }
}

static enum err put(struct completion *k, const struct row_place *p, struct err_ctx *ctx)
{
    struct resolve *rv = k->rv;
    struct incoming *from = &rv->in->seg[p->seg], *out = k->out;
    struct partial source;
    struct hash128 hash;
    uint32_t row = segment_writer_rows(k->writer);
    epoch_enter();
    enum err e = resolve_build(rv, p->seg, p->row, &source, ctx);
    if (e == ERR_OK) {
        row_hash_vector(&rv->row.row, &hash);
        digest_add(&out->digest, row_digest(&rv->row.row));
        e = segment_writer_append(k->writer, &rv->row.row, ctx);
    }
    epoch_leave();
    RETURN_NOT_OK(e);
    if (!k->runs.len || p->ordinal != k->next_ordinal) {
        struct seq_run run = {.first_row = row, .ordinal = p->ordinal};
        buf_put(&k->runs, &run, sizeof run);
    }
    k->next_ordinal = p->ordinal + 1;
    source.row = row;
    buf_put(&out->own_partials, &source, sizeof source);
    uint8_t *present = buf_extend(&out->own_present, present_bytes(rv->base->schema));
    if (!present || k->runs.failed || out->own_partials.failed)
        return err_no_memory(ctx, out->own_partials.len);
    copy_present(from, p->row, rv->base->schema, present);
    out->vectors += rv->row.row.vector && !bit_of(from->past, p->row);
    if (!bit_of(from->past, p->row))
        return ERR_OK;
    roaring_bitmap_t *past = bits_of(&out->past, &rv->failed);
    if (past)
        roaring_bitmap_add(past, row);
    return past ? ERR_OK : err_no_memory(ctx, 64);
}

static enum err finish(struct completion *k, struct err_ctx *ctx)
{
    struct incoming *out = k->out;
    const struct seq_run *runs = (const struct seq_run *)k->runs.data;
    out->rows = segment_writer_rows(k->writer);
    RETURN_NOT_OK(
        segment_writer_finish(k->writer, runs, (uint32_t)(k->runs.len / sizeof *runs), ctx));
    segment_writer_free(k->writer);
    k->writer = NULL;
    RETURN_NOT_OK(segment_open(out->path, k->rv->c->id, &out->segment, ctx));
    segment_set_scrubbed(out->segment);
    out->superseded = false;
    out->partials = (const struct partial *)out->own_partials.data;
    out->npartials = out->own_partials.len / sizeof *out->partials;
    out->present = out->own_present.data;
    return ERR_OK;
}

static enum err write_all(struct completion *k, const struct row_places *places,
                          struct err_ctx *ctx)
{
    size_t n = places->list.len / sizeof(struct row_place);
    const struct row_place *p = (const struct row_place *)places->list.data;
    for (size_t i = 0; i < n; i++) {
        if (k->writer && (segment_writer_side_bytes(k->writer) + k->out->own_partials.len +
                                  k->out->own_present.len >=
                              SEGMENT_SIDE_BYTES_MAX ||
                          segment_writer_rows(k->writer) == SEGMENT_ROWS_MAX))
            RETURN_NOT_OK(finish(k, ctx));
        if (!k->writer)
            RETURN_NOT_OK(begin(k, ctx));
        RETURN_NOT_OK(put(k, &p[i], ctx));
    }
    return k->writer ? finish(k, ctx) : ERR_OK;
}

/* Files of a completion that failed. */
static void give_up(struct resolve *rv, size_t from)
{
    struct load_input *in = rv->in;
    for (size_t i = from; i < in->n; i++)
        in->seg[i].superseded = true;
}

enum err resolve_complete(struct resolve *rv, struct err_ctx *ctx)
{
    struct row_places places = {0};
    struct completion k = {.rv = rv};
    size_t before = rv->in->n;
    enum err e = resolve_list(rv, false, &places, ctx);
    if (e == ERR_OK)
        e = write_all(&k, &places, ctx);
    if (e == ERR_OK)
        e = resolve_drop(rv, &places, ctx);
    segment_writer_free(k.writer);
    buf_deinit(&k.runs);
    buf_deinit(&places.list);
    if (e != ERR_OK)
        give_up(rv, before);
    return e;
}
