/* What this binary is. */
#ifndef LOADSTONE_BASE_VERSION_H
#define LOADSTONE_BASE_VERSION_H

const char *version_number(void); /* "0.1.0" */
const char *version_commit(void); /* hash of the commit it was built from */

#endif
