/* Index files, both kinds: opened, checked against their segment, and searched.
 *
 *   first piece:     op & 1: inverted lists; u32 rows, nodes, dim, metric, m, ef_construction,
 *                    entry, layers, lists, twins
 *   further pieces:  op = section kind; the bytes: u8 flags, then (flags & 1) u64 offset and u64
 *                    length as the table shall claim them, then the section
 *
 * The segment has SEGMENT_ROWS rows under int64 keys. */
#include "fuzz.h"

#include "base/hash.h"
#include "index/ann_file.h"
#include "index/ann_format.h"
#include "index/search.h"
#include "log_seed.h"
#include "store/snapshot.h"

enum { K = 5, QUERIES = 3, SHAPE_BYTES = 10 * 4 };

static char segment_path[64];

static void remove_segment(void)
{
    unlink(segment_path);
}

static void set_up(void)
{
    fuzz_quiet();
    snprintf(segment_path, sizeof segment_path, "/tmp/fuzzannXXXXXX");
    int fd = mkstemp(segment_path);
    ASSERT(fd >= 0);
    close(fd);
    unlink(segment_path);
    write_seed_rows(segment_path, KEY_INT64, 0, SEGMENT_ROWS);
    atexit(remove_segment);
}

/* ---- the file ---- */

static void put_section(int fd, struct buf *table, uint64_t *at, const struct fuzz_piece *p)
{
    struct cursor c = cursor_over(p->data, p->len);
    uint8_t flags = cursor_u8(&c);
    uint64_t offset = *at, length;
    bool claim = flags & 1;
    if (claim)
        offset = cursor_u64(&c);
    length = claim ? cursor_u64(&c) : cursor_left(&c);
    if (c.failed)
        return;
    buf_put_u32(table, p->op);
    buf_put_u32(table, 0);
    buf_put_u64(table, offset);
    buf_put_u64(table, length);
    buf_put_u64(table, hash64(c.p, cursor_left(&c)));
    fuzz_write(fd, c.p, cursor_left(&c), *at);
    *at += round_up(cursor_left(&c) + 1, ANN_ALIGN);
}

static bool build(int fd, const uint8_t *data, size_t n)
{
    struct cursor c = cursor_over(data, n);
    struct fuzz_piece first, p;
    struct buf table = {0}, header = {0};
    uint64_t at = ANN_ALIGN;
    uint32_t sections = 0;
    if (!next_piece(&c, &first) || first.len < SHAPE_BYTES)
        return false;
    while (sections < ANN_SECTIONS_MAX && next_piece(&c, &p)) {
        size_t before = table.len;
        put_section(fd, &table, &at, &p);
        sections += table.len > before;
    }
    ASSERT(ftruncate(fd, (off_t)at) == 0);
    buf_put(&header, ANN_MAGIC, 8);
    buf_put_u32(&header, ANN_FORMAT_VERSION);
    buf_put_u32(&header, 0);
    buf_put_u32(&header, first.op & ANN_FLAG_IVF);
    buf_put_u32(&header, sections);
    buf_put(&header, FUZZ_ID, 16);
    buf_put_u64(&header, SEGMENT_ID);
    buf_put_u64(&header, at);
    buf_put(&header, first.data, SHAPE_BYTES);
    buf_put(&header, table.data, table.len);
    buf_put_u32(&header, crc32c(0, header.data, header.len));
    fuzz_write(fd, header.data, header.len, 0);
    buf_deinit(&header);
    buf_deinit(&table);
    return true;
}

/* ---- searching ---- */

static void search(struct snapshot *s, const struct search_params *p)
{
    static const float queries[QUERIES][FUZZ_DIM] = {
        {1, 2, 3, 4}, {-1, 0.5f, 0, 0}, {30, 31, 32, 33}};
    struct hit hits[QUERIES * K];
    uint32_t counts[QUERIES];
    enum err e = search_run(s, queries[0], QUERIES, p, search_scratch_local(), hits, counts, NULL);
    if (p->recall > 0 && e == ERR_UNPROCESSABLE) /* out of reach of this curve */
        return;
    ASSERT(e == ERR_OK);
    for (int q = 0; q < QUERIES; q++) {
        ASSERT(counts[q] <= K);
        for (uint32_t i = 0; i < counts[q]; i++)
            ASSERT(hits[q * K + i].ref.view == 0 && hits[q * K + i].ref.row < SEGMENT_ROWS);
    }
}

static void attach_and_search(struct segment *seg, struct ann_file *a)
{
    struct snapshot *s = calloc(1, sizeof *s + sizeof s->views[0]);
    struct search_params p = {.k = K, .ef = 9, .nprobe = 2}, wide = {.k = K, .bounded = true},
                         least = {.k = K, .recall = 0.9};
    ASSERT(s);
    segment_set_ann(seg, a, ann_file_close);
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(seg->schema);
    s->nviews = 1;
    s->views[0] = (struct view){.segment = seg, .rows = seg->rows, .live = seg->rows};
    s->rows = s->vectors = seg->rows;
    wide.radius = 0.5;
    search(s, &p);
    search(s, &wide);
    search(s, &least);
    snapshot_release(s);
}

static void open_and_search(const char *path)
{
    struct ann_file *a;
    struct segment *seg;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (ann_file_open(path, &a, &ctx) != ERR_OK) {
        ASSERT(ctx.detail[0]);
        return;
    }
    (void)!ann_file_verify(a, path, NULL);
    ASSERT(segment_open(segment_path, FUZZ_ID, &seg, &ctx) == ERR_OK);
    if (ann_file_check(a, FUZZ_ID, seg, &ctx) == ERR_OK) {
        attach_and_search(seg, a);
        return;
    }
    ann_file_close(a);
    segment_release(seg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[32];
    if (!segment_path[0])
        set_up();
    int fd = fuzz_file(path);
    if (build(fd, data, n))
        open_and_search(path);
    close(fd);
    return 0;
}
