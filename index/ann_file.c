/* Opens .ann files: maps them, checks everything that a search relies on.
 *
 * Trusted after open: every section lies inside the file and has the size that the shape asks for;
 * the entry is a node; every row id is a row; the twins of a node lie inside their section. Not
 * checked here are the links: they are the bulk of the file, and a search skips one that is out of
 * range. Nor are the bytes of codes: any of them gives some distance.
 *
 * The map stands at a multiple of 2 MiB so that the kernel may use huge pages for it, where it has
 * them for files; where not, the advice is refused and nothing else changes.
 *
 * Threads: an open file is immutable. Failure: ERR_CORRUPT names the file; nothing stays mapped. */
#include "index/ann_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "index/ann_format.h"
#include "io/mapping.h"

enum { VERIFY_BYTES = 16 << 20 };

struct ann_header {
    struct ann_file file; /* shape, entry, layers, upper lists */
    uint64_t file_bytes;
    uint32_t nsections;
    struct ann_section sections[ANN_SECTIONS_MAX];
};

static enum err corrupt(const char *path, const char *what, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_CORRUPT, "%s: offset 0: %s; the index is built anew", path, what);
}

static void decode_shape(struct cursor *c, struct ann_header *h)
{
    struct ann_shape *s = &h->file.shape;
    const void *id = cursor_take(c, sizeof(s->collection_id));
    if (id)
        memcpy(s->collection_id, id, sizeof(s->collection_id));
    s->segment_id = cursor_u64(c);
    h->file_bytes = cursor_u64(c);
    s->rows = cursor_u32(c);
    s->nodes = cursor_u32(c);
    s->dim = cursor_u32(c);
    s->metric = (enum metric)cursor_u32(c);
    s->m = cursor_u32(c);
    s->ef_construction = cursor_u32(c);
    h->file.entry = cursor_u32(c);
    h->file.layers = cursor_u32(c);
    uint32_t lists = cursor_u32(c);
    *(s->kind == INDEX_IVF ? &s->nlist : &h->file.upper_lists) = lists;
    s->twins = cursor_u32(c);
}

static enum err decode_header(const char *path, const uint8_t *data, size_t n, struct ann_header *h,
                              struct err_ctx *ctx)
{
    struct cursor c = cursor_over(data, n);
    const void *magic = cursor_take(&c, 8);
    if (!magic || memcmp(magic, ANN_MAGIC, 8) != 0)
        return corrupt(path, "not a finished index file (bad magic)", ctx);
    if (cursor_u32(&c) != ANN_FORMAT_VERSION)
        return corrupt(path, "written in a format version that this release does not know", ctx);
    cursor_u32(&c);
    uint32_t flags = cursor_u32(&c);
    if (flags & ~(uint32_t)ANN_FLAG_IVF)
        return corrupt(path, "needs a feature that this release does not know", ctx);
    h->file.shape.kind = flags & ANN_FLAG_IVF ? INDEX_IVF : INDEX_HNSW;
    h->nsections = cursor_u32(&c);
    if (h->nsections > ANN_SECTIONS_MAX)
        return corrupt(path, "too many sections in the header", ctx);
    decode_shape(&c, h);
    for (uint32_t i = 0; i < h->nsections; i++) {
        struct ann_section *s = &h->sections[i];
        s->kind = cursor_u32(&c);
        cursor_u32(&c);
        s->offset = cursor_u64(&c);
        s->length = cursor_u64(&c);
        s->sum = cursor_u64(&c);
    }
    size_t covered = (size_t)(c.p - data);
    uint32_t crc = cursor_u32(&c);
    if (c.failed || crc != crc32c(0, data, covered))
        return corrupt(path, "the header does not match its checksum", ctx);
    return ERR_OK;
}

static bool graph_shape_valid(const struct ann_file *a)
{
    const struct ann_shape *s = &a->shape;
    return s->m >= 1 && s->m <= ANN_M_MAX && a->entry < s->nodes && a->layers >= 1 &&
           a->layers <= ANN_LAYERS_MAX &&
           (uint64_t)a->upper_lists <= (uint64_t)s->nodes * (a->layers - 1);
}

static bool ivf_shape_valid(const struct ann_file *a)
{
    const struct ann_shape *s = &a->shape;
    return s->nlist >= 1 && s->nlist <= NLIST_MAX && s->nlist <= s->nodes && s->twins == 0 &&
           s->m == 0 && s->ef_construction == 0 && a->entry == 0 && a->layers == 0;
}

static bool shape_valid(const struct ann_file *a)
{
    const struct ann_shape *s = &a->shape;
    return s->nodes >= 1 && (uint64_t)s->nodes + s->twins <= s->rows && s->dim >= 1 &&
           s->dim <= DIM_MAX && (unsigned)s->metric <= DIST_IP &&
           (s->kind == INDEX_IVF ? ivf_shape_valid(a) : graph_shape_valid(a));
}

/* What the section of a kind must hold, in bytes. None of these can overflow: nodes and lists are
 * below 2^38, m at most ANN_M_MAX, dim at most DIM_MAX. */
static uint64_t section_length(const struct ann_file *a, uint32_t kind)
{
    const struct ann_shape *s = &a->shape;
    switch (kind) {
    case ANN_LINKS:
        return (uint64_t)s->nodes * 2 * s->m * sizeof(uint32_t);
    case ANN_UPPER:
        return (uint64_t)a->upper_lists * s->m * sizeof(uint32_t);
    case ANN_TWINS_AT:
        return ((uint64_t)s->nodes + 1) * sizeof(uint32_t);
    case ANN_TWINS:
        return (uint64_t)s->twins * sizeof(uint32_t);
    case ANN_CENTROIDS:
        return (uint64_t)s->nlist * s->dim * sizeof(float);
    case ANN_LISTS_AT:
        return ((uint64_t)s->nlist + 1) * sizeof(uint32_t);
    case ANN_CODES:
        return (uint64_t)s->nodes * code_stride(s->dim);
    case ANN_MADE:
        return ANN_MADE_BYTES;
    case ANN_SCALE:
        return ANN_SCALE_HEAD + 2 * (uint64_t)s->dim * sizeof(float);
    default:
        return (uint64_t)s->nodes * sizeof(uint32_t);
    }
}

static enum err place_section(const char *path, const struct ann_header *h,
                              const struct ann_section *s, struct ann_file *a, struct err_ctx *ctx)
{
    if (s->offset % ANN_ALIGN != 0 || s->offset < ANN_ALIGN || s->offset > h->file_bytes ||
        s->length > h->file_bytes - s->offset)
        return corrupt(path, "a section lies outside the file", ctx);
    if (s->kind == 0 || s->kind >= ANN_KIND_END)
        return ERR_OK;
    bool fits = s->kind == ANN_CURVE ? recall_length_valid(s->length)
                                     : s->length == section_length(a, s->kind);
    if (!fits)
        return corrupt(path, "a section has the wrong length", ctx);
    const void *at = a->map + s->offset;
    switch ((enum ann_section_kind)s->kind) {
    case ANN_LINKS:
        a->links = at;
        break;
    case ANN_UPPER_AT:
        a->upper_at = at;
        break;
    case ANN_UPPER:
        a->upper = at;
        break;
    case ANN_ROWS:
        a->rows = at;
        break;
    case ANN_NORMS:
        a->norms = at;
        break;
    case ANN_TWINS_AT:
        a->twins_at = at;
        break;
    case ANN_TWINS:
        a->twins = at;
        break;
    case ANN_CENTROIDS:
        a->centroids = at;
        break;
    case ANN_LISTS_AT:
        a->lists_at = at;
        break;
    case ANN_CODES:
        a->codes = at;
        break;
    case ANN_SCALE:
        a->scale_at = at;
        break;
    case ANN_CURVE:
        a->curve_at = at;
        a->curve_len = s->length;
        break;
    case ANN_MADE:
        a->made_at = at;
        break;
    case ANN_KIND_END:
        break;
    }
    return ERR_OK;
}

static enum err check_row_ids(const char *path, const struct ann_file *a, struct err_ctx *ctx)
{
    const struct ann_shape *s = &a->shape;
    if (!a->rows)
        return s->nodes == s->rows ? ERR_OK : corrupt(path, "the row ids are missing", ctx);
    for (uint32_t i = 0; i < s->nodes; i++) {
        if (a->rows[i] >= s->rows || (i > 0 && a->rows[i] <= a->rows[i - 1]))
            return corrupt(path, "the row ids are not ascending rows of the segment", ctx);
    }
    return ERR_OK;
}

static enum err check_twins(const char *path, const struct ann_file *a, struct err_ctx *ctx)
{
    const struct ann_shape *s = &a->shape;
    if ((s->twins > 0) != (a->twins_at != NULL) || (s->twins > 0) != (a->twins != NULL))
        return corrupt(path, "the sections of the twins do not fit their number", ctx);
    if (s->twins == 0)
        return ERR_OK;
    bool ok = a->twins_at[0] == 0 && a->twins_at[s->nodes] == s->twins;
    for (uint32_t i = 0; i < s->nodes; i++)
        ok = ok && a->twins_at[i] <= a->twins_at[i + 1];
    for (uint32_t i = 0; i < s->twins; i++)
        ok = ok && a->twins[i] < s->rows;
    return ok ? ERR_OK : corrupt(path, "the twins are not lists of rows of the segment", ctx);
}

static enum err check_lists(const char *path, const struct ann_file *a, struct err_ctx *ctx)
{
    const struct ann_shape *s = &a->shape;
    if (!a->centroids || !a->lists_at || !a->rows)
        return corrupt(path, "a section of the inverted lists is missing", ctx);
    bool ok = a->lists_at[0] == 0 && a->lists_at[s->nlist] == s->nodes;
    for (uint32_t i = 0; i < s->nlist; i++)
        ok = ok && a->lists_at[i] <= a->lists_at[i + 1];
    for (uint32_t i = 0; i < s->nodes; i++)
        ok = ok && a->rows[i] < s->rows;
    return ok ? ERR_OK : corrupt(path, "the lists do not hold rows of the segment", ctx);
}

static bool decode_scale(struct ann_file *a)
{
    const struct ann_shape *s = &a->shape;
    struct cursor c = cursor_over(a->scale_at, ANN_SCALE_HEAD);
    uint32_t version = cursor_u32(&c), scheme = cursor_u32(&c), stride = cursor_u32(&c);
    uint32_t permille = cursor_u32(&c);
    cursor_u32(&c);
    uint32_t recall = cursor_u32(&c);
    memcpy(&a->code_recall, &recall, sizeof(recall));
    const float *lo = (const float *)(a->scale_at + ANN_SCALE_HEAD);
    a->scale = (struct code_scale){.scheme = (enum code_scheme)scheme,
                                   .dim = s->dim,
                                   .rerank_permille = permille,
                                   .lo = lo,
                                   .step = lo + s->dim};
    return version == ANN_SCALE_VERSION && scheme == code_scheme_of(s->metric) &&
           stride == code_stride(s->dim) && permille <= ANN_RERANK_PERMILLE_MAX &&
           a->code_recall >= 0 && a->code_recall <= 1 && code_scale_usable(&a->scale);
}

static enum err check_codes(const char *path, struct ann_file *a, struct err_ctx *ctx)
{
    if ((a->codes != NULL) != (a->scale_at != NULL))
        return corrupt(path, "there are codes without their scale, or a scale without codes", ctx);
    return !a->codes || decode_scale(a) ? ERR_OK
                                        : corrupt(path, "the scale of the codes is no scale", ctx);
}

static enum err decode_curve(const char *path, struct ann_file *a, struct err_ctx *ctx)
{
    struct err_ctx why;
    err_clear(&why);
    enum err e = a->curve_at ? recall_decode(a->curve_at, a->curve_len, &a->curve, &why) : ERR_OK;
    return e == ERR_CORRUPT ? corrupt(path, why.detail, ctx)
           : e != ERR_OK    ? err_set(ctx, e, "%.500s", why.detail)
                            : ERR_OK;
}

static enum err check_made(const char *path, struct ann_file *a, struct err_ctx *ctx)
{
    if (!a->made_at)
        return ERR_OK;
    struct cursor c = cursor_over(a->made_at, ANN_MADE_BYTES);
    uint32_t version = cursor_u32(&c), builder = cursor_u32(&c), verdict = cursor_u32(&c);
    uint32_t permille = cursor_u32(&c), sample = cursor_u32(&c), recall = cursor_u32(&c);
    (void)permille;
    (void)sample;
    memcpy(&a->code_recall, &recall, sizeof(recall));
    a->shape.builder = (enum index_builder)builder;
    a->verdict = (enum codes_verdict)verdict;
    bool ok = version == ANN_MADE_VERSION &&
              (builder == BUILDER_FAISS || builder == BUILDER_NATIVE) && verdict >= CODES_TAKEN &&
              verdict <= CODES_IMPOSSIBLE && (verdict == CODES_TAKEN) == (a->codes != NULL) &&
              a->code_recall >= 0 && a->code_recall <= 1;
    return ok ? ERR_OK : corrupt(path, "it says impossible things of how it was made", ctx);
}

static enum err check_sections(const char *path, struct ann_file *a, struct err_ctx *ctx)
{
    const struct ann_shape *s = &a->shape;
    RETURN_NOT_OK(check_codes(path, a, ctx));
    RETURN_NOT_OK(decode_curve(path, a, ctx));
    RETURN_NOT_OK(check_made(path, a, ctx));
    if (s->kind == INDEX_IVF)
        return check_lists(path, a, ctx);
    if (!a->links || !a->upper_at || (a->upper_lists > 0 && !a->upper))
        return corrupt(path, "a section of the graph is missing", ctx);
    if ((s->metric == DIST_COSINE) != (a->norms != NULL))
        return corrupt(path, "the norms do not fit the metric", ctx);
    RETURN_NOT_OK(check_row_ids(path, a, ctx));
    return check_twins(path, a, ctx);
}

/* Maps `len` bytes of the file at a multiple of 2 MiB. */
static enum err map_aligned(int fd, const char *path, size_t len, struct ann_file *a,
                            struct err_ctx *ctx)
{
    size_t whole = len + ANN_ALIGN_LARGE;
    void *range = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED)
        return err_system(ctx, errno, "cannot map %s", path);
    a->reserved = range;
    a->reserved_len = whole;
    void *at = (void *)round_up((uintptr_t)range, ANN_ALIGN_LARGE);
    void *map = mmap(at, len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
    if (map == MAP_FAILED)
        return err_system(ctx, errno, "cannot map %s", path);
    a->map = map;
    madvise(map, len, MADV_HUGEPAGE); /* refused by kernels without it: small pages serve too */
    return mapping_watch(map, len, path, &a->watch, ctx);
}

static enum err open_header(int fd, const char *path, struct ann_header *h, struct err_ctx *ctx)
{
    uint8_t data[ANN_HEADER_MAX];
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_system(ctx, errno, "cannot read the size of %s", path);
    ssize_t n = pread(fd, data, sizeof(data), 0);
    if (n < 0)
        return err_system(ctx, errno, "cannot read %s", path);
    RETURN_NOT_OK(decode_header(path, data, (size_t)n, h, ctx));
    if (!shape_valid(&h->file))
        return corrupt(path, "the header holds impossible values", ctx);
    if (h->file_bytes != (uint64_t)st.st_size || h->file_bytes < ANN_ALIGN)
        return corrupt(path, "the file is shorter or longer than its header says", ctx);
    return ERR_OK;
}

static enum err open_fd(int fd, const char *path, struct ann_file *a, struct err_ctx *ctx)
{
    struct ann_header h = {0};
    RETURN_NOT_OK(open_header(fd, path, &h, ctx));
    *a = h.file;
    a->bytes = h.file_bytes;
    RETURN_NOT_OK(map_aligned(fd, path, h.file_bytes, a, ctx));
    for (uint32_t i = 0; i < h.nsections; i++)
        RETURN_NOT_OK(place_section(path, &h, &h.sections[i], a, ctx));
    return check_sections(path, a, ctx);
}

enum err ann_file_open(const char *path, struct ann_file **out, struct err_ctx *ctx)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return err_set(ctx, ERR_NOT_FOUND, "%s: no such file", path);
    if (fd < 0)
        return err_system(ctx, errno, "cannot open %s", path);
    struct ann_file *a = calloc(1, sizeof(*a));
    enum err e = a ? open_fd(fd, path, a, ctx) : err_no_memory(ctx, sizeof(*a));
    close(fd);
    if (e != ERR_OK) {
        ann_file_close(a);
        return e;
    }
    *out = a;
    return ERR_OK;
}

static void reads_free(struct ann_reads *r)
{
    if (!r)
        return;
    io_file_close(r->ann);
    io_file_close(r->segment);
    free(r);
}

enum err ann_file_read_from(struct ann_file *a, struct io *io, const char *path,
                            const struct segment *s, struct err_ctx *ctx)
{
    ASSERT(a->shape.kind == INDEX_IVF && a->codes && s->path && !a->reads);
    struct ann_reads *r = calloc(1, sizeof(*r));
    if (!r)
        return err_no_memory(ctx, sizeof(*r));
    r->io = io;
    r->codes_at = (uint64_t)(a->codes - a->map);
    r->vectors_at = (uint64_t)((const uint8_t *)s->vectors - s->map);
    enum err e = io_file_open(io, path, IO_READ, &r->ann, ctx);
    if (e == ERR_OK)
        e = io_file_open(io, s->path, IO_READ, &r->segment, ctx);
    if (e != ERR_OK) {
        reads_free(r);
        return e;
    }
    a->reads = r;
    return ERR_OK;
}

void ann_file_read_mapped(struct ann_file *a)
{
    reads_free(a->reads);
    a->reads = NULL;
}

void ann_file_close(void *ann)
{
    struct ann_file *a = ann;
    if (!a)
        return;
    recall_free(a->curve);
    mapping_unwatch(a->watch);
    if (a->reserved)
        munmap(a->reserved, a->reserved_len);
    reads_free(a->reads);
    free(a);
}

/* XXH3 over a section, piece by piece; true when it is the sum or `stop` said so. */
static bool section_sound(const struct ann_file *a, const struct ann_section *s,
                          XXH3_state_t *state, bool (*stop)(void *arg), void *arg, bool *stopped)
{
    XXH3_64bits_reset(state);
    for (uint64_t at = 0; at < s->length && !*stopped; at += VERIFY_BYTES) {
        uint64_t left = s->length - at;
        XXH3_64bits_update(state, a->map + s->offset + at,
                           left < VERIFY_BYTES ? left : VERIFY_BYTES);
        *stopped = stop && stop(arg);
    }
    return *stopped || XXH3_64bits_digest(state) == s->sum;
}

static enum err verify_sections(const struct ann_file *a, const char *path, XXH3_state_t *state,
                                bool (*stop)(void *arg), void *arg, struct err_ctx *ctx)
{
    struct ann_header h = {0};
    bool stopped = false;
    RETURN_NOT_OK(decode_header(path, a->map, ANN_HEADER_MAX, &h, ctx));
    for (uint32_t i = 0; i < h.nsections && !stopped; i++) {
        if (!section_sound(a, &h.sections[i], state, stop, arg, &stopped))
            return err_set(ctx, ERR_CORRUPT,
                           "%s: offset %llu: a section does not match its checksum; the index is "
                           "built anew",
                           path, (unsigned long long)h.sections[i].offset);
    }
    return stopped ? err_set(ctx, ERR_UNAVAILABLE, "%s was not checked to its end", path) : ERR_OK;
}

enum err ann_file_verify_until(const struct ann_file *a, const char *path, bool (*stop)(void *arg),
                               void *arg, struct err_ctx *ctx)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return err_set(ctx, ERR_NO_MEMORY, "out of memory for a checksum state");
    enum err e = verify_sections(a, path, state, stop, arg, ctx);
    XXH3_freeState(state);
    return e;
}

enum err ann_file_verify(const struct ann_file *a, const char *path, struct err_ctx *ctx)
{
    return ann_file_verify_until(a, path, NULL, NULL, ctx);
}

static bool mark(uint64_t *seen, uint32_t row)
{
    uint64_t bit = 1ull << (row % 64);
    bool first = !(seen[row / 64] & bit);
    seen[row / 64] |= bit;
    return first;
}

/* Whether the rows of the nodes are the rows with a vector, each once. */
static bool rows_complete(const struct ann_file *a, const struct segment *s, uint64_t *seen)
{
    bool ok = true;
    for (uint32_t i = 0; i < a->shape.nodes; i++)
        ok = mark(seen, ann_row(a, i)) && ok;
    for (uint32_t i = 0; i < a->shape.twins; i++)
        ok = mark(seen, a->twins[i]) && ok;
    for (uint32_t w = 0; w < (s->rows + 63) / 64; w++) {
        uint64_t all = s->rows - w * 64 >= 64 ? UINT64_MAX : (1ull << (s->rows % 64)) - 1;
        ok = ok && seen[w] == (all & ~segment_vector_nulls(s, w));
    }
    return ok;
}

static enum err check_rows(const struct ann_file *a, const struct segment *s, struct err_ctx *ctx)
{
    if (!a->rows && !s->vector_nulls)
        return ERR_OK;
    size_t words = ((size_t)s->rows + 63) / 64;
    uint64_t *seen = calloc(words, sizeof(*seen));
    if (!seen)
        return err_no_memory(ctx, words * sizeof(*seen));
    bool ok = rows_complete(a, s, seen);
    free(seen);
    return ok ? ERR_OK
              : err_set(ctx, ERR_CORRUPT,
                        "the index file of segment %016llx does not list its rows once each: it is "
                        "built anew",
                        (unsigned long long)s->id);
}

enum err ann_file_check(const struct ann_file *a, const uint8_t *collection_id,
                        const struct segment *s, struct err_ctx *ctx)
{
    static const uint8_t unknown[16];
    const struct ann_shape *sh = &a->shape;
    bool ours = memcmp(sh->collection_id, unknown, sizeof(unknown)) == 0 ||
                memcmp(sh->collection_id, collection_id, sizeof(unknown)) == 0;
    if (!ours || sh->segment_id != s->id || sh->rows != s->rows || sh->dim != s->schema->dim ||
        sh->metric != s->schema->metric)
        return err_set(ctx, ERR_CORRUPT,
                       "the index file belongs to another segment than %016llx: it is built anew",
                       (unsigned long long)s->id);
    return check_rows(a, s, ctx);
}
