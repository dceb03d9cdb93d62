/* Everything that must hold inside one segment beyond its checksums, for `loadstoned check`. */
#ifndef LOADSTONE_STORE_SEGMENT_CHECK_H
#define LOADSTONE_STORE_SEGMENT_CHECK_H

#include "store/segment.h"

/* Offsets ascend, every key is found at its row and lies within the bounds, seq ascends, cells are
 * of their types, strings are UTF-8, vectors finite, null cells empty. The segment was opened and
 * its blocks match their checksums; a tail is checked as far as it applies. Reads everything.
 * ERR_CORRUPT names file, offset and row of the first contradiction. */
WARN_UNUSED enum err segment_check(const struct segment *s, struct err_ctx *ctx);

#endif
