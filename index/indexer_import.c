/* Structures that were built elsewhere: a file of FAISS on its way to a segment.
 *
 *   bytes ─ index/<segment>-<n>.faiss ─ urgent job ─ child: build-index --import ─>
 * <segment>.import.ann └─ renamed to <segment>.ann, verified, attached: as one that was built here
 *
 * The child compares file and rows (build_import.c) and writes the structure under another name, so
 * that a build of the queue, which stands still meanwhile, and this one do not meet; once the
 * import is attached, that build is given up. The collection is searched as before until then.
 *
 * What a crash leaves of the files is removed by the next build (remove_orphans).
 *
 * Threads: an import belongs to one thread at a time. Failure: the file of FAISS goes, the segment
 * keeps what it had. */
#include "index/indexer_internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/epoch.h"
#include "base/log.h"
#include "index/faiss_export.h"

enum { OTHER_BYTES = 1 << 20, ROW_BYTES = 64 };

struct index_import {
    struct indexer *ix;
    struct collection *collection;
    struct segment *segment;
    struct index_plan plan;
    uint32_t vectors;
    uint64_t bytes, bytes_max;
    char *path;
    struct io_stream *stream;
};

/* What a file over the segment's rows can need: vectors, ids, links and what is said of each. */
static uint64_t largest(const struct index_import *m)
{
    uint64_t dim = m->segment->schema->dim, nlist = m->plan.nlist;
    uint64_t row = dim * sizeof(float) + 4ull * m->plan.m * sizeof(uint32_t) + ROW_BYTES;
    return m->vectors * row + nlist * (dim * sizeof(float) + ROW_BYTES) + OTHER_BYTES;
}

static enum err check_plan(const struct index_import *m, struct err_ctx *ctx)
{
    const char *name = collection_name(m->collection);
    if (m->plan.kind != INDEX_FLAT)
        return ERR_OK;
    return err_set(ctx, ERR_CONFLICT,
                   "the index settings of %s give its %u vectors no hnsw or ivf index (kind flat, "
                   "or auto and too few, or fewer than %u): POST /v1/collections/%s/index with the "
                   "kind of the file first",
                   name, m->vectors, m->ix->limits.rows_min, name);
}

static enum err open_stream(struct index_import *m, struct err_ctx *ctx)
{
    static atomic_uint numbers;
    char *dir = NULL;
    unsigned long long id = m->segment->id;
    if (asprintf(&dir, "%s/index", collection_dir(m->collection)) < 0)
        return err_no_memory(ctx, 64);
    if (asprintf(&m->path, "%s/%016llx-%u.faiss", dir, id, atomic_fetch_add(&numbers, 1)) < 0) {
        m->path = NULL;
        free(dir);
        return err_no_memory(ctx, 64);
    }
    enum err e = collection_enter_dir(m->collection, ctx);
    if (e == ERR_OK) {
        e = io_mkdir(m->ix->io, dir, ctx);
        if (e == ERR_OK)
            e = io_stream_open(m->ix->io, m->path, 0, &m->stream, ctx);
        collection_leave_dir(m->collection);
    }
    free(dir);
    return e;
}

static enum err find_segment(struct index_import *m, struct err_ctx *ctx)
{
    uint32_t view = 0;
    epoch_enter();
    struct snapshot *s = snapshot_acquire(collection_snapshot(m->collection));
    epoch_leave();
    enum err e = faiss_export_view(m->collection, s, &view, ctx);
    if (e == ERR_OK)
        m->segment = segment_acquire(s->views[view].segment);
    snapshot_release(s);
    return e;
}

static enum err begin(struct index_import *m, struct err_ctx *ctx)
{
    if (!m->ix->io)
        return err_set(ctx, ERR_UNAVAILABLE, "this indexer takes no files");
    RETURN_NOT_OK(find_segment(m, ctx));
    m->vectors = segment_vectors(m->segment);
    m->plan = plan_now(m->ix, m->collection, m->vectors);
    RETURN_NOT_OK(check_plan(m, ctx));
    m->bytes_max = largest(m);
    return open_stream(m, ctx);
}

enum err index_import_new(struct indexer *ix, struct collection *c, struct index_import **out,
                          struct err_ctx *ctx)
{
    struct index_import *m = calloc(1, sizeof(*m));
    if (!m)
        return err_no_memory(ctx, sizeof(*m));
    m->ix = ix;
    m->collection = collection_acquire(c);
    atomic_fetch_add(&ix->imports, 1);
    *out = m;
    return ERR_OK;
}

enum err index_import_put(struct index_import *m, const void *data, size_t n, struct err_ctx *ctx)
{
    if (!m->stream)
        RETURN_NOT_OK(begin(m, ctx));
    m->bytes += n;
    if (m->bytes > m->bytes_max)
        return err_set(
            ctx, ERR_TOO_LARGE,
            "the file is larger than an index over the %u vectors of dim %u can be (%llu "
            "bytes): it is that of other rows, or of another kind",
            m->vectors, m->segment->schema->dim, (unsigned long long)m->bytes_max);
    return io_stream_put(m->stream, data, n, ctx);
}

/* Another change of the settings, or of the rows, may have come meanwhile. */
static enum err check_attached(const struct index_import *m, struct err_ctx *ctx)
{
    if (has_planned(m->segment, &m->plan))
        return ERR_OK;
    return err_set(ctx, ERR_CONFLICT,
                   "the index settings of %s were changed while the file was taken in: it is not "
                   "used",
                   collection_name(m->collection));
}

enum err index_import_finish(struct index_import *m, struct err_ctx *ctx)
{
    if (!m->stream)
        return err_set(ctx, ERR_INVALID, "the body is empty: send a file of FAISS");
    RETURN_NOT_OK(io_stream_finish(m->stream, ctx));
    RETURN_NOT_OK(
        build_imported(m->ix, m->collection, m->segment, m->vectors, &m->plan, m->path, ctx));
    queue_forget(m->ix, m->segment);
    RETURN_NOT_OK(check_attached(m, ctx));
    log_info("index of %s, segment %016llx: taken from a FAISS file of %llu bytes",
             collection_name(m->collection), (unsigned long long)m->segment->id,
             (unsigned long long)m->bytes);
    return ERR_OK;
}

void index_import_free(void *arg)
{
    struct index_import *m = arg;
    if (!m)
        return;
    if (m->stream) {
        io_stream_close(m->stream);
        remove_file(m->collection, m->path);
    }
    atomic_fetch_sub(&m->ix->imports, 1);
    free(m->path);
    segment_release(m->segment);
    collection_release(m->collection);
    free(m);
}
