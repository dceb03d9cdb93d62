/* What `loadstoned check` finds inside a segment whose checksums hold: one contradiction at a time
 * is written into a sound file, and named with its offset. */
#include "store_fixture.h"

#include <fcntl.h>
#include <math.h>

#include "store/segment_check.h"
#include "store/segment_writer.h"

enum { ROWS = 130 };

struct rig {
    struct fixture fx;
    char path[400];
    struct segment *s;
};

/* Keys 0 .. 99, then 0 .. 29 again; each tenth row without a vector, each third without a name. */
static void write_rows(struct fixture *f, struct segment_writer *w, struct schema *schema)
{
    struct row_builder rb;
    OK(row_builder_init(&rb, schema, &f->ctx));
    for (int i = 0; i < ROWS; i++) {
        float v[TEST_DIM] = {(float)i + 1, 1, 2, 3}, price = (float)i;
        char text[32];
        snprintf(text, sizeof text, "k%d", i % 100);
        rb.row.int_key = i % 100 * 7;
        rb.row.key = text;
        rb.row.key_len = strlen(text);
        rb.row.vector = i % 10 ? v : NULL;
        memset(rb.strip, 0, schema->strip_bytes);
        memcpy(rb.strip + schema->features[PRICE].strip_offset, &price, sizeof price);
        rb.strip[0] |= 1u << TAGS | 1u << COUNT | (i % 3 ? 0 : 1u << NAME);
        rb.var[0] = i % 3 ? (struct cell){"n\xc3\xa4me", 5} : (struct cell){"", 0};
        rb.var[1] = (struct cell){"", 0};
        OK(segment_writer_append(w, &rb.row, &f->ctx));
    }
    row_builder_deinit(&rb);
}

static void rig_new(struct rig *r, enum key_type key)
{
    struct fixture *f = &r->fx;
    static const uint8_t id[16];
    struct segment_writer *w;
    struct seq_run runs[] = {{.first_row = 0, .version = 3, .ordinal = 5},
                             {.first_row = 50, .version = 3, .ordinal = 60},
                             {.first_row = 70, .version = 4, .ordinal = 0}};
    fixture_new(f, IO_POSIX);
    struct collection *c = fixture_create(f, "c", key);
    epoch_enter();
    struct schema *schema = schema_acquire(collection_snapshot(c)->schema);
    epoch_leave();
    snprintf(r->path, sizeof r->path, "%s/x.seg", f->dir);
    OK(segment_writer_new(f->io, r->path, id, 1, schema, 0, &w, &f->ctx));
    write_rows(f, w, schema);
    OK(segment_writer_finish(w, runs, 3, &f->ctx));
    segment_writer_free(w);
    schema_release(schema);
    OK(segment_open(r->path, NULL, &r->s, &f->ctx));
}

static void rig_free(struct rig *r)
{
    segment_release(r->s);
    fixture_free(&r->fx);
}

static void overwrite(struct rig *r, const void *place, const void *data, size_t n)
{
    int fd = open(r->path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, n, (const uint8_t *)place - r->s->map), n);
    close(fd);
}

/* With `n` bytes at `place` of the file replaced, the check says `word` and an offset. */
static void expect_found(struct rig *r, const void *place, const void *data, size_t n,
                         const char *word)
{
    struct fixture *f = &r->fx;
    uint8_t kept[64];
    assert_true(n <= sizeof kept);
    memcpy(kept, place, n);
    overwrite(r, place, data, n);
    assert_int_equal(segment_check(r->s, &f->ctx), ERR_CORRUPT);
    if (!strstr(f->ctx.detail, word) || !strstr(f->ctx.detail, "x.seg: offset "))
        fail_msg("no '%s' and offset in: %s", word, f->ctx.detail);
    assert_int_equal(segment_verify(r->s, &f->ctx), ERR_CORRUPT);
    overwrite(r, place, kept, n);
    OK(segment_check(r->s, &f->ctx));
}

static void sound_segments_and_tails_pass(void **state)
{
    (void)state;
    for (int key = KEY_STRING; key <= KEY_INT64; key++) {
        struct rig r;
        struct fixture *f = &r.fx;
        rig_new(&r, (enum key_type)key);
        OK(segment_check(r.s, &f->ctx));
        struct collection *c = fixture_find(f, "c");
        load_range(f, c, LOAD_UPSERT, 0, 300, 0);
        load_range(f, c, LOAD_UPSERT, 100, 200, 7);
        epoch_enter();
        const struct snapshot *s = collection_snapshot(c);
        for (uint32_t i = 0; i < s->nviews; i++)
            OK(segment_check(s->views[i].segment, &f->ctx));
        epoch_leave();
        rig_free(&r);
    }
}

static void contradictions_in_the_key_index_are_found(void **state)
{
    (void)state;
    struct rig r;
    uint64_t zero = 0;
    uint32_t other = 41, none = 0;
    int64_t key = 1;
    rig_new(&r, KEY_INT64);
    const struct segment *s = r.s;
    uint64_t at = 0;
    while (!s->key_slots[at])
        at++;
    expect_found(&r, &s->key_slots[at], &zero, 8, "does not lead to it");
    uint64_t empty = 0;
    while (s->key_slots[empty])
        empty++;
    expect_found(&r, &s->key_slots[empty], &s->key_slots[at], 8, "entries");
    expect_found(&r, &s->key_prev[110], &other, 4, "another key");
    expect_found(&r, &s->key_prev[110], &none, 4, "does not lead to it");
    expect_found(&r, &s->int_keys[50], &key, 8, "does not lead to it");
    key = -5;
    expect_found(&r, &s->int_keys[50], &key, 8, "bounds");
    rig_free(&r);
}

static void contradictions_in_rows_are_found(void **state)
{
    (void)state;
    struct rig r;
    float nan = NAN;
    uint8_t all = 0xff, bad = 0x80;
    uint32_t big = 1u << 30;
    uint64_t far = 1ull << 40, version = 9;
    rig_new(&r, KEY_STRING);
    const struct segment *s = r.s;
    uint32_t var = s->schema->features[NAME].var_index, width = s->schema->strip_bytes;
    expect_found(&r, &s->vectors[TEST_DIM * 11 + 2], &nan, 4, "row 11: its vector is not finite");
    expect_found(&r, &s->vectors[TEST_DIM * 10], &s->vectors[TEST_DIM], 4, "row 10 has no vector");
    expect_found(&r, &((const uint8_t *)s->vector_nulls)[23], &all, 1, "behind the last row");
    expect_found(&r, &s->strips[width * 4], &all, 1, "null");
    expect_found(&r, &s->var_offsets[var][7], &big, 4, "do not ascend");
    expect_found(&r, &s->var_bytes[var][1], &bad, 1, "'name' is no string");
    expect_found(&r, &s->key_offsets[9], &far, 8, "do not ascend");
    expect_found(&r, &s->key_bytes[s->key_offsets[50]], &bad, 1, "does not lead to it");
    expect_found(&r, &s->runs[1].version, &version, 8, "goes backwards");
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_segments_and_tails_pass),
        cmocka_unit_test(contradictions_in_the_key_index_are_found),
        cmocka_unit_test(contradictions_in_rows_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
