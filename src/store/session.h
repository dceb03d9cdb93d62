/* Load sessions: loads that many machines fill and one commits.
 *
 *   session_open -> session_put_begin .. session_put_end   (each part, in parallel, in any order)
 *                -> session_commit_begin, session_commit_run
 *                   or session_abort, or nothing for so long that it expires
 *
 * Nothing of an open load is visible to readers. Acknowledged parts and the load itself survive
 * restarts and crashes. After a commit that failed the load is open again; after one that succeeded
 * the result can be asked for 7 days.
 *
 * Every call is safe on any thread and may wait for the disk: not on the threads of the HTTP pool.
 * Errors of an id: ERR_NOT_FOUND unknown, ERR_GONE aborted or expired, ERR_CONFLICT committed or
 * being committed. */
#ifndef LOADSTONE_STORE_SESSION_H
#define LOADSTONE_STORE_SESSION_H

#include "base/hash.h"
#include "store/catalog.h"
#include "store/receipt.h"

struct session;
struct session_put;

enum session_state {
    SESSION_OPEN,
    SESSION_COMMITTING,
    SESSION_COMMITTED,
    SESSION_ABORTED,
    SESSION_EXPIRED
};

struct session_options {
    enum load_mode mode;
    bool duplicates_last;
    const char *text; /* the request that opened it, kept as it is: what commit options it has */
    size_t text_len;
    int64_t expiry_us; /* it expires after so long without activity */
    size_t loads_max;  /* open loads of the collection; ERR_BUSY past it */
    const char *key;   /* Idempotency-Key and what it covers, or NULL */
    size_t key_len;
    uint8_t hash[16];
};

struct session_part {
    const char *name;
    size_t name_len;
    uint64_t rows, bytes;
    struct hash128 digest; /* of the body */
};

/* What can be told of a load. */
struct session_info {
    uint8_t id[LOAD_ID_BYTES];
    enum session_state state;
    enum load_mode mode;
    int64_t created_us, expires_us;
    uint64_t rows, bytes, parts;
    unsigned arriving;           /* parts on their way */
    double progress;             /* of the index that is being built: 0..1 */
    double eta_s;                /* negative: unknown */
    enum load_phase phase;       /* while it is being committed */
    struct commit_result result; /* once committed */
    struct err_ctx error;        /* of the last commit; code ERR_OK: none */
    bool one_shot;               /* one request's rows, not a session */
};

/* ids as 32 hex digits */
void session_id_text(const uint8_t id[LOAD_ID_BYTES], char out[33]);
bool session_id_parse(const char *text, size_t n, uint8_t out[LOAD_ID_BYTES]);
const char *session_state_name(enum session_state s);

/* Durable when it returns. */
WARN_UNUSED enum err session_open(struct collection *c, const struct session_options *o,
                                  struct session_info *out, struct err_ctx *ctx);
/* A load that one request brings, so that who stops waiting for its commit can ask for it. Lives in
 * memory; the commit's record keeps the id. It is committing until session_finish. */
WARN_UNUSED enum err session_open_one_shot(struct collection *c, enum load_mode mode,
                                           struct session **out, struct err_ctx *ctx);

/* A reference to a load that is open, being committed, or was committed, aborted or expired while
 * this process runs; of older ones only *out is filled in and *s is NULL. */
WARN_UNUSED enum err session_find(struct collection *c, const uint8_t id[LOAD_ID_BYTES],
                                  struct session **s, struct session_info *out,
                                  struct err_ctx *ctx);
/* A reference to a load that takes parts; ERR_CONFLICT and ERR_GONE as above. */
WARN_UNUSED enum err session_find_open(struct collection *c, const uint8_t id[LOAD_ID_BYTES],
                                       struct session **s, struct err_ctx *ctx);
/* The sentence for a load that is not open any more. */
WARN_UNUSED enum err session_ended(const struct session_info *info, struct err_ctx *ctx);
void session_release(struct session *s); /* NULL is allowed */
struct session *session_acquire(struct session *s);
void session_describe(struct session *s, struct session_info *out);
const uint8_t *session_id(const struct session *s);
struct collection *session_collection(const struct session *s);
/* The text that opened it: borrowed from the session. */
const char *session_text(const struct session *s, size_t *n);
/* Where a commit tells how far it is. */
struct load_watch *session_watch(struct session *s);
/* Parts in the order of their names, from behind `after` (NULL: from the first) on, at most
 * `limit`; fn's argument is borrowed for the call. True when there are more. */
bool session_parts(struct session *s, const char *after, size_t after_len, size_t limit,
                   void (*fn)(void *arg, const struct session_part *part), void *arg);
/* Open loads of the collection, the oldest first. */
void session_each_open(struct collection *c, void (*fn)(void *arg, const struct session_info *info),
                       void *arg);

/* ---- parts ---- */

/* The name is not empty and holds no NUL; the load takes at most parts_max parts (ERR_TOO_LARGE). A
 * load with a part on its way can't be committed. */
/* A part's head has come: a load that is open counts it from here on. True: give it to
 * session_put_begin (`announced`), or back. Waits for nothing. */
WARN_UNUSED bool session_announce(struct collection *c, const uint8_t id[LOAD_ID_BYTES],
                                  struct session **s);
void session_announced_back(struct session *s); /* releases the reference, too */

WARN_UNUSED enum err session_put_begin(struct session *s, bool announced, const char *name,
                                       size_t name_len, size_t parts_max, uint64_t size_hint,
                                       struct session_put **out, struct err_ctx *ctx);
/* True when a part of that name is there: its bytes need only be compared, not decoded. */
bool session_put_known(const struct session_put *p);
struct schema *session_put_schema(const struct session_put *p); /* borrowed */
WARN_UNUSED enum err session_put_add(struct session_put *p, const struct batch *b,
                                     struct err_ctx *ctx);
/* The body is complete: `digest` and `bytes` are of all of it. Durable when it returns; *created is
 * false when the same part was there. ERR_CONFLICT when it has other bytes. */
WARN_UNUSED enum err session_put_end(struct session_put *p, struct hash128 digest, uint64_t bytes,
                                     bool *created, struct session_part *out, struct err_ctx *ctx);
/* Gives it back; what did not end leaves nothing. NULL is allowed. */
void session_put_free(struct session_put *p);

/* ---- the end ---- */

struct session_name {
    const char *text;
    size_t len;
};

/* What session_commit_begin found. */
enum session_commit { SESSION_RUN, SESSION_ATTACH, SESSION_DONE };

/* Chooses the parts (`names` NULL: all) and makes the load a committing one: SESSION_RUN, the
 * caller must session_commit_run. SESSION_ATTACH: another commit of it runs; SESSION_DONE: it was
 * committed. ERR_CONFLICT while a part is on its way, ERR_UNPROCESSABLE naming a part that is not
 * there. */
WARN_UNUSED enum err session_commit_begin(struct session *s, const struct session_name *names,
                                          size_t n, enum session_commit *what, struct err_ctx *ctx);
/* Commits; then the load is committed, or open again with the error kept. */
WARN_UNUSED enum err session_commit_run(struct session *s, const struct load_options *o,
                                        struct commit_result *out, struct err_ctx *ctx);
/* Instead of running: the load is open again. */
void session_commit_give_up(struct session *s, const struct err_ctx *why);
/* Ends a one-shot: `e` and ctx, or the result. */
void session_finish(struct session *s, enum err e, const struct commit_result *result,
                    const struct err_ctx *ctx);

/* Frees its disk; afterwards ERR_GONE, for 7 days. */
WARN_UNUSED enum err session_abort(struct session *s, struct err_ctx *ctx);

/* ---- for collection.c and maintain.c ---- */

struct sessions;
struct sessions *sessions_new(void); /* NULL: no memory */
void sessions_free(struct sessions *all);
/* At open, before what nothing refers to is removed: reads the open loads back. */
WARN_UNUSED enum err sessions_read(struct collection *c, struct err_ctx *ctx);
/* Expires what is due, forgets what ended long ago. */
void sessions_sweep(struct collection *c);

#endif
