/* Epoch-based reclamation: readers without locks.
 *
 * A reader marks its slot with the global epoch, uses what the current pointers lead to, and
 * clears the slot. A writer swaps a pointer and retires the old object; it is freed once every
 * slot that was marked at that time has been cleared.
 *
 *   reader:  epoch_enter -> load pointer -> use -> epoch_leave       (per thread, nestable)
 *   writer:  store pointer -> epoch_retire(free_fn, old)
 *
 * What lives longer than a request takes a real reference (snapshot_acquire) inside the section.
 * Any thread may read: its slot is taken at the first enter and given back when the thread ends. */
#ifndef LOADSTONE_BASE_EPOCH_H
#define LOADSTONE_BASE_EPOCH_H

void epoch_enter(void);
void epoch_leave(void);

/* Calls fn(arg) once no reader can still see what was reachable before this call. Safe to call
 * inside or outside a reading section; fn runs on some later retiring or collecting thread and may
 * itself retire. */
void epoch_retire(void (*fn)(void *), void *arg);

/* Frees what can be freed. Called by the maintenance thread now and then. */
void epoch_collect(void);

/* Frees everything; only when no reader exists (shutdown, tests). */
void epoch_drain(void);

#endif
