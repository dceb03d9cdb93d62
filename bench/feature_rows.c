/* Rows of features for bench/fetch.py, the same for both servers: eight features of mixed width,
 * their values drawn from the key.
 *
 *   feature_rows ndjson|ndjson-int|resp ROWS
 *
 * Writes keys 0 .. ROWS - 1 to standard output: NDJSON with string or int64 keys, or Redis's
 * protocol (HSET) for redis-cli --pipe. Numbers are the shortest decimals that read back to the
 * same value, as both a client of Redis and the daemon write them.
 *
 * Threads: one. Failure: status 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/number.h"
#include "load_gen.h"

enum { FIELDS = 8, ROW_BYTES_MAX = 1024 };

struct value {
    char text[NUMBER_TEXT_MAX];
    size_t len;
};

static float unit(uint64_t *rng)
{
    return (float)(draw(rng) >> 40) * 0x1p-24f;
}

/* int32, int64, float32, float32, float64, float64, bool, int32 */
static void make_values(uint32_t key, struct value v[FIELDS])
{
    uint64_t rng = key;
    v[0].len = number_print_int64((int64_t)(draw(&rng) % 100), v[0].text);
    v[1].len = number_print_int64((int64_t)(draw(&rng) >> 24), v[1].text);
    v[2].len = number_print_float(unit(&rng), v[2].text);
    v[3].len = number_print_float(100 * unit(&rng), v[3].text);
    v[4].len = number_print_double((double)(draw(&rng) >> 11) * 0x1p-53, v[4].text);
    v[5].len = number_print_double((double)(draw(&rng) % 1000000) / 100, v[5].text);
    v[6].len = (size_t)sprintf(v[6].text, "%s", draw(&rng) & 1 ? "true" : "false");
    v[7].len = number_print_int64((int64_t)(draw(&rng) >> 33), v[7].text);
}

static size_t put_ndjson(uint32_t key, bool int_key, char *out)
{
    struct value v[FIELDS];
    make_values(key, v);
    int n = sprintf(out, int_key ? "{\"key\":%u" : "{\"key\":\"user:%u\"", key);
    for (int i = 0; i < FIELDS; i++)
        n += sprintf(out + n, ",\"f%d\":%.*s", i, (int)v[i].len, v[i].text);
    return (size_t)n + (size_t)sprintf(out + n, "}\n");
}

static size_t put_resp(uint32_t key, char *out)
{
    struct value v[FIELDS];
    char name[16];
    make_values(key, v);
    int len = sprintf(name, "user:%u", key);
    int n = sprintf(out, "*%d\r\n$4\r\nHSET\r\n$%d\r\n%s\r\n", 2 + 2 * FIELDS, len, name);
    for (int i = 0; i < FIELDS; i++)
        n += sprintf(out + n, "$2\r\nf%d\r\n$%zu\r\n%.*s\r\n", i, v[i].len, (int)v[i].len,
                     v[i].text);
    return (size_t)n;
}

int main(int argc, char **argv)
{
    static char buffer[1 << 20];
    if (argc != 3) {
        fputs("usage: feature_rows ndjson|ndjson-int|resp ROWS\n", stderr);
        return 2;
    }
    uint32_t rows = (uint32_t)strtoul(argv[2], NULL, 10);
    bool resp = strcmp(argv[1], "resp") == 0, ints = strcmp(argv[1], "ndjson-int") == 0;
    size_t n = 0;
    for (uint32_t key = 0; key < rows; key++) {
        n += resp ? put_resp(key, buffer + n) : put_ndjson(key, ints, buffer + n);
        if (n < sizeof buffer - ROW_BYTES_MAX && key + 1 < rows)
            continue;
        if (fwrite(buffer, 1, n, stdout) != n)
            return 1;
        n = 0;
    }
    return fflush(stdout) ? 1 : 0;
}
