/* Segment files: opened, then every row, key, cell and chain read.
 *
 *   first piece:     op 0; the footer up to the section table: u32 rows, u64 place (put right
 *                    here), schema, ...; see segment_format.h
 *   further pieces:  op = section kind; the bytes: u8 column, u8 flags, then (flags & 1) u64 offset
 *                    and u64 length as the table shall claim them, then the section
 */
#include "fuzz.h"

#include "api/json_writer.h"
#include "store/row.h"
#include "store/segment_check.h"
#include "store/segment_format.h"

enum { SECTIONS_MAX = 32, ROWS_READ_MAX = 500, ROWS_CHECKED_MAX = 1 << 16 };

static void put_section(int fd, struct buf *table, uint64_t *at, const struct fuzz_piece *p)
{
    struct cursor c = cursor_over(p->data, p->len);
    uint8_t column = cursor_u8(&c), flags = cursor_u8(&c);
    uint64_t offset = *at, length;
    bool claim = flags & 1;
    if (claim)
        offset = cursor_u64(&c);
    length = claim ? cursor_u64(&c) : cursor_left(&c);
    if (c.failed)
        return;
    buf_put_u32(table, p->op);
    buf_put_u32(table, column);
    buf_put_u64(table, offset);
    buf_put_u64(table, length);
    fuzz_write(fd, c.p, cursor_left(&c), *at);
    *at += round_up(cursor_left(&c) + 1, IO_SUM_BLOCK);
}

static void put_header(int fd)
{
    struct segment_header h = {.magic = SEGMENT_MAGIC,
                               .format_version = SEGMENT_FORMAT_VERSION,
                               .section_align = IO_SUM_BLOCK,
                               .segment_id = 2};
    memcpy(h.collection_id, FUZZ_ID, sizeof h.collection_id);
    h.crc = crc32c(0, &h, offsetof(struct segment_header, crc));
    fuzz_write(fd, &h, sizeof h, 0);
}

static void put_footer(int fd, const struct fuzz_piece *first, const struct buf *table,
                       uint32_t sections, uint64_t at)
{
    struct buf f = {0};
    buf_put(&f, first->data, first->len);
    if (f.len >= 12)
        memcpy(f.data + 4, &at, sizeof at);
    buf_put_u32(&f, sections);
    buf_put(&f, table->data, table->len);
    buf_put_u64(&f, at / IO_SUM_BLOCK);
    buf_put_zeros(&f, at / IO_SUM_BLOCK * 8);
    struct segment_trailer t = {.footer_offset = at,
                                .footer_length = (uint32_t)f.len,
                                .footer_crc = crc32c(0, f.data, f.len),
                                .magic = SEGMENT_TRAILER_MAGIC};
    t.crc = crc32c(0, &t, offsetof(struct segment_trailer, crc));
    fuzz_write(fd, f.data, f.len, at);
    fuzz_write(fd, &t, sizeof t, at + f.len);
    buf_deinit(&f);
}

static bool build(int fd, const uint8_t *data, size_t n)
{
    struct cursor c = cursor_over(data, n);
    struct fuzz_piece first, p;
    struct buf table = {0};
    uint64_t at = IO_SUM_BLOCK;
    uint32_t sections = 0;
    if (!next_piece(&c, &first))
        return false;
    put_header(fd);
    while (sections < SECTIONS_MAX && next_piece(&c, &p)) {
        size_t before = table.len;
        put_section(fd, &table, &at, &p);
        sections += table.len > before;
    }
    put_footer(fd, &first, &table, sections, at);
    buf_deinit(&table);
    return true;
}

static void read_row(const struct segment *s, struct row_builder *rb, struct buf *out, uint32_t row)
{
    uint64_t version, ordinal;
    const struct schema *schema = s->schema;
    row_from_segment(rb, s, row);
    (void)row_digest(&rb->row);
    buf_reset(out);
    row_encode(&rb->row, out);
    segment_seq(s, row, &version, &ordinal);
    uint32_t found = schema->key == KEY_INT64
                         ? segment_find_int(s, rb->row.int_key)
                         : segment_find_str(s, rb->row.key, rb->row.key_len,
                                            key_hash(rb->row.key, rb->row.key_len));
    for (uint32_t at = found, steps = 0; at; at = segment_older(s, at - 1), steps++) {
        ASSERT(at <= s->rows && steps < s->rows);
        if (steps > ROWS_READ_MAX)
            break;
    }
    buf_reset(out);
    for (uint32_t i = 0; i < schema->nfeatures; i++) {
        size_t len = 0;
        const void *cell = segment_cell(s, row, i, &len);
        fuzz_touch(cell, len);
        json_put_cell(out, schema->features[i].type, cell, len);
    }
}

static void read_all(const struct segment *s)
{
    struct row_builder rb;
    struct buf out = {0};
    (void)!segment_verify(s, NULL);
    if (s->rows < ROWS_CHECKED_MAX)
        (void)!segment_check(s, NULL);
    if (row_builder_init(&rb, s->schema, NULL) != ERR_OK)
        return;
    uint32_t step = s->rows / ROWS_READ_MAX + 1;
    for (uint32_t row = 0; row < s->rows && row + step > row; row += step)
        read_row(s, &rb, &out, row);
    if (s->rows)
        read_row(s, &rb, &out, s->rows - 1);
    buf_deinit(&out);
    row_builder_deinit(&rb);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[32];
    struct segment *s;
    struct err_ctx ctx;
    fuzz_quiet();
    err_clear(&ctx);
    int fd = fuzz_file(path);
    if (build(fd, data, n)) {
        if (segment_open(path, FUZZ_ID, &s, &ctx) == ERR_OK) {
            read_all(s);
            segment_release(s);
        } else {
            ASSERT(ctx.detail[0]);
        }
    }
    close(fd);
    return 0;
}
