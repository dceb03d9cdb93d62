/* Backups of a data directory that a daemon may be serving.
 *
 * Cold: stop the daemon, copy the directory with any tool, start on the copy. It must be copied
 * whole, hidden names too (.tombstones); it may be moved to any path and any machine.
 *
 * Hot: `loadstoned backup DATA DEST` while the daemon runs; it needs no help from the daemon and
 * takes no lock. Of each collection the copy holds every commit that was acknowledged before the
 * backup began, and of later ones a prefix in commit order: it is one version as it was.
 * Collections are copied one after the other, so that two of them may be of slightly different
 * times.
 *
 * To restore, start a daemon on DEST, or on a copy of it. */
#ifndef LOADSTONE_STORE_BACKUP_H
#define LOADSTONE_STORE_BACKUP_H

#include "io/io.h"

struct backup_line {
    const char *collection;
    const char *fault; /* why it is not in the backup, or NULL */
    uint64_t version, rows, bytes;
};

/* Copies `data` to `dest`, which must not exist; what a backup that failed half-way leaves is
 * `dest`.partial. `report` is called for every collection. One that can't be copied, being damaged,
 * does not keep the others from it: ERR_CORRUPT at the end. */
WARN_UNUSED enum err backup_run(struct io *io, const char *data, const char *dest,
                                void (*report)(void *arg, const struct backup_line *line),
                                void *arg, struct err_ctx *ctx);

#endif
