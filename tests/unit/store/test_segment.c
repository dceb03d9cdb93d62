/* Segment files: everything written is read back, keys are found, and no damaged or cut-off file
 * opens unnoticed or leads outside its mapping. */
#include "store_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "store/segment_writer.h"

static const uint8_t id[16] = "collection-id-01";

enum { ROWS = 3000 };

static struct schema *make_schema(struct fixture *f, enum key_type key)
{
    struct schema *s;
    OK(schema_new(key, 3, DIST_L2, &s, &f->ctx));
    OK(schema_add_feature(s, "flag", FEATURE_BOOL, &f->ctx));
    OK(schema_add_feature(s, "big", FEATURE_INT64, &f->ctx));
    OK(schema_add_feature(s, "text", FEATURE_STRING, &f->ctx));
    OK(schema_add_feature(s, "small", FEATURE_INT32, &f->ctx));
    OK(schema_add_feature(s, "blob", FEATURE_BYTES, &f->ctx));
    OK(schema_seal(s, &f->ctx));
    return s;
}

/* Row i: key i * 7 (or "key-<i*7>"), no vector when i % 5 == 0, big null when i % 3 == 0, text of
 * i % 50 bytes. */
static void fill(struct fixture *f, struct schema *s, const char *path)
{
    struct segment_writer *w;
    struct batch *b;
    struct row_builder rb;
    OK(segment_writer_new(f->io, path, id, 42, s, 0, &w, &f->ctx));
    OK(batch_new(s, &b, &f->ctx));
    OK(row_builder_init(&rb, s, &f->ctx));
    for (int64_t i = 0; i < ROWS; i++) {
        char text[64];
        bool partial;
        int32_t small = (int32_t)-i;
        if (s->key == KEY_INT64) {
            OK(batch_row_int(b, i * 7, &f->ctx));
        } else {
            snprintf(text, sizeof text, "key-%lld", (long long)i * 7);
            OK(batch_row_str(b, text, strlen(text), &f->ctx));
        }
        float v[3] = {(float)i, 1, 2};
        if (i % 5)
            OK(batch_set_vector(b, v, &f->ctx));
        if (i % 3)
            OK(batch_set(b, 1, &i, 8, &f->ctx));
        memset(text, 'a' + (int)(i % 26), sizeof text);
        OK(batch_set(b, 2, text, (size_t)i % 50, &f->ctx));
        OK(batch_set(b, 3, &small, 4, &f->ctx));
        row_from_batch(&rb, b, 0, NULL, 0, &partial);
        OK(segment_writer_append(w, &rb.row, &f->ctx));
        batch_reset(b);
    }
    struct seq_run run = {.ordinal = 5};
    OK(segment_writer_finish(w, &run, 1, &f->ctx));
    segment_writer_free(w);
    row_builder_deinit(&rb);
    batch_free(b);
}

static uint32_t find(const struct segment *s, int64_t key)
{
    char text[64];
    if (s->schema->key == KEY_INT64)
        return segment_find_int(s, key);
    snprintf(text, sizeof text, "key-%lld", (long long)key);
    return segment_find_str(s, text, strlen(text), key_hash(text, strlen(text)));
}

static void what_is_written_is_read(void **state)
{
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct schema *s = make_schema(f, *(enum key_type *)*state);
    char path[2000];
    snprintf(path, sizeof path, "%s/x.seg", f->dir);
    fill(f, s, path);
    struct segment *seg;
    OK(segment_open(path, id, &seg, &f->ctx));
    OK(segment_verify(seg, &f->ctx));
    assert_int_equal(seg->rows, ROWS);
    assert_int_equal(seg->id, 42);
    seg->base_version = 9;
    for (int64_t i = 0; i < ROWS; i++) {
        uint32_t row = find(seg, i * 7);
        assert_int_equal(row, i + 1);
        assert_int_equal(find(seg, i * 7 + 1), 0);
        row--;
        const float *v = segment_vector(seg, row);
        assert_true(i % 5 ? v && v[0] == (float)i : v == NULL);
        size_t len;
        const int64_t *big = segment_cell(seg, row, 1, &len);
        assert_true(i % 3 ? big && *big == i : big == NULL);
        const char *text = segment_cell(seg, row, 2, &len);
        assert_true(text && len == (size_t)i % 50);
        if (len)
            assert_true(text[len - 1] == 'a' + i % 26);
        assert_int_equal(*(const int32_t *)segment_cell(seg, row, 3, &len), -i);
        assert_null(segment_cell(seg, row, 0, &len));
        assert_null(segment_cell(seg, row, 4, &len));
        assert_null(segment_cell(seg, row, 5, &len)); /* a feature that came later */
        uint64_t version, ordinal;
        segment_seq(seg, row, &version, &ordinal);
        assert_true(version == 9 && ordinal == 5 + (uint64_t)i);
    }
    segment_release(seg);
    static const uint8_t other[16] = "collection-id-02";
    assert_int_equal(segment_open(path, other, &seg, &f->ctx), ERR_CORRUPT);
    schema_release(s);
    fixture_free(f);
}

static void every_truncation_is_noticed(void **state)
{
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct schema *s = make_schema(f, *(enum key_type *)*state);
    char path[2000];
    struct stat st;
    struct segment *seg;
    snprintf(path, sizeof path, "%s/x.seg", f->dir);
    fill(f, s, path);
    assert_int_equal(stat(path, &st), 0);
    for (off_t size = st.st_size - 1; size > 0;
         size = size > 300 ? size - size / 17 - 1 : size - 1) {
        assert_int_equal(truncate(path, size), 0);
        assert_int_equal(segment_open(path, id, &seg, &f->ctx), ERR_CORRUPT);
    }
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(segment_open(path, id, &seg, &f->ctx), ERR_CORRUPT);
    schema_release(s);
    fixture_free(f);
}

/* Flips one byte here and there: the file is refused, or verify names the block; and reading every
 * row of what did open stays inside the mapping (ASan and the mapping's end watch). */
static void every_flipped_byte_is_noticed(void **state)
{
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct schema *s = make_schema(f, *(enum key_type *)*state);
    char path[2000];
    struct stat st;
    snprintf(path, sizeof path, "%s/x.seg", f->dir);
    fill(f, s, path);
    assert_int_equal(stat(path, &st), 0);
    int fd = open(path, O_RDWR);
    unsigned seed = 7;
    for (int round = 0; round < 400; round++) {
        off_t at = (off_t)((double)rand_r(&seed) / RAND_MAX * (double)(st.st_size - 1));
        uint8_t was, is;
        assert_int_equal(pread(fd, &was, 1, at), 1);
        is = was ^ (uint8_t)(1 + rand_r(&seed) % 255);
        assert_int_equal(pwrite(fd, &is, 1, at), 1);
        struct segment *seg;
        enum err e = segment_open(path, id, &seg, &f->ctx);
        if (e == ERR_OK) {
            assert_int_equal(segment_verify(seg, &f->ctx), ERR_CORRUPT);
            char block[64];
            snprintf(block, sizeof block, "offset %lld ",
                     (long long)(at / IO_SUM_BLOCK * IO_SUM_BLOCK));
            assert_non_null(strstr(f->ctx.detail, block));
            size_t len, sum = 0;
            for (int64_t i = 0; i < ROWS; i++) {
                uint32_t row = find(seg, i * 7);
                sum += row ? segment_older(seg, row - 1) : 0;
                for (uint32_t c = 0; c < 5; c++)
                    sum += segment_cell(seg, (uint32_t)i, c, &len) ? len : 0;
            }
            assert_true(sum < SIZE_MAX);
            segment_release(seg);
        } else {
            assert_int_equal(e, ERR_CORRUPT);
        }
        assert_int_equal(pwrite(fd, &was, 1, at), 1);
    }
    close(fd);
    schema_release(s);
    fixture_free(f);
}

static void counted_keys_need_no_index(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct schema *s;
    struct segment_writer *w;
    struct segment *seg;
    char path[2000];
    float vectors[200] = {0};
    snprintf(path, sizeof path, "%s/x.seg", f->dir);
    OK(schema_new(KEY_INT64, 2, DIST_L2, &s, &f->ctx));
    OK(schema_seal(s, &f->ctx));
    for (int broken = 0; broken < 2; broken++) {
        OK(segment_writer_new(f->io, path, id, 1, s, 0, &w, &f->ctx));
        OK(segment_writer_append_run(w, vectors, 100, -50, &f->ctx));
        OK(segment_writer_append_run(w, vectors, 100, broken ? 1000 : 50, &f->ctx));
        struct seq_run run = {0};
        OK(segment_writer_finish(w, &run, 1, &f->ctx));
        segment_writer_free(w);
        OK(segment_open(path, id, &seg, &f->ctx));
        assert_int_equal(seg->keys_run, !broken);
        assert_int_equal(seg->key_slots == NULL, !broken);
        assert_int_equal(segment_find_int(seg, -50), 1);
        assert_int_equal(segment_find_int(seg, -51), 0);
        assert_int_equal(segment_find_int(seg, 149), broken ? 0 : 200);
        assert_int_equal(segment_find_int(seg, 1099), broken ? 200 : 0);
        segment_release(seg);
        assert_int_equal(unlink(path), 0);
    }
    schema_release(s);
    fixture_free(f);
}

/* Rows 0 .. 99 alone, 100 .. 199 as a run; row 50 has no vector. */
static void long_vectors_have_their_hashes_beside_them(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_AUTO);
    struct schema *s;
    struct segment_writer *w;
    struct segment *seg;
    struct row_builder rb;
    char path[2000];
    static float vectors[200][64];
    for (int i = 0; i < 200 * 64; i++)
        vectors[i / 64][i % 64] = (float)(i % 977);
    snprintf(path, sizeof path, "%s/x.seg", f->dir);
    OK(schema_new(KEY_INT64, 64, DIST_L2, &s, &f->ctx));
    OK(schema_seal(s, &f->ctx));
    OK(segment_writer_new(f->io, path, id, 1, s, 0, &w, &f->ctx));
    for (int i = 0; i < 100; i++) {
        struct row row = {.schema = s, .int_key = i, .vector = i == 50 ? NULL : vectors[i]};
        OK(segment_writer_append(w, &row, &f->ctx));
    }
    OK(segment_writer_append_run(w, vectors[100], 100, 100, &f->ctx));
    struct seq_run run = {0};
    OK(segment_writer_finish(w, &run, 1, &f->ctx));
    segment_writer_free(w);
    OK(segment_open(path, id, &seg, &f->ctx));
    OK(row_builder_init(&rb, s, &f->ctx));
    for (uint32_t i = 0; i < 200; i++) {
        row_from_segment(&rb, seg, i);
        assert_ptr_equal(rb.row.hashed, i == 50 ? NULL : seg->vectors + i * 64);
        struct digest stored = row_digest(&rb.row);
        rb.row.hashed = NULL;
        struct digest reckoned = row_digest(&rb.row);
        assert_memory_equal(&stored, &reckoned, sizeof stored);
        if (i != 50) {
            rb.row.vector = vectors[(i + 1) % 200]; /* another's: its hash is not the stored one */
            rb.row.hashed = seg->vectors + i * 64;
            struct digest other = row_digest(&rb.row);
            assert_memory_not_equal(&stored, &other, sizeof stored);
        }
    }
    row_builder_deinit(&rb);
    segment_release(seg);
    schema_release(s);
    fixture_free(f);
}

int main(void)
{
    static enum key_type strings = KEY_STRING, ints = KEY_INT64;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(what_is_written_is_read, &strings),
        cmocka_unit_test_prestate(what_is_written_is_read, &ints),
        cmocka_unit_test_prestate(every_truncation_is_noticed, &strings),
        cmocka_unit_test_prestate(every_truncation_is_noticed, &ints),
        cmocka_unit_test_prestate(every_flipped_byte_is_noticed, &strings),
        cmocka_unit_test_prestate(every_flipped_byte_is_noticed, &ints),
        cmocka_unit_test(counted_keys_need_no_index),
        cmocka_unit_test(long_vectors_have_their_hashes_beside_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
