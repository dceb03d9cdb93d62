/* Staging: batches stream into segment files that belong to no version yet.
 *
 *   stage_new -> stage_add ... -> stage_finish: a list of struct staged, complete and synced files
 *
 * A stage knows nothing of commits: its rows are numbered from 0, and what its files lack to become
 * part of a version (place in the load, equal keys in other parts, rows completed from an outdated
 * row) is found at commit (load.h). Memory does not grow with the rows, but for a note of each row
 * that leaves cells absent.
 *
 * Threads: one at a time a stage; stages of one load run in parallel. Files are made inside
 * collection_enter_dir. */
#ifndef LOADSTONE_STORE_STAGE_H
#define LOADSTONE_STORE_STAGE_H

#include "store/load.h"
#include "store/row.h"

/* A row whose absent cells were completed, and the row that gave them. */
struct partial {
    uint32_t row; /* in the staged segment */
    uint32_t pad;
    uint64_t version, ordinal; /* seq of the row it was completed from; version 0: none was there */
};

/* One finished file. */
struct staged {
    uint64_t id;
    char *path;             /* where the file stands */
    uint64_t first_ordinal; /* of row 0, in the part */
    uint32_t rows;
    bool taken;           /* the file belongs to a version (or may): it is not ours to unlink */
    struct buf partials;  /* struct partial, by row */
    struct buf present;   /* per partial: present_bytes(schema) bits of the cells the body gave */
    struct digest digest; /* sum over all rows */
    uint64_t vectors;     /* rows with a vector */
    struct segment *segment; /* open; its schema is the one that the rows came under */
};
static inline size_t present_bytes(const struct schema *s)
{
    return (s->nfeatures + 1 + 7) / 8; /* the last bit is the vector */
}

/* Bits of the cells that row i gives; created_time counts as given (see row_from_batch). */
void batch_present(const struct batch *b, size_t i, uint8_t *present);

struct stage_options {
    enum load_mode mode; /* upsert completes absent cells; in other modes they are null */
    bool duplicates_last;
    uint64_t size_hint; /* bytes of vectors to come, 0 = unknown; only for allocation */
    const char *dir;    /* where the files go; NULL: the collection's staging folder */
};

struct stage;

/* The schema is referenced. */
WARN_UNUSED enum err stage_new(struct collection *c, struct schema *schema,
                               const struct stage_options *opts, struct stage **out,
                               struct err_ctx *ctx);
/* Validates and writes; 422 names row and field. After an error the stage can only be freed. */
WARN_UNUSED enum err stage_add(struct stage *st, const struct batch *b, struct err_ctx *ctx);
uint64_t stage_rows(const struct stage *st);
/* Completes the files; the list is the caller's, by staged_list_free. Equal keys in one file are
 * refused here (ERR_UNPROCESSABLE), those across files at commit. */
WARN_UNUSED enum err stage_finish(struct stage *st, struct staged **out, size_t *n,
                                  struct err_ctx *ctx);
/* Files that were not handed out are unlinked. NULL is allowed. */
void stage_free(struct stage *st);

/* Frees the list; with `unlink` the files that are not taken go too. NULL is allowed. */
void staged_list_free(struct collection *c, struct staged *list, size_t n, bool unlink);

/* A list in bytes, paths left out, and back: the files are opened at `dir`/<id>.seg. ERR_CORRUPT
 * when the bytes or a file are not what they were. */
void staged_encode(const struct staged *list, size_t n, struct buf *out);
WARN_UNUSED enum err staged_decode(struct collection *c, const char *dir, struct cursor *in,
                                   struct staged **out, size_t *n, struct err_ctx *ctx);

#endif
