/* What FAISS says when it fails, as an error of ours. */
#ifndef LOADSTONE_INDEX_FAISS_ERROR_H
#define LOADSTONE_INDEX_FAISS_ERROR_H

#include "base/err.h"

/* The calling thread's last FAISS error as a sentence on one line: "FAISS failed while <doing>".
 * ERR_NO_MEMORY when memory was the reason, else ERR_INTERNAL. */
WARN_UNUSED enum err faiss_failed(const char *doing, struct err_ctx *ctx);

/* Has `fn` called, on whichever thread, when an allocation inside FAISS fails; it must not return.
 * Without it a failure inside an OpenMP region of FAISS aborts the process without a word. */
void faiss_on_no_memory(void (*fn)(void));

#endif
