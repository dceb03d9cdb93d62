/* The two ways in which crc32c (bytes.h) is computed; apart, so that tests can compare them. */
#ifndef LOADSTONE_BASE_CRC32C_H
#define LOADSTONE_BASE_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t n);

/* True when crc32c_hardware may be called on this CPU. */
bool crc32c_hardware_available(void);
uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t n);

#endif
