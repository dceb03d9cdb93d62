/* What the parts of a search by inverted lists share: search_ivf.c (which lists, and their rows),
 * search_ivf_codes.c (lists of codes, and the rows that are measured again), search_ivf_disk.c
 * (both read from files). */
#ifndef LOADSTONE_INDEX_SEARCH_IVF_INTERNAL_H
#define LOADSTONE_INDEX_SEARCH_IVF_INTERNAL_H

#include "index/search_internal.h"

/* A list that waits to be read. */
struct list_node {
    float distance;
    uint32_t list;
};

/* A row that may be among the nearest, by its code. */
struct code_row {
    float distance;
    uint32_t row;
};

struct probe {
    const struct snapshot *snapshot;
    const struct view *view;
    const struct allowed *allowed;
    uint32_t view_index;
    const struct ann_file *a;
    struct collect *query;
    struct search_scratch *scratch;
    struct list_node *heap; /* lists, the nearest first */
    uint32_t nheap;
    uint32_t *rows; /* of a batch */
    const float **vectors;
    uint32_t nrows;
    uint64_t shown;       /* allowed rows seen, those of the batch aside */
    uint32_t read, empty; /* lists; with a filter, those with a match and those without */
    double asks;          /* how many more lists one without a match asks for */
    /* With codes: */
    const uint8_t *query_code; /* NULL: the lists are read as vectors */
    size_t stride;
    bool all_allowed;      /* every row of the view may be a hit */
    struct code_row *best; /* max-heap of the nearest by code */
    uint32_t nbest, best_max;
};

enum { PROBE_ROWS = 1024 }; /* of a batch */

/* Whether a row of the view may be a hit. */
static inline bool probe_allowed(const struct probe *p, uint32_t row)
{
    const struct row_ref *left_out = &p->query->exclude;
    return !(row == left_out->row && p->view_index == left_out->view) &&
           allowed_row(p->allowed, row);
}

/* Puts a row into the batch, which is shown when it is full. */
void probe_show(struct probe *p, uint32_t row, const float *vector);
void probe_flush(struct probe *p);

/* Lets the lists be read as codes where the file has them and they say something of this query;
 * `enough` allowed rows are wanted at least. False: no memory. */
WARN_UNUSED bool ivf_codes_use(struct probe *p, uint64_t least);
/* Measures the codes of a list, which lie at `codes`. */
void ivf_codes_read(struct probe *p, uint32_t list, const uint8_t *codes);
/* Shows the nearest by code by their vectors. */
void ivf_codes_finish(struct probe *p);

/* The same two with codes and vectors from the files (search_ivf_disk.c). `was_read` hears of each
 * list how many rows were shown before it. */
WARN_UNUSED enum err ivf_disk_read(struct probe *p, const uint32_t *lists, uint32_t n,
                                   void (*was_read)(struct probe *p, uint64_t before),
                                   struct err_ctx *ctx);
WARN_UNUSED enum err ivf_disk_finish(struct probe *p, struct err_ctx *ctx);
/* How many of the n lists are read together at most; at least 1. */
uint32_t ivf_disk_window(const struct probe *p, const uint32_t *lists, uint32_t n);
enum { DISK_LISTS_MAX = 64 };

#endif
