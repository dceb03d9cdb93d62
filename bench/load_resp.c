/* Redis's protocol (RESP2) for the load generator: HGETALL of one key, `batch` pipelined HMGETs of
 * eight fields, one key each, and bodies of `batch` commands that come ready made.
 *
 * Threads: no state. Failure: an error reply is an error. */
#include <string.h>

#include "load_gen.h"

static const char hmget_head[] = "*10\r\n$5\r\nHMGET\r\n";
static const char hmget_fields[] = "$2\r\nf0\r\n$2\r\nf1\r\n$2\r\nf2\r\n$2\r\nf3\r\n"
                                   "$2\r\nf4\r\n$2\r\nf5\r\n$2\r\nf6\r\n$2\r\nf7\r\n";
static const char hgetall_head[] = "*2\r\n$7\r\nHGETALL\r\n";

static size_t put(char *out, const char *data, size_t n)
{
    memcpy(out, data, n);
    return n;
}

static size_t put_key(const struct workload *w, uint64_t *rng, char *out)
{
    char key[16] = "user:";
    size_t prefix = w->int_keys ? 0 : 5, n = 0;
    size_t len = prefix + put_decimal(key + prefix, draw_below(rng, w->keys));
    out[n++] = '$';
    n += put_decimal(out + n, (uint32_t)len);
    n += put(out + n, "\r\n", 2);
    n += put(out + n, key, len);
    return n + put(out + n, "\r\n", 2);
}

static size_t request_hgetall(const struct workload *w, uint64_t *rng, char *out)
{
    size_t n = put(out, hgetall_head, sizeof hgetall_head - 1);
    return n + put_key(w, rng, out + n);
}

static size_t request_hmget(const struct workload *w, uint64_t *rng, char *out)
{
    size_t n = 0;
    for (uint32_t i = 0; i < w->batch; i++) {
        n += put(out + n, hmget_head, sizeof hmget_head - 1);
        n += put_key(w, rng, out + n);
        n += put(out + n, hmget_fields, sizeof hmget_fields - 1);
    }
    return n;
}

static size_t request_body(const struct workload *w, uint64_t *rng, char *out)
{
    const struct body *b = &w->bodies[draw_below(rng, w->nbodies)];
    return put(out, (const char *)b->data, b->len);
}

/* "<digits>\r\n" at p: the number, and *p moved behind it; -1 when it is not all there. */
static int64_t take_number(const char **p, const char *end)
{
    int64_t v = 0;
    const char *q = *p;
    while (q < end && *q >= '0' && *q <= '9')
        v = v * 10 + (*q++ - '0');
    if (end - q < 2)
        return -1;
    *p = q + 2;
    return v;
}

/* An array of bulk strings, which is what all of these commands bring. */
static int64_t answer_array(const char *data, size_t n)
{
    const char *p = data, *end = data + n;
    if (n < 4)
        return 0;
    if (*p++ != '*')
        return -1;
    int64_t items = take_number(&p, end);
    if (items == 0)
        return -1;
    for (int64_t i = 0; i < items; i++) {
        if (end - p < 4)
            return 0;
        if (*p++ != '$' || *p == '-')
            return -1;
        int64_t len = take_number(&p, end);
        if (len < 0 || end - p < len + 2)
            return 0;
        p += len + 2;
    }
    return items < 0 ? 0 : p - data;
}

static uint32_t one_answer(const struct workload *w)
{
    (void)w;
    return 1;
}

static uint32_t batch_answers(const struct workload *w)
{
    return w->batch;
}

const struct protocol resp_hgetall = {"hgetall", request_hgetall, one_answer, answer_array};
const struct protocol resp_hmget = {"hmget", request_hmget, batch_answers, answer_array};
const struct protocol resp_body = {"resp", request_body, batch_answers, answer_array};
