/* What the index tests are made of: clustered random vectors, segments written by the store's own
 * writer or held in a tail, snapshots put together by hand. Every helper asserts. */
#ifndef TESTS_INDEX_RIG_H
#define TESTS_INDEX_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "index/ann_file.h"
#include "index/index.h"
#include "index/search.h"
#include "store/segment_writer.h"
#include "store/tail.h"
#include "unit/io/temp_dir.h"

/* splitmix64 (S. Vigna, prng.di.unimi.it): small, good enough, the same everywhere. */
static inline uint64_t rig_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* About normal, mean 0, variance 1. */
static inline float rig_normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)(rig_random(state) >> 40) / (float)(1 << 24);
    return sum - 6;
}

/* n x dim around `clusters` centres; the caller frees. */
static inline float *rig_vectors(size_t n, uint32_t dim, uint32_t clusters, uint64_t seed)
{
    uint64_t state = 4711;
    float *centres = malloc(clusters * dim * sizeof(float));
    float *v = malloc(n * dim * sizeof(float));
    assert_non_null(centres);
    assert_non_null(v);
    for (size_t i = 0; i < (size_t)clusters * dim; i++)
        centres[i] = rig_normal(&state);
    state = seed;
    for (size_t i = 0; i < n; i++) {
        const float *c = centres + rig_random(&state) % clusters * dim;
        for (uint32_t j = 0; j < dim; j++)
            v[i * dim + j] = c[j] + 0.5f * rig_normal(&state);
    }
    free(centres);
    return v;
}

struct rig {
    struct temp_dir dir;
    struct io *io;
    struct schema *schema;
};

static inline void rig_open(struct rig *r, enum key_type key, uint32_t dim, enum metric metric)
{
    assert_int_equal(temp_dir_new(&r->dir), 0);
    assert_int_equal(io_new(IO_POSIX, &r->io, NULL), ERR_OK);
    assert_int_equal(schema_new(key, dim, metric, &r->schema, NULL), ERR_OK);
    r->schema->index.kind = INDEX_HNSW;
    r->schema->index.m = 16;
    r->schema->index.ef_construction = 80;
    assert_int_equal(schema_seal(r->schema, NULL), ERR_OK);
}

static inline void rig_close(struct rig *r)
{
    schema_release(r->schema);
    io_free(r->io);
    temp_dir_remove(&r->dir);
}

static inline struct row rig_row(const struct rig *r, int64_t key, const float *v, char text[24])
{
    /* string keys are built so that their order is not that of the numbers */
    int n = snprintf(text, 24, "k%llu", (unsigned long long)key);
    return (struct row){
        .schema = r->schema, .int_key = key, .key = text, .key_len = (size_t)n, .vector = v};
}

static inline bool rig_missing(const uint8_t *missing, size_t i)
{
    return missing && missing[i];
}

/* Rows with keys first_key ..; missing[i] (may be NULL) leaves row i without a vector. */
static inline struct segment *rig_file(struct rig *r, uint64_t id, const float *v, size_t n,
                                       int64_t first_key, const uint8_t *missing)
{
    static const uint8_t collection[16];
    struct segment_writer *w;
    struct segment *s;
    struct err_ctx ctx;
    char name[32], text[24];
    struct seq_run run = {.version = 1};
    snprintf(name, sizeof(name), "%llu.seg", (unsigned long long)id);
    const char *path = temp_path(&r->dir, name);
    assert_int_equal(segment_writer_new(r->io, path, collection, id, r->schema, 0, &w, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        const float *at = rig_missing(missing, i) ? NULL : v + i * r->schema->dim;
        struct row row = rig_row(r, first_key + (int64_t)i, at, text);
        assert_int_equal(segment_writer_append(w, &row, NULL), ERR_OK);
    }
    assert_int_equal(segment_writer_finish(w, &run, 1, NULL), ERR_OK);
    segment_writer_free(w);
    err_clear(&ctx);
    enum err e = segment_open(path, NULL, &s, &ctx);
    if (e != ERR_OK)
        fail_msg("%s", ctx.detail);
    return s;
}

static inline struct segment *rig_tail(struct rig *r, uint64_t id, const float *v, size_t n,
                                       int64_t first_key, const uint8_t *missing)
{
    struct segment *s;
    char text[24];
    assert_int_equal(tail_new(id, r->schema, &s, NULL), ERR_OK);
    assert_int_equal(tail_reserve(s, (uint32_t)n, 1, n * 24, NULL), ERR_OK);
    for (size_t i = 0; i < n; i++) {
        const float *at = rig_missing(missing, i) ? NULL : v + i * r->schema->dim;
        struct row row = rig_row(r, first_key + (int64_t)i, at, text);
        tail_append(s, &row, 1, i);
    }
    return s;
}

/* A snapshot over the segments, which it takes over. */
static inline struct snapshot *rig_snapshot(struct rig *r, struct segment **segments, uint32_t n)
{
    struct snapshot *s = calloc(1, sizeof(*s) + n * sizeof(struct view));
    assert_non_null(s);
    atomic_init(&s->refs, 1);
    s->schema = schema_acquire(r->schema);
    s->version = 1;
    s->nviews = n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rows = segments[i]->tail ? tail_rows(segments[i]) : segments[i]->rows;
        s->views[i] = (struct view){.segment = segments[i], .rows = rows, .live = rows};
        s->rows += rows;
    }
    return s;
}

static inline void rig_kill(struct snapshot *s, uint32_t view, uint32_t row)
{
    struct view *v = &s->views[view];
    bool was;
    if (!v->dead)
        v->dead = mask_edit(NULL, v->rows);
    assert_non_null(v->dead);
    assert_true(mask_set(v->dead, row, &was));
    if (!was) {
        v->live--;
        s->rows--;
    }
}

/* Runs build-index in a child; returns its exit status, and its last "error" line in error. */
static inline int rig_build_with(int argc, char **argv, char *error, size_t cap)
{
    int fds[2], status;
    char text[65536];
    size_t n = 0;
    assert_int_equal(pipe(fds), 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        _exit(build_index_main(argc, argv));
    }
    close(fds[1]);
    for (ssize_t got;
         n < sizeof(text) - 1 && (got = read(fds[0], text + n, sizeof(text) - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    char *said = strstr(text, "error ");
    if (error)
        snprintf(error, cap, "%s", said ? said + 6 : "");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Builds the graph of a file segment beside it and returns its path (see temp_path). */
static inline const char *rig_build(struct rig *r, const struct segment *s)
{
    char name[32], error[512];
    snprintf(name, sizeof(name), "%llu.ann", (unsigned long long)s->id);
    const char *out = temp_path(&r->dir, name);
    char *argv[] = {"build-index", "--segment", s->path,     "--out", (char *)out,
                    "--kind",      "hnsw",      "--threads", "1"};
    int status = rig_build_with(9, argv, error, sizeof(error));
    if (status != 0)
        fail_msg("build-index: status %d, %s", status, error);
    return out;
}

static inline void rig_attach(struct segment *s, const char *path)
{
    struct ann_file *a;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (ann_file_open(path, &a, &ctx) != ERR_OK || ann_file_verify(a, path, &ctx) != ERR_OK)
        fail_msg("%s", ctx.detail);
    segment_set_ann(s, a, ann_file_close);
}

static inline int64_t rig_key(const struct snapshot *s, struct row_ref ref)
{
    const struct segment *seg = s->views[ref.view].segment;
    size_t n;
    if (s->schema->key == KEY_INT64)
        return segment_key_int(seg, ref.row);
    char digits[24] = "";
    const char *text = segment_key_str(seg, ref.row, &n); /* not terminated */
    assert_in_range(n, 2, sizeof(digits));
    memcpy(digits, text + 1, n - 1);
    return (int64_t)strtoull(digits, NULL, 10);
}

#endif
