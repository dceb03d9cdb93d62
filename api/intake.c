/* A streamed body, from its bytes to a commit or a part.
 *
 *                 ┌─ Content-Digest: SHA-2 of all bytes
 *   bytes ────────┼─ Idempotency-Key, parts: XXH3 of all bytes
 *                 └─ decoder ── rows ── load (stage), unless the same was there before; or a taker
 *
 * The first step, on a worker, takes the Idempotency-Key or begins the part. When the key was
 * answered before, or the part is there, the bytes are only hashed and then compared.
 *
 * Threads: one at a time. Failure: the intake can only be dropped; nothing is changed. */
#include "api/intake.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/content_digest.h"
#include "api/load_call.h"
#include "base/epoch.h"

struct intake {
    struct service *service;
    struct collection *collection;
    struct intake_options options;
    char *message, *key, *part;
    struct content_digest *digest;
    struct hash_stream *hash; /* NULL: nobody asks for it */
    uint64_t bytes;
    bool begun;
    bool repeated; /* the bytes are only compared */
    struct idempotency idem;
    struct receipt first; /* what the key was answered */
    struct load *load;
    struct session *announced; /* counts the part before it begins */
    struct session_put *put;
    struct decoder *decoder;
};

static char *copy(const char *text, size_t n, bool *failed)
{
    char *out = text ? strndup(text, n) : NULL;
    *failed |= text && !out;
    return out;
}

enum err intake_new(struct service *s, struct collection *c, const struct intake_options *o,
                    struct intake **out, struct err_ctx *ctx)
{
    bool failed = false;
    struct intake *t = calloc(1, sizeof *t);
    if (!t)
        return err_no_memory(ctx, sizeof *t);
    t->service = s;
    t->options = *o;
    t->options.load.message = t->message =
        copy(o->load.message, o->load.message ? strlen(o->load.message) : 0, &failed);
    t->options.key = t->key = copy(o->key, o->key ? strlen(o->key) : 0, &failed);
    t->options.part = t->part = copy(o->part, o->part_len, &failed);
    if ((o->key || o->part) && !(t->hash = hash_stream_new()))
        failed = true;
    t->collection = collection_acquire(c);
    enum err e = failed ? err_no_memory(ctx, sizeof *t) : ERR_OK;
    if (e == ERR_OK)
        e = idempotency_check_key(o->key, ctx);
    if (e == ERR_OK)
        e = content_digest_new(o->digest, &t->digest, ctx);
    t->options.digest = NULL;
    if (e == ERR_OK && o->part && !session_announce(c, o->load_id, &t->announced))
        t->announced = NULL; /* what is wrong is said when the part begins */
    if (e != ERR_OK) {
        t->options.taker.arg = NULL; /* it stays the caller's */
        intake_free(t);
        return e;
    }
    *out = t;
    return ERR_OK;
}

/* ---- the first step ---- */

/* What makes two requests with one body two requests. */
static void hash_call(struct intake *t)
{
    char what[160];
    const struct intake_options *o = &t->options;
    int n = snprintf(what, sizeof what, "rows %d %d %lld %d", (int)o->load.mode,
                     (int)o->load.duplicates_last, (long long)o->decoder.first_key,
                     (int)o->decoder.media);
    hash_stream_put(t->hash, what, (size_t)n + 1);
}

static enum err begin_rows(struct intake *t, struct err_ctx *ctx)
{
    bool found;
    RETURN_NOT_OK(
        idempotency_claim(&t->idem, t->service, t->collection, t->key, &found, &t->first, ctx));
    t->repeated = found;
    if (t->key)
        hash_call(t);
    if (found)
        return ERR_OK;
    RETURN_NOT_OK(load_new(t->collection, &t->options.load, &t->load, ctx));
    return decoder_new(row_sink_of(t->load), &t->options.decoder, &t->decoder, ctx);
}

static enum err put_rows(void *to, const struct batch *b, struct err_ctx *ctx)
{
    return session_put_add(to, b, ctx);
}

static enum err begin_part(struct intake *t, struct err_ctx *ctx)
{
    const struct intake_options *o = &t->options;
    struct session *s = t->announced;
    bool announced = s != NULL;
    if (!s)
        RETURN_NOT_OK(session_find_open(t->collection, o->load_id, &s, ctx));
    t->announced = NULL;
    enum err e = session_put_begin(s, announced, o->part, o->part_len, o->parts_max,
                                   o->load.size_hint, &t->put, ctx);
    session_release(s);
    RETURN_NOT_OK(e);
    t->repeated = session_put_known(t->put);
    if (t->repeated)
        return ERR_OK;
    struct row_sink sink = {session_put_schema(t->put), put_rows, t->put};
    return decoder_new(sink, &o->decoder, &t->decoder, ctx);
}

static enum err begin(struct intake *t, struct err_ctx *ctx)
{
    if (t->begun || t->options.taker.arg)
        return ERR_OK;
    t->begun = true;
    return t->part ? begin_part(t, ctx) : begin_rows(t, ctx);
}

/* ---- the body ---- */

static enum err feed(struct intake *t, const void *data, size_t n, struct err_ctx *ctx)
{
    RETURN_NOT_OK(begin(t, ctx));
    t->bytes += n;
    content_digest_put(t->digest, data, n);
    if (t->hash)
        hash_stream_put(t->hash, data, n);
    if (t->options.taker.arg)
        return t->options.taker.feed(t->options.taker.arg, data, n, ctx);
    return t->repeated ? ERR_OK : decoder_feed(t->decoder, data, n, ctx);
}

enum err intake_feed(struct intake *t, const void *data, size_t n, struct err_ctx *ctx)
{
    enum err e = feed(t, data, n, ctx);
    if (e != ERR_OK)
        intake_drop(t);
    return e;
}

static enum err finish_rows(struct intake *t, struct intake_outcome *out, struct err_ctx *ctx)
{
    if (t->key)
        idempotency_set_hash(&t->idem, hash_stream_value(t->hash));
    if (t->repeated) {
        RETURN_NOT_OK(idempotency_same(&t->idem, &t->first, ctx));
        out->result = t->first.result;
        return ERR_OK;
    }
    enum load_mode mode = t->options.load.mode;
    if (load_is_large(t->load)) {
        RETURN_NOT_OK(commit_job_rows(t->service, t->collection, t->load, mode, &t->idem,
                                      &out->running, ctx));
        t->load = NULL;
        return ERR_OK;
    }
    load_set_receipt(t->load, idempotency_receipt(&t->idem));
    enum err e = load_commit(t->load, &out->result, ctx);
    idempotency_end(&t->idem, e, mode, &out->result);
    return e;
}

/* The same vectors from another first key are other rows. */
static void hash_first_key(struct intake *t)
{
    char text[40];
    int n = snprintf(text, sizeof text, "first_key=%lld", (long long)t->options.decoder.first_key);
    hash_stream_put(t->hash, text, (size_t)n);
}

static enum err finish_part(struct intake *t, struct intake_outcome *out, struct err_ctx *ctx)
{
    struct session_part part;
    enum media media = t->options.decoder.media;
    if (media == MEDIA_OCTETS || media == MEDIA_NPY)
        hash_first_key(t);
    out->hash = hash_stream_value(t->hash);
    RETURN_NOT_OK(session_put_end(t->put, out->hash, t->bytes, &out->created, &part, ctx));
    out->part = t->part;
    out->rows = part.rows;
    out->bytes = part.bytes;
    return ERR_OK;
}

static enum err finish(struct intake *t, struct intake_outcome *out, struct err_ctx *ctx)
{
    RETURN_NOT_OK(begin(t, ctx));
    RETURN_NOT_OK(content_digest_check(t->digest, ctx));
    if (t->options.taker.arg)
        return t->options.taker.finish(t->options.taker.arg, ctx);
    if (!t->repeated)
        RETURN_NOT_OK(decoder_finish(t->decoder, ctx));
    return t->part ? finish_part(t, out, ctx) : finish_rows(t, out, ctx);
}

enum err intake_finish(struct intake *t, struct intake_outcome *out, struct err_ctx *ctx)
{
    *out = (struct intake_outcome){0};
    enum err e = finish(t, out, ctx);
    epoch_enter();
    out->event_time = collection_snapshot(t->collection)->schema->event_time >= 0;
    epoch_leave();
    intake_drop(t);
    return e;
}

/* ---- the end ---- */

bool intake_holds(const struct intake *t)
{
    return t->load || t->put || t->announced || t->idem.claim || t->options.taker.arg;
}

void intake_drop(struct intake *t)
{
    if (t->options.taker.arg)
        t->options.taker.free(t->options.taker.arg);
    t->options.taker.arg = NULL;
    decoder_free(t->decoder);
    load_free(t->load);
    session_put_free(t->put);
    if (t->announced)
        session_announced_back(t->announced);
    t->announced = NULL;
    idempotency_end(&t->idem, ERR_UNAVAILABLE, t->options.load.mode, NULL);
    t->decoder = NULL;
    t->load = NULL;
    t->put = NULL;
}

void intake_free(struct intake *t)
{
    if (!t)
        return;
    ASSERT(!intake_holds(t));
    content_digest_free(t->digest);
    hash_stream_free(t->hash);
    collection_release(t->collection);
    free(t->message);
    free(t->key);
    free(t->part);
    free(t);
}
