/* JSON out, straight into a buffer. The caller writes braces, commas and literal text with
 * buf_put/json_put_raw; these write the values. A buffer that runs out of memory remembers it. */
#ifndef LOADSTONE_API_JSON_WRITER_H
#define LOADSTONE_API_JSON_WRITER_H

#include "base/bytes.h"
#include "store/schema.h"

/* A string literal as it stands. */
#define json_put_raw(out, literal) buf_put((out), (literal), sizeof(literal) - 1)

/* A quoted string of well-formed UTF-8. */
void json_put_string(struct buf *out, const char *s, size_t n);
/* A quoted string of bytes from outside: what is not UTF-8 becomes '?'. */
void json_put_text(struct buf *out, const char *s);

/* Shortest decimal that reads back the same; "NaN", "Infinity", "-Infinity" as strings. */
void json_put_float(struct buf *out, float v);
void json_put_double(struct buf *out, double v);
void json_put_int(struct buf *out, int64_t v);
void json_put_uint(struct buf *out, uint64_t v);
void json_put_bool(struct buf *out, bool v);
void json_put_timestamp(struct buf *out, int64_t wall_us);
void json_put_floats(struct buf *out, const float *v, size_t n); /* [..] */

/* A feature's stored value (see enum feature_type); `data` NULL writes null. */
void json_put_cell(struct buf *out, enum feature_type type, const void *data, size_t len);

#endif
