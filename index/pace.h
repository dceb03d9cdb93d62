/* How long a build will still take, by its own pace. A build says which share of its work is done;
 * what it does before it first says so (reading, sorting, sampling) is no part of that pace. */
#ifndef LOADSTONE_INDEX_PACE_H
#define LOADSTONE_INDEX_PACE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    uint64_t from_us, at_us; /* when the first and the last share were said */
    double from, share;
    bool said;
};

void pace_start(struct pace *p, uint64_t now_us);
/* It is `share` (0..1) done at that time. */
void pace_note(struct pace *p, double share, uint64_t now_us);
/* It stood still for so long, up to this moment. */
void pace_skip(struct pace *p, uint64_t us);
/* Seconds that are left; negative while too little is done to tell. */
double pace_left_s(const struct pace *p, uint64_t now_us);

#endif
