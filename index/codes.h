/* Codes: vectors in 7 bits an element, for walks that only need to know what is near. The distances
 * that count are taken from the vectors themselves afterwards.
 *
 *   code[j] = round((v[j] - lo[j]) / step[j]), within 0..127; zeros from dim to stride
 *
 * Two schemes. Uniform, for l2 and cosine (at length 1): one lo and one step for all dimensions, so
 * that differences of codes are differences of vectors; the few elements outside of the middle
 * 99.99 % are clipped. Scaled, for ip: each dimension has its own, nothing is clipped (the longest
 * vectors win there), and the steps go into the query. 7 bits, since kernels then add up pairs of
 * products in 16.
 *
 * Threads: pure functions; a struct code_fit belongs to one thread. */
#ifndef LOADSTONE_INDEX_CODES_H
#define LOADSTONE_INDEX_CODES_H

#include "store/schema.h"

enum code_scheme { CODE_UNIFORM = 1, CODE_SCALED = 2 };
enum { CODE_ALIGN = 64, CODE_TOP = 127 };

struct code_scale {
    enum code_scheme scheme;
    uint32_t dim;
    uint32_t rerank_permille; /* how many more than k are to be looked at again: code_rerank */
    const float *lo, *step;   /* dim each; borrowed */
};

static inline enum code_scheme code_scheme_of(enum metric m)
{
    return m == DIST_IP ? CODE_SCALED : CODE_UNIFORM;
}

/* Bytes of a code. */
static inline size_t code_stride(uint32_t dim)
{
    return round_up(dim, CODE_ALIGN);
}

/* How many of the nearest by code are measured again for the k nearest. */
static inline uint64_t code_rerank(const struct code_scale *s, uint32_t k)
{
    return k + (k + 16ull) * s->rerank_permille / 1000;
}

/* Whether lo and step are numbers to calculate with; else there must be no codes. */
bool code_scale_usable(const struct code_scale *s);

/* v (dim, finite) to out (code_stride bytes). */
void code_encode(const struct code_scale *s, const float *v, uint8_t *out);

/* Uniform: the query as a code. Scaled: dim weights in -127..127, zeros after. False when the query
 * lies so far outside of the scale that its order of codes says little. */
bool code_query_prepare(const struct code_scale *s, const float *q, uint8_t *out);

/* Distances of a query to four codes: the order is that of the vectors, the unit is not. */
void code_measure_4(const struct code_scale *s, const uint8_t *query, const uint8_t *const c[4],
                    float out[4]);

/* ---- fitting ---- */

/* Finds lo and step from vectors that stream by: a sample for uniform, all of them for scaled. */
struct code_fit;
WARN_UNUSED enum err code_fit_new(enum code_scheme scheme, uint32_t dim, struct code_fit **out,
                                  struct err_ctx *ctx);
void code_fit_add(struct code_fit *f, const float *v);
/* Writes dim floats each. With no vectors: 0 and 1. */
void code_fit_finish(const struct code_fit *f, float *lo, float *step);
void code_fit_free(struct code_fit *f);

#endif
