/* A build-index process: started, watched, reaped. */
#ifndef LOADSTONE_INDEX_BUILD_CHILD_H
#define LOADSTONE_INDEX_BUILD_CHILD_H

#include "base/err.h"

struct child_watch {
    void *arg;
    bool (*cancelled)(void *arg);              /* asked ten times a second; true kills the child */
    bool (*paused)(void *arg);                 /* asked likewise; true stops it until false */
    void (*progress)(void *arg, double share); /* 0..1, as the child says it */
};

/* Runs the program `self` with `argv` (NULL-terminated) in the open directory `dir` to its end. An
 * error is the child's own sentence, or how it ended; after a kill by `cancelled` it is of no
 * interest. */
WARN_UNUSED enum err build_child_run(const char *self, char **argv, int dir,
                                     const struct child_watch *watch, struct err_ctx *ctx);

#endif
