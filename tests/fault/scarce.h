/* Memory that runs out: the Nth allocation of the thread at work fails, once or from then on for
 * good. The linker leads our objects' malloc, calloc, realloc and aligned_alloc here (see the
 * Makefile); libraries keep theirs. */
#ifndef LOADSTONE_TESTS_FAULT_SCARCE_H
#define LOADSTONE_TESTS_FAULT_SCARCE_H

#include <stdbool.h>
#include <stddef.h>

static _Thread_local struct {
    bool armed, for_good;
    unsigned calls, at;
} memory;

static bool strikes(void)
{
    if (!memory.armed)
        return false;
    memory.calls++;
    return memory.for_good ? memory.calls >= memory.at : memory.calls == memory.at;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

void *__wrap_malloc(size_t n)
{
    return strikes() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return strikes() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return strikes() ? NULL : __real_realloc(p, n);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return strikes() ? NULL : __real_aligned_alloc(align, n);
}

#endif
