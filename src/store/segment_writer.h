/* Writes one segment file: vectors stream to disk as rows come, everything else is gathered in
 * memory (segment_writer_side_bytes) and follows at the end. Callers close a segment and start
 * another when that memory or the row count reaches its limit, so bodies of any size take bounded
 * memory.
 *
 * One thread at a time. After an error the writer can only be freed, and the file is worthless. */
#ifndef LOADSTONE_STORE_SEGMENT_WRITER_H
#define LOADSTONE_STORE_SEGMENT_WRITER_H

#include "store/row.h"

enum {
    SEGMENT_SIDE_BYTES_MAX = 128 << 20, /* close the segment when its side memory reaches this */
    SEGMENT_ROWS_MAX = 1 << 28,
};

struct segment_writer;

/* Creates the file at `path` (kept by copy). `size_hint` bytes are reserved on disk (0: unknown).
 */
WARN_UNUSED enum err segment_writer_new(struct io *io, const char *path,
                                        const uint8_t collection_id[16], uint64_t id,
                                        struct schema *schema, uint64_t size_hint,
                                        struct segment_writer **out, struct err_ctx *ctx);
WARN_UNUSED enum err segment_writer_append(struct segment_writer *w, const struct row *r,
                                           struct err_ctx *ctx);
/* n rows with int64 keys first_key .., vectors (n x dim) and null features. */
WARN_UNUSED enum err segment_writer_append_run(struct segment_writer *w, const float *vectors,
                                               size_t n, int64_t first_key, struct err_ctx *ctx);
/* Hashes of the vectors of the last n rows, until the next append; NULL when the file keeps none,
 * the vectors being short. */
const struct hash128 *segment_writer_hashes(const struct segment_writer *w, size_t n);
uint32_t segment_writer_rows(const struct segment_writer *w);
size_t segment_writer_side_bytes(const struct segment_writer *w);
uint64_t segment_writer_id(const struct segment_writer *w);

/* Builds the key index. Afterwards segment_writer_prev tells repeated keys. Called by finish when
 * it was not called before. */
WARN_UNUSED enum err segment_writer_index_keys(struct segment_writer *w, struct err_ctx *ctx);
/* rows x (older row of the same key + 1), or NULL when every key is unique. */
const uint32_t *segment_writer_prev(const struct segment_writer *w);
/* The key of an appended row, for messages. */
void segment_writer_key(const struct segment_writer *w, uint32_t row, struct row *out);

/* Writes the rest and the footer, and syncs: the file is complete and durable (its name is not:
 * the caller renames and syncs the directory). `runs` gives the seq of the rows. */
WARN_UNUSED enum err segment_writer_finish(struct segment_writer *w, const struct seq_run *runs,
                                           uint32_t nruns, struct err_ctx *ctx);
void segment_writer_free(struct segment_writer *w); /* NULL is allowed */

#endif
