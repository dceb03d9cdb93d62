/* The frame of a segment file (segment_format.h): header, sections one after the other, footer.
 * What stands in the sections is the business of who puts them: the segment writer, which gathers
 * rows, and the merge, which copies them.
 *
 * One thread at a time. After an error it can only be freed, and the file is worthless. */
#ifndef LOADSTONE_STORE_SEGMENT_SECTIONS_H
#define LOADSTONE_STORE_SEGMENT_SECTIONS_H

#include "io/io.h"
#include "store/schema.h"

struct segment_sections;

/* What the footer says of the file as a whole. */
struct segment_totals {
    uint32_t rows;
    bool keys_run;
    int64_t first_key, key_min, key_max;
    uint64_t key_slots;
    uint32_t runs;
};

/* Creates the file at `path` and writes its header. `size_hint` bytes are reserved on disk (0:
 * unknown). */
WARN_UNUSED enum err segment_sections_new(struct io *io, const char *path,
                                          const uint8_t collection_id[16], uint64_t id,
                                          struct schema *schema, uint64_t size_hint,
                                          struct segment_sections **out, struct err_ctx *ctx);
/* Ends the section before it, if any; bytes put from here on are this one's. */
WARN_UNUSED enum err segment_sections_begin(struct segment_sections *w, uint32_t kind,
                                            uint32_t column, struct err_ctx *ctx);
WARN_UNUSED enum err segment_sections_put(struct segment_sections *w, const void *data, size_t n,
                                          struct err_ctx *ctx);
/* Writes the footer and syncs: the file is complete and durable, its name is not. */
WARN_UNUSED enum err segment_sections_finish(struct segment_sections *w,
                                             const struct segment_totals *totals,
                                             struct err_ctx *ctx);
void segment_sections_free(struct segment_sections *w); /* NULL is allowed */

#endif
