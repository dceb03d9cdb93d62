/* What the load generator and its protocols share. A protocol writes requests and finds where
 * answers end; load_gen.c does the rest: connections, arrivals, times. */
#ifndef LOADSTONE_BENCH_LOAD_GEN_H
#define LOADSTONE_BENCH_LOAD_GEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REQUEST_BYTES_MAX = 512 * 1024 };

struct body {
    const uint8_t *data;
    uint32_t len;
};

/* What is asked. Keys are drawn uniformly from [0, keys): "user:<n>", or n itself as an int64. */
struct workload {
    uint32_t keys;
    uint32_t batch; /* keys a request */
    bool int_keys;
    const char *path;         /* HTTP: of the request, or what comes before the key */
    const char *content_type; /* HTTP */
    const char *accept;       /* HTTP */
    struct body *bodies;      /* post, resp: bodies to draw from */
    uint32_t nbodies;
};

struct protocol {
    const char *name;
    /* Writes a request into out[REQUEST_BYTES_MAX]; returns its length. */
    size_t (*request)(const struct workload *w, uint64_t *rng, char *out);
    /* Answers that one request brings. */
    uint32_t (*answers)(const struct workload *w);
    /* The length of the first answer in data[0, n); 0 = more must come; -1 = an error. */
    int64_t (*answer)(const char *data, size_t n);
};

extern const struct protocol http_get, http_features_json, http_features_octets, http_post;
extern const struct protocol resp_hgetall, resp_hmget, resp_body;

static inline uint64_t draw(uint64_t *rng)
{
    uint64_t x = *rng += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint32_t draw_below(uint64_t *rng, uint32_t n)
{
    return (uint32_t)((draw(rng) >> 32) * n >> 32);
}

/* Writes the decimal of `v`; returns its length. */
static inline size_t put_decimal(char *out, uint32_t v)
{
    char digits[10];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    return n;
}

#endif
