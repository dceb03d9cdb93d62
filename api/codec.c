/* The table of formats.
 *
 * Threads: constant. Failure: a sentence that lists what there is. */
#include "api/codec.h"

#include <stdio.h>

static const struct codec *const table[] = {&codec_ndjson, &codec_csv, &codec_npy};

enum { CODECS = sizeof table / sizeof table[0] };

enum err codec_find(const char *name, const struct codec **out, struct err_ctx *ctx)
{
    char list[128] = "";
    size_t len = 0;
    for (size_t i = 0; i < CODECS; i++) {
        if (strcmp(table[i]->name, name) == 0) {
            *out = table[i];
            return ERR_OK;
        }
        len +=
            (size_t)snprintf(list + len, sizeof list - len, "%s%s", i ? ", " : "", table[i]->name);
    }
    return err_set_at(ctx, ERR_NOT_FOUND, -1, "format",
                      "this build exports no '%.40s'; it exports %s", name, list);
}
