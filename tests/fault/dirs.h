/* Directories of the fault tests: under $TEST_TMPDIR or build/tmp, removed without a shell. */
#ifndef LOADSTONE_TESTS_FAULT_DIRS_H
#define LOADSTONE_TESTS_FAULT_DIRS_H

#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>

#include "workload.h"

static inline int dirs_remove_one(const char *path, const struct stat *st, int type,
                                  struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void remove_dir(const char *path)
{
    if (access(path, F_OK) == 0)
        assert_int_equal(nftw(path, dirs_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* A fixture without a store, in a directory that does not exist. */
static inline void base_dir(struct fixture *f, const char *name)
{
    const char *base = getenv("TEST_TMPDIR");
    memset(f, 0, sizeof *f);
    err_clear(&f->ctx);
    mkdir("build", 0755);
    mkdir(base ? base : "build/tmp", 0755);
    snprintf(f->dir, sizeof f->dir, "%s/%s-%d", base ? base : "build/tmp", name, (int)getpid());
    remove_dir(f->dir);
}

static inline uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* Calls fn for each file below `dir`. */
static inline void each_file(const char *dir, void (*fn)(void *arg, const char *path), void *arg)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *de; (de = readdir(d));) {
        char path[2000];
        struct stat st;
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        assert_true(snprintf(path, sizeof path, "%s/%s", dir, de->d_name) < (int)sizeof path);
        assert_int_equal(stat(path, &st), 0);
        if (S_ISDIR(st.st_mode))
            each_file(path, fn, arg);
        else
            fn(arg, path);
    }
    closedir(d);
}

#endif
