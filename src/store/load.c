/* Loads: gathering batches until they commit.
 *
 *   small:  held      a batch in memory; its rows go into the log record
 *   large:  writer -> staging/<id>.seg, closed and followed by another when its side memory is full
 *
 * A load starts small and spills once, when held rows pass INLINE_ROWS_MAX or INLINE_BYTES_MAX.
 * Rows that leave cells absent are completed from the live row of the moment (upsert) as they
 * spill; the commit checks that this row is still the live one (collection_internal.h, struct
 * partial).
 *
 * At commit the staged files are finished, synced, renamed into segments/ and only then named by
 * the log record. If anything fails they are unlinked; what a crash leaves is swept at open.
 *
 * Files are made, renamed and removed inside collection_enter_dir: a load that meets the drop of
 * its collection ends with ERR_NOT_FOUND and leaves its files to the drop. */
#include <inttypes.h>
#include <stdio.h>

#include "base/epoch.h"
#include "base/log.h"
#include "store/collection_internal.h"
#include "store/segment_writer.h"

struct load {
    struct collection *c;
    struct schema *schema;
    struct load_options opts;
    char *message;
    uint64_t rows; /* received */
    struct batch *held;
    struct segment_writer *writer; /* of staged[nstaged - 1] */
    struct staged *staged;
    size_t nstaged, cap_staged;
    bool spilled;
    struct row_builder row;
    struct digest digest;
    uint64_t vectors;
    bool committed;
};

const char *load_mode_name(enum load_mode mode)
{
    static const char *const names[] = {"upsert", "append",  "full_refresh", "partition_overwrite",
                                        "delete", "restore", "purge"};
    return names[mode];
}

enum err load_new(struct collection *c, const struct load_options *opts, struct load **out,
                  struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_check_writable(c, ctx));
    struct load *l = calloc(1, sizeof *l);
    if (!l)
        return err_no_memory(ctx, sizeof *l);
    l->c = collection_acquire(c);
    epoch_enter();
    l->schema = schema_acquire(collection_snapshot(c)->schema);
    epoch_leave();
    l->opts = *opts;
    enum err e = row_builder_init(&l->row, l->schema, ctx);
    if (e == ERR_OK)
        e = batch_new(l->schema, &l->held, ctx);
    if (e == ERR_OK && opts->message && !(l->message = strdup(opts->message)))
        e = err_no_memory(ctx, strlen(opts->message));
    l->opts.message = l->message;
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

static void unlink_staged(struct load *l, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (collection_enter_dir(l->c, &why) != ERR_OK)
        return;
    if (io_unlink(l->c->io, path, &why) != ERR_OK)
        log_warn("%s stays behind until the next start: %s", path, why.detail);
    collection_leave_dir(l->c);
}

static void staged_deinit(struct load *l, struct staged *st)
{
    if (!l->committed && st->path)
        unlink_staged(l, st->path);
    segment_release(st->segment);
    buf_deinit(&st->partials);
    buf_deinit(&st->present);
    buf_deinit(&st->losers);
    free(st->path);
}

void load_free(struct load *l)
{
    if (!l)
        return;
    segment_writer_free(l->writer);
    for (size_t i = 0; i < l->nstaged; i++)
        staged_deinit(l, &l->staged[i]);
    free(l->staged);
    batch_free(l->held);
    row_builder_deinit(&l->row);
    schema_release(l->schema);
    free(l->message);
    collection_release(l->c);
    free(l);
}

/* ---- spilling ---- */

static enum err new_staged(struct load *l, struct err_ctx *ctx)
{
    if (l->nstaged == l->cap_staged) {
        size_t cap = l->cap_staged ? l->cap_staged * 2 : 4;
        struct staged *grown = realloc(l->staged, cap * sizeof *grown);
        if (!grown)
            return err_no_memory(ctx, cap * sizeof *grown);
        l->staged = grown;
        l->cap_staged = cap;
    }
    char path[PATH_CAP];
    struct staged st = {.id = atomic_fetch_add(&l->c->next_segment_id, 1),
                        .first_ordinal = l->rows};
    segment_file_path(l->c, "staging", st.id, path, sizeof path);
    RETURN_NOT_OK(collection_enter_dir(l->c, ctx));
    enum err e = segment_writer_new(l->c->io, path, l->c->id, st.id, l->schema,
                                    l->nstaged ? 0 : l->opts.size_hint, &l->writer, ctx);
    collection_leave_dir(l->c);
    RETURN_NOT_OK(e);
    st.path = strdup(path);
    if (!st.path) {
        unlink_staged(l, path);
        return err_no_memory(ctx, strlen(path));
    }
    l->staged[l->nstaged++] = st;
    return ERR_OK;
}

/* Repeated keys within one segment: the older rows lose, or the load is refused. */
static enum err duplicate_error(const struct load *l, const struct row *key, uint64_t a, uint64_t b,
                                struct err_ctx *ctx)
{
    const char *hint =
        l->opts.mode == LOAD_UPSERT ? " (duplicates=last lets the last one win)" : "";
    if (l->schema->key == KEY_INT64)
        return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)b, "key",
                          "rows %" PRIu64 " and %" PRIu64 " have the same key %" PRId64 "%s", a, b,
                          key->int_key, hint);
    return err_set_at(ctx, ERR_UNPROCESSABLE, (int64_t)b, "key",
                      "rows %" PRIu64 " and %" PRIu64 " have the same key '%.*s'%s", a, b,
                      (int)(key->key_len < 200 ? key->key_len : 200), (const char *)key->key, hint);
}

static bool duplicates_allowed(const struct load *l)
{
    return l->opts.duplicates_last && l->opts.mode == LOAD_UPSERT;
}

static enum err collect_losers(struct load *l, struct staged *st, struct err_ctx *ctx)
{
    const uint32_t *prev = segment_writer_prev(l->writer);
    if (!prev)
        return ERR_OK;
    uint32_t rows = segment_writer_rows(l->writer);
    uint8_t *lost = calloc(1, rows);
    if (!lost)
        return err_no_memory(ctx, rows);
    enum err e = ERR_OK;
    for (uint32_t row = 0; row < rows && e == ERR_OK; row++) {
        if (!prev[row])
            continue;
        struct row key = {.schema = l->schema};
        segment_writer_key(l->writer, row, &key);
        if (!duplicates_allowed(l))
            e = duplicate_error(l, &key, st->first_ordinal + prev[row] - 1, st->first_ordinal + row,
                                ctx);
        lost[prev[row] - 1] = 1;
    }
    for (uint32_t row = 0; row < rows && e == ERR_OK; row++) {
        if (lost[row])
            buf_put_u32(&st->losers, row);
    }
    free(lost);
    return e == ERR_OK && st->losers.failed ? err_no_memory(ctx, st->losers.len) : e;
}

/* Closes the current segment file: complete, synced, still in staging/. */
static enum err finish_writer(struct load *l, struct err_ctx *ctx)
{
    struct staged *st = &l->staged[l->nstaged - 1];
    RETURN_NOT_OK(segment_writer_index_keys(l->writer, ctx));
    RETURN_NOT_OK(collect_losers(l, st, ctx));
    struct seq_run run = {.first_row = 0, .version = 0, .ordinal = st->first_ordinal};
    st->rows = segment_writer_rows(l->writer);
    RETURN_NOT_OK(segment_writer_finish(l->writer, &run, 1, ctx));
    segment_writer_free(l->writer);
    l->writer = NULL;
    RETURN_NOT_OK(segment_open(st->path, l->c->id, &st->segment, ctx));
    segment_set_scrubbed(st->segment);
    return ERR_OK;
}

static enum err note_partial(struct load *l, const struct batch *b, size_t i,
                             const struct segment *src, uint32_t src_row, struct err_ctx *ctx)
{
    struct staged *st = &l->staged[l->nstaged - 1];
    struct partial p = {
        .row = segment_writer_rows(l->writer), .src_row = src_row, .src_id = src ? src->id : 0};
    buf_put(&st->partials, &p, sizeof p);
    uint8_t *present = buf_extend(&st->present, present_bytes(l->schema));
    if (st->partials.failed || !present)
        return err_no_memory(ctx, st->partials.len);
    memset(present, 0, present_bytes(l->schema));
    for (uint32_t f = 0; f <= l->schema->nfeatures; f++) {
        const struct column *col = f < l->schema->nfeatures ? &b->features[f] : &b->vector;
        if (column_state(col, i) != CELL_ABSENT)
            present[f >> 3] |= (uint8_t)(1u << (f & 7));
    }
    return ERR_OK;
}

static bool find_live(const struct snapshot *s, const struct batch *b, size_t i,
                      struct row_ref *ref)
{
    if (b->schema->key == KEY_INT64)
        return snapshot_find_int(s, batch_int_key(b, i), ref);
    size_t len;
    const void *key = column_var(&b->str_keys, i, &len);
    return snapshot_find_str(s, key, len, ref);
}

static bool row_incomplete(const struct batch *b, size_t i)
{
    for (uint32_t f = 0; f < b->schema->nfeatures; f++) {
        if (column_state(&b->features[f], i) == CELL_ABSENT)
            return true;
    }
    return b->schema->dim && column_state(&b->vector, i) == CELL_ABSENT;
}

static enum err spill_row(struct load *l, const struct batch *b, size_t i,
                          const struct snapshot *live, struct err_ctx *ctx)
{
    struct row_ref ref;
    const struct segment *old = NULL;
    uint32_t old_row = 0;
    bool merge = l->opts.mode == LOAD_UPSERT && row_incomplete(b, i), partial;
    if (merge && find_live(live, b, i, &ref)) {
        old = live->views[ref.view].segment;
        old_row = ref.row;
    }
    row_from_batch(&l->row, b, i, old, old_row, &partial);
    if (merge)
        RETURN_NOT_OK(note_partial(l, b, i, old, old_row, ctx));
    struct hash128 hash;
    row_hash_vector(&l->row.row, &hash);
    digest_add(&l->digest, row_digest(&l->row.row));
    l->vectors += l->row.row.vector != NULL;
    return segment_writer_append(l->writer, &l->row.row, ctx);
}

/* Vectors with counted keys and no features, inserted without a look at each row's cells. Where
 * rows of the same keys may have features to keep, row by row it must be. */
static bool plain_run(const struct load *l, const struct batch *b)
{
    return b->borrowed && b->keys_run && (l->schema->nfeatures == 0 || l->opts.mode == LOAD_APPEND);
}

static enum err spill_run(struct load *l, const struct batch *b, struct err_ctx *ctx)
{
    RETURN_NOT_OK(segment_writer_append_run(l->writer, b->borrowed, b->rows, b->first_key, ctx));
    const struct hash128 *hashes = segment_writer_hashes(l->writer, b->rows);
    for (size_t i = 0; i < b->rows; i++) {
        int64_t key = b->first_key + (int64_t)i;
        const float *vector = b->borrowed + i * l->schema->dim;
        digest_add(&l->digest, hashes ? row_digest_hashed(key, &hashes[i])
                                      : row_digest_vector(key, vector, l->schema->dim));
    }
    l->vectors += b->rows;
    return ERR_OK;
}

static size_t side_bytes(const struct load *l)
{
    const struct staged *st = &l->staged[l->nstaged - 1];
    return segment_writer_side_bytes(l->writer) + st->partials.len + st->present.len;
}

static enum err ensure_writer(struct load *l, size_t rows, struct err_ctx *ctx)
{
    if (l->writer && (side_bytes(l) >= SEGMENT_SIDE_BYTES_MAX ||
                      rows > SEGMENT_ROWS_MAX - segment_writer_rows(l->writer)))
        RETURN_NOT_OK(finish_writer(l, ctx));
    return l->writer ? ERR_OK : new_staged(l, ctx);
}

static enum err spill(struct load *l, const struct batch *b, struct err_ctx *ctx)
{
    RETURN_NOT_OK(ensure_writer(l, b->rows, ctx));
    if (plain_run(l, b)) {
        RETURN_NOT_OK(spill_run(l, b, ctx));
    } else {
        enum err e = ERR_OK;
        epoch_enter();
        const struct snapshot *live = collection_snapshot(l->c);
        for (size_t i = 0; i < b->rows && e == ERR_OK; i++)
            e = spill_row(l, b, i, live, ctx);
        epoch_leave();
        RETURN_NOT_OK(e);
    }
    l->rows += b->rows;
    return ERR_OK;
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
    l->rows += b->rows;
    return ERR_OK;
}

static bool fits_inline(const struct load *l, const struct batch *b)
{
    return l->held->rows + b->rows <= INLINE_ROWS_MAX &&
           batch_bytes(l->held) + batch_bytes(b) <= INLINE_BYTES_MAX;
}

static enum err start_spilling(struct load *l, struct err_ctx *ctx)
{
    l->spilled = true;
    l->rows = 0;
    if (l->held->rows)
        RETURN_NOT_OK(spill(l, l->held, ctx));
    batch_free(l->held);
    l->held = NULL;
    return ERR_OK;
}

/* What goes wrong after a drop goes wrong because of it. */
static enum err result(const struct load *l, enum err e, struct err_ctx *ctx)
{
    if (e == ERR_OK || !collection_dropped(l->c))
        return e;
    err_clear(ctx);
    return collection_check_writable(l->c, ctx);
}

static enum err add(struct load *l, const struct batch *b, struct err_ctx *ctx)
{
    RETURN_NOT_OK(batch_validate(b, ctx));
    if (!l->spilled && l->opts.size_hint <= INLINE_BYTES_MAX && fits_inline(l, b))
        return hold(l, b, ctx);
    if (!l->spilled)
        RETURN_NOT_OK(start_spilling(l, ctx));
    return spill(l, b, ctx);
}

enum err load_add(struct load *l, const struct batch *b, struct err_ctx *ctx)
{
    return result(l, collection_dropped(l->c) ? ERR_NOT_FOUND : add(l, b, ctx), ctx);
}

/* ---- duplicates ---- */

/* Marks the rows of a held batch whose key comes again later. Open addressing over row numbers. */
static enum err find_held_duplicates(struct load *l, uint32_t **skip, struct err_ctx *ctx)
{
    const struct batch *b = l->held;
    *skip = NULL;
    if (b->rows < 2 || b->keys_run)
        return ERR_OK;
    size_t nslots = 64;
    while (nslots < b->rows * 2)
        nslots *= 2;
    uint32_t *slots = calloc(nslots, sizeof *slots);
    *skip = calloc(b->rows / 32 + 1, sizeof **skip);
    enum err e = slots && *skip ? ERR_OK : err_no_memory(ctx, nslots * sizeof *slots);
    for (size_t i = 0; i < b->rows && e == ERR_OK; i++) {
        struct row key = {.schema = b->schema}, other = key;
        batch_row_key(b, i, &key);
        size_t at = row_key_hash(&key) & (nslots - 1);
        for (; slots[at]; at = (at + 1) & (nslots - 1)) {
            size_t j = slots[at] - 1;
            batch_row_key(b, j, &other);
            if (!row_keys_equal(&key, &other))
                continue;
            if (!duplicates_allowed(l))
                e = duplicate_error(l, &key, j, i, ctx);
            (*skip)[j / 32] |= 1u << (j % 32);
            break;
        }
        slots[at] = (uint32_t)i + 1;
    }
    free(slots);
    return e;
}

static bool ranges_meet(const struct segment *a, const struct segment *b)
{
    return a->schema->key == KEY_STRING || (a->key_min <= b->key_max && b->key_min <= a->key_max);
}

static bool is_loser(const struct staged *st, uint32_t row)
{
    const uint32_t *list = (const uint32_t *)st->losers.data;
    size_t lo = 0, hi = st->losers.len / sizeof *list;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (list[mid] < row)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < st->losers.len / sizeof *list && list[lo] == row;
}

/* Keys of a later segment that an earlier one has too. New losers go to `extra`. */
static enum err find_crossing(struct load *l, const struct staged *early, const struct staged *late,
                              struct buf *extra, struct err_ctx *ctx)
{
    for (uint32_t row = 0; row < late->rows; row++) {
        struct row key = {.schema = l->schema};
        segment_row_key(late->segment, row, &key);
        uint32_t found =
            l->schema->key == KEY_INT64
                ? segment_find_int(early->segment, key.int_key)
                : segment_find_str(early->segment, key.key, key.key_len, row_key_hash(&key));
        if (!found)
            continue;
        if (!duplicates_allowed(l))
            return duplicate_error(l, &key, early->first_ordinal + found - 1,
                                   late->first_ordinal + row, ctx);
        if (!is_loser(early, found - 1))
            buf_put_u32(extra, found - 1);
    }
    return extra->failed ? err_no_memory(ctx, extra->len) : ERR_OK;
}

static int compare_rows(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void merge_losers(struct staged *st, struct buf *extra)
{
    buf_put(&st->losers, extra->data, extra->len);
    uint32_t *list = (uint32_t *)st->losers.data;
    size_t n = st->losers.len / sizeof *list, kept = 0;
    if (n == 0)
        return;
    qsort(list, n, sizeof *list, compare_rows);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || list[i] != list[kept - 1])
            list[kept++] = list[i];
    }
    st->losers.len = kept * sizeof *list;
}

static enum err find_staged_duplicates(struct load *l, struct err_ctx *ctx)
{
    for (size_t i = 0; i + 1 < l->nstaged; i++) {
        struct buf extra = {0};
        enum err e = ERR_OK;
        for (size_t j = i + 1; j < l->nstaged && e == ERR_OK; j++) {
            if (ranges_meet(l->staged[i].segment, l->staged[j].segment))
                e = find_crossing(l, &l->staged[i], &l->staged[j], &extra, ctx);
        }
        if (e == ERR_OK && extra.len)
            merge_losers(&l->staged[i], &extra);
        buf_deinit(&extra);
        RETURN_NOT_OK(e);
        if (l->staged[i].losers.failed)
            return err_no_memory(ctx, l->staged[i].losers.len);
    }
    return ERR_OK;
}

/* Rows that lose to a later one leave the sums over the load. */
static void forget_losers(struct load *l)
{
    for (size_t i = 0; i < l->nstaged; i++) {
        const struct staged *st = &l->staged[i];
        const uint32_t *rows = (const uint32_t *)st->losers.data;
        for (size_t k = 0; k < st->losers.len / sizeof *rows; k++) {
            row_from_segment(&l->row, st->segment, rows[k]);
            digest_sub(&l->digest, row_digest(&l->row.row));
            l->vectors -= l->row.row.vector != NULL;
        }
    }
}

/* ---- committing ---- */

static enum err move_files(struct load *l, struct err_ctx *ctx)
{
    char path[PATH_CAP], dir[PATH_CAP];
    for (size_t i = 0; i < l->nstaged; i++) {
        struct staged *st = &l->staged[i];
        segment_file_path(l->c, "segments", st->id, path, sizeof path);
        char *copy = strdup(path), *segment_path = strdup(path);
        if (!copy || !segment_path) {
            free(copy);
            free(segment_path);
            return err_no_memory(ctx, strlen(path));
        }
        enum err e = io_rename(l->c->io, st->path, path, ctx);
        if (e != ERR_OK) {
            free(copy);
            free(segment_path);
            return e;
        }
        free(st->path);
        free(st->segment->path);
        st->path = copy;
        st->segment->path = segment_path;
    }
    snprintf(dir, sizeof dir, "%s/segments", l->c->dir);
    return io_sync_dir(l->c->io, dir, ctx);
}

static enum err move_to_segments(struct load *l, struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_enter_dir(l->c, ctx));
    enum err e = move_files(l, ctx);
    collection_leave_dir(l->c);
    return e;
}

static enum err finish_staged(struct load *l, struct err_ctx *ctx)
{
    if (l->writer)
        RETURN_NOT_OK(finish_writer(l, ctx));
    RETURN_NOT_OK(find_staged_duplicates(l, ctx));
    forget_losers(l);
    return l->nstaged ? move_to_segments(l, ctx) : ERR_OK;
}

enum err load_commit(struct load *l, struct commit_result *out, struct err_ctx *ctx)
{
    ASSERT(!l->committed);
    uint32_t *skip = NULL;
    enum err e = l->spilled ? finish_staged(l, ctx) : find_held_duplicates(l, &skip, ctx);
    struct commit_input in = {
        .opts = l->opts,
        .schema = l->schema,
        .rows = l->held,
        .skip = skip,
        .staged = l->staged,
        .nstaged = l->nstaged,
        .rows_received = l->rows,
        .staged_digest = l->digest,
        .staged_vectors = l->vectors,
    };
    if (e == ERR_OK)
        e = collection_commit(l->c, &in, out, ctx);
    /* A record that may have reached the disk must find its segments after a restart. */
    l->committed = e == ERR_OK || collection_read_only(l->c);
    free(skip);
    return result(l, e, ctx);
}

enum err collection_delete_keys(struct collection *c, const struct batch *keys,
                                const struct load_options *opts, struct commit_result *out,
                                struct err_ctx *ctx)
{
    struct commit_input in = {
        .opts = *opts,
        .schema = keys->schema,
        .rows_received = keys->rows,
        .delete_keys = keys,
    };
    in.opts.mode = LOAD_DELETE;
    return collection_commit(c, &in, out, ctx);
}
