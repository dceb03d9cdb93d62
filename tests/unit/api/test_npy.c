/* .npy headers: what is read, what is refused and with which words; and rows that arrive in pieces
 * of every size. */
#include "unit/store/store_fixture.h"

#include "api/npy_rows.h"

struct npy_file {
    uint8_t data[2048];
    size_t len;
};

static struct npy_file file_of(int version, const char *dict)
{
    struct npy_file f;
    size_t n = strlen(dict), prefix = version == 1 ? 10 : 12;
    memcpy(f.data, "\x93NUMPY", 6);
    f.data[6] = (uint8_t)version;
    memset(f.data + 7, 0, 5);
    f.data[8] = (uint8_t)n;
    f.data[9] = (uint8_t)(n >> 8);
    memcpy(f.data + prefix, dict, n);
    f.len = prefix + n;
    return f;
}

/* From a copy of the exact size, so that a sanitizer sees a read past the end. */
static enum err read_header(const struct npy_file *f, struct npy_array *out, struct err_ctx *ctx)
{
    size_t need = 0;
    uint8_t *copy = malloc(f->len);
    assert_non_null(copy);
    memcpy(copy, f->data, f->len);
    err_clear(ctx);
    enum err e = npy_header_length(copy, f->len, &need, ctx);
    if (e == ERR_OK) {
        assert_int_equal(need, f->len);
        e = npy_header_read(copy, f->len, out, ctx);
    }
    free(copy);
    return e;
}

static const struct {
    const char *dict;
    uint64_t rows, dim;
} valid[] = {
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }     \n", 3, 4},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}", 3, 4},
    {"{'shape': (3, 4), 'fortran_order': False, 'descr': '<f4'}\n", 3, 4},
    {"{\"fortran_order\":False,\"descr\":\"<f4\",\"shape\":(0,1024,)}", 0, 1024},
    {" { 'descr' : '<f4' ,\n 'fortran_order' : False , 'shape' : ( 12L , 1L ) , } \n", 12, 1},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 4), }\n", 1, 4},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (9, 1), }\n", 9, 1},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976, 4), }\n", 1ull << 60,
     4},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 1)}", UINT64_MAX, 1},
};

static const struct {
    const char *dict;
    enum err err;
    const char *words;
} invalid[] = {
    {"", ERR_INVALID, "'{'"},
    {"{", ERR_INVALID, "ends"},
    {"[]", ERR_INVALID, "'['"},
    {"{}", ERR_INVALID, "no 'descr'"},
    {"{'descr': '<f4', 'fortran_order': False}", ERR_INVALID, "no 'shape'"},
    {"{'descr': '<f4', 'shape': (3, 4)}", ERR_INVALID, "no 'fortran_order'"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), 'x': 1}", ERR_INVALID, "'x'"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}", ERR_INVALID,
     "'descr' twice"},
    {"{'descr': '<f4' 'fortran_order': False, 'shape': (3, 4)}", ERR_INVALID, "','"},
    {"{'descr' '<f4', 'fortran_order': False, 'shape': (3, 4)}", ERR_INVALID, "':'"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)} x", ERR_INVALID, "white space"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}{}", ERR_INVALID, "white space"},
    {"{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 4)}", ERR_INVALID, "True or False"},
    {"{'descr': '<f4', 'fortran_order': Tru", ERR_INVALID, "True or False"},
    {"{'descr': '<f4', 'fortran_order': Falsey, 'shape': (3, 4)}", ERR_INVALID, "'y'"},
    {"{'descr': <f4, 'fortran_order': False, 'shape': (3, 4)}", ERR_INVALID, "dtype"},
    {"{'descr': '<f4, 'fortran_order': False, 'shape': (3, 4)}", ERR_INVALID, "','"},
    {"{'descr': '<\\x664', 'fortran_order': False, 'shape': (3, 4)}", ERR_INVALID, "string"},
    {"{'descr': '<f4", ERR_INVALID, "string"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': [3, 4]}", ERR_INVALID, "'('"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3 4)}", ERR_INVALID, "','"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 4)}", ERR_INVALID, "number"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3.0, 4)}", ERR_INVALID, "'.'"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", ERR_INVALID, "number"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3)}", ERR_INVALID, "tuple"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4", ERR_INVALID, "ends"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
     "1,1,1,1,1,1,1,1,1,1,1,1,1,1)}",
     ERR_INVALID, "dimensions"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616, 4)}",
     ERR_UNPROCESSABLE, "18446744073709551616"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999999999, 4)}",
     ERR_UNPROCESSABLE, "99999"},
    {"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4)}", ERR_UNPROCESSABLE, "'<f8'"},
    {"{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4)}", ERR_UNPROCESSABLE, "'<f2'"},
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (3, 4)}", ERR_UNPROCESSABLE, "'>f4'"},
    {"{'descr': '|i1', 'fortran_order': False, 'shape': (3, 4)}", ERR_UNPROCESSABLE, "astype"},
    {"{'descr': '<f4x', 'fortran_order': False, 'shape': (3, 4)}", ERR_UNPROCESSABLE, "'<f4x'"},
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", ERR_UNPROCESSABLE,
     "structured"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", ERR_UNPROCESSABLE, "reshape"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': ()}", ERR_UNPROCESSABLE, "0 dimensions"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4)}", ERR_UNPROCESSABLE,
     "3 dimensions"},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4)}", ERR_UNPROCESSABLE, "Fortran"},
};

static void headers_that_numpy_writes_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        for (int version = 1; version <= 3; version++) {
            struct npy_file f = file_of(version, valid[i].dict);
            struct npy_array a;
            struct err_ctx ctx;
            if (read_header(&f, &a, &ctx) != ERR_OK)
                fail_msg("version %d, %s: %s", version, valid[i].dict, ctx.detail);
            assert_int_equal(a.rows, valid[i].rows);
            assert_int_equal(a.dim, valid[i].dim);
        }
    }
}

static void other_headers_are_refused_with_a_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        struct npy_file f = file_of(1, invalid[i].dict);
        struct npy_array a;
        struct err_ctx ctx;
        enum err e = read_header(&f, &a, &ctx);
        if (e != invalid[i].err || !strstr(ctx.detail, invalid[i].words))
            fail_msg("%s: %d %s", invalid[i].dict, e, e == ERR_OK ? "" : ctx.detail);
    }
}

static void the_length_is_known_byte_by_byte(void **state)
{
    (void)state;
    struct err_ctx ctx;
    size_t need;
    for (int version = 1; version <= 3; version++) {
        struct npy_file f = file_of(version, valid[0].dict);
        size_t prefix = version == 1 ? 10 : 12;
        for (size_t n = 0; n <= f.len; n++) {
            assert_int_equal(npy_header_length(f.data, n, &need, &ctx), ERR_OK);
            assert_int_equal(need, n < 8 ? 8 : n < prefix ? prefix : f.len);
        }
    }
}

static void what_is_no_npy_file_is_refused_at_its_first_byte(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{",           "PK\3\4",       "\x93NUMPZ", "\x93NUMPY\0\0", "\x93NUMPY\1\1",
        "\x93NUMPY\4", "\x93NUMPY\xff"};
    static const size_t lengths[] = {1, 4, 6, 8, 8, 8, 8};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err_ctx ctx;
        char padded[8] = {0};
        size_t need;
        memcpy(padded, bad[i], lengths[i] < 7 ? lengths[i] : 7);
        if (lengths[i] == 8)
            padded[7] = i == 4;
        assert_int_equal(npy_header_length(padded, lengths[i], &need, &ctx), ERR_INVALID);
        assert_non_null(strstr(ctx.detail, i < 3 ? "numpy.save" : "version"));
    }
}

static void a_header_without_end_is_refused(void **state)
{
    (void)state;
    struct err_ctx ctx;
    size_t need;
    uint8_t head[12] = "\x93NUMPY\2\0\xff\xff\xff\xff";
    head[7] = 0;
    assert_int_equal(npy_header_length(head, sizeof head, &need, &ctx), ERR_INVALID);
    assert_non_null(strstr(ctx.detail, "4294967295"));
}

/* ---- rows ---- */

enum { ROWS = 7 };

static const char dict[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (7, 4), }\n";

static void put_vectors(struct npy_file *file, size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        float v[TEST_DIM] = {(float)i, 1, 2, 3};
        memcpy(file->data + file->len, v, sizeof v);
        file->len += sizeof v;
    }
}

/* `body_bytes` as a Content-Length would have it. */
static enum err load_pieces(struct fixture *f, struct collection *c, const struct npy_file *file,
                            size_t piece, int64_t first_key, uint64_t body_bytes,
                            struct commit_result *r)
{
    struct npy_rows rows;
    struct load *l = begin(f, c, LOAD_UPSERT);
    struct batch *b = new_batch(f, l);
    enum err e = ERR_OK;
    err_clear(&f->ctx);
    npy_rows_init(&rows, row_sink_of(l), b, first_key, body_bytes);
    for (size_t at = 0; at < file->len && e == ERR_OK; at += piece) {
        size_t n = file->len - at < piece ? file->len - at : piece;
        uint8_t *copy = malloc(n);
        assert_non_null(copy);
        memcpy(copy, file->data + at, n);
        e = npy_rows_feed(&rows, copy, n, &f->ctx);
        free(copy);
    }
    if (e == ERR_OK)
        e = npy_rows_finish(&rows, &f->ctx);
    if (e == ERR_OK)
        e = load_commit(l, r, &f->ctx);
    npy_rows_deinit(&rows);
    batch_free(b);
    load_free(l);
    return e;
}

static void rows_arrive_in_pieces_of_every_size(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    for (int pad = 0; pad < 4; pad++) { /* vectors at every alignment */
        char text[sizeof dict + 4];
        snprintf(text, sizeof text, "%s%.*s", dict, pad, "   ");
        struct npy_file file = file_of(1, text);
        put_vectors(&file, ROWS);
        for (size_t piece = 1; piece <= file.len; piece += 1 + (size_t)pad) {
            struct commit_result r;
            int64_t first = (int64_t)piece * 100;
            OK(load_pieces(f, c, &file, piece, first, piece % 2 ? file.len : 0, &r));
            assert_int_equal(r.rows, ROWS);
            epoch_enter();
            const struct snapshot *s = collection_snapshot(c);
            for (int64_t i = 0; i < ROWS; i++) {
                struct row_ref ref;
                assert_true(snapshot_find_int(s, first + i, &ref));
                const float *v = segment_vector(s->views[ref.view].segment, ref.row);
                assert_true(v && v[0] == (float)i && v[3] == 3);
            }
            assert_false(snapshot_find_int(s, first + ROWS, &(struct row_ref){0}));
            epoch_leave();
        }
    }
    fixture_free(f);
}

static void the_body_must_be_what_the_header_says(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct commit_result r;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    struct npy_file whole = file_of(1, dict), longer = whole;
    size_t head = whole.len;
    put_vectors(&whole, ROWS);
    put_vectors(&longer, ROWS + 1);
    for (size_t piece = 1; piece < 300; piece += 7) {
        for (size_t n = 0; n < whole.len; n += 3) {
            struct npy_file cut = whole;
            cut.len = n;
            assert_int_equal(load_pieces(f, c, &cut, piece, 0, 0, &r), ERR_INVALID);
            assert_non_null(strstr(f->ctx.detail, n == 0     ? "empty"
                                                  : n < head ? "within"
                                                             : "ends after"));
        }
        for (size_t more = 1; more <= 16; more++) {
            longer.len = whole.len + more;
            assert_int_equal(load_pieces(f, c, &longer, piece, 0, 0, &r), ERR_INVALID);
            assert_non_null(strstr(f->ctx.detail, "goes on behind the 7 rows"));
        }
    }
    assert_int_equal(load_pieces(f, c, &whole, 50, 0, whole.len + 1, &r), ERR_INVALID);
    assert_non_null(strstr(f->ctx.detail, "but the body has"));
    assert_false(has_key(c, 0));
    fixture_free(f);
}

static void claims_are_checked_before_the_first_row(void **state)
{
    (void)state;
    struct fixture fx, *f = &fx;
    struct commit_result r;
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", KEY_INT64);
    static const struct {
        const char *shape;
        int64_t first_key;
        enum err err;
        const char *words;
    } claims[] = {
        {"(7, 5)", 0, ERR_UNPROCESSABLE, "7 x 5, the collection's dim is 4"},
        {"(0, 0)", 0, ERR_UNPROCESSABLE, "0 x 0"},
        {"(1152921504606846976, 4)", 0, ERR_UNPROCESSABLE, "1152921504606846976 rows"},
        {"(1152921504606846975, 4)", 0, ERR_UNPROCESSABLE, "any body"},
        {"(1099511627776, 4)", 0, ERR_INVALID, "but the body has"},
        {"(7, 4)", INT64_MAX - 5, ERR_UNPROCESSABLE, "overflow"},
    };
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        char text[200];
        snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n",
                 claims[i].shape);
        struct npy_file file = file_of(2, text);
        put_vectors(&file, ROWS);
        enum err e = load_pieces(f, c, &file, 4096, claims[i].first_key, file.len, &r);
        if (e != claims[i].err || !strstr(f->ctx.detail, claims[i].words))
            fail_msg("%s: %d %s", claims[i].shape, e, f->ctx.detail);
    }
    struct npy_file file = file_of(1, dict);
    put_vectors(&file, ROWS);
    OK(load_pieces(f, c, &file, 4096, INT64_MAX - 6, file.len, &r));
    assert_true(has_key(c, INT64_MAX));
    struct npy_file none =
        file_of(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }\n");
    OK(load_pieces(f, c, &none, 5, 0, none.len, &r));
    assert_int_equal(r.rows, 0);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_that_numpy_writes_are_read),
        cmocka_unit_test(other_headers_are_refused_with_a_reason),
        cmocka_unit_test(the_length_is_known_byte_by_byte),
        cmocka_unit_test(what_is_no_npy_file_is_refused_at_its_first_byte),
        cmocka_unit_test(a_header_without_end_is_refused),
        cmocka_unit_test(rows_arrive_in_pieces_of_every_size),
        cmocka_unit_test(the_body_must_be_what_the_header_says),
        cmocka_unit_test(claims_are_checked_before_the_first_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
