/* What session.c (opening, finding), session_put.c (parts), session_end.c, session_commit.c and
 * session_file.c (disk) share. Nobody else includes this.
 *
 *   struct sessions ── list ──> session ── parts, sorted by name ──> part
 *        |                       open, being committed, or a one-shot that failed
 *        `─ ends: loads that were aborted or expired, the oldest first
 *
 * One lock a collection guards all of it. Files are written outside of the lock, by whoever keeps
 * the load from ending meanwhile: an open put, or the committing state. */
#ifndef LOADSTONE_STORE_SESSION_INTERNAL_H
#define LOADSTONE_STORE_SESSION_INTERNAL_H

#include "store/collection_internal.h"
#include "store/session.h"
#include "store/stage.h"

enum { SESSION_ENDS_MAX = 10000, SESSION_FAILED_MAX = 1000 };

struct part {
    char *name; /* NUL-terminated */
    size_t name_len;
    uint64_t number; /* of its file */
    uint64_t rows, bytes;
    struct hash128 digest;
    int64_t time_us;
};

/* A load that ended without a commit. */
struct session_end {
    uint8_t id[LOAD_ID_BYTES];
    bool expired;
    bool keyed;
    uint8_t key[16], hash[16];
    int64_t opened_expires_us; /* as answered when it was opened */
    int64_t time_us;
};

struct session {
    atomic_uint refs;
    struct collection *c; /* each reference but the list's holds it */
    uint8_t id[LOAD_ID_BYTES];
    enum load_mode mode;
    bool duplicates_last, one_shot;
    bool keyed;
    uint8_t key[16], hash[16];
    int64_t created_us, expiry_us;
    char *text;
    size_t text_len;
    struct build_watch build;
    struct load_watch watch;

    /* under the lock */
    enum session_state state;
    bool listed;
    bool opening;               /* its files are being made: nobody finds it yet */
    int64_t retry_us;           /* the sweep failed: not before then */
    bool unsettled;             /* from before this start: its commit may stand in the log */
    unsigned puts;              /* parts on their way */
    struct session_put *ending; /* those that write their files */
    int64_t active_us;
    uint64_t next_part;
    struct part **parts;
    size_t nparts, cap_parts;
    uint64_t rows, bytes;
    struct part **chosen; /* by the commit that runs */
    size_t nchosen;
    struct commit_result result;
    struct err_ctx error;
    char *fault; /* its files are damaged: it can only be aborted */
};

struct sessions {
    pthread_mutex_t lock;
    pthread_cond_t ended;      /* a put ended */
    pthread_mutex_t file_lock; /* of the file of ends; taken before `lock` */
    struct session **list;     /* oldest first */
    size_t n, cap;
    struct session_end *ends;
    size_t nends, cap_ends;
};

/* ---- session.c ---- */

struct session *session_alloc(struct collection *c, const uint8_t id[LOAD_ID_BYTES]);
void session_unref(struct session *s); /* a reference that does not hold the collection */
void part_free(struct part *p);
/* With the lock. */
WARN_UNUSED bool sessions_list_add(struct sessions *all, struct session *s);
struct session *sessions_find(const struct sessions *all, const uint8_t id[LOAD_ID_BYTES]);
void sessions_list_remove(struct sessions *all, struct session *s);
WARN_UNUSED bool sessions_ends_add(struct sessions *all, const struct session_end *end);
/* With the lock. */
void session_describe_locked(const struct session *s, struct session_info *out);
/* A load that a start found on disk may have been committed before: the log knows. *committed is
 * then true and its files are gone. */
WARN_UNUSED enum err session_settle(struct session *s, bool *committed, struct err_ctx *ctx);
/* With the lock: ERR_OK while it takes parts. */
WARN_UNUSED enum err session_check_open(const struct session *s, struct err_ctx *ctx);
/* With the lock: where the name is or would be in s->parts; true when it is there. */
bool session_find_part(const struct session *s, const char *name, size_t len, size_t *at);
WARN_UNUSED bool session_insert_part(struct session *s, size_t at, struct part *p);
/* With the lock: what receipts keep of the load's opening. */
struct receipt session_receipt(const struct session *s);

/* ---- session_file.c ---- */

void session_dir(const struct collection *c, const uint8_t id[LOAD_ID_BYTES], char *out,
                 size_t cap);
/* Makes the directory and the load's file. */
WARN_UNUSED enum err session_file_create(const struct session *s, struct err_ctx *ctx);
/* Writes a part's file, after its segments are synced. */
WARN_UNUSED enum err session_file_put(const struct session *s, const struct part *p,
                                      const struct staged *staged, size_t nstaged,
                                      struct err_ctx *ctx);
/* False when the file may still be there: then its segments must stay, too. */
bool session_file_unput(const struct session *s, const struct part *p);
/* Reads a part's segments back and opens them; the list is the caller's (staged_list_free). */
WARN_UNUSED enum err session_file_get(const struct session *s, const struct part *p,
                                      struct staged **out, size_t *n, struct err_ctx *ctx);
/* Removes the load's directory and what is in it; what stays behind goes at the next start. */
void session_file_remove(struct collection *c, const uint8_t id[LOAD_ID_BYTES]);
/* Writes the file of ends. */
WARN_UNUSED enum err session_file_ends(struct collection *c, const struct session_end *ends,
                                       size_t n, struct err_ctx *ctx);

#endif
