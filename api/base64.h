/* Base64 with the standard alphabet and padding (RFC 4648, section 4). */
#ifndef LOADSTONE_API_BASE64_H
#define LOADSTONE_API_BASE64_H

#include "base/bytes.h"

/* Appends the text of `n` bytes. */
void base64_encode(struct buf *out, const void *data, size_t n);

/* Appends the bytes of `text`; false when it is not base64 (wrong character, wrong padding, bits
 * left over). Padding may be left out altogether. Memory running out shows in out->failed. */
WARN_UNUSED bool base64_decode(struct buf *out, const char *text, size_t n);

#endif
