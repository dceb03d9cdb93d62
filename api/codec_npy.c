/* npy out: the vectors of an export as one array, n x dim float32 in C order, rows in the order of
 * the export; those without a vector are left out.
 *
 * The head always takes 128 bytes, so that the place of a row follows from its number. Source:
 * NEP 1 and the docstring of numpy.lib.format.
 *
 * Threads: no state. Failure: memory running out shows in the buffer. */
#include "api/codec.h"

enum { HEAD_BYTES = 128, PREFIX_BYTES = 10 /* magic, version, length */ };

static uint64_t head_bytes(const struct projection *p)
{
    (void)p;
    return HEAD_BYTES;
}

static uint64_t row_bytes(const struct projection *p)
{
    return (uint64_t)p->snapshot->schema->dim * sizeof(float);
}

static void put_head(const struct projection *p, struct buf *out)
{
    size_t start = out->len;
    buf_put(out, "\x93NUMPY\x01", 7);
    buf_put_u8(out, 0);
    buf_put_u16(out, HEAD_BYTES - PREFIX_BYTES);
    buf_printf(out, "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %u), }",
               (unsigned long long)p->rows, p->snapshot->schema->dim);
    while (out->len < start + HEAD_BYTES - 1 && !out->failed)
        buf_put_u8(out, ' ');
    buf_put_u8(out, '\n');
    ASSERT(out->failed || out->len == start + HEAD_BYTES);
}

static void put_row(const struct projection *p, struct row_ref ref, struct buf *out)
{
    const float *v = segment_vector(p->snapshot->views[ref.view].segment, ref.row);
    ASSERT(v);
    buf_put(out, v, row_bytes(p));
}

const struct codec codec_npy = {
    .name = "npy",
    .content_type = "application/x-npy",
    .revision = 1,
    .vectors_only = true,
    .head_bytes = head_bytes,
    .row_bytes = row_bytes,
    .put_head = put_head,
    .put_row = put_row,
};
