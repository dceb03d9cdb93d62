/* The .ann file: the graph or the inverted lists over the vectors of one segment, mapped and
 * searched in place. The vectors themselves stay in the segment file.
 *
 *   0       header: magic, versions, identity, shape, section table, CRC-32C; zeros to 64 KiB
 *   64 KiB  sections, each at a multiple of 64 KiB, of 2 MiB when it is that large
 *
 * A graph (kind hnsw):
 *   ANN_LINKS     nodes x 2m u32: neighbours on the bottom layer
 *   ANN_UPPER_AT  nodes x u32: where the node's upper lists start in ANN_UPPER (in lists); a node
 *                 of the bottom layer only has ANN_NONE
 *   ANN_UPPER     lists x m u32: layer 1, 2, ... of the first tall node, then of the next
 *   ANN_ROWS      nodes x u32, ascending: the segment row of a node, the first that has its vector;
 *                 left out when node = row
 *   ANN_NORMS     nodes x f32: 1 / |vector|; for cosine
 *   ANN_TWINS_AT  (nodes + 1) x u32: where the node's twins start in ANN_TWINS
 *   ANN_TWINS     twins x u32: the further rows with the vector of a node (the same to the bit; for
 *                 cosine at length 1), those of one node in the order of their keys. Both sections
 *                 are left out when there are none
 *   ANN_CODES     nodes x stride bytes: the vectors of the nodes in 7 bits an element (codes.h), at
 *                 length 1 for cosine; a walk runs on these
 *   ANN_SCALE     how the codes were made (ann_format.h). Both are left out where codes would lose
 *                 neighbours, and in files of releases that knew none: a walk runs on the vectors
 *
 * and of either kind:
 *   ANN_MADE      who built it, and what the gate said of codes; left out in files of releases that
 *                 knew one builder only
 *   ANN_CURVE     recall by effort, measured at the build (recall.h); left out in files of releases
 *                 that did not measure
 *
 * A list of links ends at its first ANN_NONE. Every row with a vector stands at exactly one node.
 *
 * Inverted lists (kind ivf):
 *   ANN_CENTROIDS nlist x dim f32, of the vectors as they are; of the normalised ones for cosine
 *   ANN_LISTS_AT  (nlist + 1) x u32: where the rows of a list start in ANN_ROWS
 *   ANN_ROWS      nodes x u32: the segment rows of list 0, ascending, then of list 1, ...
 *   ANN_CODES     nodes x stride bytes: their vectors as above, in the order of ANN_ROWS, so that a
 *                 list is read in one go
 *   ANN_SCALE     as above
 *
 * Every row with a vector is a node of its own and stands in exactly one list. The header is
 * written last, so a half-written file has none.
 *
 * A mapped file is immutable and shared by all threads. What is cheap is checked at open; links are
 * not: who follows one checks that it is below `nodes`. Nor are codes, whose bytes are harmless
 * whatever they are. */
#ifndef LOADSTONE_INDEX_ANN_FILE_H
#define LOADSTONE_INDEX_ANN_FILE_H

#include "index/codes.h"
#include "index/distinct.h"
#include "index/graph_source.h"
#include "index/recall.h"
#include "io/io.h"
#include "store/segment.h"

#define ANN_NONE UINT32_MAX

enum { ANN_M_MAX = 512, ANN_LAYERS_MAX = 64 };

/* What a structure belongs to and how it was made. */
struct ann_shape {
    enum index_kind kind;      /* INDEX_HNSW or INDEX_IVF */
    uint8_t collection_id[16]; /* zeros: unknown */
    uint64_t segment_id;
    uint32_t rows;  /* of the segment */
    uint32_t nodes; /* distinct vectors; ivf: rows with a vector */
    uint32_t twins; /* further rows with the vector of a node */
    uint32_t dim;
    enum metric metric;
    uint32_t m;                 /* 0 for ivf */
    uint32_t ef_construction;   /* 0 for ivf */
    uint32_t nlist;             /* 0 for hnsw */
    enum index_builder builder; /* BUILDER_AUTO: the file does not say */
};

/* What a build found about codes: taken, refused since they would lose neighbours, or impossible
 * since their scale overflows. */
enum codes_verdict { CODES_UNKNOWN, CODES_TAKEN, CODES_REFUSED, CODES_IMPOSSIBLE };

/* Where lists of codes and vectors are read from when there is no memory to map them. */
struct ann_reads {
    struct io *io;
    struct io_file *ann, *segment;
    uint64_t codes_at, vectors_at; /* in the files */
};

struct ann_file {
    struct ann_shape shape;
    uint32_t entry;       /* node where a search starts */
    uint32_t layers;      /* 1 = bottom only */
    uint32_t upper_lists; /* lists in `upper` */
    const uint32_t *links;
    const uint32_t *upper_at;
    const uint32_t *upper;
    const uint32_t *rows;     /* NULL: node = row */
    const uint32_t *twins_at; /* NULL: no twins */
    const uint32_t *twins;
    const float *norms;         /* NULL unless cosine */
    const uint8_t *codes;       /* NULL: none */
    struct code_scale scale;    /* of the codes */
    enum codes_verdict verdict; /* CODES_UNKNOWN in a file of a release without ANN_MADE */
    float code_recall;          /* of the R nearest by code, measured on a sample at the build */
    const float *centroids;     /* ivf only, like lists_at */
    const uint32_t *lists_at;
    struct recall_curve *curve; /* NULL: never measured. Searches and the sampler share it */
    uint64_t bytes;             /* of the file */
    struct ann_reads *reads;    /* ivf only; NULL: everything is read where it is mapped */
    bool verified;              /* whoever attached it has checked every section */
    const uint8_t *map;
    const uint8_t *curve_at; /* the sections */
    uint64_t curve_len;
    const uint8_t *scale_at, *made_at;
    struct mapping *watch;
    void *reserved; /* address range that holds the map */
    size_t reserved_len;
};

/* Maps a file and validates header, bounds and row ids. ERR_NOT_FOUND when there is none;
 * ERR_CORRUPT names the file and what is wrong. */
WARN_UNUSED enum err ann_file_open(const char *path, struct ann_file **out, struct err_ctx *ctx);
void ann_file_close(void *ann); /* a struct ann_file; NULL is allowed */

/* Checks every section against its checksum; reads the whole file. */
WARN_UNUSED enum err ann_file_verify(const struct ann_file *a, const char *path,
                                     struct err_ctx *ctx);
/* The same, but ends with ERR_UNAVAILABLE when `stop` says so between two pieces. */
WARN_UNUSED enum err ann_file_verify_until(const struct ann_file *a, const char *path,
                                           bool (*stop)(void *arg), void *arg, struct err_ctx *ctx);

/* ERR_CORRUPT unless the graph was made for this very segment of this collection (an id of zeros
 * in the file matches any) and has each row with a vector once. */
WARN_UNUSED enum err ann_file_check(const struct ann_file *a, const uint8_t *collection_id,
                                    const struct segment *s, struct err_ctx *ctx);

/* Lets searches of inverted lists with codes read those, and the vectors, from the files instead of
 * the maps, many at once. `path` is the file's. */
WARN_UNUSED enum err ann_file_read_from(struct ann_file *a, struct io *io, const char *path,
                                        const struct segment *s, struct err_ctx *ctx);
/* From the maps again; while nobody searches. */
void ann_file_read_mapped(struct ann_file *a);

/* Rows of a list < nlist, *n of them. */
static inline const uint32_t *ann_list(const struct ann_file *a, uint32_t list, uint32_t *n)
{
    *n = a->lists_at[list + 1] - a->lists_at[list];
    return a->rows + a->lists_at[list];
}

/* Row of a node < nodes: the first of those that have its vector. */
static inline uint32_t ann_row(const struct ann_file *a, uint32_t node)
{
    return a->rows ? a->rows[node] : node;
}

/* Node of a row; ANN_NONE when it is that of no node, or a twin. Graphs only. */
static inline uint32_t ann_node(const struct ann_file *a, uint32_t row)
{
    uint32_t from = 0, to = a->shape.nodes;
    if (!a->rows)
        return row < to ? row : ANN_NONE;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (a->rows[middle] < row)
            from = middle + 1;
        else
            to = middle;
    }
    return from < a->shape.nodes && a->rows[from] == row ? from : ANN_NONE;
}

/* The other rows of a node < nodes, *n of them, in the order of their keys. */
static inline const uint32_t *ann_twins(const struct ann_file *a, uint32_t node, uint32_t *n)
{
    if (!a->twins_at) {
        *n = 0;
        return NULL;
    }
    *n = a->twins_at[node + 1] - a->twins_at[node];
    return a->twins + a->twins_at[node];
}

/* Neighbours of a node < nodes on an upper layer >= 1, m of them; NULL when it has none there. */
static inline const uint32_t *ann_upper_links(const struct ann_file *a, uint32_t node,
                                              uint32_t layer)
{
    uint64_t list = (uint64_t)a->upper_at[node] + layer - 1;
    return list < a->upper_lists ? a->upper + list * a->shape.m : NULL;
}

/* Codes for a file: their scale, what the gate found, and the segment with the vectors. */
struct ann_codes {
    const struct segment *segment;
    struct code_scale scale;
    float recall;
    uint32_t sample;
    enum codes_verdict verdict; /* anything but CODES_TAKEN: the file gets none */
};

/* Writes `path` (must not exist) from a finished graph over the vectors of `rows`; `norms` (one per
 * node) is NULL unless the metric is cosine. On error the file is worthless and has no header.
 * Synced when it returns. */
WARN_UNUSED enum err ann_file_write(struct io *io, const char *path, const struct ann_shape *shape,
                                    const struct graph_source *graph, const struct distinct *rows,
                                    const float *norms, const struct ann_codes *codes,
                                    struct err_ctx *ctx);

/* The same for inverted lists: nlist x dim centroids, nlist + 1 starts, shape->nodes rows. */
struct ann_lists {
    const float *centroids;
    const uint32_t *at, *rows;
};
WARN_UNUSED enum err ann_file_write_ivf(struct io *io, const char *path,
                                        const struct ann_shape *shape,
                                        const struct ann_lists *lists,
                                        const struct ann_codes *codes, struct err_ctx *ctx);

/* Appends a section to a file that was written and is not served yet. Synced when it returns. */
WARN_UNUSED enum err ann_file_append(struct io *io, const char *path, uint32_t kind,
                                     const void *data, size_t n, struct err_ctx *ctx);

#endif
