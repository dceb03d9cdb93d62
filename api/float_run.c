/* Runs of JSON numbers into float32, eight digits at a time.
 *
 *   -  0  .  00123456 78  e-05
 *   |  |     |        |
 *   |  whole eight digits a step, out of one 64-bit word
 *   sign
 *
 * A number is w x 10^q, w being its digits as an integer. It is computed in double: w, the power of
 * ten and their product are rounded, so the double is at most three units of its last place away
 * from the number. Where no halfway point between two float32 lies that near, rounding the double
 * gives the float32 nearest to the number itself. A halfway point is a double whose last 29 bits
 * are a one and 28 zeros.
 *
 * The rest is left to the caller's careful parser: numbers beside a halfway point, beyond the
 * normal float32 or the powers here, with more digits than 64 bits hold, and what is no number.
 *
 * Words are read whole; what stands too near to the end of the text is read from a padded copy.
 *
 * Threads: no state. Failure: none; it stops where somebody else must look. */
#include "api/float_run.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    WORD = 8,
    WORDS_MAX = 3,         /* of digits, before the point and behind it */
    NUMBER_BYTES_MAX = 64, /* sign, two times WORDS_MAX, point, exponent, comma: less than this */
    POWER_MAX = 44,        /* 1e-28 with 17 digits */
};

static const double powers[POWER_MAX + 1] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14,
    1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27, 1e28, 1e29,
    1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43, 1e44};

static const uint64_t shifts[WORD + 1] = {1,      10,      100,      1000,     10000,
                                          100000, 1000000, 10000000, 100000000};

/* The eight bytes at p less '0', the first in the low byte. */
static inline uint64_t load_word(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word ^ 0x3030303030303030;
}

/* The high bits of the bytes that are no digits. A carry may reach the bytes behind the first of
 * them, so only that one is sure. */
static inline uint64_t other_bytes(uint64_t word)
{
    return ((word + 0x7676767676767676) | word) & 0x8080808080808080;
}

/* Eight digits, the first in the low byte: pairs, then all four pairs in two multiplications. */
static inline uint64_t word_value(uint64_t word)
{
    const uint64_t pair = 0x000000ff000000ff;
    word = word * 10 + (word >> 8);
    return ((word & pair) * (100 + (1000000ull << 32)) +
            (word >> 16 & pair) * (1 + (10000ull << 32))) >>
           32;
}

/* Appends n digits of this value to *w; false when that does not fit. */
static inline bool append(uint64_t *w, unsigned n, uint64_t value)
{
    return !__builtin_mul_overflow(*w, shifts[n], w) && !__builtin_add_overflow(*w, value, w);
}

/* Appends the digits at p to *w; returns their end, NULL when there are too many. */
static inline const char *read_digits(const char *p, uint64_t *w)
{
    for (int i = 0; i < WORDS_MAX; i++) {
        uint64_t word = load_word(p), other = other_bytes(word);
        if (other == 0) {
            if (!append(w, WORD, word_value(word)))
                return NULL;
            p += WORD;
            continue;
        }
        /* n digits: they move to the high end and leave zeros before them */
        unsigned bit = (unsigned)__builtin_ctzll(other), n = bit / 8;
        return append(w, n, word_value(word << 1 << (70 - bit))) ? p + n : NULL;
    }
    return NULL;
}

/* "e-05": adds it to *q; returns its end. NULL unless it has one or two digits. */
static const char *read_exponent(const char *p, int *q)
{
    bool negative = *++p == '-';
    p += negative || *p == '+';
    uint64_t e = 0;
    const char *end = read_digits(p, &e);
    if (!end || end == p || end - p > 2)
        return NULL;
    *q += negative ? -(int)e : (int)e;
    return end;
}

/* w x 10^q as the nearest float32; false when three roundings might miss it. The sign goes in
 * without a branch: it is as good as random. */
static inline bool round_to_float(uint64_t w, int q, bool negative, float *out)
{
    const uint64_t last_bits = (1u << 29) - 1, halfway = 1u << 28, margin = 4;
    const uint64_t exponent_min = 1023 - 126, exponent_max = 1023 + 126;
    double v = (double)w;
    if (-q >= 0 && -q <= POWER_MAX)
        v /= powers[-q];
    else if (q > 0 && q <= POWER_MAX)
        v *= powers[q];
    else
        return false;
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    bool normal = (bits >> 52) - exponent_min <= exponent_max - exponent_min;
    if ((!normal && w != 0) || (bits & last_bits) - (halfway - margin) <= 2 * margin)
        return false;
    bits |= (uint64_t)negative << 63;
    memcpy(&v, &bits, sizeof bits);
    *out = (float)v;
    return true;
}

/* One number; returns its end, NULL when it is left alone. NUMBER_BYTES_MAX bytes can be read. */
static inline const char *read_number(const char *p, float *out)
{
    uint64_t w = 0;
    int q = 0;
    bool negative = *p == '-';
    const char *digits = p += negative;
    p = *p == '0' ? p + 1 : read_digits(p, &w);
    if (!p || p == digits)
        return NULL;
    if (*p == '.') {
        const char *fraction = p + 1;
        p = read_digits(fraction, &w);
        if (!p || p == fraction)
            return NULL;
        q = (int)(fraction - p);
    }
    if ((*p | 0x20) == 'e' && !(p = read_exponent(p, &q)))
        return NULL;
    return round_to_float(w, q, negative, out) ? p : NULL;
}

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

/* Over the comma behind a number and the white space around it, to where the next number starts;
 * NULL when there is no comma before `end`. */
static inline const char *skip_comma(const char *p, const char *end)
{
    if (*p != ',')
        p = skip_space(p, end);
    if (p == end || *p != ',')
        return NULL;
    p++;
    return p < end && *p <= ' ' ? skip_space(p, end) : p;
}

/* Stops also where fewer than NUMBER_BYTES_MAX bytes are left before `end`. */
static size_t read_run(const char *p, const char *end, float *out, size_t cap, const char **stop)
{
    size_t n = 0;
    *stop = p;
    while (n < cap && end - p >= NUMBER_BYTES_MAX) {
        p = read_number(p, out + n);
        if (!p)
            break;
        *stop = p;
        n++;
        p = skip_comma(p, end);
        if (!p)
            break;
    }
    return n;
}

size_t float_run_read(const char *p, const char *end, float *out, size_t cap, const char **stop)
{
    size_t n = read_run(p, end, out, cap, stop);
    const char *next = n ? skip_comma(*stop, end) : p;
    if (n == cap || !next || end - next >= NUMBER_BYTES_MAX)
        return n;
    char copy[2 * NUMBER_BYTES_MAX] = {0};
    const char *copy_stop;
    memcpy(copy, next, (size_t)(end - next));
    size_t more = read_run(copy, copy + sizeof copy, out + n, cap - n, &copy_stop);
    if (more)
        *stop = next + (copy_stop - copy);
    return n + more;
}
