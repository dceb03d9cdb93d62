/* The loops of walks for AVX-512 with VNNI.
 *
 * Threads, failure: see search_walk.h. */
#include "index/search_walk.h"

#if defined(__x86_64__)
#include "index/search_walk_avx512.h"

#undef ISA
#define ISA ISA_VNNI
#define CODE_L2_4 vnni_code_l2_4
#define CODE_DOT_4 vnni_code_dot_4
#define LOOPS walk_loops_avx512vnni

#include "index/search_walk_body.h"
#endif
