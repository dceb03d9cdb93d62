/* FAISS's failures: its sentences, and allocations that fail.
 *
 * FAISS keeps the text of the last exception per thread. An exception that is thrown inside one of
 * its OpenMP regions never gets that far: the C++ runtime ends the process. Allocations are the
 * only ones to expect there, and they ask a handler first, which is set here.
 *
 * Threads: faiss_failed reads the caller's own error; the handler is set before FAISS is used.
 * Failure: none. */
#include "index/faiss_error.h"

#include <stdio.h>
#include <string.h>

#include <faiss/c_api/error_c.h>

/* std::set_new_handler; FAISS brings the C++ library. */
typedef void (*new_handler)(void);
new_handler cxx_set_new_handler(new_handler fn) __asm__("_ZSt15set_new_handlerPFvvE");

enum err faiss_failed(const char *doing, struct err_ctx *ctx)
{
    char text[768];
    const char *msg = faiss_get_last_error();
    snprintf(text, sizeof(text), "%s", msg && *msg ? msg : "no reason given");
    for (char *c = text; *c; c++) {
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    }
    if (strstr(text, "bad_alloc") || strstr(text, "out of memory"))
        return err_set(ctx, ERR_NO_MEMORY,
                       "FAISS ran out of memory while %s: give the build more memory", doing);
    return err_set(ctx, ERR_INTERNAL, "FAISS failed while %s: %s", doing, text);
}

void faiss_on_no_memory(void (*fn)(void))
{
    cxx_set_new_handler(fn);
}
