/* Merging, indexing and renaming the files of a load: see place.h for the picture.
 *
 * Merged are: files of a few megabytes, of which every query would open each; and, when an index is
 * due, all that fit one segment, since one graph of all rows is searched faster than one a part.
 *
 * Threads: the one that commits. Failure: load_put_back undoes the renames and removes what the
 * commit made; after a crash the next start finds the files where no version names them. */
#include "store/place.h"

#include <stdio.h>

#include "base/epoch.h"
#include "base/log.h"
#include "store/collection_internal.h"
#include "store/merge.h"

enum {
    SMALL_FILE_BYTES = 16 << 20,
    SMALL_FILES_MIN = 4, /* fewer stay apart */
    SMALL_GROUP_BYTES = 256 << 20,
};
#define INDEX_GROUP_BYTES (4ull << 30)

void load_set_phase(const struct load_input *in, enum load_phase phase)
{
    if (in->opts.watch)
        atomic_store(&in->opts.watch->phase, (int)phase);
}

static struct build_watch *build_watch(const struct load_input *in)
{
    return in->opts.watch ? in->opts.watch->build : NULL;
}

enum err load_check_cancel(const struct load_input *in, struct err_ctx *ctx)
{
    struct build_watch *w = build_watch(in);
    if (!w || !atomic_load(&w->cancel))
        return ERR_OK;
    return err_set(ctx, ERR_UNAVAILABLE, "the commit was cancelled; nothing was changed");
}

bool load_index_due(const struct load_input *in)
{
    struct collection *c = in->c;
    if (!in->wait_indexed || !c->hooks || !c->hooks->segment_build)
        return false;
    epoch_enter();
    const struct schema *s = collection_snapshot(c)->schema;
    bool due = s->dim && s->index.kind != INDEX_FLAT;
    epoch_leave();
    return due;
}

/* ---- merging ---- */

static bool may_merge(const struct incoming *s, bool indexed)
{
    return !s->superseded && !s->scratch && s->rows &&
           s->segment->bytes <= (indexed ? INDEX_GROUP_BYTES : SMALL_FILE_BYTES);
}

static bool fill_mask(const roaring_bitmap_t *bits, uint32_t rows, struct mask **out)
{
    bool was, ok = (*out = mask_edit(NULL, rows)) != NULL;
    roaring_uint32_iterator_t *it = ok ? roaring_create_iterator(bits) : NULL;
    ok = it != NULL;
    for (; ok && it->has_value; roaring_advance_uint32_iterator(it))
        ok = mask_set(*out, it->current_value, &was);
    if (it)
        roaring_free_uint32_iterator(it);
    return ok;
}

static enum err fill_input(const struct incoming *s, struct merge_input *out, struct mask **drop,
                           struct err_ctx *ctx)
{
    *out = (struct merge_input){
        .segment = s->segment, .rows = s->rows, .base_ordinal = s->base_ordinal};
    if (!s->lost)
        return ERR_OK;
    if (!fill_mask(s->lost, s->rows, drop))
        return err_no_memory(ctx, s->rows / 8);
    out->drop = *drop;
    return ERR_OK;
}

/* The notes of one input under its rows' new numbers. */
static enum err move_partials(const struct incoming *from, const struct merge_map *map,
                              struct incoming *to, struct err_ctx *ctx)
{
    size_t bytes = present_bytes(from->segment->schema);
    for (size_t i = 0; i < from->npartials; i++) {
        struct partial p = from->partials[i];
        if (!roaring_bitmap_contains(map->from, p.row))
            continue;
        uint64_t rank = roaring_bitmap_rank(map->from, p.row);
        if (!roaring_bitmap_select(map->to, (uint32_t)rank - 1, &p.row))
            return err_set(ctx, ERR_CORRUPT, "a merged segment lost a row");
        buf_put(&to->own_partials, &p, sizeof p);
        buf_put(&to->own_present, from->present + i * bytes, bytes);
    }
    bool failed = to->own_partials.failed || to->own_present.failed;
    return failed ? err_no_memory(ctx, to->own_partials.len) : ERR_OK;
}

static enum err move_notes(const struct incoming *from, const struct merge_map *map,
                           struct incoming *to, struct err_ctx *ctx)
{
    digest_add(&to->digest, from->digest);
    to->vectors += from->vectors;
    RETURN_NOT_OK(move_partials(from, map, to, ctx));
    if (!from->past)
        return ERR_OK;
    roaring_bitmap_t *moved = merge_map_rows(map, from->past);
    if (moved && to->past)
        roaring_bitmap_or_inplace(to->past, moved);
    if (moved && !to->past)
        to->past = moved;
    else if (moved)
        roaring_bitmap_free(moved);
    return moved ? ERR_OK : err_no_memory(ctx, 64);
}

static enum err adopt_merged(struct load_input *in, size_t from, size_t n, struct merge_output *out,
                             struct err_ctx *ctx)
{
    struct incoming *to;
    RETURN_NOT_OK(load_input_add(in, &to, ctx));
    to->segment = segment_acquire(out->segment);
    to->rows = out->segment->rows;
    if (!(to->path = strdup(out->path)))
        return err_no_memory(ctx, strlen(out->path));
    enum err e = ERR_OK;
    for (size_t i = 0; i < n && e == ERR_OK; i++)
        e = move_notes(&in->seg[from + i], &out->maps[i], to, ctx);
    to->partials = (const struct partial *)to->own_partials.data;
    to->npartials = to->own_partials.len / sizeof *to->partials;
    to->present = to->own_present.data;
    for (size_t i = 0; i < n && e == ERR_OK; i++)
        in->seg[from + i].superseded = true;
    return e;
}

static enum err merge_group(struct load_input *in, size_t from, size_t n, struct err_ctx *ctx)
{
    struct merge_output out = {0};
    struct merge_input *inputs = calloc(n, sizeof *inputs);
    struct mask **drops = calloc(n, sizeof(*drops));
    struct build_watch *w = build_watch(in);
    size_t before = in->n;
    enum err e = inputs && drops ? ERR_OK : err_no_memory(ctx, n * sizeof *inputs);
    for (size_t i = 0; i < n && e == ERR_OK; i++)
        e = fill_input(&in->seg[from + i], &inputs[i], &drops[i], ctx);
    if (e == ERR_OK && merge_fits(inputs, n)) {
        e = merge_segments(in->c, inputs, n, in->seg[from].segment->schema, w ? &w->cancel : NULL,
                           &out, ctx);
        if (e == ERR_OK) {
            e = adopt_merged(in, from, n, &out, ctx);
            if (e != ERR_OK && (in->n == before || !in->seg[before].path))
                merge_discard(in->c, &out);
            merge_output_deinit(&out);
        }
    }
    for (size_t i = 0; drops && i < n; i++)
        mask_release(drops[i]);
    free(drops);
    free(inputs);
    return e;
}

static bool same_schema(const struct incoming *a, const struct incoming *b)
{
    return a->segment->schema->nfeatures == b->segment->schema->nfeatures;
}

enum err load_merge(struct load_input *in, struct err_ctx *ctx)
{
    bool indexed = load_index_due(in);
    size_t all = in->n;
    for (size_t from = 0, n; from < all; from += n ? n : 1) {
        uint64_t bytes = 0, limit = indexed ? INDEX_GROUP_BYTES : SMALL_GROUP_BYTES;
        for (n = 0; from + n < all && may_merge(&in->seg[from + n], indexed) &&
                    same_schema(&in->seg[from], &in->seg[from + n]);
             n++) {
            bytes += in->seg[from + n].segment->bytes;
            if (n && bytes > limit)
                break;
        }
        if (n < (indexed ? 2 : SMALL_FILES_MIN))
            continue;
        RETURN_NOT_OK(load_check_cancel(in, ctx));
        enum err e = merge_group(in, from, n, ctx);
        if (e == ERR_NO_SPACE) { /* the files do as they are; compaction comes back to them */
            log_warn("collection %s: no room on the disk to merge %zu files of a load: %s",
                     collection_name(in->c), n, ctx->detail);
            err_clear(ctx);
            return ERR_OK;
        }
        RETURN_NOT_OK(e);
    }
    return ERR_OK;
}

/* ---- indexing ---- */

enum err load_build_indexes(struct load_input *in, struct err_ctx *ctx)
{
    struct collection *c = in->c;
    if (!load_index_due(in))
        return ERR_OK;
    load_set_phase(in, LOAD_INDEXING);
    for (size_t i = 0; i < in->n; i++) {
        struct incoming *s = &in->seg[i];
        if (s->superseded || s->scratch || s->indexed)
            continue;
        RETURN_NOT_OK(load_check_cancel(in, ctx));
        enum err e = c->hooks->segment_build(c->hooks->arg, c, s->segment, build_watch(in), ctx);
        if (e != ERR_OK)
            RETURN_NOT_OK(load_check_cancel(in, ctx));
        RETURN_NOT_OK(e);
        s->indexed = true;
    }
    return ERR_OK;
}

/* ---- renaming ---- */

static enum err set_path(struct incoming *s, const char *path, struct err_ctx *ctx)
{
    char *copy = strdup(path), *segment_path = strdup(path);
    if (!copy || !segment_path) {
        free(copy);
        free(segment_path);
        return err_no_memory(ctx, strlen(path));
    }
    free(s->segment->path);
    s->segment->path = segment_path;
    s->home = s->path;
    s->path = copy;
    return ERR_OK;
}

static enum err place_one(struct collection *c, struct incoming *s, struct err_ctx *ctx)
{
    char path[PATH_CAP];
    segment_file_path(c, "segments", s->segment->id, path, sizeof path);
    RETURN_NOT_OK(io_rename(c->io, s->path, path, ctx));
    return set_path(s, path, ctx);
}

static bool to_place(const struct incoming *s)
{
    return !s->superseded && !s->scratch && !s->home;
}

static enum err place_all(struct load_input *in, struct err_ctx *ctx)
{
    char dir[PATH_CAP];
    bool any = false;
    for (size_t i = 0; i < in->n; i++) {
        if (!to_place(&in->seg[i]))
            continue;
        RETURN_NOT_OK(place_one(in->c, &in->seg[i], ctx));
        any = true;
    }
    snprintf(dir, sizeof dir, "%s/segments", in->c->dir);
    return any ? io_sync_dir(in->c->io, dir, ctx) : ERR_OK;
}

enum err load_place(struct load_input *in, struct err_ctx *ctx)
{
    RETURN_NOT_OK(collection_enter_dir(in->c, ctx));
    enum err e = place_all(in, ctx);
    collection_leave_dir(in->c);
    return e;
}

/* ---- afterwards ---- */

static void unlink_file(struct collection *c, const char *path)
{
    struct err_ctx why;
    err_clear(&why);
    if (io_unlink(c->io, path, &why) != ERR_OK)
        log_warn("%s stays behind until the next start: %s", path, why.detail);
}

static void move_home(struct collection *c, struct incoming *s)
{
    struct err_ctx why;
    err_clear(&why);
    if (!s->home)
        return;
    if (io_rename(c->io, s->path, s->home, &why) != ERR_OK) {
        log_warn("%s stays behind until the next start: %s", s->path, why.detail);
        return;
    }
    char *segment_path = strdup(s->home);
    if (segment_path) {
        free(s->segment->path);
        s->segment->path = segment_path;
    }
    free(s->path);
    s->path = s->home;
    s->home = NULL;
}

static void put_back_one(struct collection *c, struct incoming *s)
{
    if (s->indexed && c->hooks && c->hooks->segment_removed)
        c->hooks->segment_removed(c->hooks->arg, c, s->segment->id);
    struct err_ctx why;
    err_clear(&why);
    if (s->scratch || !s->path || collection_enter_dir(c, &why) != ERR_OK)
        return;
    if (s->staged)
        move_home(c, s);
    else
        unlink_file(c, s->path);
    collection_leave_dir(c);
}

void load_put_back(struct load_input *in)
{
    for (size_t i = 0; i < in->n; i++)
        put_back_one(in->c, &in->seg[i]);
}

void load_settle(struct load_input *in)
{
    for (size_t i = 0; i < in->n; i++) {
        struct incoming *s = &in->seg[i];
        if (s->superseded || s->scratch) {
            if (!s->staged || s->home)
                put_back_one(in->c, s);
            continue;
        }
        if (!s->staged)
            continue;
        s->staged->taken = true;
        free(s->staged->path);
        s->staged->path = s->path;
        s->path = NULL;
    }
}
