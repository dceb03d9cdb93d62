/* The parts of a walk that are the same for every instruction set: distances between vectors, the
 * detour, the rows of a node, the row that is left out.
 *
 * Threads: per walk. Failure: no memory for the detour. */
#include "index/search_walk.h"

#include "index/kernels.h"

walk_run *walk_loop(enum walk_measure m, bool plain)
{
    static const struct walk_loops *const loops[] = {
        [KERNELS_SCALAR] = &walk_loops_scalar,
#if defined(__x86_64__)
        [KERNELS_AVX2] = &walk_loops_avx2,
        [KERNELS_AVX512] = &walk_loops_avx512,
        [KERNELS_AVX512VNNI] = &walk_loops_avx512vnni,
#endif
    };
    return plain ? loops[kernels.level]->plain[m] : loops[kernels.level]->masked[m];
}

/* ---- distances ---- */

/* Bits whose order as int32 is that of the floats; NaN is never near. */
static int32_t float_key(float d)
{
    int32_t bits;
    memcpy(&bits, &d, sizeof(bits));
    return d == d ? bits ^ (bits >> 31 & INT32_MAX) : WALK_FAR;
}

void walk_measure_vectors(const struct walk *w, const uint32_t list[4], int32_t out[4])
{
    const float *v[4];
    float d[4];
    for (int i = 0; i < 4; i++)
        v[i] = walk_vector(w, list[i]);
    if (w->metric == DIST_L2)
        kernels.l2sqr_4(w->query->query, v, w->dim, d);
    else
        kernels.dot_4(w->query->scaled, v, w->dim, d);
    for (int i = 0; i < 4; i++) {
        if (w->metric == DIST_COSINE)
            d[i] *= w->a->norms[list[i]];
        out[i] = float_key(w->metric == DIST_L2 ? d[i] : -d[i]);
    }
}

/* ---- detour ---- */

bool walk_detour_push(struct walk *w, int32_t key, uint32_t node)
{
    struct heap_node *h = scratch_room(&w->room->detour, w->ndetour + 1u, sizeof(*h));
    if (!h)
        return false;
    uint32_t i = w->ndetour++;
    for (; i > 0 && h[(i - 1) / 2].key > key; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = (struct heap_node){key, node};
    return true;
}

uint32_t walk_detour_pop(struct walk *w)
{
    struct heap_node *h = (struct heap_node *)w->room->detour.data;
    uint32_t top = h[0].node, n = --w->ndetour, i = 0;
    struct heap_node last = h[n];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && h[child + 1].key < h[child].key)
            child++;
        if (h[child].key >= last.key)
            break;
        h[i] = h[child];
    }
    h[i] = last;
    w->detours_n++;
    return top;
}

/* ---- rows and nodes ---- */

bool walk_twin_returned(const struct walk *w, uint32_t node)
{
    uint32_t n;
    const uint32_t *twins = ann_twins(w->a, node, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (walk_row_returned(w, twins[i]))
            return true;
    }
    return false;
}

void walk_hide_excluded(struct walk *w)
{
    const struct row_ref *left_out = &w->query->exclude;
    uint32_t node = ANN_NONE;
    if (left_out->view == w->view_index)
        node = ann_node(w->a, left_out->row);
    if (node != ANN_NONE && walk_visit(w, node))
        walk_touch(w, &node, 1);
}
