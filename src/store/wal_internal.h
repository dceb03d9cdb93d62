/* The log's state, shared by the two files that append to it (wal.c) and read it back
 * (wal_replay.c). */
#ifndef LOADSTONE_STORE_WAL_INTERNAL_H
#define LOADSTONE_STORE_WAL_INTERNAL_H

#include <pthread.h>

#include "store/wal.h"
#include "store/wal_format.h"

struct wal {
    struct io *io;
    char *dir;
    uint8_t collection_id[16];
    pthread_mutex_t lock;
    pthread_cond_t synced[2]; /* the group written, and the one pending: see wake_waiters */
    pthread_cond_t idle;      /* nobody leads */
    pthread_cond_t gathered;  /* as many records as the leader expects are pending */
    struct io_file *file;
    uint64_t number;
    uint64_t end;          /* where the next group goes */
    uint64_t reserved;     /* where the queued groups end at the latest */
    uint64_t allocated;    /* zeros up to here */
    struct io_file *spare; /* the next file under its temporary name; NULL: none */
    uint64_t spare_allocated;
    uint64_t group; /* the next group's number */
    struct buf pending, writing;
    uint32_t pending_records;
    uint32_t expected;               /* records of the next group */
    uint64_t sync_us;                /* what a group takes, smoothed */
    uint64_t queued, taken, durable; /* tickets */
    unsigned side;                   /* of `synced`: where waiters of the pending group wait */
    bool busy;                       /* a leader writes */
    bool ended;                      /* the last group is an empty one */
    struct err_ctx failed;
    uint64_t groups_written, records_written;
};

/* Without a file; NULL when memory is out. */
struct wal *wal_alloc(struct io *io, const char *dir, const uint8_t collection_id[16]);

#endif
