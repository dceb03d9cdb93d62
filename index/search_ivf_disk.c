/* Lists of codes and vectors that memory does not hold, read from their files.
 *
 *   lists, the nearest first ─ as many as are wanted, up to a window ─ all reads in flight ─> codes
 *        └─ at the end: the vectors of the nearest by code, in the order of the file, in flight
 *           together ─> measured in double where they were read to, and never touched in the map
 *
 * A map would bring one page at a time, each fault behind the one before, and read ahead what
 * nobody asked for. Reads go through the page cache, so that what is asked for often stays in
 * memory as long as there is some.
 *
 * Threads: per call, on the caller's scratch; it waits for the disk, so search_cost_us sends it to
 * a worker. Failure: ERR_IO, ERR_CORRUPT for a file cut short, no memory for the scratch. */
#include <stdlib.h>

#include "index/search_ivf_internal.h"
#include "io/io.h"

enum { WINDOW_BYTES = 8 << 20, ROWS_MAX = 1024 };

static uint64_t list_bytes(const struct probe *p, uint32_t list)
{
    return (p->a->lists_at[list + 1] - p->a->lists_at[list]) * (uint64_t)p->stride;
}

uint32_t ivf_disk_window(const struct probe *p, const uint32_t *lists, uint32_t n)
{
    uint64_t bytes = list_bytes(p, lists[0]);
    uint32_t i = 1;
    while (i < n && i < DISK_LISTS_MAX && (bytes += list_bytes(p, lists[i])) <= WINDOW_BYTES)
        i++;
    return i;
}

/* Room for n reads of `bytes` together, at a multiple of CODE_ALIGN. */
static uint8_t *make_room(struct probe *p, uint32_t n, uint64_t bytes, struct io_read **reads,
                          struct err_ctx *ctx)
{
    uint8_t *room = scratch_room(&p->scratch->read, bytes + CODE_ALIGN, 1);
    *reads = scratch_room(&p->scratch->reads, n, sizeof(**reads));
    if (room && *reads)
        return (uint8_t *)round_up((uintptr_t)room, CODE_ALIGN);
    (void)err_no_memory(ctx, bytes);
    return NULL;
}

enum err ivf_disk_read(struct probe *p, const uint32_t *lists, uint32_t n,
                       void (*was_read)(struct probe *p, uint64_t before), struct err_ctx *ctx)
{
    const struct ann_reads *r = p->a->reads;
    struct io_read *reads;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        bytes += list_bytes(p, lists[i]);
    uint8_t *room = make_room(p, n, bytes, &reads, ctx), *at = room;
    if (!room)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t from = p->a->lists_at[lists[i]] * (uint64_t)p->stride;
        reads[i] = (struct io_read){r->ann, at, list_bytes(p, lists[i]), r->codes_at + from};
        at += reads[i].n;
    }
    RETURN_NOT_OK(io_read_many(r->io, reads, n, ctx));
    for (uint32_t i = 0; i < n; i++) {
        uint64_t before = p->shown;
        ivf_codes_read(p, lists[i], reads[i].data);
        was_read(p, before);
    }
    return ERR_OK;
}

static int by_row(const void *a, const void *b)
{
    const struct code_row *x = a, *y = b;
    return (x->row > y->row) - (x->row < y->row);
}

/* The vectors of best[from ..), as many as fit. */
static enum err measure_some(struct probe *p, uint32_t from, uint32_t n, struct err_ctx *ctx)
{
    const struct ann_reads *r = p->a->reads;
    uint64_t vector = p->a->shape.dim * sizeof(float);
    struct io_read *reads;
    uint8_t *room = make_room(p, n, n * vector, &reads, ctx);
    if (!room)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < n; i++)
        reads[i] = (struct io_read){r->segment, room + i * vector, vector,
                                    r->vectors_at + p->best[from + i].row * vector};
    RETURN_NOT_OK(io_read_many(r->io, reads, n, ctx));
    for (uint32_t i = 0; i < n; i++)
        collect_measure_vector(p->query, (struct row_ref){p->view_index, p->best[from + i].row},
                               reads[i].data);
    return ERR_OK;
}

enum err ivf_disk_finish(struct probe *p, struct err_ctx *ctx)
{
    uint64_t vector = p->a->shape.dim * sizeof(float);
    uint32_t most = WINDOW_BYTES / vector < ROWS_MAX ? (uint32_t)(WINDOW_BYTES / vector) : ROWS_MAX;
    qsort(p->best, p->nbest, sizeof(*p->best), by_row);
    for (uint32_t from = 0, n; from < p->nbest; from += n) {
        n = p->nbest - from < most ? p->nbest - from : most;
        RETURN_NOT_OK(measure_some(p, from, n, ctx));
    }
    return ERR_OK;
}
