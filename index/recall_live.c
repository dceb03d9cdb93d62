/* The sampler: a few live queries are searched again, and what that says of recall goes into the
 * curves.
 *
 *   search ─ 1 query in SAMPLE_FIRST, later in SAMPLE_THEN ─ trylock ─ copy ─> ring of SLOTS
 *                                                   └ held, or full: dropped, counted
 *   sampler thread, idle priority ─ exact search ─ walks at the points of the curves, until all is
 *   found ─> recall_hear of each view that holds true neighbours
 *
 * A hit is missed by the view that holds it, so each view hears of its own. Views that this kind of
 * search scans have nothing to learn.
 *
 * The copy is of the query and of the filter's text, into memory that slots keep; the sampler grows
 * what is too small. A query in the ring holds its snapshot.
 *
 * Threads: any number offers, one thread takes. At idle priority that thread may stand still for
 * long: it holds the ring's lock for the swap of two pointers only, which nobody waits for, and
 * long scans keep no epoch. Failure: a sample that can't be made is dropped and counted. */
#include "index/recall_live.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "base/epoch.h"
#include "base/metrics.h"

METRIC_COUNTER(samples, "loadstone_recall_samples_total",
               "Live queries that were searched again exactly.")
METRIC_COUNTER(drops, "loadstone_recall_samples_dropped_total",
               "Live queries picked for that, but not searched: too many at once, or a failure.")

enum {
    SLOTS = 64,
    SAMPLE_FIRST = 4,
    SAMPLE_THEN = 32,
    FIRST_HEARD = 128, /* queries of a class until the rate falls */
    K_MAX = 1000,
    DIM_FIRST = 2048,  /* that slots have room for from the start */
    GROUP_MOST = 2,    /* of the queries that are searched together */
    FILTER_ROWS = 1024 /* looked at to tell the class of a filter */
};

/* A query that waits. */
struct sampled {
    struct snapshot *snapshot; /* referenced */
    uint32_t k;
    struct row_ref exclude;
    bool filtered;
    float *query;
    uint32_t query_max; /* floats that `query` has room for */
    struct buf filter;  /* normal form */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread;
    unsigned users;
    atomic_bool running; /* offers are taken */
    atomic_bool stop;
    struct sampled *slots[SLOTS];
    unsigned first, count;
    struct sampled *spare; /* the sampler's, swapped for one that waits */
    atomic_uint dim_wanted;
    atomic_uint waiting; /* count, and the one that is searched again */
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

/* ---- offering ---- */

static unsigned class_of(const struct view_plan *plan)
{
    return recall_class(plan->allowed.filter, plan->share);
}

/* One query in how many; 0: none, since no view has anything to learn. */
static unsigned rate_of(const struct snapshot *s, const struct search_params *p,
                        const struct view_plan *plan)
{
    unsigned rate = 0;
    double times;
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct recall_curve *c = plan[i].a ? plan[i].a->curve : NULL;
        const struct recall_list *l = c ? recall_list_of(c, p->k, &times) : NULL;
        if (!l || s->views[i].live == 0)
            continue;
        unsigned heard = atomic_load_explicit(&c->nheard[l - c->lists][class_of(&plan[i])],
                                              memory_order_relaxed);
        if (heard < FIRST_HEARD)
            return SAMPLE_FIRST;
        rate = SAMPLE_THEN;
    }
    return rate;
}

/* Under the lock: copies into the next free slot; false when there is none, or it is too small. */
static bool copy_in(const struct snapshot *s, const float *query, const struct search_params *p,
                    struct row_ref exclude)
{
    uint32_t dim = s->schema->dim;
    if (!atomic_load_explicit(&ring.running, memory_order_relaxed) || ring.count == SLOTS)
        return false;
    struct sampled *to = ring.slots[(ring.first + ring.count) % SLOTS];
    if (to->query_max < dim) {
        if (atomic_load_explicit(&ring.dim_wanted, memory_order_relaxed) < dim)
            atomic_store_explicit(&ring.dim_wanted, dim, memory_order_relaxed);
        return false;
    }
    buf_reset(&to->filter);
    if (p->filter)
        filter_normal(p->filter, &to->filter);
    if (to->filter.failed)
        return false;
    memcpy(to->query, query, dim * sizeof(float));
    to->snapshot = snapshot_acquire((struct snapshot *)s);
    to->k = p->k;
    to->exclude = exclude;
    to->filtered = p->filter != NULL;
    ring.count++;
    atomic_fetch_add_explicit(&ring.waiting, 1, memory_order_relaxed);
    return true;
}

static void offer_one(const struct snapshot *s, const float *query, const struct search_params *p,
                      struct row_ref exclude)
{
    bool taken = false, was_empty = false;
    if (pthread_mutex_trylock(&ring.lock) == 0) {
        was_empty = ring.count == 0;
        taken = copy_in(s, query, p, exclude);
        pthread_mutex_unlock(&ring.lock);
    }
    if (!taken)
        metric_add(&drops, 0, 1);
    if (was_empty) /* too small a slot: the sampler mends that */
        pthread_cond_signal(&ring.more);
}

void recall_live_offer(const struct snapshot *s, const float *queries, size_t nq,
                       const struct search_params *p, size_t first, const struct view_plan *plan)
{
    static __thread unsigned tick;
    if (p->exact || p->unsampled || p->bounded || p->k > K_MAX ||
        !atomic_load_explicit(&ring.running, memory_order_relaxed))
        return;
    unsigned rate = rate_of(s, p, plan);
    if (rate && nq / rate > GROUP_MOST) /* the first of a batch would fill the ring */
        rate = (unsigned)(nq / GROUP_MOST);
    for (size_t i = 0; rate && i < nq; i++) {
        if (++tick < rate)
            continue;
        tick = 0;
        struct row_ref none = {UINT32_MAX, 0};
        offer_one(s, queries + i * s->schema->dim, p, p->exclude ? p->exclude[first + i] : none);
    }
}

/* ---- searching again ---- */

/* A view that learns. */
struct pupil {
    uint32_t view, list, points;
    unsigned class;
    const struct ann_file *a; /* to be compared only, outside of epoch sections */
    double times;
    uint32_t efforts[RECALL_POINTS];
    uint32_t wanted, found; /* true neighbours that it holds */
    uint32_t tried;
    float recall[RECALL_POINTS];
};

struct lesson {
    const struct snapshot *snapshot;
    const struct sampled *query;
    struct filter *filter;
    struct pupil *pupils;
    uint32_t npupils;
    uint32_t *efforts; /* per view */
    struct hit *truth, *hits;
    uint32_t ntruth, nhits;
};

static void enrol(struct lesson *l, uint32_t view)
{
    const struct view *v = &l->snapshot->views[view];
    const struct ann_file *a = segment_ann(v->segment);
    double times;
    const struct recall_list *list =
        a && a->curve ? recall_list_of(a->curve, l->query->k, &times) : NULL;
    if (!list || v->live == 0)
        return;
    double share = l->filter ? filter_share(l->filter, v, FILTER_ROWS) : 1;
    struct pupil *p = &l->pupils[l->npupils++];
    *p = (struct pupil){.view = view,
                        .list = (uint32_t)(list - a->curve->lists),
                        .points = list->n,
                        .class = recall_class(l->filter, share),
                        .a = a,
                        .times = times};
    for (uint32_t i = 0; i < list->n; i++)
        p->efforts[i] = (uint32_t)(list->points[i].effort * times + 0.5);
}

static enum err search(struct lesson *l, struct search_params *p, struct hit *hits, uint32_t *n,
                       struct err_ctx *ctx)
{
    struct search_scratch *scratch = search_scratch_local();
    if (!scratch)
        return err_no_memory(ctx, 0);
    p->k = l->query->k;
    p->filter = l->filter;
    p->exclude = &l->query->exclude;
    p->cancel = &ring.stop;
    p->unsampled = true;
    return search_run(l->snapshot, l->query->query, 1, p, scratch, hits, n, ctx);
}

static void count_wanted(struct lesson *l)
{
    for (uint32_t i = 0; i < l->npupils; i++)
        for (uint32_t j = 0; j < l->ntruth; j++)
            l->pupils[i].wanted += l->truth[j].ref.view == l->pupils[i].view;
}

/* Hits no farther than the last true one, by view; true when nobody missed any. */
static bool mark(struct lesson *l, uint32_t point)
{
    double last = l->truth[l->ntruth - 1].distance;
    bool all = true;
    for (uint32_t i = 0; i < l->npupils; i++) {
        struct pupil *p = &l->pupils[i];
        p->found = 0;
        for (uint32_t j = 0; j < l->nhits; j++)
            p->found += l->hits[j].ref.view == p->view && l->hits[j].distance <= last;
        p->found = p->found < p->wanted ? p->found : p->wanted;
        all = all && p->found == p->wanted;
        if (point < p->points && p->wanted) {
            p->recall[point] = (float)p->found / (float)p->wanted;
            p->tried = point + 1;
        }
    }
    return all;
}

static enum err try_points(struct lesson *l, struct err_ctx *ctx)
{
    bool more = true;
    for (uint32_t point = 0; more; point++) {
        struct search_params p = {.efforts = l->efforts};
        more = false;
        for (uint32_t i = 0; i < l->npupils; i++) {
            const struct pupil *u = &l->pupils[i];
            l->efforts[u->view] = u->efforts[point < u->points ? point : u->points - 1];
            more = more || point + 1 < u->points;
        }
        RETURN_NOT_OK(search(l, &p, l->hits, &l->nhits, ctx));
        if (mark(l, point))
            return ERR_OK;
    }
    return ERR_OK;
}

/* Into the curves, unless a structure was replaced meanwhile. */
static void teach(const struct lesson *l)
{
    epoch_enter();
    for (uint32_t i = 0; i < l->npupils; i++) {
        const struct pupil *p = &l->pupils[i];
        const struct ann_file *a = segment_ann(l->snapshot->views[p->view].segment);
        if (a == p->a && p->wanted && a->curve && p->list < a->curve->nlists)
            recall_hear(a->curve, p->list, p->class, p->recall, p->tried);
    }
    epoch_leave();
}

static enum err hold_lesson(struct lesson *l, struct err_ctx *ctx)
{
    struct search_params exact = {.exact = true};
    epoch_enter();
    for (uint32_t i = 0; i < l->snapshot->nviews; i++)
        enrol(l, i);
    epoch_leave();
    if (l->npupils == 0)
        return ERR_OK;
    RETURN_NOT_OK(search(l, &exact, l->truth, &l->ntruth, ctx));
    count_wanted(l);
    if (l->ntruth == 0)
        return ERR_OK;
    RETURN_NOT_OK(try_points(l, ctx));
    teach(l);
    return ERR_OK;
}

static enum err search_again(const struct sampled *q, struct err_ctx *ctx)
{
    const struct snapshot *s = q->snapshot;
    struct lesson l = {.snapshot = s,
                       .query = q,
                       .pupils = calloc(s->nviews, sizeof(*l.pupils)),
                       .efforts = calloc(s->nviews, sizeof(*l.efforts)),
                       .truth = calloc(q->k, sizeof(*l.truth)),
                       .hits = calloc(q->k, sizeof(*l.hits))};
    enum err e = l.pupils && l.efforts && l.truth && l.hits
                     ? ERR_OK
                     : err_no_memory(ctx, s->nviews * sizeof(*l.pupils));
    if (e == ERR_OK && q->filtered)
        e = filter_parse(s->schema, (const char *)q->filter.data, q->filter.len, &l.filter, ctx);
    if (e == ERR_OK)
        e = hold_lesson(&l, ctx);
    filter_free(l.filter);
    free(l.pupils);
    free(l.efforts);
    free(l.truth);
    free(l.hits);
    return e;
}

/* ---- the thread ---- */

unsigned recall_live_waiting(void)
{
    return atomic_load(&ring.waiting);
}

static struct sampled *sampled_new(void)
{
    struct sampled *q = calloc(1, sizeof(*q));
    if (!q)
        return NULL;
    q->query = malloc(DIM_FIRST * sizeof(float));
    q->query_max = q->query ? DIM_FIRST : 0;
    return q;
}

static void sampled_free(struct sampled *q)
{
    if (!q)
        return;
    free(q->query);
    buf_deinit(&q->filter);
    free(q);
}

/* Waits for a query; NULL when there is none: it ends, or slots are too small. */
static struct sampled *take(void)
{
    struct sampled *q = NULL;
    pthread_mutex_lock(&ring.lock);
    unsigned dim = ring.slots[0]->query_max;
    while (ring.count == 0 && !atomic_load(&ring.stop) && atomic_load(&ring.dim_wanted) <= dim)
        pthread_cond_wait(&ring.more, &ring.lock);
    if (ring.count > 0 && !atomic_load(&ring.stop)) {
        q = ring.slots[ring.first];
        ring.slots[ring.first] = ring.spare;
        ring.spare = q;
        ring.first = (ring.first + 1) % SLOTS;
        ring.count--;
    }
    pthread_mutex_unlock(&ring.lock);
    return q;
}

static void drop_waiting(void)
{
    atomic_fetch_sub(&ring.waiting, ring.count);
    for (; ring.count > 0; ring.count--) {
        snapshot_release(ring.slots[ring.first]->snapshot);
        ring.first = (ring.first + 1) % SLOTS;
    }
}

/* Gives every slot room for the dimensions that came; the few that wait are dropped. */
static void grow_slots(void)
{
    unsigned dim = atomic_load(&ring.dim_wanted);
    pthread_mutex_lock(&ring.lock);
    metric_add(&drops, 0, ring.count);
    drop_waiting();
    for (unsigned i = 0; i <= SLOTS; i++) {
        struct sampled *q = i < SLOTS ? ring.slots[i] : ring.spare;
        float *more = q->query_max < dim ? realloc(q->query, dim * sizeof(float)) : NULL;
        if (more) {
            q->query = more;
            q->query_max = dim;
        }
    }
    if (ring.slots[0]->query_max < dim) /* no memory: until another asks */
        atomic_store(&ring.dim_wanted, 0);
    pthread_mutex_unlock(&ring.lock);
}

static void *sampler(void *arg)
{
    struct sched_param none = {0};
    (void)arg;
    sched_setscheduler(0, SCHED_IDLE, &none); /* of this thread; refused: it runs like others */
    while (!atomic_load(&ring.stop)) {
        struct err_ctx ctx;
        struct sampled *q = take();
        err_clear(&ctx);
        if (!q) {
            if (!atomic_load(&ring.stop))
                grow_slots();
            continue;
        }
        metric_add(search_again(q, &ctx) == ERR_OK ? &samples : &drops, 0, 1);
        snapshot_release(q->snapshot);
        atomic_fetch_sub(&ring.waiting, 1);
    }
    return NULL;
}

static void free_slots(void)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        sampled_free(ring.slots[i]);
        ring.slots[i] = NULL;
    }
    sampled_free(ring.spare);
    ring.spare = NULL;
}

static enum err start_thread(struct err_ctx *ctx)
{
    bool ok = (ring.spare = sampled_new()) != NULL;
    for (unsigned i = 0; i < SLOTS; i++)
        ok = (ring.slots[i] = sampled_new()) && ok;
    ring.first = ring.count = 0;
    atomic_store(&ring.stop, false);
    atomic_store(&ring.dim_wanted, 0);
    int failed = ok ? pthread_create(&ring.thread, NULL, sampler, NULL) : ENOMEM;
    if (failed) {
        free_slots();
        return err_system(ctx, failed, "cannot start the thread that samples recall");
    }
    pthread_setname_np(ring.thread, "recall");
    atomic_store(&ring.running, true);
    return ERR_OK;
}

enum err recall_live_start(struct err_ctx *ctx)
{
    if (ring.users == 0)
        RETURN_NOT_OK(start_thread(ctx));
    ring.users++;
    return ERR_OK;
}

void recall_live_stop(void)
{
    if (--ring.users > 0)
        return;
    pthread_mutex_lock(&ring.lock);
    atomic_store(&ring.running, false);
    atomic_store(&ring.stop, true);
    pthread_cond_signal(&ring.more);
    pthread_mutex_unlock(&ring.lock);
    pthread_join(ring.thread, NULL);
    pthread_mutex_lock(&ring.lock); /* who offers may still look at the ring */
    drop_waiting();
    free_slots();
    pthread_mutex_unlock(&ring.lock);
}
