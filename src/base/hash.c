/* Bulk hashing through libxxhash. On x86 its dispatching entry points choose AVX-512, AVX2 or SSE2
 * at run time: the plain ones are compiled for SSE2 (13 GB/s against 21 with AVX2 on a Zen 5).
 * Thread-safe, no failure. */
#include "base/hash.h"

#include <stdlib.h>

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

uint64_t hash64(const void *data, size_t n)
{
    return XXH3_64bits(data, n);
}

struct hash128 hash128(const void *data, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(data, n);
    return (struct hash128){h.low64, h.high64};
}

struct hash_stream {
    XXH3_state_t *state;
};

struct hash_stream *hash_stream_new(void)
{
    struct hash_stream *s = calloc(1, sizeof *s);
    if (s && !(s->state = XXH3_createState())) {
        free(s);
        return NULL;
    }
    if (s)
        XXH3_128bits_reset(s->state);
    return s;
}

void hash_stream_put(struct hash_stream *s, const void *data, size_t n)
{
    XXH3_128bits_update(s->state, data, n);
}

struct hash128 hash_stream_value(const struct hash_stream *s)
{
    XXH128_hash_t h = XXH3_128bits_digest(s->state);
    return (struct hash128){h.low64, h.high64};
}

void hash_stream_free(struct hash_stream *s)
{
    if (!s)
        return;
    XXH3_freeState(s->state);
    free(s);
}
