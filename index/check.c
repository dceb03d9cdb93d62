/* The check of a data directory: the store's part is store/check.c; here the index files of its
 * segments, and what is printed.
 *
 *   damage  books: data/books/segments/0000000000000001.seg: offset 131072: ...
 *   note    books: data/books/log/0000000000000002.log: offset 8192: ...
 *   sound   books: version 7, 1000 rows, 3 segments, 1234567 bytes
 *
 * A damaged index file is damage too, though no data is lost: the next start builds it anew.
 * Threads: one. Failure: exit status 2 and a sentence on standard error. */
#include "index/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "index/ann_file.h"
#include "store/check.h"

enum { EXIT_SOUND = 0, EXIT_DAMAGED = 1, EXIT_UNREADABLE = 2 };
enum { CODE_SAMPLE = 1000 };

static const char usage[] =
    "usage: loadstoned check DIR\n"
    "\n"
    "Looks at every checksum and invariant of the data directory DIR and changes nothing. A line "
    "a\n"
    "finding names file and offset. \"note\" is no damage: the next start mends or removes it.\n"
    "Stop loadstoned first, or check a snapshot of the file system.\n"
    "Exit status: 0 sound, 1 damaged, 2 wrong usage or DIR cannot be read.\n";

static void found(void *arg, enum check_kind kind, const char *collection, const char *text)
{
    (void)arg;
    printf("%-7s %s%s%s\n", kind == CHECK_DAMAGE ? "damage" : "note", collection,
           *collection ? ": " : "", text);
}

static void done(void *arg, const struct check_collection *c)
{
    (void)arg;
    if (!c->readable)
        printf("damaged %s: it cannot be opened\n", c->name);
    else
        printf("%-7s %s: version %" PRIu64 ", %" PRIu64 " rows, %u segments, %" PRIu64 " bytes\n",
               c->sound ? "sound" : "damaged", c->name, c->version, c->rows, c->segments, c->bytes);
}

/* A search skips a link that leads nowhere; here it is damage. */
static enum err check_links(const struct ann_file *a, const char *path, struct err_ctx *ctx)
{
    const struct ann_shape *sh = &a->shape;
    const struct {
        const uint32_t *links;
        uint64_t n;
    } parts[] = {{a->links, (uint64_t)sh->nodes * 2 * sh->m},
                 {a->upper, (uint64_t)a->upper_lists * sh->m}};
    for (size_t p = 0; p < 2; p++) {
        const uint32_t *links = parts[p].links;
        for (uint64_t i = 0; links && i < parts[p].n; i++) {
            if (links[i] >= sh->nodes && links[i] != ANN_NONE)
                return err_set(ctx, ERR_CORRUPT, "%s: offset %zu: a link leads to node %u of %u",
                               path, (size_t)((const uint8_t *)&links[i] - a->map), links[i],
                               sh->nodes);
        }
    }
    return ERR_OK;
}

static enum err bad_code(const struct ann_file *a, const char *path, const uint8_t *code,
                         struct err_ctx *ctx)
{
    return err_set(ctx, ERR_CORRUPT, "%s: offset %zu: a code is not that of its vector", path,
                   (size_t)(code - a->map));
}

/* Every byte within its range, and one code in CODE_SAMPLE made again from its vector. */
static enum err check_codes(const struct ann_file *a, const char *path, const struct segment *s,
                            struct err_ctx *ctx)
{
    size_t stride = code_stride(a->shape.dim);
    float *vector = malloc(stride * sizeof(float));
    uint8_t *again = malloc(stride);
    enum err e = vector && again ? ERR_OK : err_no_memory(ctx, stride * sizeof(float));
    for (uint32_t i = 0; e == ERR_OK && a->codes && i < a->shape.nodes; i++) {
        const uint8_t *code = a->codes + i * stride;
        bool ok = true;
        for (size_t j = 0; j < stride; j++)
            ok = ok && code[j] <= (j < a->shape.dim ? CODE_TOP : 0);
        if (ok && i % CODE_SAMPLE == 0) {
            graph_vector(s, ann_row(a, i), vector);
            code_encode(&a->scale, vector, again);
            ok = memcmp(code, again, stride) == 0;
        }
        if (!ok)
            e = bad_code(a, path, code, ctx);
    }
    free(vector);
    free(again);
    return e;
}

/* An index file that is missing is built at the next start: nothing to say. */
static void check_index(void *arg, struct check *ck, const char *dir, const uint8_t *collection_id,
                        const struct segment *s)
{
    char path[4300];
    struct ann_file *a;
    struct err_ctx why;
    (void)arg;
    err_clear(&why);
    snprintf(path, sizeof path, "%s/index/%016" PRIx64 ".ann", dir, s->id);
    enum err e = ann_file_open(path, &a, &why);
    if (e == ERR_NOT_FOUND)
        return;
    if (e == ERR_OK) {
        e = ann_file_verify(a, path, &why);
        if (e == ERR_OK && collection_id)
            e = ann_file_check(a, collection_id, s, &why);
        if (e == ERR_OK)
            e = check_links(a, path, &why);
        if (e == ERR_OK && collection_id)
            e = check_codes(a, path, s, &why);
        ann_file_close(a);
    }
    if (e != ERR_OK)
        check_found(ck, CHECK_DAMAGE, "%s%s%s", strstr(why.detail, path) ? "" : path,
                    strstr(why.detail, path) ? "" : ": ", why.detail);
}

int check_main(int argc, char **argv)
{
    struct check_hooks hooks = {.found = found, .segment = check_index, .done = done};
    struct err_ctx why;
    bool damaged;
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage, stdout);
        return EXIT_SOUND;
    }
    if (argc != 2 || argv[1][0] == '-') {
        fputs(usage, stderr);
        return EXIT_UNREADABLE;
    }
    err_clear(&why);
    if (mapping_catch_faults(&why) != ERR_OK ||
        check_dir(argv[1], &hooks, &damaged, &why) != ERR_OK) {
        fflush(stdout);
        fprintf(stderr, "loadstoned: %s\n", why.detail);
        return EXIT_UNREADABLE;
    }
    return damaged ? EXIT_DAMAGED : EXIT_SOUND;
}
