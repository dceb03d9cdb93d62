/* Idempotency-Key: a request that is sent again gets the first answer. Scoped to the collection.
 *
 *   idempotency_begin ── replay: write *first as any result
 *          |
 *          `── run it, with idempotency_receipt in the commit's options ── idempotency_end
 *
 * On workers only: what was answered before may have to be read from files. */
#ifndef LOADSTONE_API_IDEMPOTENCY_H
#define LOADSTONE_API_IDEMPOTENCY_H

#include "api/request.h"
#include "store/receipt.h"

struct idempotency {
    struct collection *c;        /* acquired */
    struct receipt_claim *claim; /* NULL: no key was sent */
    const uint8_t *load_id;
    struct receipt note;
    struct buf key; /* as the log keeps it */
    struct load_receipt receipt;
};

/* ERR_INVALID unless it is 1 to 255 visible ASCII characters; NULL is fine. */
WARN_UNUSED enum err idempotency_check_key(const char *key, struct err_ctx *ctx);

/* Takes the key of a request whose body's hash is known later. ERR_CONFLICT while another with it
 * runs. *found: it was answered before, by *first; compare with idempotency_same. `i` must be given
 * back by idempotency_end, after an error too. Without a key nothing happens. */
WARN_UNUSED enum err idempotency_claim(struct idempotency *i, struct service *s,
                                       struct collection *c, const char *key, bool *found,
                                       struct receipt *first, struct err_ctx *ctx);
/* The body's hash, `what` included: what else makes the request this one ("delete", the mode ..).
 * Before the commit. */
void idempotency_set_hash(struct idempotency *i, struct hash128 hash);
/* ERR_UNPROCESSABLE when the first request with this key was another. */
WARN_UNUSED enum err idempotency_same(const struct idempotency *i, const struct receipt *first,
                                      struct err_ctx *ctx);

/* The three in one, for a body that is gathered: *found says that *first is what was done. */
WARN_UNUSED enum err idempotency_look_up(struct request *r, struct collection *c, const char *what,
                                         struct idempotency *i, bool *found, struct receipt *first,
                                         struct err_ctx *ctx);
/* The same for commits. */
WARN_UNUSED enum err idempotency_begin(struct request *r, struct collection *c, const char *what,
                                       struct idempotency *i, bool *replay,
                                       struct commit_result *first, struct err_ctx *ctx);
/* The commit is that of a load that can be asked for; `id` is borrowed until the end. */
void idempotency_set_load(struct idempotency *i, struct collection *c, const uint8_t *id);
/* For load_options.receipt; NULL when there is neither a key nor a load. */
const struct load_receipt *idempotency_receipt(struct idempotency *i);
/* Gives the key back; with ERR_OK and a result, that is what the next one is answered. */
void idempotency_end(struct idempotency *i, enum err outcome, enum load_mode mode,
                     const struct commit_result *result);

#endif
