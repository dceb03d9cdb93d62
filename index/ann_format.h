/* The .ann header, byte by byte; shared by its writer and its reader. All integers little-endian.
 *
 *   magic[8], u32 format version, u32 compatible flags, u32 incompatible flags, u32 sections,
 *   collection id[16], u64 segment id, u64 file bytes, u32 rows, u32 nodes, u32 dim, u32 metric,
 *   u32 m, u32 ef_construction, u32 entry, u32 layers, u32 lists, u32 twins,
 *   sections x (u32 kind, u32 0, u64 offset, u64 length, u64 XXH3-64 of its bytes),
 *   u32 crc32c of all before it
 *
 * `lists` counts the upper lists of a graph, or the inverted lists where the incompatible flag
 * ANN_FLAG_IVF is set; m, ef_construction, entry, layers and twins are 0 there.
 */
#ifndef LOADSTONE_INDEX_ANN_FORMAT_H
#define LOADSTONE_INDEX_ANN_FORMAT_H

#include <stdint.h>

#define ANN_MAGIC "LSTNANN\x1a"

enum {
    ANN_FORMAT_VERSION = 2,
    ANN_SECTIONS_MAX = 16,
    ANN_HEADER_MAX = 4096,
    ANN_ALIGN = 64 * 1024,
    ANN_ALIGN_LARGE = 2 * 1024 * 1024
};

enum { ANN_FLAG_IVF = 1 };

enum ann_section_kind {
    ANN_LINKS = 1,
    ANN_UPPER_AT,
    ANN_UPPER,
    ANN_ROWS,
    ANN_NORMS,
    ANN_TWINS_AT,
    ANN_TWINS,
    ANN_CENTROIDS,
    ANN_LISTS_AT,
    ANN_CODES,
    ANN_SCALE,
    ANN_CURVE,
    ANN_MADE,
    ANN_KIND_END /* readers skip kinds from here on */
};

/* ANN_SCALE: u32 version, u32 scheme, u32 stride, u32 rerank permille, u32 sample, f32 recall of
 * the gate, zeros to ANN_SCALE_HEAD, dim x f32 lo, dim x f32 step. */
enum { ANN_SCALE_VERSION = 1, ANN_SCALE_HEAD = 64, ANN_RERANK_PERMILLE_MAX = 100000 };

/* ANN_CURVE: u32 version 1, u32 points, zeros to 32, then for each point, ascending by k and
 * effort: u32 k, u32 effort, u32 queries, u32 0, f64 sum of the queries' recall, f64 sum of its
 * squares, f64 microseconds a query, u64 0. (recall_curve.c) */

/* ANN_MADE: u32 version, u32 builder, u32 verdict of the gate, u32 rerank permille tried last, u32
 * sample, f32 recall of the gate, zeros to ANN_MADE_BYTES. */
enum { ANN_MADE_VERSION = 1, ANN_MADE_BYTES = 64 };

struct ann_section {
    uint32_t kind;
    uint64_t offset;
    uint64_t length;
    uint64_t sum;
};

#endif
