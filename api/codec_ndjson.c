/* NDJSON out: {"key":..,"vector":[..],"price":..} a line, every column in every row, null where
 * there is nothing; the lines are what POST rows takes.
 *
 * Threads: no state. Failure: memory running out shows in the buffer. */
#include "api/codec.h"

#include "api/columns.h"
#include "api/json_writer.h"

static void put_row(const struct projection *p, struct row_ref ref, struct buf *out)
{
    json_put_raw(out, "{\"key\":");
    row_put_key(out, p->snapshot, ref);
    if (p->with_vectors) {
        json_put_raw(out, ",\"vector\":");
        row_put_vector(out, p->snapshot, ref);
    }
    for (size_t i = 0; i < columns_count(&p->columns); i++) {
        uint32_t feature = columns_get(&p->columns, i);
        buf_put_u8(out, ',');
        columns_put_name(out, p->snapshot->schema, feature);
        row_put_cell(out, p->snapshot, ref, feature);
    }
    json_put_raw(out, "}\n");
}

const struct codec codec_ndjson = {
    .name = "ndjson",
    .content_type = "application/x-ndjson",
    .revision = 1,
    .put_row = put_row,
};
