/* The scrub: checks the blocks of mapped segment files against their checksums in the background,
 * so that damage is found whether or not somebody reads there. */
#ifndef LOADSTONE_STORE_SCRUB_H
#define LOADSTONE_STORE_SCRUB_H

#include "store/snapshot.h"

/* Checks at most *blocks blocks of IO_SUM_BLOCK of the snapshot's files, going on where the last
 * call stopped in each, and takes what it checked off *blocks. Each file is checked once after it
 * was opened; what this process wrote itself was summed on its way out. ERR_CORRUPT names file and
 * offset. One thread only (the maintenance thread). */
WARN_UNUSED enum err scrub_snapshot(const struct snapshot *s, uint64_t *blocks,
                                    struct err_ctx *ctx);

#endif
