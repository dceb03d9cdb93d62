/* A disk limit inside a process: with SMALL_DISK=DIR:BYTES, calls that would let the files under
 * DIR grow past BYTES fail with ENOSPC. The last resort of small_disk.py.
 *
 * Picture: before each write or fallocate on a file under DIR, the blocks of all files there are
 * added up (stat), and the part that the call adds beyond the file's end is compared with the rest.
 *
 * Threads: calls on DIR are serialised by one mutex, so that two writers never share the last
 * block. Failure: without the variable, or for other files, every call goes through unchanged. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long long used_bytes;

static int add_blocks(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)path;
    (void)where;
    if (kind == FTW_F)
        used_bytes += st->st_blocks * 512LL;
    return 0;
}

/* Splits SMALL_DISK into directory and limit; false when it is not set. */
static int limit_of(char dir[PATH_MAX], long long *limit)
{
    const char *setting = getenv("SMALL_DISK");
    const char *colon = setting ? strrchr(setting, ':') : NULL;
    if (!colon || colon - setting >= PATH_MAX)
        return 0;
    memcpy(dir, setting, (size_t)(colon - setting));
    dir[colon - setting] = '\0';
    *limit = atoll(colon + 1);
    return 1;
}

static int is_under(int fd, const char *dir)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return 0;
    path[n] = '\0';
    return strncmp(path, dir, strlen(dir)) == 0;
}

/* True when bytes [offset, offset + n) of the file do not fit on the small disk. */
static int is_full(int fd, long long offset, long long n)
{
    char dir[PATH_MAX];
    long long limit;
    struct stat st;
    if (!limit_of(dir, &limit) || !is_under(fd, dir) || fstat(fd, &st) != 0)
        return 0;
    long long grown = offset + n - st.st_blocks * 512LL;
    if (grown <= 0)
        return 0;
    pthread_mutex_lock(&lock);
    used_bytes = 0;
    nftw(dir, add_blocks, 16, FTW_PHYS);
    int full = used_bytes + grown > limit;
    pthread_mutex_unlock(&lock);
    if (full)
        errno = ENOSPC;
    return full;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *data, size_t n, off_t offset)
{
    return is_full(fd, offset, (long long)n) ? -1 : REAL(pwrite64)(fd, data, n, offset);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset)
{
    return pwrite64(fd, data, n, offset);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    long long n = 0;
    for (int i = 0; i < count; i++)
        n += (long long)iov[i].iov_len;
    return is_full(fd, offset, n) ? -1 : REAL(pwritev2)(fd, iov, count, offset, flags);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
    return is_full(fd, offset, n) ? -1 : REAL(fallocate)(fd, mode, offset, n);
}

int posix_fallocate(int fd, off_t offset, off_t n)
{
    return is_full(fd, offset, n) ? ENOSPC : REAL(posix_fallocate)(fd, offset, n);
}

ssize_t write(int fd, const void *data, size_t n)
{
    struct stat st;
    long long end = fstat(fd, &st) == 0 ? st.st_size : 0;
    return is_full(fd, end, (long long)n) ? -1 : REAL(write)(fd, data, n);
}
