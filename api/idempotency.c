/* Idempotency-Key over the store's receipts.
 *
 * A claim is held from before the request does anything until its answer is known, so that a second
 * one meanwhile is told to wait (409) and one afterwards gets the first answer. What failed leaves
 * no receipt: nothing was changed, and the same request may be tried again.
 *
 * Threads: one a request. Failure: a request whose key could not be looked up does not run. */
#include "api/idempotency.h"

#include "base/clock.h"
#include "base/hash.h"

enum err idempotency_check_key(const char *key, struct err_ctx *ctx)
{
    size_t len = key ? strlen(key) : 1;
    bool visible = true;
    for (const char *p = key; p && *p; p++)
        visible &= *p > 0x20 && *p < 0x7f;
    if (len >= 1 && len <= IDEMPOTENCY_KEY_MAX && visible)
        return ERR_OK;
    return err_set(ctx, ERR_INVALID,
                   "Idempotency-Key must be 1 to %d visible ASCII characters, a UUID for instance",
                   IDEMPOTENCY_KEY_MAX);
}

enum err idempotency_claim(struct idempotency *i, struct service *s, struct collection *c,
                           const char *key, bool *found, struct receipt *first, struct err_ctx *ctx)
{
    *found = false;
    *i = (struct idempotency){0};
    if (!key)
        return ERR_OK;
    RETURN_NOT_OK(idempotency_check_key(key, ctx));
    RETURN_NOT_OK(receipt_claim(c, key, strlen(key), s->limits.idempotency_keys_max, &i->claim,
                                found, first, ctx));
    i->c = collection_acquire(c);
    i->note.keyed = true;
    receipt_hash_key(key, strlen(key), i->note.key);
    receipt_encode_key(i->note.key, 0, &i->key);
    return i->key.failed ? err_no_memory(ctx, i->key.len) : ERR_OK;
}

void idempotency_set_hash(struct idempotency *i, struct hash128 hash)
{
    memcpy(i->note.hash, &hash, sizeof i->note.hash);
}

enum err idempotency_same(const struct idempotency *i, const struct receipt *first,
                          struct err_ctx *ctx)
{
    if (memcmp(i->note.hash, first->hash, sizeof first->hash) == 0)
        return ERR_OK;
    return err_set(ctx, ERR_UNPROCESSABLE,
                   "another request was made with this Idempotency-Key in the last 24 hours: use a "
                   "new key for each request, and the same only to repeat it");
}

static enum err hash_body(struct request *r, const char *what, struct hash128 *out,
                          struct err_ctx *ctx)
{
    struct hash_stream *h = hash_stream_new();
    if (!h)
        return err_no_memory(ctx, 1024);
    hash_stream_put(h, what, strlen(what) + 1);
    hash_stream_put(h, r->body.data, r->body.len);
    *out = hash_stream_value(h);
    hash_stream_free(h);
    return ERR_OK;
}

enum err idempotency_look_up(struct request *r, struct collection *c, const char *what,
                             struct idempotency *i, bool *found, struct receipt *first,
                             struct err_ctx *ctx)
{
    struct hash128 hash;
    RETURN_NOT_OK(idempotency_claim(i, r->service, c, r->head.idempotency_key, found, first, ctx));
    if (!i->claim)
        return ERR_OK;
    RETURN_NOT_OK(hash_body(r, what, &hash, ctx));
    idempotency_set_hash(i, hash);
    return *found ? idempotency_same(i, first, ctx) : ERR_OK;
}

enum err idempotency_begin(struct request *r, struct collection *c, const char *what,
                           struct idempotency *i, bool *replay, struct commit_result *first,
                           struct err_ctx *ctx)
{
    struct receipt old;
    RETURN_NOT_OK(idempotency_look_up(r, c, what, i, replay, &old, ctx));
    if (*replay)
        *first = old.result;
    return ERR_OK;
}

void idempotency_set_load(struct idempotency *i, struct collection *c, const uint8_t *id)
{
    if (!i->c)
        i->c = collection_acquire(c);
    i->load_id = id;
    i->note.of_load = true;
    memcpy(i->note.load_id, id, sizeof i->note.load_id);
}

const struct load_receipt *idempotency_receipt(struct idempotency *i)
{
    if (!i->claim && !i->load_id)
        return NULL;
    i->receipt =
        (struct load_receipt){.key = i->key.data, .key_len = i->key.len, .load_id = i->load_id};
    memcpy(i->receipt.hash, i->note.hash, sizeof i->receipt.hash);
    return &i->receipt;
}

void idempotency_end(struct idempotency *i, enum err outcome, enum load_mode mode,
                     const struct commit_result *result)
{
    if (i->c && outcome == ERR_OK && result) {
        i->note.committed = true;
        i->note.mode = mode;
        i->note.time_us = clock_wall_us();
        i->note.result = *result;
        receipt_add(i->c, &i->note);
    }
    if (i->claim)
        receipt_release(i->c, i->claim);
    if (i->c)
        collection_release(i->c);
    buf_deinit(&i->key);
    *i = (struct idempotency){0};
}
