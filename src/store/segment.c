/* Segments: the calls that hide whether rows lie in a file or in the tail, and the mapping of a
 * file.
 *
 * Opening checks header, trailer, footer and that every section has exactly the length its row
 * count asks for and lies within the file, so that no later access by row number can leave the
 * mapping. Numbers inside sections (offsets, row numbers) are checked where they are used: a bad
 * one reads as empty or absent and is reported once, and segment_verify names the block. */
#include "store/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/epoch.h"
#include "base/log.h"
#include "store/segment_format.h"
#include "store/tail.h"

struct segment *segment_acquire(struct segment *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void segment_release(struct segment *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    void *ann = segment_ann(s);
    if (ann)
        s->ann_free(ann);
    if (s->tail)
        tail_free(s->tail);
    mapping_unwatch(s->watch);
    if (s->map)
        munmap((void *)s->map, s->map_len);
    free(s->var_offsets);
    free(s->var_bytes);
    free(s->var_lengths);
    free(s->path);
    schema_release(s->schema);
    free(s);
}

void segment_set_ann(struct segment *s, void *ann, void (*ann_free)(void *))
{
    s->ann_free = ann_free;
    void *old = atomic_exchange_explicit(&s->ann, ann, memory_order_acq_rel);
    if (old)
        epoch_retire(ann_free, old);
}

enum { GUESS_SLOTS = 8 }; /* a cache line's worth */

/* ---- opening a file ---- */

static enum err corrupt(const struct segment *s, uint64_t at, struct err_ctx *ctx, const char *what)
{
    return err_set(ctx, ERR_CORRUPT, "%s: offset %llu: %s", s->path, (unsigned long long)at, what);
}

static enum err map_file(struct segment *s, struct err_ctx *ctx)
{
    int fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_system(ctx, errno, "open %s", s->path);
    struct stat st;
    enum err e = ERR_OK;
    if (fstat(fd, &st) != 0)
        e = err_system(ctx, errno, "stat %s", s->path);
    else if (st.st_size < IO_SUM_BLOCK + (off_t)sizeof(struct segment_trailer))
        e = corrupt(s, 0, ctx, "the file is too short to be a segment");
    if (e == ERR_OK) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            e = err_system(ctx, errno, "mmap %s", s->path);
        else {
            s->map = map;
            s->map_len = (size_t)st.st_size;
            s->bytes = (uint64_t)st.st_size;
            e = mapping_watch(map, s->map_len, s->path, &s->watch, ctx);
        }
    }
    close(fd);
    return e;
}

static enum err read_header(struct segment *s, const uint8_t *collection_id, struct err_ctx *ctx)
{
    struct segment_header h;
    memcpy(&h, s->map, sizeof h);
    if (memcmp(h.magic, SEGMENT_MAGIC, sizeof h.magic) != 0)
        return corrupt(s, 0, ctx, "not a segment file (wrong magic)");
    if (h.crc != crc32c(0, &h, offsetof(struct segment_header, crc)))
        return corrupt(s, 0, ctx, "the header's checksum does not match");
    if (h.format_version != SEGMENT_FORMAT_VERSION || h.incompatible_flags)
        return err_set(
            ctx, ERR_CORRUPT,
            "%s: offset 0: written by another version (format %u, flags %x); this build reads "
            "format %d",
            s->path, h.format_version, h.incompatible_flags, SEGMENT_FORMAT_VERSION);
    if (collection_id && memcmp(h.collection_id, collection_id, 16) != 0)
        return corrupt(s, 0, ctx, "belongs to another collection");
    s->id = h.segment_id;
    return ERR_OK;
}

static enum err find_footer(struct segment *s, struct cursor *footer, struct err_ctx *ctx)
{
    struct segment_trailer t;
    size_t end = s->map_len - sizeof t;
    memcpy(&t, s->map + end, sizeof t);
    if (memcmp(t.magic, SEGMENT_TRAILER_MAGIC, sizeof t.magic) != 0)
        return corrupt(s, end, ctx, "the end of the file is missing (truncated)");
    if (t.crc != crc32c(0, &t, offsetof(struct segment_trailer, crc)))
        return corrupt(s, end, ctx, "the trailer's checksum does not match");
    if (t.footer_offset % IO_SUM_BLOCK || t.footer_offset > end ||
        t.footer_length != end - t.footer_offset)
        return corrupt(s, end, ctx, "the trailer points outside the file");
    if (t.footer_crc != crc32c(0, s->map + t.footer_offset, t.footer_length))
        return corrupt(s, t.footer_offset, ctx, "the footer's checksum does not match");
    s->data_len = t.footer_offset;
    *footer = cursor_over(s->map + t.footer_offset, t.footer_length);
    return ERR_OK;
}

/* The length a section must have, or SIZE_MAX where any will do. */
static size_t expected_length(const struct segment *s, uint32_t kind)
{
    size_t rows = s->rows;
    switch (kind) {
    case SECTION_VECTORS:
        return rows * s->schema->dim * sizeof(float);
    case SECTION_VECTOR_NULLS:
        return (rows + 63) / 64 * 8;
    case SECTION_INT_KEYS:
        return rows * 8;
    case SECTION_KEY_OFFSETS:
        return (rows + 1) * 8;
    case SECTION_KEY_SLOTS:
        return (s->key_slots_mask + 1) * 8;
    case SECTION_KEY_PREV:
        return rows * 4;
    case SECTION_STRIPS:
        return rows * s->schema->strip_bytes;
    case SECTION_VAR_OFFSETS:
        return (rows + 1) * 4;
    case SECTION_RUNS:
        return s->nruns * sizeof(struct seq_run);
    case SECTION_VECTOR_HASHES:
        return rows * sizeof(struct hash128);
    default:
        return SIZE_MAX;
    }
}

static bool place_section(struct segment *s, uint32_t kind, uint32_t column, const uint8_t *at,
                          uint64_t length)
{
    if ((kind == SECTION_VAR_OFFSETS || kind == SECTION_VAR_BYTES) && column >= s->schema->nvar)
        return false;
    switch (kind) {
    case SECTION_VECTORS:
        s->vectors = (const float *)at;
        break;
    case SECTION_VECTOR_NULLS:
        s->vector_nulls = (const uint64_t *)at;
        break;
    case SECTION_INT_KEYS:
        s->int_keys = (const int64_t *)at;
        break;
    case SECTION_KEY_OFFSETS:
        s->key_offsets = (const uint64_t *)at;
        break;
    case SECTION_KEY_BYTES:
        s->key_bytes = at;
        s->key_bytes_len = length;
        break;
    case SECTION_KEY_SLOTS:
        s->key_slots = (const uint64_t *)at;
        break;
    case SECTION_KEY_PREV:
        s->key_prev = (const uint32_t *)at;
        break;
    case SECTION_STRIPS:
        s->strips = at;
        break;
    case SECTION_VAR_OFFSETS:
        s->var_offsets[column] = (const uint32_t *)at;
        break;
    case SECTION_VAR_BYTES:
        s->var_bytes[column] = at;
        s->var_lengths[column] = length;
        break;
    case SECTION_RUNS:
        s->runs = (const struct seq_run *)at;
        break;
    case SECTION_VECTOR_HASHES:
        s->vector_hashes = (const struct hash128 *)at;
        break;
    default:
        break; /* a compatible addition */
    }
    return true;
}

static enum err read_sections(struct segment *s, struct cursor *c, struct err_ctx *ctx)
{
    uint32_t n = cursor_u32(c);
    for (uint32_t i = 0; i < n && !c->failed; i++) {
        uint32_t kind = cursor_u32(c), column = cursor_u32(c);
        uint64_t offset = cursor_u64(c), length = cursor_u64(c);
        size_t expected = expected_length(s, kind);
        if (c->failed || offset % IO_SUM_BLOCK || offset > s->data_len ||
            length > s->data_len - offset || (expected != SIZE_MAX && length != expected) ||
            !place_section(s, kind, column, s->map + offset, length))
            return err_set(ctx, ERR_CORRUPT,
                           "%s: offset %llu: section %u (kind %u) does not fit the file", s->path,
                           (unsigned long long)s->data_len, i, kind);
    }
    uint64_t blocks = cursor_u64(c);
    s->block_sums = (const uint8_t *)cursor_take(c, blocks <= SIZE_MAX / 8 ? blocks * 8 : SIZE_MAX);
    if (c->failed || blocks != s->data_len / IO_SUM_BLOCK)
        return corrupt(s, s->data_len, ctx, "the footer's section table is damaged");
    return ERR_OK;
}

static bool runs_valid(const struct segment *s)
{
    if (s->rows && (!s->nruns || s->runs[0].first_row != 0))
        return false;
    for (uint32_t i = 1; i < s->nruns; i++) {
        if (s->runs[i].first_row <= s->runs[i - 1].first_row || s->runs[i].first_row >= s->rows)
            return false;
    }
    return true;
}

static bool keys_complete(const struct segment *s)
{
    if (s->keys_run) {
        int64_t last;
        if (s->schema->key != KEY_INT64)
            return false;
        return s->rows == 0 ||
               (!__builtin_add_overflow(s->first_key, (int64_t)s->rows - 1, &last) &&
                s->key_min == s->first_key && s->key_max == last);
    }
    if (!s->key_slots)
        return false;
    return s->schema->key == KEY_INT64 ? s->int_keys != NULL : s->key_offsets && s->key_bytes;
}

static bool sections_complete(const struct segment *s)
{
    bool ok = (!s->schema->dim || s->vectors) && (!s->schema->strip_bytes || s->strips) &&
              (!s->nruns || s->runs) && keys_complete(s) && runs_valid(s);
    for (uint32_t i = 0; ok && i < s->schema->nvar; i++)
        ok = s->var_offsets[i] && s->var_bytes[i];
    return ok;
}

static enum err read_footer(struct segment *s, struct err_ctx *ctx)
{
    struct cursor c;
    RETURN_NOT_OK(find_footer(s, &c, ctx));
    s->rows = cursor_u32(&c);
    if (cursor_u64(&c) != s->data_len)
        return corrupt(s, s->data_len, ctx, "the footer stands at the wrong place");
    RETURN_NOT_OK(schema_decode(&c, &s->schema, ctx));
    s->keys_run = cursor_u8(&c);
    s->first_key = (int64_t)cursor_u64(&c);
    s->key_min = (int64_t)cursor_u64(&c);
    s->key_max = (int64_t)cursor_u64(&c);
    uint64_t slots = cursor_u64(&c);
    s->nruns = cursor_u32(&c);
    if (c.failed || (slots & (slots - 1)) || (slots ? slots <= s->rows : !s->keys_run) ||
        slots > UINT64_MAX / 16)
        return corrupt(s, s->data_len, ctx, "the footer is damaged");
    s->key_slots_mask = slots - 1;
    s->var_offsets = calloc(s->schema->nvar + 1, sizeof *s->var_offsets);
    s->var_bytes = calloc(s->schema->nvar + 1, sizeof *s->var_bytes);
    s->var_lengths = calloc(s->schema->nvar + 1, sizeof *s->var_lengths);
    if (!s->var_offsets || !s->var_bytes || !s->var_lengths)
        return err_no_memory(ctx, s->schema->nvar * sizeof *s->var_bytes);
    RETURN_NOT_OK(read_sections(s, &c, ctx));
    if (!sections_complete(s))
        return corrupt(s, s->data_len, ctx, "a section is missing or contradicts the footer");
    return ERR_OK;
}

enum err segment_open(const char *path, const uint8_t *collection_id, struct segment **out,
                      struct err_ctx *ctx)
{
    static atomic_ullong serials;
    struct segment *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        free(s);
        return err_no_memory(ctx, sizeof *s);
    }
    s->serial = atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed) + 1;
    atomic_init(&s->refs, 1);
    enum err e = map_file(s, ctx);
    if (e == ERR_OK)
        e = read_header(s, collection_id, ctx);
    if (e == ERR_OK)
        e = read_footer(s, ctx);
    if (e != ERR_OK) {
        segment_release(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

/* ---- reading ---- */

static void note_damage(const struct segment *s, const char *what)
{
    if (!atomic_exchange(&((struct segment *)s)->damage_noted, true))
        log_error("%s: %s is damaged: drop the collection and load it again", s->path, what);
}

int64_t segment_key_int(const struct segment *s, uint32_t row)
{
    if (s->tail)
        return tail_key_int(s->tail, row);
    return s->keys_run ? s->first_key + row : s->int_keys[row];
}

const void *segment_key_str(const struct segment *s, uint32_t row, size_t *len)
{
    if (s->tail)
        return tail_key_str(s->tail, row, len);
    uint64_t from = s->key_offsets[row], to = s->key_offsets[row + 1];
    if (from > to || to > s->key_bytes_len) {
        note_damage(s, "a key offset");
        *len = 0;
        return "";
    }
    *len = to - from;
    return s->key_bytes + from;
}

const float *segment_vector_run(const struct segment *s, uint32_t row, uint32_t *n)
{
    if (!s->schema->dim)
        return NULL;
    if (s->tail)
        return tail_vector_run(s->tail, row, n);
    *n = s->rows - row;
    return s->vectors + (size_t)row * s->schema->dim;
}

uint64_t segment_vector_nulls(const struct segment *s, uint32_t w)
{
    if (s->tail)
        return tail_vector_nulls(s->tail, w);
    return s->vector_nulls ? s->vector_nulls[w] : 0;
}

const float *segment_vector(const struct segment *s, uint32_t row)
{
    if (!s->schema->dim || segment_vector_nulls(s, row >> 6) >> (row & 63) & 1)
        return NULL;
    uint32_t n;
    return segment_vector_run(s, row, &n);
}

const uint8_t *segment_strip(const struct segment *s, uint32_t row)
{
    if (!s->schema->strip_bytes)
        return NULL;
    if (s->tail)
        return tail_strip(s->tail, row);
    return s->strips + (size_t)row * s->schema->strip_bytes;
}

static const void *file_var(const struct segment *s, uint32_t row, uint32_t v, size_t *len)
{
    uint32_t from = s->var_offsets[v][row], to = s->var_offsets[v][row + 1];
    if (from > to || to > s->var_lengths[v]) {
        note_damage(s, "a cell offset");
        return NULL;
    }
    *len = to - from;
    return s->var_bytes[v] + from;
}

const void *segment_cell(const struct segment *s, uint32_t row, uint32_t feature, size_t *len)
{
    if (feature >= s->schema->nfeatures)
        return NULL;
    const uint8_t *strip = segment_strip(s, row);
    if (strip_null(strip, feature))
        return NULL;
    const struct feature *f = &s->schema->features[feature];
    if (f->width) {
        *len = f->width;
        return strip + f->strip_offset;
    }
    return s->tail ? tail_var(s->tail, row, f->var_index, len)
                   : file_var(s, row, f->var_index, len);
}

/* ---- keys ---- */

static int64_t key_int(const void *key)
{
    int64_t k;
    memcpy(&k, key, sizeof k); /* it may lie at any address */
    return k;
}

static bool same_key(const struct segment *s, uint32_t row, const void *key, size_t len)
{
    if (s->schema->key == KEY_INT64)
        return segment_key_int(s, row) == key_int(key);
    size_t n;
    const void *k = segment_key_str(s, row, &n);
    return n == len && memcmp(k, key, n) == 0;
}

/* Linear probing over slots of (tag, row + 1); the tag spares most looks at keys. */
static uint32_t probe(const struct segment *s, const void *key, size_t len, uint64_t hash)
{
    uint64_t tag = hash >> 32;
    for (uint64_t n = 0, i = hash & s->key_slots_mask; n <= s->key_slots_mask;
         n++, i = (i + 1) & s->key_slots_mask) {
        uint64_t slot = s->key_slots[i];
        if (!slot)
            return 0;
        uint32_t row = (uint32_t)slot - 1;
        if (slot >> 32 != tag)
            continue;
        if (row >= s->rows) {
            note_damage(s, "the key index");
            return 0;
        }
        if (same_key(s, row, key, len))
            return row + 1;
    }
    return 0;
}

/* False when the bounds of an int64 segment rule the key out. */
static bool in_bounds(const struct segment *s, const void *key)
{
    if (s->schema->key != KEY_INT64)
        return true;
    int64_t k = key_int(key);
    return s->rows && k >= s->key_min && k <= s->key_max;
}

static uint32_t run_row(const struct segment *s, const void *key)
{
    return (uint32_t)((uint64_t)key_int(key) - (uint64_t)s->first_key);
}

uint32_t segment_find(const struct segment *s, const void *key, size_t len, uint64_t hash)
{
    if (s->tail)
        return tail_find(s->tail, key, len, hash);
    if (!in_bounds(s, key))
        return 0;
    return s->keys_run ? run_row(s, key) + 1 : probe(s, key, len, hash);
}

void segment_prefetch_slot(const struct segment *s, uint64_t hash)
{
    if (s->key_slots)
        __builtin_prefetch(&s->key_slots[hash & s->key_slots_mask]);
}

uint32_t segment_guess(const struct segment *s, const void *key, uint64_t hash)
{
    if (s->tail || !in_bounds(s, key))
        return 0;
    if (s->keys_run)
        return run_row(s, key) + 1;
    for (unsigned n = 0; n < GUESS_SLOTS; n++) {
        uint64_t slot = s->key_slots[(hash + n) & s->key_slots_mask];
        if (!slot)
            return 0;
        if (slot >> 32 == hash >> 32)
            return (uint32_t)slot <= s->rows ? (uint32_t)slot : 0;
    }
    return 0;
}

void segment_prefetch_row(const struct segment *s, uint32_t row)
{
    if (s->schema->strip_bytes) {
        const uint8_t *strip = s->strips + (size_t)row * s->schema->strip_bytes;
        __builtin_prefetch(strip);
        __builtin_prefetch(strip + s->schema->strip_bytes - 1);
    }
    if (s->int_keys)
        __builtin_prefetch(&s->int_keys[row]);
    if (s->key_offsets)
        __builtin_prefetch(&s->key_offsets[row]);
}

void segment_prefetch_key(const struct segment *s, uint32_t row)
{
    if (s->key_offsets && s->key_offsets[row] < s->key_bytes_len)
        __builtin_prefetch(s->key_bytes + s->key_offsets[row]);
}

uint32_t segment_older(const struct segment *s, uint32_t row)
{
    if (s->tail)
        return tail_older(s->tail, row);
    if (!s->key_prev)
        return 0;
    uint32_t prev = s->key_prev[row];
    if (prev > row) {
        note_damage(s, "the key index");
        return 0;
    }
    return prev;
}

void segment_seq(const struct segment *s, uint32_t row, uint64_t *version, uint64_t *ordinal)
{
    uint32_t n = s->nruns;
    epoch_enter();
    const struct seq_run *runs = s->tail ? tail_runs(s->tail, &n) : s->runs;
    uint32_t lo = 0, hi = n;
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        if (runs[mid].first_row <= row)
            lo = mid;
        else
            hi = mid;
    }
    bool based = runs[lo].version == 0;
    *version = based ? s->base_version : runs[lo].version;
    *ordinal = runs[lo].ordinal + (row - runs[lo].first_row) + (based ? s->base_ordinal : 0);
    epoch_leave();
}
