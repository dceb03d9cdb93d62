/* How long a vector of JSON takes to read in process: what a search pays for its query's text.
 *
 *   json_vector FILE DIM     FILE: rows of NDJSON as json_load makes them; prints "us BYTES"
 *
 * Reads the vectors of the first rows again and again through the daemon's own reader; a pass takes
 * a few milliseconds, and the fastest counts: the others were interrupted. "us" is per vector,
 * BYTES the length of one as text.
 *
 * Threads: one. Failure: a sentence on standard error, status 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/json_reader.h"

enum { TEXT_BYTES_MAX = 2 << 20, PASSES = 200 };

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "json_vector: %s\n", what);
    exit(1);
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static size_t read_file(const char *path, char *text)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        die("cannot open the file");
    size_t n = fread(text, 1, TEXT_BYTES_MAX, file);
    fclose(file);
    return n;
}

/* Reads the first array of every whole line; returns how many there were and adds up their text. */
static size_t read_vectors(const char *text, size_t n, float *out, size_t dim, size_t *bytes)
{
    struct json_reader r;
    struct err_ctx err;
    size_t rows = 0, got;
    err_clear(&err);
    json_init(&r, text, 0, 0);
    *bytes = 0;
    for (const char *line = text, *end; (end = memchr(line, '\n', n - (size_t)(line - text)));
         line = end + 1) {
        const char *array = memchr(line, '[', (size_t)(end - line));
        if (!array)
            die("a line without an array");
        json_reinit(&r, array, (size_t)(end - array), 0);
        if (json_floats(&r, out, dim, &got, &err) != ERR_OK || got != dim)
            die(err.detail[0] ? err.detail : "a vector of another dimension");
        *bytes += (size_t)(r.p - array);
        rows++;
    }
    json_deinit(&r);
    return rows;
}

int main(int argc, char **argv)
{
    size_t dim = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    if (dim == 0 || dim > 65536)
        die("usage: json_vector FILE DIM");
    char *text = malloc(TEXT_BYTES_MAX);
    float *out = malloc(dim * sizeof *out);
    if (!text || !out)
        die("out of memory");
    size_t n = read_file(argv[1], text), bytes = 0;
    double best = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        double started = now_us();
        size_t rows = read_vectors(text, n, out, dim, &bytes);
        if (rows == 0)
            die("no rows in the file");
        double each = (now_us() - started) / (double)rows;
        best = pass == 0 || each < best ? each : best;
        bytes /= rows;
    }
    printf("%.2f %zu\n", best, bytes);
    free(text);
    free(out);
}
