/* Partition sets: each partition as bytes, in an open-addressing table.
 *
 *   bytes of one:  per feature of partition_by:  0 (null)  |  1, u32 length, value
 *
 * Threads: the scratch buffer makes look-ups one thread's at a time. Failure: memory; a look-up
 * that can't encode finds nothing and says so in `failed`, which the caller asks before it trusts
 * the whole. */
#include "store/partition.h"

#include <inttypes.h>
#include <stdio.h>

struct entry {
    uint64_t hash;
    size_t at, len; /* in `bytes` */
};

struct partition_set {
    uint32_t n; /* features */
    uint32_t *features;
    const struct schema *schema; /* borrowed */
    struct buf bytes;
    struct buf entries; /* struct entry */
    uint32_t *slots;    /* entry + 1 */
    size_t mask;
    struct buf scratch;
};

/* Where a cell is found; NULL = null. */
typedef const void *(*cell_fn)(const void *of, uint32_t row, uint32_t feature, size_t *len);

static const void *row_cell(const void *of, uint32_t row, uint32_t feature, size_t *len)
{
    const struct row *r = of;
    const struct feature *f = &r->schema->features[feature];
    (void)row;
    if (strip_null(r->strip, feature))
        return NULL;
    *len = f->width ? f->width : r->var[f->var_index].len;
    return f->width ? r->strip + f->strip_offset : r->var[f->var_index].data;
}

static const void *stored_cell(const void *of, uint32_t row, uint32_t feature, size_t *len)
{
    return segment_cell(of, row, feature, len);
}

enum err partition_set_new(const struct schema *s, struct partition_set **out, struct err_ctx *ctx)
{
    struct partition_set *p = calloc(1, sizeof *p);
    if (!p)
        return err_no_memory(ctx, sizeof *p);
    p->schema = s;
    p->n = s->npartition;
    p->mask = 63;
    p->features = calloc(p->n + 1, sizeof *p->features);
    p->slots = calloc(p->mask + 1, sizeof *p->slots);
    if (!p->features || !p->slots) {
        partition_set_free(p);
        return err_no_memory(ctx, s->npartition * sizeof *p->features);
    }
    for (uint32_t i = 0; i < p->n; i++)
        p->features[i] = (uint32_t)schema_find(s, s->partition_by[i], strlen(s->partition_by[i]));
    *out = p;
    return ERR_OK;
}

void partition_set_free(struct partition_set *p)
{
    if (!p)
        return;
    free(p->features);
    free(p->slots);
    buf_deinit(&p->bytes);
    buf_deinit(&p->entries);
    buf_deinit(&p->scratch);
    free(p);
}

/* The bytes of a row's partition, into the scratch buffer. False: no memory. */
static bool encode(struct partition_set *p, cell_fn cell, const void *of, uint32_t row)
{
    p->scratch.len = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        size_t len = 0;
        const void *data = cell(of, row, p->features[i], &len);
        buf_put_u8(&p->scratch, data != NULL);
        if (data)
            buf_put_blob(&p->scratch, data, len);
    }
    return !p->scratch.failed;
}

/* The slot of what the scratch buffer holds: of its entry, or empty. */
static size_t slot_of(const struct partition_set *p, uint64_t hash)
{
    const struct entry *entries = (const struct entry *)p->entries.data;
    size_t at = hash & p->mask;
    for (; p->slots[at]; at = (at + 1) & p->mask) {
        const struct entry *e = &entries[p->slots[at] - 1];
        if (e->hash == hash && e->len == p->scratch.len &&
            memcmp(p->bytes.data + e->at, p->scratch.data, e->len) == 0)
            break;
    }
    return at;
}

static bool grow(struct partition_set *p)
{
    const struct entry *entries = (const struct entry *)p->entries.data;
    size_t n = p->entries.len / sizeof *entries, mask = p->mask * 2 + 1;
    if (n * 2 <= p->mask)
        return true;
    uint32_t *slots = calloc(mask + 1, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < n; i++) {
        size_t at = entries[i].hash & mask;
        while (slots[at])
            at = (at + 1) & mask;
        slots[at] = (uint32_t)i + 1;
    }
    free(p->slots);
    p->slots = slots;
    p->mask = mask;
    return true;
}

static enum err add(struct partition_set *p, cell_fn cell, const void *of, uint32_t row,
                    struct err_ctx *ctx)
{
    if (!grow(p) || !encode(p, cell, of, row))
        return err_no_memory(ctx, p->scratch.len);
    uint64_t hash = key_hash(p->scratch.data, p->scratch.len);
    size_t slot = slot_of(p, hash);
    if (p->slots[slot])
        return ERR_OK;
    struct entry e = {.hash = hash, .at = p->bytes.len, .len = p->scratch.len};
    buf_put(&p->bytes, p->scratch.data, p->scratch.len);
    buf_put(&p->entries, &e, sizeof e);
    if (p->bytes.failed || p->entries.failed)
        return err_no_memory(ctx, p->bytes.len);
    p->slots[slot] = (uint32_t)(p->entries.len / sizeof e);
    return ERR_OK;
}

enum err partition_add_row(struct partition_set *p, const struct row *r, struct err_ctx *ctx)
{
    return add(p, row_cell, r, 0, ctx);
}

enum err partition_add_segment(struct partition_set *p, const struct segment *s, uint32_t row,
                               struct err_ctx *ctx)
{
    return add(p, stored_cell, s, row, ctx);
}

static const void *batch_cell(const void *of, uint32_t row, uint32_t feature, size_t *len)
{
    const struct batch *b = of;
    const struct column *c = &b->features[feature];
    if (column_state(c, row) != CELL_VALUE)
        return NULL;
    *len = b->schema->features[feature].width;
    return *len ? c->values.data + row * *len : column_var(c, row, len);
}

enum err partition_add_batch(struct partition_set *p, const struct batch *b, size_t i,
                             struct err_ctx *ctx)
{
    for (uint32_t f = 0; f < p->n; f++) {
        if (column_state(&b->features[p->features[f]], i) == CELL_ABSENT)
            return err_set_at(ctx, ERR_UNPROCESSABLE, -1, "partitions",
                              "partition %zu of the load leaves out '%s': name each feature of "
                              "partition_by (null is a partition, too)",
                              i, p->schema->features[p->features[f]].name);
    }
    return add(p, batch_cell, b, (uint32_t)i, ctx);
}

static bool has(struct partition_set *p, cell_fn cell, const void *of, uint32_t row)
{
    return encode(p, cell, of, row) &&
           p->slots[slot_of(p, key_hash(p->scratch.data, p->scratch.len))] != 0;
}

bool partition_has_row(struct partition_set *p, const struct row *r)
{
    return has(p, row_cell, r, 0);
}

bool partition_has_segment(struct partition_set *p, const struct segment *s, uint32_t row)
{
    return has(p, stored_cell, s, row);
}

/* ---- messages ---- */

static int value_text(const struct feature *f, const void *data, size_t len, char *out, size_t cap)
{
    int32_t i32;
    int64_t i64;
    switch (f->type) {
    case FEATURE_BOOL:
        return snprintf(out, cap, "%s", *(const uint8_t *)data ? "true" : "false");
    case FEATURE_INT32:
        memcpy(&i32, data, sizeof i32);
        return snprintf(out, cap, "%" PRId32, i32);
    case FEATURE_INT64:
    case FEATURE_TIMESTAMP:
        memcpy(&i64, data, sizeof i64);
        return snprintf(out, cap, "%" PRId64 "%s", i64, f->type == FEATURE_INT64 ? "" : "us");
    case FEATURE_STRING:
        return snprintf(out, cap, "'%.*s'", (int)(len < 60 ? len : 60), (const char *)data);
    default:
        return snprintf(out, cap, "(%zu bytes)", len);
    }
}

static void text_of(const struct partition_set *p, cell_fn cell, const void *of, uint32_t row,
                    char *out, size_t cap)
{
    size_t at = 0, len;
    *out = '\0';
    for (uint32_t i = 0; i < p->n && at < cap; i++) {
        const struct feature *f = &p->schema->features[p->features[i]];
        const void *data = cell(of, row, p->features[i], &len);
        at += (size_t)snprintf(out + at, cap - at, "%s%s=", i ? ", " : "", f->name);
        if (at < cap)
            at += (size_t)(data ? value_text(f, data, len, out + at, cap - at)
                                : snprintf(out + at, cap - at, "null"));
    }
}

void partition_text_row(const struct partition_set *p, const struct row *r, char *out, size_t cap)
{
    text_of(p, row_cell, r, 0, out, cap);
}

void partition_text_segment(const struct partition_set *p, const struct segment *s, uint32_t row,
                            char *out, size_t cap)
{
    text_of(p, stored_cell, s, row, out, cap);
}
