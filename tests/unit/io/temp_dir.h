/* A directory for a test's files: under $TEST_TMPDIR or ./build/tmp, on a real file system. */
#ifndef TESTS_TEMP_DIR_H
#define TESTS_TEMP_DIR_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct temp_dir {
    char path[512];
};

/* 0, or -1 when no directory could be made. */
static inline int temp_dir_new(struct temp_dir *d)
{
    const char *base = getenv("TEST_TMPDIR");
    if (!base) {
        base = "build/tmp";
        mkdir("build", 0755);
        mkdir(base, 0755);
    }
    snprintf(d->path, sizeof(d->path), "%s/unit-XXXXXX", base);
    return mkdtemp(d->path) ? 0 : -1;
}

static inline void temp_dir_remove(const struct temp_dir *d)
{
    char command[600];
    snprintf(command, sizeof(command), "rm -rf '%s'", d->path);
    if (system(command) != 0)
        fprintf(stderr, "cannot remove %s\n", d->path);
}

/* "DIR/name"; valid until the fourth call after this one. */
static inline const char *temp_path(const struct temp_dir *d, const char *name)
{
    static char paths[4][640];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", d->path, name);
    return path;
}

#endif
