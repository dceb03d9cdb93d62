/* HTTP for the load generator: canned requests with random keys or bodies.
 *
 *   get               GET <path><key>
 *   features-json     POST <path> {"keys":[..]}
 *   features-octets   POST <path>, int64 keys; Accept: application/octet-stream
 *   post              POST <path> with one of the given bodies
 *
 * Threads: no state. Failure: any status but 200 is an error, and so is an answer without a
 * Content-Length. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load_gen.h"

enum { HEAD_ROOM = 512 };

static size_t put(char *out, const char *text)
{
    char *end = mempcpy(out, text, strlen(text));
    return (size_t)(end - out);
}

static size_t request_get(const struct workload *w, uint64_t *rng, char *out)
{
    size_t n = put(out, "GET ");
    n += put(out + n, w->path);
    if (!w->int_keys)
        n += put(out + n, "user:");
    n += put_decimal(out + n, draw_below(rng, w->keys));
    return n + put(out + n, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

static size_t put_head(const struct workload *w, size_t body, char *out)
{
    return (size_t)snprintf(out, HEAD_ROOM,
                            "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"
                            "Accept: %s\r\nContent-Length: %zu\r\n\r\n",
                            w->path, w->content_type, w->accept, body);
}

/* The body is written where the longest head would end, then moved up to the head. */
static size_t close_up(const struct workload *w, size_t body, char *out)
{
    size_t head = put_head(w, body, out);
    memmove(out + head, out + HEAD_ROOM, body);
    return head + body;
}

static size_t request_features_json(const struct workload *w, uint64_t *rng, char *out)
{
    char *body = out + HEAD_ROOM;
    size_t n = put(body, "{\"keys\":[");
    for (uint32_t i = 0; i < w->batch; i++) {
        if (i)
            body[n++] = ',';
        if (!w->int_keys)
            n += put(body + n, "\"user:");
        n += put_decimal(body + n, draw_below(rng, w->keys));
        if (!w->int_keys)
            body[n++] = '"';
    }
    return close_up(w, n + put(body + n, "]}"), out);
}

static size_t request_features_octets(const struct workload *w, uint64_t *rng, char *out)
{
    for (uint32_t i = 0; i < w->batch; i++) {
        int64_t key = draw_below(rng, w->keys);
        memcpy(out + HEAD_ROOM + i * sizeof key, &key, sizeof key);
    }
    return close_up(w, w->batch * sizeof(int64_t), out);
}

static size_t request_post(const struct workload *w, uint64_t *rng, char *out)
{
    const struct body *b = &w->bodies[draw_below(rng, w->nbodies)];
    size_t n = put_head(w, b->len, out);
    memcpy(out + n, b->data, b->len);
    return n + b->len;
}

static int64_t answer(const char *data, size_t n)
{
    static const char ok[] = "HTTP/1.1 200 ", name[] = "\r\nContent-Length: ";
    if (n < sizeof ok - 1)
        return 0;
    if (memcmp(data, ok, sizeof ok - 1) != 0)
        return -1;
    const char *end = memmem(data, n, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end - data) + 4;
    const char *length = memmem(data, head, name, sizeof name - 1);
    if (!length)
        return -1;
    size_t all = head + strtoul(length + sizeof name - 1, NULL, 10);
    return n >= all ? (int64_t)all : 0;
}

static uint32_t one_answer(const struct workload *w)
{
    (void)w;
    return 1;
}

const struct protocol http_get = {"get", request_get, one_answer, answer};
const struct protocol http_features_json = {"features-json", request_features_json, one_answer,
                                            answer};
const struct protocol http_features_octets = {"features-octets", request_features_octets,
                                              one_answer, answer};
const struct protocol http_post = {"post", request_post, one_answer, answer};
