/* Media types: what a body is, and what the client takes back (Content-Type, Accept). */
#ifndef LOADSTONE_API_MEDIA_H
#define LOADSTONE_API_MEDIA_H

#include "base/err.h"

enum media {
    MEDIA_NONE = 0,
    MEDIA_JSON = 1,
    MEDIA_NDJSON = 2,
    MEDIA_OCTETS = 4,
    MEDIA_NPY = 8,
    MEDIA_OTHER = 16
};

const char *media_name(enum media m);

/* Of a Content-Type header; MEDIA_NONE for NULL. Parameters (charset) are ignored. */
enum media media_of(const char *content_type);

/* The best of `offered` (a set; JSON wins ties) for an Accept header, NULL taking everything;
 * MEDIA_NONE when nothing offered is taken. */
enum media media_accepted(const char *accept, unsigned offered);

/* "application/json, application/x-ndjson" for a set, NUL-terminated. */
void media_list(unsigned set, char *out, size_t cap);

#endif
