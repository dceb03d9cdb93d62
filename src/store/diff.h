/* What changed between two versions, by key.
 *
 * Rows are compared by (key, seq): a row that a load brought again is another row, one that a
 * restore brought back or a compaction moved is the same. Only what differs is visited: the rows
 * that both versions have in the same place cost nothing.
 *
 *   DIFF_ADDED    the key is in `to` only         rows of `to`, in the order of their seq
 *   DIFF_UPDATED  the key has another row in `to`       "
 *   DIFF_REMOVED  the key is in `from` only       rows of `from`, in the order of their seq */
#ifndef LOADSTONE_STORE_DIFF_H
#define LOADSTONE_STORE_DIFF_H

#include "store/snapshot.h"

enum diff_op { DIFF_ADDED = 1, DIFF_UPDATED = 2, DIFF_REMOVED = 4 };
enum diff_step { DIFF_ROW, DIFF_PAUSE, DIFF_END };

struct diff;

/* `ops` is a set; of DIFF_REMOVED and the others only one kind at a time, since they are rows of
 * different versions. Snapshots are borrowed. One thread at a time. */
WARN_UNUSED enum err diff_new(const struct snapshot *from, const struct snapshot *to, unsigned ops,
                              struct diff **out, struct err_ctx *ctx);
/* The next row of `to`, or of `from` for DIFF_REMOVED. DIFF_PAUSE after a number of rows that were
 * looked at and are no change, so that a thread is not held for long: call again. */
enum diff_step diff_next(struct diff *d, enum diff_op *op, struct row_ref *row);
void diff_free(struct diff *d); /* NULL is allowed */

#endif
