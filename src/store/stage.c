/* Staging: batches become segment files.
 *
 *   writer -> <dir>/<id>.seg, closed and followed by another when its side memory is full
 *
 * Rows of an upsert that leave cells absent are completed from the live row of the moment as they
 * are written, and noted with the seq of that row: the commit checks that it is still the one to
 * complete from (complete.c).
 *
 * Equal keys in one file are found when it is closed, and are an error unless the last one wins or
 * event times make them history; then, and across files, the commit sorts them out (incoming.c).
 *
 * Threads: one at a time a stage. Failure: the stage is freed and its files unlinked; what a crash
 * leaves is swept at open. */
#include "store/stage.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/epoch.h"
#include "base/log.h"
#include "store/collection_internal.h"
#include "store/resolve.h"
#include "store/segment_writer.h"

struct stage {
    struct collection *c;
    struct schema *schema;
    enum load_mode mode;
    bool duplicates_last;
    uint64_t size_hint;
    char *dir; /* NULL: the staging folder */
    uint64_t rows;
    struct segment_writer *writer; /* of list[n - 1] */
    struct staged *list;
    size_t n, cap;
    struct row_builder row;
};

enum err stage_new(struct collection *c, struct schema *schema, const struct stage_options *opts,
                   struct stage **out, struct err_ctx *ctx)
{
    struct stage *st = calloc(1, sizeof *st);
    if (!st)
        return err_no_memory(ctx, sizeof *st);
    st->c = collection_acquire(c);
    st->schema = schema_acquire(schema);
    st->mode = opts->mode;
    st->duplicates_last = opts->duplicates_last;
    st->size_hint = opts->size_hint;
    enum err e = row_builder_init(&st->row, schema, ctx);
    if (e == ERR_OK && opts->dir && !(st->dir = strdup(opts->dir)))
        e = err_no_memory(ctx, strlen(opts->dir));
    if (e != ERR_OK) {
        stage_free(st);
        return e;
    }
    *out = st;
    return ERR_OK;
}

uint64_t stage_rows(const struct stage *st)
{
    return st->rows;
}

static void unlink_staged(struct collection *c, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (collection_enter_dir(c, &why) != ERR_OK)
        return;
    if (io_unlink(c->io, path, &why) != ERR_OK)
        log_warn("%s stays behind until the next start: %s", path, why.detail);
    collection_leave_dir(c);
}

void staged_list_free(struct collection *c, struct staged *list, size_t n, bool unlink)
{
    for (size_t i = 0; list && i < n; i++) {
        if (unlink && !list[i].taken && list[i].path)
            unlink_staged(c, list[i].path);
        segment_release(list[i].segment);
        buf_deinit(&list[i].partials);
        buf_deinit(&list[i].present);
        free(list[i].path);
    }
    free(list);
}

void stage_free(struct stage *st)
{
    if (!st)
        return;
    segment_writer_free(st->writer);
    staged_list_free(st->c, st->list, st->n, true);
    row_builder_deinit(&st->row);
    schema_release(st->schema);
    free(st->dir);
    collection_release(st->c);
    free(st);
}

/* ---- files ---- */

static void file_path(const struct stage *st, uint64_t id, char *out, size_t cap)
{
    if (st->dir)
        snprintf(out, cap, "%s/%016" PRIx64 ".seg", st->dir, id);
    else
        segment_file_path(st->c, "staging", id, out, cap);
}

static enum err grow_list(struct stage *st, struct err_ctx *ctx)
{
    if (st->n < st->cap)
        return ERR_OK;
    size_t cap = st->cap ? st->cap * 2 : 4;
    struct staged *grown = realloc(st->list, cap * sizeof *grown);
    if (!grown)
        return err_no_memory(ctx, cap * sizeof *grown);
    st->list = grown;
    st->cap = cap;
    return ERR_OK;
}

static enum err new_file(struct stage *st, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    struct staged s = {.id = atomic_fetch_add(&st->c->next_segment_id, 1),
                       .first_ordinal = st->rows};
    RETURN_NOT_OK(grow_list(st, ctx));
    file_path(st, s.id, path, sizeof path);
    RETURN_NOT_OK(collection_enter_dir(st->c, ctx));
    enum err e = segment_writer_new(st->c->io, path, st->c->id, s.id, st->schema,
                                    st->n ? 0 : st->size_hint, &st->writer, ctx);
    collection_leave_dir(st->c);
    RETURN_NOT_OK(e);
    s.path = strdup(path);
    if (!s.path) {
        unlink_staged(st->c, path);
        return err_no_memory(ctx, strlen(path));
    }
    st->list[st->n++] = s;
    return ERR_OK;
}

/* The first row whose key a later row of the file has too is an error that names both. */
static enum err refuse_repeats(struct stage *st, const struct staged *s, struct err_ctx *ctx)
{
    const uint32_t *prev = segment_writer_prev(st->writer);
    if (!prev || st->schema->event_time >= 0 || (st->duplicates_last && st->mode != LOAD_APPEND))
        return ERR_OK;
    for (uint32_t row = 0; row < segment_writer_rows(st->writer); row++) {
        if (!prev[row])
            continue;
        struct row key = {.schema = st->schema};
        struct load_place a = {.row = s->first_ordinal + prev[row] - 1};
        struct load_place b = {.row = s->first_ordinal + row};
        segment_writer_key(st->writer, row, &key);
        return duplicate_error(st->mode, &key, &a, &b, ctx);
    }
    return ERR_OK;
}

/* Closes the current file: complete, synced, where it was begun. */
static enum err finish_file(struct stage *st, struct err_ctx *ctx)
{
    struct staged *s = &st->list[st->n - 1];
    RETURN_NOT_OK(segment_writer_index_keys(st->writer, ctx));
    RETURN_NOT_OK(refuse_repeats(st, s, ctx));
    struct seq_run run = {.first_row = 0, .version = 0, .ordinal = s->first_ordinal};
    s->rows = segment_writer_rows(st->writer);
    RETURN_NOT_OK(segment_writer_finish(st->writer, &run, 1, ctx));
    segment_writer_free(st->writer);
    st->writer = NULL;
    RETURN_NOT_OK(segment_open(s->path, st->c->id, &s->segment, ctx));
    segment_set_scrubbed(s->segment);
    return ERR_OK;
}

static size_t side_bytes(const struct stage *st)
{
    const struct staged *s = &st->list[st->n - 1];
    return segment_writer_side_bytes(st->writer) + s->partials.len + s->present.len;
}

static enum err ensure_writer(struct stage *st, size_t rows, struct err_ctx *ctx)
{
    if (st->writer && (side_bytes(st) >= SEGMENT_SIDE_BYTES_MAX ||
                       rows > SEGMENT_ROWS_MAX - segment_writer_rows(st->writer)))
        RETURN_NOT_OK(finish_file(st, ctx));
    return st->writer ? ERR_OK : new_file(st, ctx);
}

/* ---- rows ---- */

static bool find_live(const struct snapshot *s, const struct batch *b, size_t i,
                      struct row_ref *ref)
{
    struct row key = {.schema = b->schema};
    batch_row_key(b, i, &key);
    return find_key(s, &key, ref);
}

static bool row_incomplete(const struct batch *b, size_t i)
{
    for (uint32_t f = 0; f < b->schema->nfeatures; f++) {
        if (column_state(&b->features[f], i) == CELL_ABSENT &&
            (int32_t)f != b->schema->created_time)
            return true;
    }
    return b->schema->dim && column_state(&b->vector, i) == CELL_ABSENT;
}

void batch_present(const struct batch *b, size_t i, uint8_t *present)
{
    const struct schema *s = b->schema;
    memset(present, 0, present_bytes(s));
    for (uint32_t f = 0; f <= s->nfeatures; f++) {
        const struct column *col = f < s->nfeatures ? &b->features[f] : &b->vector;
        if (column_state(col, i) != CELL_ABSENT || (int32_t)f == s->created_time)
            present[f >> 3] |= (uint8_t)(1u << (f & 7));
    }
}

static enum err note_partial(struct stage *st, const struct batch *b, size_t i,
                             const struct segment *from, uint32_t from_row, struct err_ctx *ctx)
{
    struct staged *s = &st->list[st->n - 1];
    struct partial p = {.row = segment_writer_rows(st->writer)};
    if (from)
        segment_seq(from, from_row, &p.version, &p.ordinal);
    buf_put(&s->partials, &p, sizeof p);
    uint8_t *present = buf_extend(&s->present, present_bytes(st->schema));
    if (s->partials.failed || !present)
        return err_no_memory(ctx, s->partials.len);
    batch_present(b, i, present);
    return ERR_OK;
}

static enum err write_row(struct stage *st, const struct batch *b, size_t i,
                          const struct snapshot *live, struct err_ctx *ctx)
{
    struct row_ref ref;
    const struct segment *old = NULL;
    uint32_t old_row = 0;
    bool merge = st->mode == LOAD_UPSERT && row_incomplete(b, i), partial;
    if (merge && find_live(live, b, i, &ref)) {
        old = live->views[ref.view].segment;
        old_row = ref.row;
    }
    row_from_batch(&st->row, b, i, old, old_row, &partial);
    if (merge)
        RETURN_NOT_OK(note_partial(st, b, i, old, old_row, ctx));
    struct staged *s = &st->list[st->n - 1];
    struct hash128 hash;
    row_hash_vector(&st->row.row, &hash);
    digest_add(&s->digest, row_digest(&st->row.row));
    s->vectors += st->row.row.vector != NULL;
    return segment_writer_append(st->writer, &st->row.row, ctx);
}

/* Vectors with counted keys and no features, written without a look at each row's cells. Where rows
 * of the same keys may have features to keep, row by row it must be. */
static bool plain_run(const struct stage *st, const struct batch *b)
{
    return b->borrowed && b->keys_run && (st->schema->nfeatures == 0 || st->mode != LOAD_UPSERT);
}

static enum err write_run(struct stage *st, const struct batch *b, struct err_ctx *ctx)
{
    struct staged *s = &st->list[st->n - 1];
    RETURN_NOT_OK(segment_writer_append_run(st->writer, b->borrowed, b->rows, b->first_key, ctx));
    const struct hash128 *hashes = segment_writer_hashes(st->writer, b->rows);
    for (size_t i = 0; i < b->rows; i++) {
        int64_t key = b->first_key + (int64_t)i;
        const float *vector = b->borrowed + i * st->schema->dim;
        digest_add(&s->digest, hashes ? row_digest_hashed(key, &hashes[i])
                                      : row_digest_vector(key, vector, st->schema->dim));
    }
    s->vectors += b->rows;
    return ERR_OK;
}

static enum err write_rows(struct stage *st, const struct batch *b, struct err_ctx *ctx)
{
    enum err e = ERR_OK;
    epoch_enter();
    const struct snapshot *live = collection_snapshot(st->c);
    for (size_t i = 0; i < b->rows && e == ERR_OK; i++)
        e = write_row(st, b, i, live, ctx);
    epoch_leave();
    return e;
}

enum err stage_add(struct stage *st, const struct batch *b, struct err_ctx *ctx)
{
    RETURN_NOT_OK(batch_validate(b, ctx));
    if (b->rows == 0)
        return ERR_OK;
    RETURN_NOT_OK(ensure_writer(st, b->rows, ctx));
    RETURN_NOT_OK(plain_run(st, b) ? write_run(st, b, ctx) : write_rows(st, b, ctx));
    st->rows += b->rows;
    return ERR_OK;
}

enum err stage_finish(struct stage *st, struct staged **out, size_t *n, struct err_ctx *ctx)
{
    if (st->writer)
        RETURN_NOT_OK(finish_file(st, ctx));
    *out = st->list;
    *n = st->n;
    st->list = NULL;
    st->n = st->cap = 0;
    return ERR_OK;
}
