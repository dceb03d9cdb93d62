/* The log file, byte by byte; wal.h draws it. All integers little-endian. */
#ifndef LOADSTONE_STORE_WAL_FORMAT_H
#define LOADSTONE_STORE_WAL_FORMAT_H

#include <stdint.h>

#define WAL_MAGIC "LSTNLOG\x1a"
#define WAL_GROUP_MAGIC 0x50554f52474e5453ull

enum { WAL_HEADER_BYTES = 4096, WAL_GROUP_ALIGN = 64 };

struct wal_header {
    char magic[8];
    uint32_t format_version;
    uint32_t incompatible_flags;
    uint8_t collection_id[16];
    uint64_t number;
    uint64_t first_group;
    uint32_t reserved;
    uint32_t crc;
};

struct wal_group {
    uint64_t magic;
    uint8_t collection_id[16];
    uint64_t group;
    uint32_t payload; /* bytes behind the header, without the padding */
    uint32_t records;
    uint32_t payload_crc;
    uint32_t crc; /* of the header before it */
};

#endif
