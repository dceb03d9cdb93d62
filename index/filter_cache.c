/* The cache of filter bits.
 *
 *   slots   [ bucket: 8 slots ][ bucket ] ...     (segment, filter) hashes to a bucket
 *              └─> bits of one filter on one segment, immutable
 *   notes   [ pair ][ pair ] ...                  pairs that were used and have no bits; one that
 *                                                 hashes to the same place takes it over
 *
 * A slot is a pointer that readers load inside an epoch section; who takes it out retires what it
 * led to. Room is made by a hand that goes round the slots: bits that were used since its last
 * visit stay for another round, and when a round makes no room, nothing is kept this time. Segments
 * that are gone are never asked for again, so their bits go in that way.
 *
 * The thread that works bits out has set BUSY in the pair's note, so that it is the only one; the
 * others evaluate the filter meanwhile.
 *
 * Threads: `lock` guards the hand, `bytes` and writes to slots. Failure: no memory: not kept. */
#include "index/filter_cache.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/epoch.h"
#include "base/metrics.h"

enum { BUCKETS = 128, WAYS = 8, SLOTS = BUCKETS * WAYS, NOTES = 4096, CANCEL_WORDS = 1 << 14 };
enum { BUSY = 1 };

static struct filter_bits *_Atomic slots[SLOTS];
static _Atomic uint64_t notes[NOTES];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned hand;
static _Atomic uint64_t bytes_max = 64 << 20, bytes;

enum { HIT, MISS };

static void put_result(unsigned series, struct buf *out)
{
    metrics_put_label(out, "result", series == HIT ? "hit" : "miss");
}

METRIC_COUNTERS(lookups, "loadstone_filter_cache_lookups_total",
                "Segments searched with a filter, by whether its matching rows were cached.", 2,
                put_result)
METRIC_COUNTER(built, "loadstone_filter_cache_built_total",
               "Filters worked out for a segment and cached.")

/* ---- pairs ---- */

static uint64_t pair_hash(const struct segment *s, const struct filter *f)
{
    struct hash128 id = filter_id(f);
    uint64_t h = id.lo ^ (id.hi + s->serial * 0x9e3779b97f4a7c15u);
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u; /* splitmix64's mixing */
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    return h ^ (h >> 31);
}

static bool pair_cached(const struct segment *s)
{
    return s->serial != 0 && s->rows >= FILTER_CACHE_ROWS_MIN;
}

static struct filter_bits *look_up(const struct segment *s, const struct filter *f, uint64_t hash)
{
    struct hash128 id = filter_id(f);
    for (unsigned i = 0; i < WAYS; i++) {
        struct filter_bits *b =
            atomic_load_explicit(&slots[hash % BUCKETS * WAYS + i], memory_order_acquire);
        if (b && b->segment == s->serial && b->filter.lo == id.lo && b->filter.hi == id.hi)
            return b;
    }
    return NULL;
}

static _Atomic uint64_t *note_of(uint64_t hash)
{
    return &notes[hash / BUCKETS % NOTES];
}

/* What stands in the note of a pair: never 0, BUSY not set. */
static uint64_t note_value(uint64_t hash)
{
    return (hash | 2) & ~(uint64_t)BUSY;
}

/* ---- room ---- */

static size_t size_of(uint32_t rows)
{
    return sizeof(struct filter_bits) + (rows / 64 + (rows % 64 != 0)) * sizeof(uint64_t);
}

static void take_out(unsigned slot)
{
    struct filter_bits *b = atomic_load_explicit(&slots[slot], memory_order_relaxed);
    atomic_store_explicit(&slots[slot], NULL, memory_order_release);
    bytes -= size_of(b->rows);
    epoch_retire(free, b);
}

/* Takes a slot's bits out unless they were used since the last visit. */
static bool visit(unsigned slot)
{
    struct filter_bits *b = atomic_load_explicit(&slots[slot], memory_order_relaxed);
    if (!b)
        return true;
    if (atomic_exchange_explicit(&b->used, false, memory_order_relaxed))
        return false;
    take_out(slot);
    return true;
}

/* Sets `size` aside of what may be kept. */
static bool reserve(size_t size)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; bytes + size > bytes_max && i < SLOTS; i++)
        (void)visit(hand++ % SLOTS);
    bool room = bytes + size <= bytes_max;
    bytes += room ? size : 0;
    pthread_mutex_unlock(&lock);
    return room;
}

/* Puts bits for which room was reserved into their bucket. False: each of its slots was in use. */
static bool put_in(struct filter_bits *b, uint64_t hash)
{
    bool put = false;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < WAYS && !put; i++) {
        unsigned slot = (unsigned)(hash % BUCKETS * WAYS + i);
        if (!visit(slot))
            continue;
        atomic_store_explicit(&slots[slot], b, memory_order_release);
        put = true;
    }
    pthread_mutex_unlock(&lock);
    return put;
}

/* ---- working out ---- */

static bool fill(struct filter_bits *b, const struct segment *s, const struct filter *f,
                 const atomic_bool *cancel)
{
    uint32_t words = s->rows / 64 + (s->rows % 64 != 0);
    for (uint32_t w = 0; w < words; w++) {
        if (w % CANCEL_WORDS == 0 && cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            return false;
        uint64_t rows = ~segment_vector_nulls(s, w);
        if (s->rows - w * 64 < 64)
            rows &= (1ull << (s->rows - w * 64)) - 1;
        b->words[w] = filter_word(f, s, w, rows);
        b->matching += (uint32_t)__builtin_popcountll(b->words[w]);
    }
    return true;
}

static struct filter_bits *bits_new(const struct segment *s, const struct filter *f, size_t size)
{
    struct filter_bits *b = calloc(1, size);
    if (!b)
        return NULL;
    b->segment = s->serial;
    b->filter = filter_id(f);
    b->rows = s->rows;
    atomic_init(&b->used, true);
    return b;
}

static const struct filter_bits *work_out(const struct segment *s, const struct filter *f,
                                          uint64_t hash, const atomic_bool *cancel)
{
    size_t size = size_of(s->rows);
    if (!reserve(size))
        return NULL;
    struct filter_bits *b = bits_new(s, f, size);
    if (b && fill(b, s, f, cancel) && put_in(b, hash)) {
        metric_add(&built, 0, 1);
        return b;
    }
    bytes -= size;
    free(b);
    return NULL;
}

static double work_us(const struct segment *s, const struct filter *f)
{
    return s->rows * (filter_row_ns(f) + 0.2) / 1000;
}

/* ---- using ---- */

const struct filter_bits *filter_cache_peek(const struct segment *s, const struct filter *f)
{
    return pair_cached(s) ? look_up(s, f, pair_hash(s, f)) : NULL;
}

double filter_cache_due_us(const struct segment *s, const struct filter *f)
{
    if (!pair_cached(s) || size_of(s->rows) > bytes_max)
        return 0;
    uint64_t hash = pair_hash(s, f);
    bool due = atomic_load_explicit(note_of(hash), memory_order_relaxed) == note_value(hash);
    return due && !look_up(s, f, hash) ? work_us(s, f) : 0;
}

const struct filter_bits *filter_cache_use(const struct segment *s, const struct filter *f,
                                           double us_max, const atomic_bool *cancel)
{
    if (!pair_cached(s))
        return NULL;
    uint64_t hash = pair_hash(s, f), note = note_value(hash), seen = note;
    struct filter_bits *b = look_up(s, f, hash);
    metric_add(&lookups, b ? HIT : MISS, 1);
    if (b) {
        if (!atomic_load_explicit(&b->used, memory_order_relaxed))
            atomic_store_explicit(&b->used, true, memory_order_relaxed);
        return b;
    }
    _Atomic uint64_t *at = note_of(hash);
    if (atomic_load_explicit(at, memory_order_relaxed) != note) {
        if (atomic_load_explicit(at, memory_order_relaxed) != (note | BUSY))
            atomic_store_explicit(at, note, memory_order_relaxed);
        return NULL;
    }
    if ((us_max > 0 && work_us(s, f) > us_max) || size_of(s->rows) > bytes_max ||
        !atomic_compare_exchange_strong(at, &seen, note | BUSY))
        return NULL;
    const struct filter_bits *made = work_out(s, f, hash, cancel);
    seen = note | BUSY;
    atomic_compare_exchange_strong(at, &seen, note);
    return made;
}

/* ---- the whole ---- */

void filter_cache_limit(uint64_t limit)
{
    bytes_max = limit;
    (void)reserve(0);
}

uint64_t filter_cache_bytes(void)
{
    return bytes;
}

void filter_cache_clear(void)
{
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (atomic_load_explicit(&slots[i], memory_order_relaxed))
            take_out(i);
    }
    pthread_mutex_unlock(&lock);
    for (unsigned i = 0; i < NOTES; i++)
        atomic_store_explicit(&notes[i], 0, memory_order_relaxed);
}
