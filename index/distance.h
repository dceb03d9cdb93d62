/* Distances as users see them, in double: one fixed order of summation, so that they are the same
 * to the bit on every machine and for every placement of the vectors. */
#ifndef LOADSTONE_INDEX_DISTANCE_H
#define LOADSTONE_INDEX_DISTANCE_H

#include "store/schema.h"

/* v . v */
double distance_norm2(const float *v, uint32_t dim);

/* Lower is nearer. l2: Euclidean; cosine: 1 - cos, from 0 to 2; ip: minus the dot product.
 * query_norm2 is distance_norm2(query), used for cosine only. */
double distance_exact(enum metric metric, const float *query, double query_norm2, const float *v,
                      uint32_t dim);

#endif
