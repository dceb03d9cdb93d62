/* Runs of JSON numbers into float32, many digits a step.
 *
 *   -  0  .  00123456 78  e-05
 *   |  |     |        |
 *   |  whole eight digits a step out of a 64-bit word, or 16 with SSE4.1
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
 * Words and blocks are read whole; what stands too near to the end of the text is read from a
 * padded copy.
 *
 * Threads: no state. Failure: none; it stops where somebody else must look. */
#include "api/float_run.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    WORD = 8,
    BLOCK = 16,
    WORDS_MAX = 3,         /* of digits in a row */
    NUMBER_BYTES_MAX = 64, /* reading one looks at fewer: "-0." and 40 zeros are 43 */
    POWER_MAX = 44,        /* 1e-28 with 17 digits */
};

static const double powers[POWER_MAX + 1] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14,
    1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27, 1e28, 1e29,
    1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43, 1e44};

static const uint64_t shifts[BLOCK + 1] = {1e0, 1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7, 1e8,
                                           1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16};

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

#if defined(__x86_64__)
#define TARGET_SSE __attribute__((target("sse4.1")))

/* The leading digits of the 16 bytes at p: how many, and their value. */
TARGET_SSE static inline unsigned read_block(const char *p, uint64_t *value)
{
    static const uint8_t moves[2 * BLOCK] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                             0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                             0,    1,    2,    3,    4,    5,    6,    7,
                                             8,    9,    10,   11,   12,   13,   14,   15};
    const __m128i tens = _mm_set1_epi16(10 | 1 << 8), hundreds = _mm_set1_epi32(100 | 1 << 16),
                  myriads = _mm_set1_epi32(10000 | 1 << 16);
    __m128i d = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8('0'));
    __m128i is_digit = _mm_cmpeq_epi8(_mm_min_epu8(d, _mm_set1_epi8(9)), d);
    unsigned n = (unsigned)__builtin_ctz(~(unsigned)_mm_movemask_epi8(is_digit));
    d = _mm_shuffle_epi8(d, _mm_loadu_si128((const __m128i *)(moves + n)));
    d = _mm_madd_epi16(_mm_maddubs_epi16(d, tens), hundreds);
    d = _mm_madd_epi16(_mm_packus_epi32(d, d), myriads);
    uint64_t halves = (uint64_t)_mm_cvtsi128_si64(d);
    *value = (halves & 0xffffffff) * shifts[WORD] + (halves >> 32);
    return n;
}

/* As read_digits does. */
TARGET_SSE static inline const char *read_digits_in_blocks(const char *p, uint64_t *w)
{
    uint64_t value;
    unsigned n = read_block(p, &value);
    if (!append(w, n, value))
        return NULL;
    /* not p + n there: the words need not wait for n */
    return n < BLOCK ? p + n : read_digits(p + BLOCK, w);
}
#endif

/* "e-05": adds it to *q; returns its end. NULL unless it has one or two digits. */
static const char *read_exponent(const char *p, int *q)
{
    bool negative = *++p == '-';
    p += negative || *p == '+';
    int e = 0, n = 0;
    for (; n < 3 && p[n] >= '0' && p[n] <= '9'; n++)
        e = e * 10 + (p[n] - '0');
    if (n == 0 || n > 2)
        return NULL;
    *q += negative ? -e : e;
    return p + n;
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

typedef const char *(*digit_reader)(const char *p, uint64_t *w);
typedef size_t (*run_reader)(const char *p, const char *end, float *out, size_t cap,
                             const char **stop);

/* One number; returns its end, NULL when it is left alone. NUMBER_BYTES_MAX bytes can be read. */
static inline __attribute__((always_inline)) const char *read_number(const char *p, float *out,
                                                                     digit_reader read)
{
    uint64_t w = 0;
    int q = 0;
    bool negative = *p == '-';
    const char *digits = p += negative;
    p = *p == '0' ? p + 1 : read(p, &w);
    if (!p || p == digits)
        return NULL;
    if (*p == '.') {
        const char *fraction = p + 1;
        p = read(fraction, &w);
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
static inline __attribute__((always_inline)) size_t read_run(const char *p, const char *end,
                                                             float *out, size_t cap,
                                                             const char **stop, digit_reader read)
{
    size_t n = 0;
    *stop = p;
    while (n < cap && end - p >= NUMBER_BYTES_MAX) {
        p = read_number(p, out + n, read);
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

static size_t run_words(const char *p, const char *end, float *out, size_t cap, const char **stop)
{
    return read_run(p, end, out, cap, stop, read_digits);
}

/* A run and, when it stops for the nearness of `end`, the numbers after that. */
static size_t run_to_end(run_reader run, const char *p, const char *end, float *out, size_t cap,
                         const char **stop)
{
    size_t n = run(p, end, out, cap, stop);
    const char *next = n ? skip_comma(*stop, end) : p;
    if (n == cap || !next || end - next >= NUMBER_BYTES_MAX)
        return n;
    char copy[2 * NUMBER_BYTES_MAX] = {0};
    const char *copy_stop;
    memcpy(copy, next, (size_t)(end - next));
    size_t more = run(copy, copy + sizeof copy, out + n, cap - n, &copy_stop);
    if (more)
        *stop = next + (copy_stop - copy);
    return n + more;
}

size_t float_run_read_words(const char *p, const char *end, float *out, size_t cap,
                            const char **stop)
{
    return run_to_end(run_words, p, end, out, cap, stop);
}

#if defined(__x86_64__)
TARGET_SSE static size_t run_blocks(const char *p, const char *end, float *out, size_t cap,
                                    const char **stop)
{
    return read_run(p, end, out, cap, stop, read_digits_in_blocks);
}

size_t float_run_read(const char *p, const char *end, float *out, size_t cap, const char **stop)
{
    run_reader run = __builtin_cpu_supports("sse4.1") ? run_blocks : run_words;
    return run_to_end(run, p, end, out, cap, stop);
}
#else
size_t float_run_read(const char *p, const char *end, float *out, size_t cap, const char **stop)
{
    return float_run_read_words(p, end, out, cap, stop);
}
#endif
