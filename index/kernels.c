/* Picks the distance kernels once, at start, by what the processor can do.
 *
 * One table of plain function pointers, filled before any thread starts and only read afterwards.
 * GNU ifunc is not used: its resolvers run before a sanitizer is ready.
 *
 * Threads: kernels_init runs alone; everything else only reads. Failure: an instruction set that
 * LOADSTONE_ISA asks for and that is not there is an error, never a silent fallback. */
#include "index/kernels.h"

#include <float.h>
#include <string.h>

struct kernels kernels;

/* Until kernels_init: FAISS's distances are called through the table by anyone who links us. */
__attribute__((constructor)) static void kernels_default(void)
{
    kernels = kernels_scalar;
}

#if defined(__x86_64__)
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool has_avx512vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
#endif

/* Best first. */
static const char *const kernel_names[] = {"avx512vnni", "avx512", "avx2", "scalar"};

const struct kernels *kernels_find(const char *name)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (strcmp(name, "avx512vnni") == 0)
        return has_avx512vnni() ? &kernels_avx512vnni : NULL;
    if (strcmp(name, "avx512") == 0)
        return has_avx512() ? &kernels_avx512 : NULL;
    if (strcmp(name, "avx2") == 0)
        return has_avx2() ? &kernels_avx2 : NULL;
#endif
    return strcmp(name, "scalar") == 0 ? &kernels_scalar : NULL;
}

static bool name_known(const char *name)
{
    for (size_t i = 0; i < sizeof(kernel_names) / sizeof(kernel_names[0]); i++) {
        if (strcmp(name, kernel_names[i]) == 0)
            return true;
    }
    return false;
}

enum err kernels_init(struct err_ctx *ctx)
{
    const char *forced = getenv("LOADSTONE_ISA");
    const struct kernels *found = NULL;
    if (forced && *forced && strcmp(forced, "auto") != 0) {
        found = kernels_find(forced);
        if (!name_known(forced))
            return err_set(ctx, ERR_INVALID,
                           "LOADSTONE_ISA is \"%s\": use auto, avx512vnni, avx512, avx2 or scalar",
                           forced);
        if (!found)
            return err_set(ctx, ERR_INVALID,
                           "LOADSTONE_ISA (or --isa) asks for %s, which this processor does not "
                           "have: leave it out to get the best that it has",
                           forced);
    }
    for (size_t i = 0; !found; i++)
        found = kernels_find(kernel_names[i]);
    kernels = *found;
    return ERR_OK;
}

/* Each lane adds at most d / 4 + 4 terms, the lanes a few more; a term is rounded twice. The factor
 * covers the second-order terms up to the largest dimension. (N. Higham, Accuracy and Stability of
 * Numerical Algorithms, 2nd ed., sec. 3.1.) */
double kernels_error(size_t d)
{
    return ((double)d / 4 + 16) * 1.1 * (FLT_EPSILON / 2);
}
