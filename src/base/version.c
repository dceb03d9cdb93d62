/* What this binary is: the Makefile defines both for this file alone, so that a commit rebuilds one
 * object. */
#include "base/version.h"

#ifndef LOADSTONE_VERSION
#define LOADSTONE_VERSION "0.1.0"
#endif
#ifndef LOADSTONE_COMMIT
#define LOADSTONE_COMMIT "unknown"
#endif

const char *version_number(void)
{
    return LOADSTONE_VERSION;
}

const char *version_commit(void)
{
    return LOADSTONE_COMMIT;
}
