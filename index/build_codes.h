/* The codes of a graph that is being built: their scale, and whether they are good enough. */
#ifndef LOADSTONE_INDEX_BUILD_CODES_H
#define LOADSTONE_INDEX_BUILD_CODES_H

#include "index/ann_file.h"

/* Fits the scale to the vectors of the nodes and tries it on a sample. out->verdict
 * is CODES_REFUSED when codes would lose neighbours: the file then gets none, and its graph is
 * walked on the vectors. Takes little memory beside 16 MiB. *room holds lo and step and is to be
 * freed, after an error too. */
WARN_UNUSED enum err build_codes(const struct segment *s, const struct distinct *rows, float **room,
                                 struct ann_codes *out, struct err_ctx *ctx);
#endif
