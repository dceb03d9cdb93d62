/* Loads: gathering batches until they commit.
 *
 *   small:  held   a batch in memory; its rows go into the log record
 *   large:  stage  segment files (stage.c)
 *
 * A load starts small and turns to staging once, when held rows pass INLINE_ROWS_MAX or
 * INLINE_BYTES_MAX, or at its commit when that is to wait for an index over them. With event_time
 * the rows of a small load are put into a tail of their own first, where a key's rows are found as
 * in any segment.
 *
 * A load that meets the drop of its collection ends with ERR_NOT_FOUND and leaves its files to the
 * drop. */
#include "store/load.h"

#include "store/collection_internal.h"
#include "store/place.h"
#include "store/resolve.h"

enum { INDEX_ROWS_MIN = 1000 }; /* fewer are searched exactly in no time: they stay inline */

struct load {
    struct collection *c;
    struct schema *schema;
    struct load_options opts;
    char *message, *metadata;
    uint64_t rows; /* received */
    struct batch *held;
    struct stage *stage; /* NULL while small */
};

const char *load_mode_name(enum load_mode mode)
{
    static const char *const names[] = {"upsert", "append",  "full_refresh", "partition_overwrite",
                                        "delete", "restore", "purge"};
    return names[mode];
}

/* ---- life ---- */

static enum err check_mode(const struct load_options *o, const struct schema *s,
                           struct err_ctx *ctx)
{
    if (o->mode == LOAD_PARTITION && s->npartition == 0)
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "mode",
                          "partition_overwrite needs a collection with partition_by, and this one "
                          "has none: take full_refresh or upsert");
    if (o->mode != LOAD_PARTITION && o->partitions)
        return err_set_at(ctx, ERR_INVALID, -1, "partitions",
                          "partitions are named only with mode partition_overwrite");
    return ERR_OK;
}

static enum err copy_text(const char *text, char **out, struct err_ctx *ctx)
{
    *out = text ? strdup(text) : NULL;
    return text && !*out ? err_no_memory(ctx, strlen(text)) : ERR_OK;
}

static enum err init(struct load *l, struct err_ctx *ctx)
{
    RETURN_NOT_OK(check_mode(&l->opts, l->schema, ctx));
    RETURN_NOT_OK(copy_text(l->opts.message, &l->message, ctx));
    l->opts.message = l->message;
    RETURN_NOT_OK(copy_text(l->opts.metadata, &l->metadata, ctx));
    l->opts.metadata = l->metadata;
    return batch_new(l->schema, &l->held, ctx);
}

enum err load_new(struct collection *c, const struct load_options *opts, struct load **out,
                  struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    RETURN_NOT_OK(commit_check_expected(c, opts, ctx));
    struct load *l = calloc(1, sizeof *l);
    if (!l)
        return err_no_memory(ctx, sizeof *l);
    l->c = collection_acquire(c);
    l->schema = collection_schema(c);
    l->opts = *opts;
    enum err e = init(l, ctx);
    if (e != ERR_OK) {
        load_free(l);
        return e;
    }
    *out = l;
    return ERR_OK;
}

struct schema *load_schema(struct load *l)
{
    return l->schema;
}

void load_set_receipt(struct load *l, const struct load_receipt *receipt)
{
    l->opts.receipt = receipt;
}

void load_set_watch(struct load *l, struct load_watch *watch)
{
    l->opts.watch = watch;
}

static bool waits_for_index(const struct load_options *o)
{
    if (o->wait == LOAD_WAIT_DEFAULT)
        return o->mode == LOAD_FULL_REFRESH || o->mode == LOAD_PARTITION;
    return o->wait == LOAD_WAIT_INDEXED;
}

/* True when rows that would be held are to be in a file, for an index to be built over them. */
static bool wants_index(const struct load *l)
{
    return l->held && l->held->rows >= INDEX_ROWS_MIN && l->schema->dim &&
           l->schema->index.kind != INDEX_FLAT && waits_for_index(&l->opts);
}

bool load_is_large(const struct load *l)
{
    return l->stage || wants_index(l);
}

void load_free(struct load *l)
{
    if (!l)
        return;
    stage_free(l->stage);
    batch_free(l->held);
    schema_release(l->schema);
    free(l->message);
    free(l->metadata);
    collection_release(l->c);
    free(l);
}

/* ---- holding ---- */

static enum err hold_cells(struct batch *to, const struct batch *b, size_t i, struct err_ctx *ctx)
{
    for (uint32_t f = 0; f < b->schema->nfeatures; f++) {
        const struct column *col = &b->features[f];
        enum cell_state state = column_state(col, i);
        size_t len = b->schema->features[f].width;
        if (state == CELL_NULL)
            RETURN_NOT_OK(batch_set_null(to, f, ctx));
        if (state != CELL_VALUE)
            continue;
        const void *data = len ? col->values.data + i * len : column_var(col, i, &len);
        RETURN_NOT_OK(batch_set(to, f, data, len, ctx));
    }
    enum cell_state state = column_state(&b->vector, i);
    if (state == CELL_NULL)
        return batch_set_vector_null(to, ctx);
    return state == CELL_VALUE ? batch_set_vector(to, batch_vector(b, i), ctx) : ERR_OK;
}

static enum err hold(struct load *l, const struct batch *b, struct err_ctx *ctx)
{
    RETURN_NOT_OK(batch_validate(b, ctx));
    for (size_t i = 0; i < b->rows; i++) {
        if (b->schema->key == KEY_INT64) {
            RETURN_NOT_OK(batch_row_int(l->held, batch_int_key(b, i), ctx));
        } else {
            size_t len;
            const char *key = column_var(&b->str_keys, i, &len);
            RETURN_NOT_OK(batch_row_str(l->held, key, len, ctx));
        }
        RETURN_NOT_OK(hold_cells(l->held, b, i, ctx));
    }
    return ERR_OK;
}

static bool fits_inline(const struct load *l, const struct batch *b)
{
    return l->opts.size_hint <= INLINE_BYTES_MAX && l->held->rows + b->rows <= INLINE_ROWS_MAX &&
           batch_bytes(l->held) + batch_bytes(b) <= INLINE_BYTES_MAX;
}

static enum err start_staging(struct load *l, struct err_ctx *ctx)
{
    struct stage_options o = {.mode = l->opts.mode,
                              .duplicates_last = l->opts.duplicates_last,
                              .size_hint = l->opts.size_hint};
    RETURN_NOT_OK(stage_new(l->c, l->schema, &o, &l->stage, ctx));
    RETURN_NOT_OK(stage_add(l->stage, l->held, ctx));
    batch_free(l->held);
    l->held = NULL;
    return ERR_OK;
}

/* What goes wrong after a drop goes wrong because of it. */
static enum err result(struct collection *c, enum err e, struct err_ctx *ctx)
{
    if (e == ERR_OK || !collection_dropped(c))
        return e;
    err_clear(ctx);
    return collection_check_writable(c, ctx);
}

static enum err add(struct load *l, const struct batch *b, struct err_ctx *ctx)
{
    if (!l->stage && fits_inline(l, b))
        return hold(l, b, ctx);
    if (!l->stage)
        RETURN_NOT_OK(start_staging(l, ctx));
    return stage_add(l->stage, b, ctx);
}

enum err load_add(struct load *l, const struct batch *b, struct err_ctx *ctx)
{
    enum err e = collection_dropped(l->c) ? ERR_NOT_FOUND : add(l, b, ctx);
    l->rows += b->rows;
    return result(l->c, e, ctx);
}

/* ---- a tail of its own ---- */

static size_t payload_of(const struct row *r)
{
    size_t n = r->schema->key == KEY_STRING ? r->key_len : 0;
    for (uint32_t i = 0; i < r->schema->nvar; i++)
        n += r->var[i].len;
    return n;
}

static enum err reserve(struct segment *tail, const struct batch *b, struct row_builder *rb,
                        struct err_ctx *ctx)
{
    size_t payload = 0;
    bool partial;
    for (size_t i = 0; i < b->rows; i++) {
        row_from_batch(rb, b, i, NULL, 0, &partial);
        payload += payload_of(&rb->row);
    }
    return tail_reserve(tail, (uint32_t)b->rows, 1, payload, ctx);
}

static enum err note_absent(const struct batch *b, size_t i, struct incoming *to,
                            struct err_ctx *ctx)
{
    struct partial p = {.row = (uint32_t)i};
    buf_put(&to->own_partials, &p, sizeof p);
    uint8_t *present = buf_extend(&to->own_present, present_bytes(b->schema));
    if (!present || to->own_partials.failed)
        return err_no_memory(ctx, to->own_partials.len);
    batch_present(b, i, present);
    return ERR_OK;
}

static enum err append_rows(struct segment *tail, const struct batch *b, enum load_mode mode,
                            struct row_builder *rb, struct incoming *to, struct err_ctx *ctx)
{
    for (size_t i = 0; i < b->rows; i++) {
        bool partial;
        row_from_batch(rb, b, i, NULL, 0, &partial);
        if (partial && mode == LOAD_UPSERT)
            RETURN_NOT_OK(note_absent(b, i, to, ctx));
        tail_append(tail, &rb->row, 0, i);
    }
    to->rows = (uint32_t)b->rows;
    to->partials = (const struct partial *)to->own_partials.data;
    to->npartials = to->own_partials.len / sizeof *to->partials;
    to->present = to->own_present.data;
    return ERR_OK;
}

static enum err put_into_scratch(struct load *l, struct load_input *in, struct err_ctx *ctx)
{
    struct incoming *to;
    struct row_builder rb;
    if (l->held->rows == 0)
        return ERR_OK;
    RETURN_NOT_OK(load_input_add(in, &to, ctx));
    to->scratch = true;
    RETURN_NOT_OK(tail_new(0, l->schema, &to->segment, ctx));
    RETURN_NOT_OK(row_builder_init(&rb, l->schema, ctx));
    enum err e = reserve(to->segment, l->held, &rb, ctx);
    if (e == ERR_OK)
        e = append_rows(to->segment, l->held, l->opts.mode, &rb, to, ctx);
    row_builder_deinit(&rb);
    return e;
}

/* ---- committing ---- */

static enum err add_staged(struct load_input *in, struct staged *list, size_t n,
                           uint64_t base_ordinal, struct err_ctx *ctx)
{
    for (size_t i = 0; i < n; i++) {
        struct incoming *to;
        RETURN_NOT_OK(load_input_add(in, &to, ctx));
        to->staged = &list[i];
        to->segment = list[i].segment;
        to->rows = list[i].rows;
        to->base_ordinal = base_ordinal;
        to->partials = (const struct partial *)list[i].partials.data;
        to->npartials = list[i].partials.len / sizeof(struct partial);
        to->present = list[i].present.data;
        to->digest = list[i].digest;
        to->vectors = list[i].vectors;
        to->path = strdup(list[i].path);
        if (!to->path)
            return err_no_memory(ctx, strlen(list[i].path));
    }
    return ERR_OK;
}

static enum err commit_staged(struct load *l, struct load_input *in, struct commit_result *out,
                              struct err_ctx *ctx)
{
    struct staged *list = NULL;
    size_t n = 0;
    enum err e = stage_finish(l->stage, &list, &n, ctx);
    if (e == ERR_OK)
        e = add_staged(in, list, n, 0, ctx);
    if (e == ERR_OK)
        e = collection_commit(in, out, ctx);
    staged_list_free(l->c, list, n, true);
    return e;
}

static enum err commit_held(struct load *l, struct load_input *in, struct commit_result *out,
                            struct err_ctx *ctx)
{
    uint32_t *skip = NULL;
    enum err e = ERR_OK;
    if (l->schema->event_time >= 0) {
        e = put_into_scratch(l, in, ctx);
    } else {
        e = load_skip_held(&l->opts, l->held, &skip, ctx);
        in->held = l->held;
        in->skip = skip;
    }
    if (e == ERR_OK)
        e = collection_commit(in, out, ctx);
    free(skip);
    return e;
}

enum err load_commit(struct load *l, struct commit_result *out, struct err_ctx *ctx)
{
    struct load_input in = {.c = l->c,
                            .opts = l->opts,
                            .rows_received = l->rows,
                            .wait_indexed = waits_for_index(&l->opts)};
    enum err e = ERR_OK;
    if (!l->stage && wants_index(l))
        e = start_staging(l, ctx);
    if (e == ERR_OK)
        e = l->stage ? commit_staged(l, &in, out, ctx) : commit_held(l, &in, out, ctx);
    load_input_deinit(&in);
    return result(l->c, e, ctx);
}

static int compare_parts(const void *a, const void *b)
{
    const struct load_part *x = a, *y = b;
    return strcmp(x->name, y->name);
}

enum err load_commit_parts(struct collection *c, const struct load_options *opts,
                           struct load_part *parts, size_t n, struct commit_result *out,
                           struct err_ctx *ctx)
{
    struct load_input in = {
        .c = c, .opts = *opts, .parts = parts, .nparts = n, .wait_indexed = waits_for_index(opts)};
    struct schema *s = collection_schema(c);
    enum err e = check_mode(opts, s, ctx);
    schema_release(s);
    if (n)
        qsort(parts, n, sizeof *parts, compare_parts);
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        e = add_staged(&in, parts[i].staged, parts[i].nstaged, in.rows_received, ctx);
        in.rows_received += parts[i].rows;
    }
    if (e == ERR_OK)
        e = collection_commit(&in, out, ctx);
    load_input_deinit(&in);
    return result(c, e, ctx);
}

/* ---- deleting ---- */

enum err collection_delete_keys(struct collection *c, const struct batch *keys,
                                const struct load_options *opts, struct commit_result *out,
                                struct err_ctx *ctx)
{
    struct load_input in = {
        .c = c, .opts = *opts, .rows_received = keys->rows, .delete_keys = keys};
    if (in.opts.mode != LOAD_PURGE)
        in.opts.mode = LOAD_DELETE;
    enum err e = collection_commit(&in, out, ctx);
    load_input_deinit(&in);
    return result(c, e, ctx);
}

enum err collection_delete_filter(struct collection *c, const struct filter *f,
                                  const struct load_options *opts, struct commit_result *out,
                                  struct err_ctx *ctx)
{
    struct load_input in = {.c = c, .opts = *opts, .delete_filter = f};
    in.opts.mode = LOAD_DELETE;
    enum err e = collection_commit(&in, out, ctx);
    load_input_deinit(&in);
    return result(c, e, ctx);
}
