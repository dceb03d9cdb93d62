/* Finding the rows of keys in every file that any version needs.
 *
 * A key index leads to the newest row of a key and on to the older ones; those that came with the
 * purge's own version or later are another matter and stay. Threads: the purge's. Failure: files
 * are only read. */
#include "store/purge.h"

#include "store/collection_internal.h"

void purge_forget(struct purge *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct purged_segment *s = &p->list[i];
        merge_output_deinit(&s->out);
        mask_release(s->drop);
        buf_deinit(&s->rows);
        segment_release(s->old);
    }
    free(p->list);
    p->list = NULL;
    p->n = p->cap = 0;
}

static enum err add_segment(struct purge *p, struct segment *s, struct buf *rows,
                            struct err_ctx *ctx)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 8;
        struct purged_segment *grown = realloc(p->list, cap * sizeof *grown);
        if (!grown)
            return err_no_memory(ctx, cap * sizeof *grown);
        p->list = grown;
        p->cap = cap;
    }
    p->list[p->n++] = (struct purged_segment){.old = segment_acquire(s), .rows = *rows};
    *rows = (struct buf){0};
    return ERR_OK;
}

static enum err note_row(struct row_builder *rb, const struct segment *s, uint32_t row,
                         struct buf *rows, struct err_ctx *ctx)
{
    row_from_segment(rb, s, row);
    struct purged_row one = {.row = row, .vector = rb->row.vector, .digest = row_digest(&rb->row)};
    buf_put(rows, &one, sizeof one);
    return rows->failed ? err_no_memory(ctx, rows->len) : ERR_OK;
}

static uint32_t find_key(const struct segment *s, const struct batch *keys, size_t i)
{
    size_t len;
    if (keys->schema->key == KEY_INT64)
        return segment_find_int(s, batch_int_key(keys, i));
    const void *key = column_var(&keys->str_keys, i, &len);
    return segment_find_str(s, key, len, key_hash(key, len));
}

static enum err find_rows(struct purge *p, const struct segment *s, struct row_builder *rb,
                          struct buf *rows, struct err_ctx *ctx)
{
    for (size_t i = 0; i < p->keys->rows; i++) {
        for (uint32_t at = find_key(s, p->keys, i); at; at = segment_older(s, at - 1)) {
            uint64_t version, ordinal;
            segment_seq(s, at - 1, &version, &ordinal);
            if (version >= p->version)
                continue;
            p->seen[i] = 1;
            RETURN_NOT_OK(note_row(rb, s, at - 1, rows, ctx));
        }
    }
    return ERR_OK;
}

static int by_row(const void *a, const void *b)
{
    uint32_t x = ((const struct purged_row *)a)->row, y = ((const struct purged_row *)b)->row;
    return (x > y) - (x < y);
}

/* A key may come twice in the request. */
static void sort_rows(struct buf *rows)
{
    struct purged_row *list = (struct purged_row *)rows->data;
    size_t n = rows->len / sizeof *list, kept = 0;
    if (n)
        qsort(list, n, sizeof *list, by_row);
    for (size_t i = 0; i < n; i++) {
        if (!kept || list[kept - 1].row != list[i].row)
            list[kept++] = list[i];
    }
    rows->len = kept * sizeof *list;
}

static enum err make_drop(struct purged_segment *s, struct err_ctx *ctx)
{
    const struct purged_row *rows = (const struct purged_row *)s->rows.data;
    size_t n = s->rows.len / sizeof *rows;
    bool was;
    s->drop = mask_edit(NULL, s->old->rows);
    for (size_t i = 0; s->drop && i < n; i++) {
        if (!mask_set(s->drop, rows[i].row, &was))
            return err_no_memory(ctx, s->old->rows / 8);
    }
    s->new_rows = s->old->rows - (uint32_t)n;
    return s->drop ? ERR_OK : err_no_memory(ctx, s->old->rows / 8);
}

static enum err look_through(struct purge *p, struct segment *s, struct err_ctx *ctx)
{
    struct row_builder rb;
    struct buf rows = {0};
    RETURN_NOT_OK(row_builder_init(&rb, s->schema, ctx));
    enum err e = find_rows(p, s, &rb, &rows, ctx);
    sort_rows(&rows);
    if (e == ERR_OK && rows.len)
        e = add_segment(p, s, &rows, ctx);
    if (e == ERR_OK && p->n && p->list[p->n - 1].old == s)
        e = make_drop(&p->list[p->n - 1], ctx);
    buf_deinit(&rows);
    row_builder_deinit(&rb);
    return e;
}

enum err purge_find(struct purge *p, struct err_ctx *ctx)
{
    struct buf ids = {0};
    registry_files(p->c, &ids);
    enum err e = ids.failed ? err_no_memory(ctx, ids.len) : ERR_OK;
    const uint64_t *list = (const uint64_t *)ids.data;
    for (size_t i = 0; e == ERR_OK && i < ids.len / sizeof *list; i++) {
        struct segment *s;
        e = collection_segment(p->c, list[i], &s, ctx);
        if (e != ERR_OK)
            break;
        e = look_through(p, s, ctx);
        segment_release(s);
    }
    if (e == ERR_OK)
        e = mapping_check(p->c->dir, ctx);
    buf_deinit(&ids);
    return e;
}
