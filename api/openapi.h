/* The OpenAPI document, made from api/openapi.yaml by the build and carried in the binary. */
#ifndef LOADSTONE_API_OPENAPI_H
#define LOADSTONE_API_OPENAPI_H

#include <stddef.h>

/* JSON text; constant. */
const char *openapi_json(size_t *n);

#endif
