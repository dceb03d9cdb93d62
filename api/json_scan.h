/* Passing over JSON text in blocks of 16 bytes, for the framer and the reader. The compiler turns
 * the block type into whatever vectors the target has. Little-endian. */
#ifndef LOADSTONE_API_JSON_SCAN_H
#define LOADSTONE_API_JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t json_block __attribute__((vector_size(16)));

/* The index of the first byte of a mask that is set; 16 when none is. */
static inline unsigned json_first_of(json_block mask)
{
    uint64_t half[2];
    memcpy(half, &mask, sizeof half);
    if (half[0])
        return (unsigned)__builtin_ctzll(half[0]) / 8;
    return half[1] ? 8 + (unsigned)__builtin_ctzll(half[1]) / 8 : 16;
}

/* The first quote or bracket in [p, end), or a later place than p before which there is none. */
static inline const char *json_scan_structure(const char *p, const char *end)
{
    json_block text;
    unsigned at = sizeof text;
    for (; at == sizeof text && (size_t)(end - p) >= sizeof text; p += at) {
        memcpy(&text, p, sizeof text);
        /* 0x20 is all that tells '[' from '{' and ']' from '}' */
        json_block folded = text | 0x20;
        at = json_first_of((json_block)((text == '"') | (folded == '{') | (folded == '}')));
    }
    return p;
}

/* The first byte in [p, end) that does not stand for itself in a string: a quote, a backslash, a
 * control character; `end` when there is none. *high is set when it may have passed bytes that are
 * not ASCII. */
static inline const char *json_scan_string(const char *p, const char *end, bool *high)
{
    json_block text, seen = {0};
    unsigned at = sizeof text;
    for (; at == sizeof text && (size_t)(end - p) >= sizeof text; p += at) {
        memcpy(&text, p, sizeof text);
        at = json_first_of((json_block)((text < 0x20) | (text == '"') | (text == '\\')));
        seen |= text;
    }
    *high = json_first_of((json_block)(seen >= 0x80)) < sizeof seen;
    while (p < end && (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\')
        *high |= (unsigned char)*p++ >= 0x80;
    return p;
}

#endif
