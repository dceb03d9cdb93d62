/* Inverted lists read as codes.
 *
 *   codes of a list, one after another ─ four at a time ─> max-heap of the R nearest by code
 *        └─ at the end: the vectors of those R ─ exact_show ─> collect
 *
 * R is what the codes need for k (code_rerank), nprobe where that is more, and with a filter what a
 * search must have seen at least (ivf_search), so that few matches are all measured. A row is asked
 * whether it may be a hit before it counts, as in lists of vectors.
 *
 * Threads: per call, on the caller's scratch. Failure: no memory for the scratch. */
#include "index/search_ivf_internal.h"

enum { PREFETCH_BYTES = 512 }; /* of a vector; the processor goes on from there by itself */

/* ---- the nearest by code ---- */

static void sink_row(struct code_row *h, uint32_t n, uint32_t i)
{
    struct code_row moving = h[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && h[child + 1].distance > h[child].distance)
            child++;
        if (!(h[child].distance > moving.distance))
            break;
        h[i] = h[child];
    }
    h[i] = moving;
}

static void lift_row(struct code_row *h, uint32_t i)
{
    struct code_row moving = h[i];
    for (; i > 0 && h[(i - 1) / 2].distance < moving.distance; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = moving;
}

static inline void take_row(struct probe *p, float distance, uint32_t row)
{
    if (p->nbest < p->best_max) {
        p->best[p->nbest] = (struct code_row){distance, row};
        lift_row(p->best, p->nbest++);
    } else if (distance < p->best[0].distance) {
        p->best[0] = (struct code_row){distance, row};
        sink_row(p->best, p->nbest, 0);
    }
}

/* ---- lists ---- */

/* Measures rows[0..n), n <= 4, whose codes are c; places beyond n repeat one of them. */
static inline void measure_rows(struct probe *p, const uint8_t *const c[4], const uint32_t *rows,
                                uint32_t n)
{
    float d[4];
    code_measure_4(&p->a->scale, p->query_code, c, d);
    for (uint32_t i = 0; i < n; i++)
        take_row(p, d[i], rows[i]);
    p->shown += n;
}

static void read_all(struct probe *p, const uint32_t *rows, uint32_t n, const uint8_t *codes)
{
    for (uint32_t i = 0; i < n; i += 4) {
        uint32_t left = n - i < 4 ? n - i : 4;
        const uint8_t *c[4];
        for (uint32_t j = 0; j < 4; j++)
            c[j] = codes + (i + (j < left ? j : left - 1)) * p->stride;
        measure_rows(p, c, rows + i, left);
    }
}

static void read_allowed(struct probe *p, const uint32_t *rows, uint32_t n, const uint8_t *codes)
{
    const uint8_t *c[4];
    uint32_t four[4], have = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!probe_allowed(p, rows[i]))
            continue;
        four[have] = rows[i];
        c[have++] = codes + i * p->stride;
        if (have == 4) {
            measure_rows(p, c, four, have);
            have = 0;
        }
    }
    if (have == 0)
        return;
    for (uint32_t j = have; j < 4; j++)
        c[j] = c[0];
    measure_rows(p, c, four, have);
}

void ivf_codes_read(struct probe *p, uint32_t list, const uint8_t *codes)
{
    uint32_t n;
    const uint32_t *rows = ann_list(p->a, list, &n);
    if (p->all_allowed)
        read_all(p, rows, n, codes);
    else
        read_allowed(p, rows, n, codes);
}

/* ---- begin and end ---- */

bool ivf_codes_use(struct probe *p, uint64_t least)
{
    const struct ann_file *a = p->a;
    const struct view *v = p->view;
    if (!a->codes)
        return true;
    p->stride = code_stride(a->shape.dim);
    uint8_t *room = scratch_room(&p->scratch->code, p->stride + CODE_ALIGN, 1);
    if (!room)
        return false;
    room = (uint8_t *)round_up((uintptr_t)room, CODE_ALIGN);
    if (!code_query_prepare(&a->scale, p->query->scaled, room))
        return true;
    uint64_t most = code_rerank(&a->scale, p->query->k);
    most = most > least ? most : least;
    p->best_max = most < a->shape.nodes ? (uint32_t)most : a->shape.nodes;
    p->best = scratch_room(&p->scratch->best, p->best_max, sizeof(*p->best));
    p->query_code = room;
    p->all_allowed = !v->dead && v->rows == v->segment->rows && !p->allowed->filter &&
                     p->query->exclude.view != p->view_index;
    return p->best != NULL;
}

static const float *vector_of(const struct probe *p, uint32_t row)
{
    return p->view->segment->vectors + (size_t)row * p->a->shape.dim;
}

void ivf_codes_finish(struct probe *p)
{
    size_t bytes = p->a->shape.dim * sizeof(float);
    bytes = bytes < PREFETCH_BYTES ? bytes : PREFETCH_BYTES;
    for (uint32_t i = 0; i < p->nbest; i++) {
        const char *v = (const char *)vector_of(p, p->best[i].row);
        for (size_t at = 0; at < bytes; at += 64)
            __builtin_prefetch(v + at);
    }
    for (uint32_t i = 0; i < p->nbest; i++)
        probe_show(p, p->best[i].row, vector_of(p, p->best[i].row));
}
