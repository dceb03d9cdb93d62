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
 * Threads: one. Failure of the store: told to the caller, whose test it is. */
#ifndef LOADSTONE_TESTS_FAULT_WORKLOAD_H
#define LOADSTONE_TESTS_FAULT_WORKLOAD_H

#include "../unit/store/store_fixture.h"

enum { BOOKS = 2, KEYS = 3000, ABSENT = -1, FEATURES_BEFORE = 4, FEATURES_AFTER = 8 };

/* A row as the store fixture writes it for the number x; `count` may have been changed alone. */
struct cell {
    int32_t x; /* ABSENT: no such row */
    int32_t count;
};

struct page {
    uint32_t step;
    bool exists;
    bool dropped;      /* by this step, which hides it at once even when it is refused */
    uint64_t version;  /* goes on counting when the collection is dropped */
    uint32_t slack;    /* the version may be this much higher: a refused step may have taken one */
    uint32_t features; /* how many the schema has */
    uint32_t rows;
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

#endif
