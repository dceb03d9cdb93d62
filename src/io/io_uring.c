/* The io_uring backend: streams keep many O_DIRECT writes in flight, and a log write is linked to
 * its sync. Everything else is the posix backend's: a ring makes a single call no faster.
 *
 *   lane   [ ring | 9 buffers of 1 MiB, registered ]    one a stream; idle ones wait for the next
 *             8 in flight, one being filled
 *          beyond the fourth stream at once: 5 buffers. Together they keep the disk as busy, and
 *          many parts of a load at once take little more memory than a few
 *   pair   [ ring of 4 ]   write --link--> fsync(DATASYNC)    one a call; idle ones wait
 *   reader [ ring of 64 ]  reads of one call, all in flight   one a call; idle ones wait
 *
 * A link breaks on a short write: then the sync is cancelled and the caller goes on with the rest.
 * Buffers that may not be registered (RLIMIT_MEMLOCK) are used unregistered.
 *
 * Threads: the pools are locked; a lane or pair belongs to whoever took it, and may be driven from
 * one thread after the other, which is why rings are not SINGLE_ISSUER. Failure: -errno. A call
 * returns only when the kernel is done with the caller's memory. */
#include "io/io_internal.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"

enum {
    WIDE_BUFFERS = 9,
    NARROW_BUFFERS = 5,
    WIDE_LANES_MAX = 4,
    LANE_RING_ENTRIES = 32,
    PAIR_RING_ENTRIES = 4,
    NARROW_IDLE_MAX = 12, /* wide ones are all kept: there are never more than WIDE_LANES_MAX */
    PAIRS_IDLE_MAX = 8,
    READ_RING_ENTRIES = 64,
    READERS_IDLE_MAX = 16,
    SUBMIT_TRIES_MAX = 1000, /* a millisecond apart, while the kernel is short of memory */
    PAIR_TRIES_MAX = 16,     /* of a write that the kernel puts off */
    WRITE_MAX_BYTES = 1 << 30,
};

struct uring_lane {
    struct io_lane base;
    struct io_uring ring;
    bool registered;
    struct uring_lane *next; /* idle */
};

struct pair {
    struct io_uring ring;
    struct pair *next; /* idle */
};

struct uring {
    struct io base;
    pthread_mutex_t lock; /* of the idle lists and counts */
    struct uring_lane *lanes;
    struct pair *pairs;
    struct pair *readers; /* rings of READ_RING_ENTRIES */
    unsigned nnarrow, npairs, nreaders;
    unsigned wide_in_use;
    atomic_bool unregistered; /* said so in the log */
};

/* ---- the ring ---- */

/* Hands `n` prepared entries to the kernel: how many it took, or -errno when none. */
static int submit_entries(struct io_uring *ring, int n)
{
    int taken = 0;
    for (int tries = 0; taken < n && tries < SUBMIT_TRIES_MAX; tries++) {
        int r = io_uring_submit(ring);
        if (r > 0)
            taken += r;
        else if (r == -EAGAIN || r == -EBUSY)
            usleep(1000);
        else if (r != -EINTR)
            return taken ? taken : r ? r : -EIO;
    }
    return taken ? taken : -EAGAIN;
}

static int wait_entry(struct io_uring *ring, uint64_t *user_data, int *result)
{
    struct io_uring_cqe *cqe;
    int r;
    do
        r = io_uring_wait_cqe(ring, &cqe);
    while (r == -EINTR);
    if (r < 0)
        return r;
    *user_data = cqe->user_data;
    *result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return 0;
}

/* ---- lanes ---- */

static bool register_buffers(struct uring_lane *lane)
{
    struct iovec iov[WIDE_BUFFERS];
    for (unsigned i = 0; i < lane->base.nbuffers; i++) {
        iov[i].iov_base = lane->base.buffers + (size_t)i * LANE_BUFFER_BYTES;
        iov[i].iov_len = LANE_BUFFER_BYTES;
    }
    return io_uring_register_buffers(&lane->ring, iov, lane->base.nbuffers) == 0;
}

static void lane_free(struct uring_lane *lane)
{
    io_uring_queue_exit(&lane->ring);
    lane_buffers_free(lane->base.buffers, lane->base.nbuffers);
    free(lane);
}

static int lane_new(struct uring *u, unsigned nbuffers, struct uring_lane **out)
{
    struct uring_lane *lane = calloc(1, sizeof(*lane));
    if (!lane)
        return -ENOMEM;
    int r = -ENOMEM;
    lane->base.nbuffers = nbuffers;
    lane->base.buffers = lane_buffers_new(nbuffers);
    if (lane->base.buffers)
        r = io_uring_queue_init(LANE_RING_ENTRIES, &lane->ring, 0);
    if (r < 0) {
        lane_buffers_free(lane->base.buffers, nbuffers);
        free(lane);
        return r;
    }
    lane->registered = register_buffers(lane);
    if (!lane->registered && !atomic_exchange(&u->unregistered, true))
        log_info("write buffers are not registered with io_uring; "
                 "raise the limit on locked memory (ulimit -l) to register them");
    *out = lane;
    return 0;
}

/* Under the lock; NULL when none of that size is idle. */
static struct uring_lane *take_idle(struct uring *u, unsigned nbuffers)
{
    struct uring_lane **at = &u->lanes, *lane;
    while (*at && (*at)->base.nbuffers != nbuffers)
        at = &(*at)->next;
    lane = *at;
    if (lane) {
        *at = lane->next;
        u->nnarrow -= nbuffers == NARROW_BUFFERS;
    }
    return lane;
}

static int uring_lane_acquire(struct io *io, struct io_lane **out)
{
    struct uring *u = (struct uring *)io;
    pthread_mutex_lock(&u->lock);
    bool wide = u->wide_in_use < WIDE_LANES_MAX;
    struct uring_lane *lane = take_idle(u, wide ? WIDE_BUFFERS : NARROW_BUFFERS);
    u->wide_in_use += wide;
    pthread_mutex_unlock(&u->lock);
    int r = lane ? 0 : lane_new(u, wide ? WIDE_BUFFERS : NARROW_BUFFERS, &lane);
    if (r == 0) {
        *out = &lane->base;
        return 0;
    }
    pthread_mutex_lock(&u->lock);
    u->wide_in_use -= wide;
    pthread_mutex_unlock(&u->lock);
    return r;
}

static void uring_lane_release(struct io *io, struct io_lane *base, bool idle)
{
    struct uring *u = (struct uring *)io;
    struct uring_lane *lane = (struct uring_lane *)base;
    pthread_mutex_lock(&u->lock);
    bool wide = base->nbuffers == WIDE_BUFFERS;
    bool keep = idle && (wide || u->nnarrow < NARROW_IDLE_MAX);
    u->wide_in_use -= wide;
    if (keep) {
        lane->next = u->lanes;
        u->lanes = lane;
        u->nnarrow += !wide;
    }
    pthread_mutex_unlock(&u->lock);
    if (!keep)
        lane_free(lane);
}

static int uring_lane_submit(struct io *io, struct io_lane *base, int fd, unsigned buffer,
                             size_t from, size_t n, uint64_t offset)
{
    (void)io;
    struct uring_lane *lane = (struct uring_lane *)base;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&lane->ring);
    ASSERT(sqe); /* more entries than buffers */
    const uint8_t *data = base->buffers + (size_t)buffer * LANE_BUFFER_BYTES + from;
    if (lane->registered)
        io_uring_prep_write_fixed(sqe, fd, data, (unsigned)n, offset, (int)buffer);
    else
        io_uring_prep_write(sqe, fd, data, (unsigned)n, offset);
    io_uring_sqe_set_data64(sqe, buffer);
    int r = submit_entries(&lane->ring, 1);
    return r < 0 ? r : 0;
}

static int uring_lane_wait(struct io *io, struct io_lane *base, unsigned *buffer, ssize_t *result)
{
    (void)io;
    struct uring_lane *lane = (struct uring_lane *)base;
    uint64_t user_data;
    int res;
    int r = wait_entry(&lane->ring, &user_data, &res);
    if (r < 0)
        return r;
    ASSERT(user_data < base->nbuffers);
    *buffer = (unsigned)user_data;
    *result = res;
    return 0;
}

/* ---- write and sync as a linked pair ---- */

static void pair_free(struct pair *p)
{
    io_uring_queue_exit(&p->ring);
    free(p);
}

static int ring_new(unsigned entries, struct pair **out)
{
    struct pair *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    int r = io_uring_queue_init(entries, &p->ring, 0);
    if (r < 0) {
        free(p);
        return r;
    }
    *out = p;
    return 0;
}

static int pair_new(struct pair **out)
{
    return ring_new(PAIR_RING_ENTRIES, out);
}

static int pair_acquire(struct uring *u, struct pair **out)
{
    pthread_mutex_lock(&u->lock);
    struct pair *p = u->pairs;
    if (p) {
        u->pairs = p->next;
        u->npairs--;
    }
    pthread_mutex_unlock(&u->lock);
    if (!p)
        return pair_new(out);
    *out = p;
    return 0;
}

static void pair_release(struct uring *u, struct pair *p, bool idle)
{
    pthread_mutex_lock(&u->lock);
    bool keep = idle && u->npairs < PAIRS_IDLE_MAX;
    if (keep) {
        p->next = u->pairs;
        u->pairs = p;
        u->npairs++;
    }
    pthread_mutex_unlock(&u->lock);
    if (!keep)
        pair_free(p);
}

enum { PAIR_WRITE, PAIR_SYNC, PAIR_ENTRIES };

/* Runs the pair and waits until the kernel is done with both. True when the ring is idle again. */
static bool pair_run(struct pair *p, int fd, const void *data, size_t n, uint64_t offset,
                     int results[PAIR_ENTRIES])
{
    struct io_uring_sqe *write = io_uring_get_sqe(&p->ring);
    struct io_uring_sqe *sync = io_uring_get_sqe(&p->ring);
    ASSERT(write && sync);
    io_uring_prep_write(write, fd, data, (unsigned)n, offset);
    io_uring_sqe_set_flags(write, IOSQE_IO_LINK);
    io_uring_sqe_set_data64(write, PAIR_WRITE);
    io_uring_prep_fsync(sync, fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data64(sync, PAIR_SYNC);

    results[PAIR_WRITE] = results[PAIR_SYNC] = -ECANCELED;
    int taken = submit_entries(&p->ring, PAIR_ENTRIES);
    if (taken < 0)
        results[PAIR_WRITE] = taken;
    for (int i = 0; i < taken; i++) {
        uint64_t which;
        int result;
        int r = wait_entry(&p->ring, &which, &result);
        ASSERT(r == 0 && which < PAIR_ENTRIES); /* the kernel still reads `data` */
        results[which] = result;
    }
    return taken == PAIR_ENTRIES;
}

/* What the two results mean. A broken link leaves the sync cancelled: nothing is durable, and the
 * short count says so. */
static ssize_t pair_result(const int results[PAIR_ENTRIES], size_t n)
{
    int written = results[PAIR_WRITE];
    if (written < 0 || (size_t)written < n)
        return written;
    return results[PAIR_SYNC] < 0 ? results[PAIR_SYNC] : written;
}

static bool put_off(int result)
{
    return result == -EINTR || result == -EAGAIN;
}

static ssize_t uring_write_sync(struct io *io, int fd, const void *data, size_t n, uint64_t offset)
{
    struct uring *u = (struct uring *)io;
    if (n > WRITE_MAX_BYTES)
        return IO_POSIX_OPS.write(io, fd, data, WRITE_MAX_BYTES, offset);
    struct pair *p;
    int r = pair_acquire(u, &p);
    if (r < 0)
        return r;
    int results[PAIR_ENTRIES];
    bool idle = pair_run(p, fd, data, n, offset, results);
    for (int tries = 0; idle && put_off(results[PAIR_WRITE]) && tries < PAIR_TRIES_MAX; tries++)
        idle = pair_run(p, fd, data, n, offset, results);
    pair_release(u, p, idle);
    return pair_result(results, n);
}

/* ---- many reads ---- */

static int reader_acquire(struct uring *u, struct pair **out)
{
    pthread_mutex_lock(&u->lock);
    struct pair *p = u->readers;
    if (p) {
        u->readers = p->next;
        u->nreaders--;
    }
    pthread_mutex_unlock(&u->lock);
    *out = p;
    return p ? 0 : ring_new(READ_RING_ENTRIES, out);
}

static void reader_release(struct uring *u, struct pair *p, bool idle)
{
    pthread_mutex_lock(&u->lock);
    bool keep = idle && u->nreaders < READERS_IDLE_MAX;
    if (keep) {
        p->next = u->readers;
        u->readers = p;
        u->nreaders++;
    }
    pthread_mutex_unlock(&u->lock);
    if (!keep)
        pair_free(p);
}

/* Up to READ_RING_ENTRIES reads, all in flight at once. True when the ring is idle again. */
static bool run_reads(struct pair *p, const struct io_attempt *all, size_t n, ssize_t *result)
{
    for (size_t i = 0; i < n; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&p->ring);
        ASSERT(sqe);
        size_t most = all[i].n < WRITE_MAX_BYTES ? all[i].n : WRITE_MAX_BYTES;
        io_uring_prep_read(sqe, all[i].fd, all[i].data, (unsigned)most, all[i].offset);
        io_uring_sqe_set_data64(sqe, i);
        result[i] = -EAGAIN;
    }
    int taken = submit_entries(&p->ring, (int)n);
    for (int i = 0; i < taken; i++) {
        uint64_t which;
        int got;
        int r = wait_entry(&p->ring, &which, &got);
        ASSERT(r == 0 && which < n); /* the kernel still writes to the caller's memory */
        result[which] = got;
    }
    return taken == (int)n;
}

/* What could not be tried is left at -EAGAIN, which the caller reads by itself. */
static void uring_read_many(struct io *io, const struct io_attempt *all, size_t n, ssize_t *result)
{
    struct uring *u = (struct uring *)io;
    struct pair *p;
    bool idle = true;
    for (size_t i = 0; i < n; i++)
        result[i] = -EAGAIN;
    if (reader_acquire(u, &p) < 0)
        return;
    for (size_t i = 0, part; idle && i < n; i += part) {
        part = n - i < READ_RING_ENTRIES ? n - i : READ_RING_ENTRIES;
        idle = run_reads(p, all + i, part, result + i);
    }
    reader_release(u, p, idle);
}

/* ---- the backend ---- */

static void uring_free(struct io *io)
{
    struct uring *u = (struct uring *)io;
    while (u->lanes) {
        struct uring_lane *lane = u->lanes;
        u->lanes = lane->next;
        lane_free(lane);
    }
    while (u->pairs) {
        struct pair *p = u->pairs;
        u->pairs = p->next;
        pair_free(p);
    }
    while (u->readers) {
        struct pair *p = u->readers;
        u->readers = p->next;
        pair_free(p);
    }
    pthread_mutex_destroy(&u->lock);
    free(u);
}

static struct io_ops uring_ops;
static pthread_once_t uring_ops_once = PTHREAD_ONCE_INIT;

static void make_ops(void)
{
    uring_ops = IO_POSIX_OPS;
    uring_ops.name = "io_uring";
    uring_ops.free = uring_free;
    uring_ops.write_sync = uring_write_sync;
    uring_ops.read_many = uring_read_many;
    uring_ops.lane_acquire = uring_lane_acquire;
    uring_ops.lane_release = uring_lane_release;
    uring_ops.lane_submit = uring_lane_submit;
    uring_ops.lane_wait = uring_lane_wait;
}

static enum err refused(int result, struct err_ctx *ctx)
{
    if (result == -ENOSYS)
        return err_set(ctx, ERR_UNAVAILABLE, "this kernel has no io_uring");
    if (result == -EPERM || result == -EACCES)
        return err_set(ctx, ERR_UNAVAILABLE,
                       "io_uring is not allowed here (by a container's seccomp profile, or by "
                       "sysctl kernel.io_uring_disabled)");
    return err_set(ctx, ERR_UNAVAILABLE, "io_uring does not start: %s", strerrordesc_np(-result));
}

static bool operations_known(struct io_uring *ring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool known = probe && io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
                 io_uring_opcode_supported(probe, IORING_OP_WRITE_FIXED) &&
                 io_uring_opcode_supported(probe, IORING_OP_READ) &&
                 io_uring_opcode_supported(probe, IORING_OP_FSYNC);
    io_uring_free_probe(probe);
    return known;
}

enum err io_new_uring(struct io **out, struct err_ctx *ctx)
{
    struct pair *first;
    int r = pair_new(&first);
    if (r < 0)
        return refused(r, ctx);
    if (!operations_known(&first->ring)) {
        pair_free(first);
        return err_set(ctx, ERR_UNAVAILABLE, "this kernel's io_uring is too old (5.6 or later)");
    }
    struct uring *u = calloc(1, sizeof(*u));
    if (!u) {
        pair_free(first);
        return err_no_memory(ctx, sizeof(*u));
    }
    pthread_once(&uring_ops_once, make_ops);
    io_init(&u->base, &uring_ops);
    pthread_mutex_init(&u->lock, NULL);
    pair_release(u, first, true);
    *out = &u->base;
    return ERR_OK;
}
