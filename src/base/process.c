/* Reads /proc/self.
 *
 * Threads: any. Failure: a figure that cannot be read is 0. */
#include "base/process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>

static void read_memory(struct process_stats *out)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[256];
    unsigned long long kib;
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "VmSize: %llu kB", &kib) == 1)
            out->virtual_bytes = kib * 1024;
        else if (sscanf(line, "VmRSS: %llu kB", &kib) == 1)
            out->resident_bytes = kib * 1024;
        else if (sscanf(line, "RssAnon: %llu kB", &kib) == 1)
            out->anonymous_bytes = kib * 1024;
    }
    if (f)
        fclose(f);
}

static uint64_t count_open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n ? n - 1 : 0; /* one is the directory's own */
}

static uint64_t micros(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

void process_stats_get(struct process_stats *out)
{
    struct rlimit files;
    struct rusage used;
    *out = (struct process_stats){.open_files = count_open_files()};
    read_memory(out);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        out->open_files_max = files.rlim_cur;
    if (getrusage(RUSAGE_SELF, &used) == 0)
        out->cpu_us = micros(used.ru_utime) + micros(used.ru_stime);
}
