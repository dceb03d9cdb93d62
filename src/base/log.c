/* The daemon's own log: `time level message`, one line a message, on standard error.
 *
 * A line is put together on the stack and handed over in one write, so lines of different threads
 * do not mix. Bytes that would break the line (control characters, from a request perhaps) become
 * spaces. A message longer than the line is cut and ends in "...".
 *
 * Threads: any. Failure: a line that cannot be written is dropped; errno is kept. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { LINE_BYTES = 2048 };

static _Atomic int level_min = LOG_INFO;

static const char *const LEVEL_NAMES[] = {"debug", "info", "warn", "error"};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_min, (int)level, memory_order_relaxed);
}

static void blank_controls(char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = ' ';
    }
}

static void write_all(const char *line, size_t n)
{
    while (n > 0) {
        ssize_t w = write(STDERR_FILENO, line, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return;
        line += w;
        n -= (size_t)w;
    }
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if ((int)level < atomic_load_explicit(&level_min, memory_order_relaxed))
        return;
    int saved_errno = errno;
    char now[32], line[LINE_BYTES];
    clock_format_rfc3339(clock_wall_us(), now);
    size_t head = (size_t)snprintf(line, sizeof(line), "%s %s ", now, LEVEL_NAMES[level]);
    size_t room = sizeof(line) - head - 1; /* for the message and its NUL; one byte for '\n' */

    va_list args;
    line[head] = '\0';
    va_start(args, fmt);
    int n = vsnprintf(line + head, room, fmt, args);
    va_end(args);
    if (n >= (int)room)
        memcpy(line + head + room - sizeof("..."), "...", sizeof("..."));
    blank_controls(line + head);

    size_t len = head + strlen(line + head);
    line[len] = '\n';
    write_all(line, len + 1);
    errno = saved_errno;
}
