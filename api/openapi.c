/* The OpenAPI document.
 *
 * The assembler copies the file in; the Makefile makes it first and names it with OPENAPI_JSON.
 *
 * Threads: constant. Failure: none; without the file there is no build. */
#include "api/openapi.h"

#ifndef OPENAPI_JSON
#define OPENAPI_JSON "build/api/openapi.json"
#endif

__asm__(".pushsection .rodata\n"
        "openapi_json_text:\n"
        ".incbin \"" OPENAPI_JSON "\"\n"
        "openapi_json_end:\n"
        ".popsection\n");

extern const char openapi_json_text[], openapi_json_end[];

const char *openapi_json(size_t *n)
{
    *n = (size_t)(openapi_json_end - openapi_json_text);
    return openapi_json_text;
}
