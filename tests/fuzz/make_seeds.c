/* Writes the seeds of the corpora: `make fuzz-seeds`. Files of the store are made by its own
 * writers and taken apart into the pieces that the targets put together again. */
#include "fuzz.h"

#include <roaring/roaring.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "index/index.h"
#include "log_seed.h"
#include "store/record.h"
#include "store/segment_format.h"

static void save(const char *target, const char *name, const void *data, size_t n)
{
    char path[300];
    snprintf(path, sizeof path, "tests/fuzz/corpus/%s", target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "tests/fuzz/corpus/%s/%s", target, name);
    FILE *f = fopen(path, "wb");
    ASSERT(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

static void save_text(const char *target, const char *name, const char *head, size_t nhead,
                      const char *text)
{
    struct buf out = {0};
    buf_put(&out, head, nhead);
    buf_put(&out, text, strlen(text));
    save(target, name, out.data, out.len);
    buf_deinit(&out);
}

/* ---- texts ---- */

#define ROW                                                                                        \
    "\"vector\":[1,-2.5e-3,3,4],\"f0\":true,\"f1\":-7,\"f2\":\"12\",\"f3\":1.5,\"f4\":\"NaN\","    \
    "\"f5\":\"2024-02-29T12:00:00.5Z\",\"f6\":\"a\\u00e9\\n\",\"f7\":\"AQI=\",\"f8\":[1,2.5],"     \
    "\"f9\":[1,-2],\"f10\":[\"x\",\"\"]}"

static void filter_seeds(void)
{
    static const char *const seeds[][2] = {
        {"numbers", "f1 = 1 or f2 <> -1 and f3 < 0.1 or f4 >= 1e300 or 5 > f1"},
        {"exact", "f2 = 9007199254740993 or f4 < 9223372036854775808 or f1 != 1.5"},
        {"lists", "f1 in (1, -2, null) and f4 not in (0.1, 1.5) and f6 in ('a', 'it''s')"},
        {"between", "f3 between 0 and 1 or f5 not between '1970-01-01' and '2024-05-01T00:00:00Z'"},
        {"like", "f6 like 'a%b_' or f6 not like '%\xc3\xa4!%' escape '!' or f6 like '_%_'"},
        {"null", "f0 is null or f6 is not null and not vector is null"},
        {"contains", "contains(f10, 'a') or CONTAINS(f9, -1) and not contains(f8, 1.5)"},
        {"bools", "f0 and not f0 = false or true and not null"},
        {"bytes", "f7 = x'6162' or f7 > X'' and \"key\" = f6"},
        {"columns", "f3 != f3 or f1 < f4 and f2 = f1 or f6 <= f6"},
        {"nested", "not (f0 or (f1 = 1 and not (f2 = 2 or f3 = 3)) and ((f4 < 5)))"},
        {"key", "key in (1, 2) and key >= 0 or key between -5 and 5"},
        {"key-string", "key like 'a%' or key in ('ab', '') and key < 'b'"},
    };
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++)
        save_text("filter", seeds[i][0], i == 11 ? "\1" : "\0", 1, seeds[i][1]);
}

static void json_seeds(void)
{
    save_text("json", "value", "\0", 1,
              "{\"a\":[1,2.5e-3,-0,null,true,\"\\ud83d\\ude00\\u0000x\"]}");
    save_text("json", "numbers", "\0", 1, "[1,-2.5,3e10,0.1,1e-45]");
    save_text("json", "row-string", "\1", 1, "{\"key\":\"k1\"," ROW);
    save_text("json", "row-int", "\2", 1, "{\"key\":17," ROW);
    save_text("json", "row-nulls", "\2", 1, "{\"vector\":null,\"key\":\"-9\",\"f1\":null}");
    save_text(
        "json", "schema", "\3", 1,
        "{\"key\":\"string\",\"vector\":{\"dim\":4,\"metric\":\"l2\"},\"features\":{\"price\":"
        "\"float32\",\"ts\":\"timestamp\",\"tags\":\"string[]\"},\"partition_by\":[\"price\"],"
        "\"event_time\":\"ts\",\"join_keys\":[\"d\"],\"index\":{\"kind\":\"hnsw\",\"m\":16,"
        "\"ef_construction\":100},\"retention\":{\"versions\":5,\"hours\":2}}");
    save_text("json", "search", "\4", 1,
              "{\"vectors\":[[1,2,3,4],[0,0,0,1]],\"k\":3,\"ef\":64,\"features\":[\"f1\",\"f6\"],"
              "\"with_vectors\":true}");
    save_text("json", "search-filter", "\4", 1,
              "{\"vector\":[1,2,3,4],\"filter\":\"f1 > 0 and f6 like 'a%'\",\"explain\":true}");
    save_text("json", "search-key", "\4", 1, "{\"keys\":[\"a\",\"b\"],\"k\":1,\"exact\":true}");
}

static void column_seeds(void)
{
    save_text(
        "json", "columns-string", "\5", 1,
        "{\"keys\":[\"a\",\"b\"],\"vectors\":[[1,2,3,4],null],\"features\":{\"f0\":[true,null],"
        "\"f3\":[1.5,2],\"f6\":[\"x\",\"\"],\"f8\":[[1,2],[]],\"f10\":[[\"q\"],null]}}");
    save_text("json", "columns-int", "\6", 1,
              "{\"features\":{\"f1\":[1,2,3,4]},\"keys\":[1,\"2\",3,4],\"vectors\":null}");
}

static void npy_seed(const char *name, const char *prefix, size_t nprefix, const char *dict)
{
    struct buf out = {0};
    float rows[3][FUZZ_DIM] = {{1, 2, 3, 4}, {0, -1, 0, 0}, {5, 5, 5, 5}};
    buf_put(&out, prefix, nprefix);
    buf_put(&out, dict, strlen(dict));
    buf_put(&out, rows, sizeof rows);
    save("npy", name, out.data, out.len);
    buf_deinit(&out);
}

static void npy_seeds(void)
{
    npy_seed("version-1", "\7\x93NUMPY\1\0\x3a\0", 11,
             "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}\n");
    npy_seed("version-2", "\x87\x93NUMPY\2\0\x3c\0\0\0", 13,
             "{'shape': (3, 4,), 'fortran_order': False, 'descr': '<f4'} \n");
}

static void ndjson_seeds(void)
{
    save_text("ndjson", "lines-int", "\1\0", 2, "{\"key\":1," ROW "\n\r\n{\"key\":2}\n");
    save_text("ndjson", "lines-string", "\3\1", 2, "{\"key\":\"a\"," ROW "\n{\"key\":\"b\"}");
    save_text("ndjson", "json-int", "\0\2", 2, "{\"rows\":[{\"key\":1," ROW ",{\"key\":2}]}");
    save_text("ndjson", "json-string", "\2\3", 2,
              " {\"rows\" : [ {\"key\":\"]}\\\"\"} , {\"key\":\"b\",\"f10\":[\"{\"]} ] } ");
}

/* ---- segments ---- */

static uint8_t *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    ASSERT(f && fseek(f, 0, SEEK_END) == 0);
    *n = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(*n);
    ASSERT(data && fread(data, 1, *n, f) == *n);
    fclose(f);
    return data;
}

/* The footer starts with what comes before the section table: read as segment.c does. */
static void segment_seed(const char *name, enum key_type key, int first, int rows)
{
    char path[] = "/tmp/seedXXXXXX";
    int fd = mkstemp(path);
    size_t n;
    struct schema *schema;
    struct segment_trailer t;
    struct buf out = {0};
    ASSERT(fd >= 0 && close(fd) == 0 && unlink(path) == 0);
    write_seed_rows(path, key, first, rows);
    uint8_t *data = read_file(path, &n);
    unlink(path);
    memcpy(&t, data + n - sizeof t, sizeof t);
    struct cursor c = cursor_over(data + t.footer_offset, t.footer_length);
    cursor_take(&c, 12);
    ASSERT(schema_decode(&c, &schema, NULL) == ERR_OK);
    schema_release(schema);
    cursor_take(&c, 1 + 3 * 8 + 8 + 4);
    put_piece(&out, 0, data + t.footer_offset, (size_t)(c.p - (data + t.footer_offset)));
    for (uint32_t i = 0, sections = cursor_u32(&c); i < sections; i++) {
        struct buf piece = {0};
        uint8_t kind = (uint8_t)cursor_u32(&c);
        buf_put_u8(&piece, (uint8_t)cursor_u32(&c));
        buf_put_u8(&piece, 0);
        uint64_t offset = cursor_u64(&c), length = cursor_u64(&c);
        buf_put(&piece, data + offset, length);
        put_piece(&out, kind, piece.data, piece.len);
        buf_deinit(&piece);
    }
    save("segment", name, out.data, out.len);
    buf_deinit(&out);
    free(data);
}

/* ---- index files ---- */

static void ann_seed(const char *name, char *kind)
{
    char segment[] = "/tmp/seedXXXXXX", out[64];
    int fd = mkstemp(segment);
    size_t n;
    struct buf seed = {0};
    ASSERT(fd >= 0 && close(fd) == 0 && unlink(segment) == 0);
    write_seed_rows(segment, KEY_INT64, 0, SEGMENT_ROWS);
    snprintf(out, sizeof out, "%s.ann", segment);
    char *argv[] = {"build-index", "--segment", segment, "--out",     out, "--kind",
                    kind,          "--m",       "4",     "--threads", "1"};
    ASSERT(build_index_main(11, argv) == 0);
    uint8_t *data = read_file(out, &n);
    unlink(segment);
    unlink(out);
    struct cursor c = cursor_over(data, n);
    cursor_take(&c, 16);
    uint32_t flags = cursor_u32(&c), sections = cursor_u32(&c);
    cursor_take(&c, 16 + 8 + 8);
    put_piece(&seed, (uint8_t)flags, cursor_take(&c, 40), 40);
    for (uint32_t i = 0; i < sections; i++) {
        struct buf piece = {0};
        uint8_t section = (uint8_t)cursor_u32(&c);
        cursor_u32(&c);
        uint64_t offset = cursor_u64(&c), length = cursor_u64(&c);
        cursor_u64(&c);
        buf_put_u8(&piece, 0);
        buf_put(&piece, data + offset, length);
        put_piece(&seed, section, piece.data, piece.len);
        buf_deinit(&piece);
    }
    save("ann", name, seed.data, seed.len);
    buf_deinit(&seed);
    free(data);
}

/* ---- files of FAISS ---- */

enum { FAISS_ROWS = 60, LISTS = 3, M = 2 };

static void put_faiss_header(struct buf *out, const char *type, uint64_t n)
{
    buf_put(out, type, 4);
    buf_put_u32(out, FUZZ_DIM);
    buf_put_u64(out, n);
    buf_put_zeros(out, 16);
    buf_put_u8(out, 1);
    buf_put_u32(out, 0); /* inner product */
}

/* Rows that have a vector, those of one list of LISTS, or all (LISTS). */
static uint64_t put_faiss_rows(struct buf *vectors, struct buf *ids, int list, int id_step)
{
    uint64_t n = 0;
    for (int i = 0; i < FAISS_ROWS; i++) {
        if (i % 7 == 3 || (list < LISTS && i % LISTS != list))
            continue;
        for (int j = 0; j < FUZZ_DIM; j++) {
            float v = (float)(i + j + 1);
            buf_put(vectors, &v, sizeof v);
        }
        buf_put_u64(ids, (uint64_t)(i * id_step));
        n++;
    }
    return n;
}

static void put_flat(struct buf *out, uint64_t n, const struct buf *vectors)
{
    put_faiss_header(out, "IxFI", n);
    buf_put_u64(out, n * FUZZ_DIM);
    buf_put(out, vectors->data, n * FUZZ_DIM * sizeof(float));
}

/* A ring; the first node has an upper layer. */
static void put_ring(struct buf *out, uint32_t n)
{
    buf_put_u64(out, 2);
    buf_put_zeros(out, 2 * sizeof(double));
    buf_put_u64(out, 3);
    for (uint32_t i = 0; i < 3; i++)
        buf_put_u32(out, i == 0 ? 0 : (i + 1) * M);
    buf_put_u64(out, n);
    for (uint32_t i = 0; i < n; i++)
        buf_put_u32(out, i == 0 ? 2 : 1);
    buf_put_u64(out, n + 1ull);
    for (uint32_t i = 0; i <= n; i++)
        buf_put_u64(out, i * 2ull * M + (i > 0) * M);
    buf_put_u64(out, (2ull * n + 1) * M);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t links[3 * M] = {(i + 1) % n, (i + n - 1) % n, (i + 7) % n,
                                       UINT32_MAX,  UINT32_MAX,      UINT32_MAX};
        buf_put(out, links, (i == 0 ? 3 * M : 2 * M) * sizeof(uint32_t));
    }
    buf_put_u32(out, 0); /* entry */
    buf_put_u32(out, 1);
    buf_put_u32(out, 40);
    buf_put_u32(out, 16);
    buf_put_u32(out, 1);
}

static void faiss_graph_seed(const char *name, uint8_t flags, int id_step, bool mapped)
{
    struct buf out = {0}, vectors = {0}, ids = {0};
    uint64_t n = put_faiss_rows(&vectors, &ids, LISTS, id_step);
    buf_put_u8(&out, flags);
    buf_put_u8(&out, M);
    if (mapped)
        put_faiss_header(&out, "IxM2", n);
    put_faiss_header(&out, "IHNf", n);
    put_ring(&out, (uint32_t)n);
    put_flat(&out, n, &vectors);
    if (mapped) {
        buf_put_u64(&out, n);
        buf_put(&out, ids.data, ids.len);
    }
    save("faiss", name, out.data, out.len);
    buf_deinit(&out);
    buf_deinit(&vectors);
    buf_deinit(&ids);
}

static void put_list_sizes(struct buf *out, const uint64_t sizes[LISTS], bool sparse)
{
    buf_put(out, sparse ? "sprs" : "full", 4);
    buf_put_u64(out, sparse ? 2 * LISTS : LISTS);
    for (uint64_t l = 0; l < LISTS; l++) {
        if (sparse)
            buf_put_u64(out, l);
        buf_put_u64(out, sizes[l]);
    }
}

static void faiss_lists_seed(const char *name, bool sparse)
{
    struct buf out = {0}, all = {0}, vectors[LISTS] = {0}, ids[LISTS] = {0}, unused = {0};
    uint64_t n = put_faiss_rows(&all, &unused, LISTS, 1), sizes[LISTS];
    buf_put_u8(&out, 1);
    buf_put_u8(&out, LISTS);
    put_faiss_header(&out, "IwFl", n);
    buf_put_u64(&out, LISTS);
    buf_put_u64(&out, 1);
    put_flat(&out, LISTS, &all);
    buf_put_u8(&out, sparse ? 2 : 0); /* a direct map that is a table, without entries */
    buf_put_zeros(&out, sparse ? 16 : 8);
    buf_put(&out, "ilar", 4);
    buf_put_u64(&out, LISTS);
    buf_put_u64(&out, FUZZ_DIM * sizeof(float));
    for (int l = 0; l < LISTS; l++)
        sizes[l] = put_faiss_rows(&vectors[l], &ids[l], l, 3);
    put_list_sizes(&out, sizes, sparse);
    for (int l = 0; l < LISTS; l++) {
        buf_put(&out, vectors[l].data, vectors[l].len);
        buf_put(&out, ids[l].data, ids[l].len);
        buf_deinit(&vectors[l]);
        buf_deinit(&ids[l]);
    }
    save("faiss", name, out.data, out.len);
    buf_deinit(&out);
    buf_deinit(&all);
    buf_deinit(&unused);
}

/* ---- logs ---- */

static void put_create(struct buf *out, const struct schema *s)
{
    struct buf rec = {0};
    create_record_encode(s, 0, &rec);
    put_piece(out, 0, rec.data, rec.len);
    put_piece(out, 1, "", 0);
    buf_deinit(&rec);
}

static void put_commit(struct buf *out, struct commit_record *r)
{
    struct buf rec = {0};
    commit_record_encode(r, &rec);
    put_piece(out, 0, rec.data, rec.len);
    put_piece(out, 1, "", 0);
    buf_deinit(&rec);
}

/* A commit of a few rows into tail 1. */
static void put_rows(struct buf *out, const struct schema *s, uint64_t version, int rows)
{
    struct buf inline_rows = {0};
    struct commit_record r = {.meta = {.version = version,
                                       .rows = (uint64_t)rows,
                                       .live_rows = (uint64_t)rows,
                                       .message = "m",
                                       .message_len = 1},
                              .tail_id = 1,
                              .ninline = (uint32_t)rows};
    struct inline_run run = {0, 0};
    buf_put(&r.runs, &run, sizeof run);
    for (int i = 0; i < rows; i++) {
        struct seed_row row;
        seed_row(&row, s, 100 + i);
        row_encode(&row.rb.row, &inline_rows);
        r.inline_payload += row.rb.row.key_len;
        for (uint32_t v = 0; v < s->nvar; v++)
            r.inline_payload += row.rb.row.var[v].len;
        row_builder_deinit(&row.rb);
    }
    r.inline_rows = inline_rows.data;
    r.inline_len = inline_rows.len;
    put_commit(out, &r);
    commit_record_deinit(&r);
    buf_deinit(&inline_rows);
}

/* A commit that brings segment 2 and kills a row of it and one of the tail. */
static void put_segment(struct buf *out, uint64_t version)
{
    struct commit_record r = {.meta = {.version = version, .rows = SEGMENT_ROWS}, .tail_id = 1};
    struct segment_ref ref = {.id = SEGMENT_ID, .base_version = version, .rows = SEGMENT_ROWS};
    roaring_bitmap_t *dead = roaring_bitmap_of(2, 1u, 2u);
    size_t n = roaring_bitmap_portable_size_in_bytes(dead);
    char mask[256];
    ASSERT(n <= sizeof mask);
    roaring_bitmap_portable_serialize(dead, mask);
    roaring_bitmap_free(dead);
    buf_put(&r.segments, &ref, sizeof ref);
    for (uint64_t id = 1; id <= 2; id++) {
        struct dead_ref d = {id, mask, n};
        buf_put(&r.dead, &d, sizeof d);
    }
    put_commit(out, &r);
    commit_record_deinit(&r);
}

/* Everything goes, or segment 2 comes back. */
static void put_replacement(struct buf *out, uint64_t version, bool restores)
{
    struct commit_record r = {
        .meta = {.version = version}, .tail_id = 1, .replace_all = !restores, .restores = restores};
    struct segment_ref ref = {.id = SEGMENT_ID, .base_version = 2, .rows = SEGMENT_ROWS};
    r.meta.live_rows = restores ? SEGMENT_ROWS : 0;
    if (restores)
        buf_put(&r.target.segments, &ref, sizeof ref);
    put_commit(out, &r);
    commit_record_deinit(&r);
}

static void put_tag_and_vacuum(struct buf *out, uint64_t version)
{
    struct tag_record tag = {"v1", 2, true, version - 1};
    struct vacuum_record vacuum = {.horizon = version};
    struct buf record = {0};
    tag_record_encode(&tag, &record);
    put_piece(out, 0, record.data, record.len);
    buf_reset(&record);
    buf_put(&vacuum.kept, &tag.version, sizeof tag.version);
    vacuum_record_encode(&vacuum, &record);
    put_piece(out, 0, record.data, record.len);
    vacuum_record_deinit(&vacuum);
    buf_deinit(&record);
}

static void put_compaction(struct buf *out)
{
    struct compact_record r = {0};
    struct segment_ref ref = {.id = SEGMENT_ID, .rows = SEGMENT_ROWS};
    uint64_t tail = 1;
    struct buf record = {0};
    buf_put(&r.removed, &tail, sizeof tail);
    buf_put(&r.added.segments, &ref, sizeof ref);
    compact_record_encode(&r, &record);
    put_piece(out, 0, record.data, record.len);
    compact_record_deinit(&r);
    buf_deinit(&record);
}

static void put_checkpoint(struct buf *out, struct schema *s, uint64_t version)
{
    static const uint8_t id[16];
    struct buf file = {0};
    struct checkpoint cp = {.schema = s,
                            .meta = {.version = version, .live_rows = SEGMENT_ROWS},
                            .next_segment_id = 3,
                            .first_group = 1,
                            .items = version,
                            .horizon = version - 1};
    struct tag_ref tag = {"v7", 2, version};
    struct segment_ref ref = {.id = SEGMENT_ID, .base_version = version, .rows = SEGMENT_ROWS};
    buf_put(&cp.manifest.segments, &ref, sizeof ref);
    buf_put(&cp.registry, &ref, sizeof ref);
    buf_put(&cp.tags, &tag, sizeof tag);
    buf_put(&cp.kept, &version, sizeof version);
    checkpoint_encode(&cp, id, &file);
    size_t envelope = 8 + 4 + 16 + 8 + 4;
    put_piece(out, 4, file.data + envelope, file.len - envelope);
    buf_deinit(&file);
    buf_deinit(&cp.manifest.segments);
    buf_deinit(&cp.registry);
    buf_deinit(&cp.tags);
    buf_deinit(&cp.kept);
}

static void log_seeds(void)
{
    struct schema *s = fuzz_schema(KEY_STRING);
    struct buf out = {0};
    put_create(&out, s);
    put_rows(&out, s, 1, 3);
    put_segment(&out, 2);
    put_piece(&out, 3, "", 0);
    put_rows(&out, s, 3, 2);
    save("log", "commits", out.data, out.len);
    buf_reset(&out);
    put_create(&out, s);
    put_rows(&out, s, 1, 3);
    put_segment(&out, 2);
    put_replacement(&out, 3, false);
    put_tag_and_vacuum(&out, 3);
    put_replacement(&out, 4, true);
    put_rows(&out, s, 5, 2);
    save("log", "versions", out.data, out.len);
    buf_reset(&out);
    put_create(&out, s);
    put_compaction(&out);
    put_rows(&out, s, 1, 3);
    save("log", "compaction", out.data, out.len);
    buf_reset(&out);
    put_checkpoint(&out, s, 7);
    put_rows(&out, s, 8, 2);
    put_piece(&out, 2, "torn", 4);
    save("log", "checkpoint", out.data, out.len);
    buf_deinit(&out);
    schema_release(s);
}

int main(void)
{
    json_seeds();
    filter_seeds();
    column_seeds();
    npy_seeds();
    ndjson_seeds();
    segment_seed("string-keys", KEY_STRING, 50, 15);
    segment_seed("int-keys", KEY_INT64, 50, 15);
    segment_seed("repeated-keys", KEY_STRING, 0, 70);
    segment_seed("one-row", KEY_STRING, 3, 1);
    log_seeds();
    ann_seed("graph", "hnsw");
    ann_seed("lists", "ivf");
    faiss_graph_seed("graph-by-key", 0, 3, true);
    faiss_graph_seed("graph-by-place", 2, 1, true);
    faiss_graph_seed("graph-without-ids", 0, 1, false);
    faiss_lists_seed("lists", false);
    faiss_lists_seed("lists-sparse", true);
    return 0;
}
