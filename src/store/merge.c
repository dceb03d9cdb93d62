/* Writing a merge: the order first (merge_order.h), then the file, section by section.
 *
 *   vectors | nulls | keys | key index | strips | variable cells | runs
 *
 * Each section is one pass over the pieces; what lies in a row in an input is put in one go, the
 * rest gathers in a scratch buffer. The key index is built in memory while keys are put, for which
 * a key of the output is looked up where it lies in its input.
 *
 * Threads: one a merge; inputs are only read. Failure: the file is unlinked; a page of an input
 * that could not be read fails the merge at its end (mapping.h). */
#include "store/merge.h"

#include <stdio.h>

#include "base/log.h"
#include "store/collection_internal.h"
#include "store/key_index.h"
#include "store/merge_order.h"
#include "store/segment_format.h"
#include "store/segment_writer.h"

enum {
    SCRATCH_BYTES = 256 << 10,
    VECTOR_STEP_BYTES = 16 << 20, /* between looks at `cancel` */
};

struct merge {
    struct collection *c;
    const struct merge_input *in;
    size_t n;
    struct schema *schema;
    const atomic_bool *cancel;
    struct merge_order order;
    struct segment_sections *file;
    struct segment_totals totals;
    struct key_index index;
    struct buf scratch;
};

static bool cancelled(const struct merge *m)
{
    return m->cancel && atomic_load_explicit(m->cancel, memory_order_relaxed);
}

static enum err stopped(struct err_ctx *ctx)
{
    return err_set(ctx, ERR_UNAVAILABLE, "the merge was stopped");
}

/* ---- passes over the rows ---- */

typedef enum err (*piece_fn)(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                             const void *arg, struct err_ctx *ctx);

static enum err each_piece(struct merge *m, piece_fn fn, const void *arg, struct err_ctx *ctx)
{
    size_t n;
    const struct merge_piece *p = merge_pieces(&m->order, &n);
    for (size_t i = 0; i < n; i++) {
        if (cancelled(m))
            return stopped(ctx);
        RETURN_NOT_OK(
            fn(m, m->in[p[i].input].segment, p[i].row, merge_piece_rows(&m->order, i), arg, ctx));
    }
    return ERR_OK;
}

/* Puts what has gathered, if it is `least` bytes or more. */
static enum err flush(struct merge *m, size_t least, struct err_ctx *ctx)
{
    if (m->scratch.failed)
        return err_no_memory(ctx, m->scratch.len);
    if (m->scratch.len < least)
        return ERR_OK;
    enum err e = segment_sections_put(m->file, m->scratch.data, m->scratch.len, ctx);
    buf_reset(&m->scratch);
    return e;
}

static enum err put_section(struct merge *m, uint32_t kind, uint32_t column, piece_fn fn,
                            const void *arg, struct err_ctx *ctx)
{
    RETURN_NOT_OK(segment_sections_begin(m->file, kind, column, ctx));
    RETURN_NOT_OK(each_piece(m, fn, arg, ctx));
    return flush(m, 0, ctx);
}

/* ---- vectors ---- */

static enum err put_vectors(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                            const void *arg, struct err_ctx *ctx)
{
    (void)arg;
    size_t width = m->schema->dim * sizeof(float);
    uint32_t run, most = (uint32_t)(VECTOR_STEP_BYTES / width) + 1;
    for (uint32_t step; n; row += step, n -= step) {
        step = n < most ? n : most;
        if (cancelled(m))
            return stopped(ctx);
        RETURN_NOT_OK(
            segment_sections_put(m->file, segment_vector_run(s, row, &run), step * width, ctx));
    }
    return ERR_OK;
}

static bool null_vector(const struct segment *s, uint32_t row)
{
    return segment_vector_nulls(s, row >> 6) >> (row & 63) & 1;
}

/* Sets the bits of the output's rows that have no vector; false when all have one. */
static bool mark_null_vectors(const struct merge *m, uint64_t *words)
{
    bool any = false;
    size_t n;
    const struct merge_piece *p = merge_pieces(&m->order, &n);
    for (size_t i = 0; i < n; i++) {
        const struct segment *s = m->in[p[i].input].segment;
        uint32_t rows = s->vector_nulls ? merge_piece_rows(&m->order, i) : 0;
        for (uint32_t k = 0; k < rows; k++) {
            uint32_t to = p[i].first + k;
            if (!null_vector(s, p[i].row + k))
                continue;
            words[to >> 6] |= 1ull << (to & 63);
            any = true;
        }
    }
    return any;
}

static enum err put_vector_nulls(struct merge *m, struct err_ctx *ctx)
{
    size_t nwords = ((size_t)m->order.rows + 63) / 64;
    uint64_t *words = calloc(nwords + 1, sizeof *words);
    if (!words)
        return err_no_memory(ctx, nwords * sizeof *words);
    enum err e = ERR_OK;
    if (mark_null_vectors(m, words)) {
        e = segment_sections_begin(m->file, SECTION_VECTOR_NULLS, 0, ctx);
        if (e == ERR_OK)
            e = segment_sections_put(m->file, words, nwords * sizeof *words, ctx);
    }
    free(words);
    return e;
}

static bool all_hashed(const struct merge *m)
{
    bool all = true;
    for (size_t i = 0; i < m->n; i++)
        all = all && m->in[i].segment->vector_hashes;
    return all;
}

static enum err put_hashes(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                           const void *arg, struct err_ctx *ctx)
{
    (void)arg;
    return segment_sections_put(m->file, s->vector_hashes + row, n * sizeof(struct hash128), ctx);
}

static enum err put_vector_sections(struct merge *m, struct err_ctx *ctx)
{
    if (!m->schema->dim)
        return ERR_OK;
    RETURN_NOT_OK(put_section(m, SECTION_VECTORS, 0, put_vectors, NULL, ctx));
    if (all_hashed(m))
        RETURN_NOT_OK(put_section(m, SECTION_VECTOR_HASHES, 0, put_hashes, NULL, ctx));
    return put_vector_nulls(m, ctx);
}

/* ---- keys ---- */

/* True when the keys of the output count up by one, so that they need no index. */
static bool keys_count_up(const struct merge *m)
{
    size_t n;
    const struct merge_piece *p = merge_pieces(&m->order, &n);
    int64_t before = 0;
    for (size_t i = 0; i < n; i++) {
        const struct segment *s = m->in[p[i].input].segment;
        uint32_t rows = merge_piece_rows(&m->order, i), look = s->keys_run ? 1 : rows;
        for (uint32_t k = 0; k < look; k++) {
            int64_t key = segment_key_int(s, p[i].row + k);
            if ((i || k) && (key == INT64_MIN || key - 1 != before))
                return false;
            before = key;
        }
        before = segment_key_int(s, p[i].row + rows - 1);
    }
    return true;
}

static enum err put_int_keys(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                             const void *arg, struct err_ctx *ctx)
{
    (void)arg;
    for (uint32_t k = 0; k < n; k++) {
        int64_t key = segment_key_int(s, row + k);
        m->totals.key_min = key < m->totals.key_min ? key : m->totals.key_min;
        m->totals.key_max = key > m->totals.key_max ? key : m->totals.key_max;
        buf_put_u64(&m->scratch, (uint64_t)key);
        RETURN_NOT_OK(flush(m, SCRATCH_BYTES, ctx));
    }
    return ERR_OK;
}

static enum err put_key_offsets(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                                const void *arg, struct err_ctx *ctx)
{
    uint64_t *end = (uint64_t *)arg;
    for (uint32_t k = 0; k < n; k++) {
        size_t len;
        segment_key_str(s, row + k, &len);
        buf_put_u64(&m->scratch, *end += len);
        RETURN_NOT_OK(flush(m, SCRATCH_BYTES, ctx));
    }
    return ERR_OK;
}

static enum err put_key_bytes(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                              const void *arg, struct err_ctx *ctx)
{
    (void)arg;
    for (uint32_t k = 0; k < n; k++) {
        size_t len;
        const void *key = segment_key_str(s, row + k, &len);
        buf_put(&m->scratch, key, len);
        RETURN_NOT_OK(flush(m, SCRATCH_BYTES, ctx));
    }
    return ERR_OK;
}

/* Where a row of the output lies in its input. */
static void find_source(const struct merge *m, uint32_t row, const struct segment **s,
                        uint32_t *source)
{
    size_t n, lo = 0;
    const struct merge_piece *p = merge_pieces(&m->order, &n);
    for (size_t hi = n; hi - lo > 1;) {
        size_t mid = lo + (hi - lo) / 2;
        if (p[mid].first <= row)
            lo = mid;
        else
            hi = mid;
    }
    *s = m->in[p[lo].input].segment;
    *source = p[lo].row + (row - p[lo].first);
}

static bool row_has_key(const void *arg, uint32_t row, const struct row *key)
{
    const struct merge *m = arg;
    struct row other = {.schema = m->schema};
    const struct segment *s;
    uint32_t source;
    find_source(m, row, &s, &source);
    segment_row_key(s, source, &other);
    return row_keys_equal(&other, key);
}

static enum err index_keys(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                           const void *arg, struct err_ctx *ctx)
{
    uint32_t *next = (uint32_t *)arg;
    for (uint32_t k = 0; k < n; k++) {
        struct row key = {.schema = m->schema};
        segment_row_key(s, row + k, &key);
        RETURN_NOT_OK(key_index_add(&m->index, (*next)++, &key, row_has_key, m, ctx));
    }
    return ERR_OK;
}

static enum err put_key_index(struct merge *m, struct err_ctx *ctx)
{
    uint32_t next = 0;
    RETURN_NOT_OK(key_index_init(&m->index, m->order.rows, ctx));
    m->totals.key_slots = m->index.nslots;
    RETURN_NOT_OK(each_piece(m, index_keys, &next, ctx));
    RETURN_NOT_OK(key_index_write(&m->index, m->file, ctx));
    key_index_deinit(&m->index);
    return ERR_OK;
}

static void note_run(struct merge *m)
{
    size_t n;
    const struct merge_piece *p = merge_pieces(&m->order, &n);
    m->totals.keys_run = true;
    if (n == 0)
        return;
    m->totals.first_key = segment_key_int(m->in[p[0].input].segment, p[0].row);
    m->totals.key_min = m->totals.first_key;
    m->totals.key_max = m->totals.first_key + (int64_t)(m->order.rows - 1);
}

static enum err put_key_sections(struct merge *m, struct err_ctx *ctx)
{
    if (m->schema->key == KEY_INT64) {
        if (keys_count_up(m)) {
            note_run(m);
            return ERR_OK;
        }
        m->totals.key_min = INT64_MAX;
        m->totals.key_max = INT64_MIN;
        RETURN_NOT_OK(put_section(m, SECTION_INT_KEYS, 0, put_int_keys, NULL, ctx));
    } else {
        uint64_t end = 0;
        buf_put_u64(&m->scratch, 0);
        RETURN_NOT_OK(put_section(m, SECTION_KEY_OFFSETS, 0, put_key_offsets, &end, ctx));
        RETURN_NOT_OK(put_section(m, SECTION_KEY_BYTES, 0, put_key_bytes, NULL, ctx));
    }
    return put_key_index(m, ctx);
}

/* ---- features ---- */

/* `arg` builds strips for segments that know fewer features. */
static enum err put_strips(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                           const void *arg, struct err_ctx *ctx)
{
    struct row_builder *rb = (struct row_builder *)arg;
    size_t width = m->schema->strip_bytes;
    if (s->schema->nfeatures == m->schema->nfeatures) {
        RETURN_NOT_OK(flush(m, 1, ctx));
        return segment_sections_put(m->file, segment_strip(s, row), n * width, ctx);
    }
    for (uint32_t k = 0; k < n; k++) {
        row_from_segment(rb, s, row + k);
        buf_put(&m->scratch, rb->strip, width);
        RETURN_NOT_OK(flush(m, SCRATCH_BYTES, ctx));
    }
    return ERR_OK;
}

struct var_pass {
    uint32_t feature;
    uint64_t *end;
};

static enum err put_var_offsets(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                                const void *arg, struct err_ctx *ctx)
{
    const struct var_pass *v = arg;
    for (uint32_t k = 0; k < n; k++) {
        size_t len;
        if (segment_cell(s, row + k, v->feature, &len))
            *v->end += len;
        buf_put_u32(&m->scratch, (uint32_t)*v->end);
        RETURN_NOT_OK(flush(m, SCRATCH_BYTES, ctx));
    }
    if (*v->end > UINT32_MAX)
        return err_set(ctx, ERR_UNPROCESSABLE, "the cells of feature '%s' don't fit one segment",
                       m->schema->features[v->feature].name);
    return ERR_OK;
}

static enum err put_var_bytes(struct merge *m, const struct segment *s, uint32_t row, uint32_t n,
                              const void *arg, struct err_ctx *ctx)
{
    const struct var_pass *v = arg;
    for (uint32_t k = 0; k < n; k++) {
        size_t len;
        const void *data = segment_cell(s, row + k, v->feature, &len);
        if (data)
            buf_put(&m->scratch, data, len);
        RETURN_NOT_OK(flush(m, SCRATCH_BYTES, ctx));
    }
    return ERR_OK;
}

static enum err put_strip_section(struct merge *m, struct err_ctx *ctx)
{
    struct row_builder rb;
    if (!m->schema->strip_bytes)
        return ERR_OK;
    RETURN_NOT_OK(row_builder_init(&rb, m->schema, ctx));
    enum err e = put_section(m, SECTION_STRIPS, 0, put_strips, &rb, ctx);
    row_builder_deinit(&rb);
    return e;
}

static enum err put_feature_sections(struct merge *m, struct err_ctx *ctx)
{
    RETURN_NOT_OK(put_strip_section(m, ctx));
    for (uint32_t f = 0; f < m->schema->nfeatures; f++) {
        uint64_t end = 0;
        struct var_pass v = {.feature = f, .end = &end};
        uint32_t column = m->schema->features[f].var_index;
        if (m->schema->features[f].width)
            continue;
        buf_put_u32(&m->scratch, 0);
        RETURN_NOT_OK(put_section(m, SECTION_VAR_OFFSETS, column, put_var_offsets, &v, ctx));
        RETURN_NOT_OK(put_section(m, SECTION_VAR_BYTES, column, put_var_bytes, &v, ctx));
    }
    return ERR_OK;
}

/* ---- the file ---- */

bool merge_fits(const struct merge_input *in, size_t n)
{
    uint64_t rows = 0;
    for (size_t i = 0; i < n; i++)
        rows += in[i].rows;
    if (rows > SEGMENT_ROWS_MAX)
        return false;
    /* An older schema's variable columns are the first ones of a later one. */
    for (uint32_t v = 0;; v++) {
        uint64_t bytes = 0;
        bool any = false;
        for (size_t i = 0; i < n; i++) {
            bool has = v < in[i].segment->schema->nvar;
            any |= has;
            bytes += has ? in[i].segment->var_lengths[v] : 0;
        }
        if (!any || bytes > UINT32_MAX)
            return !any;
    }
}

static uint64_t size_hint(const struct merge *m)
{
    return (uint64_t)m->order.rows * m->schema->dim * sizeof(float);
}

static enum err write_file(struct merge *m, const char *path, uint64_t id, struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_enter_dir(m->c, ctx));
    enum err e =
        segment_sections_new(m->c->io, path, m->c->id, id, m->schema, size_hint(m), &m->file, ctx);
    collection_leave_dir(m->c);
    RETURN_NOT_OK(e);
    m->totals.rows = m->order.rows;
    m->totals.runs = (uint32_t)(m->order.runs.len / sizeof(struct seq_run));
    RETURN_NOT_OK(put_vector_sections(m, ctx));
    RETURN_NOT_OK(put_key_sections(m, ctx));
    RETURN_NOT_OK(put_feature_sections(m, ctx));
    RETURN_NOT_OK(segment_sections_begin(m->file, SECTION_RUNS, 0, ctx));
    RETURN_NOT_OK(segment_sections_put(m->file, m->order.runs.data, m->order.runs.len, ctx));
    RETURN_NOT_OK(segment_sections_finish(m->file, &m->totals, ctx));
    return mapping_check(m->c->dir, ctx);
}

static enum err write_and_open(struct merge *m, struct merge_output *out, struct err_ctx *ctx)
{
    RETURN_NOT_OK(write_file(m, out->path, out->id, ctx));
    RETURN_NOT_OK(segment_open(out->path, m->c->id, &out->segment, ctx));
    segment_set_scrubbed(out->segment);
    return ERR_OK;
}

static void merge_deinit(struct merge *m)
{
    segment_sections_free(m->file);
    key_index_deinit(&m->index);
    merge_order_deinit(&m->order);
    buf_deinit(&m->scratch);
}

static enum err prepare_output(struct collection *c, size_t n, struct merge_output *out,
                               struct err_ctx *ctx)
{
    char path[PATH_CAP];
    *out = (struct merge_output){.id = atomic_fetch_add(&c->next_segment_id, 1), .nmaps = n};
    segment_file_path(c, "staging", out->id, path, sizeof path);
    out->path = strdup(path);
    out->maps = calloc(n + 1, sizeof *out->maps);
    return out->path && out->maps ? ERR_OK : err_no_memory(ctx, n * sizeof *out->maps);
}

enum err merge_segments(struct collection *c, const struct merge_input *in, size_t n,
                        struct schema *schema, const atomic_bool *cancel, struct merge_output *out,
                        struct err_ctx *ctx)
{
    struct merge m = {.c = c, .in = in, .n = n, .schema = schema, .cancel = cancel};
    enum err e = prepare_output(c, n, out, ctx);
    if (e == ERR_OK)
        e = merge_order_make(in, n, &m.order, out->maps, ctx);
    if (e == ERR_OK && m.order.rows > SEGMENT_ROWS_MAX)
        e = err_set(ctx, ERR_UNPROCESSABLE, "%u rows don't fit one segment", m.order.rows);
    if (e == ERR_OK)
        e = write_and_open(&m, out, ctx);
    bool created = m.file != NULL;
    merge_deinit(&m);
    if (e != ERR_OK) {
        if (created)
            merge_discard(c, out);
        merge_output_deinit(out);
    }
    return e;
}

/* ---- what becomes of it ---- */

/* Takes the paths over, after an error too. */
static enum err place(struct collection *c, struct merge_output *out, char *path,
                      char *segment_path, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    enum err e = io_rename(c->io, out->path, path, ctx);
    if (e != ERR_OK) {
        free(path);
        free(segment_path);
        return e;
    }
    free(out->path);
    free(out->segment->path);
    out->path = path;
    out->segment->path = segment_path;
    snprintf(dir, sizeof dir, "%s/segments", c->dir);
    return io_sync_dir(c->io, dir, ctx);
}

enum err merge_place(struct collection *c, struct merge_output *out, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    segment_file_path(c, "segments", out->id, path, sizeof path);
    char *ours = strdup(path), *its = strdup(path);
    enum err e = ours && its ? collection_enter_dir(c, ctx) : err_no_memory(ctx, strlen(path));
    if (e != ERR_OK) {
        free(ours);
        free(its);
        return e;
    }
    e = place(c, out, ours, its, ctx);
    collection_leave_dir(c);
    return e;
}

void merge_discard(struct collection *c, struct merge_output *out)
{
    struct err_ctx why;
    err_clear(&why);
    if (collection_enter_dir(c, &why) != ERR_OK)
        return;
    if (io_unlink(c->io, out->path, &why) != ERR_OK)
        log_warn("%s stays behind until the next start: %s", out->path, why.detail);
    collection_leave_dir(c);
}

void merge_output_deinit(struct merge_output *out)
{
    for (size_t i = 0; out->maps && i < out->nmaps; i++)
        merge_map_deinit(&out->maps[i]);
    free(out->maps);
    segment_release(out->segment);
    free(out->path);
    *out = (struct merge_output){0};
}
