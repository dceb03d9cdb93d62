/* Sorting out a load's rows among themselves.
 *
 *   table: hash of a key -> its newest row so far, over all segments in the order of ordinals;
 *          in passes over hash ranges, so that it stays small whatever the load
 *   again: rows whose key an earlier row has;   shadowed: rows whose key a later row has
 *
 * Without event_time shadowed rows are lost, or the load is refused. With it the rows of such keys
 * are put in the order of events, and only ties are a repetition. int64 keys whose segments do not
 * overlap, as counted ones, need no look at each row.
 *
 * Threads: one. Failure: memory, or a sentence that names both rows. */
#include "store/incoming.h"

#include <inttypes.h>
#include <stdio.h>

#include "store/timeline.h"

enum { PASS_ROWS = 4 << 20 };

/* ---- the input ---- */

enum err load_input_add(struct load_input *in, struct incoming **out, struct err_ctx *ctx)
{
    if (in->n == in->cap) {
        size_t cap = in->cap ? in->cap * 2 : 4;
        struct incoming *grown = realloc(in->seg, cap * sizeof *grown);
        if (!grown)
            return err_no_memory(ctx, cap * sizeof *grown);
        in->seg = grown;
        in->cap = cap;
    }
    *out = &in->seg[in->n++];
    memset(*out, 0, sizeof **out);
    return ERR_OK;
}

static void free_bits(roaring_bitmap_t *bits)
{
    if (bits)
        roaring_bitmap_free(bits);
}

void load_input_deinit(struct load_input *in)
{
    for (size_t i = 0; i < in->n; i++) {
        struct incoming *s = &in->seg[i];
        if (!s->staged)
            segment_release(s->segment);
        free(s->path);
        free(s->home);
        buf_deinit(&s->own_partials);
        buf_deinit(&s->own_present);
        free_bits(s->lost);
        free_bits(s->past);
        free_bits(s->stale);
        free_bits(s->need);
    }
    free(in->seg);
}

roaring_bitmap_t *bits_of(roaring_bitmap_t **bits, bool *failed)
{
    if (!*bits && !(*bits = roaring_bitmap_create()))
        *failed = true;
    return *bits;
}

uint64_t incoming_ordinal(const struct incoming *seg, uint32_t row)
{
    uint64_t version, ordinal;
    segment_seq(seg->segment, row, &version, &ordinal);
    return ordinal - seg->segment->base_ordinal + seg->base_ordinal;
}

struct load_place load_locate(const struct load_input *in, uint64_t ordinal)
{
    for (size_t i = 0; i < in->nparts; i++) {
        if (ordinal < in->parts[i].rows)
            return (struct load_place){in->parts[i].name, ordinal};
        ordinal -= in->parts[i].rows;
    }
    return (struct load_place){NULL, ordinal};
}

void load_place_text(const struct load_place *p, char *out, size_t cap)
{
    if (p->part)
        snprintf(out, cap, "row %" PRIu64 " of part '%.200s'", p->row, p->part);
    else
        snprintf(out, cap, "row %" PRIu64, p->row);
}

const struct partial *incoming_partial(const struct incoming *seg, uint32_t row,
                                       const uint8_t **present)
{
    size_t lo = 0, hi = seg->npartials;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (seg->partials[mid].row < row)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == seg->npartials || seg->partials[lo].row != row)
        return NULL;
    *present = seg->present + lo * present_bytes(seg->segment->schema);
    return &seg->partials[lo];
}

/* ---- messages ---- */

void key_text(const struct row *key, char *out, size_t cap)
{
    if (key->schema->key == KEY_INT64)
        snprintf(out, cap, "%" PRId64, key->int_key);
    else
        snprintf(out, cap, "'%.*s'", (int)(key->key_len < 200 ? key->key_len : 200),
                 (const char *)key->key);
}

enum err duplicate_error(enum load_mode mode, const struct row *key, const struct load_place *a,
                         const struct load_place *b, struct err_ctx *ctx)
{
    const char *same = key->schema->event_time >= 0 ? "key and the same times" : "key";
    const char *hint = mode == LOAD_APPEND ? "" : " (duplicates=last lets the last one win)";
    char text[224], first[256], second[256];
    key_text(key, text, sizeof text);
    if (!a->part && !b->part)
        return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)b->row, "key",
                          "rows %" PRIu64 " and %" PRIu64 " have the same %s %s%s", a->row, b->row,
                          same, text, hint);
    load_place_text(a, first, sizeof first);
    load_place_text(b, second, sizeof second);
    return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)b->row, "key",
                      "%s and %s have the same %s %s%s", first, second, same, text, hint);
}

static bool repeats_allowed(const struct load_options *o, const struct schema *s)
{
    if (o->mode == LOAD_APPEND) /* with event times the later of two equal events replaces */
        return s->event_time >= 0;
    return o->duplicates_last;
}

static enum err refuse_repeat(const struct load_input *in, const struct row *key, uint64_t first,
                              uint64_t second, struct err_ctx *ctx)
{
    struct load_place a = load_locate(in, first), b = load_locate(in, second);
    return duplicate_error(in->opts.mode, key, &a, &b, ctx);
}

/* ---- the table ---- */

struct sorting {
    struct load_input *in;
    struct schema *schema;
    uint64_t *slots; /* hash's upper bits << 40 | global row + 1; 0 = empty */
    size_t mask;
    uint64_t *starts; /* global row of each segment's row 0 */
    roaring_bitmap_t **again, **shadowed;
    bool failed;
};

enum { GLOBAL_BITS = 40 };
#define GLOBAL_MASK ((1ull << GLOBAL_BITS) - 1)

static size_t segment_of(const struct sorting *s, uint64_t global)
{
    size_t lo = 0, hi = s->in->n;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (s->starts[mid] <= global)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static bool has_key(const struct sorting *s, uint64_t global, const struct row *key, size_t *seg,
                    uint32_t *row)
{
    struct row other = {.schema = s->schema};
    *seg = segment_of(s, global);
    *row = (uint32_t)(global - s->starts[*seg]);
    segment_row_key(s->in->seg[*seg].segment, *row, &other);
    return row_keys_equal(key, &other);
}

/* Puts a row into the table; the row of its key that was there is shadowed. */
static enum err put_row(struct sorting *s, size_t seg, uint32_t row, const struct row *key,
                        uint64_t hash, struct err_ctx *ctx)
{
    uint64_t tag = hash & ~GLOBAL_MASK;
    size_t at = hash & s->mask, old_seg;
    uint32_t old_row;
    for (; s->slots[at]; at = (at + 1) & s->mask) {
        if ((s->slots[at] & ~GLOBAL_MASK) != tag ||
            !has_key(s, (s->slots[at] & GLOBAL_MASK) - 1, key, &old_seg, &old_row))
            continue;
        if (s->schema->event_time < 0 && !repeats_allowed(&s->in->opts, s->schema))
            return refuse_repeat(s->in, key, incoming_ordinal(&s->in->seg[old_seg], old_row),
                                 incoming_ordinal(&s->in->seg[seg], row), ctx);
        roaring_bitmap_t *shadowed = bits_of(&s->shadowed[old_seg], &s->failed);
        roaring_bitmap_t *again = bits_of(&s->again[seg], &s->failed);
        if (shadowed && again) {
            roaring_bitmap_add(shadowed, old_row);
            roaring_bitmap_add(again, row);
        }
        break;
    }
    s->slots[at] = tag | (s->starts[seg] + row + 1);
    return s->failed ? err_no_memory(ctx, 64) : ERR_OK;
}

/* The rows whose hash falls to this pass. */
static enum err run_pass(struct sorting *s, uint64_t pass, uint64_t passes, struct err_ctx *ctx)
{
    memset(s->slots, 0, (s->mask + 1) * sizeof *s->slots);
    for (size_t i = 0; i < s->in->n; i++) {
        const struct segment *g = s->in->seg[i].segment;
        for (uint32_t row = 0; row < s->in->seg[i].rows; row++) {
            struct row key = {.schema = s->schema};
            segment_row_key(g, row, &key);
            uint64_t hash = row_key_hash(&key);
            if ((hash >> 32) % passes == pass)
                RETURN_NOT_OK(put_row(s, i, row, &key, hash, ctx));
        }
    }
    return ERR_OK;
}

static enum err find_repeats(struct sorting *s, uint64_t rows, struct err_ctx *ctx)
{
    uint64_t passes = rows / PASS_ROWS + 1;
    size_t nslots = 64;
    while (nslots < rows / passes * 2)
        nslots *= 2;
    s->mask = nslots - 1;
    s->slots = malloc(nslots * sizeof *s->slots);
    if (!s->slots)
        return err_no_memory(ctx, nslots * sizeof *s->slots);
    enum err e = ERR_OK;
    for (uint64_t pass = 0; pass < passes && e == ERR_OK; pass++)
        e = run_pass(s, pass, passes, ctx);
    free(s->slots);
    return e;
}

/* ---- events ---- */

/* The rows of one key in the order of events: ties but for the last are lost, all but the last of
 * the rest are past. */
static enum err order_events(struct sorting *s, struct timeline *t, const struct row *key,
                             struct err_ctx *ctx)
{
    struct load_input *in = s->in;
    if (!timeline_read(t, NULL, in, key, true))
        return err_no_memory(ctx, sizeof *t->list);
    for (size_t i = 0; i + 1 < t->n; i++) {
        const struct event *a = &t->list[i], *b = &t->list[i + 1];
        struct incoming *seg = &in->seg[a->source];
        bool tie = events_tie(a, b);
        if (tie && !repeats_allowed(&in->opts, s->schema))
            return refuse_repeat(in, key, a->ordinal, b->ordinal, ctx);
        roaring_bitmap_t *bits = bits_of(tie ? &seg->lost : &seg->past, &s->failed);
        if (!bits)
            return err_no_memory(ctx, 64);
        roaring_bitmap_add(bits, a->row);
    }
    return ERR_OK;
}

/* Keys that come more than once, by the newest row of each. */
static enum err order_all_events(struct sorting *s, struct err_ctx *ctx)
{
    struct timeline t = {0};
    enum err e = ERR_OK;
    for (size_t i = 0; i < s->in->n && e == ERR_OK; i++) {
        if (!s->again[i])
            continue;
        roaring_uint32_iterator_t *it = roaring_create_iterator(s->again[i]);
        if (!it)
            e = err_no_memory(ctx, sizeof *it);
        for (; e == ERR_OK && it->has_value; roaring_advance_uint32_iterator(it)) {
            struct row key = {.schema = s->schema};
            if (bit_of(s->shadowed[i], it->current_value))
                continue;
            segment_row_key(s->in->seg[i].segment, it->current_value, &key);
            e = order_events(s, &t, &key, ctx);
        }
        if (it)
            roaring_free_uint32_iterator(it);
    }
    timeline_deinit(&t);
    return e;
}

/* ---- the whole ---- */

static int compare_ranges(const void *a, const void *b)
{
    const struct segment *x = *(struct segment *const *)a, *y = *(struct segment *const *)b;
    return (x->key_min > y->key_min) - (x->key_min < y->key_min);
}

/* True when each key can come once only: files without repeats whose key ranges are apart. */
static bool surely_unique(const struct load_input *in, bool *failed)
{
    for (size_t i = 0; i < in->n; i++) {
        const struct segment *s = in->seg[i].segment;
        if (s->tail || s->key_prev || (in->n > 1 && s->schema->key == KEY_STRING))
            return false;
    }
    if (in->n < 2)
        return true;
    const struct segment **list = malloc(in->n * sizeof *list);
    if (!list) {
        *failed = true;
        return false;
    }
    for (size_t i = 0; i < in->n; i++)
        list[i] = in->seg[i].segment;
    qsort(list, in->n, sizeof(*list), compare_ranges);
    bool apart = true;
    for (size_t i = 0; apart && i + 1 < in->n; i++)
        apart = list[i]->key_max < list[i + 1]->key_min;
    free(list);
    return apart;
}

/* Rows that are not current, or not there, leave the sums. */
static enum err settle_sums(struct load_input *in, struct err_ctx *ctx)
{
    for (size_t i = 0; i < in->n; i++) {
        struct incoming *s = &in->seg[i];
        struct row_builder rb;
        if (!s->lost && !s->past)
            continue;
        in->past_rows += count_of(s->past);
        RETURN_NOT_OK(row_builder_init(&rb, s->segment->schema, ctx));
        for (uint32_t row = 0; row < s->rows; row++) {
            bool lost = bit_of(s->lost, row);
            if (lost || bit_of(s->past, row))
                s->vectors -= segment_vector(s->segment, row) != NULL;
            if (!lost)
                continue;
            row_from_segment(&rb, s->segment, row);
            digest_sub(&s->digest, row_digest(&rb.row));
        }
        row_builder_deinit(&rb);
    }
    return ERR_OK;
}

static enum err sort_out(struct sorting *s, uint64_t rows, struct err_ctx *ctx)
{
    struct load_input *in = s->in;
    RETURN_NOT_OK(find_repeats(s, rows, ctx));
    if (s->schema->event_time >= 0)
        RETURN_NOT_OK(order_all_events(s, ctx));
    for (size_t i = 0; s->schema->event_time < 0 && i < in->n; i++) {
        in->seg[i].lost = s->shadowed[i];
        s->shadowed[i] = NULL;
    }
    return settle_sums(in, ctx);
}

enum err load_sort_out(struct load_input *in, struct err_ctx *ctx)
{
    struct sorting s = {.in = in};
    bool failed = false;
    if (in->n == 0 || surely_unique(in, &failed))
        return ERR_OK;
    s.schema = in->seg[0].segment->schema;
    s.starts = calloc(in->n, sizeof *s.starts);
    s.again = calloc(in->n, sizeof(*s.again));
    s.shadowed = calloc(in->n, sizeof(*s.shadowed));
    enum err e = ERR_OK;
    if (failed || !s.starts || !s.again || !s.shadowed)
        e = err_no_memory(ctx, in->n * sizeof *s.starts);
    uint64_t rows = 0;
    for (size_t i = 0; e == ERR_OK && i < in->n; i++) {
        s.starts[i] = rows;
        rows += in->seg[i].rows;
    }
    if (e == ERR_OK)
        e = sort_out(&s, rows, ctx);
    for (size_t i = 0; i < in->n; i++) {
        free_bits(s.again ? s.again[i] : NULL);
        free_bits(s.shadowed ? s.shadowed[i] : NULL);
    }
    free(s.starts);
    free(s.again);
    free(s.shadowed);
    return e;
}

static uint32_t newest_in(const struct incoming *s, const struct row *key, uint64_t hash)
{
    const struct segment *g = s->segment;
    uint32_t found;
    if (s->superseded)
        return 0;
    if (key->schema->key == KEY_INT64) {
        if (!g->tail && (key->int_key < g->key_min || key->int_key > g->key_max))
            return 0;
        found = segment_find(g, &key->int_key, sizeof key->int_key, hash);
    } else {
        found = segment_find(g, key->key, key->key_len, hash);
    }
    while (found && (bit_of(s->lost, found - 1) || bit_of(s->past, found - 1)))
        found = segment_older(g, found - 1);
    return found;
}

bool load_find(const struct load_input *in, const struct row *key, size_t *seg, uint32_t *row)
{
    uint64_t hash = row_key_hash(key);
    for (size_t i = in->n; i-- > 0;) {
        uint32_t found = newest_in(&in->seg[i], key, hash);
        if (!found)
            continue;
        *seg = i;
        *row = found - 1;
        return true;
    }
    return false;
}
