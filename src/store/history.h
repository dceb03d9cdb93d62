/* The history of a collection: what its versions before the newest were.
 *
 *   log/<v>.hist  log/<v>.hist  |  recent items in memory (they are in the log, too)
 *   base, items   base, items   |  base, items ...
 *                               ^ the newest checkpoint
 *
 * Every record that is logged becomes an item with a running number. Items since the newest
 * checkpoint are kept in memory; a checkpoint moves them into history files first, so that a crash
 * in between finds them in both places, told apart by their numbers.
 *
 * A version is read by walking: from the newest base before it, item by item, up to its commit and
 * on through the compactions behind it, which stand for what it held. What comes out is a state by
 * segment ids (history_state.h), then a snapshot, of which the last few are kept.
 *
 * Which versions are kept: those from `horizon` on and those listed in `kept`; a vacuum sets both.
 *
 * Threads: `lock` guards everything here and is held briefly, never while a file is read; taken
 * after the commit lock, before the registry's. Items and bases are immutable and counted, so that
 * a walk goes on while commits and checkpoints come. */
#ifndef LOADSTONE_STORE_HISTORY_H
#define LOADSTONE_STORE_HISTORY_H

#include <pthread.h>

#include "store/history_state.h"
#include "store/version.h"

enum { VERSIONS_CACHED = 16 };

/* Bytes with a reference count: an item's record, or history_base_encode. */
struct piece {
    atomic_uint refs;
    uint64_t number;  /* item: its own; base: items before it */
    uint64_t version; /* of a commit, or of the base; else 0 */
    int64_t time_us;
    size_t len;
    uint8_t data[];
};

struct cached_version {
    struct snapshot *snapshot; /* NULL: free */
    uint64_t used;             /* stamp of the last use */
};

struct pin {
    uint64_t version;
    uint64_t count;
};

struct history {
    pthread_mutex_t lock;
    struct piece *base;    /* state before recent[0]; NULL only while opening */
    struct piece **recent; /* ascending */
    size_t nrecent, cap;
    size_t commits;        /* of the recent ones */
    struct buf files;      /* u64: first versions of the history files, ascending */
    uint64_t base_version; /* of the CREATE record: the empty version */
    uint64_t horizon;
    struct buf kept;   /* u64, ascending, below the horizon */
    struct buf pins;   /* struct pin */
    struct buf in_log; /* u64 ids of segments that a replayed vacuum removed; at open only */
    struct cached_version cache[VERSIONS_CACHED];
    uint64_t stamp;
};

void history_init(struct history *h);
void history_deinit(struct history *h);

/* ---- writing: with the commit lock, or at open ---- */

/* An item's memory, taken before its record is logged. */
WARN_UNUSED enum err history_prepare(struct collection *c, const void *record, size_t n,
                                     struct piece **out, struct err_ctx *ctx);
/* Cannot fail: the record is logged. Takes the item over. */
void history_add(struct collection *c, struct piece *item);
void piece_release(struct piece *p); /* NULL is allowed */

/* The way of every record into the log, with the commit lock: appends it, notes the item, the
 * ticket and the time. After ERR_OK nothing that follows may fail. */
WARN_UNUSED enum err collection_log(struct collection *c, const void *record, size_t n,
                                    uint64_t *ticket, struct err_ctx *ctx);

/* The state before the first recent item, from a snapshot whose rows all lie in closed segments. */
WARN_UNUSED enum err history_base_of(const struct snapshot *s, uint64_t items, struct piece **out,
                                     struct err_ctx *ctx);
/* Refs and masks of a snapshot's views; masks borrow from `blobs`. */
WARN_UNUSED enum err manifest_of(const struct snapshot *s, struct manifest *out, struct buf *blobs,
                                 struct err_ctx *ctx);

/* Writes the recent items up to number `upto` into history files; durable when it returns. Once
 * more is harmless. One thread at a time (the seal lock). */
WARN_UNUSED enum err history_write(struct collection *c, uint64_t upto, struct err_ctx *ctx);
/* They are in history files and a checkpoint stands at `base`, which is taken over. */
void history_rebase(struct collection *c, struct piece *base);
/* Unlinks the oldest history files whose versions are all let go and whose commits are all more
 * than 7 days older than `now_us`: till then they answer repeated requests. With the seal lock. */
void history_prune(struct collection *c, int64_t now_us);
/* Notes the history files that there are. */
WARN_UNUSED enum err history_open(struct collection *c, struct err_ctx *ctx);
/* Every history file is whole, follows the one before it and ends within the log. */
WARN_UNUSED enum err history_verify(struct collection *c, struct err_ctx *ctx);
void history_path(const struct collection *c, uint64_t first_version, char *out, size_t cap);

/* Which versions are kept from here on; those let go leave the cache. `r` may come from replay. */
WARN_UNUSED enum err vacuum_apply(struct collection *c, const struct vacuum_record *r,
                                  struct err_ctx *ctx);
/* Appends the versions that tags and pins hold (u64, ascending, each once). With the commit lock.
 * Errors show in out->failed. */
void collection_held_versions(struct collection *c, struct buf *out);
/* Forgets opened versions that `drop` picks. */
void history_forget(struct collection *c, bool (*drop)(const struct snapshot *s, const void *arg),
                    const void *arg);

/* u64 numbers: ascending, each once. */
void numbers_sort(struct buf *numbers);

/* ---- reading ---- */

/* ERR_NOT_FOUND, ERR_GONE, or ERR_OK when the version is there to be read. */
WARN_UNUSED enum err history_check(struct collection *c, uint64_t version, struct err_ctx *ctx);

/* A walk over items, through history files and recent ones, without a gap. */
struct history_walk {
    struct collection *c;
    struct buf files; /* as noted at the start */
    size_t next_file;
    struct piece *base;
    struct piece **recent;
    size_t nrecent, next_recent;
    struct buf data;     /* the file at hand */
    struct cursor items; /* in it */
    uint64_t covered;    /* numbers up to here are done with */
    const void *entered; /* base of the file that the last step came into; NULL: it stayed */
    size_t entered_len;
};

/* Starts at the newest base that lies before the commit of `version`: *state is the state there.
 * history_walk_end after an error, too. */
WARN_UNUSED enum err history_walk_begin(struct collection *c, uint64_t version,
                                        struct history_walk *w, struct history_state *state,
                                        struct err_ctx *ctx);
/* The next item, borrowed until the next call; *more is false at the end. */
WARN_UNUSED enum err history_walk_next(struct history_walk *w, struct history_item *item,
                                       bool *more, struct err_ctx *ctx);
void history_walk_end(struct history_walk *w);

/* The version by segment ids, compactions right behind its commit applied. */
WARN_UNUSED enum err history_state_at(struct collection *c, uint64_t version,
                                      struct history_state *out, struct err_ctx *ctx);

/* Appends the ids of the segments that the versions from `horizon` on and the `n` in `kept` need
 * (u64, ascending, each once). Reads files; outside the commit lock: what is added meanwhile has
 * ids from next_segment_id at the call on. */
WARN_UNUSED enum err history_needed(struct collection *c, uint64_t horizon, const uint64_t *kept,
                                    size_t n, struct buf *ids, struct err_ctx *ctx);

#endif
