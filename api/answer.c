/* The answer to a request: `out` or the stream, or the problem document of `err`.
 *
 * Plain answers go out over responses that are kept (responses.c); whatever has a header or a
 * status of its own gets a response of its own.
 *
 * Threads: the request's HTTP thread. Failure: MHD_NO, which closes the connection, when memory is
 * out. */
#include "api/request.h"

#include <sys/socket.h>

#include "api/connection.h"
#include "api/problem.h"
#include "api/responses.h"
#include "api/slow_log.h"
#include "api/stream.h"
#include "base/clock.h"

#define CHALLENGE "Bearer realm=\"loadstone\""

static void take_problem(struct request *r)
{
    if (r->err.code == ERR_OK)
        return;
    buf_reset(&r->out);
    if (r->err.code != ERR_RANGE)
        buf_reset(&r->headers);
    stream_close(r->stream);
    r->stream = NULL;
    problem_write(&r->err, &r->out);
    r->status = problem_status(r->err.code);
    r->content_type = "application/problem+json";
}

static bool wants_retry_after(const struct request *r)
{
    return r->status == MHD_HTTP_TOO_MANY_REQUESTS || r->status == MHD_HTTP_SERVICE_UNAVAILABLE;
}

static bool says_close(const struct request *r)
{
    return r->close || atomic_load_explicit(&r->service->draining, memory_order_relaxed);
}

static enum MHD_Result add_headers(struct request *r, struct MHD_Response *response)
{
    enum MHD_Result ok = MHD_YES;
    if (r->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        ok &= MHD_add_response_header(response, "Allow", r->allow);
    if (r->status == MHD_HTTP_UNAUTHORIZED)
        ok &= MHD_add_response_header(response, "WWW-Authenticate", CHALLENGE);
    if (wants_retry_after(r))
        ok &= MHD_add_response_header(response, "Retry-After", "1");
    if (says_close(r))
        ok &= MHD_add_response_header(response, "Connection", "close");
    for (struct cursor c = cursor_over(r->headers.data, r->headers.len); cursor_left(&c);) {
        const char *name = (const char *)c.p, *value = name + strlen(name) + 1;
        ok &= MHD_add_response_header(response, name, value);
        c.p = (const uint8_t *)value + strlen(value) + 1;
    }
    return ok;
}

/* The stream goes to the response. */
static struct MHD_Response *stream_answer(struct request *r)
{
    struct MHD_Response *response = stream_response(r->stream, r);
    if (!response)
        return NULL;
    r->stream = NULL;
    if (describe_response(response, r->content_type, r->version) == MHD_YES)
        return response;
    MHD_destroy_response(response);
    return NULL;
}

static enum MHD_Result queue_answer(struct request *r)
{
    struct response_key key = {r->out.data, r->out.len, r->content_type, r->version};
    struct MHD_Response *own = NULL, *response;
    if (r->stream)
        response = own = stream_answer(r);
    else if (r->status == MHD_HTTP_OK && !says_close(r) && !r->headers.len)
        response = responses_get(&r->responses, &key);
    else
        response = own = response_new(&key);
    if (!response)
        return MHD_NO;
    enum MHD_Result ok = own ? add_headers(r, own) : MHD_YES;
    if (ok == MHD_YES)
        ok = MHD_queue_response(r->conn, r->status, response);
    if (own)
        MHD_destroy_response(own);
    return ok;
}

enum MHD_Result request_answer(struct request *r)
{
    r->phase = REQUEST_DONE;
    take_problem(r);
    if (r->out.failed || r->headers.failed)
        return MHD_NO;
    uint64_t now_us = clock_mono_us();
    slow_log_end(r, now_us);
    connection_answering(r->watched, now_us + limits_transfer_us(&r->service->limits, r->out.len));
    return queue_answer(r);
}

void request_answer_raw(struct request *r)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct buf head = {0};
    r->phase = REQUEST_DONE;
    r->raw = true;
    take_problem(r);
    buf_printf(&head,
               "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
               "%s%sConnection: close\r\n\r\n",
               r->status, MHD_get_reason_phrase_for(r->status), r->content_type, r->out.len,
               wants_retry_after(r) ? "Retry-After: 1\r\n" : "",
               r->status == MHD_HTTP_UNAUTHORIZED ? "WWW-Authenticate: " CHALLENGE "\r\n" : "");
    buf_put(&head, r->out.data, r->out.len);
    if (info && !head.failed) {
        ssize_t sent = send(info->connect_fd, head.data, head.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)sent; /* the client may be gone; nothing more can be said */
        shutdown(info->connect_fd, SHUT_WR);
    }
    buf_deinit(&head);
}
