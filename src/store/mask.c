/* Masks: copy-on-write bitmaps of dead rows.
 *
 * Invariant: a page with refs > 1, and every page of a mask that a snapshot can reach, is never
 * written. mask_edit shares all pages; mask_set copies a page the first time it is touched. The
 * single writer is the holder of the collection's commit lock. */
#include "store/mask.h"

#include <roaring/roaring.h>

struct mask *mask_acquire(struct mask *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

static void page_release(struct mask_page *p)
{
    if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        free(p);
}

void mask_release(struct mask *m)
{
    if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < m->npages; i++)
        page_release(m->pages[i]);
    free(m);
}

struct mask *mask_edit(const struct mask *m, uint32_t rows)
{
    uint32_t npages = (uint32_t)(((uint64_t)rows + MASK_PAGE_BITS - 1) >> 16);
    if (m && m->npages > npages)
        npages = m->npages;
    struct mask *copy = calloc(1, sizeof *copy + npages * sizeof copy->pages[0]);
    if (!copy)
        return NULL;
    atomic_init(&copy->refs, 1);
    copy->npages = npages;
    copy->count = m ? m->count : 0;
    for (uint32_t i = 0; m && i < m->npages; i++) {
        if (!m->pages[i])
            continue;
        copy->pages[i] = m->pages[i];
        atomic_fetch_add_explicit(&m->pages[i]->refs, 1, memory_order_relaxed);
    }
    return copy;
}

static struct mask_page *own_page(struct mask *m, uint32_t index)
{
    struct mask_page *p = m->pages[index];
    if (p && atomic_load_explicit(&p->refs, memory_order_acquire) == 1)
        return p;
    struct mask_page *own = malloc(sizeof *own);
    if (!own)
        return NULL;
    if (p) {
        own->count = p->count;
        memcpy(own->words, p->words, sizeof own->words);
        page_release(p);
    } else {
        own->count = 0;
        memset(own->words, 0, sizeof own->words);
    }
    atomic_init(&own->refs, 1);
    return m->pages[index] = own;
}

bool mask_set(struct mask *m, uint32_t row, bool *was)
{
    *was = mask_get(m, row);
    if (*was)
        return true;
    ASSERT(row >> 16 < m->npages);
    struct mask_page *p = own_page(m, row >> 16);
    if (!p)
        return false;
    p->words[(row & 0xffff) >> 6] |= 1ull << (row & 63);
    p->count++;
    m->count++;
    return true;
}

bool mask_encode(const struct mask *m, struct buf *out)
{
    roaring_bitmap_t *r = roaring_bitmap_create();
    if (!r)
        return false;
    for (uint32_t i = 0; m && i < m->npages; i++) {
        for (uint32_t w = 0; m->pages[i] && w < MASK_PAGE_WORDS; w++) {
            for (uint64_t bits = m->pages[i]->words[w]; bits; bits &= bits - 1)
                roaring_bitmap_add(r, i << 16 | w << 6 | (uint32_t)__builtin_ctzll(bits));
        }
    }
    roaring_bitmap_run_optimize(r);
    size_t n = roaring_bitmap_portable_size_in_bytes(r);
    void *p = buf_extend(out, n);
    if (p)
        roaring_bitmap_portable_serialize(r, p);
    roaring_bitmap_free(r);
    return p != NULL;
}

static bool set_from(uint32_t row, void *arg)
{
    bool was;
    return mask_set(arg, row, &was);
}

enum err mask_from(const struct roaring_bitmap_s *r, uint32_t from, uint32_t rows,
                   struct mask **out, struct err_ctx *ctx)
{
    bool was, ok = true;
    *out = NULL;
    if ((!r || roaring_bitmap_is_empty(r)) && from >= rows)
        return ERR_OK;
    struct mask *m = mask_edit(NULL, rows);
    if (m && r)
        ok = roaring_iterate(r, set_from, m);
    for (uint32_t row = from; m && ok && row < rows; row++)
        ok = mask_set(m, row, &was);
    if (!m || !ok) {
        mask_release(m);
        return err_no_memory(ctx, rows / 8);
    }
    *out = m;
    return ERR_OK;
}

enum err mask_decode(const void *data, size_t n, uint32_t rows, struct mask **out,
                     struct err_ctx *ctx)
{
    roaring_bitmap_t *r = roaring_bitmap_portable_deserialize_safe(data, n);
    if (!r)
        return err_set(ctx, ERR_CORRUPT, "a row mask is damaged");
    enum err e = ERR_OK;
    struct mask *m = NULL;
    if (!roaring_bitmap_is_empty(r)) {
        if (roaring_bitmap_maximum(r) >= rows)
            e = err_set(ctx, ERR_CORRUPT, "a row mask names row %u of a segment with %u rows",
                        roaring_bitmap_maximum(r), rows);
        else if (!(m = mask_edit(NULL, rows)) || !roaring_iterate(r, set_from, m))
            e = err_no_memory(ctx, rows / 8);
    }
    roaring_bitmap_free(r);
    if (e != ERR_OK) {
        mask_release(m);
        return e;
    }
    *out = m;
    return ERR_OK;
}
