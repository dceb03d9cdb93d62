/* What the fuzz targets share. A target is one file, fuzz_<name>.c, with LLVMFuzzerTestOneInput; it
 * is linked with libFuzzer by `make fuzz`, and with replay.c into a unit test that goes through
 * tests/fuzz/corpus/<name>, where inputs that once failed stay.
 *
 * Files carry checksums, which a fuzzer cannot guess. So the targets of file formats take the
 * contents as pieces and put the file together themselves, checksums and places right:
 *
 *   piece = u8 operation, u16 length, bytes
 */
#ifndef LOADSTONE_TESTS_FUZZ_H
#define LOADSTONE_TESTS_FUZZ_H

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "store/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { FUZZ_DIM = 4 };

static const uint8_t FUZZ_ID[16] = "fuzzed-files-id";

struct fuzz_piece {
    uint8_t op;
    const uint8_t *data;
    size_t len;
};

/* The next piece; the last one may be cut short. */
static inline bool next_piece(struct cursor *c, struct fuzz_piece *p)
{
    if (cursor_left(c) < 3)
        return false;
    p->op = cursor_u8(c);
    p->len = cursor_u16(c);
    if (p->len > cursor_left(c))
        p->len = cursor_left(c);
    p->data = cursor_take(c, p->len);
    return true;
}

static inline void put_piece(struct buf *out, uint8_t op, const void *data, size_t n)
{
    ASSERT(n <= UINT16_MAX);
    buf_put_u8(out, op);
    buf_put_u16(out, (uint16_t)n);
    buf_put(out, data, n);
}

/* A feature of every type. */
static inline struct schema *fuzz_schema(enum key_type key)
{
    struct schema *s;
    ASSERT(schema_new(key, FUZZ_DIM, DIST_COSINE, &s, NULL) == ERR_OK);
    for (int t = 0; t < FEATURE_TYPE_COUNT; t++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", t);
        ASSERT(schema_add_feature(s, name, (enum feature_type)t, NULL) == ERR_OK);
    }
    ASSERT(schema_seal(s, NULL) == ERR_OK);
    return s;
}

static inline void fuzz_quiet(void)
{
    log_set_level(LOG_ERROR + 1);
}

/* Reads every byte, so that a sanitizer sees what cannot be read. */
static inline void fuzz_touch(const void *data, size_t n)
{
    uint8_t sum = 0;
    for (size_t i = 0; data && i < n; i++)
        sum ^= ((const uint8_t *)data)[i];
    __asm__ volatile("" : : "r"(sum));
}

/* A file without a name; `path` opens it. */
static inline int fuzz_file(char path[32])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    ASSERT(fd >= 0);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static inline void fuzz_write(int fd, const void *data, size_t n, uint64_t at)
{
    ASSERT(pwrite(fd, data, n, (off_t)at) == (ssize_t)n);
}

#endif
