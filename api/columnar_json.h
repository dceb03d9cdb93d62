/* Columns as JSON, {"keys":[..],"vectors":[[..],null],"features":{"price":[..]}}, into a load. The
 * fields come in any order, so the whole text has to be there first. */
#ifndef LOADSTONE_API_COLUMNAR_JSON_H
#define LOADSTONE_API_COLUMNAR_JSON_H

#include "api/row_json.h"
#include "api/row_sink.h"

enum columnar_form { COLUMNAR_UNDECIDED, COLUMNAR_NO, COLUMNAR_YES };

/* Whether a JSON body that starts with these bytes is columnar: its first field says so. */
enum columnar_form columnar_form(const void *text, size_t n);

/* Adds all rows to the sink, in batches of at most `rows_max`. `b` is empty before and after; `r`
 * reads the cells. Errors name row and field. */
WARN_UNUSED enum err columnar_json_load(const void *text, size_t n, struct row_sink sink,
                                        struct batch *b, struct row_reader *r, size_t rows_max,
                                        struct err_ctx *ctx);

#endif
