/* Sets of the keys of a batch: open addressing over row numbers, never more than half full.
 *
 * Threads: a set belongs to one while it is made, then any may ask. Failure: memory, or the
 * sentence about a key that comes twice. */
#include "store/incoming.h"

static enum err slots_new(size_t rows, uint32_t **slots, size_t *mask, struct err_ctx *ctx)
{
    size_t n = 64;
    while (n < rows * 2)
        n *= 2;
    *slots = calloc(n, sizeof **slots);
    *mask = n - 1;
    return *slots ? ERR_OK : err_no_memory(ctx, n * sizeof **slots);
}

/* The slot of a key: empty, or that of a row with the same key. */
static size_t slot_of(const struct batch *b, const uint32_t *slots, size_t mask,
                      const struct row *key)
{
    size_t at = row_key_hash(key) & mask;
    struct row other = {.schema = b->schema};
    for (; slots[at]; at = (at + 1) & mask) {
        batch_row_key(b, slots[at] - 1, &other);
        if (row_keys_equal(key, &other))
            break;
    }
    return at;
}

static enum err skip_repeats(const struct load_options *opts, const struct batch *b,
                             uint32_t *slots, size_t mask, uint32_t *skip, struct err_ctx *ctx)
{
    for (size_t i = 0; i < b->rows; i++) {
        struct row key = {.schema = b->schema};
        batch_row_key(b, i, &key);
        size_t at = slot_of(b, slots, mask, &key);
        if (slots[at]) {
            size_t j = slots[at] - 1;
            struct load_place first = {.row = j}, second = {.row = i};
            if (!opts->duplicates_last || opts->mode == LOAD_APPEND)
                return duplicate_error(opts->mode, &key, &first, &second, ctx);
            skip[j / 32] |= 1u << (j % 32);
        }
        slots[at] = (uint32_t)i + 1;
    }
    return ERR_OK;
}

enum err load_skip_held(const struct load_options *opts, const struct batch *b, uint32_t **skip,
                        struct err_ctx *ctx)
{
    uint32_t *slots;
    size_t mask;
    *skip = NULL;
    if (b->rows < 2 || b->keys_run)
        return ERR_OK;
    RETURN_NOT_OK(slots_new(b->rows, &slots, &mask, ctx));
    *skip = calloc(b->rows / 32 + 1, sizeof **skip);
    enum err e =
        *skip ? skip_repeats(opts, b, slots, mask, *skip, ctx) : err_no_memory(ctx, b->rows / 8);
    free(slots);
    return e;
}

enum err key_set_init(struct key_set *s, const struct batch *keys, struct err_ctx *ctx)
{
    s->keys = keys;
    RETURN_NOT_OK(slots_new(keys->rows, &s->slots, &s->mask, ctx));
    for (size_t i = 0; i < keys->rows; i++) {
        struct row key = {.schema = keys->schema};
        batch_row_key(keys, i, &key);
        s->slots[slot_of(keys, s->slots, s->mask, &key)] = (uint32_t)i + 1;
    }
    return ERR_OK;
}

bool key_set_has(const struct key_set *s, const struct row *key)
{
    return s->slots[slot_of(s->keys, s->slots, s->mask, key)] != 0;
}

void key_set_deinit(struct key_set *s)
{
    free(s->slots);
    s->slots = NULL;
}
