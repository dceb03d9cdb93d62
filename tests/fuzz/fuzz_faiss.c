/* Files of FAISS: read, compared with a segment, made its structure, opened, searched.
 *
 *   u8 flags (1: the collection asks for inverted lists; 2: keys are strings, ids places),
 *   u8 m or number of lists that it asks for, then the file
 *
 * The segment has FAISS_ROWS rows (log_seed.h), nine of them without a vector. */
#include "fuzz.h"

#include "index/build_internal.h"
#include "index/search.h"
#include "log_seed.h"
#include "store/snapshot.h"

enum { FAISS_ROWS = 60, K = 5 };

static char segment_paths[2][64], out_path[80];
static struct io *io;

static void remove_files(void)
{
    unlink(segment_paths[0]);
    unlink(segment_paths[1]);
    unlink(out_path);
    io_free(io);
}

static void make_segment(char path[64], enum key_type key)
{
    snprintf(path, 64, "/tmp/fuzzfaissXXXXXX");
    int fd = mkstemp(path);
    ASSERT(fd >= 0);
    close(fd);
    unlink(path);
    write_seed_rows(path, key, 0, FAISS_ROWS);
}

static void set_up(void)
{
    fuzz_quiet();
    make_segment(segment_paths[0], KEY_INT64);
    make_segment(segment_paths[1], KEY_STRING);
    snprintf(out_path, sizeof out_path, "%s.ann", segment_paths[0]);
    ASSERT(io_new(IO_POSIX, &io, NULL) == ERR_OK);
    atexit(remove_files);
}

/* What was written must be sound, and nothing that it says may lead a search astray. */
static void open_and_search(struct segment *seg)
{
    static const float query[FUZZ_DIM] = {1, 2, 3, 4};
    struct hit hits[K];
    uint32_t found;
    struct ann_file *a;
    struct snapshot *s = calloc(1, sizeof *s + sizeof s->views[0]);
    struct search_params p = {.k = K, .ef = 9, .nprobe = 2};
    ASSERT(s);
    ASSERT(ann_file_open(out_path, &a, NULL) == ERR_OK);
    ASSERT(ann_file_verify(a, out_path, NULL) == ERR_OK);
    ASSERT(ann_file_check(a, FUZZ_ID, seg, NULL) == ERR_OK);
    segment_set_ann(seg, a, ann_file_close);
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(seg->schema);
    s->nviews = 1;
    s->views[0] =
        (struct view){.segment = segment_acquire(seg), .rows = seg->rows, .live = seg->rows};
    s->rows = seg->rows;
    ASSERT(search_run(s, query, 1, &p, search_scratch_local(), hits, &found, NULL) == ERR_OK);
    ASSERT(found == K);
    for (uint32_t i = 0; i < found; i++)
        ASSERT(segment_vector(seg, hits[i].ref.row));
    snapshot_release(s);
}

static uint32_t count(const struct segment *s)
{
    uint32_t n = 0;
    for (uint32_t row = 0; row < s->rows; row++)
        n += segment_vector(s, row) != NULL;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[32];
    struct err_ctx ctx;
    struct segment *seg;
    if (!io)
        set_up();
    if (n < 2)
        return 0;
    int fd = fuzz_file(path);
    fuzz_write(fd, data + 2, n - 2, 0);
    ASSERT(segment_open(segment_paths[data[0] >> 1 & 1], FUZZ_ID, &seg, NULL) == ERR_OK);
    struct build_args args = {.kind = data[0] & 1 ? INDEX_IVF : INDEX_HNSW,
                              .import = path,
                              .m = data[1],
                              .nlist = data[1],
                              .ef_construction = 10};
    memcpy(args.collection_id, FUZZ_ID, sizeof args.collection_id);
    const struct build b = {.args = &args, .io = io, .segment = seg, .vectors = count(seg)};
    err_clear(&ctx);
    enum err e = build_import(&b, out_path, &ctx);
    ASSERT(e == ERR_OK || e == ERR_INVALID || e == ERR_UNPROCESSABLE);
    ASSERT(e == ERR_OK || ctx.detail[0]);
    if (e == ERR_OK)
        open_and_search(seg);
    unlink(out_path);
    segment_release(seg);
    close(fd);
    return 0;
}
