/* Filters: SQL `where` expressions over the features of a row, its key and its vector's presence.
 *
 *   or      := and { "or" and }                        a, b: columns; c: constants
 *   and     := not { "and" not }
 *   not     := { "not" } ( "(" or ")" | predicate )
 *   predicate := a ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") b      c on either side
 *            | a ["not"] "in" "(" c { "," c } ")"  | a ["not"] "between" c "and" c
 *            | a ["not"] "like" 'pattern' ["escape" 'x'] | a "is" ["not"] "null"
 *            | "contains" "(" list "," c ")"       | bool column | "true" | "false" | "null"
 *
 * Words are the same in capitals, names are not. A name that is a word, or has '-', is written in
 * double quotes. Constants: 'text' ('' is a quote), whole and decimal numbers, true, false, null,
 * x'00ff' for bytes, '2024-05-01T12:00:00Z' or '2024-05-01' (its midnight, UTC) for timestamps.
 *
 * Logic has three values, as in SQL: a comparison with null is unknown, and only rows for which the
 * whole is true match. A feature that a segment is too old to know is null in it.
 *   NaN      as everywhere but in SQL: not equal to anything, itself included, neither less nor
 *            greater. `x != 5` is true for it, `x < 5` and `x between 1 and 9` are false
 *   numbers  whole and floating ones compare by their exact values. A float32 feature is compared
 *            with the constant rounded to float32, as a loaded value is: price = 0.1 finds what was
 *            loaded as 0.1
 *   strings  compare by bytes, which is the order of code points. like minds case; '%' is any text,
 *            '_' one code point; there is no escape character unless one is given
 *
 * A filter is immutable: threads share it. It holds feature numbers, valid for every schema that
 * extends the one it was parsed under. */
#ifndef LOADSTONE_STORE_FILTER_H
#define LOADSTONE_STORE_FILTER_H

#include "store/snapshot.h"

enum {
    FILTER_DEPTH_MAX = 64,   /* parentheses within parentheses */
    FILTER_TERMS_MAX = 4096, /* comparisons */
    FILTER_LIKE_MAX = 1024,  /* bytes of a like pattern */
};

struct filter;

/* ERR_INVALID for what is no such expression, ERR_UNPROCESSABLE for an unknown feature (named in
 * the context) or a comparison that its type does not allow; both say at which character. `text`
 * may be freed afterwards. */
WARN_UNUSED enum err filter_parse(const struct schema *s, const char *text, size_t n,
                                  struct filter **out, struct err_ctx *ctx);
void filter_free(struct filter *f); /* NULL is allowed */

/* Those of rows [64 w, 64 w + 64) that match, among the bits of `candidates`, which are rows of the
 * segment. Dead rows match like others. No allocation, no lock. */
uint64_t filter_word(const struct filter *f, const struct segment *seg, uint32_t w,
                     uint64_t candidates);
static inline bool filter_match(const struct filter *f, const struct segment *seg, uint32_t row)
{
    return filter_word(f, seg, row / 64, 1ull << row % 64) != 0;
}

/* Hash of the normal text: the same for filters that match the same rows in any spelling. */
struct hash128 filter_id(const struct filter *f);

/* Appends a text that parses to the same filter and is the same for filters that differ in spelling
 * only: blanks, capitals, parentheses, ways to write a constant. */
void filter_normal(const struct filter *f, struct buf *out);

/* About how many nanoseconds a row takes. */
double filter_row_ns(const struct filter *f);

/* How many live rows of a snapshot match. The first once `*cancel` is true (NULL = never) ends
 * with ERR_UNAVAILABLE. */
WARN_UNUSED enum err filter_count(const struct filter *f, const struct snapshot *s,
                                  const atomic_bool *cancel, uint64_t *out, struct err_ctx *ctx);
/* The share of a view's live rows that match, estimated from at most `rows` of them, spread over
 * the view; exact when the view has no more. Never 0 unless exact. */
double filter_share(const struct filter *f, const struct view *v, uint32_t rows);

#endif
