/* Runs of JSON numbers, "0.25,-1.5e-3, 7", into float32: the fast road of json_floats. */
#ifndef LOADSTONE_API_FLOAT_RUN_H
#define LOADSTONE_API_FLOAT_RUN_H

#include <stddef.h>

/* Reads numbers and the commas between them from [p, end) into out[0, cap), each rounded to the
 * nearest float32 as number_parse_float does. Returns how many; *stop is right behind the last of
 * them (p when there is none). It stops at the first thing that is none of its business: the end of
 * the array or of the text, `cap`, an error, or a number that takes more care than it has. The
 * caller goes on from there byte by byte. */
size_t float_run_read(const char *p, const char *end, float *out, size_t cap, const char **stop);
/* The same for any processor; float_run_read takes SSE4.1 where it is there. */
size_t float_run_read_words(const char *p, const char *end, float *out, size_t cap,
                            const char **stop);

#endif
