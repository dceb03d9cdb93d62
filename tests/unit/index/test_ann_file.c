/* The .ann file: what was written comes back; a file that was cut or changed anywhere is refused or
 * harmless; a graph of another segment is not taken; failures of the build are sentences. */
#include <fcntl.h>
#include <sys/stat.h>

#include "index/ann_format.h"
#include "index/faiss_graph.h"
#include "index/kernels.h"
#include "rig.h"

/* HEADER: bytes before the section table */
enum { ROWS = 2000, DIM = 12, GAPS = ROWS / 9, TWINS = 2 * GAPS, HEADER = 96, SECTION = 32 };

struct world {
    struct rig rig;
    float *vectors;
    uint8_t *missing;
    struct segment *segment;
    char ann[640]; /* path */
    uint8_t *bytes;
    size_t size;
};

static uint8_t *read_whole(const char *path, size_t *size)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *data = malloc((size_t)st.st_size);
    assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
    close(fd);
    *size = (size_t)st.st_size;
    return data;
}

static void write_whole(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

static void world_open(struct world *w, enum metric metric)
{
    rig_open(&w->rig, KEY_INT64, DIM, metric);
    w->vectors = rig_vectors(ROWS, DIM, 10, 1);
    w->missing = calloc(1, ROWS);
    for (size_t i = 0; i + 4 < ROWS; i += 9) { /* no vector; the same as the row before; so again */
        w->missing[i] = 1;
        memcpy(w->vectors + (i + 3) * DIM, w->vectors + (i + 2) * DIM, DIM * sizeof(float));
        memcpy(w->vectors + (i + 4) * DIM, w->vectors + (i + 2) * DIM, DIM * sizeof(float));
    }
    w->segment = rig_file(&w->rig, 77, w->vectors, ROWS, 0, w->missing);
    snprintf(w->ann, sizeof(w->ann), "%s", rig_build(&w->rig, w->segment));
    w->bytes = read_whole(w->ann, &w->size);
}

static void world_close(struct world *w)
{
    segment_release(w->segment);
    free(w->vectors);
    free(w->missing);
    free(w->bytes);
    rig_close(&w->rig);
}

static struct ann_file *must_open(const char *path)
{
    struct ann_file *a;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (ann_file_open(path, &a, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    return a;
}

static void a_built_file_says_what_it_is(void **state)
{
    (void)state;
    static const uint8_t any[16] = {1};
    struct world w;
    world_open(&w, DIST_COSINE);
    struct ann_file *a = must_open(w.ann);
    assert_int_equal(ann_file_verify(a, w.ann, NULL), ERR_OK);
    assert_int_equal(ann_file_check(a, any, w.segment, NULL), ERR_OK);
    assert_int_equal(a->shape.nodes, ROWS - GAPS - TWINS);
    assert_int_equal(a->shape.twins, TWINS);
    assert_int_equal(a->shape.rows, ROWS);
    assert_int_equal(a->shape.m, 16);
    assert_int_equal(a->shape.ef_construction, 80);
    assert_int_equal(a->bytes, w.size);
    assert_int_equal(a->shape.builder, BUILDER_NATIVE);
    assert_int_equal(a->verdict, CODES_TAKEN);
    assert_int_equal((uintptr_t)a->map % ANN_ALIGN_LARGE, 0);
    size_t links = 0;
    for (uint32_t i = 0; i < a->shape.nodes; i++) {
        assert_false(w.missing[a->rows[i]]);
        for (uint32_t j = 0; j < 32 && a->links[i * 32 + j] != ANN_NONE; j++, links++)
            assert_true(a->links[i * 32 + j] < a->shape.nodes);
    }
    assert_true(links > a->shape.nodes * 8);
    ann_file_close(a);
    world_close(&w);
}

static void a_graph_of_another_segment_is_refused(void **state)
{
    (void)state;
    static const uint8_t any[16] = {1};
    struct world w;
    struct err_ctx ctx;
    err_clear(&ctx);
    world_open(&w, DIST_L2);
    struct segment *other = rig_file(&w.rig, 78, w.vectors, ROWS, 0, NULL);
    struct ann_file *a = must_open(w.ann);
    assert_int_equal(ann_file_check(a, any, other, &ctx), ERR_CORRUPT);
    assert_non_null(strstr(ctx.detail, "another segment"));
    a->shape.collection_id[0] = 9;
    assert_int_equal(ann_file_check(a, any, w.segment, &ctx), ERR_CORRUPT);
    ann_file_close(a);
    segment_release(other);
    world_close(&w);
}

static void a_cut_file_is_refused(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_COSINE);
    for (size_t size = 0; size < w.size; size += size < 300 ? 7 : 4093) {
        struct ann_file *a = NULL;
        struct err_ctx ctx;
        err_clear(&ctx);
        write_whole(w.ann, w.bytes, size);
        assert_int_equal(ann_file_open(w.ann, &a, &ctx), ERR_CORRUPT);
        assert_non_null(strstr(ctx.detail, w.ann));
    }
    world_close(&w);
}

static void any_changed_header_byte_is_seen(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2);
    size_t header = HEADER + 10 * SECTION + 4;
    for (size_t i = 0; i < header; i++) {
        struct ann_file *a = NULL;
        w.bytes[i] ^= 0x55;
        write_whole(w.ann, w.bytes, w.size);
        assert_int_equal(ann_file_open(w.ann, &a, NULL), ERR_CORRUPT);
        w.bytes[i] ^= 0x55;
    }
    world_close(&w);
}

static void put_u32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, 4);
}

static void seal_header(uint8_t *bytes)
{
    uint32_t sections;
    memcpy(&sections, bytes + 20, 4);
    size_t n = HEADER + sections * SECTION;
    put_u32(bytes + n, crc32c(0, bytes, n));
}

/* Headers that are internally consistent, checksum included, and lie. */
static void lying_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
    } lies[] = {
        {8, ANN_FORMAT_VERSION + 1}, /* format version */
        {16, 1},                     /* incompatible feature */
        {20, 17},                    /* sections */
        {20, 0},                     /* none */
        {48, 1},                     /* file bytes */
        {56, 1},                     /* rows below nodes */
        {56, ROWS - GAPS - 1},       /* rows below nodes and twins */
        {60, 0},                     /* nodes */
        {60, 0xffffffff},            /* nodes */
        {64, 0},                     /* dim */
        {64, 70000},                 /* dim */
        {68, 3},                     /* metric */
        {68, 0},                     /* cosine without norms */
        {72, 0},                     /* m */
        {72, 17},                    /* m: sections of another size */
        {72, 0x40000000},            /* m */
        {80, 0x7fffffff},            /* entry */
        {84, 0},                     /* layers */
        {84, 65},                    /* layers */
        {88, 0xffffffff},            /* upper lists */
        {88, 0},                     /* upper lists: section too long */
        {92, 0},                     /* no twins */
        {92, TWINS - 1},             /* twins: section too long */
        {92, 0xffffffff},            /* twins */
        {HEADER + 4 * SECTION, 99},  /* no section of where the twins are */
        {HEADER + 5 * SECTION, 99},  /* no section of twins */
        {HEADER + 8, 4096},          /* offset: unaligned */
        {HEADER + 8, 0},             /* offset: the header */
        {HEADER + 12, 1},            /* offset: far outside */
        {HEADER + 20, 1},            /* length */
        {HEADER + 16, 0},            /* length */
        {HEADER + 0, 6},             /* a section less */
        {HEADER + 6 * SECTION, 99},  /* a scale without codes */
        {HEADER + 7 * SECTION, 99},  /* codes without a scale */
        {HEADER + 6 * SECTION, 11},  /* another scale: of the wrong length */
    };
    struct world w;
    world_open(&w, DIST_L2);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct ann_file *a = NULL;
        uint8_t *copy = malloc(w.size);
        memcpy(copy, w.bytes, w.size);
        put_u32(copy + lies[i].at, lies[i].value);
        seal_header(copy);
        write_whole(w.ann, copy, w.size);
        if (ann_file_open(w.ann, &a, NULL) != ERR_CORRUPT)
            fail_msg("lie %zu at byte %zu was believed", i, lies[i].at);
        free(copy);
    }
    world_close(&w);
}

static uint64_t section_field(const struct world *w, size_t section, size_t field)
{
    uint64_t v;
    memcpy(&v, w->bytes + HEADER + section * SECTION + field, 8);
    return v;
}

static void search_all(const struct world *w, struct segment *s)
{
    struct snapshot *snap = rig_snapshot((struct rig *)&w->rig, &s, 1);
    struct search_params p = {.k = 10, .ef = 100};
    struct hit hits[10];
    uint32_t n;
    for (size_t i = 0; i < 50; i++) {
        assert_int_equal(
            search_run(snap, w->vectors + i * DIM, 1, &p, search_scratch_local(), hits, &n, NULL),
            ERR_OK);
        assert_int_equal(n, 10); /* what the walk cannot reach, a scan finds */
    }
    snapshot_release(snap);
}

/* Each section in turn full of noise, under a valid header: verify tells; open refuses or a search
 * stays within bounds and complete. */
static void hostile_sections_do_no_harm(void **state)
{
    (void)state;
    struct world w;
    uint64_t seed = 3;
    world_open(&w, DIST_COSINE);
    uint32_t sections;
    memcpy(&sections, w.bytes + 20, 4);
    assert_int_equal(sections, 11);
    for (uint32_t s = 0; s < sections; s++) {
        for (int kind = 0; kind < 3; kind++) {
            uint8_t *copy = malloc(w.size);
            uint64_t at = section_field(&w, s, 8), n = section_field(&w, s, 16);
            memcpy(copy, w.bytes, w.size);
            for (uint64_t i = 0; i + 4 <= n; i += 4) {
                uint32_t noise = (uint32_t)rig_random(&seed);
                put_u32(copy + at + i, kind == 0 ? noise : kind == 1 ? noise % ROWS : 0xfffffffe);
            }
            write_whole(w.ann, copy, w.size);
            free(copy);
            struct ann_file *a = NULL;
            enum err e = ann_file_open(w.ann, &a, NULL);
            assert_true(e == ERR_OK || e == ERR_CORRUPT);
            if (e != ERR_OK)
                continue;
            assert_int_equal(ann_file_verify(a, w.ann, NULL), ERR_CORRUPT);
            struct segment *again;
            assert_int_equal(segment_open(w.segment->path, NULL, &again, NULL), ERR_OK);
            if (ann_file_check(a, (uint8_t[16]){0}, again, NULL) != ERR_OK) {
                ann_file_close(a);
                segment_release(again);
                continue;
            }
            segment_set_ann(again, a, ann_file_close);
            search_all(&w, again);
        }
    }
    world_close(&w);
}

static uint32_t get_u32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, 4);
    return v;
}

/* How the file with a changed word is taken: by open, or when that lets it pass, by check. */
static enum err verdict(const struct world *w, size_t at, uint32_t value)
{
    uint32_t had = get_u32(w->bytes + at);
    struct ann_file *a = NULL;
    put_u32(w->bytes + at, value);
    write_whole(w->ann, w->bytes, w->size);
    put_u32(w->bytes + at, had);
    enum err e = ann_file_open(w->ann, &a, NULL);
    if (e == ERR_OK)
        e = ann_file_check(a, (uint8_t[16]){0}, w->segment, NULL);
    ann_file_close(a);
    return e;
}

static void every_row_stands_at_one_node_or_the_file_is_refused(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2);
    size_t rows = section_field(&w, 3, 8), twins_at = section_field(&w, 4, 8);
    size_t twins = section_field(&w, 5, 8), last = twins_at + section_field(&w, 4, 16) - 4;
    assert_int_equal(get_u32(w.bytes + last), TWINS);
    const struct {
        size_t at;
        uint32_t value;
    } lies[] = {
        {rows, 0},                             /* a row without a vector */
        {twins_at, 1},                         /* a twin of no node */
        {twins_at + 400, TWINS + 1},           /* lists outside the section */
        {twins_at + 400, UINT32_MAX},          /* so far outside that offsets wrap */
        {last, TWINS - 1},                     /* the last twin of no node */
        {last, TWINS + 1},                     /* one too many */
        {twins, ROWS},                         /* no row */
        {twins, UINT32_MAX},                   /* no row */
        {twins, 9},                            /* a row without a vector */
        {twins, get_u32(w.bytes + twins + 4)}, /* a row twice, another nowhere */
        {twins, get_u32(w.bytes + rows)},      /* a row of a node */
    };
    assert_int_equal(verdict(&w, twins, get_u32(w.bytes + twins)), ERR_OK);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        if (verdict(&w, lies[i].at, lies[i].value) != ERR_CORRUPT)
            fail_msg("lie %zu was believed", i);
    }
    world_close(&w);
}

/* Finds the section of a kind in the table. */
static size_t section_of(const struct world *w, uint32_t kind)
{
    for (size_t i = 0; i < 16; i++) {
        if (get_u32(w->bytes + HEADER + i * SECTION) == kind)
            return i;
    }
    fail_msg("no section %u", kind);
    return 0;
}

static void codes_are_those_of_the_vectors(void **state)
{
    (void)state;
    for (int metric = DIST_COSINE; metric <= DIST_IP; metric++) {
        struct world w;
        float vector[DIM];
        uint8_t code[64];
        world_open(&w, (enum metric)metric);
        struct ann_file *a = must_open(w.ann);
        assert_non_null(a->codes);
        assert_int_equal((uintptr_t)a->codes % 64, 0);
        assert_true(a->code_recall >= 0.99f);
        assert_int_equal(a->scale.scheme, metric == DIST_IP ? CODE_SCALED : CODE_UNIFORM);
        for (uint32_t i = 0; i < a->shape.nodes; i++) {
            graph_vector(w.segment, ann_row(a, i), vector);
            code_encode(&a->scale, vector, code);
            assert_memory_equal(code, a->codes + i * 64, 64);
        }
        ann_file_close(a);
        world_close(&w);
    }
}

static void a_scale_that_lies_is_refused(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2);
    size_t at = section_field(&w, section_of(&w, ANN_SCALE), 8), lo = at + ANN_SCALE_HEAD;
    const struct {
        size_t at;
        uint32_t value;
    } lies[] = {
        {at, 0},                              /* version */
        {at, 2},                              /* version */
        {at + 4, 0},                          /* scheme */
        {at + 4, CODE_SCALED},                /* scheme of another metric */
        {at + 4, UINT32_MAX},                 /* scheme */
        {at + 8, 0},                          /* stride */
        {at + 8, 128},                        /* stride */
        {at + 12, UINT32_MAX},                /* how many more to measure */
        {at + 20, 0x7fc00000},                /* recall: NaN */
        {at + 20, 0x40000000},                /* recall: 2 */
        {lo, 0x7fc00000},                     /* lo: NaN */
        {lo + 4 * (DIM - 1), 0xff800000},     /* lo: -Inf */
        {lo + 4 * DIM, 0},                    /* step: 0 */
        {lo + 4 * DIM, 0xbf800000},           /* step: -1 */
        {lo + 4 * DIM, 1},                    /* step: denormal */
        {lo + 4 * (2 * DIM - 1), 0x7f7fffff}, /* step: the largest float */
        {lo + 4 * (2 * DIM - 1), 0x7fffffff}, /* step: NaN */
    };
    assert_int_equal(verdict(&w, lo, get_u32(w.bytes + lo)), ERR_OK);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        if (verdict(&w, lies[i].at, lies[i].value) != ERR_CORRUPT)
            fail_msg("lie %zu was believed", i);
    }
    world_close(&w);
}

static void lies_about_the_builder_are_refused(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_L2);
    size_t made = section_field(&w, section_of(&w, ANN_MADE), 8);
    const struct {
        size_t at;
        uint32_t value;
    } lies[] = {{made, 2},                                               /* version */
                {made + 4, 0},                                           /* builder: auto */
                {made + 4, 3},                                           /* unknown */
                {made + 8, CODES_UNKNOWN},                               /* verdict */
                {made + 8, CODES_REFUSED},                               /* but there are codes */
                {made + 8, 4},                                           /* unknown */
                {made + 20, 0x40000000},                                 /* recall: 2 */
                {made + 20, 0x7fc00000},                                 /* NaN */
                {HEADER + section_of(&w, ANN_MADE) * SECTION + 16, 63}}; /* length */
    assert_int_equal(verdict(&w, made + 4, BUILDER_FAISS), ERR_OK);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        if (verdict(&w, lies[i].at, lies[i].value) != ERR_CORRUPT)
            fail_msg("lie %zu was believed", i);
    }
    world_close(&w);
}

/* As a release without codes wrote it: the same graph, walked on the vectors. */
static void a_file_without_codes_serves(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, DIST_COSINE);
    put_u32(w.bytes + HEADER + section_of(&w, ANN_CODES) * SECTION, 98);
    put_u32(w.bytes + HEADER + section_of(&w, ANN_MADE) * SECTION, 97);
    put_u32(w.bytes + HEADER + section_of(&w, ANN_SCALE) * SECTION, 99);
    seal_header(w.bytes);
    write_whole(w.ann, w.bytes, w.size);
    struct ann_file *a = must_open(w.ann);
    assert_null(a->codes);
    assert_int_equal(a->verdict, CODES_UNKNOWN);
    assert_int_equal(ann_file_verify(a, w.ann, NULL), ERR_OK);
    struct segment *again;
    assert_int_equal(segment_open(w.segment->path, NULL, &again, NULL), ERR_OK);
    segment_set_ann(again, a, ann_file_close);
    search_all(&w, again);
    world_close(&w);
}

static void no_file_is_not_found(void **state)
{
    (void)state;
    struct ann_file *a;
    assert_int_equal(ann_file_open("no/such/file.ann", &a, NULL), ERR_NOT_FOUND);
}

/* ---- the graph parser ---- */

static enum err on_begin(void *arg, uint32_t nodes, uint32_t m, const uint8_t *layers,
                         struct err_ctx *ctx)
{
    (void)arg, (void)nodes, (void)m, (void)layers, (void)ctx;
    return ERR_OK;
}

static enum err on_node(void *arg, uint32_t node, const uint32_t *links, struct err_ctx *ctx)
{
    (void)node, (void)links, (void)ctx;
    ++*(size_t *)arg;
    return ERR_OK;
}

static enum err on_end(void *arg, uint32_t entry, uint32_t layers, struct err_ctx *ctx)
{
    (void)arg, (void)entry, (void)layers, (void)ctx;
    return ERR_OK;
}

static enum err parse(const uint8_t *data, size_t n, size_t piece, size_t *nodes)
{
    const struct graph_sink sink = {nodes, on_begin, on_node, on_end};
    struct graph_parser *p;
    enum err e = ERR_OK;
    *nodes = 0;
    assert_int_equal(graph_parser_new(&sink, &p, NULL), ERR_OK);
    for (size_t at = 0; e == ERR_OK && at < n; at += piece)
        e = graph_parser_push(p, data + at, n - at < piece ? n - at : piece, NULL);
    if (e == ERR_OK)
        e = graph_parser_finish(p, NULL);
    graph_parser_free(p);
    return e;
}

/* "IHNf" with two nodes of one layer, m = 1. */
static void small_stream(struct buf *b)
{
    buf_put(b, "IHNf", 4);
    buf_put_u32(b, 4);
    buf_put_u64(b, 2);
    buf_put_u64(b, 1 << 20);
    buf_put_u64(b, 1 << 20);
    buf_put_u8(b, 1);
    buf_put_u32(b, 1);
    buf_put_u64(b, 1);
    buf_put_u64(b, 0);
    buf_put_u64(b, 3);
    buf_put_u32(b, 0);
    buf_put_u32(b, 2);
    buf_put_u32(b, 3);
    buf_put_u64(b, 2);
    buf_put_u32(b, 1);
    buf_put_u32(b, 1);
    buf_put_u64(b, 3);
    buf_put_zeros(b, 24);
    buf_put_u64(b, 4);
    buf_put_u32(b, 1);
    buf_put_u32(b, UINT32_MAX);
    buf_put_u32(b, 0);
    buf_put_u32(b, UINT32_MAX);
    buf_put_zeros(b, 20);
}

static void the_graph_stream_is_checked_everywhere(void **state)
{
    (void)state;
    struct buf b = {0};
    size_t nodes;
    small_stream(&b);
    for (size_t piece = 1; piece < 40; piece++) {
        assert_int_equal(parse(b.data, b.len, piece, &nodes), ERR_OK);
        assert_int_equal(nodes, 2);
    }
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(parse(b.data, n, 16, &nodes), ERR_CORRUPT);
    for (size_t i = 0; i < b.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            b.data[i] ^= (uint8_t)(1 << bit);
            enum err e = parse(b.data, b.len, 64, &nodes);
            assert_true(e == ERR_OK || e == ERR_CORRUPT || e == ERR_NO_MEMORY);
            b.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buf_deinit(&b);
}

/* ---- sentences ---- */

static void faiss_errors_are_sentences(void **state)
{
    (void)state;
    struct faiss_graph *g = NULL;
    struct err_ctx ctx;
    err_clear(&ctx);
    enum err e = faiss_graph_new(4, UINT32_MAX, 10, false, &g, &ctx);
    print_message("%s\n", ctx.detail);
    assert_int_not_equal(e, ERR_OK);
    assert_int_equal(strncmp(ctx.detail, "FAISS ", 6), 0);
    assert_null(strchr(ctx.detail, '\n'));
}

static void build_errors_are_sentences(void **state)
{
    (void)state;
    struct world w;
    char error[512];
    world_open(&w, DIST_L2);
    char *absent[] = {"build-index", "--segment", "no/such.seg", "--out", w.ann};
    assert_int_equal(rig_build_with(5, absent, error, sizeof(error)), 1);
    assert_non_null(strstr(error, "no/such.seg"));
    char *kind[] = {"build-index", "--segment", w.segment->path, "--out", w.ann, "--kind", "pq"};
    assert_int_equal(rig_build_with(7, kind, error, sizeof(error)), 1);
    assert_non_null(strstr(error, "hnsw and ivf"));
    char *m[] = {"build-index", "--segment", w.segment->path, "--out", w.ann, "--m", "-3"};
    assert_int_equal(rig_build_with(7, m, error, sizeof(error)), 1);
    assert_non_null(strstr(error, "--m is \"-3\""));
    char *metric[] = {"build-index", "--segment", w.segment->path, "--out", w.ann,
                      "--metric",    "ip"};
    assert_int_equal(rig_build_with(7, metric, error, sizeof(error)), 1);
    assert_non_null(strstr(error, "was written for l2"));
    char *usage[] = {"build-index"};
    assert_int_equal(rig_build_with(1, usage, error, sizeof(error)), 1);
    assert_non_null(strstr(error, "usage:"));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they need it themselves */
    float *many = rig_vectors(20000, w.rig.schema->dim, 5, 5);
    struct segment *large = rig_file(&w.rig, 99, many, 20000, 0, NULL);
    char *memory[] = {"build-index", "--segment",
                      large->path,   "--out",
                      w.ann,         "--m",
                      "512",         "--threads",
                      "1",           "--ef-construction",
                      "4",           "--memory-bytes",
                      "1000000"};
    assert_int_equal(rig_build_with(13, memory, error, sizeof(error)), 1);
    assert_non_null(strstr(error, "out of memory: raise --memory"));
    segment_release(large);
    free(many);
#endif
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_built_file_says_what_it_is),
        cmocka_unit_test(a_graph_of_another_segment_is_refused),
        cmocka_unit_test(a_cut_file_is_refused),
        cmocka_unit_test(any_changed_header_byte_is_seen),
        cmocka_unit_test(lying_headers_are_refused),
        cmocka_unit_test(hostile_sections_do_no_harm),
        cmocka_unit_test(every_row_stands_at_one_node_or_the_file_is_refused),
        cmocka_unit_test(codes_are_those_of_the_vectors),
        cmocka_unit_test(a_scale_that_lies_is_refused),
        cmocka_unit_test(lies_about_the_builder_are_refused),
        cmocka_unit_test(a_file_without_codes_serves),
        cmocka_unit_test(no_file_is_not_found),
        cmocka_unit_test(the_graph_stream_is_checked_everywhere),
        cmocka_unit_test(faiss_errors_are_sentences),
        cmocka_unit_test(build_errors_are_sentences),
    };
    if (kernels_init(NULL) != ERR_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
