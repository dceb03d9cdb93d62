/* What the system says of this process. */
#ifndef LOADSTONE_BASE_PROCESS_H
#define LOADSTONE_BASE_PROCESS_H

#include <stdint.h>

struct process_stats {
    uint64_t resident_bytes; /* RSS: anonymous memory and pages of mapped files */
    uint64_t anonymous_bytes;
    uint64_t virtual_bytes;
    uint64_t open_files, open_files_max;
    uint64_t cpu_us; /* user and system, of all threads */
};

/* Reads /proc and takes about 0.1 ms, more with thousands of open files; what a system without
 * /proc does not tell is 0. */
void process_stats_get(struct process_stats *out);

#endif
