/* CRC-32C (Castagnoli polynomial, reflected 0x82F63B78), as in RFC 3720 appendix B.4.
 *
 * Portable: eight table look-ups take eight bytes a step (Kounavis and Berry, "A Systematic
 * Approach to Building High Performance Software-based CRC Generators", ISCC 2005).
 *
 * Hardware: the crc32 instruction takes eight bytes, three cycles later the result is there and one
 * can start every cycle. So three neighbouring blocks are summed at once, and joined:
 *
 *   [ block a ][ block b ][ block c ]    crc(abc) = shift(shift(a) ^ b) ^ c
 *
 * where shift() feeds a block's length of zero bytes. That is linear over GF(2): four look-ups, one
 * for each byte of the register.
 *
 * Threads: tables are filled before main and only read afterwards. Nothing fails. */
#include "base/crc32c.h"

#include <endian.h>
#include <string.h>

#include "base/bytes.h"

enum { LONG_BLOCK = 8192, SHORT_BLOCK = 256 };

static const uint32_t POLYNOMIAL = 0x82f63b78;

static uint32_t slices[8][256];
static uint32_t shift_long[4][256], shift_short[4][256];
static bool have_hardware;

/* ---- tables ---- */

static void fill_slices(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t r = i;
        for (int bit = 0; bit < 8; bit++)
            r = (r >> 1) ^ (r & 1 ? POLYNOMIAL : 0);
        slices[0][i] = r;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (int s = 1; s < 8; s++)
            slices[s][i] = slices[0][slices[s - 1][i] & 0xff] ^ (slices[s - 1][i] >> 8);
    }
}

/* A linear map of the 32-bit register: column i is the image of bit i. */
struct map {
    uint32_t column[32];
};

static uint32_t map_apply(const struct map *m, uint32_t v)
{
    uint32_t out = 0;
    for (int bit = 0; v; bit++, v >>= 1) {
        if (v & 1)
            out ^= m->column[bit];
    }
    return out;
}

/* The map that feeds `n` zero bytes, n a power of two: one byte's map, squared log2(n) times. */
static struct map map_zeros(size_t n)
{
    struct map m;
    for (int bit = 0; bit < 32; bit++) {
        uint32_t r = (uint32_t)1 << bit;
        m.column[bit] = slices[0][r & 0xff] ^ (r >> 8);
    }
    for (; n > 1; n /= 2) {
        struct map twice;
        for (int bit = 0; bit < 32; bit++)
            twice.column[bit] = map_apply(&m, m.column[bit]);
        m = twice;
    }
    return m;
}

static void fill_shift(uint32_t table[4][256], size_t block)
{
    struct map m = map_zeros(block);
    for (uint32_t byte = 0; byte < 4; byte++) {
        for (uint32_t i = 0; i < 256; i++)
            table[byte][i] = map_apply(&m, i << (8 * byte));
    }
}

__attribute__((constructor)) static void crc32c_init(void)
{
    fill_slices();
    fill_shift(shift_long, LONG_BLOCK);
    fill_shift(shift_short, SHORT_BLOCK);
#ifdef __x86_64__
    __builtin_cpu_init();
    have_hardware = __builtin_cpu_supports("sse4.2");
#endif
}

/* ---- portable ---- */

static uint32_t step_portable(uint32_t r, uint64_t word)
{
    word ^= r;
    return slices[7][word & 0xff] ^ slices[6][(word >> 8) & 0xff] ^ slices[5][(word >> 16) & 0xff] ^
           slices[4][(word >> 24) & 0xff] ^ slices[3][(word >> 32) & 0xff] ^
           slices[2][(word >> 40) & 0xff] ^ slices[1][(word >> 48) & 0xff] ^ slices[0][word >> 56];
}

static uint64_t load_word(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return le64toh(word);
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t r = ~crc;
    for (; n >= 8; n -= 8, p += 8)
        r = step_portable(r, load_word(p));
    for (; n > 0; n--, p++)
        r = slices[0][(r ^ *p) & 0xff] ^ (r >> 8);
    return ~r;
}

/* ---- hardware ---- */

bool crc32c_hardware_available(void)
{
    return have_hardware;
}

#ifdef __x86_64__

static uint32_t shift(const uint32_t table[4][256], uint32_t r)
{
    return table[0][r & 0xff] ^ table[1][(r >> 8) & 0xff] ^ table[2][(r >> 16) & 0xff] ^
           table[3][r >> 24];
}

/* Sums as many groups of three blocks as fit, and moves *p and *n past them. */
__attribute__((target("sse4.2"))) static uint32_t
triples(uint32_t r, const uint8_t **p, size_t *n, size_t block, const uint32_t table[4][256])
{
    for (; *n >= 3 * block; *p += 3 * block, *n -= 3 * block) {
        const uint8_t *a = *p, *b = a + block, *c = b + block;
        uint64_t ra = r, rb = 0, rc = 0;
        for (size_t i = 0; i < block; i += 8) {
            ra = __builtin_ia32_crc32di(ra, load_word(a + i));
            rb = __builtin_ia32_crc32di(rb, load_word(b + i));
            rc = __builtin_ia32_crc32di(rc, load_word(c + i));
        }
        r = shift(table, (uint32_t)ra) ^ (uint32_t)rb;
        r = shift(table, r) ^ (uint32_t)rc;
    }
    return r;
}

__attribute__((target("sse4.2"))) uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t r = ~crc;
    r = triples(r, &p, &n, LONG_BLOCK, shift_long);
    r = triples(r, &p, &n, SHORT_BLOCK, shift_short);
    for (; n >= 8; n -= 8, p += 8)
        r = (uint32_t)__builtin_ia32_crc32di(r, load_word(p));
    for (; n > 0; n--, p++)
        r = __builtin_ia32_crc32qi(r, *p);
    return ~r;
}

#else

uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t n)
{
    return crc32c_portable(crc, data, n);
}

#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    return have_hardware ? crc32c_hardware(crc, data, n) : crc32c_portable(crc, data, n);
}
