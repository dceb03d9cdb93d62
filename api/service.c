/* What every request shares.
 *
 * Invariant: `suspended` counts every connection that the library holds suspended. It is raised
 * before `closed` is read, and the stopping thread sets `closed` before it reads `suspended`, so
 * that one of the two sees the other.
 *
 * Threads: everything is atomic. Failure: ERR_BUSY names the limit. */
#include "api/service.h"

enum { SMALL_BODY_BYTES = 1 << 20 };

/* Large bodies leave a quarter to the small ones: uploads, however slow, never shut out searches
 * and loads of a few rows. */
uint64_t service_large_bodies_max(const struct limits *l)
{
    return l->buffer_bytes_max - l->buffer_bytes_max / 4;
}

enum err service_reserve(struct service *s, uint64_t held, uint64_t n, struct err_ctx *ctx)
{
    bool small = held + n <= SMALL_BODY_BYTES;
    uint64_t max = small ? s->limits.buffer_bytes_max : service_large_bodies_max(&s->limits);
    uint64_t before = atomic_load(&s->buffer_bytes);
    while (before + n <= max) {
        if (atomic_compare_exchange_weak(&s->buffer_bytes, &before, before + n))
            return ERR_OK;
    }
    return err_set(ctx, ERR_BUSY,
                   "too many%s bodies are arriving at once (%sbuffer_bytes_max, %llu bytes): try "
                   "again in a moment",
                   small ? "" : " large", small ? "" : "three quarters of ",
                   (unsigned long long)s->limits.buffer_bytes_max);
}

void service_unreserve(struct service *s, uint64_t n)
{
    atomic_fetch_sub(&s->buffer_bytes, n);
}

bool service_suspend(struct service *s, struct MHD_Connection *conn)
{
    atomic_fetch_add(&s->suspended, 1);
    if (atomic_load(&s->closed)) {
        atomic_fetch_sub(&s->suspended, 1);
        return false;
    }
    MHD_suspend_connection(conn);
    return true;
}

void service_resume(struct service *s, struct MHD_Connection *conn)
{
    MHD_resume_connection(conn);
    atomic_fetch_sub(&s->suspended, 1);
}
