/* Bytes: growable buffers, little-endian encoding, bounds-checked reading, UTF-8.
 *
 *   buf:     data [ len used | cap - len free ]     `failed` is sticky until buf_reset
 *   cursor:  p ... end                              `failed` is sticky, and p = end from there on
 *
 * Threads: a buffer or a cursor belongs to one thread. Failure: a buffer without memory keeps what
 * it holds and ignores further puts; a cursor past its end gives zeros. Both are checked once. */
#include "base/bytes.h"

#include <endian.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

enum { BUF_CAP_MIN = 64 };

/* ---- buffers ---- */

void buf_deinit(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

static bool buf_fail(struct buf *b)
{
    b->failed = true;
    return false;
}

bool buf_grow(struct buf *b, size_t extra)
{
    size_t need, cap;
    if (b->failed)
        return false;
    if (extra <= b->cap - b->len)
        return true;
    if (!checked_add(b->len, extra, &need) || !checked_mul(b->cap, 2, &cap))
        return buf_fail(b);
    if (cap < need)
        cap = need;
    if (cap < BUF_CAP_MIN)
        cap = BUF_CAP_MIN;
    uint8_t *data = realloc(b->data, cap);
    if (!data)
        return buf_fail(b);
    b->data = data;
    b->cap = cap;
    return true;
}

void *buf_extend(struct buf *b, size_t n)
{
    /* one byte at least, so that extending an empty buffer by nothing is no failure */
    if (!buf_reserve(b, n ? n : 1))
        return NULL;
    uint8_t *at = b->data + b->len;
    b->len += n;
    return at;
}

void buf_put_zeros(struct buf *b, size_t n)
{
    void *at = buf_extend(b, n);
    if (at && n)
        memset(at, 0, n);
}

void buf_put_u16(struct buf *b, uint16_t v)
{
    v = htole16(v);
    buf_put(b, &v, sizeof(v));
}

void buf_put_u32(struct buf *b, uint32_t v)
{
    v = htole32(v);
    buf_put(b, &v, sizeof(v));
}

void buf_put_u64(struct buf *b, uint64_t v)
{
    v = htole64(v);
    buf_put(b, &v, sizeof(v));
}

void buf_put_varint(struct buf *b, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;
    while (v >= 0x80) {
        bytes[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    bytes[n++] = (uint8_t)v;
    buf_put(b, bytes, n);
}

void buf_put_blob(struct buf *b, const void *data, size_t n)
{
    if (n > UINT32_MAX || !buf_reserve(b, sizeof(uint32_t) + n)) {
        b->failed = true;
        return;
    }
    buf_put_u32(b, (uint32_t)n);
    buf_put(b, data, n);
}

void buf_put_str(struct buf *b, const char *s)
{
    buf_put_blob(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0) {
        b->failed = true;
    } else if (buf_reserve(b, (size_t)n + 1)) { /* vsnprintf writes a NUL behind the text */
        vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void buf_align(struct buf *b, size_t align)
{
    buf_put_zeros(b, round_up(b->len, align) - b->len);
}

/* ---- cursors ---- */

static void cursor_fail(struct cursor *c)
{
    c->failed = true;
    c->p = c->end;
}

const void *cursor_take(struct cursor *c, size_t n)
{
    if (c->failed || n > cursor_left(c)) {
        cursor_fail(c);
        return NULL;
    }
    const uint8_t *at = c->p;
    c->p += n;
    return at;
}

uint8_t cursor_u8(struct cursor *c)
{
    const uint8_t *at = cursor_take(c, 1);
    return at ? *at : 0;
}

uint16_t cursor_u16(struct cursor *c)
{
    uint16_t v = 0;
    const void *at = cursor_take(c, sizeof(v));
    if (at)
        memcpy(&v, at, sizeof(v));
    return le16toh(v);
}

uint32_t cursor_u32(struct cursor *c)
{
    uint32_t v = 0;
    const void *at = cursor_take(c, sizeof(v));
    if (at)
        memcpy(&v, at, sizeof(v));
    return le32toh(v);
}

uint64_t cursor_u64(struct cursor *c)
{
    uint64_t v = 0;
    const void *at = cursor_take(c, sizeof(v));
    if (at)
        memcpy(&v, at, sizeof(v));
    return le64toh(v);
}

/* Ten bytes at most, and the tenth holds one bit: more does not fit 64 bits. */
uint64_t cursor_varint(struct cursor *c)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = cursor_u8(c);
        if (shift == 63 && byte > 1)
            break;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return v;
    }
    cursor_fail(c);
    return 0;
}

const void *cursor_blob(struct cursor *c, size_t *n)
{
    *n = cursor_u32(c);
    const void *at = cursor_take(c, *n);
    if (!at)
        *n = 0;
    return at;
}

bool cursor_str(struct cursor *c, char *out, size_t cap)
{
    size_t n;
    const void *at = cursor_blob(c, &n);
    if (!at || n >= cap || memchr(at, 0, n)) {
        cursor_fail(c);
        if (cap)
            out[0] = '\0';
        return false;
    }
    memcpy(out, at, n);
    out[n] = '\0';
    return true;
}

/* ---- UTF-8 (RFC 3629) ---- */

/* Length of the well-formed multi-byte sequence at p, 0 when there is none. The second byte's range
 * is what keeps out overlong forms (E0, F0), surrogates (ED) and what lies past U+10FFFF (F4). */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0], low = 0x80, high = 0xbf;
    size_t n;
    if (lead >= 0xc2 && lead <= 0xdf)
        n = 2;
    else if (lead >= 0xe0 && lead <= 0xef)
        n = 3;
    else if (lead >= 0xf0 && lead <= 0xf4)
        n = 4;
    else
        return 0;
    if (n > left)
        return 0;
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return n;
}

bool utf8_valid(const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        if (n - i >= sizeof(word)) {
            memcpy(&word, p + i, sizeof(word));
            if (!(word & 0x8080808080808080u)) {
                i += sizeof(word);
                continue;
            }
        }
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        size_t len = utf8_sequence(p + i, n - i);
        if (!len)
            return false;
        i += len;
    }
    return true;
}
