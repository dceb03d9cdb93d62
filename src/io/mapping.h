/* Mapped files whose pages may fail: a page that the system cannot supply (the file was cut short,
 * the disk cannot read it) raises SIGBUS. Within a watched mapping the page is replaced by zeros,
 * the mapping is marked, and the thread goes on; who reads asks before and after whether that
 * happened, and answers with an error instead of with what it read:
 *
 *   mapping_check(dir)          nothing under dir has failed so far
 *   n = mapping_faults()
 *   ... read ...
 *   mapping_faults() == n       nor did any page meanwhile
 *
 * Any other SIGBUS ends the process as without this. Thread-safe. */
#ifndef LOADSTONE_IO_MAPPING_H
#define LOADSTONE_IO_MAPPING_H

#include <stddef.h>

#include "base/err.h"

struct mapping;

/* Catches SIGBUS from here on; without it watching changes nothing. */
WARN_UNUSED enum err mapping_catch_faults(struct err_ctx *ctx);

/* Watches n bytes at `start` that map the file `path` from its beginning. */
WARN_UNUSED enum err mapping_watch(const void *start, size_t n, const char *path,
                                   struct mapping **out, struct err_ctx *ctx);
/* Before the mapping goes; NULL is allowed. */
void mapping_unwatch(struct mapping *m);

/* Pages that failed since the start, in any mapping. */
unsigned mapping_faults(void);
/* ERR_CORRUPT, naming file and offset, when a page of a watched file under `dir` failed. As good as
 * free while nothing has failed. */
WARN_UNUSED enum err mapping_check(const char *dir, struct err_ctx *ctx);
/* ERR_CORRUPT unless mapping_faults() is still `before`. */
WARN_UNUSED enum err mapping_check_since(unsigned before, struct err_ctx *ctx);

#endif
