/* Receipts: first answers, kept for whoever asks again.
 *
 * A commit may carry an Idempotency-Key (24 h) and the id of its load (7 days) in its log record.
 * The index over them is built from the history when it is first asked and kept up afterwards, so
 * that an answer repeats field by field, restarts included, and starting up costs nothing. Past
 * `max` receipts of one collection the oldest are forgotten first. */
#ifndef LOADSTONE_STORE_RECEIPT_H
#define LOADSTONE_STORE_RECEIPT_H

#include "store/load.h"

enum { IDEMPOTENCY_KEY_MAX = 255, LOAD_ID_BYTES = 16 };

struct receipt_claim;

struct receipt {
    bool keyed;       /* key and hash are set */
    uint8_t key[16];  /* receipt_hash_key */
    uint8_t hash[16]; /* of the body and of what else makes the request this one */
    bool of_load;     /* load_id is set */
    uint8_t load_id[LOAD_ID_BYTES];
    int64_t expires_us; /* as answered when the load was opened */
    int64_t time_us;    /* kept from then on */
    bool committed;     /* result is set; else the load is open, or ended without a commit */
    uint32_t mode;      /* enum load_mode */
    struct commit_result result;
};

/* How long, from receipt.time_us. */
#define RECEIPT_KEY_US (24 * 3600 * 1000000ll)
#define RECEIPT_LOAD_US (7 * 24 * 3600 * 1000000ll)

void receipt_hash_key(const char *key, size_t len, uint8_t out[16]);
/* What stands in a log record for a key: its hash, and until when the load that it opened was to
 * stay open (0: it opened none). */
void receipt_encode_key(const uint8_t key[16], int64_t expires_us, struct buf *out);

/* Takes a key for a request that begins; give it back with receipt_release. ERR_CONFLICT while
 * another request with it runs. `*found`: it was answered before, by *first. Reads files. */
WARN_UNUSED enum err receipt_claim(struct collection *c, const char *key, size_t len, size_t max,
                                   struct receipt_claim **out, bool *found, struct receipt *first,
                                   struct err_ctx *ctx);
void receipt_release(struct collection *c, struct receipt_claim *claim); /* NULL is allowed */

/* The receipt of a load. ERR_OK with *found false when there is none. Reads files. */
WARN_UNUSED enum err receipt_find_load(struct collection *c, const uint8_t id[LOAD_ID_BYTES],
                                       bool *found, struct receipt *out, struct err_ctx *ctx);

/* Once the answer is known; replaces what the key or the load had. When memory is out the log still
 * holds it: the index is built anew when it is next asked. */
void receipt_add(struct collection *c, const struct receipt *r);
/* Forgets what is too old. */
void receipts_sweep(struct collection *c);

#endif
