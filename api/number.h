/* Numbers as text, independent of the locale: correctly rounded parsing and shortest printing that
 * reads back to the same value, through C++17's <charconv>. */
#ifndef LOADSTONE_API_NUMBER_H
#define LOADSTONE_API_NUMBER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum number_status { NUMBER_OK, NUMBER_MALFORMED, NUMBER_RANGE };

/* The longest text that a number is printed as, and the longest that is read. */
enum { NUMBER_TEXT_MAX = 32, NUMBER_CHARS_MAX = 1024 };

/* The whole of text[0, n) must be one number; longer than NUMBER_CHARS_MAX is malformed. Too large:
 * NUMBER_RANGE. Too small to be normal: the nearest denormal or zero. */
enum number_status number_parse_float(const char *text, size_t n, float *out);
enum number_status number_parse_double(const char *text, size_t n, double *out);
enum number_status number_parse_int64(const char *text, size_t n, int64_t *out);

/* Write a finite value, without NUL, and return its length. */
size_t number_print_float(float v, char out[NUMBER_TEXT_MAX]);
size_t number_print_double(double v, char out[NUMBER_TEXT_MAX]);
size_t number_print_int64(int64_t v, char out[NUMBER_TEXT_MAX]);

#ifdef __cplusplus
}
#endif

#endif
