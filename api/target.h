/* The target of a request, from the raw URI: path segments and query parameters, decoded after
 * splitting, so that "%2F" is a character of a name and never a separator. */
#ifndef LOADSTONE_API_TARGET_H
#define LOADSTONE_API_TARGET_H

#include "base/bytes.h"

enum { TARGET_SEGMENTS_MAX = 8, TARGET_PARAMS_MAX = 16 };

struct target_segment {
    const char *text; /* NUL-terminated, holds no NUL */
    size_t len;
};

struct target_param {
    const char *name;
    struct target_segment value;
};

struct target {
    unsigned nsegments; /* TARGET_SEGMENTS_MAX + 1 when there are more */
    /* Behind the last one comes the rest of the path, slashes and all, when there are more. */
    struct target_segment segments[TARGET_SEGMENTS_MAX + 1];
    unsigned nparams;
    struct target_param params[TARGET_PARAMS_MAX];
};

/* Splits and decodes `uri` in place; `out` borrows from it. ERR_INVALID for a bad escape, a NUL, a
 * parameter that comes twice, or too many of them. */
WARN_UNUSED enum err target_parse(char *uri, struct target *out, struct err_ctx *ctx);

/* Segments `from` and on as one text, with the slashes between them. Afterwards only the segments
 * before `from` are there. */
struct target_segment target_rest(struct target *t, unsigned from);

/* NULL when it was not given. */
const struct target_segment *target_param(const struct target *t, const char *name);

#endif
