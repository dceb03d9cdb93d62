/* The loops of walks for AVX-512.
 *
 * Threads, failure: see search_walk.h. */
#include "index/search_walk.h"

#if defined(__x86_64__)
#include "index/search_walk_avx512.h"

#define CODE_L2_4 avx512_code_l2_4
#define CODE_DOT_4 avx512_code_dot_4
#define LOOPS walk_loops_avx512

#include "index/search_walk_body.h"
#endif
