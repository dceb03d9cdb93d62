/* The index of receipts.
 *
 *   by key  -> chain of entries        entries, oldest first: |....|....|....|
 *   by load -> chain of entries                               first ------> last
 *
 * Entries lie in one array and name each other by number + 1; free ones are chained through `next`.
 * The log is the truth: the index can be thrown away at any time and is then built from the
 * history when it is next asked (`filled`).
 *
 * Threads: one lock; it is held while the history is read, so only workers come here. Failure: an
 * index that could not be built answers with the reason: no request that may be a repetition runs
 * without having been looked up. */
#include "store/receipt.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/hash.h"
#include "store/collection_internal.h"
#include "store/receipt_internal.h"
#include "store/version.h"

enum { BUCKETS_MIN = 64, RECEIPTS_MIN = 16, RECEIPTS_STANDARD = 1000000, KEY_BYTES = 8 + 16 };

struct entry {
    struct receipt r;
    uint32_t key_next, load_next; /* in the chain of a bucket */
    uint32_t prev, next;          /* by age */
};

struct receipt_claim {
    uint8_t key[16];
    struct receipt_claim *next;
};

struct receipts {
    pthread_mutex_t lock;
    bool filled;
    size_t max;
    struct entry *entries;
    uint32_t n, cap, used; /* alive, allocated, ever used */
    uint32_t free, first, last;
    uint32_t *by_key, *by_load; /* nbuckets each */
    size_t nbuckets;
    struct receipt_claim *claims;
};

struct receipts *receipts_new(void)
{
    struct receipts *all = calloc(1, sizeof *all);
    if (all)
        pthread_mutex_init(&all->lock, NULL);
    if (all)
        all->max = RECEIPTS_STANDARD;
    return all;
}

static void forget_all(struct receipts *all)
{
    free(all->entries);
    free(all->by_key);
    free(all->by_load);
    all->entries = NULL;
    all->by_key = all->by_load = NULL;
    all->n = all->cap = all->used = all->free = all->first = all->last = 0;
    all->nbuckets = 0;
    all->filled = false;
}

void receipts_free(struct receipts *all)
{
    if (!all)
        return;
    ASSERT(!all->claims);
    forget_all(all);
    pthread_mutex_destroy(&all->lock);
    free(all);
}

/* ---- chains ---- */

/* Keys and ids are hashes or random: their first bytes spread well. */
static size_t bucket_of(const struct receipts *all, const uint8_t id[16])
{
    uint64_t v;
    memcpy(&v, id, sizeof v);
    return v & (all->nbuckets - 1);
}

static void link_chains(struct receipts *all, uint32_t number)
{
    struct entry *e = &all->entries[number - 1];
    if (e->r.keyed) {
        uint32_t *head = &all->by_key[bucket_of(all, e->r.key)];
        e->key_next = *head;
        *head = number;
    }
    if (e->r.of_load) {
        uint32_t *head = &all->by_load[bucket_of(all, e->r.load_id)];
        e->load_next = *head;
        *head = number;
    }
}

static void unlink_chains(struct receipts *all, uint32_t number)
{
    struct entry *e = &all->entries[number - 1];
    uint32_t *at;
    if (e->r.keyed) {
        for (at = &all->by_key[bucket_of(all, e->r.key)]; *at != number;)
            at = &all->entries[*at - 1].key_next;
        *at = e->key_next;
    }
    if (e->r.of_load) {
        for (at = &all->by_load[bucket_of(all, e->r.load_id)]; *at != number;)
            at = &all->entries[*at - 1].load_next;
        *at = e->load_next;
    }
}

static uint32_t find_key(const struct receipts *all, const uint8_t key[16])
{
    if (!all->nbuckets)
        return 0;
    for (uint32_t i = all->by_key[bucket_of(all, key)]; i; i = all->entries[i - 1].key_next) {
        if (memcmp(all->entries[i - 1].r.key, key, 16) == 0)
            return i;
    }
    return 0;
}

static uint32_t find_load(const struct receipts *all, const uint8_t id[16])
{
    if (!all->nbuckets)
        return 0;
    for (uint32_t i = all->by_load[bucket_of(all, id)]; i; i = all->entries[i - 1].load_next) {
        if (memcmp(all->entries[i - 1].r.load_id, id, 16) == 0)
            return i;
    }
    return 0;
}

/* ---- entries ---- */

static void drop(struct receipts *all, uint32_t number)
{
    struct entry *e = &all->entries[number - 1];
    unlink_chains(all, number);
    *(e->prev ? &all->entries[e->prev - 1].next : &all->first) = e->next;
    *(e->next ? &all->entries[e->next - 1].prev : &all->last) = e->prev;
    e->next = all->free;
    all->free = number;
    all->n--;
}

static bool grow_buckets(struct receipts *all)
{
    size_t n = all->nbuckets ? all->nbuckets * 2 : BUCKETS_MIN;
    uint32_t *by_key = calloc(n, sizeof *by_key), *by_load = calloc(n, sizeof *by_load);
    if (!by_key || !by_load) {
        free(by_key);
        free(by_load);
        return false;
    }
    free(all->by_key);
    free(all->by_load);
    all->by_key = by_key;
    all->by_load = by_load;
    all->nbuckets = n;
    for (uint32_t i = all->first; i; i = all->entries[i - 1].next)
        link_chains(all, i);
    return true;
}

static bool grow_entries(struct receipts *all)
{
    uint32_t cap = all->cap ? all->cap * 2 : RECEIPTS_MIN;
    struct entry *grown = realloc(all->entries, cap * sizeof *grown);
    if (!grown)
        return false;
    all->entries = grown;
    all->cap = cap;
    return true;
}

static bool put(struct receipts *all, const struct receipt *r)
{
    if (all->n >= all->nbuckets && !grow_buckets(all))
        return false;
    if (!all->free && all->used == all->cap && !grow_entries(all))
        return false;
    uint32_t number = all->free ? all->free : ++all->used;
    struct entry *e = &all->entries[number - 1];
    if (number == all->free)
        all->free = e->next;
    *e = (struct entry){.r = *r, .prev = all->last};
    *(all->last ? &all->entries[all->last - 1].next : &all->first) = number;
    all->last = number;
    all->n++;
    link_chains(all, number);
    return true;
}

/* A key that comes again stands for its last request; a load that had it is still known by its id.
 */
static void give_up_key(struct receipts *all, uint32_t number)
{
    if (!all->entries[number - 1].r.of_load) {
        drop(all, number);
        return;
    }
    unlink_chains(all, number);
    all->entries[number - 1].r.keyed = false;
    link_chains(all, number);
}

/* What a load's opening left is taken over by what its commit adds, but for a key that was given
 * up since. */
static bool put_merged(struct receipts *all, const struct receipt *r)
{
    struct receipt merged = *r;
    uint32_t same = r->of_load ? find_load(all, r->load_id) : 0;
    if (same) {
        const struct receipt *old = &all->entries[same - 1].r;
        if (!merged.keyed && old->keyed) {
            merged.keyed = true;
            memcpy(merged.key, old->key, sizeof merged.key);
            memcpy(merged.hash, old->hash, sizeof merged.hash);
        }
        if (!old->keyed && !old->committed)
            merged.keyed = false;
        if (!merged.expires_us)
            merged.expires_us = old->expires_us;
        if (old->committed && !merged.committed)
            return true;
        drop(all, same);
    }
    if (merged.keyed && (same = find_key(all, merged.key)))
        give_up_key(all, same);
    while (all->n >= all->max)
        drop(all, all->first);
    return put(all, &merged);
}

static bool is_over(const struct receipt *r, int64_t now_us)
{
    return now_us - r->time_us > (r->of_load ? RECEIPT_LOAD_US : RECEIPT_KEY_US);
}

static bool key_is_over(const struct receipt *r, int64_t now_us)
{
    return now_us - r->time_us > RECEIPT_KEY_US;
}

/* ---- from the log ---- */

void receipt_hash_key(const char *key, size_t len, uint8_t out[16])
{
    struct hash128 h = hash128(key, len);
    memcpy(out, &h, 16);
}

void receipt_encode_key(const uint8_t key[16], int64_t expires_us, struct buf *out)
{
    buf_put_u64(out, (uint64_t)expires_us);
    buf_put(out, key, 16);
}

struct fill {
    struct receipts *all;
    bool failed;
};

static bool fill_one(void *arg, const struct commit_meta *m)
{
    struct fill *f = arg;
    struct receipt r = {
        .time_us = m->time_us,
        .committed = true,
        .mode = m->mode,
        .result = commit_result_of(m),
    };
    if (m->idem_key_len == KEY_BYTES) {
        struct cursor c = cursor_over(m->idem_key, m->idem_key_len);
        r.expires_us = (int64_t)cursor_u64(&c);
        r.keyed = true;
        memcpy(r.key, cursor_take(&c, sizeof r.key), sizeof r.key);
        memcpy(r.hash, m->idem_hash, sizeof r.hash);
    }
    if (m->load_id_len == LOAD_ID_BYTES) {
        r.of_load = true;
        memcpy(r.load_id, m->load_id, LOAD_ID_BYTES);
    }
    if ((r.keyed || r.of_load) && !is_over(&r, clock_wall_us()))
        f->failed |= !put_merged(f->all, &r);
    return !f->failed;
}

static enum err fill(struct collection *c, struct err_ctx *ctx)
{
    struct receipts *all = c->receipts;
    if (all->filled)
        return ERR_OK;
    struct fill f = {.all = all};
    RETURN_NOT_OK(collection_history_each(c, clock_wall_us() - RECEIPT_LOAD_US, fill_one, &f, ctx));
    if (f.failed)
        return err_no_memory(ctx, all->cap * sizeof *all->entries);
    all->filled = true;
    return ERR_OK;
}

/* ---- asking and adding ---- */

static bool is_running(const struct receipts *all, const uint8_t key[16])
{
    for (const struct receipt_claim *k = all->claims; k; k = k->next) {
        if (memcmp(k->key, key, 16) == 0)
            return true;
    }
    return false;
}

static enum err claim_locked(struct collection *c, struct receipt_claim *claim, bool *found,
                             struct receipt *first, struct err_ctx *ctx)
{
    struct receipts *all = c->receipts;
    if (is_running(all, claim->key))
        return err_set(ctx, ERR_CONFLICT,
                       "a request with this Idempotency-Key is still running: wait for its answer, "
                       "or send this one again later");
    RETURN_NOT_OK(fill(c, ctx));
    uint32_t number = find_key(all, claim->key);
    *found = number && !key_is_over(&all->entries[number - 1].r, clock_wall_us());
    if (*found)
        *first = all->entries[number - 1].r;
    claim->next = all->claims;
    all->claims = claim;
    return ERR_OK;
}

enum err receipt_claim(struct collection *c, const char *key, size_t len, size_t max,
                       struct receipt_claim **out, bool *found, struct receipt *first,
                       struct err_ctx *ctx)
{
    struct receipt_claim *claim = calloc(1, sizeof *claim);
    if (!claim)
        return err_no_memory(ctx, sizeof *claim);
    receipt_hash_key(key, len, claim->key);
    pthread_mutex_lock(&c->receipts->lock);
    c->receipts->max = max;
    enum err e = claim_locked(c, claim, found, first, ctx);
    pthread_mutex_unlock(&c->receipts->lock);
    if (e != ERR_OK)
        free(claim);
    else
        *out = claim;
    return e;
}

void receipt_release(struct collection *c, struct receipt_claim *claim)
{
    if (!claim)
        return;
    pthread_mutex_lock(&c->receipts->lock);
    struct receipt_claim **at = &c->receipts->claims;
    while (*at != claim)
        at = &(*at)->next;
    *at = claim->next;
    pthread_mutex_unlock(&c->receipts->lock);
    free(claim);
}

enum err receipt_find_load(struct collection *c, const uint8_t id[LOAD_ID_BYTES], bool *found,
                           struct receipt *out, struct err_ctx *ctx)
{
    struct receipts *all = c->receipts;
    pthread_mutex_lock(&all->lock);
    enum err e = fill(c, ctx);
    uint32_t number = e == ERR_OK ? find_load(all, id) : 0;
    *found = number && !is_over(&all->entries[number - 1].r, clock_wall_us());
    if (*found)
        *out = all->entries[number - 1].r;
    pthread_mutex_unlock(&all->lock);
    return e;
}

/* An index that is not built yet will find the commit in the history; the opening of a load is not
 * there. */
void receipt_add(struct collection *c, const struct receipt *r)
{
    struct receipts *all = c->receipts;
    pthread_mutex_lock(&all->lock);
    if ((all->filled || !r->committed) && !put_merged(all, r))
        all->filled = false;
    pthread_mutex_unlock(&all->lock);
}

/* Entries come in the order of their time, but for those of loads that were opened long before. */
void receipts_sweep(struct collection *c)
{
    struct receipts *all = c->receipts;
    int64_t now = clock_wall_us();
    pthread_mutex_lock(&all->lock);
    for (uint32_t i = all->first, next; i; i = next) {
        const struct receipt *r = &all->entries[i - 1].r;
        next = all->entries[i - 1].next;
        if (!key_is_over(r, now))
            break;
        if (is_over(r, now))
            drop(all, i);
    }
    pthread_mutex_unlock(&all->lock);
}
