/* A disk that loses power: an io backend that keeps the trace of what was asked of it, and a player
 * that lays out what the disk may hold if the power fails at any point of that trace.
 *
 *   store ── io.h ── disk ── a real backend        the work is done for real, syncs left out
 *                      │
 *                      └─ trace:  write  write  sync  link  rename  sync dir  note ...
 *                                                        ^ cut
 *
 * What a sync or a directory sync that ended before the cut covers is there. Of the rest each write
 * is applied, dropped, or torn by sectors; each name made, moved or removed is done or undone. A
 * rename is one step, whichever directories it spans, and durable with the directory it goes to.
 *
 * Threads: recording takes any number; playing one. Failure: a test program's: it ends. */
#ifndef LOADSTONE_TESTS_FAULT_DISK_H
#define LOADSTONE_TESTS_FAULT_DISK_H

#include "io/io_internal.h"

enum { SECTOR_BYTES = 512 };

struct disk;

/* Records what happens below `root`, whose present content counts as durable. */
struct disk *disk_new(const char *root, enum io_backend inner);
struct io *disk_io(struct disk *d); /* freed with the disk */
/* A mark in the trace. */
void disk_note(struct disk *d, uint64_t what);
/* Stops recording: later operations are only passed on. */
void disk_stop(struct disk *d);
size_t disk_events(const struct disk *d);
void disk_free(struct disk *d);

/* What becomes of that which no sync has covered. */
enum cut_style { CUT_NONE_KEPT, CUT_ALL_KEPT, CUT_PREFIX_KEPT, CUT_ANY_KEPT, CUT_STYLES };

struct player;

struct player *player_new(const struct disk *d);
/* Plays one event; false at the end. *note is set when it was one. */
bool player_step(struct player *p, bool *is_note, uint64_t *note);
/* True when something is written or moved that no sync covers yet. */
bool player_unsynced(const struct player *p);
/* The event played last, in words: for messages. */
const char *player_where(const struct player *p);
/* Lays out one state that the disk may be in, as the content of the directory `root`, which must
 * not exist. The same seed gives the same state. */
void player_cut(const struct player *p, const char *root, enum cut_style style, uint64_t seed);
void player_free(struct player *p);

#endif
