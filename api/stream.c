/* Streams.
 *
 *   pieces[front]   being sent: full, `sent` of it are with the library
 *   pieces[back]    being filled by the job, or full and next
 *
 * Invariants, under `lock`:
 *   - at most one job is queued or running (`job`), and it alone uses the source and the piece at
 *     `back`; while neither piece is full, either a job is there or the stream has ended or failed;
 *   - `waiting` is set only while the connection is suspended, and whoever clears it resumes the
 *     connection, once. A suspended connection cannot complete, so it is alive;
 *   - after `closed` the HTTP thread is through with it; the job, if there is one, frees.
 *
 * A job fills one piece and queues again behind the others, so that all streams share the workers.
 *
 * Failure: the connection ends without the last chunk, or short of its Content-Length, and is
 * reset where the protocol has neither: no client takes what it got for the whole. */
#include "api/stream.h"

#include <pthread.h>
#include <sys/socket.h>

#include "api/connection.h"
#include "api/request.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "io/mapping.h"

METRIC_COUNTER(streamed, "loadstone_export_bytes_total", "Bytes of exports and diffs sent.")

enum { PIECES = 2, KEPT_BYTES_MAX = 4 * STREAM_PIECE_BYTES, BLOCK_BYTES = 128 * 1024 };

struct piece {
    struct buf bytes;
    size_t sent;
    bool full;
};

struct stream {
    pthread_mutex_t lock;
    struct service *service;
    struct stream_source source;
    int64_t length;
    struct piece pieces[PIECES];
    unsigned front, back;
    bool job, ended, failed, closed;
    struct MHD_Connection *waiting;

    struct request *request; /* the HTTP thread's: it outlives the sending */
};

static enum err count_in(struct service *s, struct err_ctx *ctx)
{
    if (atomic_fetch_add(&s->exports, 1) < s->limits.exports_max)
        return ERR_OK;
    atomic_fetch_sub(&s->exports, 1);
    return err_set(ctx, ERR_BUSY,
                   "as many exports and diffs as exports_max allows (%llu) are being sent: try "
                   "again in a moment",
                   (unsigned long long)s->limits.exports_max);
}

enum err stream_new(struct service *s, const struct stream_source *source, int64_t length,
                    struct stream **out, struct err_ctx *ctx)
{
    RETURN_NOT_OK(count_in(s, ctx));
    struct stream *st = calloc(1, sizeof *st);
    if (!st) {
        atomic_fetch_sub(&s->exports, 1);
        return err_no_memory(ctx, sizeof *st);
    }
    pthread_mutex_init(&st->lock, NULL);
    st->service = s;
    st->source = *source;
    st->length = length;
    *out = st;
    return ERR_OK;
}

static void dispose(struct stream *st)
{
    st->source.free(st->source.arg);
    for (unsigned i = 0; i < PIECES; i++)
        buf_deinit(&st->pieces[i].bytes);
    atomic_fetch_sub(&st->service->exports, 1);
    pthread_mutex_destroy(&st->lock);
    free(st);
}

static void dispose_job(void *arg)
{
    dispose(arg);
}

/* The last reference to a snapshot may unmap files: not on an HTTP thread if it can be helped. */
void stream_close(struct stream *st)
{
    if (!st)
        return;
    pthread_mutex_lock(&st->lock);
    st->closed = true;
    bool mine = !st->job;
    pthread_mutex_unlock(&st->lock);
    if (mine && worker_pool_submit(st->service->exporters, dispose_job, st, NULL) != ERR_OK)
        dispose(st);
}

/* ---- filling ---- */

/* Into the piece at `back`, which nobody else touches. */
static enum err fill(struct stream *st, bool *end, struct err_ctx *ctx)
{
    struct buf *out = &st->pieces[st->back].bytes;
    unsigned faults = mapping_faults();
    if (out->cap > KEPT_BYTES_MAX)
        buf_deinit(out);
    buf_reset(out);
    *end = false;
    RETURN_NOT_OK(st->source.fill(st->source.arg, out, end, ctx));
    if (out->failed)
        return err_no_memory(ctx, out->len);
    return mapping_check_since(faults, ctx);
}

/* With the lock: what a fill has led to. */
static void filled(struct stream *st, enum err e, bool end)
{
    struct piece *p = &st->pieces[st->back];
    if (e != ERR_OK) {
        st->failed = true;
        return;
    }
    st->ended = end;
    if (!p->bytes.len)
        return;
    p->sent = 0;
    p->full = true;
    st->back = (st->back + 1) % PIECES;
}

static bool wants_more(const struct stream *st)
{
    return !st->ended && !st->failed && !st->closed && !st->pieces[st->back].full;
}

/* With the lock: whom to resume, NULL for nobody. */
static struct MHD_Connection *take_waiting(struct stream *st)
{
    struct MHD_Connection *conn = st->waiting;
    if (!st->pieces[st->front].full && !st->ended && !st->failed)
        return NULL;
    st->waiting = NULL;
    return conn;
}

enum err stream_start(struct stream *st, struct err_ctx *ctx)
{
    bool end;
    enum err e = fill(st, &end, ctx);
    filled(st, e, end);
    return e;
}

static void run_job(void *arg);

/* Ends a turn of the job with the lock held, and leaves it: queues the next turn, or is the last to
 * see the stream. */
static void end_turn(struct stream *st)
{
    struct service *s = st->service;
    bool again = wants_more(st);
    if (again && worker_pool_submit(s->exporters, run_job, st, NULL) != ERR_OK) {
        st->failed = true;
        again = false;
    }
    st->job = again;
    struct MHD_Connection *conn = take_waiting(st);
    bool last = st->closed && !again;
    pthread_mutex_unlock(&st->lock);
    if (conn)
        service_resume(s, conn);
    if (last)
        dispose(st);
}

static void run_job(void *arg)
{
    struct stream *st = arg;
    struct err_ctx ctx;
    bool end = false;
    err_clear(&ctx);
    pthread_mutex_lock(&st->lock);
    bool wanted = wants_more(st);
    pthread_mutex_unlock(&st->lock);
    enum err e = wanted ? fill(st, &end, &ctx) : ERR_OK;
    if (e != ERR_OK)
        log_error("an export ends in the middle: %s", ctx.detail);
    pthread_mutex_lock(&st->lock);
    if (wanted)
        filled(st, e, end);
    end_turn(st);
}

/* ---- sending ---- */

/* What has no length and no chunks is whole to its client unless the connection is reset. The
 * library marks the connection closed, and closes it when it looks at it again: at once if it has a
 * timeout of its own, else not before the client moves. */
static ssize_t cut_off(struct stream *st)
{
    const struct linger at_once = {.l_onoff = 1};
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(st->request->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info)
        (void)!setsockopt(info->connect_fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    unsigned own_s = st->service->limits.idle_timeout_s == 1 ? 2 : 1;
    MHD_set_connection_option(st->request->conn, MHD_CONNECTION_OPTION_TIMEOUT, own_s);
    return MHD_CONTENT_READER_END_WITH_ERROR;
}

/* With the lock, no piece being ready. */
static ssize_t wait_for_piece(struct stream *st)
{
    if (st->failed || (st->ended && st->length >= 0))
        return cut_off(st);
    if (st->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    connection_head_done(st->request->watched);
    st->waiting = st->request->conn;
    if (service_suspend(st->service, st->request->conn))
        return 0;
    st->waiting = NULL;
    return cut_off(st);
}

/* With the lock. The client has its time for what it is given here. */
static ssize_t send_some(struct stream *st, char *to, size_t max)
{
    struct piece *p = &st->pieces[st->front];
    size_t left = p->bytes.len - p->sent, n = left < max ? left : max;
    memcpy(to, p->bytes.data + p->sent, n);
    p->sent += n;
    if (n == left) {
        p->full = false;
        st->front = (st->front + 1) % PIECES;
    }
    st->request->streamed += n;
    metric_add(&streamed, 0, n);
    connection_answering(st->request->watched,
                         clock_mono_us() + limits_transfer_us(&st->service->limits, n));
    return (ssize_t)n;
}

static ssize_t read_stream(void *arg, uint64_t pos, char *to, size_t max)
{
    struct stream *st = arg;
    (void)pos;
    pthread_mutex_lock(&st->lock);
    ssize_t n = st->pieces[st->front].full ? send_some(st, to, max) : wait_for_piece(st);
    if (!st->job && wants_more(st)) {
        st->job = true;
        if (worker_pool_submit(st->service->exporters, run_job, st, NULL) != ERR_OK) {
            st->job = false;
            st->failed = true;
        }
    }
    pthread_mutex_unlock(&st->lock);
    return n;
}

static void close_stream(void *arg)
{
    stream_close(arg);
}

/* The library ends even the answer to a HEAD with a last chunk, which the client would take for the
 * beginning of the next answer; without chunks it closes the connection behind the head. */
struct MHD_Response *stream_response(struct stream *st, struct request *r)
{
    st->request = r;
    uint64_t size = st->length < 0 ? MHD_SIZE_UNKNOWN : (uint64_t)st->length;
    struct MHD_Response *response =
        MHD_create_response_from_callback(size, BLOCK_BYTES, read_stream, st, close_stream);
    if (response && r->head_only && st->length < 0)
        MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    return response;
}
