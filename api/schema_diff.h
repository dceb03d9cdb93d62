/* What keeps a PUT from finding the collection that it asks for. */
#ifndef LOADSTONE_API_SCHEMA_DIFF_H
#define LOADSTONE_API_SCHEMA_DIFF_H

#include "store/schema.h"

/* Appends the first difference, and how to get over it: "index.kind is 'flat' there and 'hnsw' in
 * the body: PATCH changes it". False when there is none. */
bool schema_put_difference(const struct schema *there, const struct schema *asked, struct buf *out);

#endif
