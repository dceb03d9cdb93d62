/* Partitions: the values of the partition_by features of a row, taken together. Null is a value.
 *
 * A set is made by one thread, then any may ask. */
#ifndef LOADSTONE_STORE_PARTITION_H
#define LOADSTONE_STORE_PARTITION_H

#include "store/row.h"

struct partition_set;

WARN_UNUSED enum err partition_set_new(const struct schema *s, struct partition_set **out,
                                       struct err_ctx *ctx);
void partition_set_free(struct partition_set *p); /* NULL is allowed */

/* Adds the partition of a row; its cells are those of the schema given to partition_set_new or of
 * an older one. */
WARN_UNUSED enum err partition_add_row(struct partition_set *p, const struct row *r,
                                       struct err_ctx *ctx);
WARN_UNUSED enum err partition_add_segment(struct partition_set *p, const struct segment *s,
                                           uint32_t row, struct err_ctx *ctx);
/* Row i of a batch; ERR_UNPROCESSABLE when it leaves a feature of partition_by out. */
WARN_UNUSED enum err partition_add_batch(struct partition_set *p, const struct batch *b, size_t i,
                                         struct err_ctx *ctx);

/* Whether the set has the row's partition. One thread at a time: they share scratch memory. */
bool partition_has_row(struct partition_set *p, const struct row *r);
bool partition_has_segment(struct partition_set *p, const struct segment *s, uint32_t row);

/* "day='d1', shop=7", cut short: for messages. */
void partition_text_row(const struct partition_set *p, const struct row *r, char *out, size_t cap);
void partition_text_segment(const struct partition_set *p, const struct segment *s, uint32_t row,
                            char *out, size_t cap);

#endif
