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

#endif
