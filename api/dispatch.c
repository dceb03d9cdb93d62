/* A request from its head to its completion.
 *
 *   NEW -> GATHER ---------> run the handler here --------------------> DONE
 *    |        |                  `-> WORKING: suspended, on a worker -> DONE
 *    |--> UPLOAD ----> suspended while the ring is full; at the end until committed -> DONE
 *    `--> DRAIN: an error is noted; the body is read and thrown away, then answered -> DONE
 *
 * The library cannot answer while a body arrives: it would close the connection on a client that is
 * still sending, which then sees a broken pipe instead of the reason. So the error waits for the
 * end of the body. A body too long to wait for is answered past the library at once, and then read
 * within bounds, so that the answer is not lost to a reset.
 *
 * Threads: all callbacks of a connection come on its HTTP thread, none while it is suspended.
 *
 * Failure: returning MHD_NO closes the connection; only for memory that ran out, overdue bodies and
 * shutdown. */
#include "api/dispatch.h"

#include "api/content_digest.h"
#include "api/http_metrics.h"
#include "api/request.h"
#include "api/stream.h"
#include "api/upload.h"
#include "base/clock.h"
#include "io/mapping.h"

enum { REQUEST_LINE_MAX = 64 * 1024 };

void *dispatch_uri(void *arg, const char *uri, struct MHD_Connection *conn)
{
    struct dispatcher *d = arg;
    (void)conn;
    struct request *r = request_new(d->service, uri);
    if (r)
        atomic_fetch_add_explicit(&d->service->running, 1, memory_order_relaxed);
    return r;
}

void dispatch_completed(void *arg, struct MHD_Connection *conn, void **state,
                        enum MHD_RequestTerminationCode why)
{
    struct dispatcher *d = arg;
    struct request *r = *state;
    if (!r)
        return;
    uint64_t now_us = clock_mono_us();
    bool answered =
        r->raw || (r->phase == REQUEST_DONE && why == MHD_REQUEST_TERMINATED_COMPLETED_OK);
    *state = NULL;
    connection_request_done(d->watch, connection_of(conn), now_us);
    http_metrics_count(r, answered, now_us);
    if (r->upload)
        upload_close(r->upload);
    stream_close(r->stream);
    session_release(r->waits_for);
    request_free(r);
    atomic_fetch_sub_explicit(&d->service->running, 1, memory_order_relaxed);
}

/* Whether we wait for the client to send, or it waits for us. */
static void set_turn(struct request *r, bool clients)
{
    r->waiting_since_us = clients ? clock_mono_us() : 0;
    connection_set_turn(r->watched, clients);
}

/* ---- errors while a body arrives ---- */

static uint64_t body_left(const struct request *r)
{
    if (r->head.content_length >= 0)
        return (uint64_t)r->head.content_length - r->received;
    return r->head.chunked ? UINT64_MAX : 0;
}

static void start_draining(struct request *r)
{
    const struct limits *l = &r->service->limits;
    r->phase = REQUEST_DRAIN;
    r->draining_since_us = clock_mono_us();
    r->drained = 0;
    if (!r->head.chunked && body_left(r) > l->drain_bytes_max)
        request_answer_raw(r);
}

/* Past its bytes the answer is sent; from then on only the time counts, so that a client which
 * reads nothing before it has sent everything finds the answer, not a reset. */
static enum MHD_Result drain(struct request *r, size_t n)
{
    const struct limits *l = &r->service->limits;
    bool late = clock_mono_us() - r->draining_since_us > l->drain_timeout_s * 1000000;
    r->drained += n;
    if (r->phase == REQUEST_DRAIN && (late || r->drained > l->drain_bytes_max))
        request_answer_raw(r);
    return late ? MHD_NO : MHD_YES;
}

/* ---- the head ---- */

/* The library ends the URI at the first NUL and looks for the version behind it: in the one buffer
 * that holds the request line, the version then does not follow the URI. */
static enum err check_line(struct request *r, const char *version)
{
    const char *end = r->uri_text + r->uri.len;
    if (version == end || version < end || version > end + REQUEST_LINE_MAX)
        return ERR_OK;
    r->close = true;
    return err_set(&r->err, ERR_INVALID, "the request line holds a NUL or too many spaces");
}

static enum err start(struct request *r, const char *method, const char *version)
{
    RETURN_NOT_OK(check_line(r, version));
    RETURN_NOT_OK(request_parse_head(r, method, &r->err));
    r->phase = REQUEST_GATHER;
    if (!r->route->begin)
        return ERR_OK;
    r->phase = REQUEST_UPLOAD;
    return r->route->begin(r, &r->err);
}

/* A client that waits for "100 Continue" has not sent its body and can be answered at once; so can
 * one whose body has no certain end. */
static enum MHD_Result begin(struct request *r, struct MHD_Connection *conn, const char *method,
                             const char *version)
{
    r->conn = conn;
    if (atomic_load_explicit(&r->service->closed, memory_order_relaxed))
        return MHD_NO;
    r->watched = connection_of(conn);
    connection_head_done(r->watched);
    enum err e = start(r, method, version);
    set_turn(r, request_has_body(r));
    if (e == ERR_OK)
        return MHD_YES;
    if (r->close || (r->head.expect_continue && request_has_body(r))) {
        r->close = true;
        return request_answer(r);
    }
    start_draining(r);
    return MHD_YES;
}

/* ---- the body ---- */

/* Only the time in which the client could have sent counts, not what we made it wait. */
static bool is_overdue(struct request *r)
{
    uint64_t now = clock_mono_us();
    if (r->waiting_since_us)
        r->waited_us += now - r->waiting_since_us;
    else
        connection_set_turn(r->watched, true);
    r->waiting_since_us = now;
    return r->waited_us > limits_transfer_us(&r->service->limits, r->received);
}

static enum MHD_Result refuse_overdue(struct request *r)
{
    (void)!err_set(&r->err, ERR_TIMEOUT,
                   "the body came too slowly: after transfer_grace_s, %llu seconds, at least %llu "
                   "bytes a second are expected (transfer_rate_min)",
                   (unsigned long long)r->service->limits.transfer_grace_s,
                   (unsigned long long)r->service->limits.transfer_rate_min);
    request_answer_raw(r);
    return MHD_NO;
}

static void push(struct request *r, const char *data, size_t *size)
{
    size_t taken = upload_push(r->upload, r->conn, data, *size);
    if (taken < *size)
        set_turn(r, false);
    r->received += taken;
    *size -= taken;
}

static enum err check_streamed(struct request *r, size_t n)
{
    bool fits = r->received + n <= request_body_max(r);
    return fits ? ERR_OK : request_too_large(r, &r->err);
}

static void skip(struct request *r, size_t *size)
{
    r->received += *size;
    *size = 0;
}

/* A piece that is not taken whole must have suspended the connection: the library would not offer
 * the rest again. */
static enum MHD_Result stream_piece(struct request *r, const char *data, size_t *size)
{
    struct intake_outcome none;
    if (check_streamed(r, *size) != ERR_OK) {
        skip(r, size);
        start_draining(r);
        return MHD_YES;
    }
    push(r, data, size);
    if (upload_failed(r->upload)) {
        (void)!upload_result(r->upload, &none, &r->err);
        start_draining(r);
    }
    return MHD_YES;
}

static enum MHD_Result gather_piece(struct request *r, const char *data, size_t *size)
{
    enum err e = request_gather(r, data, *size, &r->err);
    skip(r, size);
    if (e != ERR_OK)
        start_draining(r);
    return MHD_YES;
}

static enum MHD_Result take_piece(struct request *r, const char *data, size_t *size)
{
    if (r->phase == REQUEST_DRAIN || r->phase == REQUEST_DONE) {
        size_t n = *size;
        skip(r, size);
        return drain(r, n);
    }
    if (is_overdue(r))
        return refuse_overdue(r);
    if (r->phase == REQUEST_UPLOAD)
        return stream_piece(r, data, size);
    return gather_piece(r, data, size);
}

/* ---- the handler ---- */

static void run_handler(struct request *r)
{
    buf_reset(&r->out);
    buf_reset(&r->headers);
    r->selector.kind = SELECT_NEWEST;
    unsigned faults = mapping_faults();
    enum err e = r->route->run(r, &r->err);
    if (e == ERR_AGAIN && !r->on_worker) {
        r->defer = true;
        err_clear(&r->err);
        e = ERR_OK;
    }
    if (e == ERR_OK && (e = mapping_check_since(faults, &r->err)) != ERR_OK)
        r->defer = false; /* no answer beats a wrong one */
    if (e != ERR_OK)
        r->err.code = e;
    else if (!r->defer && r->out.failed)
        (void)!err_no_memory(&r->err, r->out.len);
}

/* ---- waiting for a commit ---- */

/* A handler that finds its load being committed names it and is run again when that is over, or
 * when it has waited long enough. */
static bool wants_to_wait(const struct request *r)
{
    return r->waits_for && !r->waited && r->err.code == ERR_OK;
}

/* The connection is suspended. False: the handler goes on at once. */
static bool wait_for_commit(struct request *r)
{
    r->waited = true;
    r->phase = REQUEST_WORKING;
    return waits_add(r->service->waits, r->waits_for, r->conn, r->wait_until_us);
}

static void run_on_worker(void *arg)
{
    struct request *r = arg;
    struct service *s = r->service;
    struct MHD_Connection *conn = r->conn;
    r->queued_us += clock_mono_us() - r->handed_us;
    r->defer = false;
    run_handler(r);
    if (wants_to_wait(r)) {
        if (wait_for_commit(r))
            return;
        run_handler(r);
    }
    service_resume(s, conn);
}

/* On the HTTP thread, after an upload. */
static enum MHD_Result suspend_for_commit(struct request *r)
{
    if (!service_suspend(r->service, r->conn))
        return MHD_NO;
    if (!wait_for_commit(r))
        service_resume(r->service, r->conn);
    return MHD_YES;
}

/* False once: the library is to call again. A connection that was last waiting to read is read from
 * when it is resumed, and closed without its answer when the client has already shut down its
 * sending side; called again, the library knows that it waits for us. */
static bool settle(struct request *r)
{
    bool settled = r->settled;
    r->settled = true;
    return settled;
}

static enum MHD_Result hand_over(struct request *r)
{
    if (!settle(r))
        return MHD_YES;
    struct worker_pool *pool = r->route->blocking ? r->service->writers : r->service->readers;
    r->on_worker = true;
    r->phase = REQUEST_WORKING;
    r->handed_us = clock_mono_us();
    if (!service_suspend(r->service, r->conn))
        return MHD_NO;
    if (worker_pool_submit(pool, run_on_worker, r, &r->err) != ERR_OK)
        service_resume(r->service, r->conn);
    return MHD_YES;
}

/* Bodies that stream are checked where they are taken in. */
static enum err check_digest(struct request *r)
{
    struct content_digest *d;
    RETURN_NOT_OK(content_digest_new(r->head.content_digest, &d, &r->err));
    content_digest_put(d, r->body.data, r->body.len);
    enum err e = content_digest_check(d, &r->err);
    content_digest_free(d);
    return e;
}

static enum MHD_Result run(struct request *r)
{
    if (r->head.content_digest && check_digest(r) != ERR_OK)
        return request_answer(r);
    if (r->route->blocking || r->defer)
        return hand_over(r);
    run_handler(r);
    return r->defer ? hand_over(r) : request_answer(r);
}

/* The library calls this when the body is complete, and again when a suspended connection is
 * resumed. */
static enum MHD_Result body_complete(struct request *r)
{
    if (r->waiting_since_us)
        set_turn(r, false);
    switch (r->phase) {
    case REQUEST_GATHER:
        return run(r);
    case REQUEST_UPLOAD:
        if (!settle(r))
            return MHD_YES;
        r->phase = REQUEST_WORKING;
        return upload_end(r->upload, r->conn) ? MHD_YES : MHD_NO;
    case REQUEST_WORKING:
        if ((r->upload || r->waits_for) && r->err.code == ERR_OK)
            run_handler(r);
        return wants_to_wait(r) ? suspend_for_commit(r) : request_answer(r);
    case REQUEST_DRAIN:
        return request_answer(r);
    case REQUEST_NEW:
    case REQUEST_DONE:
        break;
    }
    return MHD_NO;
}

enum MHD_Result dispatch_request(void *arg, struct MHD_Connection *conn, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **state)
{
    struct request *r = *state;
    (void)arg, (void)url;
    if (!r)
        return MHD_NO;
    if (r->phase == REQUEST_NEW)
        return begin(r, conn, method, version);
    return *size ? take_piece(r, data, size) : body_complete(r);
}
