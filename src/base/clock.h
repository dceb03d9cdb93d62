/* Time and random identifiers. */
#ifndef LOADSTONE_BASE_CLOCK_H
#define LOADSTONE_BASE_CLOCK_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

uint64_t clock_mono_us(void); /* monotonic microseconds */
int64_t clock_wall_us(void);  /* microseconds since 1970-01-01T00:00:00Z */

/* 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: what RFC 3339 can write. */
#define CLOCK_US_MIN (-62135596800000000ll)
#define CLOCK_US_MAX 253402300799999999ll

/* RFC 3339 UTC with microseconds when they are not zero: 2024-05-01T12:00:00.25Z. out holds 32. */
void clock_format_rfc3339(int64_t wall_us, char out[32]);
/* Parses RFC 3339 (Z or +hh:mm, fraction of 1-9 digits, 'T' or ' '); years 0001-9999. 0, or -1 when
 * the text is anything else. */
int clock_parse_rfc3339(const char *s, size_t n, int64_t *wall_us);

/* A condition whose timed waits count on the monotonic clock, and a moment so many milliseconds
 * from now to wait until. */
void clock_cond_init(pthread_cond_t *cond);
struct timespec clock_after_ms(uint64_t ms);
struct timespec clock_after_us(uint64_t us);

void random_bytes(void *out, size_t n);

#endif
