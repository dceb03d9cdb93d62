/* The segment file, byte by byte; shared by its writer and its reader. All integers little-endian.
 *
 *   0        header: segment_header, zero-padded to IO_SUM_BLOCK
 *   64 KiB   sections, each starting at a multiple of IO_SUM_BLOCK
 *   F        footer, at a multiple of IO_SUM_BLOCK (encoded, not a struct):
 *              u32 rows, u64 F, schema, u8 keys_run, i64 first_key, i64 key_min, i64 key_max,
 *              u64 key slots, u32 runs, u32 sections, sections x (u32 kind, u32 column, u64 offset,
 *              u64 length), u64 blocks, blocks x u64 XXH3-64 of each IO_SUM_BLOCK of [0, F)
 *   end-32   segment_trailer
 */
#ifndef LOADSTONE_STORE_SEGMENT_FORMAT_H
#define LOADSTONE_STORE_SEGMENT_FORMAT_H

#include <stdint.h>

#define SEGMENT_MAGIC "LSTNSEG\x1a"
#define SEGMENT_TRAILER_MAGIC "LSTNEND\x1a"

enum { SEGMENT_FORMAT_VERSION = 1 };

struct segment_header {
    char magic[8];
    uint32_t format_version;
    uint32_t compatible_flags;   /* unknown ones may be ignored */
    uint32_t incompatible_flags; /* unknown ones refuse the file */
    uint32_t section_align;
    uint8_t collection_id[16];
    uint64_t segment_id;
    int64_t created_us;
    uint32_t reserved;
    uint32_t crc; /* crc32c of the bytes before it */
};

struct segment_trailer {
    uint64_t footer_offset;
    uint32_t footer_length;
    uint32_t footer_crc; /* crc32c of the footer */
    uint32_t reserved;
    uint32_t crc; /* crc32c of the bytes of this struct before it */
    char magic[8];
};

enum section_kind {
    SECTION_VECTORS = 1,  /* rows x dim float32 */
    SECTION_VECTOR_NULLS, /* bit per row in u64 words, 1 = no vector */
    SECTION_INT_KEYS,     /* rows x i64 */
    SECTION_KEY_OFFSETS,  /* (rows + 1) x u64 into SECTION_KEY_BYTES */
    SECTION_KEY_BYTES,
    SECTION_KEY_SLOTS,   /* power of two x u64: hash tag << 32 | row + 1 */
    SECTION_KEY_PREV,    /* rows x u32: older row of the same key + 1 */
    SECTION_STRIPS,      /* rows x strip_bytes */
    SECTION_VAR_OFFSETS, /* column: (rows + 1) x u32 into SECTION_VAR_BYTES */
    SECTION_VAR_BYTES,
    SECTION_RUNS,          /* runs x struct seq_run */
    SECTION_VECTOR_HASHES, /* rows x 128 bits, XXH3 of each vector, 0 for none; may be missing */
    SECTION_KIND_END
};

#endif
