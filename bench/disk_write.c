/* What the disk can do: one file written as fast as io_uring and O_DIRECT allow, then synced.
 *
 *   [ clock ] fallocate, DEPTH writes of 1 MiB in flight from registered buffers, sync [ clock ]
 *
 * The buffers hold random bytes. Prints "seconds BYTES". One thread. Failure: a sentence on
 * standard error, status 1. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH = 32, PIECE_BYTES = 1 << 20, ALIGN_BYTES = 4096 };

struct writer {
    struct io_uring ring;
    struct iovec buffers[DEPTH];
    uint64_t left[DEPTH]; /* bytes the piece in buffer i still has to write */
    uint64_t offset[DEPTH];
    int fd;
};

static _Noreturn void die(const char *what, int error)
{
    fprintf(stderr, "disk_write: %s: %s\n", what, strerror(error));
    exit(1);
}

static void fill_random(uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got <= 0)
            die("getrandom", errno);
        p += got;
        n -= (size_t)got;
    }
}

/* Ring and buffers: what a daemon has ready before a load comes. */
static void prepare(struct writer *w)
{
    int failed = io_uring_queue_init(DEPTH, &w->ring, 0);
    if (failed)
        die("io_uring", -failed);
    for (int i = 0; i < DEPTH; i++) {
        w->buffers[i].iov_len = PIECE_BYTES;
        if (posix_memalign(&w->buffers[i].iov_base, ALIGN_BYTES, PIECE_BYTES) != 0)
            die("memory", ENOMEM);
        fill_random(w->buffers[i].iov_base, PIECE_BYTES);
    }
    failed = io_uring_register_buffers(&w->ring, w->buffers, DEPTH);
    if (failed)
        die("registered buffers", -failed);
}

static void open_file(struct writer *w, const char *path, uint64_t bytes)
{
    w->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0644);
    if (w->fd < 0)
        die(path, errno);
    if (fallocate(w->fd, 0, 0, (off_t)bytes) != 0)
        die("fallocate", errno);
}

static void submit_piece(struct writer *w, int i)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&w->ring);
    io_uring_prep_write_fixed(sqe, w->fd, w->buffers[i].iov_base, (unsigned)w->left[i],
                              w->offset[i], i);
    io_uring_sqe_set_data64(sqe, (uint64_t)i);
    int submitted = io_uring_submit(&w->ring);
    if (submitted < 0)
        die("submit", -submitted);
}

/* Waits for one write; a short one goes on where it stopped. Returns the idle piece, or -1. */
static int reap_piece(struct writer *w)
{
    struct io_uring_cqe *cqe;
    int failed = io_uring_wait_cqe(&w->ring, &cqe);
    if (failed)
        die("wait", -failed);
    int i = (int)io_uring_cqe_get_data64(cqe), result = cqe->res;
    io_uring_cqe_seen(&w->ring, cqe);
    if (result <= 0)
        die("write", result ? -result : EIO);
    w->left[i] -= (uint64_t)result;
    w->offset[i] += (uint64_t)result;
    if (w->left[i] == 0)
        return i;
    submit_piece(w, i);
    return -1;
}

/* Starts the next piece of the file from buffer `i`; returns where the one after it begins. */
static uint64_t start_piece(struct writer *w, int i, uint64_t offset, uint64_t bytes)
{
    w->offset[i] = offset;
    w->left[i] = bytes - offset < PIECE_BYTES ? bytes - offset : PIECE_BYTES;
    uint64_t next = offset + w->left[i];
    submit_piece(w, i);
    return next;
}

static void write_all(struct writer *w, uint64_t bytes)
{
    uint64_t next = 0;
    int in_flight = 0;
    for (; in_flight < DEPTH && next < bytes; in_flight++)
        next = start_piece(w, in_flight, next, bytes);
    while (in_flight > 0) {
        int idle = reap_piece(w);
        if (idle >= 0 && next < bytes)
            next = start_piece(w, idle, next, bytes);
        else if (idle >= 0)
            in_flight--;
    }
    if (fdatasync(w->fd) != 0)
        die("fdatasync", errno);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: disk_write FILE BYTES\n", stderr);
        return 2;
    }
    uint64_t bytes = strtoull(argv[2], NULL, 10) / ALIGN_BYTES * ALIGN_BYTES;
    struct writer w;
    prepare(&w);
    double started_s = now_s();
    open_file(&w, argv[1], bytes);
    write_all(&w, bytes);
    printf("%.6f %llu\n", now_s() - started_s, (unsigned long long)bytes);
    close(w.fd);
    unlink(argv[1]);
    return 0;
}
