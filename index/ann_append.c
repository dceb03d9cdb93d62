/* Appends a section to a finished .ann file that nobody serves yet: what is measured on the file
 * itself goes into it this way.
 *
 *   [ header | sections ... | zeros | the section ]     section first, then the header with one
 *                                                       more line in its table
 *
 * Failure: the file is worthless, as after a failed write. */
#include "index/ann_file.h"

#include <string.h>
#include <xxhash.h>

#include "index/ann_format.h"

/* Offsets of what changes; the table and the checksum are the last of the header. */
enum { SECTIONS_AT = 20, FILE_BYTES_AT = 48, TABLE_AT = 96, TABLE_LINE = 32 };

static enum err put_header(struct io_file *f, const struct ann_section *s, struct err_ctx *ctx)
{
    uint8_t was[ANN_HEADER_MAX];
    struct buf header = {0};
    RETURN_NOT_OK(io_file_read(f, was, sizeof(was), 0, ctx));
    struct cursor c = cursor_over(was + SECTIONS_AT, sizeof(uint32_t));
    uint32_t sections = cursor_u32(&c);
    if (memcmp(was, ANN_MAGIC, 8) != 0 || sections >= ANN_SECTIONS_MAX)
        return err_set(ctx, ERR_INTERNAL, "the index file has no room for another section");
    buf_put(&header, was, SECTIONS_AT);
    buf_put_u32(&header, sections + 1);
    buf_put(&header, was + header.len, FILE_BYTES_AT - SECTIONS_AT - sizeof(uint32_t));
    buf_put_u64(&header, s->offset + s->length);
    buf_put(&header, was + header.len, TABLE_AT + sections * TABLE_LINE - header.len);
    buf_put_u32(&header, s->kind);
    buf_put_u32(&header, 0);
    buf_put_u64(&header, s->offset);
    buf_put_u64(&header, s->length);
    buf_put_u64(&header, s->sum);
    buf_put_u32(&header, crc32c(0, header.data, header.len));
    enum err e = header.failed ? err_no_memory(ctx, ANN_HEADER_MAX)
                               : io_file_write_sync(f, header.data, header.len, 0, ctx);
    buf_deinit(&header);
    return e;
}

enum err ann_file_append(struct io *io, const char *path, uint32_t kind, const void *data, size_t n,
                         struct err_ctx *ctx)
{
    struct io_file *f = NULL;
    uint64_t size = 0;
    RETURN_NOT_OK(io_file_open(io, path, IO_WRITE, &f, ctx));
    enum err e = io_file_size(f, &size, ctx);
    const struct ann_section section = {.kind = kind,
                                        .offset = round_up(size, ANN_ALIGN),
                                        .length = n,
                                        .sum = XXH3_64bits(data, n)};
    if (e == ERR_OK)
        e = io_file_write_sync(f, data, n, section.offset, ctx);
    if (e == ERR_OK)
        e = put_header(f, &section, ctx);
    io_file_close(f);
    return e;
}
