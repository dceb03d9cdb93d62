/* Uploads.
 *
 * Invariants, under `lock`:
 *   - head <= tail <= head + nchunks; chunks [head, tail) are full and belong to the job, chunk
 *     `tail` is being filled and belongs to the HTTP thread;
 *   - at most one job is queued or running (`job`); it holds a reference;
 *   - `waiting` is set only while the connection is suspended, and whoever clears it resumes the
 *     connection, once. A suspended connection cannot complete, so it is alive.
 * The intake belongs to the job alone.
 *
 * A client that goes away closes the upload; the job finds `closed` and drops the intake. Two
 * references, the HTTP thread's and the job's, keep the memory until both are done.
 *
 * Failure: the first error is kept and later bytes are thrown away; nothing is committed. */
#include "api/upload.h"

#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"

enum { CHUNK_BYTES = 256 << 10, CHUNKS = 4, CHUNK_ALIGN = 64, ONE_CHUNK_BYTES = 1 << 20 };
enum { READS_COUNT_US = 20000, YIELD_US = 2000 };

struct chunk {
    uint8_t *data;
    size_t len;
};

struct upload {
    pthread_mutex_t lock;
    struct service *service;
    struct upload *prev, *next; /* in the list of all */

    unsigned refs;
    bool job;                       /* queued or running */
    bool ended;                     /* the whole body is in the ring */
    bool done;                      /* committed, or handed over */
    bool failed;                    /* err says why */
    bool closed;                    /* the HTTP thread is through with it */
    struct MHD_Connection *waiting; /* suspended, to be resumed by the job */
    unsigned head, tail;
    size_t chunk_bytes;
    unsigned nchunks;
    struct chunk ring[CHUNKS];

    struct intake *intake;
    struct intake_outcome outcome;
    struct err_ctx err;
};

static struct {
    pthread_mutex_t lock;
    struct upload *first;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void list_add(struct upload *u)
{
    pthread_mutex_lock(&all.lock);
    u->next = all.first;
    if (u->next)
        u->next->prev = u;
    all.first = u;
    pthread_mutex_unlock(&all.lock);
}

static void list_remove(struct upload *u)
{
    pthread_mutex_lock(&all.lock);
    if (u->next)
        u->next->prev = u->prev;
    if (u->prev)
        u->prev->next = u->next;
    else
        all.first = u->next;
    pthread_mutex_unlock(&all.lock);
}

/* A short body gets one chunk of its size; a row that is split between pieces never is between
 * chunks. */
static void size_ring(struct upload *u, uint64_t length, size_t row)
{
    u->chunk_bytes = row ? CHUNK_BYTES / row * row : CHUNK_BYTES;
    u->nchunks = CHUNKS;
    if (length && length <= ONE_CHUNK_BYTES) {
        u->chunk_bytes = length;
        u->nchunks = 1;
    }
}

enum err upload_new(struct service *s, struct collection *c, const struct intake_options *o,
                    size_t row_bytes, struct upload **out, struct err_ctx *ctx)
{
    struct upload *u = calloc(1, sizeof *u);
    if (!u)
        return err_no_memory(ctx, sizeof *u);
    size_ring(u, o->length, row_bytes);
    uint64_t more = u->nchunks > 1 ? ONE_CHUNK_BYTES : 0; /* to come: a large body */
    enum err e = service_reserve(s, more, (uint64_t)u->nchunks * u->chunk_bytes, ctx);
    if (e == ERR_OK && (e = intake_new(s, c, o, &u->intake, ctx)) != ERR_OK)
        service_unreserve(s, (uint64_t)u->nchunks * u->chunk_bytes);
    if (e != ERR_OK) {
        free(u);
        return e;
    }
    pthread_mutex_init(&u->lock, NULL);
    err_clear(&u->err);
    u->service = s;
    u->refs = 1;
    list_add(u);
    *out = u;
    return ERR_OK;
}

static void upload_free(struct upload *u)
{
    list_remove(u);
    for (unsigned i = 0; i < CHUNKS; i++)
        free(u->ring[i].data);
    service_unreserve(u->service, (uint64_t)u->nchunks * u->chunk_bytes);
    intake_free(u->intake);
    session_release(u->outcome.running);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

/* Unlocks. */
static void unref(struct upload *u)
{
    bool last = --u->refs == 0;
    pthread_mutex_unlock(&u->lock);
    if (last)
        upload_free(u);
}

/* ---- resuming ---- */

static bool ring_has_room(const struct upload *u)
{
    return u->tail - u->head < u->nchunks;
}

static bool may_resume(const struct upload *u)
{
    if (u->done || u->failed)
        return true;
    return !u->ended && u->tail - u->head <= u->nchunks / 2;
}

/* Unlocks around the call into the library, which has locks of its own. */
static void resume_waiting(struct upload *u)
{
    struct MHD_Connection *conn = u->waiting;
    if (!conn || !may_resume(u))
        return;
    u->waiting = NULL;
    pthread_mutex_unlock(&u->lock);
    service_resume(u->service, conn);
    pthread_mutex_lock(&u->lock);
}

/* HTTP thread. The connection is suspended first and announced after, so that it is never resumed
 * before it is suspended. */
static bool wait_for_job(struct upload *u, struct MHD_Connection *conn)
{
    if (!service_suspend(u->service, conn))
        return false;
    pthread_mutex_lock(&u->lock);
    bool at_once = may_resume(u);
    if (!at_once)
        u->waiting = conn;
    pthread_mutex_unlock(&u->lock);
    if (at_once)
        service_resume(u->service, conn);
    return true;
}

/* ---- the job ---- */

static void fail(struct upload *u, const struct err_ctx *err)
{
    if (u->failed || u->done)
        return;
    u->failed = true;
    u->err = *err;
}

static bool is_over(const struct upload *u)
{
    return u->closed || u->failed || u->done;
}

static bool has_work(const struct upload *u)
{
    if (is_over(u))
        return intake_holds(u->intake);
    return u->head != u->tail || u->ended;
}

/* A long body takes half of an HTTP thread while it streams, and the searches of that thread wait
 * behind it: while there are any, its chunks come with a pause in between. */
static void yield_to_reads(const struct upload *u)
{
    uint64_t last = atomic_load_explicit(&u->service->read_us, memory_order_relaxed);
    if (u->nchunks > 1 && clock_mono_us() - last < READS_COUNT_US)
        usleep(YIELD_US);
}

/* One step of work, with the lock released. */
static void work(struct upload *u)
{
    struct err_ctx err;
    struct chunk *c = u->head == u->tail ? NULL : &u->ring[u->head % u->nchunks];
    pthread_mutex_unlock(&u->lock);
    err_clear(&err);
    enum err e = c ? intake_feed(u->intake, c->data, c->len, &err)
                   : intake_finish(u->intake, &u->outcome, &err);
    if (c)
        yield_to_reads(u);
    pthread_mutex_lock(&u->lock);
    if (e != ERR_OK)
        fail(u, &err);
    else if (!c)
        u->done = true;
    if (c) {
        c->len = 0;
        u->head++;
    }
}

static void work_or_drop(struct upload *u)
{
    if (!is_over(u)) {
        work(u);
        return;
    }
    pthread_mutex_unlock(&u->lock);
    intake_drop(u->intake);
    pthread_mutex_lock(&u->lock);
}

/* Ends only with the lock held since has_work was false: bytes that come later start a job. */
static void run_job(void *arg)
{
    struct upload *u = arg;
    pthread_mutex_lock(&u->lock);
    do {
        if (has_work(u))
            work_or_drop(u);
        resume_waiting(u);
    } while (has_work(u));
    u->job = false;
    unref(u);
}

/* Under the lock. An upload that finds no place in the queue fails: its client may try again. */
static void start_job(struct upload *u)
{
    struct err_ctx err;
    if (u->job)
        return;
    err_clear(&err);
    if (worker_pool_submit(u->service->writers, run_job, u, &err) != ERR_OK) {
        fail(u, &err);
        return;
    }
    u->job = true;
    u->refs++;
}

/* ---- the HTTP thread ---- */

static void cancel(struct upload *u)
{
    struct err_ctx err;
    err_clear(&err);
    (void)!err_set(&err, ERR_UNAVAILABLE, "the server is stopping: send the rows again later");
    pthread_mutex_lock(&u->lock);
    if (!u->ended)
        fail(u, &err);
    resume_waiting(u);
    pthread_mutex_unlock(&u->lock);
}

static void publish_chunk(struct upload *u)
{
    pthread_mutex_lock(&u->lock);
    u->tail++;
    start_job(u);
    pthread_mutex_unlock(&u->lock);
}

static bool can_fill(struct upload *u)
{
    pthread_mutex_lock(&u->lock);
    bool room = ring_has_room(u) || u->failed;
    pthread_mutex_unlock(&u->lock);
    return room;
}

static void fail_memory(struct upload *u)
{
    struct err_ctx err;
    err_clear(&err);
    (void)!err_no_memory(&err, u->chunk_bytes);
    pthread_mutex_lock(&u->lock);
    fail(u, &err);
    pthread_mutex_unlock(&u->lock);
}

static struct chunk *filling(struct upload *u)
{
    struct chunk *c = &u->ring[u->tail % u->nchunks];
    if (!c->data && posix_memalign((void **)&c->data, CHUNK_ALIGN, u->chunk_bytes) != 0) {
        c->data = NULL;
        fail_memory(u);
        return NULL;
    }
    return c;
}

size_t upload_push(struct upload *u, struct MHD_Connection *conn, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t taken = 0;
    while (taken < n) {
        if (!can_fill(u)) {
            if (wait_for_job(u, conn))
                return taken;
            cancel(u);
        }
        struct chunk *c = upload_failed(u) ? NULL : filling(u);
        if (!c)
            return n;
        size_t room = u->chunk_bytes - c->len;
        size_t part = n - taken < room ? n - taken : room;
        memcpy(c->data + c->len, p + taken, part);
        c->len += part;
        taken += part;
        if (c->len == u->chunk_bytes)
            publish_chunk(u);
    }
    return taken;
}

bool upload_end(struct upload *u, struct MHD_Connection *conn)
{
    pthread_mutex_lock(&u->lock);
    if (ring_has_room(u) && u->ring[u->tail % u->nchunks].len)
        u->tail++;
    u->ended = true;
    start_job(u);
    pthread_mutex_unlock(&u->lock);
    return wait_for_job(u, conn);
}

bool upload_failed(struct upload *u)
{
    pthread_mutex_lock(&u->lock);
    bool failed = u->failed;
    pthread_mutex_unlock(&u->lock);
    return failed;
}

enum err upload_result(struct upload *u, struct intake_outcome *out, struct err_ctx *ctx)
{
    pthread_mutex_lock(&u->lock);
    ASSERT(u->done || u->failed);
    bool failed = u->failed;
    *out = u->outcome;
    if (failed)
        *ctx = u->err;
    pthread_mutex_unlock(&u->lock);
    return failed ? ctx->code : ERR_OK;
}

/* Removing what was not finished is the job's work too, unless the queue has no place for it. */
void upload_close(struct upload *u)
{
    pthread_mutex_lock(&u->lock);
    u->closed = true;
    if (!u->job && intake_holds(u->intake))
        start_job(u);
    bool drop = !u->job;
    pthread_mutex_unlock(&u->lock);
    if (drop)
        intake_drop(u->intake);
    pthread_mutex_lock(&u->lock);
    unref(u);
}

void upload_cancel_all(void)
{
    pthread_mutex_lock(&all.lock);
    for (struct upload *u = all.first; u; u = u->next)
        cancel(u);
    pthread_mutex_unlock(&all.lock);
}
