/* What the io tests share: a temporary directory and a backend of either kind, made anew for each
 * test. */
#ifndef LOADSTONE_TESTS_IO_FIXTURE_H
#define LOADSTONE_TESTS_IO_FIXTURE_H

#include "io/io.h"
#include "temp_dir.h"

static struct temp_dir dir;
static struct io *io;
static struct err_ctx ctx;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != ERR_OK)                                                                      \
            fail_msg("%s: %s", #call, ctx.detail);                                                 \
    } while (0)

static const char *path_of(const char *name)
{
    return temp_path(&dir, name);
}

static int set_up(enum io_backend which)
{
    err_clear(&ctx);
    return temp_dir_new(&dir) != 0 || io_new(which, &io, &ctx) != ERR_OK;
}

/* Where io_uring is not allowed this is posix again, and the log says so. */
static int with_uring(void **state)
{
    (void)state;
    return set_up(IO_AUTO);
}

static int with_posix(void **state)
{
    (void)state;
    return set_up(IO_POSIX);
}

static int tear_down(void **state)
{
    (void)state;
    io_free(io);
    temp_dir_remove(&dir);
    return 0;
}

#endif
