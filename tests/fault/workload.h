/* What the fault tests do to a store, and what must be there afterwards.
 *
 * A workload is a run of steps over two collections, chosen by a seed. Beside the store it keeps a
 * book per collection: after each step that may have changed it, the whole content that must be
 * read from then on (a page). A step that was acknowledged is final; one that was begun and not
 * acknowledged may be there whole or not at all:
 *
 *   book:  page  page  page | page ..        acknowledged | begun
 *                       ^ the oldest that may be found
 *
 * A page also says which versions can be read: each must be what the page of its commit holds, but
 * for keys that were purged since.
 *
 *   workload.c  books, choosing and running steps     compare.c  a store against its books
 *   steps.c     loads, deletes, schemas, sealing      upkeep.c   restore, tags, compaction ...
 *
 * Threads: one. Failure of the store: told to the caller, whose test it is. */
#ifndef LOADSTONE_TESTS_FAULT_WORKLOAD_H
#define LOADSTONE_TESTS_FAULT_WORKLOAD_H

#include "../unit/store/store_fixture.h"
#include "store/version.h"

enum { BOOKS = 2, KEYS = 3000, ABSENT = -1, FEATURES_BEFORE = 5, FEATURES_AFTER = 9 };
enum { DAY = 4, DAYS = 3 };                  /* the feature that partitions, key % DAYS */
enum { TAGGED = 3, VERSIONS_TRACKED = 256 }; /* later versions are read as newest only */

/* A row as the store fixture writes it for the number x; `count` may have been changed alone. */
struct cell {
    int32_t x; /* ABSENT: no such row */
    int32_t count;
};

struct page {
    uint32_t step;
    bool settled; /* what it says has happened */
    bool exists;
    bool hides;        /* what its step takes away is out of sight even when it is refused */
    uint64_t version;  /* goes on counting when the collection is dropped */
    uint64_t base;     /* the version that it was created at reads as empty */
    uint32_t slack;    /* the version may be this much higher: a refused step may have taken one */
    uint32_t features; /* how many the schema has */
    uint32_t rows;
    bool kept[VERSIONS_TRACKED];       /* versions that can be read */
    struct page *of[VERSIONS_TRACKED]; /* the page of their commit */
    uint64_t tags[TAGGED];             /* the versions of tags "t0", "t1" ..; 0 = none */
    bool purges; /* its step is a purge: until acknowledged, old versions may hold the keys */
    bool half_purged[KEYS]; /* a purge was refused amid its work: "do it again" */
    uint16_t purged[KEYS];  /* 0, or the version that purged the key last */
    struct cell cells[KEYS];
};

struct book {
    const char *name;
    struct page **pages; /* owned */
    size_t n, cap;
    size_t final; /* the last page that was acknowledged */
};

struct workload {
    uint64_t seed, random;
    uint32_t step; /* of the step at work; the first is 1 */
    bool lenient;  /* a step may fail */
    /* NULL, or called around what the test does for itself: no faults there. */
    void (*pause)(bool on);
    uint64_t acknowledged, failed;
    struct book books[BOOKS];
    struct fixture *f;
    char doing[200]; /* the step at work, in words */
};

void workload_new(struct workload *w, struct fixture *f, uint64_t seed);
void workload_free(struct workload *w);

/* One step chosen by the seed. */
void workload_step(struct workload *w, void (*begun)(void *, uint32_t),
                   void (*acked)(void *, uint32_t), void *arg);
/* One step of the kind of that name, on the first collection. */
void workload_do(struct workload *w, const char *kind);

/* Compares an opened store with the books, of which the steps up to `acked` are final and those up
 * to `begun` may be there. Fails the test with `where` in the sentence. */
void workload_compare(struct workload *w, struct fixture *f, uint32_t acked, uint32_t begun,
                      const char *where);
/* The workload's own store shows what was acknowledged and nothing of a refused step. */
void workload_compare_final(struct workload *w, const char *where);
/* After a start of the workload's own store: which of the refused steps came to be there. */
void workload_settle(struct workload *w, const char *where);
/* The store takes writes again; counts in no book. */
void workload_write_again(struct fixture *f, const char *where);

/* ---- for the steps ---- */

struct job {
    struct workload *w;
    struct fixture *f;
    struct book *b;
    struct page *p;       /* the page it makes */
    struct collection *c; /* NULL: it does not exist */
    bool neutral; /* it changes nothing that is read: no page, and no word on earlier ones */
};

typedef enum err (*step_fn)(struct job *j);

int64_t random_below(struct workload *w, int64_t n);
void pause_faults(const struct workload *w, bool on);
void page_set(struct page *p, int64_t key, int32_t x, int32_t count);
void page_wipe(struct page *p);
/* The row of a key in version v, as it must be read when the collection is as `p` says. */
struct cell page_past(const struct page *p, uint64_t v, int64_t key);
/* A version that can be read, or 0. */
uint64_t random_version(struct workload *w, const struct page *p);
/* The step made a version: the page is of the next one. */
void page_commit(struct page *p);
/* The acknowledged one is that version. */
void expect_version(const struct job *j, uint64_t version);

enum err step_create(struct job *j);
enum err step_drop(struct job *j);
enum err step_upsert(struct job *j);
enum err step_upsert_streamed(struct job *j);
enum err step_upsert_partial(struct job *j);
enum err step_append(struct job *j);
enum err step_refresh(struct job *j);
enum err step_refresh_streamed(struct job *j);
enum err step_partition(struct job *j);
enum err step_delete(struct job *j);
enum err step_delete_where(struct job *j);
enum err step_alter(struct job *j);
enum err step_seal(struct job *j);
enum err step_reopen(struct job *j);
enum err step_restore(struct job *j);
enum err step_tag(struct job *j);
enum err step_untag(struct job *j);
enum err step_compact(struct job *j);
enum err step_vacuum(struct job *j);
enum err step_purge(struct job *j);

#endif
