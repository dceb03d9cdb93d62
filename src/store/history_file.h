/* History files: log/<first version>.hist, what the log said before the newest checkpoint.
 *
 *   envelope [ versions, times, item numbers | base: a version's whole manifest | items ... ]
 *
 * The base is the state before the first item; items are log records without their inline rows,
 * which lie in segments by then, each with its number. Files follow each other without a gap in
 * item numbers; they may overlap with what is still in the log, so readers go by the number. Items
 * go with the base of their own file: a purge that broke off leaves files that name a segment and
 * its successor for the same rows.
 *
 * A file is written whole and atomically: the last one again and again while it is small. Nothing
 * but the names is read at a start. */
#ifndef LOADSTONE_STORE_HISTORY_FILE_H
#define LOADSTONE_STORE_HISTORY_FILE_H

#include "io/io.h"
#include "store/record.h"

/* The state before an item. */
struct history_base {
    struct schema *schema;
    struct commit_meta meta; /* what `struct snapshot` keeps of it */
    bool altered;
    struct manifest manifest;
};
void history_base_deinit(struct history_base *b);
void history_base_encode(const struct history_base *b, struct buf *out);
/* Borrows masks and texts. ERR_CORRUPT. */
WARN_UNUSED enum err history_base_decode(const void *data, size_t n, struct history_base *out,
                                         struct err_ctx *ctx);

struct history_file {
    uint64_t first_version, last_version; /* of its commits; last < first when it has none */
    int64_t first_time_us, last_time_us;
    uint64_t base_items, last_item; /* its items are base_items + 1 .. last_item, maybe not all */
    const void *base;               /* history_base_encode */
    size_t base_len;
    const uint8_t *items; /* for history_file_next */
    size_t items_len;
};

struct history_item {
    uint64_t number;
    const uint8_t *record; /* with its type byte */
    size_t len;
};

void history_file_encode(const struct history_file *f, const uint8_t collection_id[16],
                         struct buf *out);
/* Borrows from `data`. ERR_CORRUPT for anything but whole, ascending items. An id of NULL takes a
 * file of any collection. */
WARN_UNUSED enum err history_file_decode(const void *data, size_t n,
                                         const uint8_t collection_id[16], struct history_file *out,
                                         struct err_ctx *ctx);
/* The same from a file; *data holds what is borrowed, errors name path and offset. */
WARN_UNUSED enum err history_file_read(struct io *io, const char *path,
                                       const uint8_t collection_id[16], struct buf *data,
                                       struct history_file *out, struct err_ctx *ctx);

/* Appends an item: a log record, whose inline rows are left out. */
WARN_UNUSED enum err history_item_encode(uint64_t number, const void *record, size_t n,
                                         struct buf *out, struct err_ctx *ctx);
/* Takes the next item off a decoded file's items; false at their end. */
bool history_file_next(struct cursor *items, struct history_item *out);

#endif
