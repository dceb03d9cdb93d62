/* The header of a .npy file: magic, version, and a Python dict that says what the array is.
 *
 *   \x93NUMPY  major minor  length (u16 in version 1, u32 in 2 and 3)  {'descr': '<f4', ...} spaces
 *
 * Taken: little-endian float32 in C order with two dimensions. Source: NEP 1 and the docstring of
 * numpy.lib.format. */
#ifndef LOADSTONE_API_NPY_H
#define LOADSTONE_API_NPY_H

#include "base/bytes.h"

enum { NPY_HEADER_BYTES_MAX = 64 * 1024 };

struct npy_array {
    uint64_t rows;
    uint64_t dim;
};

/* *need: bytes of the whole header, as far as its first `n` bytes tell; with *need <= n the header
 * is complete. ERR_INVALID when these are not the first bytes of such a file. */
WARN_UNUSED enum err npy_header_length(const void *data, size_t n, size_t *need,
                                       struct err_ctx *ctx);
/* Reads a complete header. ERR_INVALID when it does not parse, ERR_UNPROCESSABLE when the array is
 * not one that is taken; the sentence says what to call on it. */
WARN_UNUSED enum err npy_header_read(const void *data, size_t n, struct npy_array *out,
                                     struct err_ctx *ctx);

#endif
