/* Search of one view by the inverted lists of its segment.
 *
 *   query ─ distance to every centroid ─ min-heap ─┬─ list 1, 2, ... nprobe: its live rows
 *                                                  └─ and on, until k rows were shown
 *
 * Which lists are nearest is as exact as float. Their rows are measured by code where the file has
 * codes (search_ivf_codes.c), which lie in the order of the lists, and the nearest of them again by
 * their vectors. Without codes, and where all lists are asked for, the vectors are read where they
 * lie in the segment, fetched a few rows ahead, and go to collect like those of a scan: all lists
 * together give what a scan gives, to the bit. For inner product the lists come by the product with
 * their centroids.
 *
 * With a filter, lists in which no row matches do not count among the nprobe, and the search goes
 * on until it has seen IVF_FILTERED times k. Those that should hold a match by the share of all
 * rows say that what matches lies far from the query, and the farther away the nearest matches are,
 * the more lists are about as near: each asks for EMPTY_ASKS more. Measured on matches in the far
 * half of space: recall .87 with a quarter, .91 with one, .98 with three.
 *
 * A view is scanned instead when that costs less: when most of its rows would be read anyway, or
 * are dead.
 *
 * Threads: per call, on the caller's scratch. Failure: no memory for the scratch. */
#include "index/search_ivf_internal.h"

#include "index/ivf.h"
#include "index/kernels.h"

enum { EMPTY_ASKS = 3 };

static uint32_t probes(const struct ann_file *a, uint32_t nprobe)
{
    return nprobe ? nprobe : ivf_nprobe_default(a->shape.nlist);
}

double ivf_rows_read(const struct view *v, const struct ann_file *a, uint32_t nprobe)
{
    double nlist = a->shape.nlist;
    return nlist + v->live * (probes(a, nprobe) / nlist);
}

bool ivf_pays(const struct view *v, const struct ann_file *a, uint32_t nprobe)
{
    return probes(a, nprobe) < a->shape.nlist && ivf_rows_read(v, a, nprobe) < v->live;
}

/* ---- which lists ---- */

static void sink(struct list_node *h, uint32_t n, uint32_t i)
{
    struct list_node moving = h[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && h[child + 1].distance < h[child].distance)
            child++;
        if (!(h[child].distance < moving.distance))
            break;
        h[i] = h[child];
    }
    h[i] = moving;
}

static uint32_t nearest_list(struct probe *p)
{
    uint32_t list = p->heap[0].list;
    p->heap[0] = p->heap[--p->nheap];
    if (p->nheap > 0)
        sink(p->heap, p->nheap, 0);
    return list;
}

static void measure_centroids(struct probe *p)
{
    const struct ann_shape *s = &p->a->shape;
    uint32_t last = s->nlist - 1;
    for (uint32_t i = 0; i < s->nlist; i += 4) {
        const float *v[4];
        float d[4];
        for (uint32_t j = 0; j < 4; j++)
            v[j] = p->a->centroids + (size_t)(i + j < last ? i + j : last) * s->dim;
        if (s->metric == DIST_IP)
            kernels.dot_4(p->query->query, v, s->dim, d);
        else
            kernels.l2sqr_4(p->query->scaled, v, s->dim, d);
        for (uint32_t j = 0; j < 4 && i + j < s->nlist; j++) {
            float key = s->metric == DIST_IP ? -d[j] : d[j];
            p->heap[i + j] = (struct list_node){isnan(key) ? INFINITY : key, i + j};
        }
    }
}

static void order_lists(struct probe *p)
{
    measure_centroids(p);
    p->nheap = p->a->shape.nlist;
    for (uint32_t i = p->nheap / 2; i-- > 0;)
        sink(p->heap, p->nheap, i);
}

/* ---- which rows ---- */

void probe_flush(struct probe *p)
{
    if (p->nrows > 0)
        exact_show(p->snapshot, p->view_index, p->rows, p->vectors, p->nrows, p->query);
    p->nrows = 0;
}

void probe_show(struct probe *p, uint32_t row, const float *vector)
{
    p->rows[p->nrows] = row;
    p->vectors[p->nrows++] = vector;
    if (p->nrows == PROBE_ROWS)
        probe_flush(p);
}

static void read_vectors(struct probe *p, uint32_t list)
{
    const struct segment *s = p->view->segment;
    uint32_t n, dim = p->a->shape.dim;
    const uint32_t *rows = ann_list(p->a, list, &n);
    for (uint32_t i = 0; i < n; i++) {
        if (!probe_allowed(p, rows[i]))
            continue;
        probe_show(p, rows[i], s->vectors + (size_t)rows[i] * dim);
        p->shown++;
    }
}

static void read_list(struct probe *p, uint32_t list)
{
    if (p->query_code)
        ivf_codes_read(p, list, p->a->codes + p->a->lists_at[list] * p->stride);
    else
        read_vectors(p, list);
}

/* A list was read: with a filter, one without a match counts less. */
static void count_list(struct probe *p, uint64_t before)
{
    bool counts = !p->allowed->filter || p->shown > before;
    p->read += counts;
    p->empty += !counts;
}

/* The next `most` lists, or fewer, from the files: those of a window come together. */
static enum err read_from_disk(struct probe *p, uint64_t most, struct err_ctx *ctx)
{
    uint32_t lists[DISK_LISTS_MAX], n = 0;
    while (n < most && n < DISK_LISTS_MAX && p->nheap > 0)
        lists[n++] = nearest_list(p);
    for (uint32_t at = 0, window; at < n; at += window) {
        window = ivf_disk_window(p, lists + at, n - at);
        RETURN_NOT_OK(ivf_disk_read(p, lists + at, window, count_list, ctx));
    }
    return ERR_OK;
}

/* How many more lists one without a match asks for: less when by chance alone many have none (of
 * Poisson's distribution), so that these never ask for one more each. */
static double empty_asks(const struct probe *p, double share)
{
    return EMPTY_ASKS * (1 - exp(-share * p->view->live / p->a->shape.nlist));
}

static uint64_t lists_wanted(const struct probe *p, uint32_t nprobe)
{
    return nprobe + (uint64_t)(p->empty * p->asks);
}

/* As many lists as are asked for, and on until enough rows were seen. */
static enum err read_lists(struct probe *p, uint32_t nprobe, uint64_t enough, struct err_ctx *ctx)
{
    while (p->nheap > 0 && (p->read < lists_wanted(p, nprobe) || p->shown < enough)) {
        uint64_t before = p->shown, wanted = lists_wanted(p, nprobe);
        if (p->query_code && p->a->reads) {
            wanted = wanted > p->read ? wanted - p->read : 1;
            RETURN_NOT_OK(read_from_disk(p, wanted, ctx));
            continue;
        }
        read_list(p, nearest_list(p));
        count_list(p, before);
    }
    return ERR_OK;
}

enum err ivf_search(const struct snapshot *s, const struct view_plan *plan, uint32_t nprobe,
                    struct collect *query, struct search_scratch *scratch, struct err_ctx *ctx)
{
    const struct ann_file *a = plan->a;
    struct probe p = {.snapshot = s,
                      .view = &s->views[plan->view],
                      .allowed = &plan->allowed,
                      .view_index = plan->view,
                      .a = a,
                      .query = query,
                      .scratch = scratch,
                      .heap = scratch_room(&scratch->lists, a->shape.nlist, sizeof(*p.heap)),
                      .rows = scratch_room(&scratch->rows, PROBE_ROWS, sizeof(uint32_t)),
                      .vectors = scratch_room(&scratch->pointers, PROBE_ROWS, sizeof(float *))};
    uint64_t enough = plan->allowed.filter ? (uint64_t)IVF_FILTERED * query->k : query->k;
    nprobe = probes(a, nprobe);
    uint64_t again = enough > nprobe ? enough : nprobe; /* more effort measures more again */
    if (!p.heap || !p.rows || !p.vectors || (nprobe < a->shape.nlist && !ivf_codes_use(&p, again)))
        return err_no_memory(ctx, a->shape.nlist * sizeof(*p.heap));
    p.asks = plan->allowed.filter ? empty_asks(&p, plan->share) : 0;
    order_lists(&p);
    RETURN_NOT_OK(read_lists(&p, nprobe, enough, ctx));
    if (p.query_code && a->reads)
        return ivf_disk_finish(&p, ctx);
    if (p.query_code)
        ivf_codes_finish(&p);
    probe_flush(&p);
    return ERR_OK;
}
