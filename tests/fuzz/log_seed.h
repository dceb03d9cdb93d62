/* The segment that the logs of fuzz_log.c may refer to, and its rows. */
#ifndef LOADSTONE_TESTS_FUZZ_LOG_SEED_H
#define LOADSTONE_TESTS_FUZZ_LOG_SEED_H

#include "fuzz.h"
#include "store/segment_writer.h"

enum { SEGMENT_ID = 2, SEGMENT_ROWS = 70 };

/* Row i: key "k<i>", a vector but for each seventh row, every feature but for each third row. */
struct seed_row {
    struct row_builder rb;
    float vector[FUZZ_DIM];
    char key[16];
    int64_t ints[2];
    float floats[3];
};

static inline void seed_row(struct seed_row *r, const struct schema *s, int i)
{
    ASSERT(row_builder_init(&r->rb, s, NULL) == ERR_OK);
    struct row *row = &r->rb.row;
    snprintf(r->key, sizeof r->key, "k%d", i);
    row->key = r->key;
    row->key_len = strlen(r->key);
    row->int_key = i * 3;
    for (int j = 0; j < FUZZ_DIM; j++)
        r->vector[j] = (float)(i + j + 1);
    row->vector = i % 7 == 3 ? NULL : r->vector;
    r->ints[0] = i;
    r->ints[1] = -i;
    for (int j = 0; j < 3; j++)
        r->floats[j] = (float)i / 2;
    for (uint32_t f = 0; f < s->nfeatures; f++) {
        const struct feature *ft = &s->features[f];
        bool null = (i + (int)f) % 3 == 0;
        if (null)
            r->rb.strip[f >> 3] |= (uint8_t)(1u << (f & 7));
        else if (ft->width)
            memcpy(r->rb.strip + ft->strip_offset,
                   ft->type == FEATURE_BOOL ? (void *)"\1" : (void *)r->ints, ft->width);
        if (ft->width)
            continue;
        struct cell *c = &r->rb.var[ft->var_index];
        *c = (struct cell){"", 0};
        if (null)
            continue;
        if (ft->type == FEATURE_STRING || ft->type == FEATURE_BYTES)
            *c = (struct cell){r->key, strlen(r->key)};
        else if (ft->type == FEATURE_FLOAT32_LIST)
            *c = (struct cell){r->floats, sizeof r->floats};
        else if (ft->type == FEATURE_INT64_LIST)
            *c = (struct cell){r->ints, sizeof r->ints};
        else if (ft->type == FEATURE_STRING_LIST)
            *c = (struct cell){"\2\0\0\0ab\0\0\0\0", 10};
    }
}

/* Row numbers first .. first + rows - 1 become rows 0 ... of the file. */
static inline void write_seed_rows(const char *path, enum key_type key, int first, int rows)
{
    struct io *io;
    struct segment_writer *w;
    struct schema *s = fuzz_schema(key);
    struct seq_run run = {0};
    ASSERT(io_new(IO_POSIX, &io, NULL) == ERR_OK);
    ASSERT(segment_writer_new(io, path, FUZZ_ID, SEGMENT_ID, s, 0, &w, NULL) == ERR_OK);
    for (int i = first; i < first + rows; i++) {
        struct seed_row r;
        seed_row(&r, s, i % 60); /* keys come again from row 60 on */
        ASSERT(segment_writer_append(w, &r.rb.row, NULL) == ERR_OK);
        row_builder_deinit(&r.rb);
    }
    ASSERT(segment_writer_finish(w, &run, 1, NULL) == ERR_OK);
    segment_writer_free(w);
    schema_release(s);
    io_free(io);
}

static inline void write_seed_segment(const char *path)
{
    write_seed_rows(path, KEY_STRING, 0, SEGMENT_ROWS);
}

#endif
