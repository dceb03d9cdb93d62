/* Bytes: growable buffers, little-endian encoding, bounds-checked reading, checksums, checked
 * arithmetic. A buffer that ran out of memory remembers it (`failed`) and ignores further puts, so
 * that a writer checks once at the end. */
#ifndef LOADSTONE_BASE_BYTES_H
#define LOADSTONE_BASE_BYTES_H

#include <stddef.h>
#include <string.h>

#include "base/err.h"

struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    bool failed;
};

void buf_deinit(struct buf *b);
static inline void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = false;
}
bool buf_grow(struct buf *b, size_t extra); /* what buf_reserve does when there is no room */
/* Room for `extra` more bytes; false (and b->failed) when memory is out. Growth is geometric. */
static inline bool buf_reserve(struct buf *b, size_t extra)
{
    return (!b->failed && extra <= b->cap - b->len) || buf_grow(b, extra);
}
/* Appends `n` bytes and returns where they start, uninitialised; NULL when memory is out. */
void *buf_extend(struct buf *b, size_t n);
static inline void buf_put(struct buf *b, const void *data, size_t n)
{
    if (n && buf_reserve(b, n)) {
        memcpy(b->data + b->len, data, n);
        b->len += n;
    }
}
static inline void buf_put_u8(struct buf *b, uint8_t v)
{
    if (buf_reserve(b, 1))
        b->data[b->len++] = v;
}
void buf_put_zeros(struct buf *b, size_t n);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_varint(struct buf *b, uint64_t v); /* LEB128 */
/* u32 length, then the bytes. */
void buf_put_blob(struct buf *b, const void *data, size_t n);
void buf_put_str(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Pads with zeros to a multiple of `align` (a power of two). */
void buf_align(struct buf *b, size_t align);

/* Reads what the puts wrote. Past the end every get returns zero and `failed` is set: check once.
 */
struct cursor {
    const uint8_t *p;
    const uint8_t *end;
    bool failed;
};

static inline struct cursor cursor_over(const void *data, size_t n)
{
    return (struct cursor){data, (const uint8_t *)data + n, false};
}
uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_u16(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
uint64_t cursor_varint(struct cursor *c);
/* Borrows `n` bytes; NULL past the end. */
const void *cursor_take(struct cursor *c, size_t n);
/* Borrows a blob and its length; an empty blob is not NULL. NULL past the end. */
const void *cursor_blob(struct cursor *c, size_t *n);
/* Copies a blob as a NUL-terminated string into out[cap]; fails when it does not fit or holds a
 * NUL. */
bool cursor_str(struct cursor *c, char *out, size_t cap);
static inline size_t cursor_left(const struct cursor *c)
{
    return (size_t)(c->end - c->p);
}

/* CRC-32C (Castagnoli), continued from `crc` (0 to start); SSE4.2 when the CPU has it. */
uint32_t crc32c(uint32_t crc, const void *data, size_t n);

WARN_UNUSED static inline bool checked_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
WARN_UNUSED static inline bool checked_add(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline size_t round_up(size_t n, size_t align)
{
    return (n + align - 1) & ~(align - 1);
}

/* True when the bytes are well-formed UTF-8 (no surrogates, no overlong forms). */
bool utf8_valid(const void *data, size_t n);

#endif
