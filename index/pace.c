/* The time that a build will still take.
 *
 *   start ··· first share said ──────── last share said ·· now
 *              from_us, from             at_us, share
 *
 * Left is what the rest takes at the pace between the two, less the time since the last was said,
 * which may be long: FAISS adds vectors in chunks. Shares count work, not rows (build_graph.c), so
 * that the pace is even.
 *
 * Threads: none of its own. Failure: none. */
#include "index/pace.h"

/* The least share that tells a pace. */
#define TELLING 0.01

void pace_start(struct pace *p, uint64_t now_us)
{
    *p = (struct pace){.from_us = now_us, .at_us = now_us};
}

void pace_note(struct pace *p, double share, uint64_t now_us)
{
    if (!p->said) {
        p->from_us = now_us;
        p->from = share;
        p->said = true;
    }
    p->at_us = now_us;
    p->share = share;
}

void pace_skip(struct pace *p, uint64_t us)
{
    p->from_us += us;
    p->at_us += us;
}

double pace_left_s(const struct pace *p, uint64_t now_us)
{
    double done = p->share - p->from;
    if (done < TELLING)
        return -1;
    double left_us = (double)(p->at_us - p->from_us) / done * (1 - p->share);
    double since_us = now_us > p->at_us ? (double)(now_us - p->at_us) : 0;
    return left_us > since_us ? (left_us - since_us) / 1e6 : 0;
}
