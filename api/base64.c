/* Base64: three bytes as four characters.
 *
 *   aaaaaabb bbbbcccc ccdddddd  ->  a b c d        one byte left: a b = =    two: a b c =
 *
 * Threads: no state. Failure: a decoder refuses what an encoder would not have written, so that
 * equal bytes always have equal text. */
#include "api/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static void encode_group(char out[4], const uint8_t *p, size_t n)
{
    uint32_t bits = (uint32_t)p[0] << 16 | (n > 1 ? p[1] : 0u) << 8 | (n > 2 ? p[2] : 0u);
    out[0] = alphabet[bits >> 18];
    out[1] = alphabet[bits >> 12 & 63];
    out[2] = n > 1 ? alphabet[bits >> 6 & 63] : '=';
    out[3] = n > 2 ? alphabet[bits & 63] : '=';
}

void base64_encode(struct buf *out, const void *data, size_t n)
{
    const uint8_t *p = data;
    size_t groups = n / 3 + (n % 3 != 0);
    char *text = buf_extend(out, groups * 4);
    if (!text)
        return;
    for (; n >= 3; n -= 3, p += 3, text += 4)
        encode_group(text, p, 3);
    if (n)
        encode_group(text, p, n);
}

static size_t without_padding(const char *text, size_t n)
{
    if (n % 4 == 0 && n > 0 && text[n - 1] == '=')
        n -= text[n - 2] == '=' ? 2 : 1;
    return n;
}

static bool decode_group(uint8_t out[3], const char *text, size_t n)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; i++) {
        int v = i < n ? sextet(text[i]) : 0;
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
    }
    out[0] = (uint8_t)(bits >> 16);
    out[1] = (uint8_t)(bits >> 8);
    out[2] = (uint8_t)bits;
    return n == 4 || (n == 3 ? !out[2] : !out[1]);
}

bool base64_decode(struct buf *out, const char *text, size_t n)
{
    n = without_padding(text, n);
    if (n % 4 == 1)
        return false;
    for (size_t i = 0; i < n; i += 4) {
        size_t left = n - i < 4 ? n - i : 4;
        uint8_t bytes[3];
        if (!decode_group(bytes, text + i, left))
            return false;
        buf_put(out, bytes, left - 1);
    }
    return true;
}
