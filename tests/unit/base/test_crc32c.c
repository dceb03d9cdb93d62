/* CRC-32C: published vectors, and both ways of computing it against a bit-by-bit one. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

enum { DATA_BYTES = 70000 };

static uint8_t data[DATA_BYTES];

static int fill_data(void **state)
{
    (void)state;
    uint32_t x = 12345;
    for (size_t i = 0; i < sizeof(data); i++) {
        x = x * 1664525 + 1013904223;
        data[i] = (uint8_t)(x >> 24);
    }
    return 0;
}

static uint32_t bit_by_bit(uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

/* RFC 3720, B.4; and the check value of the CRC catalogue. */
static void test_published_vectors(void **state)
{
    (void)state;
    uint8_t block[32];
    uint32_t (*const ways[])(uint32_t, const void *, size_t) = {crc32c, crc32c_portable,
                                                                crc32c_hardware};
    for (size_t w = 0; w < 3; w++) {
        if (ways[w] == crc32c_hardware && !crc32c_hardware_available())
            continue;
        assert_int_equal(ways[w](0, "", 0), 0);
        assert_int_equal(ways[w](0, "123456789", 9), 0xe3069283);
        memset(block, 0x00, sizeof(block));
        assert_int_equal(ways[w](0, block, sizeof(block)), 0x8a9136aa);
        memset(block, 0xff, sizeof(block));
        assert_int_equal(ways[w](0, block, sizeof(block)), 0x62a8ab43);
        for (int i = 0; i < 32; i++)
            block[i] = (uint8_t)i;
        assert_int_equal(ways[w](0, block, sizeof(block)), 0x46dd794e);
        for (int i = 0; i < 32; i++)
            block[i] = (uint8_t)(31 - i);
        assert_int_equal(ways[w](0, block, sizeof(block)), 0x113fdb5c);
    }
}

/* Lengths on both sides of every block size of the interleaved way, at every alignment. */
static void test_every_way_agrees_at_every_length(void **state)
{
    (void)state;
    static const size_t EDGES[] = {0,       8,           64,          256,   768,
                                   768 + 8, 3 * 768,     24576 - 768, 24576, 24576 + 768,
                                   49152,   49152 + 776, 65536};
    for (size_t e = 0; e < sizeof(EDGES) / sizeof(EDGES[0]); e++) {
        for (size_t n = EDGES[e] > 9 ? EDGES[e] - 9 : 0; n < EDGES[e] + 9; n++) {
            const uint8_t *p = data + n % 16;
            uint32_t start = (uint32_t)n * 2654435761u, want = bit_by_bit(start, p, n);
            assert_int_equal(crc32c_portable(start, p, n), want);
            assert_int_equal(crc32c(start, p, n), want);
            if (crc32c_hardware_available())
                assert_int_equal(crc32c_hardware(start, p, n), want);
        }
    }
}

static void test_a_sum_continues_over_any_split(void **state)
{
    (void)state;
    uint32_t whole = crc32c(0, data, sizeof(data));
    for (size_t cut = 0; cut <= sizeof(data); cut += 997) {
        uint32_t first = crc32c(0, data, cut);
        assert_int_equal(crc32c(first, data + cut, sizeof(data) - cut), whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_every_way_agrees_at_every_length),
        cmocka_unit_test(test_a_sum_continues_over_any_split),
    };
    return cmocka_run_group_tests(tests, fill_data, NULL);
}
