/* How fixed-width features should lie: a strip a row, or a column a feature.
 *
 *   strips    [ nulls f1 f4 f5 f0 f2 f3 f7 f6 ] x rows            one or two cache lines a row
 *   columns   [ f0 ] x rows, [ f1 ] x rows, ..., [ nulls ] x rows   one line a feature and row
 *
 * The features of bench/fetch.py, all in memory. Batches of random rows are gathered into columns,
 * as an octet-stream answer does, prefetched a batch ahead in both layouts; strips and columns are
 * measured in turns, and the medians printed: nanoseconds a key.
 *
 *   strip_layout ROWS
 *
 * Threads: one. Failure: a sentence on standard error, status 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "load_gen.h"

enum { FIELDS = 8, BATCH = 100, BATCHES = 2000, TURNS = 15, STRIP_BYTES = 56, NULLS_AT = 0 };

static const unsigned width[FIELDS] = {4, 8, 4, 4, 8, 8, 1, 4};
static const unsigned strip_at[FIELDS] = {32, 8, 36, 40, 16, 24, 48, 44};

struct data {
    uint32_t rows;
    uint8_t *strips;
    uint8_t *columns[FIELDS];
    uint8_t *nulls; /* of the columns: a byte a row */
    uint64_t sum;   /* keeps the compiler from leaving out the reading */
};

static void *allocate(size_t n)
{
    void *p = calloc(n, 1);
    if (!p) {
        fputs("strip_layout: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

static void fill(struct data *d)
{
    uint64_t rng = 1;
    d->strips = allocate((size_t)d->rows * STRIP_BYTES);
    d->nulls = allocate(d->rows);
    for (unsigned f = 0; f < FIELDS; f++)
        d->columns[f] = allocate((size_t)d->rows * width[f]);
    for (size_t row = 0; row < d->rows; row++) {
        d->strips[row * STRIP_BYTES + NULLS_AT] = d->nulls[row] = (uint8_t)(1u << (row & 15));
        for (unsigned f = 0; f < FIELDS; f++) {
            uint64_t v = draw(&rng);
            memcpy(d->columns[f] + row * width[f], &v, width[f]);
            memcpy(d->strips + row * STRIP_BYTES + strip_at[f], &v, width[f]);
        }
    }
}

static inline void copy(uint8_t *to, const uint8_t *from, unsigned n)
{
    if (n == 8)
        memcpy(to, from, 8);
    else if (n == 4)
        memcpy(to, from, 4);
    else
        *to = *from;
}

static void gather_strips(struct data *d, const uint32_t *rows, unsigned fields)
{
    static uint8_t out[BATCH * 8], states[BATCH];
    for (unsigned i = 0; i < BATCH; i++) {
        __builtin_prefetch(d->strips + (size_t)rows[i] * STRIP_BYTES);
        __builtin_prefetch(d->strips + (size_t)rows[i] * STRIP_BYTES + STRIP_BYTES - 1);
    }
    for (unsigned f = 0; f < fields; f++) {
        for (unsigned i = 0; i < BATCH; i++) {
            const uint8_t *strip = d->strips + (size_t)rows[i] * STRIP_BYTES;
            states[i] = strip[NULLS_AT] >> f & 1;
            copy(out + (size_t)i * width[f], strip + strip_at[f], width[f]);
        }
        d->sum += out[7] + states[9];
    }
}

static void gather_columns(struct data *d, const uint32_t *rows, unsigned fields)
{
    static uint8_t out[BATCH * 8], states[BATCH];
    for (unsigned i = 0; i < BATCH; i++) {
        __builtin_prefetch(d->nulls + rows[i]);
        for (unsigned f = 0; f < fields; f++)
            __builtin_prefetch(d->columns[f] + (size_t)rows[i] * width[f]);
    }
    for (unsigned f = 0; f < fields; f++) {
        for (unsigned i = 0; i < BATCH; i++) {
            states[i] = d->nulls[rows[i]] >> f & 1;
            copy(out + (size_t)i * width[f], d->columns[f] + (size_t)rows[i] * width[f], width[f]);
        }
        d->sum += out[7] + states[9];
    }
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double turn_ns(struct data *d, void (*gather)(struct data *, const uint32_t *, unsigned),
                      unsigned fields, uint64_t *rng)
{
    static uint32_t rows[BATCHES][BATCH];
    for (unsigned b = 0; b < BATCHES; b++)
        for (unsigned i = 0; i < BATCH; i++)
            rows[b][i] = draw_below(rng, d->rows);
    double from = now_ns();
    for (unsigned b = 0; b < BATCHES; b++)
        gather(d, rows[b], fields);
    return (now_ns() - from) / (BATCHES * BATCH);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const unsigned asked[] = {1, 2, 4, 8};
    struct data d = {.rows = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0};
    uint64_t rng = 7;
    if (d.rows == 0) {
        fputs("usage: strip_layout ROWS\n", stderr);
        return 2;
    }
    fill(&d);
    printf("%u rows x %d features, batches of %d keys; ns a key\n", d.rows, FIELDS, BATCH);
    for (size_t a = 0; a < sizeof asked / sizeof asked[0]; a++) {
        double strips[TURNS], columns[TURNS];
        for (int t = 0; t < TURNS; t++) {
            strips[t] = turn_ns(&d, gather_strips, asked[a], &rng);
            columns[t] = turn_ns(&d, gather_columns, asked[a], &rng);
        }
        qsort(strips, TURNS, sizeof *strips, by_value);
        qsort(columns, TURNS, sizeof *columns, by_value);
        printf("  %u of %d features: strips %6.1f, columns %6.1f\n", asked[a], FIELDS,
               strips[TURNS / 2], columns[TURNS / 2]);
    }
    return d.sum == 1; /* it is not */
}
