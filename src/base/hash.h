/* Hashes of bulk bytes: XXH3 (Y. Collet, xxHash 0.8), at the widest vectors the CPU has. The values
 * are the same on every machine; they stand in files and digests. */
#ifndef LOADSTONE_BASE_HASH_H
#define LOADSTONE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t lo, hi;
};

uint64_t hash64(const void *data, size_t n);
struct hash128 hash128(const void *data, size_t n);

/* The same value over bytes that come in pieces. */
struct hash_stream;
struct hash_stream *hash_stream_new(void); /* NULL: no memory */
void hash_stream_put(struct hash_stream *s, const void *data, size_t n);
struct hash128 hash_stream_value(const struct hash_stream *s);
void hash_stream_free(struct hash_stream *s); /* NULL is allowed */

#endif
