/* Watched mappings: a list of slots that is only ever appended to, so that the signal handler walks
 * it without a lock.
 *
 *   block ─► slot slot slot ... ─► block ─► ...       slot: [start, end), path, first failure
 *
 * A thread that faults reads a mapping that it holds, whose slot is therefore complete; a slot that
 * another thread fills or empties meanwhile has an `end` of 0 and matches nothing. Paths are
 * touched under the lock only, which the handler never takes.
 *
 * Failure: a page of zeros that cannot be mapped ends the process, as an unwatched SIGBUS does. */
#include "io/mapping.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 64 };

struct mapping {
    _Atomic uintptr_t start, end;
    _Atomic uint64_t failed; /* offset + 1 of the first page that failed; 0 = none */
    char *path;              /* NULL: free */
};

struct block {
    struct mapping slots[SLOTS];
    struct block *_Atomic next;
};

static struct block first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* paths, and who has which slot */
static atomic_uint faults;
static atomic_uint failed_now; /* watched mappings that failed */
static uintptr_t page_bytes;

/* ---- the handler: nothing here may lock or allocate ---- */

static struct mapping *find(uintptr_t at)
{
    for (struct block *b = &first; b; b = atomic_load(&b->next)) {
        for (int i = 0; i < SLOTS; i++) {
            struct mapping *m = &b->slots[i];
            if (at < atomic_load(&m->end) && at >= atomic_load(&m->start))
                return m;
        }
    }
    return NULL;
}

static bool supply_zeros(uintptr_t at)
{
    void *page = (void *)(at & ~(page_bytes - 1));
    return mmap(page, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
           page;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    struct mapping *m = find(at);
    uint64_t none = 0;
    (void)context;
    if (!m || !supply_zeros(at)) {
        signal(number, SIG_DFL); /* the same instruction faults again, and ends the process */
        return;
    }
    atomic_fetch_add(&faults, 1);
    if (atomic_compare_exchange_strong(&m->failed, &none, at - atomic_load(&m->start) + 1))
        atomic_fetch_add(&failed_now, 1);
    errno = saved;
}

enum err mapping_catch_faults(struct err_ctx *ctx)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_RESTART};
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (sigaction(SIGBUS, &action, NULL) != 0)
        return err_system(ctx, errno, "catching SIGBUS");
    return ERR_OK;
}

/* ---- watching ---- */

/* With the lock. */
static struct mapping *free_slot(void)
{
    struct block *b = &first;
    for (;; b = atomic_load(&b->next)) {
        for (int i = 0; i < SLOTS; i++) {
            if (!b->slots[i].path)
                return &b->slots[i];
        }
        if (!atomic_load(&b->next))
            break;
    }
    struct block *fresh = calloc(1, sizeof *fresh);
    atomic_store(&b->next, fresh);
    return fresh ? &fresh->slots[0] : NULL;
}

enum err mapping_watch(const void *start, size_t n, const char *path, struct mapping **out,
                       struct err_ctx *ctx)
{
    char *copy = strdup(path);
    pthread_mutex_lock(&lock);
    struct mapping *m = copy ? free_slot() : NULL;
    if (m) {
        m->path = copy;
        atomic_store(&m->failed, 0);
        atomic_store(&m->start, (uintptr_t)start);
        atomic_store(&m->end, (uintptr_t)start + n);
    }
    pthread_mutex_unlock(&lock);
    if (!m) {
        free(copy);
        return err_no_memory(ctx, sizeof(struct block));
    }
    *out = m;
    return ERR_OK;
}

void mapping_unwatch(struct mapping *m)
{
    if (!m)
        return;
    pthread_mutex_lock(&lock);
    atomic_store(&m->end, 0);
    if (atomic_exchange(&m->failed, 0))
        atomic_fetch_sub(&failed_now, 1);
    free(m->path);
    m->path = NULL;
    pthread_mutex_unlock(&lock);
}

/* ---- asking ---- */

unsigned mapping_faults(void)
{
    return atomic_load(&faults);
}

static bool lies_under(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && path[n] == '/';
}

/* With the lock. */
static const struct mapping *failed_under(const char *dir)
{
    for (struct block *b = &first; b; b = atomic_load(&b->next)) {
        for (int i = 0; i < SLOTS; i++) {
            const struct mapping *m = &b->slots[i];
            if (m->path && atomic_load(&m->failed) && lies_under(m->path, dir))
                return m;
        }
    }
    return NULL;
}

enum err mapping_check(const char *dir, struct err_ctx *ctx)
{
    if (!atomic_load(&failed_now))
        return ERR_OK;
    pthread_mutex_lock(&lock);
    const struct mapping *m = failed_under(dir);
    enum err e = ERR_OK;
    if (m)
        e = err_set(ctx, ERR_CORRUPT,
                    "%s: offset %llu: the file cannot be read there: it was cut short, or the disk "
                    "failed",
                    m->path, (unsigned long long)atomic_load(&m->failed) - 1);
    pthread_mutex_unlock(&lock);
    return e;
}

enum err mapping_check_since(unsigned before, struct err_ctx *ctx)
{
    if (mapping_faults() == before)
        return ERR_OK;
    return err_set(ctx, ERR_UNAVAILABLE,
                   "a data file could not be read meanwhile; try again: what is damaged is "
                   "quarantined and listed by /readyz");
}
