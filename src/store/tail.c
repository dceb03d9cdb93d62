/* The tail: rows of small commits in memory.
 *
 * Publication: tail_append fills the row, then links prev[row], then stores the table slot with
 * release order; readers load slots with acquire order. Chunks are never moved or freed while the
 * segment lives. Tables and run lists that were outgrown are retired through epochs.
 *
 * Failure: all memory is taken by tail_reserve; a failed reservation leaves the tail as it was. */
#include "store/tail.h"

#include "base/epoch.h"

enum { CHUNK_BYTES = 1 << 20, BLOCK_BYTES = 64 << 10 };

struct chunk {
    float *vectors;
    uint8_t *strips;
    int64_t *int_keys;
    struct cell *str_keys;
    struct cell *var; /* chunk_rows x nvar */
    uint32_t *prev;
    _Atomic uint64_t *nulls; /* rows without a vector */
};

struct table {
    uint64_t mask; /* slots - 1 */
    _Atomic uint32_t slots[];
};

struct run_list {
    uint32_t cap;
    struct seq_run runs[];
};

struct block {
    struct block *next;
    uint8_t data[];
};

struct tail {
    struct schema *schema; /* borrowed from the segment */
    _Atomic uint32_t rows; /* the writer's count; readers know view.rows */
    uint32_t rows_max;
    uint32_t chunk_shift;
    uint32_t nchunks;
    struct chunk *chunks; /* fixed array, filled from the front */
    struct table *_Atomic table;
    uint32_t keys; /* distinct, in the table */
    struct run_list *_Atomic runs;
    _Atomic uint32_t nruns;
    struct block *blocks;
    uint8_t *free_at;
    size_t free_left;
    _Atomic size_t bytes;
};

static uint32_t rows_of(const struct tail *t)
{
    return atomic_load_explicit(&t->rows, memory_order_acquire);
}

/* There is one writer. */
static void add_bytes(struct tail *t, size_t n)
{
    size_t bytes = atomic_load_explicit(&t->bytes, memory_order_relaxed);
    atomic_store_explicit(&t->bytes, bytes + n, memory_order_relaxed);
}

static uint32_t rows_limit(size_t vector_bytes)
{
    size_t by_bytes = TAIL_BYTES_HARD / (vector_bytes ? vector_bytes : 1);
    size_t hard = by_bytes < TAIL_ROWS_HARD ? by_bytes : TAIL_ROWS_HARD;
    return (uint32_t)hard + INLINE_ROWS_MAX;
}

static uint32_t pick_chunk_shift(size_t row_bytes)
{
    uint32_t shift = 10;
    while (shift > 6 && (row_bytes << shift) > CHUNK_BYTES)
        shift--;
    return shift;
}

enum err tail_new(uint64_t id, struct schema *schema, struct segment **out, struct err_ctx *ctx)
{
    struct segment *s = calloc(1, sizeof *s);
    struct tail *t = calloc(1, sizeof *t);
    if (s && t) {
        size_t vector_bytes = schema->dim * sizeof(float);
        t->rows_max = rows_limit(vector_bytes);
        t->chunk_shift = pick_chunk_shift(vector_bytes + schema->strip_bytes);
        t->chunks = calloc((t->rows_max >> t->chunk_shift) + 1, sizeof *t->chunks);
    }
    if (!s || !t || !t->chunks) {
        free(s);
        free(t);
        return err_no_memory(ctx, sizeof *s + sizeof *t);
    }
    atomic_init(&s->refs, 1);
    s->id = id;
    s->schema = schema_acquire(schema);
    s->tail = t;
    t->schema = schema;
    *out = s;
    return ERR_OK;
}

static void chunk_deinit(struct chunk *c)
{
    free(c->vectors);
    free(c->strips);
    free(c->int_keys);
    free(c->str_keys);
    free(c->var);
    free(c->prev);
    free((void *)c->nulls);
}

void tail_free(struct tail *t)
{
    for (uint32_t i = 0; i < t->nchunks; i++)
        chunk_deinit(&t->chunks[i]);
    for (struct block *b = t->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(t->chunks);
    free(t->table);
    free(t->runs);
    free(t);
}

/* ---- reservation ---- */

static bool chunk_init(struct chunk *c, const struct schema *s, size_t n)
{
    c->prev = calloc(n, sizeof *c->prev);
    bool ok = c->prev != NULL;
    if (s->dim)
        ok = ok && (c->vectors = aligned_alloc(64, round_up(n * s->dim * sizeof(float), 64))) &&
             (c->nulls = calloc(n / 64, sizeof *c->nulls));
    if (s->strip_bytes)
        ok = ok && (c->strips = calloc(n, s->strip_bytes));
    if (s->nvar)
        ok = ok && (c->var = calloc(n * s->nvar, sizeof *c->var));
    if (s->key == KEY_INT64)
        ok = ok && (c->int_keys = calloc(n, sizeof *c->int_keys));
    else
        ok = ok && (c->str_keys = calloc(n, sizeof *c->str_keys));
    if (!ok)
        chunk_deinit(c);
    return ok;
}

static bool reserve_chunks(struct tail *t, uint32_t rows)
{
    uint32_t need = (rows + (1u << t->chunk_shift) - 1) >> t->chunk_shift;
    for (; t->nchunks < need; t->nchunks++) {
        struct chunk c = {0};
        if (!chunk_init(&c, t->schema, (size_t)1 << t->chunk_shift))
            return false;
        t->chunks[t->nchunks] = c;
    }
    return true;
}

static uint64_t row_hash(const struct tail *t, uint32_t row)
{
    if (t->schema->key == KEY_INT64) {
        int64_t key = tail_key_int(t, row);
        return key_hash(&key, sizeof key);
    }
    size_t len;
    const void *key = tail_key_str(t, row, &len);
    return key_hash(key, len);
}

static void table_put(struct table *tab, uint64_t hash, uint32_t row)
{
    uint64_t i = hash & tab->mask;
    while (atomic_load_explicit(&tab->slots[i], memory_order_relaxed))
        i = (i + 1) & tab->mask;
    atomic_store_explicit(&tab->slots[i], row + 1, memory_order_release);
}

static bool reserve_table(struct tail *t, uint32_t keys)
{
    struct table *old = t->table;
    if (old && keys * 3ull <= (old->mask + 1) * 2)
        return true;
    uint64_t n = old ? (old->mask + 1) * 2 : 64;
    while (keys * 3ull > n * 2)
        n *= 2;
    struct table *grown = calloc(1, sizeof *grown + n * sizeof grown->slots[0]);
    if (!grown)
        return false;
    grown->mask = n - 1;
    for (uint64_t i = 0; old && i <= old->mask; i++) {
        uint32_t slot = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        if (slot)
            table_put(grown, row_hash(t, slot - 1), slot - 1);
    }
    atomic_store_explicit(&t->table, grown, memory_order_release);
    if (old)
        epoch_retire(free, old);
    return true;
}

static bool reserve_payload(struct tail *t, size_t payload)
{
    if (payload <= t->free_left)
        return true;
    size_t size = payload > BLOCK_BYTES ? payload : BLOCK_BYTES;
    struct block *b = malloc(sizeof *b + size);
    if (!b)
        return false;
    b->next = t->blocks;
    t->blocks = b;
    t->free_at = b->data;
    t->free_left = size;
    return true;
}

static bool reserve_runs(struct tail *t, uint32_t runs)
{
    struct run_list *old = t->runs;
    uint32_t n = t->nruns;
    if (old && n + runs <= old->cap)
        return true;
    uint32_t cap = old ? old->cap * 2 : 16;
    while (cap < n + runs)
        cap *= 2;
    struct run_list *grown = malloc(sizeof *grown + cap * sizeof grown->runs[0]);
    if (!grown)
        return false;
    grown->cap = cap;
    if (old) {
        memcpy(grown->runs, old->runs, n * sizeof grown->runs[0]);
        epoch_retire(free, old);
    }
    atomic_store_explicit(&t->runs, grown, memory_order_release);
    return true;
}

enum err tail_reserve(struct segment *s, uint32_t rows, uint32_t runs, size_t payload,
                      struct err_ctx *ctx)
{
    struct tail *t = s->tail;
    if (rows > t->rows_max - rows_of(t))
        return err_set(ctx, ERR_BUSY, "%u rows wait to be written to a segment; try again soon",
                       rows_of(t));
    if (!reserve_chunks(t, rows_of(t) + rows) || !reserve_table(t, t->keys + rows) ||
        !reserve_payload(t, payload) || !reserve_runs(t, runs))
        return err_no_memory(ctx, payload);
    return ERR_OK;
}

/* ---- appending ---- */

static struct cell keep(struct tail *t, const void *data, size_t len)
{
    ASSERT(len <= t->free_left);
    if (len == 0)
        return (struct cell){"", 0};
    uint8_t *at = t->free_at;
    memcpy(at, data, len);
    t->free_at += len;
    t->free_left -= len;
    add_bytes(t, len);
    return (struct cell){at, len};
}

static void put_vector(struct chunk *c, uint32_t i, const struct row *r)
{
    uint32_t dim = r->schema->dim;
    if (r->vector)
        memcpy(c->vectors + (size_t)i * dim, r->vector, dim * sizeof(float));
    else {
        memset(c->vectors + (size_t)i * dim, 0, dim * sizeof(float));
        atomic_fetch_or_explicit(&c->nulls[i >> 6], 1ull << (i & 63), memory_order_relaxed);
    }
}

static void put_row(struct tail *t, uint32_t row, const struct row *r)
{
    const struct schema *s = t->schema;
    struct chunk *c = &t->chunks[row >> t->chunk_shift];
    uint32_t i = row & ((1u << t->chunk_shift) - 1);
    if (s->key == KEY_INT64)
        c->int_keys[i] = r->int_key;
    else
        c->str_keys[i] = keep(t, r->key, r->key_len);
    if (s->dim)
        put_vector(c, i, r);
    if (s->strip_bytes)
        memcpy(c->strips + (size_t)i * s->strip_bytes, r->strip, s->strip_bytes);
    for (uint32_t v = 0; v < s->nvar; v++)
        c->var[(size_t)i * s->nvar + v] = keep(t, r->var[v].data, r->var[v].len);
}

static bool row_has_key(const struct tail *t, uint32_t row, const void *key, size_t len)
{
    if (t->schema->key == KEY_INT64)
        return memcmp(
                   &t->chunks[row >> t->chunk_shift].int_keys[row & ((1u << t->chunk_shift) - 1)],
                   key, sizeof(int64_t)) == 0;
    size_t n;
    const void *k = tail_key_str(t, row, &n);
    return n == len && memcmp(k, key, n) == 0;
}

static void link_key(struct tail *t, uint32_t row, const struct row *r)
{
    bool ints = t->schema->key == KEY_INT64;
    const void *key = ints ? (const void *)&r->int_key : r->key;
    size_t len = ints ? sizeof r->int_key : r->key_len;
    struct table *tab = t->table;
    for (uint64_t i = row_key_hash(r) & tab->mask;; i = (i + 1) & tab->mask) {
        uint32_t slot = atomic_load_explicit(&tab->slots[i], memory_order_relaxed);
        if (slot && !row_has_key(t, slot - 1, key, len))
            continue;
        t->chunks[row >> t->chunk_shift].prev[row & ((1u << t->chunk_shift) - 1)] = slot;
        t->keys += slot == 0;
        atomic_store_explicit(&tab->slots[i], row + 1, memory_order_release);
        return;
    }
}

static void note_seq(struct tail *t, uint32_t row, uint64_t version, uint64_t ordinal)
{
    uint32_t n = t->nruns;
    struct seq_run *runs = ((struct run_list *)t->runs)->runs;
    if (n) {
        struct seq_run *last = &runs[n - 1];
        if (last->version == version && last->ordinal + (row - last->first_row) == ordinal)
            return;
        ASSERT(n < ((struct run_list *)t->runs)->cap);
    }
    runs[n] = (struct seq_run){.first_row = row, .version = version, .ordinal = ordinal};
    atomic_store_explicit(&t->nruns, n + 1, memory_order_release);
}

void tail_append(struct segment *s, const struct row *r, uint64_t version, uint64_t ordinal)
{
    struct tail *t = s->tail;
    uint32_t row = rows_of(t);
    ASSERT(row < t->nchunks << t->chunk_shift);
    put_row(t, row, r);
    note_seq(t, row, version, ordinal);
    link_key(t, row, r);
    add_bytes(t, t->schema->dim * sizeof(float) + t->schema->strip_bytes + 24);
    atomic_store_explicit(&t->rows, row + 1, memory_order_release);
}

uint32_t tail_rows(const struct segment *s)
{
    return rows_of(s->tail);
}

size_t tail_bytes(const struct segment *s)
{
    return atomic_load_explicit(&s->tail->bytes, memory_order_relaxed);
}

/* ---- reading ---- */

static const struct chunk *chunk_of(const struct tail *t, uint32_t row, size_t *i)
{
    *i = row & ((1u << t->chunk_shift) - 1);
    return &t->chunks[row >> t->chunk_shift];
}

int64_t tail_key_int(const struct tail *t, uint32_t row)
{
    size_t i;
    const struct chunk *c = chunk_of(t, row, &i);
    return c->int_keys[i];
}

const void *tail_key_str(const struct tail *t, uint32_t row, size_t *len)
{
    size_t i;
    const struct chunk *c = chunk_of(t, row, &i);
    *len = c->str_keys[i].len;
    return c->str_keys[i].data;
}

const float *tail_vector_run(const struct tail *t, uint32_t row, uint32_t *n)
{
    size_t i;
    const struct chunk *c = chunk_of(t, row, &i);
    *n = (1u << t->chunk_shift) - (uint32_t)i;
    return c->vectors + i * t->schema->dim;
}

uint64_t tail_vector_nulls(const struct tail *t, uint32_t w)
{
    size_t i;
    const struct chunk *c = chunk_of(t, w << 6, &i);
    return atomic_load_explicit(&c->nulls[i >> 6], memory_order_relaxed);
}

const uint8_t *tail_strip(const struct tail *t, uint32_t row)
{
    size_t i;
    const struct chunk *c = chunk_of(t, row, &i);
    return c->strips + i * t->schema->strip_bytes;
}

const void *tail_var(const struct tail *t, uint32_t row, uint32_t var_index, size_t *len)
{
    size_t i;
    const struct chunk *c = chunk_of(t, row, &i);
    const struct cell *cell = &c->var[i * t->schema->nvar + var_index];
    *len = cell->len;
    return cell->data;
}

static uint32_t probe(const struct tail *t, const struct table *tab, const void *key, size_t len,
                      uint64_t hash)
{
    for (uint64_t i = hash & tab->mask;; i = (i + 1) & tab->mask) {
        uint32_t slot = atomic_load_explicit(&tab->slots[i], memory_order_acquire);
        if (!slot || row_has_key(t, slot - 1, key, len))
            return slot;
    }
}

/* A reader that holds the snapshot by a reference is in no epoch section of its own, and the table
 * may be outgrown while it looks. */
uint32_t tail_find(const struct tail *t, const void *key, size_t len, uint64_t hash)
{
    epoch_enter();
    const struct table *tab = atomic_load_explicit(&t->table, memory_order_acquire);
    uint32_t found = tab ? probe(t, tab, key, len, hash) : 0;
    epoch_leave();
    return found;
}

uint32_t tail_older(const struct tail *t, uint32_t row)
{
    size_t i;
    const struct chunk *c = chunk_of(t, row, &i);
    return c->prev[i];
}

const struct seq_run *tail_runs(const struct tail *t, uint32_t *n)
{
    *n = atomic_load_explicit(&t->nruns, memory_order_acquire);
    struct run_list *list = atomic_load_explicit(&t->runs, memory_order_acquire);
    return list ? list->runs : NULL;
}
