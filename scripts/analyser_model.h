/* What clang's analyser cannot see by itself, put before each C file by scripts/lint.sh: the
 * functions that set an error return the code they were given, never ERR_OK. Without this every
 * out-parameter behind an error path would look uninitialised. */
#ifndef LOADSTONE_SCRIPTS_ANALYSER_MODEL_H
#define LOADSTONE_SCRIPTS_ANALYSER_MODEL_H

#include "base/err.h"

#define err_set(ctx, code, ...) ((void)(err_set)(ctx, code, __VA_ARGS__), (code))
#define err_set_at(ctx, code, ...) ((void)(err_set_at)(ctx, code, __VA_ARGS__), (code))
#define err_system(ctx, ...) ((void)(err_system)(ctx, __VA_ARGS__), ERR_IO)
#define err_no_memory(ctx, size) ((void)(err_no_memory)(ctx, size), ERR_NO_MEMORY)

#endif
